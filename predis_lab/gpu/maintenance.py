"""Growing a table's index, and compacting its log: whole passes over the index, on no request's way.

Compaction goes by steps, none of which moves more than one segment holds: `table` takes as many as it needs room for, the
client one after the other, with other calls in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cupy
import numpy as np

from . import kernels, maintain_kernels, sizing
from .memory import OPEN_SHARE, Segment, from_driver
from .sizing import BUCKET_NBYTES, SLOTS

if TYPE_CHECKING:
    from .batch import Batch
    from .table import DeviceTable

# A segment with less dead bytes than this share of a whole one is not worth moving: what that frees would not be reopened.
DEAD_SHARE = OPEN_SHARE
LAST_SHARE = 1 / 64  # down to which it is moved all the same where a record would be refused


@dataclass
class Compactions:
    """What compaction has done to a table so far, on its own or because it was asked to.

    moved_nbytes:  of live records that were copied
    freed_nbytes:  of the log, taken by dead records before
    """

    steps: int = 0
    moved_nbytes: int = 0
    freed_nbytes: int = 0
    seconds: float = 0.0


def buckets_wanted(table: DeviceTable, records: int) -> int:
    """Buckets that the index should have for so many records, given what the capacity holds of their mean size."""
    most = float("inf")
    if table.entries:
        room = table.arena.capacity - table.arena.segment_nbytes
        most = sizing.records_at_most(room, table.live_nbytes / table.entries)
    return sizing.index_buckets(table.slots // SLOTS, records, most)


def grow(table: DeviceTable, records: int, now_ms: int, batch: Batch) -> None:
    """Rehashes into an index for `records`, or the largest that the capacity allows. batch: which is to go in."""
    buckets, wanted = table.slots // SLOTS, buckets_wanted(table, records)
    if wanted > _index_room(table):
        compact(table, now_ms, batch.segments, until=lambda: wanted <= _index_room(table))
        while wanted > _index_room(table) and (
            table.tiers.demote(now_ms, batch.segments) or _shorten(table, batch)
        ):
            pass
        wanted = max(buckets, min(wanted, _index_room(table)))
    if wanted > buckets or table.is_stale:
        rehash(table, wanted * BUCKET_NBYTES, now_ms)


def _shorten(table: DeviceTable, batch: Batch) -> bool:
    """Gives the last segment set aside for a batch back; False where it is in use, or the batch has come there."""
    if len(batch.segments) <= batch.at + 1 or batch.segments[-1].used:
        return False
    table.arena.release(batch.segments.pop())
    batch.begins.pop()
    batch.rows = batch.before.pop()
    return True


def _index_room(table: DeviceTable) -> int:
    """Buckets that the index may have, one segment kept back for compaction."""
    arena = table.arena
    room = arena.available + arena.reserved - arena.segment_nbytes
    return room // arena.taken(1) * arena.taken(1) // BUCKET_NBYTES


def rehash(table: DeviceTable, index_nbytes: int, now_ms: int) -> None:
    """Moves the index into `index_nbytes`, without expired records, and without searches past what is gone; nothing where memory lacks.

    For as long as that takes there are two of them. Free segments make room for the second; only where there are too
    few does the table exceed its capacity for a moment.
    """
    stream, arena = table.enter(), table.arena
    arena.make_left(arena.taken(index_nbytes))
    memory = from_driver(arena.taken(index_nbytes))
    if memory is not None:
        old = table.index
        table.set_index(memory, index_nbytes)
        table.counters[: kernels.MAX_VALUE_NBYTES] = 0
        maintain_kernels.rehash(old, now_ms, table.index, table.counters, table.report, table.work)
        table.read_report(stream)
        table.erased = 0
        del old
    arena.fill()


def compact(
    table: DeviceTable,
    now_ms: int,
    keep: Container[Segment] = (),
    until: Callable[[], bool] = lambda: False,
) -> int:
    """Steps of compaction until something holds, or as many as there are; how many bytes of the log came free."""
    freed = 0
    while not until() and (step := compact_step(table, now_ms, keep, pressed=True)):
        freed += step
    return freed


def compact_step(
    table: DeviceTable, now_ms: int, keep: Container[Segment] = (), *, pressed: bool = False
) -> int:
    """Moves the live records out of the emptiest segments, as many as one segment holds; how many bytes came free.

    keep:     segments to leave alone
    pressed:  whether a record is going to be refused otherwise
    returns:  0 where no segment is worth it
    """
    arena, before = table.arena, table.arena.used
    least = LAST_SHARE * arena.segment_nbytes
    dead_nbytes = before - table.tiers.unfilled - (table.live_nbytes - table.tiers.host_nbytes())
    if pressed and dead_nbytes - table.stuck_nbytes < least and not table.has_expiry:
        return 0
    began, stream = time.perf_counter(), table.enter()
    order = sorted(arena.segments, key=lambda segment: segment.address)
    if not order:
        return 0
    starts = cupy.array([segment.address for segment in order], np.uint64)
    counts = cupy.zeros(len(order), np.uint64)
    maintain_kernels.census(table.index, now_ms, False, starts, counts)
    live = counts.get().astype(np.int64)
    # Records are on their way to the tiers' target.
    movable = np.array([s not in keep and s is not table.tiers.target for s in order])
    dead = np.array([segment.used for segment in order]) - live
    worth = movable & ((live == 0) | (dead >= DEAD_SHARE * arena.segment_nbytes))
    if pressed and not worth.any():
        worth = movable & (dead >= least)
    # What an earlier step left open is filled up first, lest all segments end up half full.
    hole = _roomiest([order[i] for i in np.flatnonzero(movable & ~worth)], least)
    room = hole.room if hole else 0
    fresh = arena.segment_room if arena.available >= arena.segment_nbytes else 0
    chosen, moving = _emptiest(live, worth, max(room, fresh))
    if not chosen.any():
        if pressed:
            table.stuck_nbytes = int(dead[movable].sum())
        return 0
    spill = arena.append(arena.segment_room) if moving > room else None
    if moving > room and spill is None:
        return 0
    spilled, at = cupy.zeros(1, np.uint64), hole.address + hole.used if hole else 0
    # Taken at once, lest anything is written there should the report not come.
    if hole:
        hole.used += room
    if spill:
        spill.used = moving
    maintain_kernels.relocate(
        table.index,
        now_ms,
        False,
        starts,
        cupy.asarray(chosen),
        at,
        room,
        False,
        table.counters,
        table.report,
        table.work,
        spill.address if spill else 0,
        spilled,
    )
    moved, left_over = table.read_report(stream), int(spilled[0])
    if hole:
        hole.used += moved - left_over - room
    if spill:
        spill.used = left_over
    for i in np.flatnonzero(chosen):
        arena.release(order[i])
    done = table.compactions
    done.steps += 1
    done.moved_nbytes += moved
    done.freed_nbytes += before - arena.used
    done.seconds += time.perf_counter() - began
    return before - arena.used


def _roomiest(segments: list[Segment], nbytes: float) -> Segment | None:
    """The segment with the most room, if that is nbytes at least."""
    best = max(segments, key=lambda segment: segment.room, default=None)
    return best if best is not None and best.room >= nbytes else None


def _emptiest(live: np.ndarray, worth: np.ndarray, room: int) -> tuple[np.ndarray, int]:
    """Which of the segments worth it, the emptiest first, fit into `room` bytes together, and how many bytes that is."""
    chosen, moving = np.zeros(len(live), np.bool_), 0
    for i in np.argsort(live):
        if worth[i] and moving + live[i] <= room:
            chosen[i] = True
            moving += int(live[i])
    return chosen, moving
