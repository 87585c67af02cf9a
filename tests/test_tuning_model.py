"""What the tuner chooses, against a simulation; how it follows what calls take; what it keeps on disk. Without a GPU."""

import json
import math
import random
from dataclasses import asdict, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulated import LITTLE_ROOM, MACHINES, ROOM, USUAL, play, shapes, sweep

from predis_lab import InvalidArgument, Predis, Tuning, UnsupportedType
from predis_lab.gpu import kept, stages, tuner, tuning
from predis_lab.gpu.stages import DOORBELL, FIND, INSERT, LAUNCH, PEEK, PIPELINE, Machine, Shape
from predis_lab.gpu.tuner import Tuner

READ = kept.read  # conftest has it find nothing

# ---- A tuning


@pytest.mark.parametrize(
    "wrong",
    [
        {"doorbell_rows": -1},
        {"doorbell_rows": 1025},
        {"small_nbytes": 2**31},
        {"chunk_nbytes": 0},
        {"depth": 1},
        {"depth": 9},
        {"packers": 0},
        {"packers": 2.0},
        {"depth": True},
        {"small_nbytes": None},
    ],
)
def test_a_tuning_out_of_range_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(InvalidArgument, match=f"{name} is a whole number from"):
        Tuning(**wrong)


def test_a_tuning_is_cut_to_what_a_cache_has():
    asked = Tuning(chunk_nbytes=2**25, depth=8)
    assert asked.fitted(0, 2**20) == replace(asked, doorbell_rows=0, chunk_nbytes=2**17)
    assert Tuning().fitted(1024, ROOM) == Tuning()
    assert Tuning(chunk_nbytes=2**12).fitted(1024, ROOM).chunk_nbytes == 2**12


@pytest.mark.parametrize("bell", [0, 100, 1024])
def test_thresholds_are_ways(bell):
    one = Tuning(doorbell_rows=bell, small_nbytes=1000)
    assert [one.way(n, 1000) for n in (1, 100, 101)] == [
        DOORBELL if bell else LAUNCH,
        DOORBELL if bell >= 100 else LAUNCH,
        DOORBELL if bell > 100 else LAUNCH,
    ]
    assert one.way(2000, 1001) == PIPELINE and one.way(0, 0) == LAUNCH


def test_a_dict_has_nothing_to_tune():
    with Predis("1MiB", backend="host", tuning=Tuning(depth=2)) as cache:
        assert cache.tuning is None
    with pytest.raises(UnsupportedType, match="tuning is a Tuning or None, not dict"):
        Predis("1MiB", backend="host", tuning={"depth": 2})


# ---- The model


@pytest.mark.parametrize("room", [ROOM, LITTLE_ROOM], ids=["room", "little room"])
@pytest.mark.parametrize("name", MACHINES)
def test_what_is_chosen_is_within_a_twentieth_of_the_best_there_is(name, room):
    machine = MACHINES[name]
    # Where there is little room many rows are many chunks, which take long to play.
    rows = (1, 30, 1000, 10_000, 100_000, 700_000)[: 6 if room == ROOM else 4]
    for shape in shapes(room, 1024 if machine.bell_s else 0, rows):
        choice = tuning.choose(machine, shape)
        took = play(machine, shape, choice.way, choice.tuning.setting)
        assert took <= 1.05 * sweep(machine, shape), (shape, choice)
        assert choice.tuning.way(shape.rows, shape.traffic) == choice.way
        assert choice.tuning.fitted(shape.bell, room) == choice.tuning


