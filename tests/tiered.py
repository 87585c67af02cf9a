"""Records by number, and what is looked at where a cache has a host part."""

import time

import numpy as np

KIB, MIB = 2**10, 2**20
SEGMENT = 64 * KIB


def keys_of(numbers, width=16):
    """(n, width) uint8: each number in 8 bytes, then dots."""
    rows = np.full((len(numbers), width), ord("."), np.uint8)
    rows[:, :8] = np.ascontiguousarray(numbers, "<u8").view(np.uint8).reshape(-1, 8)
    return rows


def addresses_of(slots):
    """Where the records of an index's slots lie, 0 where there is none; see ADDRESS in kernels/common.cuh."""
    return (slots & np.uint64(2**44 - 1)) << np.uint64(4)


def values_of(numbers, nbytes=256, seed=1):
    """(n, nbytes) uint8, in whole words that depend on the number."""
    odd = np.arange(seed, seed + nbytes // 4 * 2, 2, dtype=np.uint32)
    return (np.asarray(numbers, np.uint32)[:, None] * odd + np.uint32(seed)).view(np.uint8)


def rows(array):
    return [row.tobytes() for row in array]


def fill(cache, n, nbytes=256, first=0, step=1000):
    """Inserts n records by number; in order, so that the first ones move to the host."""
    for start in range(first, first + n, step):
        numbers = np.arange(start, min(start + step, first + n))
        assert cache.insert(keys_of(numbers), values_of(numbers, nbytes)).counts() == {
            "stored": len(numbers)
        }


def stats(cache):
    return cache.info("stats")


def prefetch(cache, keys):
    """Announces the keys, and waits until that has come to something."""
    assert cache.prefetch(keys) is None
    began = time.monotonic()
    while stats(cache)["prefetch_pending_keys"]:
        assert time.monotonic() - began < 60
        time.sleep(1e-3)


def moved(cache, before):
    """What has been counted since: hits on the device, hits on the host, bytes promoted, bytes demoted."""
    now = stats(cache)
    names = ("device_hits", "host_hits", "promoted_bytes", "demoted_bytes")
    return tuple(now[name] - before[name] for name in names)


def check_memory(cache):
    """What the books say agrees with itself, and both capacities hold."""
    table, info = cache._table.table, cache.info()
    host = table.tiers.host
    assert info["used_memory"] <= info["maxmemory"]
    assert table.index.nbytes + table.arena.nbytes <= table.arena.capacity
    assert info["host_memory"] == host.nbytes <= host.capacity
    assert info["host_records_memory"] + info["device_records_memory"] == info["records_memory"]
    assert info["host_records_memory"] <= host.used <= host.nbytes_in_use
    assert 0 <= info["device_records_memory"] <= table.arena.used
    live = np.zeros(2, np.int64)
    slots = table.index.get()
    flags = slots[addresses_of(slots) != 0]
    live[1] = int((flags >> np.uint64(45) & np.uint64(1)).sum())
    assert (live[1] > 0) == (info["host_records_memory"] > 0)
    assert not (
        (flags >> np.uint64(46)) & (flags >> np.uint64(45)) & np.uint64(1)
    ).any()  # none claimed
