"""What memory a table and the pools beside it hold, by purpose, and what has crossed the link. Called by `engine`."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import cupy
from cupy.cuda import runtime

from .device import Device
from .pinned import pool

if TYPE_CHECKING:
    from .table import DeviceTable
    from .transfers import Transfers


def of_engine(table: DeviceTable, capacity: int, buffers: int) -> dict[str, int | float]:
    """All that `Table.memory` tells. capacity: of the device, `buffers` for calls included."""
    table.settle()
    told = of_table(table)
    memory = {
        **told,
        "capacity": capacity,
        "used": buffers + told["used"],
        "taken": buffers + told["taken"],
        "buffers": buffers,
        "pinned_used": pool.used_nbytes,
        "pinned_free": pool.free_nbytes,
        **of_pools(),
    }
    tiers = table.tiers
    if tiers.capacity:
        memory |= tiers.memory()
        memory["capacity"] += tiers.host.capacity
        memory["used"] += tiers.host.nbytes_in_use
    return memory


def of_link(told: Transfers, waited_s: float) -> dict[str, float]:
    """What bulk calls have moved across the link: bytes, seconds, bytes per second."""
    theory = Device.current().link_bandwidth
    moved = told.uploaded_nbytes + told.downloaded_nbytes
    mean = moved / told.busy_s if told.busy_s else 0.0
    return {
        "calls": told.calls,
        "uploaded_bytes": told.uploaded_nbytes,
        "downloaded_bytes": told.downloaded_nbytes,
        "busy_seconds": told.busy_s,
        "mean_bandwidth": mean,
        "peak_bandwidth": told.peak_bandwidth,
        "link_bandwidth": theory or 0.0,
        "link_utilisation": mean / theory if theory else 0.0,
        "stalled_seconds": waited_s,
        "pageable_buffers": pool.refused,
    }


def of_table(table: DeviceTable) -> dict[str, int | float]:
    """Index, log and compaction; see `Table.memory` for how names tell what is counted.

    log:       segments that are part of it; `log_used` of them have been written to, `log_dead` of that by records since replaced
    records:   live ones; those that expired count until compaction comes by
    """
    arena, done = table.arena, table.compactions
    live = table.live_nbytes - table.tiers.host_nbytes()
    return {
        "capacity": arena.capacity,
        "used": arena.reserved + arena.nbytes_in_use,
        "taken": arena.reserved + arena.nbytes,
        "records": table.live_nbytes,
        "index": table.index.nbytes,
        "log": arena.nbytes_in_use,
        "log_used": arena.used,
        "log_dead": arena.used - live,
        "log_utilisation_ratio": live / arena.used if arena.used else 1.0,
        "log_segment": arena.segment_nbytes,
        "log_segments_count": len(arena.segments),
        "free_segments_count": len(arena.free),
        "compactions_count": done.steps,
        "compaction_moved": done.moved_nbytes,
        "compaction_freed": done.freed_nbytes,
        "compaction_seconds": done.seconds,
    }


def of_pools() -> dict[str, int]:
    """CuPy's pools, which all of the process shares: what lives for one call comes from them, and no record does."""
    device, host = cupy.get_default_memory_pool(), cupy.get_default_pinned_memory_pool()
    held = {
        "pool": device.total_bytes(),
        "pool_used": device.used_bytes(),
        "pinned_pool_free_count": host.n_free_blocks(),
    }
    # The driver's own pool, which CuPy's MemoryAsyncPool stands for; some devices have none.
    with suppress(runtime.CUDARuntimeError):
        pool = runtime.deviceGetDefaultMemPool(runtime.getDevice())
        held["async_pool"] = int(
            runtime.memPoolGetAttribute(pool, runtime.cudaMemPoolAttrReservedMemCurrent)
        )
        held["async_pool_used"] = int(
            runtime.memPoolGetAttribute(pool, runtime.cudaMemPoolAttrUsedMemCurrent)
        )
    return held
