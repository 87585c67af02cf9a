"""HostTable: a table in a dict, the reference implementation, and the fallback without a GPU. Called by `backend`."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from .checks import MAX_VALUE_NBYTES
from .columns import Column
from .errors import CorruptRecord, InvalidArgument, UnsupportedType
from .table import ABSENT, NO_CHECKSUMS, RECORD_HEADER_NBYTES, Status
from .turns import CallLock

NO_DEVICE = "device=True needs a CUDA device: these records are in host memory"


class HostTable:
    """A dict with expiry. Its figures are a Python dict's, and are never shown as a GPU's.

    capacity_nbytes: keys, values and RECORD_HEADER_NBYTES per record together
    """

    def __init__(self, capacity_nbytes: int):
        self.lock = CallLock()
        self._capacity = capacity_nbytes
        self._records: dict[bytes, tuple[bytes, int]] = {}
        self._used = 0
        self.has_expiry = False

    def _value(self, key: bytes, now_ms: int) -> bytes | None:
        record = self._records.get(key)
        if record is None or 0 <= record[1] <= now_ms:
            return None
        return record[0]

    get = _value  # for the client; the table itself also asks where nothing is returned

    def find(self, keys: Column, now_ms: int) -> pa.Array:
        if self.has_expiry:
            values = [self._value(key, now_ms) for key in _rows(keys)]
        else:
            found = map(self._records.get, _rows(keys))
            values = [None if record is None else record[0] for record in found]
        return pa.array(values, pa.binary())

    def verify(self) -> int:
        raise InvalidArgument(NO_CHECKSUMS)

    def contains(self, keys: Column, now_ms: int) -> np.ndarray:
        return np.array([self._value(key, now_ms) is not None for key in _rows(keys)], np.bool_)

    def expiry(self, keys: Column, now_ms: int) -> np.ndarray:
        return np.array([self.expiry_of(key, now_ms) for key in _rows(keys)], np.int64)

    def expiry_of(self, key: bytes, now_ms: int) -> int:
        return ABSENT if self._value(key, now_ms) is None else self._records[key][1]

    def prefetch(self, keys: Column, now_ms: int) -> None:
        _rows(keys[:0])  # raises where they lie on a device

    def insert(self, keys: Column, values: Column, expire_at_ms: int, now_ms: int) -> np.ndarray:
        rows, data = _rows(keys), _rows(values)
        surely = keys.nbytes + values.nbytes + RECORD_HEADER_NBYTES * len(rows)
        if (
            self._used + surely <= self._capacity
            and values.lengths_range()[1] <= MAX_VALUE_NBYTES
            and len(set(rows)) == len(rows)
            and not self.has_expiry
        ):
            return self._insert_plainly(rows, data, expire_at_ms)
        return self._insert_with_care(rows, data, expire_at_ms, now_ms)

    def put(self, key: bytes, value: bytes, expire_at_ms: int, now_ms: int) -> int:
        return int(self._insert_with_care([key], [value], expire_at_ms, now_ms)[0])

    def _insert_plainly(
        self, keys: list[bytes], values: list[bytes], expire_at_ms: int
    ) -> np.ndarray:
        """For distinct keys that surely find room, in a table without expiry: nearly every batch."""
        records, used, status = self._records, self._used, []
        stored, updated = int(Status.STORED), int(Status.UPDATED)
        for key, value in zip(keys, values, strict=True):
            old = records.get(key)
            if old is None:
                used += RECORD_HEADER_NBYTES + len(key) + len(value)
                status.append(stored)
            else:
                used += len(value) - len(old[0])
                status.append(updated)
            records[key] = (value, expire_at_ms)
        self._used = used
        self.has_expiry = expire_at_ms >= 0 and len(keys) > 0
        return np.array(status, np.int8)

    def _insert_with_care(
        self, keys: list[bytes], values: list[bytes], expire_at_ms: int, now_ms: int
    ) -> np.ndarray:
        status = np.empty(len(keys), np.int8)
        row_of: dict[bytes, int] = {}
        for row, (key, value) in enumerate(zip(keys, values, strict=True)):
            if len(value) > MAX_VALUE_NBYTES:
                status[row] = Status.TOO_LARGE
                continue
            old = self._value(key, now_ms)
            if not self._make_room(
                _cost(key, value) - (0 if old is None else _cost(key, old)), now_ms
            ):
                status[row] = Status.NO_SPACE
                continue
            if key in row_of:
                status[row], status[row_of[key]] = status[row_of[key]], Status.SUPERSEDED
            else:
                status[row] = Status.STORED if old is None else Status.UPDATED
            row_of[key] = row
            self._remove(key, now_ms)
            self._used += _cost(key, value)
            self._records[key] = (value, expire_at_ms)
            self.has_expiry |= expire_at_ms >= 0
        return status

    def drop(self, key: bytes, now_ms: int) -> bool:
        return self._remove(key, now_ms)

    def erase(self, keys: Column, now_ms: int) -> np.ndarray:
        return np.array([self._remove(key, now_ms) for key in _rows(keys)], np.bool_)

    def expire(self, keys: Column, expire_at_ms: int, now_ms: int) -> np.ndarray:
        present = self.contains(keys, now_ms)
        for key, there in zip(_rows(keys), present.tolist(), strict=True):
            if there:
                self._records[key] = (self._records[key][0], expire_at_ms)
                self.has_expiry |= expire_at_ms >= 0
        return present

    def scan(self, count: int, now_ms: int) -> Iterator[Column]:
        keys = list(self._records)
        for start in range(0, len(keys), count):
            piece = [
                key for key in keys[start : start + count] if self._value(key, now_ms) is not None
            ]
            yield Column.of(pa.array(piece, pa.binary()))

    def count(self, now_ms: int) -> int:
        self._purge(now_ms)
        return len(self._records)

    def compact(self, now_ms: int) -> int:
        before = self._used
        self._purge(now_ms)
        return before - self._used

    def clear(self) -> None:
        self._records = {}
        self._used = 0
        self.has_expiry = False

    def memory(self) -> dict[str, int | float]:
        return {"capacity": self._capacity, "used": self._used, "records": self._used}

    def find_on_device(self, keys: Column, now_ms: int) -> Column:
        raise InvalidArgument(NO_DEVICE)

    def find_rows(self, keys: Column, width: int, now_ms: int) -> tuple[Any, Any]:
        raise InvalidArgument(NO_DEVICE)

    def transfers(self) -> dict[str, float]:
        return {}

    def stats(self) -> dict[str, int]:
        return {}

    def describe(self) -> dict[str, str]:
        return {"backend": "host", "device": "host memory"}

    def close(self) -> None:
        self.clear()

    def _remove(self, key: bytes, now_ms: int) -> bool:
        record = self._records.pop(key, None)
        if record is None:
            return False
        self._used -= _cost(key, record[0])
        return not 0 <= record[1] <= now_ms

    def _make_room(self, nbytes: int, now_ms: int) -> bool:
        if self._used + nbytes > self._capacity:
            self._purge(now_ms)
        return self._used + nbytes <= self._capacity

    def _purge(self, now_ms: int) -> None:
        if not self.has_expiry:
            return
        for key in [key for key, (_, at) in self._records.items() if 0 <= at <= now_ms]:
            self._remove(key, now_ms)
        self.has_expiry = any(at >= 0 for _, at in self._records.values())


class CheckedHostTable(HostTable):
    """A HostTable that keeps a CRC-32 beside every record, and checks what it hands out."""

    def __init__(self, capacity_nbytes: int):
        super().__init__(capacity_nbytes)
        self._checksums: dict[bytes, int] = {}

    def get(self, key: bytes, now_ms: int) -> bytes | None:
        value = self._value(key, now_ms)
        self._check([key], [value])
        return value

    def find(self, keys: Column, now_ms: int) -> pa.Array:
        found = super().find(keys, now_ms)
        self._check(_rows(keys), found.to_pylist())
        return found

    def verify(self) -> int:
        return sum(not self._is_sound(key, value) for key, (value, _) in self._records.items())

    def insert(self, keys: Column, values: Column, expire_at_ms: int, now_ms: int) -> np.ndarray:
        status = super().insert(keys, values, expire_at_ms, now_ms)
        for key, value, fate in zip(_rows(keys), _rows(values), status.tolist(), strict=True):
            if fate in (Status.STORED, Status.UPDATED):
                self._checksums[key] = _checksum(key, value)
        return status

    def put(self, key: bytes, value: bytes, expire_at_ms: int, now_ms: int) -> int:
        return int(self.insert(Column.of([key]), Column.of([value]), expire_at_ms, now_ms)[0])

    def clear(self) -> None:
        super().clear()
        self._checksums = {}

    def _remove(self, key: bytes, now_ms: int) -> bool:
        self._checksums.pop(key, None)
        return super()._remove(key, now_ms)

    def _is_sound(self, key: bytes, value: bytes) -> bool:
        return _checksum(key, value) == self._checksums.get(key)

    def _check(self, keys: list[bytes], values: list[bytes | None]) -> None:
        corrupt = [
            key
            for key, value in zip(keys, values, strict=True)
            if value is not None and not self._is_sound(key, value)
        ]
        if corrupt:
            raise CorruptRecord(len(corrupt), corrupt[0])


def _checksum(key: bytes, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(key, zlib.crc32(b"%d %d " % (len(key), len(value)))))


def _rows(column: Column) -> list[bytes]:
    if column.on_device:
        raise UnsupportedType("a column on the device needs backend='cuda'")
    return column.to_arrow().to_pylist()


def _cost(key: bytes, value: bytes) -> int:
    return RECORD_HEADER_NBYTES + len(key) + len(value)
