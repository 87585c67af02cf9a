"""An insert under way, and how much of the log its rows take. Used by `appending`, `pipeline`, `launched` and `doorbell`."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import Any

import cupy
import numpy as np

from ..checks import MAX_VALUE_NBYTES
from ..columns import Column
from ..table import RECORD_HEADER_NBYTES, Status
from . import kernels
from .memory import Segment, refused
from .packed import padded


@dataclass
class Batch:
    """An insert under way: the segments set aside for it, and how far it has come.

    keys, values:  the whole batch, as the caller has it: what its rows take is told where they lie, not where they go
    """

    keys: Column
    values: Column
    segments: list[Segment] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)  # address of its first record in each segment
    before: list[int] = field(default_factory=list)  # rows that have room in earlier segments
    at: int = 0  # the segment it is writing to
    row: int = 0  # its next row
    rows: int = 0  # as many have room, from the first on
    edges: Any = None  # uint64, on the device: begin and end of what is set aside in each segment
    only: Column | None = None  # the keys of its first piece, until there is a second

    def bound(self, n: int) -> int:
        """`record_bound` of its next n rows."""
        return record_bound(self.keys, self.values, self.row, self.row + n)

    def rows_that_fit(self, n: int, room: int) -> int:
        """Of its next n rows."""
        return rows_that_fit(self.keys, self.values, self.row, self.row + n, room)

    def span(self) -> kernels.LogSpan:
        """Where its next piece goes."""
        segment = self.segments[self.at]
        earlier = self.edges[: 2 * self.at] if self.at else None
        return kernels.LogSpan(
            segment.address + segment.used, self.begins[self.at], segment.end, earlier
        )


def stored_in_part(status: np.ndarray, batch: Batch, failure: Exception | None) -> np.ndarray:
    """The statuses; where something was refused on the way, raises DeviceFailed with them and with those of the rest."""
    if failure is None:
        return status
    status[batch.row :] = Status.FAILED
    raise refused(failure, status) from failure


def record_bound(keys: Column, values: Column, start: int, stop: int) -> int:
    """At least the bytes of the log that rows start to stop take; exact for one row, and where rows have fixed widths.

    Whole pieces of 16 bytes: where a report does not come, the next record lies behind as many.
    """
    n = stop - start
    if keys.offsets is None and values.offsets is None:
        return n * kernels.record_nbytes(keys.width, values.width)
    nbytes = _payload(keys, start, stop), _payload(values, start, stop)
    if n == 1:
        return kernels.record_nbytes(*nbytes)
    return padded(sum(nbytes) + n * (RECORD_HEADER_NBYTES + 15))


def rows_that_fit(keys: Column, values: Column, start: int, stop: int, room: int) -> int:
    """How many rows from `start` on certainly fit into `room` bytes of the log."""
    if record_bound(keys, values, start, stop) <= room:
        return stop - start
    if keys.offsets is None and values.offsets is None:
        return room // kernels.record_nbytes(keys.width, values.width)
    counts = range(stop - start + 1)
    return (
        bisect.bisect_right(
            counts, room, key=lambda n: record_bound(keys, values, start, start + n)
        )
        - 1
    )


def _payload(column: Column, start: int, stop: int) -> int:
    if column.offsets is None:
        return (stop - start) * column.width
    return int(column.offsets[stop]) - int(column.offsets[start])


def too_large(values: Column) -> np.ndarray | None:
    """bool per row, or None where no value is too long to be stored."""
    if values.nbytes <= MAX_VALUE_NBYTES or values.lengths_range()[1] <= MAX_VALUE_NBYTES:
        return None  # the first test alone settles nearly every batch
    if values.offsets is None:
        return np.ones(len(values), np.bool_)
    return cupy.asnumpy(values.offsets[1:] - values.offsets[:-1]) > MAX_VALUE_NBYTES
