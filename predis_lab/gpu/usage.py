"""What memory a table and the pools beside it hold, by purpose. Called by `engine.memory`."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import cupy
from cupy.cuda import runtime

if TYPE_CHECKING:
    from .table import DeviceTable


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
