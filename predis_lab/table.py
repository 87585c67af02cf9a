"""The Table protocol, and HostTable: the reference implementation, and the fallback without a GPU.

A table speaks in Columns and milliseconds since the epoch. It trusts its caller: keys and values have been
checked (`columns.check_keys`, `check_values`), and calls come one at a time (the client holds a lock).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np

from .columns import Column
from .errors import CacheFull, InvalidValue

RECORD_HEADER_NBYTES = 16  # what every record costs beside its key and value, on either side

# What `expiry` answers where there is no moment to name; the numbers are Redis's.
ABSENT = -2
NEVER = -1


class Status(IntEnum):
    """What became of one record of an insert."""

    STORED = 0  # the key was absent
    UPDATED = 1  # the key was present: its value was replaced
    SUPERSEDED = 2  # a later record of the same batch has the same key
    TOO_LARGE = 3  # the value is longer than MAX_VALUE_NBYTES: not stored
    NO_SPACE = 4  # the capacity is used up: not stored


@dataclass(frozen=True)
class InsertReport:
    """One status per record, in the caller's order. `status`: int8 array of `Status`."""

    status: np.ndarray

    @property
    def ok(self) -> bool:
        """Whether every record of the batch was accepted."""
        return not len(self.status) or int(self.status.max()) <= Status.SUPERSEDED

    def counts(self) -> dict[str, int]:
        """How many records met each fate, e.g. {'stored': 3, 'no_space': 1}."""
        numbers = np.bincount(self.status, minlength=len(Status))
        return {status.name.lower(): int(numbers[status]) for status in Status if numbers[status]}

    def raise_for_status(self) -> None:
        """Raises InvalidValue or CacheFull if a record was not accepted; what was accepted stays stored."""
        if self.ok:
            return
        said = ", ".join(f"{number} {name}" for name, number in self.counts().items())
        if (self.status == Status.NO_SPACE).any():
            raise CacheFull(
                f"the capacity is used up: {said} of {len(self.status)} records", self.status
            )
        raise InvalidValue(f"a value has at most 64 MiB: {said} of {len(self.status)} records")


class Table(Protocol):
    """What the client needs from whatever holds the records."""

    def get(self, key: bytes, now_ms: int) -> bytes | None:
        """The value of one key, or None."""

    def find(self, keys: Column, now_ms: int) -> Column:
        """The values in the order of the keys, null where a key is absent or expired."""

    def contains(self, keys: Column, now_ms: int) -> np.ndarray:
        """bool per key."""

    def expiry(self, keys: Column, now_ms: int) -> np.ndarray:
        """int64 per key: when it expires in ms since the epoch, or ABSENT, or NEVER."""

    def insert(self, keys: Column, values: Column, expire_at_ms: int, now_ms: int) -> np.ndarray:
        """Stores the records, the last of equal keys winning; int8 `Status` per record.

        expire_at_ms: for the whole batch, NEVER for none. Records that do not fit are left out, in the
        order of the batch from some point on or one by one; what is said to be stored is stored whole.
        """

    def erase(self, keys: Column, now_ms: int) -> np.ndarray:
        """bool per key: whether it was there. Of equal keys exactly one is told True."""

    def expire(self, keys: Column, expire_at_ms: int, now_ms: int) -> np.ndarray:
        """Sets when the keys expire (NEVER: not at all); bool per key, whether it was there."""

    def scan(self, cursor: int, count: int, now_ms: int) -> tuple[int, Column]:
        """About `count` keys from `cursor` on, and the cursor to go on from; 0 starts, 0 ends.

        A key present throughout a whole scan is returned at least once, as by Redis's SCAN.
        """

    def count(self, now_ms: int) -> int:
        """How many keys there are that have not expired."""

    def clear(self) -> None:
        """Removes every record."""

    def memory(self) -> dict[str, int]:
        """Bytes by purpose: at least `capacity`, `used` (records, index and buffers) and `records`."""

    def describe(self) -> dict[str, str]:
        """What this table is: at least `backend` ("host" or "cuda") and `device`."""

    def close(self) -> None:
        """Gives the memory back. Arrays handed out before stay valid."""
