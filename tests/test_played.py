"""Scenarios played against real systems: every answer is looked at, and every system does the same work."""

import numpy as np
import pytest

from predis_lab import Predis, PredisError
from predis_lab.bench import played
from predis_lab.bench.contestants import WrongAnswerError, load
from predis_lab.bench.operations import Verb
from predis_lab.bench.results import Run
from predis_lab.bench.scenarios import SCENARIOS
from predis_lab.report import comparison, figures, show

pytestmark = pytest.mark.redis
SYSTEMS = {
    *("predis-host columns", "predis-host lists", "dict"),
    *(f"redis {way} {transport}" for way in ("mget", "pipeline") for transport in ("unix", "tcp")),
}


@pytest.fixture
def cache():
    with Predis("256MiB", backend="host") as predis:
        yield predis


def filled(cache, server, name, records=500):
    scenario = SCENARIOS[name](records)
    load(cache, [server], scenario.data.filled())
    return scenario


def operations_of(scenario, size):
    """What is played in batches of this size."""
    return scenario.operations(played.BATCHES * size, seed=1)


@pytest.mark.parametrize("name", SCENARIOS)
def test_all_systems_play_the_same(cache, server, name):
    scenario = filled(cache, server, name)
    contestants = played.playing(cache, [server], scenario, 40, seed=1)
    assert {one.system for one in contestants} == SYSTEMS
    for one in contestants:
        assert one.operations == 40
        one.check()
        for _ in range(played.BATCHES + 1):
            one.call()
    # What all have stored is the same: values depend on nothing but the record.
    numbers = np.unique(operations_of(scenario, 40).record)
    known = scenario.data.records(numbers)
    ours, theirs = cache.mget(known.keys.to_pylist()), server.client().mget(known.keys.to_pylist())
    for mine, redis_has, value in zip(ours, theirs, known.values.to_pylist(), strict=True):
        assert mine in (None, value) and redis_has in (None, value)
    made = operations_of(scenario, 40)
    added = np.unique(made.record[(made.verb != Verb.READ) & (made.record >= 500)])
    assert len(cache) == server.client().dbsize() == 500 + len(added)


@pytest.mark.parametrize("name", ["trading", "ycsb_d", "ycsb_f", "production_12"])
def test_a_wrong_answer_is_noticed(cache, server, name):
    scenario = filled(cache, server, name)
    contestants = played.playing(cache, [server], scenario, 200, seed=1)
    read = next(operations_of(scenario, 200).batches(scenario.data, 200)).read_keys
    refused = set()
    for one in contestants:
        for key in read.to_pylist():
            cache.set(key, b"wrong")
            server.client().set(key, b"wrong")
        try:
            one.check()
        except WrongAnswerError:
            refused.add(one.system)
    assert refused == SYSTEMS - {"dict"}


@pytest.mark.parametrize("name", ["trading", "production_29"])
def test_wrong_answers_and_refusals_make_the_error_rate(cache, server, name, monkeypatch):
    scenario = filled(cache, server, name)
    contestants = played.playing(cache, [server], scenario, 100, seed=1)
    for one in contestants:
        one.prepare()
        one.call()
        assert one.tell() == {"error_rate": (0.0, "1")}
    keys = scenario.data.filled().keys.to_pylist()
    for store in (cache, server.client()):
        store.mset(dict.fromkeys(keys, b"wrong"))
    for one in contestants:
        one.prepare()
        one.call()
        (rate, _) = one.tell()["error_rate"]
        assert rate == 0 if one.system == "dict" else 0.5 < rate <= 1
        if name == "production_29":  # what has expired is missing, which is no error
            cache.flushdb()
            server.client().flushdb()
            one.prepare()
            one.call()
            assert one.tell()["error_rate"][0] == 0
            for store in (cache, server.client()):
                store.mset(dict.fromkeys(keys, b"wrong"))

    def refuse(*_, **__):
        raise PredisError("no")

    monkeypatch.setattr(cache, "find", refuse)
    monkeypatch.setattr(cache, "mget", refuse)
    for one in contestants[:2]:
        one.prepare()
        one.call()
        assert one.tell()["error_rate"][0] == 1


def test_times_to_live_are_kept(cache, server):
    scenario = filled(cache, server, "production_37")
    for one in played.playing(cache, [server], scenario, 100, seed=1):
        one.call()
    client = server.client()
    batch = next(operations_of(scenario, 100).batches(scenario.data, 100))
    for key, ttl in zip(batch.write_keys.to_pylist(), batch.write_ttl_s.tolist(), strict=True):
        assert 0 < cache.ttl(key) <= 7200 and 0 < client.ttl(key) <= 7200, ttl


def test_what_is_measured_can_be_compared(cache, server, tmp_path):
    run = Run.open(tmp_path, notebook="t")
    options = {"seed": 1, "blocks": 4, "block_seconds": 0.005}
    for name in ("trading", "ycsb_c"):
        scenario = SCENARIOS[name](200)
        played.measure_scenario(run, cache, [server], scenario, [10, 50], **options)
    samples = run.frame()
    table = comparison.against(samples, comparison.default_pairs(samples))
    assert set(table["records"]) == {"trading", "ycsb_c"} and set(table["keys"]) == {10, 50}
    assert len(table) == 2 * 2 * 4
    figure = figures.ratios_by_workload(table, 50, "t")
    (axes,) = figure.axes
    assert {label.get_text() for label in axes.get_yticklabels()} == {"ycsb_c", "trading"}
    page = show.scenarios([SCENARIOS[name](200) for name in ("trading", "ycsb_d")], 50_000).data
    assert "90 % read, 10 % write" in page and "1,000 B" in page
