"""Growing a table's index, and compacting its log: whole passes over the index, on no request's way."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING

import cupy
import numpy as np

from . import kernels
from .memory import Segment, from_driver

if TYPE_CHECKING:
    from .table import DeviceTable

# A segment with less dead bytes than this share of a whole one is not worth moving: the copy costs more than it frees.
DEAD_SHARE = 0.1


def rehash(table: DeviceTable, index_nbytes: int, now_ms: int) -> None:
    """Moves the index into `index_nbytes`, without expired records, and without searches past what is gone; nothing where memory lacks."""
    stream = table.enter()
    memory = from_driver(index_nbytes)
    if memory is None:
        return
    old = table.index
    table.set_index(memory)
    table.counters[: kernels.MAX_VALUE_NBYTES] = 0
    kernels.rehash(old, now_ms, table.index, table.counters, table.report, table.work)
    table.read_report(stream)
    table.erased = 0


def compact(table: DeviceTable, now_ms: int, keep: Container[Segment] = ()) -> int:
    """Moves live records out of device segments that are partly dead; how many bytes of the log came free.

    keep: segments to leave alone.
    """
    table.enter()
    arena, before = table.arena, table.arena.used
    live = table.live_nbytes - table.tiers.host_nbytes()
    dead = before - table.tiers.unfilled - live - table.stuck_nbytes
    if dead < DEAD_SHARE * arena.segment_nbytes and not table.has_expiry:
        return 0
    while _compact_once(table, now_ms, keep):
        pass
    return before - arena.used


def _compact_once(table: DeviceTable, now_ms: int, keep: Container[Segment]) -> bool:
    """Moves as many segments as fit into one, the emptiest first; False where none is worth it."""
    arena, stream = table.arena, table.enter()
    order = sorted(arena.segments, key=lambda segment: segment.address)
    if not order:
        return False
    starts = cupy.array([segment.address for segment in order], np.uint64)
    counts = cupy.zeros(len(order), np.uint64)
    kernels.census(table.index, now_ms, False, starts, counts)
    live = counts.get().astype(np.int64)
    # Records are on their way to the tiers' target.
    movable = np.array([s not in keep and s is not table.tiers.target for s in order])
    dead = np.array([segment.used for segment in order]) - live
    worth = movable & ((live == 0) | (dead >= DEAD_SHARE * arena.segment_nbytes))
    room = arena.segment_room if arena.available >= arena.segment_nbytes else 0
    chosen, moving = np.zeros(len(order), np.bool_), 0
    for i in np.argsort(live):
        if worth[i] and moving + live[i] <= room:
            chosen[i] = True
            moving += int(live[i])
    if not chosen.any():
        table.stuck_nbytes = int(dead[movable].sum())
        return False
    target = arena.append(arena.segment_room) if moving else None
    if moving and target is None:
        return False
    kernels.relocate(
        table.index,
        now_ms,
        False,
        starts,
        cupy.asarray(chosen),
        target.address if target else 0,
        target.room if target else 0,
        False,
        table.counters,
        table.report,
        table.work,
    )
    moved = table.read_report(stream)
    if target:
        target.used += moved
    for i in np.flatnonzero(chosen):
        arena.release(order[i])
    return True
