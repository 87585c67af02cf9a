"""The dashboard's load: client threads, what each system is asked, and the load process against a real Redis."""

import itertools
import os
import signal
import time

import numpy as np
import psutil
import pytest

from predis_lab import Predis, cli
from predis_lab.bench.contestants import WrongAnswerError, load
from predis_lab.live import plays, tape, words
from predis_lab.live.crew import PATIENCE, Crew
from predis_lab.live.plays import Part
from predis_lab.live.remote import Remote
from predis_lab.live.scenes import SCENES
from predis_lab.live.session import Session

CAPACITY = "64MiB"
PATIENCE_S = 30.0


@pytest.fixture
def crew():
    made = []

    def make(threads):
        made.append(Crew(threads))
        return made[-1]

    yield make
    for one in made:
        one.close()


def part(call):
    return Part(call, itertools.count())


# ---- Slices


@pytest.mark.parametrize("threads", [1, 3])
def test_a_slice_counts_every_call_of_every_thread(crew, threads):
    sent = [[] for _ in range(threads)]
    workers = crew(threads)
    for _ in range(2):
        for one in sent:
            one.clear()
        played = workers.play(
            [part(lambda n, one=one: (one.append(n), time.sleep(1e-3))) for one in sent], 0.03
        )
        assert played.calls == sum(map(len, sent)) == len(played.latencies_ns)
        assert all(sent) and played.latencies_ns.min() >= 1e6 and played.unsent == 0
        assert played.seconds >= 0.03
        assert played.latencies_ns.sum() * 1e-9 <= threads * played.seconds


def test_latency_counts_from_when_a_call_was_meant_to_start(crew):
    due = np.arange(10) * 1e-3
    slow_once = part(lambda n: time.sleep(0.02 if n == 0 else 0))
    played = crew(1).play([slow_once], 0.05, due)
    waited = 0.02 - due[1:]
    assert (played.latencies_ns[1:] * 1e-9 >= waited - 1e-4).all()
    assert played.calls == 10 and played.unsent == 0
    assert played.seconds == pytest.approx(0.05, abs=0.01), (
        "the slice is as long as its time, not as its work"
    )


def test_nothing_is_sent_before_it_is_due(crew):
    due = np.array([0.005, 0.01, 0.03])
    moments = []
    began = time.perf_counter()
    crew(2).play([part(lambda _: moments.append(time.perf_counter()))] * 2, 0.04, due)
    assert (np.sort(moments) - began >= due).all()


def test_what_would_come_much_too_late_is_given_up_and_counted(crew):
    due = np.linspace(0, 0.009, 100)
    played = crew(1).play([part(lambda _: time.sleep(0.005))], 0.01, due)
    assert played.calls + played.unsent == 100
    assert played.unsent > 50 and played.seconds < 2 * (1 + PATIENCE) * 0.01 + 0.05


@pytest.mark.parametrize("due", [None, np.zeros(4)])
def test_a_call_that_fails_ends_the_slice_and_no_more(crew, due):
    workers = crew(2)

    def fail(_):
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        workers.play([part(fail), part(lambda _: None)], 0.01, due)
    assert workers.play([part(lambda _: None)] * 2, 0.01).calls > 0


# ---- What is asked


@pytest.fixture(scope="module")
def filled(server):
    """A cache and a Redis that hold the records of a scene."""
    scenario = SCENES["batch"].scenario("batch", SCENES["batch"].start)
    with Predis(CAPACITY, backend="host") as cache:
        load(cache, [server], scenario.data.filled())
        yield scenario, cache, server.client()


@pytest.mark.redis
@pytest.mark.parametrize("batch", [1, 100])
def test_answers_are_compared_with_what_was_stored(filled, batch):
    scenario, cache, client = filled
    calls = {
        "predis": (plays.single if batch == 1 else plays.columns)(cache),
        "redis": (plays.single if batch == 1 else plays.commands)(client),
    }
    seed = 3  # whose first operation reads
    for system, call in calls.items():
        plays.check(system, call, scenario, batch, seed)
        with pytest.raises(WrongAnswerError, match=system):
            plays.check(system, lambda sent, call=call: _spoilt(call(sent)), scenario, batch, seed)


