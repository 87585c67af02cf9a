"""Storing a batch: room for it in the log and in the index, then piece by piece. Called by `launched` and `pipeline`.

    batch = begin(table, keys, values, now_ms)
    append(table, batch, keys[:1000], values[:1000], NEVER, now_ms, status)  # and so on
    end(table, batch)

The pieces lie in memory that the device reaches; calls are ordered as all of a table's are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cupy
import numpy as np

from ..checks import MAX_VALUE_NBYTES
from ..columns import Column
from ..table import Status
from . import kernels
from .batch import Batch, record_bound, rows_that_fit
from .checksums import seal
from .maintenance import buckets_wanted, grow
from .memory import on_device
from .sizing import BRIEF_ROWS, HARD_LOAD, SLOTS
from .stretches import may_be_long, some_may_be_long

if TYPE_CHECKING:
    from .table import DeviceTable

# Of the device's capacity, what a batch sets aside at once where records may leave for the host.
BATCH_SHARE = 1 / 4


def begin(table: DeviceTable, keys: Column, values: Column, now_ms: int) -> Batch:
    """Makes room in the log for a batch, which may lie in any memory; `append` then writes it piece by piece."""
    table.enter()
    batch = Batch(keys, values)
    if table.arena.segments and table.arena.segments[-1] is not table.tiers.target:
        batch.segments.append(table.arena.segments[-1])
        batch.before.append(0)
    n, room = len(keys), batch.segments[-1].room if batch.segments else 0
    while True:
        batch.rows += rows_that_fit(keys, values, batch.rows, n, room)
        if batch.rows == n or (batch.rows and _is_enough(table, batch)):
            break
        record = record_bound(keys, values, batch.rows, batch.rows + 1)
        segment = table.segment_for(record, now_ms, batch.segments)
        if segment is None:
            break
        batch.segments.append(segment)
        batch.before.append(batch.rows)
        room = segment.room
    batch.begins = [segment.address + segment.used for segment in batch.segments]
    if len(batch.segments) > 1:
        edges = zip(batch.begins, batch.segments, strict=True)
        batch.edges = cupy.array([e for first, old in edges for e in (first, old.end)], np.uint64)
    return batch


def append(
    table: DeviceTable,
    batch: Batch,
    keys: Column,
    values: Column,
    expire_at_ms: int,
    now_ms: int,
    status: Any,
) -> None:
    """Stores the next rows of a batch; where all have one length, nothing is waited for before the batch's `end`.

    status: int8, one per row of the whole batch, filled for these rows. What finds no room is refused, and
    all that follows it in the batch.
    """
    table.enter()
    expiry = table.noted_expiry(expire_at_ms)
    n, row = len(keys), 0
    while row < n:
        if batch.row == batch.rows and table.tiers.host.capacity:
            _begin_again(table, batch, keys[row:], values[row:], now_ms)
        asked = row + max(0, min(n - row, batch.rows - batch.row))
        if asked == row:
            break
        stop = row + _make_index_room(table, keys[row:asked], now_ms, batch)
        # The index may have taken from the batch.
        stop = min(stop, row + batch.rows - batch.row)
        _write(table, batch, keys, values, row, stop, expiry, now_ms, status)
        row = stop
        if row < asked and not (batch.row == batch.rows and table.tiers.host.capacity):
            break
    if row < n:
        status[batch.row : batch.row + n - row] = int(Status.NO_SPACE)
        batch.row += n - row
        batch.rows = 0


def _write(
    table: DeviceTable,
    batch: Batch,
    keys: Column,
    values: Column,
    row: int,
    stop: int,
    expiry: int,
    now_ms: int,
    status: Any,
) -> None:
    """Stores rows up to `stop`, for which batch and index have room."""
    while row < stop:
        stream = table.enter()  # who got in while a report was waited for may have used another one
        segment = batch.segments[batch.at]
        fitting = batch.rows_that_fit(stop - row, segment.room)
        if fitting == 0:
            batch.at += 1
            continue
        piece, bound = keys[row : row + fitting], batch.bound(fitting)
        if values.offsets is not None or values.width != table.uniform_nbytes:
            longest = values.width if values.offsets is None else min(bound, MAX_VALUE_NBYTES)
            table.expect_values(longest)
        long = (
            may_be_long(fitting, values.width)
            if values.offsets is None
            else some_may_be_long(fitting, bound)
        )
        try:
            kernels.insert(
                piece,
                values[row : row + fitting],
                table.index_at,
                now_ms,
                expiry,
                batch.span(),
                batch.row,
                status,
                table.counters_at,
                table.report_at,
                table.work_at,
                places=table.places_at if fitting <= BRIEF_ROWS else None,
                listed=table.listed(stream) if long else 0,
                nbytes_at_most=bound,
            )
        except BaseException:
            table.work.fill(0)  # records may have been counted that will not be published
            raise
        # Taken at once, lest anything is written there should the report not come.
        segment.used += bound
        batch.only = None if batch.row else piece
        batch.row += fitting
        if keys.offsets is None and values.offsets is None:  # exactly what they take
            table.unreported += fitting
        else:
            segment.used += table.read_report(stream, brief=fitting <= BRIEF_ROWS) - bound
        row += fitting


def _is_enough(table: DeviceTable, batch: Batch) -> bool:
    """Whether a batch has set aside all that it may at once: the index may have to grow, and older records to leave."""
    nbytes = sum(segment.nbytes for segment in batch.segments)
    return table.tiers.host.capacity > 0 and nbytes > BATCH_SHARE * table.arena.capacity


def _begin_again(
    table: DeviceTable, batch: Batch, keys: Column, values: Column, now_ms: int
) -> None:
    """Makes room for the next rows as for a batch of their own: what has been written may leave the device by then.

    Of equal keys the last wins all the same; it is told UPDATED then, and the earlier one is not told of it.
    """
    if table.checksums:
        seal(table, batch)
    table.read_reports(table.enter())
    more = begin(table, keys, values, now_ms)
    batch.segments, batch.begins, batch.edges, batch.at = (
        more.segments,
        more.begins,
        more.edges,
        0,
    )
    batch.before = [batch.rows + before for before in more.before]
    batch.rows += more.rows


def end(table: DeviceTable, batch: Batch) -> None:
    """Seals what the batch wrote, where there are checksums, and gives back what it had reserved and not used.

    Returns when the device has stored the rows; at once where that has been waited for in vain before.
    """
    stream = table.enter()
    if table.checksums:
        seal(table, batch)
    while table.arena.segments and not table.arena.segments[-1].used:
        table.arena.release(table.arena.segments[-1])
    table.read_reports(stream, brief=batch.row <= BRIEF_ROWS)


def _make_index_room(table: DeviceTable, keys: Column, now_ms: int, batch: Batch) -> int:
    """Grows the index where the rows ask for it; how many of them, from the first on, may be inserted."""
    n, used = len(keys), table.entries + table.unreported
    crowded = buckets_wanted(table, used) > table.slots // SLOTS or table.is_stale
    if not crowded and used + n <= HARD_LOAD * table.slots:
        return n
    if table.unreported:  # as many as there may be, but not as there are
        table.read_reports(table.enter())
        return _make_index_room(table, keys, now_ms, batch)
    # The rest is calculated on the host: CuPy would compile it first, in the middle of somebody's write.
    count = cupy.zeros(1, np.uint64)
    kernels.peek(keys, table.index_at, now_ms, count=count)
    absent = n - int(count[0])
    if not crowded and used + absent <= HARD_LOAD * table.slots:
        return n
    grow(table, table.entries + absent, now_ms, batch)
    left = int(HARD_LOAD * table.slots) - table.entries
    if absent <= left:
        return n
    present = on_device(n, np.bool_)
    kernels.peek(keys, table.index_at, now_ms, present)
    return int(np.count_nonzero(np.cumsum(~present.get()) <= left))
