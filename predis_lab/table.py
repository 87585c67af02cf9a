"""The Table protocol, and HostTable: the reference implementation, and the fallback without a GPU.

A table speaks in Columns and milliseconds since the epoch. It trusts its caller: keys and values have been
checked (`columns.check_keys`, `check_values`), and calls are made with its lock held.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from .columns import MAX_VALUE_NBYTES, Column
from .errors import (
    CacheFull,
    CorruptRecord,
    DeviceFailed,
    InvalidArgument,
    InvalidValue,
    UnsupportedType,
)
from .turns import CallLock

RECORD_HEADER_NBYTES = 16  # what every record costs beside its key and value, on either side

# Names in `Table.memory` with these endings count something else than bytes.
NO_BYTES = ("_count", "_ratio", "_seconds")

# What `expiry` answers where there is no moment to name; the numbers are Redis's.
ABSENT = -2
NEVER = -1

NO_DEVICE = "device=True needs a CUDA device: these records are in host memory"
NO_CHECKSUMS = "only a cache made with checksums=True can verify its records"


class Status(IntEnum):
    """What became of one record of an insert."""

    STORED = 0  # the key was absent
    UPDATED = 1  # the key was present: its value was replaced
    SUPERSEDED = 2  # a later record of the same batch has the same key
    TOO_LARGE = 3  # the value is longer than MAX_VALUE_NBYTES: not stored
    NO_SPACE = 4  # the capacity is used up: not stored
    FAILED = 5  # the device refused to go on before it came to this record: not stored


@dataclass(slots=True)  # frozen, one would take longer to make than a few records to check
class InsertReport:
    """One status per record, in the caller's order. Never changed once it is made.

    status:   int8 array of `Status`
    failure:  what the device said, where records FAILED
    """

    status: np.ndarray
    failure: str = ""

    @property
    def ok(self) -> bool:
        """Whether every record of the batch was accepted."""
        return not len(self.status) or int(self.status.max()) <= Status.SUPERSEDED

    def counts(self) -> dict[str, int]:
        """How many records met each fate, e.g. {'stored': 3, 'no_space': 1}."""
        numbers = np.bincount(self.status, minlength=len(Status))
        return {status.name.lower(): int(numbers[status]) for status in Status if numbers[status]}

    def raise_for_status(self) -> None:
        """Raises DeviceFailed, CacheFull or InvalidValue if a record was not accepted; what was accepted stays stored.

        The error has the statuses.
        """
        if self.ok:
            return
        said = ", ".join(f"{number} {name}" for name, number in self.counts().items())
        said += f" of {len(self.status)} records"
        if (self.status == Status.FAILED).any():
            raise DeviceFailed(f"{self.failure}: {said}", self.status)
        if (self.status == Status.NO_SPACE).any():
            raise CacheFull(f"the capacity is used up: {said}", self.status)
        raise InvalidValue(f"a value has at most 64 MiB: {said}", self.status)


class Table(Protocol):
    """What the client needs from whatever holds the records.

    lock:        to be held by whoever calls; a table may leave it while it waits for a device
    has_expiry:  whether a record may be going to expire

    Where it keeps checksums, `get` and `find` raise CorruptRecord rather than return what is not what was stored.
    """

    lock: CallLock

    @property
    def has_expiry(self) -> bool: ...

    def get(self, key: bytes, now_ms: int) -> bytes | None:
        """The value of one key, or None."""

    def find(self, keys: Column, now_ms: int) -> Column:
        """The values in the order of the keys, null where a key is absent or expired."""

    def find_on_device(self, keys: Column, now_ms: int) -> Column:
        """The same in device memory, on the current stream; raises InvalidArgument where there is no device."""

    def find_rows(self, keys: Column, width: int, now_ms: int) -> tuple[Any, Any]:
        """Values of `width` bytes as uint8 (n, width), zeros elsewhere, and whether each is one, bool (n,); as above."""

    def verify(self) -> int:
        """How many records no longer match their checksums; raises InvalidArgument where none are kept."""

    def contains(self, keys: Column, now_ms: int) -> np.ndarray:
        """bool per key."""

    def expiry(self, keys: Column, now_ms: int) -> np.ndarray:
        """int64 per key: when it expires in ms since the epoch, or ABSENT, or NEVER."""

    def prefetch(self, keys: Column, now_ms: int) -> None:
        """Announces keys: their records come to where lookups are fastest, as far as there is room, in their own time."""

    def insert(self, keys: Column, values: Column, expire_at_ms: int, now_ms: int) -> np.ndarray:
        """Stores the records, the last of equal keys winning; int8 `Status` per record.

        expire_at_ms: for the whole batch, NEVER for none. Once a record finds no space, later ones may be
        refused too. A refused record neither supersedes nor is superseded. Where the device refuses to go on, raises
        DeviceFailed: with the statuses, unless nothing was stored or what was can't be told.
        """

    def put(self, key: bytes, value: bytes, expire_at_ms: int, now_ms: int) -> int:
        """As `insert` for one record; its `Status`."""

    def erase(self, keys: Column, now_ms: int) -> np.ndarray:
        """bool per key: whether it was there. Of equal keys exactly one is told True."""

    def expire(self, keys: Column, expire_at_ms: int, now_ms: int) -> np.ndarray:
        """Sets when the keys expire (NEVER: not at all); bool per key, whether it was there."""

    def scan(self, count: int, now_ms: int) -> Iterator[Column]:
        """The keys in pieces of about `count`; the table may change in between.

        A key present throughout a whole scan is returned at least once, as by Redis's SCAN.
        """

    def count(self, now_ms: int) -> int:
        """How many keys there are that have not expired."""

    def compact(self, now_ms: int) -> int:
        """One step, short, of making the room of dead and expired records free; how many bytes, 0 where nothing pays."""

    def clear(self) -> None:
        """Removes every record."""

    def transfers(self) -> dict[str, float]:
        """What bulk calls have moved between host and device; empty where there is no device."""

    def memory(self) -> dict[str, int | float]:
        """Bytes by purpose: at least `capacity`, `used` (records, index and buffers) and `records`.

        What is no number of bytes has a name that ends with one of NO_BYTES.
        """

    def stats(self) -> dict[str, int]:
        """What has been counted besides hits and misses; nothing where records lie in one kind of memory only."""

    def describe(self) -> dict[str, str]:
        """What this table is: at least `backend` ("host" or "cuda") and `device`."""

    def close(self) -> None:
        """Gives the memory back. Arrays handed out before stay valid."""


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

    def find(self, keys: Column, now_ms: int) -> Column:
        if self.has_expiry:
            values = [self._value(key, now_ms) for key in _rows(keys)]
        else:
            found = map(self._records.get, _rows(keys))
            values = [None if record is None else record[0] for record in found]
        return Column.of(pa.array(values, pa.binary()))

    def verify(self) -> int:
        raise InvalidArgument(NO_CHECKSUMS)

    def contains(self, keys: Column, now_ms: int) -> np.ndarray:
        return np.array([self._value(key, now_ms) is not None for key in _rows(keys)], np.bool_)

    def expiry(self, keys: Column, now_ms: int) -> np.ndarray:
        present = self.contains(keys, now_ms).tolist()
        moments = [
            self._records[key][1] if there else ABSENT
            for key, there in zip(_rows(keys), present, strict=True)
        ]
        return np.array(moments, np.int64)

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

    def find(self, keys: Column, now_ms: int) -> Column:
        found = super().find(keys, now_ms)
        self._check(_rows(keys), found.to_arrow().to_pylist())
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
