"""One operation at a time: every system does the same operations, and every wrong answer is counted."""

import pytest

from predis_lab import CacheFull, Predis
from predis_lab.bench import single
from predis_lab.bench.contestants import WrongAnswerError, load
from predis_lab.bench.results import Run
from predis_lab.bench.scenarios import SCENARIOS
from predis_lab.report import load_figures, load_show

RECORDS = 100


def steps_of(name, n=300):
    scenario = SCENARIOS[name](RECORDS)
    return scenario, single.Steps.of(scenario, scenario.operations(n, seed=1))


def filled(scenario):
    records = scenario.data.filled()
    return single.of_dict(single.mapping_of(records.keys, records.values))


@pytest.fixture
def caches():
    with (
        Predis("64MiB", backend="host") as cache,
        Predis("64MiB", backend="host", hot_bytes="8MiB") as hot,
    ):
        yield cache, hot


@pytest.mark.parametrize("name", ["trading", "gaming", "ycsb_d", "ycsb_f", "production_12"])
def test_what_is_stored_is_answered(name):
    scenario, steps = steps_of(name)
    player = single.Player(steps, *filled(scenario))
    for _ in range(3):  # more than one round of the steps
        player.begin()
        for _ in range(250):
            player.turn()
        assert player.tell() == {"error_rate": (0.0, "1")}


def test_every_kind_of_error_is_counted():
    scenario, steps = steps_of("trading")
    get, put = filled(scenario)
    reads = [number for number, asked in enumerate(steps.asked[:200]) if asked[1] is None]
    writes = [number for number in range(200) if number not in reads]
    turn = {"now": 0}
    wrong, missing, refused, unwritten = reads[3], reads[10], reads[20], writes[5]

    def bad_get(key):
        if turn["now"] == refused:
            raise CacheFull("no")
        return {wrong: b"something else", missing: None}.get(turn["now"], get(key))

    def bad_put(key, value):
        if turn["now"] == unwritten:
            raise CacheFull("no")
        put(key, value)

    player = single.Player(steps, bad_get, bad_put)
    for turn["now"] in range(200):
        player.turn()
    assert player.tell()["error_rate"][0] == pytest.approx(4 / 200)
    player.begin()
    turn["now"] = -1
    for _ in range(50):
        player.turn()
    assert player.tell()["error_rate"][0] == 0


def test_a_miss_is_no_error_where_records_may_be_gone():
    for name, expected in (("trading", 1.0), ("production_29", 0.0)):
        _, steps = steps_of(name)
        reads = [number for number, asked in enumerate(steps.asked) if asked[3]]
        assert steps.wrong(reads[0], [None]) == expected


@pytest.mark.redis
def test_all_systems_do_the_same(caches, server, tmp_path):
    cache, hot = caches
    scenario = SCENARIOS["trading"](RECORDS)
    run = Run.open(tmp_path, notebook="t")
    options = {"seed": 1, "blocks": 3, "block_seconds": 0.002}
    single.measure_single(run, cache, hot, [server], scenario, **options)
    assert single.measure_generator(run, scenario, **options) > 0
    frame = run.frame()
    alone = frame[frame["workload"] == "single"]
    rates = alone[alone["metric"] == "throughput"].groupby("system")["value"].count()
    assert rates.to_dict() == dict.fromkeys(
        ["predis-host lists", "predis-host lists hot", "redis single unix", "redis single tcp", "dict"], 3
    )  # fmt: skip
    assert set(alone[alone["metric"] == "error_rate"]["value"]) == {0.0}
    assert run.figures["generator"]["n"] == 3
    assert hot.info("stats")["hot_hits"] > 0
    names = [
        text.get_text() for text in load_figures.singles(frame).axes[0].get_legend().get_texts()
    ]
    assert set(names) == {"Predis, lists", "Predis, hot tier", "Redis", "a Python dict"}
    for one in single.singles(cache, hot, [server], scenario, seed=1):
        for _ in range(400):
            one.call()
    keys = scenario.data.filled().keys.to_pylist()
    assert cache.mget(keys) == hot.mget(keys) == server.client().mget(keys)
    told = load_show.watched(frame).data
    assert "none had any. While it was asked, Redis held" in told and "Valkey" not in told


@pytest.mark.redis
def test_a_system_that_answers_wrongly_is_not_timed(caches, server):
    cache, hot = caches
    scenario = SCENARIOS["trading"](RECORDS)
    load(cache, [server], scenario.data.filled())
    load(hot, [], scenario.data.filled())
    contestants = single.singles(cache, hot, [server], scenario, seed=1)
    for one in contestants:
        one.check()
    for key in scenario.data.filled().keys.to_pylist():
        server.client().set(key, b"wrong")
    for one in contestants:
        if one.system.startswith("redis"):
            with pytest.raises(WrongAnswerError, match="redis single"):
                one.check()
        else:
            one.check()
