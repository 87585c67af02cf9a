"""A capacity means bytes: what it takes from the driver, and how many records find room there."""

import gc
import weakref

import numpy as np
import pytest
from held import check_invariants, rows_of, taken
from hypothesis import given
from hypothesis import strategies as st
from tiered import keys_of

from predis_lab import Predis
from predis_lab.gpu import sizing

try:
    import cupy

    from predis_lab.bench import memory_rates
    from predis_lab.gpu import ring
except ImportError:  # what needs it then skips with this as its reason, see conftest
    cupy = None

KIB, MIB, GIB = 2**10, 2**20, 2**30


# ---- Sizes


def taken_when_empty(capacity):
    """Bytes of whole segments and a first index."""
    first = sizing.rounded(sizing.MIN_INDEX, sizing.granule(capacity))
    segment = sizing.segment_nbytes(capacity)
    return first + (capacity - first) // segment * segment


@pytest.mark.parametrize("capacity", [64 * MIB, GIB, 8 * GIB])
def test_whole_segments_fill_a_capacity(capacity):
    assert 0.998 * capacity <= taken_when_empty(capacity) <= capacity
    assert sizing.segment_nbytes(capacity) % sizing.PAGE_NBYTES == 0


@given(st.integers(32 * MIB, 2**38))
def test_any_capacity_is_kept_within_two_percent(capacity):
    least = min(0.98 * capacity, capacity - sizing.PAGE_NBYTES)
    assert least <= taken_when_empty(capacity) <= capacity
    segments = capacity // sizing.segment_nbytes(capacity)
    assert segments >= 16 and (segments <= 130 or capacity > 60 * GIB)


@given(st.integers(1, 32 * MIB - 1))
def test_small_capacities_have_segments_too(capacity):
    segment = sizing.segment_nbytes(capacity)
    assert segment % sizing.ALIGNMENT == 0 and 32 * KIB <= segment <= MIB
    # So many fill a page that the driver hands out.
    assert sizing.PAGE_NBYTES % segment < sizing.PAGE_NBYTES // segment * sizing.ALIGNMENT
    assert capacity < MIB or 0.93 * capacity <= taken_when_empty(capacity) <= capacity


@given(st.integers(1, 2**30), st.integers(0, 2**33), st.floats(0, 1e12))
def test_an_index_holds_what_it_is_asked_to(buckets, records, most):
    found = sizing.index_buckets(buckets, records, most)
    assert found >= buckets
    assert records <= sizing.HARD_LOAD * found * sizing.SLOTS
    if found > buckets:
        assert found >= 1.1 * buckets or records > sizing.MAX_LOAD * found * sizing.SLOTS - 8


def filled(capacity, record, batch):
    """Records and index bytes of a cache that is filled with one size of record, by the arithmetic alone."""
    segment, step = sizing.segment_nbytes(capacity), sizing.granule(capacity)
    per_segment, records, buckets = (segment - 64) // record, 0, sizing.MIN_INDEX // 64
    while True:
        most = sizing.records_at_most(capacity - segment, record) if records else float("inf")
        wanted = sizing.index_buckets(buckets, records + batch, most)
        index = sizing.rounded(64 * wanted, step)
        whole = (capacity - index) // segment - 1  # one is kept for compaction
        if records + batch > whole * per_segment or records + batch > 0.95 * 8 * wanted:
            return records, 64 * buckets
        records, buckets = records + batch, wanted


@pytest.mark.parametrize("share", np.linspace(0.5, 1, 12).round(3))
def test_a_record_costs_little_wherever_the_index_stands(share):
    """Over one doubling of the capacity the index has been at every point between two doublings of its own."""
    capacity = int(share * 8 * GIB)
    records, index = filled(capacity, 96, 2**18)
    assert capacity / records - 80 < 32
    assert 8 <= index / records <= 11


