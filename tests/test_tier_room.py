"""A cache with a host part: how much goes into it, how dead records give their room back, and the client's side of it."""

import warnings

import numpy as np
import pytest
from tiered import MIB, SEGMENT, check_memory, fill, keys_of, moved, rows, stats, values_of

from predis_lab import InvalidArgument, InvalidKey, Predis, Status, UnsupportedType

try:
    from predis_lab.bench import tier_rates
    from predis_lab.gpu import memory
except ImportError:  # every test on a device then skips with this as its reason, see conftest
    memory = tier_rates = None


# ---- Room


@pytest.mark.gpu
def test_both_sides_are_filled_and_no_more(tiered_cache):
    cache = tiered_cache(host_capacity=4 * MIB)
    numbers = np.arange(25_000)
    parts = np.split(numbers, 25)
    status = np.concatenate([cache.insert(keys_of(p), values_of(p)).status for p in parts])
    stored = status == Status.STORED
    assert set(status[~stored].tolist()) == {Status.NO_SPACE}
    assert 0.85 * 5 * MIB < stored.sum() * 288 + cache.info()["index_memory"] < 5 * MIB
    assert np.array_equal(cache.contains(keys_of(numbers)), stored)
    assert cache.find(keys_of(numbers[stored])).to_pylist() == rows(values_of(numbers[stored]))
    check_memory(cache)
    # What is read comes back all the same: a part of the host is kept for that.
    before = stats(cache)
    for _ in range(4):
        cache.find(keys_of(np.arange(50)))
    assert moved(cache, before)[2] == 50 * 288
    # And what is erased makes room.
    assert cache.erase(keys_of(numbers[stored][::2])).all()
    more = np.arange(10**6, 10**6 + 4000)
    assert cache.insert(keys_of(more), values_of(more)).counts() == {"stored": 4000}
    kept = numbers[stored][1::2]
    assert cache.find(keys_of(kept)).to_pylist() == rows(values_of(kept))
    assert cache.find(keys_of(more)).to_pylist() == rows(values_of(more))
    check_memory(cache)


@pytest.mark.gpu
def test_records_written_over_again_and_again(tiered_cache):
    """Three times the live bytes fit: compaction on the device, cleaning on the host, and nothing is ever refused."""
    cache = tiered_cache(host_capacity=4 * MIB)
    generator, n = np.random.default_rng(7), 8000
    turns = np.zeros(n, np.int64)
    fill(cache, n)
    for turn in range(1, 25):
        numbers = generator.permutation(n)[:1000]
        turns[numbers] = turn
        values = values_of(numbers * 64 + turn)
        assert cache.insert(keys_of(numbers), values).counts() == {"updated": 1000}
        cache.find(keys_of(generator.integers(0, n, 300)))
    numbers = np.arange(n)
    old, expected = turns == 0, rows(values_of(numbers * 64 + turns))
    found = cache.find(keys_of(numbers)).to_pylist()
    assert all(found[i] == expected[i] for i in numbers[~old])
    assert [found[i] for i in numbers[old]] == rows(values_of(numbers[old]))
    assert cache.dbsize() == n and stats(cache)["demoted_bytes"] > 4 * MIB
    check_memory(cache)
    assert cache.erase(keys_of(numbers)).all()
    assert cache.info()["host_records_memory"] == cache.info()["device_records_memory"] == 0


@pytest.mark.gpu
def test_expired_records_on_the_host_make_room(tiered_cache, clock):
    cache = tiered_cache(host_capacity=4 * MIB)
    keep = np.arange(10**6, 10**6 + 500)
    fill(cache, 500, first=10**6)
    for turn in range(3):
        numbers = np.arange(turn * 12_000, (turn + 1) * 12_000)
        for part in np.split(numbers, 6):
            report = cache.insert(keys_of(part), values_of(part), px=1000)
            assert report.counts() == {"stored": 2000}
        clock.now += 1000
        assert cache.dbsize() == 500
    assert cache.find(keys_of(keep)).to_pylist() == rows(values_of(keep))
    check_memory(cache)


