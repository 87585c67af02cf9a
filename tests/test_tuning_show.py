"""Figures, tables and sentences of notebook 03: what they are given, all of it; a plain line where that is nothing."""

import math

import pytest

from predis_lab.bench import results
from predis_lab.bench import tuning_samples as measured
from predis_lab.report import kernel_show, tuning_show

BASE = {"doorbell": (2e-6, 4e-8), "launch": (2e-5, 4e-9), "pipeline": (2e-4, 1e-9)}


def seconds(way, rows):
    fixed, row = BASE[way]
    return fixed + rows * row


def add(run, system, workload, params, metric, unit, value, blocks=4):
    for block in range(blocks):
        run.add_sample(system, workload, params, block, metric, value * (1 + 0.001 * block), unit)


@pytest.fixture
def run(tmp_path):
    """A little of everything that notebook 03 leaves."""
    run = results.Run.open(tmp_path, notebook="03_batch_autotuning")
    for rows in (1, 100, 1000, 10_000, 1_000_000):
        for way in BASE:
            if way != "doorbell" or rows <= 1000:
                told = {"rows": rows, "value_nbytes": 64, "way": way}
                add(run, "predis", "crossover", told, "latency", "s", seconds(way, rows))
        best = min(BASE, key=lambda way: seconds(way, rows))
        told = {"rows": rows, "value_nbytes": 64, "way": best, "binding": "download"}
        add(run, "predis", "scaling", told, "throughput", "1/s", rows / seconds(best, rows))
    for verb, over in (("find", 1.02), ("insert", 1.2)):
        for size in (64, 1024):
            for rows in (10, 1000):
                told = {"verb": verb, "rows": rows, "value_nbytes": size}
                slow = over if (size, rows) == (1024, 1000) else 1.0
                add(run, "tuner", "regret", told | {"way": "launch"}, "latency", "s", 1e-4 * slow)
                add(run, "launch", "regret", told | {"way": "launch"}, "latency", "s", 1e-4)
                add(run, "pipeline, 4 of 99 B", "regret", told | {"way": "pipeline"}, "latency", "s", 3e-4)  # fmt: skip
    for phase, size in enumerate((64, 4096)):
        for number in range(40):
            way = "pipeline" if size == 4096 and number > 3 else "launch"
            told = {"phase": phase, "value_nbytes": size, "rows": 100, "way": way}
            run.add_sample("tuner", "adaptation", told, number, "latency", 1e-4 * (2 if phase else 1), "s")  # fmt: skip
        told = {"phase": phase, "value_nbytes": size, "rows": 100, "way": "launch"}
        add(run, "best fixed", "adaptation", told, "latency", "s", 1.6e-4 if phase else 1e-4, 3)
    for threads in (1, 16):
        for rows in (1, 1000):
            told = {"threads": threads, "rows": rows}
            add(run, "predis", "threads", told, "throughput", "1/s", 1e5 * rows * math.sqrt(threads))  # fmt: skip
            add(run, "predis", "threads", told, "latency", "s", 1e-4 * threads)
    for name in ("beside_alone", "beside_doorbell", "beside_launch"):
        run.add_figure(name, 2e8 if name == "beside_alone" else 1.5e8, "1/s")
    run.add_figure("single_get", 4e-6, "s", low=3.9e-6, high=4.1e-6, n=9)
    run.add_figure("single_get_hot", 7e-7, "s", n=9)
    for name, value, unit in (("launch_s", 2e-5, "s"), ("up", 55e9, "B/s"), ("packers", 14, "1")):
        run.add_sample("machine", "constants", {}, 0, name, value, unit)
    return run


def kept(run, keep):
    found = keep(run.frame())
    assert len(found)
    return found


def lines_of(figure):
    return {line.get_label(): line for line in figure.axes[0].lines}


def test_crossovers(run):
    samples = kept(run, measured.crossover_samples)
    assert {"doorbell", "one launch", "pipeline"} <= lines_of(tuning_show.crossovers(samples)).keys()  # fmt: skip
    assert measured.crossing(samples, "doorbell", "launch") == 1000
    assert measured.crossing(samples, "launch", "pipeline") == 1_000_000
    assert measured.crossing(samples, "doorbell", "pipeline") is None
    said = tuning_show.crossovers_verdict(samples).data
    assert "from **1,000 keys** on" in said and "from **1,000,000 keys** on" in said
    few = samples[samples["rows"] < 1000]
    assert tuning_show.crossovers_verdict(few).data.count("nowhere") == 2


