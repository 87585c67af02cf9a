"""The tuner inside the engine: whatever way and setting a call goes by, its answers are the same; measuring disturbs nobody."""

import itertools
import json
import random
from dataclasses import asdict, replace

import pytest
from simulated import USUAL
from test_tuning_model import READ

from predis_lab import CacheClosed, DeviceFailed, Predis, Tuning
from predis_lab.gpu import kept, tuner
from predis_lab.gpu.stages import FIND, INSERT, PIPELINE, Machine
from predis_lab.gpu.tuning import estimates_of

try:
    import cupy

    from predis_lab.gpu import measuring, modules, ring
    from predis_lab.gpu.health import Health
except ImportError:  # what needs it then skips with this as its reason, see conftest
    cupy = None

pytestmark = pytest.mark.gpu

ALL = {"doorbell_rows": 1024, "small_nbytes": 2**30, "chunk_nbytes": 2**12, "depth": 4}
FORCED = {
    "doorbell": ALL,
    "launch": ALL | {"doorbell_rows": 0},
    **{
        f"pipeline {depth} {chunk}": {"doorbell_rows": 0, "small_nbytes": 0, "depth": depth, "chunk_nbytes": chunk}
        for depth, chunk in ((2, 2**12), (3, 1000), (8, 2**30), (2, 256))
    },
}  # fmt: skip


def calls(cache, seed, n=30, most=500):
    """Calls of every kind and size, each against a dict."""
    chance, known = random.Random(seed), {}
    for _ in range(n):
        count = chance.choice([1, 1, 2, 33, most])
        keys = [b"key %d" % (chance.randrange(900) * chance.choice([1, 1, 7])) for _ in range(count)]  # fmt: skip
        size = chance.choice([0, 8, 64, 64, 300])
        match chance.randrange(5):
            case 0 | 1:
                assert cache.find(keys).to_pylist() == [known.get(key) for key in keys]
            case 2 | 3:
                values = [chance.randbytes(size) for _ in keys]
                assert cache.insert(keys, values).ok
                known |= dict(zip(keys, values, strict=True))
            case 4:
                assert cache.exists(*keys) == sum(key in known for key in keys)
                assert cache.delete(*keys[:20]) == len(set(keys[:20]) & known.keys())
                for key in keys[:20]:
                    known.pop(key, None)
        assert cache.dbsize() == len(known)
    assert dict(zip(known, cache.mget(list(known)), strict=True)) == known


@pytest.mark.parametrize("name", FORCED)
def test_every_way_gives_the_same_answers(make, name):
    cache = make("64MiB", tuning=Tuning(**FORCED[name], packers=2))
    calls(cache, 1)
    said = cache.tuning
    assert said.state == "pinned" == cache.info()["tuning"]
    asked = said.explain(100, 64)
    assert asked.way == name.split()[0] and asked.way in str(asked) and "pinned" in str(said)
    pipeline = cache._table.pipeline
    assert asked.tuning.depth * asked.tuning.chunk_nbytes <= pipeline.room_nbytes
    if name.startswith("pipeline"):
        assert pipeline.transfers.calls > 30 and pipeline.answers.depth == asked.tuning.depth
    else:
        assert not pipeline.transfers.calls


@pytest.mark.parametrize("seed", range(2))
def test_calls_that_go_now_this_way_and_now_that(make, monkeypatch, seed):
    """A machine on which everything takes about as long, and that no call is like: cases try and change all the time."""
    for name in ("TRIED_EVERY", "WAIT", "TRIALS"):
        monkeypatch.setattr(tuner, name, 1)
    monkeypatch.setattr(tuner, "SAMPLED_BELOW_S", 0)
    monkeypatch.setattr(tuner, "TRIED_WITHIN", 1000)
    cache = make("64MiB")
    even = {name: 1e-4 for name in asdict(USUAL) if name.endswith("_s")}
    cache._table.tuner.adopt(
        replace(USUAL, **even | {"row_s": 1e-9, "bell_row_s": 1e-9, "wake_s": 1e-9})
    )
    calls(cache, seed, 100)
    assert cache.tuning.trials > 10 and cache._table.pipeline.transfers.calls > 10


def test_what_is_chosen_for_and_why(make):
    cache = make("64MiB", doorbell=False)
    cache.insert([b"a", b"b"], [b"x" * 100, b"y" * 100])
    assert cache.tuning.state == "as built" and cache.tuning.machine is None
    assert "nothing has been measured" in str(cache.tuning.explain(10))
    assert cache.tuning.explain(10).shape.down == 100 + 4.125
    cache._table.tuner.adopt(USUAL)
    few, many = cache.tuning.explain(10), cache.tuning.explain(10**7, 64, verb="insert")
    assert few.way == "launch" and many.way == "pipeline" and many.choice.estimates[many.way].stages
    assert cache.tuning.current.way(10_000, 10_000 * 220) == cache.tuning.explain(10_000).way
    assert "chosen by what was measured" in str(cache.tuning)
    keys = [b"%016d" % i for i in range(1000)]
    cache.insert(keys, [b"v" * 64] * 1000)
    for _ in range(200):
        assert cache.mget(keys) == [b"v" * 64] * 1000
    assert "calls timed" in str(cache.tuning.explain(1000, 64))


# ---- Measuring


