"""A cache with a host part: nothing is lost between the tiers, and what is read comes back."""

import numpy as np
import pytest
from tiered import (
    MIB,
    SEGMENT,
    check_memory,
    fill,
    keys_of,
    moved,
    prefetch,
    rows,
    stats,
    values_of,
)

try:
    import cupy

    from predis_lab.gpu import tiers
except ImportError:  # every test here then skips with this as its reason, see conftest
    cupy = tiers = None

pytestmark = pytest.mark.gpu


@pytest.fixture
def remember(monkeypatch):
    """Notes of what was read stay for as many reads as there are records, this many times."""
    return lambda times: monkeypatch.setattr(tiers, "MEMORY_READS", times)


# ---- Nothing is lost


@pytest.mark.parametrize("kind", ["fixed", "variable"])
@pytest.mark.parametrize("seed", range(2))
def test_against_a_dict(tiered_cache, clock, kind, seed):
    """A tenth of the records lies on the device; they are read, written over, erased, and expire."""
    cache, oracle = tiered_cache(), {}
    generator = np.random.default_rng(seed)

    def some(n):
        return generator.integers(0, 12_000, n)

    def key(number):
        return number.tobytes() + b"." * (8 if kind == "fixed" else int(number) % 40)

    def value(number, turn):
        nbytes = 256 if kind == "fixed" else int(number * 7 + turn) % 700
        return (b"%d:%d " % (number, turn) * 80)[:nbytes]

    def check(numbers):
        asked = [key(number) for number in numbers]
        expected = [oracle.get(k, (None,))[0] for k in asked]
        assert cache.find(asked).to_pylist() == expected
        assert cache.contains(asked).tolist() == [v is not None for v in expected]

    for turn in range(24):
        clock.now += 1000
        oracle = {k: (v, at) for k, (v, at) in oracle.items() if at is None or at > clock.now}
        numbers = some(1000)
        batch = {key(number): value(number, turn) for number in numbers}
        ttl = [None, None, 2500, 60_000][turn % 4]
        assert cache.insert(list(batch), list(batch.values()), px=ttl).ok
        oracle |= {k: (v, ttl and clock.now + ttl) for k, v in batch.items()}
        check(some(300))
        hot = np.arange(50)
        check(np.concatenate([hot, hot]))
        if turn % 3 == 0:
            prefetch(cache, [key(number) for number in some(100)])
        if turn % 5 == 0:
            gone = list({key(number) for number in some(400)})
            assert cache.erase(gone).tolist() == [k in oracle for k in gone]
            for k in gone:
                oracle.pop(k, None)
        if turn % 7 == 0:
            one = key(some(1)[0])
            assert cache.get(one) == oracle.get(one, (None,))[0]
    check(np.arange(12_000))
    assert cache.dbsize() == len(oracle) and set(cache.scan_iter()) == set(oracle)
    assert stats(cache)["demoted_bytes"] > 0 and stats(cache)["promoted_bytes"] > 0
    check_memory(cache)
    assert cache.erase(list(oracle)).all() and cache.dbsize() == 0


@pytest.mark.parametrize("nbytes", [256, 100, 0])
@pytest.mark.parametrize("on_device", [True, False])
def test_columns_on_either_side(tiered_cache, nbytes, on_device):
    cache = tiered_cache()
    side = cupy.asarray if on_device else np.asarray
    numbers = np.arange(20_000 if nbytes else 40_000)
    values = values_of(numbers, nbytes)
    for part in np.split(numbers, 10):
        assert cache.insert(side(keys_of(part)), side(values[part])).ok
    assert cache.info()["host_records_memory"] > cache.info()["device_records_memory"]
    asked = np.random.default_rng(0).permutation(len(numbers) + 500)
    for _ in range(2):
        found = cache.find(side(keys_of(asked)))
        if on_device:
            data, offsets, validity = (x.get() for x in (found.data, found.offsets, found.validity))
            present = np.unpackbits(validity, count=len(asked), bitorder="little").astype(bool)
            got = [
                data[offsets[i] : offsets[i + 1]].tobytes() if present[i] else None
                for i in range(len(asked))
            ]
        else:
            got = found.to_pylist()
        assert got == [values[i].tobytes() if i < len(numbers) else None for i in asked]
    check_memory(cache)


