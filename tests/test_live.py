"""What the dashboard makes of ticks: numbers, sentences, charts' history, recordings. Nothing here runs a load."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lives import FACTS, tick

pytest.importorskip("bokeh", reason="the dashboard is a part of the extra lab")

from predis_lab.bench.results import Run, read_figures
from predis_lab.bench.statistics import ratio_interval
from predis_lab.live import headline, history, latencies, plays, scenes, tape, tiles, tour, words
from predis_lab.report import comparison

# ---- Scenes


@pytest.mark.parametrize("name", scenes.SCENES)
def test_a_scene_begins_with_controls_that_can_be_chosen(name):
    scene = scenes.SCENES[name]
    for control, choices in scenes.CHOICES.items():
        assert getattr(scene.start, control) in choices, control  # or a slider would show another


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batch": 7}, "batch is one of"),
        ({"size": 1}, "no control 'size'"),
        ({"threads": 2, "reads": 2.0}, "reads is one of"),
    ],
)
def test_a_control_is_refused_before_anything_changes(changes, says):
    scene = scenes.SCENES["batch"]
    with pytest.raises(scenes.ControlError, match=says):
        scene.with_controls(scene.start, **changes)


def test_what_a_scene_is_about_can_t_be_changed():
    with pytest.raises(scenes.ControlError, match="value_nbytes can't be changed"):
        scenes.SCENES["training"].with_controls(scenes.SCENES["training"].start, value_nbytes=16)
    with pytest.raises(scenes.ControlError, match="no scene 'gaming'"):
        scenes.scene_of("gaming")


@pytest.mark.parametrize("name", scenes.SCENES)
def test_work_is_what_the_controls_say(name):
    scene = scenes.SCENES[name]
    changes = {"batch": 10, "value_nbytes": 16, "threads": 2}
    changes = {control: value for control, value in changes.items() if control not in scene.fixed}
    controls = scene.with_controls(scene.start, **changes)
    scenario = scene.scenario(name, controls)
    work = plays.work_of(
        scenario, controls.batch, threads=controls.threads, hints=scene.hints, seed=1
    )
    assert len(work) == controls.threads
    if controls.batch == 1:
        written = [value for one in work for _, value in one if value is not None]
        count = sum(map(len, work))
    else:
        sent = [call for one in work for call in one]
        written = [value for call in sent for value in call.written.values()]
        count = sum(len(call.read_list) for call in sent) + len(written)
        assert count <= controls.batch * len(sent)  # of equal keys in a batch the last is written
    assert {len(value) for value in written} <= {controls.value_nbytes}
    assert bool(written) == (controls.reads < 1)
    if name == "single":
        assert len(written) / count == pytest.approx(1 - controls.reads, abs=0.03)


def test_hints_are_what_the_next_batch_reads():
    scene = scenes.SCENES["training"]
    scenario = scene.scenario("training", scene.start)
    (work,) = plays.work_of(scenario, 100, threads=1, hints=True, seed=1)
    for now, then in itertools.pairwise(work):
        assert now.coming.equals(then.reads)
    assert work[-1].coming is None


def test_what_rotates_is_bounded():
    scene = scenes.SCENES["batch"]
    controls = scene.with_controls(
        scene.start, batch=10_000, value_nbytes=4096, threads=4, reads=0.0
    )
    assert plays._batches_at_most(scene.scenario("batch", controls), 4 * 10_000) == 4
    assert plays._batches_at_most(scene.scenario("batch", scene.start), 10) == plays.BATCHES


def test_the_offer_follows_rate_and_curve():
    scene, calm = scenes.SCENES["trading"], scenes.SCENES["batch"]
    controls = dataclasses.replace(scene.start, rate=50_000, batch=10)
    due = scenes.offered(scene, controls, 1)
    assert len(due) == 50_000 * scenes.DAY_S / 10
    assert (np.diff(due) >= 0).all() and due[0] >= 0 and due[-1] < scenes.DAY_S
    counts, _ = np.histogram(due, 12, (0, scenes.DAY_S))
    assert counts[0] > 2 * counts[6] and counts[-1] > 2 * counts[6]
    counts, _ = np.histogram(scenes.offered(calm, controls, 1), 12, (0, scenes.DAY_S))
    assert counts.max() < 1.2 * counts.min()
    assert scenes.offered(calm, calm.start, 1) is None


# ---- Latencies


@given(st.lists(st.integers(1, 2**40), min_size=20, max_size=300), st.sampled_from([50.0]))
@settings(max_examples=50)
def test_a_percentile_is_the_order_statistic_s_to_within_a_bucket(values, percentile):
    window = latencies.Window(5.0)
    window.add(np.array(values), 0.0)
    rank = int(np.ceil(len(values) * percentile / 100))
    expected = sorted(values)[rank - 1]
    assert window.percentile(percentile) * 1e9 == pytest.approx(expected, rel=1 / 128, abs=0.51)


def test_too_few_calls_tell_no_percentile():
    window = latencies.Window(5.0)
    window.add(np.full(999, 1000), 0.0)
    assert window.percentile(50.0) is not None and window.percentile(99.0) is None
    window.add(np.full(1, 1000), 1.0)
    assert window.percentile(99.0) is not None


def test_old_slices_leave_the_window():
    window = latencies.Window(5.0)
    window.add(np.full(100, 1_000_000), 0.0)
    window.add(np.full(100, 1000), 4.0)
    window.add(np.full(100, 1000), 5.5)
    assert window.percentile(50.0) == pytest.approx(1e-6, rel=0.01)
    alone = latencies.Window(5.0)
    alone.add(np.full(200, 1000), 0.0)
    assert np.array_equal(alone._sum, window._sum)


# ---- History


def test_the_history_of_hours_is_bounded_and_keeps_every_tick():
    seen, count = history.History(), 40_000
    for number in range(count):
        seen.add(tick(number, at=number * 0.15, rates=(float(number), 1.0), p50s=(None, 0.5)))
        assert len(seen.parts) <= history.PARTS
    assert sum(part.ticks for part in seen.parts) == count
    assert sum(part.rate_sums[0] for part in seen.parts) == sum(range(count))
    starts = [part.start for part in seen.parts]
    assert np.diff(starts) == pytest.approx(seen.width_s) and starts[0] == 0
    assert seen.width_s * len(starts) == pytest.approx(count * 0.15, rel=0.01)
    assert seen.parts[3].latencies() == (None, 0.5)


def test_pauses_leave_no_parts():
    seen = history.History()
    for at in (0.2, 0.4, 50.1):
        seen.add(tick(at=at))
    assert [(part.start, part.ticks) for part in seen.parts] == [(0.0, 2), (50.0, 1)]


# ---- Headline


def test_the_speed_up_is_predis_over_redis_in_operations_a_second():
    generator = np.random.default_rng(0)
    rates = [(300 + generator.random(), 100 + generator.random()) for _ in range(30)]
    shown = headline.headline([tick(i, rates=pair) for i, pair in enumerate(rates)])
    assert shown.speedup == ratio_interval(*zip(*rates, strict=True))
    assert shown.speedup.low <= 3 * 1.01 and shown.speedup.high >= 2.97
    assert shown.latency_ratio == 2.0 and shown.tail_ratio == 2.25
    assert words.lead(shown)[0] == headline.times(shown.speedup.value)


def test_only_the_last_seconds_count():
    ticks = [tick(i, rates=(1e6, 1.0)) for i in range(60)] + [tick(i) for i in range(60, 120)]
    assert headline.headline(ticks).speedup.value == 2.0


def test_what_was_not_measured_says_so():
    shown = headline.headline([tick(i, p50s=(None, 0.1), p99s=(None, None)) for i in range(9)])
    assert shown.latency_ratio is None and shown.number("predis_p50").text == "…"
    page = tiles.tiles(shown, False, "")
    assert page.count("too few calls") == 2 and page.count("no GPU here") == 2
    assert headline.headline([]) is None
    assert headline.headline([tick()]).speedup is None
    assert headline.headline([tick(i, rates=(1.0, 0.0)) for i in range(9)]).speedup is None


def test_where_a_rate_is_offered_latency_leads():
    controls = dataclasses.replace(scenes.SCENES["trading"].start, rate=1000)
    ticks = [tick(i, scene="trading", controls=controls, unsent=(0, 50)) for i in range(12)]
    shown = headline.headline(ticks)
    assert words.lead(shown) == ("2.25x", "Redis's p99 latency over Predis's, last 5 s")
    said = " ".join(words.seen("trading", controls, shown, FACTS))
    assert "Offered are 1.00 k/s" in said and "Redis fell so far behind that 600 operations" in said
    assert "Predis fell" not in said


def test_a_trend_compares_the_last_seconds_with_those_before():
    def slope(rate):
        return headline.trend(
            [tick(i, rates=(rate(i), 1.0)) for i in range(72)], lambda t: t.sides[0].rate
        )

    assert slope(lambda i: 100.0) == 0.0
    assert slope(lambda i: 150.0 if i >= 42 else 100.0) == pytest.approx(0.5, abs=0.05)
    assert headline.trend([tick(i) for i in range(20)], lambda t: t.sides[0].rate) is None
    assert tiles.trend_text(0.5) == "▲ 50 %" and tiles.trend_text(-0.5) == "▼ 50 %"


# ---- Sentences


@pytest.mark.parametrize(
    ("rates", "says"),
    [
        ((300.0, 100.0), "3.00x Redis's rate"),
        ((100.0, 300.0), "Redis is ahead, 3.00x Predis's rate"),
        ((101.0, 100.0), "about the same"),
    ],
)
def test_sentences_say_who_is_ahead(rates, says):
    shown = headline.headline([tick(i, rates=rates) for i in range(30)])
    said = " ".join(words.narrative("batch", scenes.SCENES["batch"].start, shown, FACTS))
    assert says in said and "none of a GPU's" in said
    assert "none of a GPU's" not in " ".join(
        words.narrative("batch", scenes.SCENES["batch"].start, shown, {"backend": "cuda"})
    )


def test_only_a_host_table_has_nothing_to_bring_up_ahead():
    controls, shown = scenes.SCENES["training"].start, headline.headline([tick(0)] * 9)
    said = {
        backend: " ".join(words.seen("training", controls, shown, {"backend": backend}))
        for backend in ("host", "cuda")
    }
    assert "nothing to bring up" in said["host"] and "bring up" not in said["cuda"]
    assert "bring up" not in " ".join(words.seen("batch", controls, shown, {"backend": "host"}))


def test_no_difference_is_claimed_where_the_interval_holds_one():
    wild = [(50.0, 100.0), (200.0, 100.0)] * 15
    shown = headline.headline([tick(i, rates=pair) for i, pair in enumerate(wild)])
    assert "no difference can be told" in " ".join(
        words.seen("batch", scenes.SCENES["batch"].start, shown, {})
    )


@pytest.mark.parametrize("name", scenes.SCENES)
def test_every_scene_has_a_story_before_and_after_its_first_number(name):
    scene = scenes.SCENES[name]
    empty = words.narrative(name, scene.start, None, {})
    assert empty == [scene.says, scene.look_at]
    shown = headline.headline([tick(i, scene=name) for i in range(12)])
    assert len(words.narrative(name, scene.start, shown, FACTS)) > len(empty)


def test_what_comes_from_outside_is_escaped():
    evil = "<script>alert(1)</script>"
    for html in (tiles.banner(evil, evil), tiles.header("live", evil), tiles.note(evil), tiles.hero(None, [evil], evil, evil)):  # fmt: skip
        assert "<script" not in html and "&lt;script" in html


def test_a_sparkline_has_a_point_for_each_value_that_there_is():
    line = tiles.sparkline([1.0, None, 3.0])
    assert 'points="0.0,22.0 100.0,2.0"' in line
    assert tiles.sparkline([1.0]) == tiles.sparkline([None, None]) == ""


# ---- Tour


def test_a_tour_shows_every_scene_once_with_a_pause_before_each():
    seen = [tour.stop_at(at) for at in np.arange(0, tour.duration_s(), 0.5)]
    assert list(dict.fromkeys(stop.scene for stop in seen)) == list(scenes.SCENES)
    for name in scenes.SCENES:
        states = [stop.playing for stop in seen if stop.scene == name]
        assert states == sorted(states) and states.count(False) == 2 * tour.PAUSE_S
        assert states.count(True) == 2 * tour.SCENE_S
    assert tour.stop_at(tour.duration_s()) is None
    assert "Next: Single operations, in 3 s" in words.tour_says(tour.stop_at(1.0))


# ---- Recordings


def some_ticks():
    told = [{"redis_memory": 1e6 + i // 3, "predis_hits": 0.5} for i in range(50)]
    first = [
        tick(i, rates=(200.0 + i, 100.0 + i % 7), readings=told[3 * (i // 3)], renewed=i % 3 == 0)
        for i in range(40)
    ]
    other = scenes.SCENES["single"].start
    later = [tick(i, scene="single", controls=other, unsent=(0, i % 3), p99s=(None, 0.5), segment=1) for i in range(40, 50)]  # fmt: skip
    return first + later


def test_a_recording_holds_what_was_measured(tmp_path):
    ticks = some_ticks()
    tape.save(ticks, FACTS, tmp_path)
    loaded, facts = tape.load(tmp_path)
    for before, after in zip(ticks, loaded, strict=True):
        told = {name: value for name, value in before.readings.items() if value is not None}
        assert after == dataclasses.replace(before, readings=told)
    assert facts["backend"] == "host" and facts["server"]["version"] == "8.2.3"
    assert "host memory, 20" in tape.said_of(facts) and " at commit " in tape.said_of(facts)


def test_a_reading_is_stored_once(tmp_path):
    tape.record(run := Run.open(tmp_path, notebook=tape.NOTEBOOK), some_ticks()[:40])
    samples = run.frame()
    assert len(samples[samples["metric"] == "redis_memory"]) == 14
    assert len(samples[samples["metric"] == "throughput"]) == 80


def test_an_exported_session_is_a_run_like_any_other(tmp_path):
    ticks = some_ticks()
    run = Run.open(tmp_path, notebook=tape.NOTEBOOK)
    tape.record(run, ticks)
    run.save()
    figures = read_figures(tmp_path)
    rates = zip(*[[side.rate for side in one.sides] for one in ticks[:40]], strict=True)
    expected = ratio_interval(*rates)
    found = figures["live_batch_1000_64_b_1_threads_90_reads"]
    assert (found["value"], found["low"], found["n"]) == (expected.value, expected.low, 40)
    samples = run.frame()
    samples = samples[samples["keys"].notna()]
    compared = comparison.against(samples, comparison.default_pairs(samples))
    (row,) = compared[compared["records"] == "batch"].to_dict("records")
    assert (row["candidate"], row["baseline"], row["keys"]) == (
        "predis-host columns",
        "redis mget",
        1000,
    )
    assert row["ratio"] == expected.value


def test_what_is_no_recording_is_told(tmp_path):
    with pytest.raises(tape.TapeError, match="holds no recording"):
        tape.load(tmp_path)
    with pytest.raises(tape.TapeError, match="nothing has been measured"):
        tape.save([], FACTS, tmp_path)
    tape.record(empty := Run.open(tmp_path, notebook=tape.NOTEBOOK), [])
    empty.save()
    with pytest.raises(tape.TapeError, match="holds no ticks"):
        tape.load(tmp_path)
