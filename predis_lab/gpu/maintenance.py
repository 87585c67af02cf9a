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

# A segment fuller than this is not worth moving: the copy costs more than it frees.
WORTH_MOVING = 0.9


def rehash(table: DeviceTable, index_nbytes: int, now_ms: int) -> None:
    """Moves the index into `index_nbytes`, without tombstones and expired records; nothing where memory lacks."""
    stream = table.enter()
    memory = from_driver(index_nbytes)
    if memory is None:
        return
    old = table.index
    table.set_index(memory)
    table.counters[: kernels.MAX_VALUE_NBYTES] = 0
    kernels.rehash(old, now_ms, table.index, table.counters, table.report, table.work)
    table.read_report(stream)


def compact(table: DeviceTable, now_ms: int, keep: Container[Segment] = ()) -> int:
    """Moves the live records of the emptiest segments together; how many bytes of the log came free.

    keep: segments to leave alone.
    """
    table.enter()
    arena, before = table.arena, table.arena.nbytes_in_use
    if arena.used - table.live_nbytes < arena.segment_nbytes and not table.has_expiry:
        return 0  # what is dead would not even free one segment
    while _compact_once(table, now_ms, keep):
        pass
    return before - arena.nbytes_in_use


def _compact_once(table: DeviceTable, now_ms: int, keep: Container[Segment]) -> bool:
    """Empties as many segments as fit into one; False where that would free nothing."""
    arena, stream = table.arena, table.enter()
    order = sorted(arena.segments, key=lambda segment: segment.address)
    if not order:
        return False
    starts = cupy.array([segment.address for segment in order], np.uint64)
    counts = cupy.zeros(len(order), np.uint64)
    kernels.census(table.index, now_ms, starts, counts)
    live = counts.get().astype(np.int64)
    room, chosen = arena.segment_nbytes, np.zeros(len(order), np.bool_)
    for i in np.argsort(live):
        if order[i] not in keep and live[i] <= min(room, WORTH_MOVING * order[i].nbytes):
            chosen[i] = True
            room -= int(live[i])
    moving = arena.segment_nbytes - room
    if chosen.sum() < (2 if moving else 1):
        return False
    target = arena.append(arena.segment_nbytes) if moving else None
    if moving and target is None:
        return False
    kernels.relocate(
        table.index,
        now_ms,
        starts,
        cupy.asarray(chosen),
        target.address if target else 0,
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