@pytest.mark.gpu
@given(st.integers(1, 2**40))
def test_the_buffers_of_bulk_calls_are_whole_pages(capacity):
    keys, chunk, rings, scratch, total = ring.sizes_of(capacity)
    assert total % sizing.granule(capacity) == 0 and keys % 256 == chunk % 256 == 0
    assert 0 < ring.DEPTH * (keys + 2 * chunk) <= rings <= total - scratch
    assert scratch or capacity < 16 * MIB
    assert capacity >= sizing.PAGED_CAPACITY or total <= sizing.PAGE_NBYTES // 2
    assert total < max(0.05 * capacity, sizing.PAGE_NBYTES + 1)


# ---- What is taken


@pytest.mark.quiet
@pytest.mark.gpu
@pytest.mark.parametrize("capacity", [64 * MIB, GIB, 8 * GIB])
def test_a_capacity_is_what_the_driver_says(capacity):
    memory_rates.warm_up()
    before = taken()
    with Predis(capacity, backend="cuda") as cache:
        # For its streams a driver takes a page of its own now and then.
        assert 0.98 * capacity <= taken() - before <= 1.02 * capacity + sizing.PAGE_NBYTES
        assert 0.98 * capacity <= check_invariants(cache)["taken_memory"] <= capacity
    assert taken() - before < 0.02 * capacity + 4 * MIB


@pytest.mark.gpu
@pytest.mark.parametrize("doorbell", [False, True])
def test_a_closed_cache_holds_no_device_memory(doorbell):
    """Also before somebody looks for reference cycles."""

    def held():
        return sum(it.nbytes for it in gc.get_objects() if isinstance(it, cupy.ndarray))

    gc.collect()
    gc.disable()
    try:
        before = held()
        with Predis("16MiB", backend="cuda", doorbell=doorbell) as cache:  # its scratch too
            cache.insert([b"key"], [b"value"])
            assert cache.get(b"key") == b"value"
            assert held() - before > 2**20
        assert held() == before  # a small one may be a piece of all
        engine = weakref.ref(cache._table)
        del cache
        assert engine() is None  # nor streams
    finally:
        gc.enable()


@pytest.mark.quiet
@pytest.mark.gpu
def test_a_growing_index_takes_its_room_from_the_log(make):
    cache, before = make("64MiB"), taken()
    empty = check_invariants(cache)["taken_memory"]
    for part in np.split(np.arange(200_000), 10):
        assert cache.insert(keys_of(part), keys_of(part)).ok
    told = check_invariants(cache)
    assert told["index_memory"] >= 200_000 * 8 and taken() - before <= 2 * MIB
    assert told["taken_memory"] >= 0.95 * told["maxmemory"]
    cache.flushdb()
    assert check_invariants(cache)["taken_memory"] == empty


@pytest.mark.quiet
@pytest.mark.gpu
def test_a_record_of_80_bytes_costs_40_more_at_most():
    for capacity in (16 * MIB, 22 * MIB):
        cost = memory_rates.record_overhead(capacity, batch=2**13)
        assert cost.overhead <= 40 and cost.parts["buffers"] > 0 and cost.taken <= 1.02 * capacity
        assert sum(cost.parts.values()) == cost.taken and min(cost.parts.values()) >= 0


@pytest.mark.gpu
@pytest.mark.parametrize("checksums", [False, True])
@pytest.mark.parametrize("nbytes", [8, 64])
def test_one_batch_can_fill_a_cache(make, nbytes, checksums):
    """The segments set aside for a batch leave room for the index that its records need."""
    cache = make("8MiB", checksums=checksums)
    n = 8 * MIB // (32 + nbytes)
    report = cache.insert(keys_of(np.arange(n)), rows_of(np.arange(n), nbytes))
    stored = report.counts()["stored"]
    room = 8 * MIB - cache.info("memory")["buffers_memory"]
    assert stored * ((16 + 16 + nbytes + 15) // 16 * 16 + 10) > 0.85 * room
    assert not checksums or cache.verify() == 0
    assert cache.dbsize() == stored == cache.contains(keys_of(np.arange(n))).sum()
    check_invariants(cache)
