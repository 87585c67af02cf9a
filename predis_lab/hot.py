"""HotTier: copies of small records that were read of late, as Python objects. A read of a hot key then costs what a dict's does.

Two dicts of half the bytes each: what is read goes to the young one, and when that is full it becomes the old one, whose
records that nobody read meanwhile are gone. Reads of young records take no lock.

A copy is never older than the table's record: a write drops it before it begins, and until the write is done nothing that
was read meanwhile is kept. Called by `client` and `calls`.
"""

from __future__ import annotations

import itertools
import threading

from .arguments import now_ms
from .columns import Column

LARGEST_NBYTES = 2**12  # of a value: longer ones are no matter of microseconds
LARGEST_SHARE = 1 / 8  # of the capacity, of a record
# What Python takes for a record beside the bytes themselves: two objects, a tuple, a number, and places in a dict.
RECORD_NBYTES = 240
NAMED = 2**10  # keys of a batch that are dropped one by one; a longer one empties the tier

Record = tuple[bytes, int]  # value, and when it expires: ms since the epoch, or NEVER


class HotTier:
    """Copies of records, up to capacity_nbytes of host memory.

    version:       changes whenever a write begins or ends
    hits, missed:  single reads that a copy answered, and that had to ask the table
    """

    def __init__(self, capacity_nbytes: int):
        self.capacity_nbytes = capacity_nbytes
        self._lock = threading.Lock()
        self._young: dict[bytes, Record] = {}
        self._old: dict[bytes, Record] = {}
        self._young_nbytes = self._old_nbytes = 0
        self._writers = self.version = self.missed = 0
        self._numbers, self.hits = itertools.count(1), 0

    def get(self, key: bytes) -> bytes | None:
        """The value where there is a copy that has not expired."""
        record = self._young.get(key)
        if record is None:
            if key not in self._old:
                return None
            record = self._promoted(key)
            if record is None:
                return None
        value, expires_at = record
        if 0 <= expires_at <= now_ms():
            return None
        # Without a lock: no hit is lost, though for a moment a few may be missing.
        self.hits = next(self._numbers)
        return value

    def takes(self, key: bytes, value: bytes) -> bool:
        """Whether a record is small enough: one of many."""
        most = LARGEST_SHARE * self.capacity_nbytes
        return len(value) <= LARGEST_NBYTES and _nbytes(key, value) <= most

    def keep(self, key: bytes, record: Record, version: int) -> None:
        """Keeps a copy of what the table said, unless there has been a write since `version`."""
        with self._lock:
            if not self._writers and self.version == version:
                self._put(key, record)

    # ---- Writes

    def begin(self, keys: Column | bytes | None) -> int:
        """A write of these keys begins, of one, or of all; the version to end it with."""
        with self._lock:
            self._writers += 1
            self.version += 1
            self._drop(keys)
            return self.version

    def end(self, version: int, key: bytes = b"", record: Record | None = None) -> None:
        """The write is done; it left this record, which is kept unless there was another write meanwhile."""
        with self._lock:
            self._writers -= 1
            alone = not self._writers and self.version == version
            self.version += 1
            if alone and record is not None and self.takes(key, record[0]):
                self._put(key, record)

    # ---- What there is

    @property
    def nbytes(self) -> int:
        """Host memory taken by the copies, about."""
        return self._young_nbytes + self._old_nbytes

    def stats(self) -> dict[str, float]:
        """Hits of single reads, and their share of all of those."""
        return {
            "hot_hits": self.hits,
            "hot_hit_ratio": self.hits / max(1, self.hits + self.missed),
        }

    # ---- Inside, with the lock held

    def _promoted(self, key: bytes) -> Record | None:
        with self._lock:
            record = self._old.get(key)
            if record is not None:
                self._put(key, record)
        return record

    def _put(self, key: bytes, record: Record) -> None:
        self._remove(key)
        nbytes = _nbytes(key, record[0])
        if self._young_nbytes + nbytes > self.capacity_nbytes // 2:
            self._old, self._old_nbytes = self._young, self._young_nbytes
            self._young, self._young_nbytes = {}, 0
        self._young[key] = record
        self._young_nbytes += nbytes

    def _drop(self, keys: Column | bytes | None) -> None:
        if not self._young and not self._old:
            return
        if isinstance(keys, bytes):
            self._remove(keys)
            return
        if keys is None or keys.on_device or len(keys) > NAMED:
            self._young, self._old = {}, {}
            self._young_nbytes = self._old_nbytes = 0
            return
        for key in keys.to_arrow().to_pylist():
            self._remove(key)

    def _remove(self, key: bytes) -> None:
        record = self._young.pop(key, None)
        if record is not None:
            self._young_nbytes -= _nbytes(key, record[0])
        record = self._old.pop(key, None)
        if record is not None:
            self._old_nbytes -= _nbytes(key, record[0])


def _nbytes(key: bytes, value: bytes) -> int:
    return len(key) + len(value) + RECORD_NBYTES
