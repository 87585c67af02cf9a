"""Memory: dead records give their room back, nothing grows, and `info` tells what is held."""

import gc
import threading

import numpy as np
import pyarrow as pa
import pytest
from conftest import BACKENDS
from held import check_invariants, rows_of, taken
from tiered import addresses_of, keys_of

from predis_lab import Column, Predis, Status
from predis_lab.bench import soak
from predis_lab.host_table import HostTable

try:
    import cupy

    from predis_lab.bench import memory_rates, pool_churn
    from predis_lab.gpu import maintain_kernels
    from predis_lab.gpu.maintenance import compact_step
except ImportError:  # what needs it then skips with this as its reason, see conftest
    cupy = None

KIB, MIB, GIB = 2**10, 2**20, 2**30


# ---- Compaction


def test_the_host_table_gives_the_room_of_expired_records_back():
    table = HostTable(10_000)
    keys = Column.of([b"a", b"b", b"c"])
    table.insert(keys, Column.of([b"x" * 84] * 3), 50, 0)
    table.insert(Column.of([b"d"]), Column.of([b"y"]), -1, 0)
    assert table.compact(49) == 0 and table.compact(50) == 3 * (16 + 1 + 84)
    assert table.compact(50) == 0 and table.memory()["used"] == 18


@pytest.mark.parametrize("backend", BACKENDS)
def test_compaction_of_expired_records(backend, clock):
    with Predis("8MiB", backend=backend) as cache:
        numbers = np.arange(3000)
        cache.insert(keys_of(numbers), rows_of(numbers, 512), ex=5)
        cache.insert(keys_of(numbers + 10_000), rows_of(numbers, 512))
        assert cache.compact() == 0
        clock.now += 5000
        assert cache.compact() >= 0.9 * 3000 * 544
        assert cache.compact() == 0 and cache.dbsize() == 3000
        assert cache.find(keys_of(numbers + 10_000)).to_pylist() == [
            row.tobytes() for row in rows_of(numbers, 512)
        ]
        assert not cache.contains(keys_of(numbers)).any()


@pytest.mark.gpu
@pytest.mark.parametrize("share", [0.05, 0.4, 0.6, 0.9])
def test_compaction_leaves_few_segments(make, share):
    """Also where no two segments' records fit into one: what does not fit goes into the next."""
    cache, generator = make("16MiB"), np.random.default_rng(int(100 * share))
    n = 11_000
    numbers, values = np.arange(n), rows_of(np.arange(n), 1000)
    assert cache.insert(keys_of(numbers), values).ok
    before = check_invariants(cache)
    gone = generator.permutation(n)[: round((1 - share) * n)]
    assert cache.erase(keys_of(gone)).all()
    dead = check_invariants(cache)["log_dead_memory"]
    freed = cache.compact()
    told = check_invariants(cache)
    # Of a segment, less than a sixteenth may stay dead, or unused where the next one begins.
    assert told["log_segments_count"] <= share * before["log_segments_count"] / 0.87 + 2
    assert told["log_utilisation_ratio"] > 15 / 16 - 0.01
    assert freed == told["compaction_freed_memory"] == dead - told["log_dead_memory"] > 0
    assert told["compactions_count"] > 0 and told["compaction_seconds"] > 0
    assert told["compaction_moved_memory"] <= told["records_memory"]
    assert cache.compact() == 0
    left = np.setdiff1d(numbers, gone)
    assert cache.dbsize() == len(left) and not cache.contains(keys_of(gone)).any()
    found = cache.find(keys_of(left))
    assert b"".join(found.to_pylist()) == values[left].tobytes()
    # What came free can be written to again.
    more = np.arange(n, n + len(gone))
    report = cache.insert(keys_of(more), rows_of(more, 1000))
    assert report.counts().get("stored", 0) >= 0.9 * len(gone)
    check_invariants(cache)


