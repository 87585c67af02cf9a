"""Redis's verbs on values and their expiry, with redis-py's signatures and answers. Called by `client`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .arguments import (
    checked_expiry,
    collect_names,
    encode_column,
    encode_key,
    encode_value,
    expiry,
    milliseconds,
    now_ms,
)
from .calls import Call, WriteCall
from .checks import check_keys
from .columns import Column
from .errors import InvalidArgument, UnsupportedType
from .hot import HotTier
from .table import ABSENT, NEVER, InsertReport, Status, Table


class Verbs:
    """What `Predis` answers key by key, or by lists of them. It has the columns that lists become."""

    _table: Table
    _call: Call
    _hot: HotTier | None
    _decode: bool
    _hits: int
    _misses: int
    find: Callable[..., Any]
    insert: Callable[..., InsertReport]

    # ---- Values

    def get(self, name: Any) -> bytes | str | None:
        """The value, or None."""
        hot, key = self._hot, name if type(name) is bytes else encode_key(name)
        value = None if hot is None else hot.get(key)
        if value is None:
            value = self._get(encode_key(key))
        return value.decode() if self._decode and value is not None else value

    def _get(self, key: bytes) -> bytes | None:
        hot, call = self._hot, self._call
        table = call.begin()
        try:  # `with` would take a tenth longer, all in all
            now, version = now_ms(), hot.version if hot is not None else 0
            value = table.get(key, now)
            if value is None:
                self._misses += 1
            else:
                self._hits += 1
            if hot is not None:
                hot.missed += 1
                if value is not None and hot.takes(key, value):
                    expires_at = NEVER
                    if table.has_expiry:
                        expires_at = table.expiry_of(key, now)
                    if expires_at != ABSENT:
                        hot.keep(key, (value, expires_at), version)
        finally:
            call.end()
        return value

    def set(
        self,
        name: Any,
        value: Any,
        ex: Any = None,
        px: Any = None,
        nx: bool = False,
        xx: bool = False,
        keepttl: bool = False,
        get: bool = False,
        exat: Any = None,
        pxat: Any = None,
    ) -> Any:
        """True, or None where nx or xx kept it from being stored; with `get` the old value or None.

        Every later call finds the record. On a GPU it may still be on its way there: should the device stop answering before
        it is stored, a later call raises DeviceFailed or DeviceTimeout.
        """
        key, data = encode_key(name), encode_value(value)
        if nx and xx:
            raise InvalidArgument("nx and xx exclude each other")
        call = self._writing(key)
        with call as table:
            now, answer = now_ms(), True
            expire_at = expiry(now, ex, px, exat, pxat, keepttl)
            if nx or xx or get:
                old = table.get(key, now)
                answer = self._answer(old) if get else True
                if (nx and old is not None) or (xx and old is None):
                    return answer if get else None
            if keepttl:
                expire_at = max(NEVER, table.expiry_of(key, now))
            status = table.put(key, data, expire_at, now)
            if status > Status.UPDATED:
                InsertReport(np.array([status], np.int8)).raise_for_status()
            if isinstance(call, WriteCall):
                call.left = key, (data, expire_at)
        return answer

    def mget(self, keys: Any, *args: Any) -> list:
        """The values in the order of the keys, None for misses."""
        column: Any = self.find(encode_column(collect_names(keys, args), encode_key))
        found = column.to_pylist()
        return [self._answer(value) for value in found] if self._decode else found

    def mset(self, mapping: Mapping[Any, Any]) -> bool:
        """True. Where some records can't be stored the others are, and CacheFull or DeviceFailed has a status for each."""
        if not isinstance(mapping, Mapping):
            raise UnsupportedType(f"mset takes a mapping, not {type(mapping).__name__}")
        if not mapping:
            raise InvalidArgument("mset needs at least one record")
        keys = encode_column(mapping, encode_key)
        self.insert(keys, encode_column(mapping.values(), encode_value)).raise_for_status()
        return True

    def delete(self, *names: Any) -> int:
        """How many of the keys were there."""
        if len(names) != 1:
            return int(np.count_nonzero(self._erase(_name_column(names))))
        key = encode_key(names[0])
        with self._writing(key) as table:
            return int(table.drop(key, now_ms()))

    def exists(self, *names: Any) -> int:
        """How many of the keys are there; a key named twice counts twice."""
        if len(names) != 1:
            return int(np.count_nonzero(self._contains(_name_column(names))))
        key = encode_key(names[0])
        with self._call as table:
            return int(table.expiry_of(key, now_ms()) != ABSENT)

    # ---- Expiry

    def expire(
        self,
        name: Any,
        time: Any,
        nx: bool = False,
        xx: bool = False,
        gt: bool = False,
        lt: bool = False,
    ) -> bool:
        """Sets the time to live in seconds; False where there is no such key or a condition does not hold."""
        return self._expire(name, milliseconds(time, 1000), nx, xx, gt, lt)

    def pexpire(
        self,
        name: Any,
        time: Any,
        nx: bool = False,
        xx: bool = False,
        gt: bool = False,
        lt: bool = False,
    ) -> bool:
        """Sets the time to live in milliseconds; else as `expire`."""
        return self._expire(name, milliseconds(time, 1), nx, xx, gt, lt)

    def _expire(self, name: Any, ttl_ms: int, nx: bool, xx: bool, gt: bool, lt: bool) -> bool:
        if (nx and (xx or gt or lt)) or (gt and lt):
            raise InvalidArgument("nx excludes xx, gt and lt; gt excludes lt")
        key = encode_key(name)
        with self._writing(key) as table:
            now = now_ms()
            old, new = table.expiry_of(key, now), checked_expiry(now + ttl_ms)
            never = old == NEVER  # which Redis takes for later than any moment
            if old == ABSENT or (nx and not never) or (xx and never):
                return False
            if (gt and (never or new <= old)) or (lt and not never and new >= old):
                return False
            if ttl_ms <= 0:
                return table.drop(key, now)
            return bool(table.expire(Column.single(key), new, now)[0])

    def persist(self, name: Any) -> bool:
        """Removes the time to live; False where there is none."""
        key = encode_key(name)
        with self._writing(key) as table:
            now = now_ms()
            if table.expiry_of(key, now) < 0:
                return False
            return bool(table.expire(Column.single(key), NEVER, now)[0])

    def ttl(self, name: Any) -> int:
        """Seconds to live, rounded; -1 without expiry, -2 where there is no such key."""
        left = self.pttl(name)
        return left if left < 0 else (left + 500) // 1000

    def pttl(self, name: Any) -> int:
        """Milliseconds to live; -1 without expiry, -2 where there is no such key."""
        key = encode_key(name)
        with self._call as table:
            now = now_ms()
            moment = table.expiry_of(key, now)
        return moment if moment < 0 else moment - now

    # ---- Inside

    def _writing(self, keys: Column | bytes | None) -> Call | WriteCall:
        hot = self._hot
        return self._call if hot is None else WriteCall(self._call, hot, keys)

    def _contains(self, keys: Column) -> np.ndarray:
        with self._call as table:
            return table.contains(keys, now_ms())

    def _erase(self, keys: Column) -> np.ndarray:
        with self._writing(keys) as table:
            return table.erase(keys, now_ms())

    def _answer(self, value: bytes | None) -> Any:
        return value.decode() if self._decode and value is not None else value


def _name_column(names: tuple) -> Column:
    return check_keys(encode_column(names, encode_key))