def test_the_map(run):
    samples = kept(run, measured.regret_samples)
    cells = measured.regrets(samples)
    assert len(cells) == 8 and {cell.best for cell in cells} == {"launch"}
    worst = max(cells, key=lambda cell: cell.regret.value)
    assert (worst.verb, worst.value_nbytes, worst.rows) == ("insert", 1024, 1000)
    assert worst.regret.value == pytest.approx(0.2, abs=0.01)
    figure = tuning_show.regret_map(samples)
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert len(texts) == 8 and "+20.0%\nlaunch" in texts
    said = tuning_show.regret_verdict(samples).data
    assert "**7 of 8** points" in said and "insert, 1,024 B, 1,000 keys" in said
    assert "whole intervals: 1 points" in said
    assert tuning_show.regret_table(samples).data.count("<tr>") == 9


def test_adaptation(run):
    samples = kept(run, measured.adaptation_samples)
    labels = lines_of(tuning_show.adaptation(samples)).keys()
    assert {"one launch", "pipeline"} <= labels
    said = tuning_show.adaptation_verdict(samples).data.splitlines()
    assert "64 B: by one launch" in said[0] and "changed 0 times" in said[0]
    assert "4,096 B: by pipeline, **+24.9%**" in said[1] and "changed 1 times" in said[1]


def test_scaling(run):
    samples = kept(run, measured.scaling_samples)
    assert "in proportion" in lines_of(tuning_show.scaling(samples))
    assert 0 < measured.slope(samples, 10, 10_000) < 1
    assert measured.slope(samples, 2, 3) is None
    assert measured.bend(samples) == 10_000
    said = tuning_show.scaling_verdict(samples).data
    assert "bends at **10,000 keys**" in said and "download binds there" in said
    assert "does not bend" in tuning_show.scaling_verdict(samples[samples["rows"] <= 100]).data
    assert "download" in tuning_show.scaling_table(samples).data


def test_threads_and_what_goes_on_beside(run):
    samples = kept(run, measured.thread_samples)
    assert {"single gets", "1,000 keys a call"} <= lines_of(tuning_show.threads(samples)).keys()
    said = tuning_show.threads_verdict(samples).data
    assert "16 threads answer **4.00 times** what 1 does" in said and "1.60 ms" in said
    assert tuning_show.beside_verdict(run.figures).data.count("**75%**") == 2


def test_limits_are_met_or_missed(run):
    told = tuning_show.limits(run.figures, measured.SINGLES, measured.LIMITS).data
    assert told.count("met") == 1 and told.count("missed") == 1 and "5.00 µs" in told
    assert "55.0 GB/s" in tuning_show.constants(kept(run, measured.constant_samples)).data


def test_where_figures_come_from(run, monkeypatch, tmp_path):
    assert "in this run" in tuning_show.source(run, True)[1].data
    monkeypatch.setattr(tuning_show, "reference_directory", lambda: None)
    figures, said = tuning_show.source(run, False)
    assert not figures and "not recorded" in said.data
    for recorded in (False, True):
        if recorded:
            run.add_figure("tuning_regret_max", 0.03, "1")
        run.save()
        monkeypatch.setattr(tuning_show, "reference_directory", lambda: run.directory)
        monkeypatch.setattr(tuning_show, "banner", lambda directory, _: directory.name)
        figures, said = tuning_show.source(run, False)
        assert bool(figures) == recorded and (said == run.directory.name) == recorded


def test_nothing_is_a_plain_line(run):
    nothing = measured.regret_samples(run.frame().iloc[:0])
    assert kernel_show.shown(tuning_show.regret_map, nothing).data == kernel_show.NOTHING
    said = tuning_show.summary([kernel_show.shown(tuning_show.regret_verdict, nothing)])
    assert said.data.startswith("Of the rest")


def test_batches_fail_in_part_as_they_are_told_to():
    said = tuning_show.partial_failures("host")
    assert "'too_large': 1" in said[0] and "statuses [0, 3]" in said[2] and len(said) == 8
    assert all("True" in line for line in (said[3], said[5], said[6]))