@pytest.mark.gpu
@pytest.mark.parametrize("pieces", [1, 40])
def test_the_census_is_of_live_bytes(make, clock, pieces):
    """However many segments there are: each is counted in pieces here. Neither expired records nor erased ones are live."""
    cache, numbers = make("16MiB"), np.arange(11_000)
    assert cache.insert(keys_of(numbers[::2]), rows_of(numbers[::2], 992)).ok
    assert cache.insert(keys_of(numbers[1::2]), rows_of(numbers[1::2], 992), ex=5).ok
    assert cache.erase(keys_of(numbers[:4000])).all()
    table = cache._table.table
    segments = sorted(table.arena.segments, key=lambda segment: segment.address)
    starts = np.concatenate(
        [np.arange(s.address, s.end, -(-s.nbytes // pieces), np.uint64) for s in segments]
    )
    live = cupy.zeros(len(starts), np.uint64)
    maintain_kernels.census(table.index, clock.now + 10_000, False, cupy.asarray(starts), live)
    addresses = addresses_of(table.index.get())
    expected = np.zeros(len(starts), np.uint64)
    for segment in segments:
        words = segment.array.get().view(np.uint64)
        here = addresses[(addresses >= segment.address) & (addresses < segment.end)]
        number = words[(here - np.uint64(segment.address)) // 8 + 2]  # behind a header of 16 bytes
        at = np.searchsorted(starts, here[number % 2 == 0], "right") - 1
        np.add.at(expected, at, np.uint64(16 + 16 + 992))
    assert np.array_equal(live.get(), expected) and int(expected.sum()) == 3500 * 1024


@pytest.mark.gpu
def test_a_step_moves_no_more_than_a_segment(make):
    cache = make("16MiB")
    numbers = np.arange(11_000)
    cache.insert(keys_of(numbers), rows_of(numbers, 1000))
    cache.erase(keys_of(numbers[::2]))
    table, steps = cache._table.table, 0
    while freed := compact_step(table, 0):
        steps += 1
        moved = table.compactions.moved_nbytes
        assert moved <= steps * table.arena.segment_nbytes and freed > 0
        found = cache.find(keys_of(numbers[1::500])).to_pylist()
        assert found == [row.tobytes() for row in rows_of(numbers[1::500], 1000)]
        check_invariants(cache)
    assert steps > 10


@pytest.mark.gpu
def test_readers_get_through_while_a_cache_is_compacted(make):
    cache, read = make("16MiB"), []
    numbers = np.arange(11_000)
    cache.insert(keys_of(numbers), rows_of(numbers, 1000))
    cache.erase(keys_of(numbers[::2]))
    name, value = keys_of([1])[0].tobytes(), rows_of([1], 1000)[0].tobytes()
    cache.get(name)
    compacting = threading.Thread(target=cache.compact)
    compacting.start()
    while compacting.is_alive():
        read.append(cache.get(name) == value)
    compacting.join()
    assert all(read) and len(read) >= cache.info("memory")["compactions_count"] / 2 > 5


@pytest.mark.gpu
def test_an_index_grows_into_the_room_of_dead_records(make):
    """All segments are in use and none is empty: only compaction makes room for a larger index."""
    cache, generator = make("4MiB"), np.random.default_rng(3)
    n = 2800
    assert cache.insert(keys_of(np.arange(n)), rows_of(np.arange(n), 1000)).ok
    gone = generator.permutation(n)[: n // 2]
    assert cache.erase(keys_of(gone)).all()
    before = cache._table.table.slots
    more = np.arange(10**6, 10**6 + 16_000)
    for part in np.split(more, 8):
        assert cache.insert(keys_of(part), keys_of(part)).ok
    assert cache._table.table.slots > before and cache.contains(keys_of(more)).all()
    left = np.setdiff1d(np.arange(n), gone)
    assert b"".join(cache.find(keys_of(left)).to_pylist()) == rows_of(left, 1000).tobytes()
    check_invariants(cache)


# ---- info


def test_info_names_bytes_and_counts_apart(cache):
    cache.mset({"a": 1, "b": 2})
    told = cache.info("memory")
    assert {"used_memory", "maxmemory", "records_memory"} <= set(told)
    for name, number in told.items():
        assert name == "maxmemory" or name.endswith(("_memory", "_count", "_ratio", "_seconds"))
        assert number >= 0


@pytest.mark.gpu
def test_info_shows_all_that_is_held(make):
    told = make("64MiB").info("memory")
    expected = {
        *("used_memory", "taken_memory", "maxmemory", "records_memory", "index_memory"),
        *("log_memory", "log_used_memory", "log_dead_memory", "log_segment_memory"),
        *("log_utilisation_ratio", "log_segments_count", "free_segments_count"),
        *("compactions_count", "compaction_moved_memory", "compaction_freed_memory"),
        *("compaction_seconds", "buffers_memory", "pinned_used_memory", "pinned_free_memory"),
        *("pool_memory", "pool_used_memory", "pinned_pool_free_count"),
    }
    assert expected <= set(told)


# ---- Results and leaks


@pytest.mark.gpu
@pytest.mark.parametrize("on_device", [False, True])
def test_results_stay_as_they_are(make, on_device):
    """Whatever happens to the records, or to the cache: overwritten, compacted, flushed, closed."""
    cache = make("16MiB")
    numbers = np.arange(9000)
    cache.insert(keys_of(numbers), rows_of(numbers, 1000))
    asked = keys_of(numbers[::7])
    found = cache.find(cupy.asarray(asked) if on_device else asked)
    expected = rows_of(numbers[::7], 1000).tobytes()

    def content():
        return cupy.asnumpy(found.data).tobytes() if on_device else b"".join(found.to_pylist())

    cache.insert(keys_of(numbers[::2]), rows_of(numbers[::2] + 1, 1000))
    cache.erase(keys_of(numbers[1::3]))
    assert cache.compact() > 0 and content() == expected
    cache.flushdb()
    cache.insert(keys_of(numbers), rows_of(numbers + 5, 1000))
    assert content() == expected
    cache.close()
    again = make("16MiB")
    again.insert(keys_of(numbers), rows_of(numbers + 9, 1000))
    assert content() == expected


@pytest.mark.quiet
@pytest.mark.gpu
def test_ten_thousand_calls_leave_nothing_behind(make):
    cache = make("64MiB")
    keys, pools = keys_of(np.arange(32)), (cupy.get_default_memory_pool(),)
    on_device = cupy.asarray(keys)

    def calls(n):
        for turn in range(n):
            cache.insert(keys, keys)
            cache.set("single", b"%d" % turn)
            assert cache.get("single") == b"%d" % turn
            assert cache.find(keys).null_count == 0
            cache.find(on_device)

    def held():
        # What earlier tests have left: CuPy looks only when it is asked for more whether a block is free again.
        gc.collect()
        cupy.cuda.runtime.deviceSynchronize()
        cupy.cuda.alloc_pinned_memory(1)
        told = cache.info("memory")
        pinned = told["pinned_pool_free_count"]
        return taken(), pinned, [pool.used_bytes() for pool in pools], told["taken_memory"]

    calls(100)
    before = held()
    calls(2000)
    after = held()
    assert after[0] <= before[0] and after[1] <= before[1] + 2 and after[2:] == before[2:]


# ---- The benchmarks


@pytest.mark.quiet
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_soak_finds_nothing_wrong(backend):
    seen = []
    found = soak.soak(
        *(2, 8 * MIB), largest=16 * KIB, batch=32, backend=backend, progress=seen.append, seed=4
    )
    assert found.wrong == found.failures == 0 and found.checked > found.turns > 20
    assert sum(seen) == pytest.approx(1) and found.written > 8 * MIB
    assert found.growth == 0 and found.utilisation >= 0.85
    assert found.readings[-1]["live"] <= 0.9 * 8 * MIB


class Forgetful(HostTable):
    """Loses, keeps or garbles a record now and then."""

    def __init__(self, capacity, fault):
        super().__init__(capacity)
        self._fault, self._calls = fault, 0

    def _at_fault(self, verb):
        self._calls += self._fault == verb
        return self._fault == verb and self._calls % 7 == 3

    def find(self, keys, now_ms):
        found = super().find(keys, now_ms)
        if not self._at_fault("find"):
            return found
        return pa.array([None if row is None else b"?" + row[1:] for row in found.to_pylist()])

    def insert(self, keys, values, expire_at_ms, now_ms):
        status = super().insert(keys, values, expire_at_ms, now_ms)
        if self._at_fault("insert"):
            super().erase(keys[:3], now_ms)
        return status

    def erase(self, keys, now_ms):
        if self._at_fault("erase"):
            return self.contains(keys, now_ms)
        return super().erase(keys, now_ms)


@pytest.mark.parametrize("fault", ["find", "insert", "erase"])
def test_a_soak_finds_what_is_wrong(monkeypatch, fault):
    monkeypatch.setattr(soak, "make_table", lambda capacity, _: Forgetful(capacity, fault))
    found = soak.soak(0.5, 8 * MIB, largest=16 * KIB, batch=32, backend="host")
    assert found.wrong > 0


def test_a_refusal_is_a_failure(monkeypatch):
    monkeypatch.setattr(soak, "make_table", lambda capacity, _: HostTable(capacity // 2))
    found = soak.soak(0.3, 4 * MIB, largest=16 * KIB, batch=32, backend="host")
    assert found.failures > 0 and found.wrong == 0


def test_growth_is_of_what_is_full():
    found = soak.Soaked()
    found.readings = [{"device": 100 + i, "full": i >= 30} for i in range(60)]
    assert found.growth == 20
    found.readings = [{"device": 100, "full": True}, {"device": 300, "full": True}]
    assert found.growth == 0  # too few to tell


@pytest.mark.gpu
def test_the_churn_keeps_its_plan(tmp_path):
    from predis_lab.bench.results import Run

    plan = list(pool_churn.turns(4 * MIB, 0.6, 2.0, 16, 16, 16 * KIB, 1))
    sizes, alive = {}, set()
    for turn in plan:
        assert alive.issuperset(turn.freed.tolist())
        alive -= set(turn.freed.tolist())
        new = range(turn.first, turn.first + len(turn.sizes))
        sizes |= dict(zip(new, turn.sizes.tolist(), strict=True))
        alive |= set(new)
        assert sum(sizes[number] for number in alive) <= 0.6 * 4 * MIB
    run = Run.open(tmp_path, notebook="t")
    options = {"full": 0.6, "written": 2.0, "batch": 16, "largest": 16 * KIB}
    found = pool_churn.pool_churn(run, 4 * MIB, **options)
    assert found["arena"].failures == 0
    assert len({tuple(churn.live) for churn in found.values() if not churn.failures}) == 1
    for churn in found.values():
        assert (churn.held_over_live >= 1).all() and min(churn.latencies) > 0


@pytest.mark.gpu
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_cost_of_compaction_is_of_bytes_moved(share):
    steps = memory_rates.compaction_cost(2 * MIB, share, 256)
    moved, freed = (sum(getattr(step, name) for step in steps) for name in ("moved", "freed"))
    assert freed > 0.8 * (1 - share) * 1.5 * MIB and all(step.seconds > 0 for step in steps)
    assert moved == 0 if share == 0 else 0.5 * freed < moved < 1.5 * freed


@pytest.mark.gpu
def test_readers_are_timed_alone_and_beside_compaction():
    found = memory_rates.reader_latencies(8 * MIB, 256, 1)
    assert len(found["quiet"]) == len(found["compacting"]) > 5
    assert Status.STORED == 0
