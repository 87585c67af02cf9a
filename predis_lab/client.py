"""Predis: what a user holds. Redis's verbs for Python objects, a hash table's verbs for columns."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np

from .arguments import (
    encode,
    expiry,
    now_ms,
    parse_capacity,
    row_layout,
    scan_count,
)
from .backend import make_table
from .calls import Call
from .checks import check_keys, check_values
from .columns import Column
from .dense import dense_rows
from .errors import DeviceFailed, InvalidArgument, UnsupportedType
from .glob import compile_glob
from .gpu.health import TIMEOUT_S
from .gpu.tuning import Tuning
from .hot import HotTier
from .table import NO_BYTES, InsertReport, Table
from .verbs import Verbs

# Seconds between two steps of `compact`: a lock that is taken again at once goes to whoever gave it back.
BREATH_SECONDS = 1e-4
SCAN_COUNT = 1000  # keys per step of `scan_iter` where the caller names no count


class Predis(Verbs):
    """A cache whose records live in GPU memory, or in a dict where there is no GPU.

    >>> cache = Predis(capacity="64MiB", backend="host")
    >>> cache.set("price:AAPL", b"101.3", ex=60)
    True
    >>> cache.mget(["price:AAPL", "price:MSFT"])
    [b'101.3', None]
    >>> cache.insert([b"a", b"b"], [b"1", b"2"]).ok
    True
    >>> cache.find([b"b", b"c"]).to_pylist()
    [b'2', None]

    capacity:          bytes for records and index, or text such as "8GiB" or "500MB"; a device's are taken at once
    host_capacity:     as much host memory for records that the device has no room for: the oldest move there, and come
                       back when they are read twice within a time; pinned as it is needed
    backend:           "cuda", "host", or "auto": cuda where a device answers
    decode_responses:  str instead of bytes from Redis's verbs, UTF-8
    checksums:         each record carries one, and is checked before `find`, `get` or `mget` returns it; see `verify`
    timeout_s:         how long a step on the device may take before DeviceTimeout is raised
    hot_bytes:         as much host memory, or text, for copies of small records that `get` read or `set` wrote of late, which
                       `get` then answers without the device; 0: none. Never older than the record, whoever writes
    doorbell:          whether calls of a few keys are answered by a block that stays on the device for some milliseconds
                       at a time, without a launch for each; on x86-64 hosts
    tuning:            a `Tuning` to pin what calls are cut and sent by; None: what was measured on this machine, followed while
                       it runs. A dict has nothing to tune

    Redis's verbs have redis-py's signatures and answers; where Redis would send an error they raise one of
    `predis_lab.errors` before anything is stored. Any thread may call any verb; of a batch of many megabytes each
    record is read or stored at one moment, not all at the same one.
    """

    def __init__(
        self,
        capacity: int | str = "1GiB",
        *,
        host_capacity: int | str = 0,
        backend: str = "auto",
        decode_responses: bool = False,
        checksums: bool = False,
        timeout_s: float = TIMEOUT_S,
        hot_bytes: int | str = 0,
        doorbell: bool = True,
        tuning: Tuning | None = None,
    ):
        if not timeout_s > 0:
            raise InvalidArgument(f"timeout_s is a positive number of seconds, not {timeout_s!r}")
        if not isinstance(tuning, Tuning | None):
            raise UnsupportedType(f"tuning is a Tuning or None, not {type(tuning).__name__}")
        nbytes = parse_capacity(capacity), parse_capacity(host_capacity, least=0)
        hot_nbytes = parse_capacity(hot_bytes, least=0)
        self._table: Table = make_table(
            nbytes[0], backend, nbytes[1], checksums, timeout_s, doorbell, tuning
        )
        self._hot = HotTier(hot_nbytes) if hot_nbytes else None
        self._decode = decode_responses
        self._call = Call(self._table)
        self._started = time.monotonic()
        self._hits = self._misses = 0

    # ---- Columns

    def find(
        self, keys: Any, *, device: bool = False, dtype: Any = None, shape: tuple[int, ...] = ()
    ) -> Any:
        """The values in the order of the keys; null where a key is absent or has expired.

        keys:     any column of byte strings, see `Column.of`; duplicates are allowed
        device:   leave the values on the device, as for keys that lie there, on the current stream; hits are not counted
        dtype:    of one number: values are arrays of `shape`, as `insert` takes them
        returns:  an Arrow binary array of n rows; on the device a Column. With dtype (rows, found): an array
                  (n, *shape), NumPy's or on the device CuPy's, zeros where found, bool (n,), says that there is no value
                  of that size
        raises:   InvalidKey, InvalidArgument, UnsupportedType, CorruptRecord, CacheClosed, DeviceTimeout, DeviceFailed

        >>> cache = Predis("64MiB", backend="host")
        >>> _ = cache.insert([b"a"], np.array([[1.5, 2.5]], "f4"))
        >>> cache.find([b"a", b"b"], dtype="f4", shape=(2,))[0].tolist()
        [[1.5, 2.5], [0.0, 0.0]]
        """
        column = check_keys(Column.of(keys))
        if dtype is not None or shape != () or device or column.on_device:
            return self._find_laid_out(column, device, dtype, shape)
        call = self._call
        table = call.begin()
        try:  # as in `get`
            return self._counted(table.find(column, now_ms()))
        finally:
            call.end()

    def _find_laid_out(self, keys: Column, device: bool, dtype: Any, shape: tuple[int, ...]) -> Any:
        """As `find`, in the caller's shape or where the caller wants them."""
        number, width = row_layout(dtype, shape)
        device |= keys.on_device
        with self._call as table:
            now = now_ms()
            if device and number is None:
                return table.find_on_device(keys, now)
            if device:
                rows, found = table.find_rows(keys, width, now)
            else:
                answer = self._counted(table.find(keys, now))
        if not device:
            rows, found = dense_rows(Column.of(answer), width)
        return rows.view(number).reshape(len(keys), *shape), found

    def _counted(self, values: Any) -> Any:
        missing = values.null_count
        self._hits += len(values) - missing
        self._misses += missing
        return values

    def prefetch(self, keys: Any) -> None:
        """Announces keys that are about to be looked up: records on the host come back to the device ahead of that.

        Returns at once. They come in the background, while nobody writes; `info("stats")` tells how many keys are pending.

        >>> cache = Predis(capacity="64MiB", host_capacity="1GiB", backend="host")
        >>> cache.prefetch([b"a", b"b"])

        keys:     as for `find`, and copied; absent ones are passed over, and what exceeds half of the device's room stays on
                  the host
        raises:   InvalidKey, UnsupportedType, CacheClosed, DeviceTimeout
        """
        column = check_keys(Column.of(keys))
        with self._call as table:
            table.prefetch(column, now_ms())

    def insert(
        self,
        keys: Any,
        values: Any,
        *,
        ex: int | timedelta | None = None,
        px: int | timedelta | None = None,
    ) -> InsertReport:
        """Stores n records; of equal keys the last wins. A record that is refused leaves the others stored.

        With a host capacity, a batch of more than a quarter of the device's is stored as several.

        keys, values:  columns of n byte strings
        ex, px:        time to live in seconds, in milliseconds; for all of them
        returns:       a status per record; of a batch that the device refuses to go on with, what came before is stored
        raises:        InvalidKey, InvalidValue, InvalidArgument, UnsupportedType, CacheClosed, DeviceTimeout, and
                       DeviceFailed where nothing was stored, or what was can't be told
        """
        key_column = check_keys(Column.of(keys))
        value_column = check_values(Column.of(values), key_column)
        with self._writing(key_column) as table:
            now = now_ms()
            expire_at = expiry(now, ex, px)
            try:
                return InsertReport(table.insert(key_column, value_column, expire_at, now))
            except DeviceFailed as error:
                if error.status is None:
                    raise
                return InsertReport(error.status, str(error))

    def erase(self, keys: Any) -> np.ndarray:
        """Removes the keys; bool (n,), whether each was there. Of equal keys exactly one was."""
        return self._erase(check_keys(Column.of(keys)))

    def contains(self, keys: Any) -> np.ndarray:
        """bool (n,), whether each key is there."""
        return self._contains(check_keys(Column.of(keys)))

    def verify(self) -> int:
        """How many records no longer match their checksums: 0 in a sound cache.

        raises:   InvalidArgument where the cache was not made with checksums=True, CacheClosed
        """
        with self._call as table:
            return table.verify()

    # ---- The whole cache

    def dbsize(self) -> int:
        """How many keys there are."""
        with self._call as table:
            return table.count(now_ms())

    def flushdb(self, asynchronous: bool = False) -> bool:
        """Removes every key. `asynchronous` changes nothing: memory is given back at once."""
        with self._writing(None) as table:
            table.clear()
        return True

    def compact(self) -> int:
        """Makes the room of dead and expired records free to be written to; how many bytes that is.

        Writes do so themselves where they find no room; called beforehand, it spares them the wait. It goes by steps,
        each of which moves what fits into one segment (`log_segment_memory`) at most; calls of other threads get through
        in between. Keys, values and what has been handed out stay as they are.
        """
        freed = 0
        while True:
            with self._call as table:
                step = table.compact(now_ms())
            freed += step
            if not step:
                return freed
            time.sleep(BREATH_SECONDS)

    def scan_iter(self, match: Any = None, count: int | None = None) -> Iterator:
        """The keys, in no order; one present from the first to the last is returned at least once."""
        step = SCAN_COUNT if count is None else scan_count(count)
        wanted = None if match is None else compile_glob(encode(match, "a pattern"))
        with self._call as table:
            pieces = table.scan(step, now_ms())
        while True:
            with self._call:
                piece = next(pieces, None)
            if piece is None:
                return
            for key in piece.to_arrow().to_pylist():
                if wanted is None or wanted.fullmatch(key):
                    yield self._answer(key)

    def info(self, section: str | None = None) -> dict[str, Any]:
        """Facts under Redis's names where it has one; sections server, memory, stats, transfers, keyspace."""
        from . import __version__

        with self._call as table:
            memory, keys, hot = table.memory(), table.count(now_ms()), self._hot
            hot_hits = 0 if hot is None else hot.hits
            if hot is not None:
                memory["hot"] = hot.nbytes
            sections: dict[str, dict[str, Any]] = {
                "server": {
                    "predis_version": __version__,
                    **table.describe(),
                    "uptime_in_seconds": int(time.monotonic() - self._started),
                },
                "memory": {
                    "used_memory": memory.pop("used"),
                    "maxmemory": memory.pop("capacity"),
                    **{
                        name if name.endswith(NO_BYTES) else f"{name}_memory": number
                        for name, number in memory.items()
                    },
                },
                "stats": {
                    "total_commands_processed": self._call.commands + hot_hits,
                    "keyspace_hits": self._hits + hot_hits,
                    "keyspace_misses": self._misses,
                    **table.stats(),
                    **({} if hot is None else hot.stats()),
                },
                "transfers": table.transfers(),
                "keyspace": {"db0": {"keys": keys}} if keys else {},
            }
        if section is None:
            return {name: value for facts in sections.values() for name, value in facts.items()}
        return sections.get(section.lower(), {})

    @property
    def tuning(self) -> Any:
        """What calls are chosen by, see `gpu.told.InForce`: prints itself, and `explain(n, value_nbytes)` says why.

        None without a GPU: a dict has one way through. raises: CacheClosed
        """
        with self._call as table:
            return getattr(table, "tuning", None)

    # ---- Python's own

    def __contains__(self, name: Any) -> bool:
        return self.exists(name) == 1

    def __len__(self) -> int:
        return self.dbsize()

    def __enter__(self) -> Predis:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the memory back; every later call raises CacheClosed. Arrays handed out before stay valid."""
        with self._table.lock:
            if not self._call.closed:
                self._call.closed = True
                self._hot = None
                self._table.close()