@pytest.mark.parametrize("nbytes", [30_000, 65_000, 65_537, 200_000])
def test_values_of_a_segment_and_more(tiered_cache, remember, nbytes):
    """What is longer than a segment can hold stays on the host until it is written anew."""
    remember(10)
    cache = tiered_cache()
    numbers = np.arange(3 * MIB // nbytes)
    values = {b"%d" % i: np.random.default_rng(i).bytes(nbytes) for i in numbers}
    for key, value in values.items():
        assert cache.set(key, value) is True
    for _ in range(3):
        assert cache.mget(list(values)) == list(values.values())
    assert stats(cache)["host_hits"] > 0
    assert (stats(cache)["promoted_bytes"] > 0) == (nbytes < SEGMENT - 100)
    prefetch(cache, list(values))
    check_memory(cache)
    for key in values:
        values[key] = values[key][::-1]
        assert cache.set(key, values[key]) is True
    assert cache.mget(list(values)) == list(values.values())
    check_memory(cache)


def test_a_batch_larger_than_the_device(tiered_cache):
    """It is stored as several; the last of equal keys wins all the same."""
    cache = tiered_cache()
    numbers = np.random.default_rng(2).integers(0, 5000, 11_000)
    turns = np.arange(len(numbers))
    report = cache.insert(keys_of(numbers), values_of(turns))
    assert report.ok and report.counts()["stored"] <= len(set(numbers))
    last = np.zeros(5000, np.int64)
    np.maximum.at(last, numbers, turns)
    asked = np.unique(numbers)
    assert cache.find(keys_of(asked)).to_pylist() == rows(values_of(last[asked]))
    assert cache.dbsize() == len(asked)
    check_memory(cache)


def test_the_index_grows_while_records_lie_on_the_host(tiered_cache):
    cache = tiered_cache(host_capacity=16 * MIB)
    table = cache._table.table
    fill(cache, 60_000, nbytes=64, step=5000)
    assert table.slots > 8 * 8192 and cache.info()["host_records_memory"] > 0
    numbers = np.arange(60_000)
    assert cache.find(keys_of(numbers)).to_pylist() == rows(values_of(numbers, 64))
    check_memory(cache)


# ---- What moves


def test_the_oldest_records_move_to_the_host(tiered_cache):
    cache = tiered_cache()
    fill(cache, 2000)
    cache.find(keys_of(np.arange(2000)))
    # Nothing is counted as long as all lie on one side.
    assert stats(cache)["demoted_bytes"] == stats(cache)["device_hits"] == 0
    fill(cache, 8000, first=2000)
    before = stats(cache)
    there = before["demoted_bytes"] // 288
    assert 6000 < there < 9000 and cache.info()["host_records_memory"] == 288 * there
    cache.find(cupy.asarray(keys_of(np.arange(10_000))))
    # The first lookup takes a segment for what is to come back, and the oldest on the device goes.
    assert moved(cache, before) == (10_000 - there, there, 0, 227 * 288)
    before = stats(cache)
    cache.find(cupy.asarray(keys_of(np.arange(there + 227, 10_000))))
    assert moved(cache, before) == (10_000 - there - 227, 0, 0, 0)


def test_the_second_read_brings_a_record_back(tiered_cache, remember):
    remember(1)
    cache = tiered_cache()
    fill(cache, 10_000)
    asked = keys_of(np.arange(30))
    before = stats(cache)
    assert cache.find(asked).to_pylist() == rows(values_of(np.arange(30)))
    assert moved(cache, before)[:3] == (0, 30, 0)
    cache.find(asked)
    assert moved(cache, before)[:3] == (0, 60, 30 * 288)
    assert cache.find(asked).to_pylist() == rows(values_of(np.arange(30)))
    assert moved(cache, before)[:3] == (30, 60, 30 * 288)
    # Demoted, it begins anew. Other records take the rest of the segment, or it would be kept for what comes back.
    prefetch(cache, keys_of(np.arange(1000, 1600)))
    fill(cache, 4000, first=10_000)
    before = stats(cache)
    cache.find(asked)
    assert moved(cache, before) == (0, 30, 0, 0)
    assert cache.get(asked[0].tobytes()) == values_of([0])[0].tobytes()
    assert cache.get(asked[0].tobytes()) == values_of([0])[0].tobytes()
    assert moved(cache, before) == (1, 31, 288, 0)
    check_memory(cache)


def test_what_was_read_is_forgotten_in_time(tiered_cache, remember):
    remember(0.01)  # of 10,000 records
    cache = tiered_cache()
    fill(cache, 10_000)
    before = stats(cache)
    for first in (0, 90, 0, 90):
        cache.find(keys_of(np.arange(first, first + 60)))
        cache.find(keys_of(np.arange(1000, 1030)))
        cache.find(keys_of(np.arange(2000, 2060)))
    assert moved(cache, before)[2] == 0
    cache.find(keys_of(np.arange(15)))
    cache.find(keys_of(np.arange(15)))
    assert moved(cache, before)[2] == 15 * 288


def test_a_pass_over_all_keys_moves_nothing(tiered_cache):
    cache = tiered_cache()
    fill(cache, 10_000)
    before = stats(cache)
    for _ in range(3):
        for part in np.split(np.random.default_rng(4).permutation(10_000), 10):
            assert cache.find(keys_of(part)).to_pylist() == rows(values_of(part))
    # Parts of two passes may meet within the time that notes last.
    assert moved(cache, before)[2] < 0.05 * 30_000 * 288


def test_equal_keys_in_a_batch_move_once(tiered_cache, remember):
    remember(1)
    cache = tiered_cache()
    fill(cache, 10_000)
    before = stats(cache)
    asked = np.repeat(np.arange(5), 300)
    np.random.default_rng(5).shuffle(asked)
    cache.find(
        cupy.asarray(keys_of(asked))
    )  # in one piece: columns from the host may come in several
    assert moved(cache, before)[:3] == (0, 1500, 5 * 288)
    assert cache.find(keys_of(asked)).to_pylist() == rows(values_of(asked))
    assert moved(cache, before)[:3] == (1500, 1500, 5 * 288)
    check_memory(cache)


@pytest.mark.parametrize("on_device", [True, False])
def test_prefetched_records_are_on_the_device(tiered_cache, on_device):
    cache = tiered_cache()
    fill(cache, 10_000)
    before, numbers = stats(cache), np.concatenate([np.arange(700), np.arange(100)])
    asked = keys_of(np.concatenate([numbers, np.arange(10**6, 10**6 + 50)]))
    prefetch(cache, cupy.asarray(asked) if on_device else asked)
    assert moved(cache, before)[:3] == (0, 0, 700 * 288)
    assert cache.find(asked[:800]).to_pylist() == rows(values_of(numbers))
    assert moved(cache, before)[:3] == (800, 0, 700 * 288)
    prefetch(cache, asked)
    assert moved(cache, before)[:3] == (800, 0, 700 * 288)
    check_memory(cache)


def test_more_is_announced_than_the_device_holds(tiered_cache):
    cache = tiered_cache()
    fill(cache, 15_000)
    before, numbers = stats(cache), np.arange(15_000)
    prefetch(cache, keys_of(numbers))
    brought = moved(cache, before)[2]
    assert 6 * SEGMENT < brought < 9 * SEGMENT
    assert cache.find(keys_of(numbers)).to_pylist() == rows(values_of(numbers))
    cache.prefetch([])
    check_memory(cache)


def test_expired_records_do_not_come_back(tiered_cache, clock):
    cache = tiered_cache()
    numbers = np.arange(5000)
    assert cache.insert(keys_of(numbers), values_of(numbers), px=1000).ok
    fill(cache, 5000, first=5000)
    clock.now += 1000
    before = stats(cache)
    prefetch(cache, keys_of(np.arange(600)))
    for _ in range(2):
        assert cache.find(keys_of(np.arange(600))).null_count == 600
    assert moved(cache, before)[2] == 0 and cache.dbsize() == 5000


def zipf(generator, records, n, exponent=0.99):
    """n ranks below `records`, the lower the likelier."""
    weights = np.cumsum(np.arange(1, records + 1) ** -exponent)
    return np.searchsorted(weights, generator.random(n) * weights[-1])


def test_a_zipf_load_is_served_from_the_device(tiered_cache):
    """A tenth of the records fits there. Without any choice a tenth of the hits would be served from there."""
    cache, generator, records = (
        tiered_cache(host_capacity=16 * MIB),
        np.random.default_rng(6),
        25_000,
    )
    fill(cache, records, nbytes=320, step=5000)
    names = generator.permutation(records)
    for turn in range(100):
        if turn == 70:
            before = stats(cache)
        numbers = names[zipf(generator, records, 1500)]
        assert cache.find(keys_of(numbers)).to_pylist() == rows(values_of(numbers, 320))
    info = cache.info()
    assert info["device_records_memory"] <= 0.1 * info["records_memory"]
    device_hits, host_hits, _, _ = moved(cache, before)
    assert device_hits / (device_hits + host_hits) > 0.6
    check_memory(cache)
