"""Open loop: latency from the intended start, limits as the data say. Systems here reckon on a clock of their own."""

from itertools import cycle

import numpy as np
import pytest

from predis_lab.bench import open_loop
from predis_lab.bench.harness import Contestant
from predis_lab.bench.open_loop import Played, limits, record_limits
from predis_lab.bench.results import Run
from predis_lab.report import load_figures, load_show

MS = 1_000_000


class Clock:
    """Time that goes by only when somebody works or waits."""

    def __init__(self):
        self.now = 10**12

    def perf_counter_ns(self):
        self.now += 100
        return self.now

    def sleep(self, seconds):
        self.now += int(seconds * 1e9)

    def working(self, *durations_ns):
        """As long as each of these, in turns."""
        turn = cycle(durations_ns)

        def call():
            self.now += next(turn)

        return call


@pytest.fixture
def clock(monkeypatch):
    fake = Clock()
    monkeypatch.setattr(open_loop, "time", fake)
    return fake


def test_a_stall_is_felt_by_all_that_wait(clock):
    due = np.arange(1, 11) * 10 * MS
    calls = [MS] * 10
    calls[2] = 35 * MS  # the third takes as long as three and a half intervals
    played = open_loop.play(clock.working(*calls), due)
    latencies = played.latencies_ns / MS
    assert len(latencies) == 10
    expected = [1, 1, 35, 26, 17, 8, 1, 1, 1, 1]
    assert latencies == pytest.approx(expected, abs=0.1)
    service = (played.ended - played.began) / MS  # what a closed loop would have told
    assert service == pytest.approx([1, 1, 35] + [1] * 7, abs=0.1)
    assert played.backlog == 2  # at the moment when the fourth began, two more waited
    assert played.achieved == pytest.approx(1)


def test_calls_never_start_before_they_are_due(clock):
    due = np.array([0, 0, 3 * MS, 3 * MS + 1, 90 * MS])
    played = open_loop.play(clock.working(*[MS // 10] * 5), due)
    assert (played.began >= due).all() and (np.diff(played.began) > 0).all()
    assert played.began - due == pytest.approx([0, 0.1 * MS, 0, 0.1 * MS, 0], abs=0.07 * MS)


def test_a_system_at_its_limit_serves_what_it_can(clock):
    due = np.arange(1, 101) * MS
    played = open_loop.play(clock.working(*[4 * MS] * 100), due)
    assert played.achieved == pytest.approx(0.25, abs=0.02)
    assert len(played.ended) <= 26 and played.length < 110 * MS  # it ends when the time is over
    assert played.backlog >= 74
    latencies = played.latencies_ns
    assert (
        len(latencies) == 100 and latencies.max() >= 70 * MS
    )  # those that were not served wait too
    assert (latencies[len(played.ended) :] > 0).all()


def test_arrivals_are_as_many_as_are_offered():
    due = open_loop.arrivals(1000, 0.5, np.random.default_rng(1))
    assert len(due) == 1000 and due[-1] == 0.5e9 and (np.diff(due) >= 0).all()
    gaps = np.diff(due)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.15)  # exponential, not even


def test_the_wait_ends_when_it_is_over():
    before = open_loop.time.perf_counter_ns()
    after = open_loop._wait_until(before + 3 * MS)
    assert after >= before + 3 * MS


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    run = Run.open(tmp_path_factory.mktemp("open"), notebook="t")
    told, clock = [], Clock()
    contestants = [
        Contestant("dict", clock.working(MS // 50), tell=lambda: {"error_rate": (0.0, "1")}),
        Contestant(
            "redis single unix", clock.working(4 * MS), check=lambda: told.append("checked")
        ),
    ]
    shares = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_loop, "time", clock)
        open_loop.measure_open(
            run, contestants, [1000, 50, 4000], params={"records": "trading", "keys": 1}, blocks=3,
            block_seconds=0.08, seed=1, progress=shares.append,
        )  # fmt: skip
    assert told == ["checked"]
    # Three, three, and two that had not fallen behind; of three each.
    assert sum(shares) == pytest.approx(2 + 2 / 3)
    record_limits(run, run.frame())
    assert "open_trading_1_redis_single_unix" in run.figures
    return run.frame()


def test_a_limit_is_found_and_not_passed(samples):
    found = {limit.system: limit for limit in limits(samples)}
    slow = found["redis single unix"]
    assert slow.kept == 50 and not slow.by_sender
    assert 237 < slow.reached.value <= 251  # a quarter of a thousand
    assert set(samples[samples["system"] == "redis single unix"]["rate"]) == {50, 1000}
    assert found["dict"].kept == 4000 and set(found) == {"dict", "redis single unix", "nobody"}


def test_latency_counts_from_the_intended_start(samples):
    rows = samples[(samples["system"] == "redis single unix") & (samples["rate"] == 1000)]
    medians = rows.groupby("metric")["value"].median()
    assert medians["latency_p50"] > 2 * medians["service_mean"]
    assert medians["offered"] == pytest.approx(1000, rel=0.01)
    assert medians["backlog"] > 20
    errors = samples[samples["metric"] == "error_rate"]
    assert set(errors["system"]) == {"dict"} and set(errors["value"]) == {0.0}


def test_figures_and_tables_show_them(samples):
    for figure in (
        load_figures.open_latency(samples, "trading", 1, "p50"),
        load_figures.open_served(samples, "trading", 1),
    ):
        legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        assert legend == ["a Python dict", "Redis", "nobody: the sender alone"]
    served = load_figures.open_served(samples, "trading", 1).axes[0]
    faces = [line.get_markerfacecolor() for line in served.lines if line.get_marker() == "^"]
    assert faces.count("white") == 1  # where it fell behind
    page = load_show.limits_reached(samples).data
    assert page.count("its own") == 1 and "machine" not in page
    assert "At 50.0 /s all keep up." in load_show.open_answer(samples, "trading", 1).data


def limit_of(tmp_path, shares_by_system):
    run = Run.open(tmp_path, notebook="t")
    for system, shares in shares_by_system.items():
        for block, share in enumerate(shares):
            params = {"records": "r", "keys": 1, "rate": 100}
            run.add_sample(system, "open", params, block, "offered", 100.0, "1/s")
            run.add_sample(system, "open", params, block, "achieved", 100 * share, "1/s")
    return {limit.system: limit for limit in limits(run.frame())}


def test_the_sender_s_limit_is_no_system_s(tmp_path):
    found = limit_of(tmp_path, {"dict": [0.5, 0.6], "nobody": [0.9, 0.8]})
    assert found["dict"].by_sender and found["dict"].reached.value == pytest.approx(55)
    found = limit_of(tmp_path, {"dict": [0.5, 0.6], "nobody": [1.0, 0.8]})
    assert not found["dict"].by_sender
    assert (
        limit_of(tmp_path, {"dict": [0.5, 0.99], "nobody": [1, 1]})["dict"].reached is None
    )  # a pause


@pytest.mark.parametrize("rates", [[], [0], [100, -1]])
def test_rates_are_positive(tmp_path, rates):
    with pytest.raises(ValueError, match="rates are positive"):
        open_loop.measure_open(
            Run.open(tmp_path, notebook="t"), [Contestant("a", lambda: None)], rates, params={},
            blocks=1, block_seconds=0.01, seed=0,
        )  # fmt: skip


def test_a_block_of_one_call():
    played = Played(np.array([5]), np.array([7]), np.array([9]), 9)
    assert played.latencies_ns.tolist() == [4] and played.backlog == 0
