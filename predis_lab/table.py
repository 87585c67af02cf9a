"""The Table protocol, and what its answers are made of.

A table speaks in Columns and milliseconds since the epoch. It trusts its caller: keys and values have been
checked (`checks.check_keys`, `check_values`), and calls are made with its lock held.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from .columns import Column
from .errors import CacheFull, DeviceFailed, InvalidValue
from .turns import CallLock

RECORD_HEADER_NBYTES = 16  # what every record costs beside its key and value, on either side

# Names in `Table.memory` with these endings count something else than bytes.
NO_BYTES = ("_count", "_ratio", "_seconds")

# What `expiry` answers where there is no moment to name; the numbers are Redis's.
ABSENT = -2
NEVER = -1

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

    def find(self, keys: Column, now_ms: int) -> pa.Array:
        """The values in the order of the keys, which lie in host memory, null where a key is absent or expired."""

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
        """As `insert` for one record; its `Status`, STORED also where one may have taken another's place.

        Every later call finds the record stored. Where the device stops answering before it is, one of them raises
        DeviceFailed or DeviceTimeout.
        """

    def expiry_of(self, key: bytes, now_ms: int) -> int:
        """As `expiry` for one key."""

    def drop(self, key: bytes, now_ms: int) -> bool:
        """As `erase` for one key."""

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
