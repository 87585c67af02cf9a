"""One load for all viewers: what is sent to it, what is kept of what it says, and what becomes of it when it goes away."""

import threading
import time

import pytest
from lives import FACTS, Clock, Script, message, some_ticks

from predis_lab.live import session, tour, words
from predis_lab.live.replay import Replay
from predis_lab.live.scenes import SCENES, ControlError, as_dict


@pytest.fixture
def script():
    return Script()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def live(script, clock):
    one = session.Session(script, clock=clock)
    yield one
    one.close()


@pytest.fixture
def playing(live, script):
    live.start()
    script.last.say(FACTS)
    live.choose("batch")
    script.last.say({"kind": "phase", "phase": "playing"})
    return live


def says(script, clock, count, seconds=0.15, **changes):
    for _ in range(count):
        clock.now += seconds
        script.last.say(message(**changes))


@pytest.mark.parametrize(("backend", "first"), [("cuda", "batch"), ("host", "single")])
def test_the_first_scene_is_played_as_soon_as_it_is_known_what_with(live, script, backend, first):
    live.start()
    assert script.last.sent == [] and live.phase == "starting"
    script.last.say(FACTS | {"backend": backend})
    assert script.last.sent == [
        {"do": "play", "scene": first, "controls": as_dict(SCENES[first].start)}
    ]


def test_stop_and_start_are_passed_on(playing, script, clock):
    playing.stop()
    script.last.say({"kind": "phase", "phase": "stopped"})
    assert script.last.sent[-1] == {"do": "stop"}
    assert words.status(playing) == ("stopped", "") and words.mark(playing) == "STOPPED"
    playing.start()
    assert script.last.sent[-1]["do"] == "play"
    says(script, clock, 1)
    assert words.status(playing) == ("live", "") and words.mark(playing) == ""


def test_controls_are_passed_on_and_bad_ones_are_not(playing, script):
    playing.adjust(batch=100, threads=2)
    sent = script.last.sent[-1]["controls"]
    assert (sent["batch"], sent["threads"]) == (100, 2)
    before = list(script.last.sent)
    with pytest.raises(ControlError):
        playing.adjust(batch=17)
    with pytest.raises(ControlError):
        playing.choose("nothing")
    assert script.last.sent == before and playing.scene == "batch" and playing.controls.batch == 100


def test_another_scene_brings_its_own_controls(playing, script):
    playing.adjust(batch=10)
    playing.choose("mixed")
    assert playing.controls == SCENES["mixed"].start
    assert script.last.sent[-1]["scene"] == "mixed"


def test_reset_forgets_what_was_seen_and_what_was_set(playing, script, clock):
    playing.adjust(batch=10)
    says(script, clock, 5)
    epoch = playing.epoch
    playing.reset()
    assert not playing.recent and not playing.tape and not playing.history.parts
    assert playing.epoch == epoch + 1 and playing.controls == SCENES["batch"].start
    says(script, clock, 1)
    assert [(tick.number, tick.at) for tick in playing.since(0)] == [(0, pytest.approx(0.15))]


def test_ticks_of_other_controls_are_not_put_together(playing, script, clock):
    says(script, clock, 3)
    assert len(playing.segment()) == 3
    says(script, clock, 2, controls=SCENES["batch"].with_controls(SCENES["batch"].start, batch=10))
    assert len(playing.segment()) == 2 and len(playing.since(0)) == 5
    says(script, clock, 1, scene="mixed")
    assert len(playing.segment()) == 1


def test_views_get_what_is_new(playing, script, clock):
    says(script, clock, 4)
    assert [tick.number for tick in playing.since(2)] == [2, 3]
    assert playing.since(4) == []


def test_memory_is_bounded_over_hours(playing, script, clock):
    says(script, clock, session.TAPE + 2000)
    assert len(playing.tape) == session.TAPE and playing.tape[-1].number == session.TAPE + 1999
    assert len(playing.recent) == pytest.approx(session.RECENT_S / 0.15, abs=1)
    says(script, clock, 2 * session.RECENT, seconds=0.001)
    assert len(playing.recent) == session.RECENT


# ---- Who goes away


def test_a_redis_that_goes_away_is_told_and_the_charts_stay(playing, script, clock):
    says(script, clock, 5)
    script.last.say({"kind": "trouble", "who": "Redis", "said": "ConnectionError: refused"})
    state, said = words.status(playing)
    assert state == "recorded" and "Redis went away at" in said and "refused" in said
    assert words.mark(playing).startswith("RECORDED until") and len(playing.since(0)) == 5
    script.last.say({"kind": "well", "who": "Redis", "server": FACTS["server"] | {"version": "9"}})
    script.last.say({"kind": "phase", "phase": "preparing"})
    assert words.status(playing)[0] == "recorded", "until something is measured again"
    says(script, clock, 1)
    assert words.status(playing) == ("live", "") and playing.trouble is None
    assert len(playing.segment()) == 1 and playing.facts["server"]["version"] == "9"
    assert len(script.opened) == 1


def test_a_load_process_that_dies_is_started_again_and_goes_on(playing, script, clock):
    playing.adjust(batch=10)
    says(script, clock, 5)
    dead = script.last
    dead.say({"kind": "end", "code": -9})
    assert (
        "load process went away" in words.status(playing)[1]
        and "code -9" in words.status(playing)[1]
    )
    playing.poll()
    assert len(script.opened) == 1, "not at once"
    clock.now += session.RETRY_S[0]
    playing.poll()
    assert len(script.opened) == 2 and script.last.backend == "host"
    assert script.last.sent[-1]["controls"]["batch"] == 10
    dead.say(message())
    assert len(playing.since(0)) == 5, "what the dead one says late is not heard"
    script.last.say(FACTS)
    says(script, clock, 1)
    assert words.status(playing) == ("live", "") and len(playing.segment()) == 1