@pytest.mark.parametrize("verb", [FIND, INSERT, PEEK])
@pytest.mark.parametrize("depth", [2, 3, 4, 8])
@pytest.mark.parametrize("name", MACHINES)
def test_the_model_adds_up_to_what_is_played(name, depth, verb):
    machine, rows, room = MACHINES[name], 2_000_000, 2**26
    for value_nbytes in (0, 64, 1024):
        shape = Shape.of(verb, rows, 16, value_nbytes, room_nbytes=room)
        for share in (1, 2):
            one = stages.Setting(room // depth // share, depth, machine.packers)
            expected = stages.by_pipeline(machine, shape, one).seconds
            assert expected == pytest.approx(play(machine, shape, PIPELINE, one), rel=1e-6)


def test_each_machine_is_served_in_its_own_way():
    """The grid would be of no use if one setting were best everywhere."""
    chosen = {
        (choice.way, choice.tuning.setting)
        for machine in MACHINES.values()
        for choice in (tuning.choose(machine, shape) for shape in shapes(rows=(1, 1000, 100_000)))
    }
    assert len(chosen) > 15 and {way for way, _ in chosen} == set(stages.WAYS)


@given(
    st.sampled_from([FIND, INSERT, PEEK]),
    st.integers(1, 10**7),
    st.integers(0, 5000),
    st.floats(0, 0.95),
    st.sampled_from([LITTLE_ROOM, ROOM]),
    st.sampled_from(sorted(MACHINES)),
)
@settings(max_examples=50)
def test_no_machine_gains_by_being_slower(verb, rows, nbytes, load, room, name):
    machine = MACHINES[name]
    shape = Shape.of(verb, rows, 16, nbytes, load=load, room_nbytes=room, bell=1024)
    setting = next(stages.settings(machine, shape))
    before = tuning.estimates_of(machine, shape, setting)
    assert before.keys() >= {PIPELINE} and min(one.seconds for one in before.values()) > 0
    for field, value in asdict(machine).items():
        if value is not None and field != "packers":
            slower = replace(machine, **{field: value * (2 if field.endswith("_s") else 0.5)})
            for way, one in tuning.estimates_of(slower, shape, setting).items():
                assert one.seconds >= before[way].seconds * (1 - 1e-9), (field, way)
    fuller = tuning.estimates_of(machine, replace(shape, load=(1 + load) / 2), setting)
    assert all(one.seconds >= before[way].seconds for way, one in fuller.items())


def test_a_choice_says_why():
    few, many = (tuning.choose(USUAL, Shape.of(FIND, n, 16, 1024)) for n in (10, 10**6))
    assert few.way == LAUNCH and few.estimates[LAUNCH].binding == "start"
    assert many.way == PIPELINE and many.estimates[PIPELINE].binding == "download"
    assert LAUNCH not in many.estimates and DOORBELL not in few.estimates
    assert few.seconds == few.estimates[LAUNCH].seconds < few.estimates[PIPELINE].seconds


# ---- Following


class Clock:
    """In place of the host's."""

    now = 1.0

    def perf_counter(self):
        return self.now


class Played:
    """A tuner whose calls take what a machine says, times what the model does not know, and noise."""

    def __init__(self, monkeypatch, machine=USUAL, noise=0.0, seed=0, off=None):
        self.clock = Clock()
        monkeypatch.setattr(tuner, "time", self.clock)
        self.tuner = Tuner(Tuning(), None, 1024, ROOM)
        self.tuner.adopt(machine)
        self.machine, self.noise, self.off = machine, noise, off or {}
        self.chance = random.Random(seed)

    def took(self, arm, shape):
        return play(self.machine, shape, arm.way, arm.setting) * self.off.get(arm.way, 1.0)

    def call(self, shape, times=1):
        """Seconds of these calls together."""
        total, up, down = 0.0, int(shape.rows * shape.up), int(shape.rows * shape.down)
        for _ in range(times):
            arm, began = self.tuner.turn(shape.verb, shape.rows, up, down)
            took = self.took(arm, shape) * math.exp(self.chance.gauss(0, self.noise))
            self.clock.now += took
            total += took
            if began:
                self.tuner.ended(arm, up + down, began)
        return total

    def case(self, shape):
        return self.tuner.case_of(shape)

    def best(self, shape):
        return min(self.took(arm, shape) for arm in self.case(shape).arms)


def shape_of(rows, value_nbytes, verb=FIND):
    return Shape.of(verb, rows, 16, value_nbytes, room_nbytes=ROOM, bell=1024)


# About as long by two ways each.
CROSSINGS = [shape_of(640, 64), shape_of(330_000, 64), shape_of(200_000, 64, INSERT), shape_of(15_000, 1024, INSERT)]  # fmt: skip


@given(
    st.sampled_from(CROSSINGS),
    st.dictionaries(st.sampled_from(stages.WAYS), st.floats(0.85, 1.18)),
    st.floats(0, 0.1),
    st.integers(0, 2**32),
)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_the_model_is_wrong_about_is_learned_and_nothing_oscillates(
    monkeypatch, shape, off, noise, seed
):
    played = Played(monkeypatch, noise=noise, seed=seed, off=off)
    calls = 4000
    played.call(shape, calls)
    case = played.case(shape)
    assert case.changes <= math.log2(calls / tuner.WAIT)
    rounds = 1 + math.log2(calls / tuner.FRESH)
    assert case.trials <= rounds * tuner.TRIALS * len(case.arms)
    # A gain below the margin is left alone, and so is what noise hides.
    assert played.took(case.current, shape) <= (1 + tuner.MARGIN + 0.5 * noise + 1e-3) * played.best(shape)  # fmt: skip


def test_a_true_model_is_never_left(monkeypatch):
    for shape in shapes(rows=(1, 30, 1000, 30_000)):
        played = Played(monkeypatch)
        first = played.call(shape)
        assert first <= 1.05 * sweep(USUAL, shape)
        before = played.case(shape).current
        played.call(shape, 500)
        assert played.case(shape).current is before and not played.tuner.changes


def test_a_change_of_value_size_is_followed_at_once(monkeypatch):
    """What the cache held before says nothing of larger values: the first call already goes their way."""
    played = Played(monkeypatch)
    ways = []
    for nbytes in (16, 8192, 64, 8192):
        shape = shape_of(20_000, nbytes)
        took = played.call(shape, 50) / 50
        assert took <= 1.06 * sweep(USUAL, shape)
        ways.append(played.case(shape).current.way)
    assert ways == [LAUNCH, PIPELINE, LAUNCH, PIPELINE] and not played.tuner.changes


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_drift_is_followed_and_back_again(monkeypatch, noise):
    """Launches become three times as slow, as beside a neighbour who takes the cores, and then fast again."""
    played = Played(monkeypatch, noise=noise)
    shape = shape_of(150_000, 64)
    played.call(shape, 200)
    assert played.case(shape).current.way == LAUNCH
    played.off = {LAUNCH: 3.0}
    played.call(shape, 500)
    assert played.case(shape).current.way == PIPELINE
    played.off = {LAUNCH: 1.0, PIPELINE: 3.0}
    played.call(shape, 800)
    assert played.case(shape).current.way == LAUNCH
    assert 2 <= played.tuner.changes <= 4


def test_one_call_that_hangs_changes_nothing(monkeypatch):
    played = Played(monkeypatch)
    shape = shape_of(200_000, 64)
    played.call(shape, 200)
    before = played.case(shape).current
    for _ in range(20):
        played.off = {LAUNCH: 1000.0}
        played.call(shape)
        played.off = {}
        played.call(shape, 100)
    assert played.case(shape).current is before and not played.tuner.changes


def test_calls_that_are_held_up_while_they_are_tried_condemn_nothing(monkeypatch):
    """One call in eight takes ten times as long, whichever way it goes."""
    for seed in range(20):
        played = Played(monkeypatch, seed=seed, off={LAUNCH: 1.3})
        shape, plain = shape_of(300_000, 64), played.took
        held = random.Random(seed)
        played.took = lambda *call: plain(*call) * (10 if held.random() < 0.125 else 1)  # noqa: B023
        played.call(shape, 3000)
        played.took = plain
        assert plain(played.case(shape).current, shape) <= 1.09 * played.best(shape), seed


def test_what_takes_far_longer_than_thought_is_hardly_tried(monkeypatch):
    played = Played(monkeypatch, off={PIPELINE: 50.0})
    shape = shape_of(200_000, 64)
    played.call(shape, 3000)
    case = played.case(shape)
    assert case.current.way == LAUNCH
    assert case.trials <= 3 * len(case.arms)  # one to warm up, two to see


def test_short_calls_are_timed_now_and_then(monkeypatch):
    played = Played(monkeypatch)
    few, more, many = shape_of(100, 64), shape_of(20_000, 64), shape_of(100_000, 1024)
    timed = {}
    for shape in (few, more, many):
        up, down = int(shape.rows * shape.up), int(shape.rows * shape.down)
        played.call(shape, tuner.SETTLING)
        turns = [played.tuner.turn(FIND, shape.rows, up, down)[1] > 0 for _ in range(320)]
        timed[shape] = sum(turns)
    assert timed == {few: 5, more: 40, many: 320}


@pytest.mark.parametrize(("verb", "rows", "slow", "by"), [
    (FIND, 500, DOORBELL, 1.4), (PEEK, 1000, LAUNCH, 4.0),
])  # fmt: skip
def test_a_short_call_soon_goes_the_way_that_is_fastest(monkeypatch, verb, rows, slow, by):
    """Where the model is wrong, be it about calls of some ten microseconds."""
    played, shape = Played(monkeypatch, noise=0.05, off={slow: by}), shape_of(rows, 64, verb)
    played.call(shape)
    assert played.case(shape).current.way == slow
    played.call(shape, 200)
    assert played.case(shape).current.way != slow
    assert played.took(played.case(shape).current, shape) <= 1.05 * played.best(shape)


def test_what_the_first_call_after_a_change_takes_is_held_against_nobody(monkeypatch):
    """A doorbell is slow to ring right after a launch: the second call tells how fast it is."""
    played, shape = Played(monkeypatch, noise=0.02, off={LAUNCH: 1.4}), shape_of(800, 64)
    plain, last = played.took, None

    def took(arm, shape):
        nonlocal last
        before, last = last, arm.way
        return plain(arm, shape) * (1.5 if before != arm.way else 1)

    played.took = took
    played.call(shape)
    assert played.case(shape).current.way == LAUNCH
    played.call(shape, 300)
    ways = {arm.way: plain(arm, shape) for arm in played.case(shape).arms}
    assert ways[DOORBELL] < 0.9 * ways[LAUNCH]
    assert played.case(shape).current.way == DOORBELL


def test_a_pinned_tuning_is_kept(monkeypatch):
    played = Played(monkeypatch)
    pinned = Tuning(doorbell_rows=0, small_nbytes=0, depth=8, chunk_nbytes=2**16, packers=3)
    played.tuner = Tuner(Tuning(), pinned, 1024, ROOM)
    played.tuner.adopt(USUAL)
    for shape in shapes(rows=(1, 1000)):
        arm, began = played.tuner.turn(shape.verb, shape.rows, 10, 10)
        assert (arm.way, arm.setting, began) == (PIPELINE, pinned.setting, 0.0)
    assert not played.tuner.rings and played.tuner.state == "pinned"


def test_as_long_as_nothing_is_known_thresholds_are_as_built():
    one = Tuner(Tuning(), None, 0, ROOM)
    assert one.state == "as built" and not one.rings
    half = Tuning().small_nbytes // 2
    assert one.turn(FIND, 10, half, half)[0].way == LAUNCH
    arm, began = one.turn(FIND, 10, half, half + 1)
    assert (arm.way, arm.setting, began) == (PIPELINE, Tuning().setting, 0.0)
    assert Tuner(Tuning(), None, 1024, ROOM).turn(FIND, 1024, 16, 16)[0].way == DOORBELL


def test_the_same_calls_make_the_same_choices(monkeypatch):
    def ways():
        played, found = Played(monkeypatch, noise=0.1, seed=7), []
        for shape in CROSSINGS * 3:
            played.call(shape, 100)
            found.append((played.case(shape).current.way, played.case(shape).current.off))
        return found

    assert ways() == ways()


# ---- On disk

HERE = {"gpu": "one", "driver": 1}


def test_constants_are_kept(tmp_path):
    folder = tmp_path / "made" / "anew"
    assert READ(folder, HERE) is None
    assert kept.write(folder, HERE, USUAL) and READ(folder, HERE) == USUAL
    assert kept.write(folder, HERE, MACHINES["no doorbell"])
    assert READ(folder, HERE) == MACHINES["no doorbell"] and len(list(folder.iterdir())) == 1
    assert READ(folder, {**HERE, "driver": 2}) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "\0\xff",
        '{"identity": {"gpu": "one", "driver": 1}, "machine": 3}',
        json.dumps({"identity": HERE, "machine": {**asdict(USUAL), "up": -1.0}}),
        json.dumps({"identity": HERE, "machine": {**asdict(USUAL), "up": float("nan")}}),
        json.dumps({"identity": HERE, "machine": {**asdict(USUAL), "up": "1"}}),
        json.dumps({"identity": HERE, "machine": {**asdict(USUAL), "more": 1.0}}),
        json.dumps({"identity": HERE, "machine": {"up": 1.0}}),
        json.dumps({"identity": {"gpu": "two"}, "machine": asdict(USUAL)}),
    ],
)
def test_what_is_damaged_or_foreign_counts_as_none_and_is_replaced(tmp_path, text):
    kept.write(tmp_path, HERE, USUAL)
    (file,) = tmp_path.iterdir()
    file.write_text(text)
    assert READ(tmp_path, HERE) is None
    assert kept.write(tmp_path, HERE, USUAL) and READ(tmp_path, HERE) == USUAL


def test_a_folder_that_can_not_be_written_to_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    assert not kept.write(tmp_path / "file" / "below", HERE, USUAL)


@pytest.mark.parametrize("wrong", [0, -1.0, math.inf, math.nan, "1", None])
def test_constants_are_positive_numbers(wrong):
    with pytest.raises(ValueError, match="up is a positive number"):
        Machine.from_json({**asdict(USUAL), "up": wrong})