def _spoilt(answer):
    if answer is None or isinstance(answer, bytes):
        return b"something else"
    told = answer if isinstance(answer, list) else answer.to_pylist()
    return [None, *told[1:]] if told[0] is not None else [b"something", *told[1:]]


@pytest.mark.redis
def test_both_systems_get_the_same_operations(filled):
    scenario, cache, client = filled
    (work,) = plays.work_of(scenario, 50, threads=1, hints=False, seed=5)
    for sent in work[:5]:
        assert plays.columns(cache)(sent).to_pylist() == plays.commands(client)(sent)


# ---- The load process


def wait_for(what, session):
    deadline = time.monotonic() + PATIENCE_S
    while not (found := what()):
        assert time.monotonic() < deadline, words.status(session)
        session.poll()
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def live():
    session = Session(lambda take, _: Remote("host", CAPACITY, take))
    session.choose("mixed")
    yield session
    session.close()


def redis_of(session):
    (found,) = (
        one
        for one in psutil.Process(session.facts["pid"]).children(recursive=True)
        if "redis-server" in one.name()
    )
    return found


@pytest.mark.redis
def test_the_load_process_measures_both_in_turn(live):
    wait_for(lambda: len(live.recent) >= 6, live)
    ticks = live.segment()
    assert {tuple(side.system for side in tick.sides) for tick in ticks} == {
        ("predis-host columns", "redis mget unix")
    }
    last = ticks[-1]
    assert all(side.rate > 0 and side.p50 > 0 and side.unsent == 0 for side in last.sides)
    assert last.readings["connections"] == SCENES["mixed"].start.threads
    assert last.readings["gpu_utilisation"] is None or 0 <= last.readings["gpu_utilisation"] <= 1
    assert live.facts["backend"] == "host" and "No GPU here" in words.where(live.facts)
    wait_for(lambda: live.recent[-1].readings["predis_hits"], live)
    for who in ("predis", "redis"):
        assert live.recent[-1].readings[f"{who}_hits"] == pytest.approx(0.95, abs=0.03)


@pytest.mark.redis
def test_a_redis_that_is_killed_is_told_replaced_and_measured_again(live):
    wait_for(lambda: live.recent, live)
    before = live.number
    redis_of(live).kill()
    wait_for(lambda: live.trouble, live)
    assert live.trouble.who == "Redis" and live.recent
    wait_for(lambda: live.phase == "playing" and live.trouble is None, live)
    assert live.number > before and redis_of(live).is_running()


@pytest.mark.redis
def test_a_load_process_that_is_killed_takes_its_redis_along_and_is_replaced(live):
    wait_for(lambda: live.phase == "playing", live)
    pid, redis = live.facts["pid"], redis_of(live)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: live.trouble, live)
    assert "load process" in live.trouble.who
    wait_for(lambda: live.phase == "playing" and live.trouble is None, live)
    assert live.facts["pid"] != pid
    psutil.wait_procs([redis], timeout=5)
    assert not redis.is_running() or redis.status() == psutil.STATUS_ZOMBIE


@pytest.mark.redis
def test_a_recording_made_by_command_can_be_replayed(tmp_path, capsys):
    assert cli.main(["dashboard", "--record", "1.5", str(tmp_path), "--capacity", CAPACITY]) == 0
    ticks, _ = tape.load(tmp_path)
    assert list(dict.fromkeys(tick.scene for tick in ticks)) == list(SCENES)
    told = capsys.readouterr().out
    assert all(f"{scene}: " in told for scene in SCENES)
    assert (tmp_path / "samples.10_live_dashboard.parquet").stat().st_size < 100_000


@pytest.mark.parametrize("arguments", [["--replay", "nowhere"], ["--record", "many", "seconds"]])
def test_what_can_t_be_shown_is_told_before_anything_starts(arguments, capsys):
    pytest.importorskip("panel", reason="the dashboard is a part of the extra lab")
    assert cli.main(["dashboard", *arguments]) == 2
    assert capsys.readouterr().err.startswith("predis-lab: ")