def test_what_is_swept_is_what_may_be_chosen():
    """Notebook 03 holds the tuner to the best of the settings that it could have chosen, and to no other."""
    from predis_lab.bench.tuning_rates import Stock, fixed_tunings

    for value_nbytes in (64, 1024):
        stock, ways = Stock(50, value_nbytes), set()
        for verb, rows in itertools.product(
            (FIND, INSERT), (1, 100, 1024, 1025, 10_000, 2_000_000)
        ):
            swept = {PIPELINE, *(name.split(",")[0] for name in fixed_tunings(stock, verb, rows))}
            shape = stock.engine.tuner.shape_of(verb, rows, 16, value_nbytes)
            assert swept == estimates_of(USUAL, shape, Tuning().setting).keys(), (verb, rows)
            ways.add(frozenset(swept))
        stock.cache.close()
        assert len(ways) == 3


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """Where constants are kept, and read again."""
    monkeypatch.setattr(kept, "read", READ)
    plain = modules.cache_directory()
    monkeypatch.setattr(measuring.modules, "cache_directory", lambda: tmp_path)
    yield tmp_path
    assert plain != tmp_path


@pytest.fixture
def loaded():
    """Modules are where they always are: loaded before a test moves the directory."""
    Predis("1MiB", backend="cuda").close()


def test_a_machine_is_measured_once(loaded, folder, make):
    cache = make("8MiB")
    machine = cache.tuning.measure()
    assert cache.tuning.state == "measured" and cache.tuning.machine == machine
    assert machine.bell_s is not None and not cache.dbsize()
    assert cache.info("transfers")["calls"] == 0
    (file,) = folder.iterdir()
    assert make("8MiB").tuning.machine == machine
    assert (
        make("8MiB", doorbell=False).tuning.state == "as built"
    )  # without a doorbell it is another one
    told = json.loads(file.read_text())
    for text in ("", "{}", json.dumps(told | {"identity": {}})):
        file.write_text(text)
        assert make("8MiB").tuning.machine is None
    again = make("8MiB")
    assert again.tuning.measure() == make("8MiB").tuning.machine
    calls(again, 2, 20)


def test_it_is_measured_little_by_little_beside_bulk_calls(loaded, folder, make, monkeypatch):
    monkeypatch.setattr(tuner, "MEASURED_AFTER_S", 0.0)
    monkeypatch.setattr(measuring, "SHARE", 1e6)
    cache = make("64MiB", tuning=None)
    base = replace(cache._table.tuner.tuning, doorbell_rows=0, small_nbytes=0)
    cache._table.tuner.tuning = base  # every call is a bulk call
    states = []
    for turn in range(30):
        keys = [b"%d %d" % (turn, i) for i in range(20)]
        cache.insert(keys, keys)
        assert cache.mget(keys) == keys
        states.append(cache.tuning.state)
    assert states[0] == "as built" and states[-1] == "measured"
    assert [*states].index("measured") > 3 and len([*folder.iterdir()]) == 1
    assert cache.info("transfers")["calls"] <= 60 and cache.dbsize() == 600


def test_measuring_waits_until_bulk_calls_have_taken_long(loaded, folder, make, monkeypatch):
    monkeypatch.setattr(measuring.Measuring, "_step", lambda _: pytest.fail("too early"))
    monkeypatch.setattr(tuner, "MEASURED_AFTER_S", 1e9)
    cache = make("64MiB", tuning=Tuning(small_nbytes=0))
    cache.insert([b"a"] * 100, [b"b"] * 100)
    assert cache.get(b"a") == b"b"


def test_a_measurement_that_fails_is_nobodys_trouble(loaded, folder, make, monkeypatch):
    monkeypatch.setattr(tuner, "MEASURED_AFTER_S", 0.0)

    def refuse(*_):
        raise DeviceFailed("not now")
        yield

    monkeypatch.setattr(measuring, "_steps", refuse)
    cache = make("64MiB")
    cache._table.tuner.tuning = Tuning(small_nbytes=0).fitted(0, 2**20)
    assert cache.insert([b"a"] * 100, [b"b"] * 100).ok and cache.mget([b"a"] * 9) == [b"b"] * 9
    assert cache.tuning.state == "as built" and not [*folder.iterdir()]
    with pytest.raises(DeviceFailed, match="not now"):
        cache.tuning.measure()


def test_a_closed_cache_measures_nothing(make):
    cache = make("8MiB")
    told = cache.tuning
    cache.close()
    with pytest.raises(CacheClosed):
        told.measure()


def test_constants_come_from_every_step(loaded, folder, make):
    names = {name for name, _ in measuring._steps(make("8MiB")._table)}
    assert names | {"packers"} == set(Machine.__dataclass_fields__)


# ---- Rings


@pytest.mark.parametrize("depth", [2, 3, 4, 7, 8])
@pytest.mark.parametrize("nbytes", [256, 1000, 4096, 2**30])
def test_buffers_share_the_ring_s_memory(depth, nbytes):
    memory = cupy.empty(4 * 4096, "u1")
    one = ring.Ring(memory, "a", "b")
    one.shape(nbytes, depth, Health(1))
    begins = sorted(buffer.memory.data.ptr - memory.data.ptr for buffer in one._buffers)
    assert len(begins) == one.depth == depth and one.nbytes % 256 == 0 and one.nbytes
    assert all(b - a >= one.nbytes for a, b in itertools.pairwise(begins))
    assert begins[0] == 0 and begins[-1] + one.nbytes <= memory.size
    seen = [id(one.next(Health(1))) for _ in range(2 * depth)]
    assert len(set(seen)) == depth and seen[:depth] == seen[depth:]
