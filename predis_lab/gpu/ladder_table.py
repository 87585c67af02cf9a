"""A table of fixed-width keys and values, built as one rung of the ladder says. Called by the notebooks.

table = LadderTable("v4", 1_000_000, key_nbytes=16, value_nbytes=64)
status = table.insert(keys, values)   # uint8 (n, 16) and (n, 64) on the device
values, found = table.find(keys)
"""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from ..errors import UnsupportedType
from .ladder import RUNGS, SLOT_NBYTES, Rung
from .launching import address, launch
from .memory import from_driver

STORED, SUPERSEDED, NO_SPACE = 0, 2, 4  # as `table.Status`, but that updates count as stored
PLAIN_HEADER_NBYTES, PLAIN_VALUE_SLOT_NBYTES = 16, 4096  # of an entry of v1


class LadderTable:
    """A table that one rung's kernels read and write.

    capacity_records:  rows that may be inserted until `clear`, updates included: the log is never compacted
    load_factor:       records per slot once that many are in; None: the rung's own
    spare:             rows of the log beyond them, for updates and for keys that are erased and come back
    """

    def __init__(
        self,
        rung: Rung | str,
        capacity_records: int,
        key_nbytes: int,
        value_nbytes: int,
        load_factor: float | None = None,
        spare: int = 0,
    ):
        self.rung = RUNGS[rung] if isinstance(rung, str) else rung
        self.capacity_rows = capacity_records + spare
        self.key_nbytes, self.value_nbytes = key_nbytes, value_nbytes
        # The layout is the same for every operation.
        layout = self.rung.settings("insert")
        self.plain = bool(layout["PLAIN"])
        self._piece = int(layout.get("HEADER_NBYTES", 16))
        self._align = int(layout.get("RECORD_ALIGN", 16))
        load_factor = self.rung.load if load_factor is None else load_factor
        if not 0 < load_factor < 1 or not 0 < capacity_records <= self.capacity_rows < 2**32:
            raise ValueError("a load between 0 and 1 and fewer than 2^32 records are needed")
        if not 0 < key_nbytes < 2**16 or not 0 <= value_nbytes < 2**26:  # kernels count in 32 bits
            raise ValueError("keys of 1 to 65535 bytes and values below 64 MiB are needed")
        slots = int(capacity_records / load_factor) + 1
        if self.plain:
            if value_nbytes > PLAIN_VALUE_SLOT_NBYTES:
                raise ValueError(f"a value slot has {PLAIN_VALUE_SLOT_NBYTES} bytes")
            entry = PLAIN_HEADER_NBYTES + -(-key_nbytes // 16) * 16 + PLAIN_VALUE_SLOT_NBYTES
            self.buckets, index_nbytes, log_nbytes = slots, slots * entry, 0
        else:
            bucket = int(layout.get("BUCKET_SLOTS", 8))
            self.buckets = -(-slots // bucket)
            index_nbytes = self.buckets * bucket * SLOT_NBYTES
            log_nbytes = self.capacity_rows * self.record_nbytes
        self.index = _memory(index_nbytes).view(np.uint64)
        self.log = _memory(log_nbytes)
        locked = layout.get("CHOICES", "LINEAR") != "LINEAR"
        self.locks = cupy.zeros(self.buckets if locked else 0, np.uint32)
        self.clear()

    @property
    def record_nbytes(self) -> int:
        """Bytes of a record in the log, padding included."""
        pieces = 1 + -(-self.key_nbytes // self._piece) + -(-self.value_nbytes // self._piece)
        return -(-pieces * self._piece // self._align) * self._align

    @property
    def nbytes(self) -> int:
        """Device memory that the table takes."""
        return self.index.nbytes + self.log.nbytes + self.locks.nbytes

    def clear(self) -> None:
        """Removes every record."""
        stream = cupy.cuda.get_current_stream()
        self.index.data.memset_async(0, self.index.nbytes, stream)
        self.rows = 0  # inserted so far

    def insert(self, keys: Any, values: Any, status: Any = None) -> Any:
        """Stores n rows: keys, uint8 (n, key_nbytes), and values, uint8 (n, value_nbytes), on the device.

        Returns int8 (n,), `status` if given: STORED, SUPERSEDED by a later row of the batch, or NO_SPACE.
        """
        n = _rows(keys, self.key_nbytes)
        if _rows(values, self.value_nbytes) != n:
            raise UnsupportedType(f"{n} keys with {len(values)} values")
        status = cupy.empty(n, np.int8) if status is None else status
        fitting = min(n, self.capacity_rows - self.rows)
        if fitting < n:
            status[fitting:] = NO_SPACE
        insert(self, keys, values, fitting, status)
        self.rows += fitting
        return status

    def find(self, keys: Any, values: Any = None, found: Any = None) -> tuple[Any, Any]:
        """The values, uint8 (n, value_nbytes), zeros where a key is absent, and whether it was found, bool (n,).

        In the arrays given, if any.
        """
        n = _rows(keys, self.key_nbytes)
        values = cupy.empty((n, self.value_nbytes), np.uint8) if values is None else values
        found = cupy.empty(n, np.bool_) if found is None else found
        find(self, keys, n, values, found)
        return values, found

    def erase(self, keys: Any, erased: Any = None) -> Any:
        """Removes the keys. Returns bool (n,), `erased` if given: whether it was there, for one of equal keys."""
        n = _rows(keys, self.key_nbytes)
        erased = cupy.empty(n, np.bool_) if erased is None else erased
        erase(self, keys, n, erased)
        return erased

    def bytes_moved(self, operation: str) -> int:
        """Of the rung, for these keys and values."""
        return self.rung.bytes_moved(operation, self.key_nbytes, self.value_nbytes)


# ---- Typed launches


def find(table: LadderTable, keys: Any, n: int, values: Any, found: Any) -> None:
    """values: uint8 (n * value_nbytes,). found: bool or uint8 (n,)."""
    launch(
        "ladder_find",
        "ladder_find",
        n,
        *_column(keys, n, table.key_nbytes),
        n,
        *_index(table),
        table.value_nbytes,
        address(values, "u1", n * table.value_nbytes),
        address(found, "b1 u1", n),
        defines=table.rung.defines("find"),
    )


def insert(table: LadderTable, keys: Any, values: Any, n: int, status: Any) -> None:
    """The first n rows, for which the table must have room. status: int8 (n,)."""
    rows, nbytes = table.rows, 0 if table.plain else table.record_nbytes
    launch(
        "ladder_insert",
        "ladder_insert",
        n,
        *_column(keys, n, table.key_nbytes),
        *_column(values, n, table.value_nbytes),
        n,
        *_index(table),
        address(table.locks, "u4", 0),
        address(table.log, "u1", (rows + n) * nbytes) + rows * nbytes,
        rows,
        address(status, "i1", n),
        defines=table.rung.defines("insert"),
    )


def erase(table: LadderTable, keys: Any, n: int, erased: Any) -> None:
    """erased: bool or uint8 (n,)."""
    launch(
        "ladder_erase",
        "ladder_erase",
        n,
        *_column(keys, n, table.key_nbytes),
        n,
        *_index(table),
        table.value_nbytes,
        address(erased, "b1 u1", n),
        defines=table.rung.defines("erase"),
    )


def _column(rows: Any, n: int, width: int) -> tuple[int, int]:
    return address(rows, "u1", n * width), width


def _index(table: LadderTable) -> tuple[int, int]:
    return address(table.index, "u8", table.buckets), table.buckets


def _rows(column: Any, width: int) -> int:
    if column.ndim != 2 or column.shape[1] != width:
        raise UnsupportedType(f"rows of {width} bytes are needed, not an array of {column.shape}")
    return len(column)


def _memory(nbytes: int) -> Any:
    memory = from_driver(max(nbytes, SLOT_NBYTES))
    if memory is None:
        raise MemoryError(f"the device has no {nbytes} bytes left")
    return memory
