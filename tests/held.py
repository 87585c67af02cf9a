"""Records that tell their number, and what `info` says of memory; for the tests of capacities and of memory."""

import numpy as np
from tiered import keys_of

try:
    import cupy
except ImportError:
    cupy = None


def rows_of(numbers, nbytes):
    """(n, nbytes) uint8: values that tell their number."""
    return np.repeat(keys_of(numbers, 8), nbytes // 8, axis=1)


def taken():
    """Bytes of the device, as the driver counts them."""
    cupy.get_default_memory_pool().free_all_blocks()
    free, total = cupy.cuda.runtime.memGetInfo()
    return total - free


def check_invariants(cache):
    """What `info` says fits together, and within the capacity."""
    told, table = cache.info("memory"), cache._table.table
    arena = table.arena
    assert told["taken_memory"] <= told["maxmemory"] and told["used_memory"] <= told["taken_memory"]
    assert told["records_memory"] <= told["log_used_memory"] <= told["log_memory"]
    assert told["log_dead_memory"] == told["log_used_memory"] - told["records_memory"]
    assert 0 <= told["log_utilisation_ratio"] <= 1
    assert told["log_segments_count"] == len(arena.segments)
    assert len({segment.address for segment in arena.segments + arena.free}) == len(
        arena.segments + arena.free
    )
    return told