def test_a_gpu_that_fails_is_named_and_never_replaced_by_the_host_table(live, script, clock):
    live.start()
    script.last.say(FACTS | {"backend": "cuda", "device": "NVIDIA H200"})
    says(script, clock, 1)
    script.last.say({"kind": "trouble", "who": "GPU", "said": "DeviceFailed: launch failed"})
    script.last.say({"kind": "end", "code": 3})
    assert "GPU went away" in words.status(live)[1] and "launch failed" in words.status(live)[1]
    for pause in session.RETRY_S:
        clock.now += pause
        live.poll()
        assert script.last.backend == "cuda"
        script.last.say({"kind": "trouble", "who": "GPU", "said": "DeviceUnavailable: none"})
        script.last.say({"kind": "end", "code": 3})
    assert len(script.opened) == 1 + len(session.RETRY_S)


def test_retries_come_later_and_later_until_something_is_measured(playing, script, clock):
    for pause in (*session.RETRY_S, session.RETRY_S[-1]):
        opened = len(script.opened)
        script.last.say({"kind": "end", "code": 1})
        clock.now += 0.9 * pause
        playing.poll()
        assert len(script.opened) == opened
        clock.now += 0.1 * pause
        playing.poll()
        assert len(script.opened) == opened + 1
        script.last.say(FACTS)
    says(script, clock, 1)
    script.last.say({"kind": "end", "code": 1})
    clock.now += session.RETRY_S[0]
    opened = len(script.opened)
    playing.poll()
    assert len(script.opened) == opened + 1


def test_a_load_process_that_says_nothing_is_given_up(playing, script, clock):
    says(script, clock, 1)
    silent = script.last
    clock.now += session.STALLED_S + 1
    playing.poll()
    assert "said nothing for 15 s" in words.status(playing)[1]
    deadline = time.monotonic() + 5
    while not silent.closed and time.monotonic() < deadline:
        time.sleep(0.01)
    assert silent.closed


def test_one_that_is_stopped_may_be_silent(playing, script, clock):
    playing.stop()
    script.last.say({"kind": "phase", "phase": "stopped"})
    clock.now += 10 * session.STALLED_S
    playing.poll()
    assert playing.trouble is None


# ---- The tour


def test_the_tour_plays_every_scene_and_stops(live, script, clock):
    script.last.say(FACTS)
    live.begin_tour()
    seen = []
    for _ in range(int(4 * tour.duration_s()) + 4):
        live.poll()
        if live.playing:
            says(script, clock, 1, seconds=0, scene=live.scene, controls=live.controls)
        seen.append((live.scene, live.playing))
        clock.now += 0.25
    steps = list(dict.fromkeys(seen))
    assert steps == [(name, on) for name in SCENES for on in (False, True)]
    assert live.tour_stop() is None and not live.playing
    sent = [command["do"] for command in script.last.sent]
    assert sent.count("play") == len(SCENES)


@pytest.mark.parametrize("act", ["start", "stop", "choose"])
def test_whoever_takes_over_ends_the_tour(live, script, clock, act):
    script.last.say(FACTS)
    live.begin_tour()
    clock.now += 1
    live.poll()
    getattr(live, act)(*(["mixed"] if act == "choose" else []))
    assert live.tour_stop() is None
    live.poll()
    assert live.playing == (act != "stop")


# ---- A recording


def heard(ticks):
    """What a replay says, and the replay; it has 2 s for each message."""
    told, more = [], threading.Condition()

    def take(one):
        with more:
            told.append(one)
            more.notify()

    def wait_for(count):
        with more:
            assert more.wait_for(lambda: len(told) >= count, 2 * count)
            return list(told)

    return Replay(ticks, FACTS, take), wait_for


def test_a_replay_says_what_was_recorded_over_and_over():
    ticks = some_ticks(6, step=0.01)
    replay, wait_for = heard(ticks)
    replay.send({"do": "play", "scene": ticks[0].scene, "controls": {}})
    told = wait_for(1 + 6 + 2)
    assert told[0] == FACTS
    rates = [one["sides"][0]["rate"] for one in told[1:9]]
    assert rates == [tick.sides[0].rate for tick in (ticks + ticks)[:8]]
    replay.close()


def test_a_replay_goes_to_the_scene_that_is_asked_for():
    ticks = some_ticks(3, step=0.01) + some_ticks(3, step=0.01, scene="mixed")
    replay, wait_for = heard(ticks)
    replay.send({"do": "play", "scene": "mixed", "controls": {}})
    assert [one["scene"] for one in wait_for(4)[1:4]] == ["mixed"] * 3
    replay.send({"do": "stop"})
    replay.close()


def test_a_recording_is_marked_and_can_t_be_changed():
    ticks = some_ticks(5, step=0.01)
    one = session.Session(
        lambda take, _: Replay(ticks, FACTS, take), recorded="NVIDIA H200, 2026-11-25"
    )
    one.choose("batch")
    deadline = time.monotonic() + 5
    while not one.recent and time.monotonic() < deadline:
        time.sleep(0.01)
    assert words.status(one) == (
        "recorded",
        "A recording, not measured here: NVIDIA H200, 2026-11-25.",
    )
    assert words.mark(one) == "RECORDED"
    with pytest.raises(ControlError, match="recording"):
        one.adjust(batch=10)
    one.close()