@pytest.mark.gpu
@pytest.mark.parametrize("host_capacity", [1, SEGMENT, 3 * SEGMENT])
def test_a_host_part_of_next_to_nothing(tiered_cache, host_capacity):
    cache = tiered_cache(host_capacity=host_capacity)
    numbers = np.arange(6000)
    status = cache.insert(keys_of(numbers), values_of(numbers)).status
    stored = status == Status.STORED
    assert 2000 < stored.sum() < 6000
    assert cache.find(keys_of(numbers[stored])).to_pylist() == rows(values_of(numbers[stored]))
    check_memory(cache)


@pytest.mark.gpu
def test_what_the_system_does_not_pin_is_no_capacity(tiered_cache, monkeypatch):
    cache, pinned = tiered_cache(), []

    def refuse(nbytes):
        if len(pinned) == 10:
            return None
        pinned.append(nbytes)
        return from_host(nbytes)

    from_host = memory.from_host
    monkeypatch.setattr(cache._table.table.tiers.host, "allocate", refuse)
    numbers = np.arange(15_000)
    with pytest.warns(RuntimeWarning, match="655,360 bytes of host memory could be pinned") as told:
        status = np.concatenate(
            [cache.insert(keys_of(p), values_of(p)).status for p in np.split(numbers, 15)]
        )
    assert len(told) == 1
    stored = status == Status.STORED
    assert set(status[~stored].tolist()) == {Status.NO_SPACE}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.find(keys_of(numbers[stored])).to_pylist() == rows(values_of(numbers[stored]))
        assert not cache.insert(keys_of(numbers[~stored]), values_of(numbers[~stored])).ok
    check_memory(cache)


@pytest.mark.gpu
def test_flushing_and_closing_give_the_host_back(tiered_cache):
    cache = tiered_cache()
    fill(cache, 10_000)
    for turn in range(2):
        assert cache.info()["host_memory"] > MIB and stats(cache)["demoted_bytes"] > 0
        cache.prefetch(keys_of(np.arange(100)))
        cache.flushdb()
        info = cache.info()
        assert info["host_memory"] == info["host_records_memory"] == info["promoted_bytes"] == 0
        assert info["host_hits"] == info["device_hits"] == info["demoted_bytes"] == 0
        assert cache.dbsize() == 0 and cache.find(keys_of(np.arange(3))).null_count == 3
        fill(cache, 10_000)
        numbers = np.arange(10_000)
        assert cache.find(keys_of(numbers)).to_pylist() == rows(values_of(numbers)), turn
    host = cache._table.table.tiers.host
    cache.close()
    assert host.nbytes == 0


# ---- The client


def test_a_host_table_has_both_capacities():
    with Predis(1000, host_capacity="3kB", backend="host") as cache:
        assert cache.info()["maxmemory"] == 4000
        assert cache.insert([b"a", b"b"], [bytes(1500)] * 2).ok
        assert cache.prefetch([b"a", "absent"]) is None and cache.prefetch([]) is None
        assert "host_hits" not in cache.info() and "host_memory" not in cache.info()


@pytest.mark.parametrize("wrong", [-1, "much", 1.5, None, True])
def test_a_host_capacity_is_a_number_of_bytes(wrong):
    with pytest.raises(InvalidArgument):
        Predis(1000, host_capacity=wrong, backend="host")


def test_keys_to_prefetch_are_checked(cache):
    for wrong, error in [([b""], InvalidKey), ([None], InvalidKey), ("ab", UnsupportedType)]:
        with pytest.raises(error):
            cache.prefetch(wrong)
    assert cache.prefetch([b"a", "b"]) is None and len(cache) == 0


@pytest.mark.gpu
def test_without_a_host_part_nothing_is_counted():
    with Predis("1MiB", backend="cuda") as cache:
        cache.set("a", b"1")
        cache.prefetch(["a"])
        assert cache.get("a") == b"1" and "host_hits" not in cache.info()


@pytest.mark.gpu
def test_the_tiers_have_rates():
    found = {limit.name: limit for limit in tier_rates.tier_rates(6000, 700, 2)}
    names = "tier_uniform_bandwidth tier_uniform_promoting tier_gather tier_zipf_share"
    assert list(found) == names.split()
    for limit in found.values():
        assert len(limit.values) == 2 and min(limit.values) > 0
    assert max(found["tier_zipf_share"].values) <= 1
    assert found["tier_uniform_bandwidth"].theory > 0
