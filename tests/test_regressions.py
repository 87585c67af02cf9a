"""A slowdown is found, a run against its like raises no alarm, and what can't be told is said to be so."""

import doctest
import json
import shutil

import numpy as np
import pandas as pd
import pytest

from predis_lab import cli
from predis_lab.bench import changepoints, regressions, results, statistics
from predis_lab.bench.regressions import AMBIGUOUS, IMPROVED, NOISE, REGRESSED, SAME, UNDECIDED

CELLS = 40
NOISE_SHARE = 0.03


@pytest.fixture(autouse=True)
def _fewer_resamples(monkeypatch):
    """Some 2,000 comparisons are made here, and an interval's last digit decides none of them."""
    monkeypatch.setattr(statistics, "RESAMPLES", 1000)


def fill(run, seed, *, blocks=12, times=None, metric="throughput", unit="1/s", floor=None, cells=CELLS):  # fmt: skip
    """Many cells with log-normal noise. times: cell number -> by what its values are multiplied"""
    generator = np.random.default_rng(seed)
    for cell in range(cells):
        values = 1e6 * (cell + 1) * np.exp(NOISE_SHARE * generator.standard_normal(blocks))
        for block, value in enumerate(values * (times or {}).get(cell, 1)):
            run.add_sample("predis", "get", {"keys": cell}, block, metric, value, unit)
    if floor is not None:
        run.add_sample("machine", "a/a", {}, -1, "noise_floor", floor, "1")
    return run


def samples(tmp_path, seed, **options):
    return fill(results.Run.open(tmp_path, notebook="t"), seed, **options).frame()


def make_run(folder, seed, environment=None, **options):
    """A run on disk; environment: what its environment says otherwise."""
    run = fill(results.Run.open(folder, notebook="t"), seed, **options)
    run.save()
    path = folder / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | (environment or {})))
    return folder


def cell(table, keys):
    (row,) = table.cells[table.cells["params"] == f'{{"keys": {keys}}}'].itertuples()
    return row


def found(tmp_path, *, blocks=12, cells=CELLS, metric="throughput", unit="1/s", **options):
    """The verdict on cell 7 of a run with these options against one with the same cells and none of the others."""
    plain = {"blocks": blocks, "cells": cells, "metric": metric, "unit": unit}
    new, old = samples(tmp_path, 1, **plain, **options), samples(tmp_path, 2, **plain)
    return cell(regressions.table(new, old), 7)


def test_examples_hold():
    for module in (regressions, changepoints):
        failed, attempted = doctest.testmod(module)
        assert attempted and not failed


# ---- The detector's own test


def test_a_slowdown_of_a_tenth_is_caught(tmp_path):
    caught = 0
    for trial in range(20):
        new = samples(tmp_path, 2 * trial, times={trial: 0.9})
        table = regressions.table(new, samples(tmp_path, 2 * trial + 1)).cells
        worse = list(table.loc[table["verdict"] == REGRESSED, "params"])
        caught += worse == [f'{{"keys": {trial}}}']
        assert table["params"][0] == f'{{"keys": {trial}}}'  # the worst comes first
    assert caught >= 19


def test_a_run_against_its_like_raises_no_alarm(tmp_path):
    alarms = 0
    for trial in range(20):
        sides = [samples(tmp_path, 100 + 2 * trial + side) for side in (0, 1)]
        alarms += regressions.table(*sides).cells["verdict"].isin([REGRESSED, IMPROVED]).any()
    assert alarms <= 1


def test_p_is_corrected_for_the_number_of_cells(tmp_path):
    pair = [samples(tmp_path, seed, cells=8) for seed in (1, 2)]
    new, old = map(regressions.cells, pair)
    raw = [statistics.compare(new[key], old[key]).p for key in new]
    corrected = regressions.table(*pair).cells["p_adjusted"]
    assert sorted(corrected) == pytest.approx(sorted(statistics.holm(raw)))


# ---- Verdicts


@pytest.mark.parametrize(
    ("metric", "unit", "times", "verdict"),
    [
        ("throughput", "1/s", 0.85, REGRESSED), ("throughput", "1/s", 1.15, IMPROVED),
        ("bandwidth", "B/s", 0.85, REGRESSED), ("latency_p50", "s", 1.15, REGRESSED),
        ("latency_p50", "s", 0.85, IMPROVED), ("record_nbytes", "B", 1.15, REGRESSED),
        ("ratio", "1", 0.85, REGRESSED), ("overhead", "1", 1.15, REGRESSED), ("saved", "B", 0.85, REGRESSED),
        ("throughput", "1/s", 1.0, SAME), ("throughput", "1/s", 0.94, AMBIGUOUS),
    ],
)  # fmt: skip
def test_what_is_better_depends_on_the_unit(tmp_path, metric, unit, times, verdict):
    row = found(tmp_path, metric=metric, unit=unit, times={7: times}, cells=10)
    assert row.verdict == verdict
    ratio = 1 / times if regressions.better(metric, unit) == "lower" else times
    assert row.low < ratio * 1.02 and row.high > ratio * 0.98 and row.low <= row.ratio <= row.high
    assert np.sign(row.delta) == np.sign(row.ratio - 1)
    assert row.now / row.before == pytest.approx(times, rel=0.03)


@pytest.mark.parametrize(
    ("metric", "unit"), [("hits", "1"), ("live", "B"), ("held", "B"), ("start", "s")]
)
def test_what_has_no_direction_is_not_compared(tmp_path, metric, unit, capsys):
    sides = [make_run(tmp_path / name, 1, metric=metric, unit=unit) for name in "ab"]
    table = regressions.table(*map(results.read_samples, sides))
    assert not len(table.cells) and table.without_direction == [f"{metric} ({unit})"]
    assert regressions.compare_runs(*sides) == 2
    assert "no measurement in common" in capsys.readouterr().out


def test_small_changes_are_not_claimed_however_sure(tmp_path):
    """0.97 times, and hardly any noise."""
    sides = [samples(tmp_path, seed, blocks=40, cells=3, times={1: times}) for seed, times in ((1, 0.97), (2, 1))]  # fmt: skip
    for side in sides:
        middle = side.groupby("params")["value"].transform("median")
        side["value"] = middle * (side["value"] / middle) ** 0.1
    row = cell(regressions.table(*sides), 1)
    assert row.p_adjusted < 0.001 and row.high < 1 and row.verdict == SAME


def test_what_describes_all_blocks_is_no_replicate(tmp_path):
    run = results.Run.open(tmp_path, notebook="t")
    for value in (1.0, 2.0, 3.0):
        run.add_sample("predis", "get", {}, -1, "pooled_latency_p50", value, "s")
    assert not len(regressions.table(run.frame(), run.frame()).cells)


def test_within_the_noise_nothing_is_claimed(tmp_path):
    assert found(tmp_path, times={7: 0.85}, floor=0.05).verdict == REGRESSED
    assert found(tmp_path, times={7: 0.85}, floor=0.25).verdict == NOISE
    assert found(tmp_path, times={7: 1.15}, floor=0.25).verdict == NOISE
    new, old = samples(tmp_path, 1, times={7: 0.85}), samples(tmp_path, 2, floor=0.25)
    assert regressions.table(new, old).floor == 0.25  # the larger of both, whichever side it is on
    assert cell(regressions.table(new, old), 7).verdict == NOISE
    other = old.assign(workload=old["workload"].replace("a/a", "b/b"))
    assert regressions.table(new, other).floor == 0


# ---- What cannot be told


def test_few_blocks_leave_it_undecided(tmp_path, capsys):
    sides = make_run(tmp_path / "new", 1, blocks=5, times={7: 0.5}), make_run(tmp_path / "old", 2, blocks=5)  # fmt: skip
    assert regressions.compare_runs(*sides, everything=True) == 0
    said = capsys.readouterr().out
    assert "40 undecided" in said and said.count("undecided: 5 blocks, 7 needed") == CELLS
    assert "7 a side are needed. 1 of them look worse by 5% or more" in said
    assert found(tmp_path, blocks=6, times={7: 0.5}).verdict == UNDECIDED
    assert found(tmp_path, blocks=7, times={7: 0.5}).verdict == REGRESSED


def test_what_has_no_interval_is_null_in_the_file(tmp_path):
    new, old = (make_run(tmp_path / name, 1, blocks=1, cells=2) for name in ("new", "old"))
    assert regressions.compare_runs(new, old) == 0
    told = json.loads((new / "comparison.json").read_text(), parse_constant=pytest.fail)
    assert [row["low"] for row in told["cells"]] == [None, None]
    assert {row["verdict"] for row in told["cells"]} == {UNDECIDED}


@pytest.mark.parametrize("zero", [False, True])
def test_a_cell_without_a_ratio_or_an_interval_is_undecided_too(tmp_path, zero):
    sides = [samples(tmp_path, seed, times={7: times}) for seed, times in ((1, 0.1), (2, 1))]
    chosen = sides[0]["keys"] == 7
    if zero:
        sides[0].loc[chosen, "value"] = 0.0
    else:
        sides[0] = sides[0][~chosen | (sides[0]["block"] == 0)]
    row = cell(regressions.table(*sides), 7)
    assert row.verdict == UNDECIDED and pd.isna(row.low) and row.n == (12 if zero else 1)
    assert pd.isna(row.ratio) if zero else row.ratio == pytest.approx(0.1, rel=0.1)


def test_cells_of_one_side_are_listed(tmp_path, capsys):
    new, old = make_run(tmp_path / "new", 1, cells=5), make_run(tmp_path / "old", 2, cells=3)
    assert cli.main(["compare", str(new), str(old), "--all"]) == 0
    said = capsys.readouterr().out
    assert "Measured in the run only, 2 cells: predis: get keys=3 throughput, predis: get keys=4 throughput" in said  # fmt: skip
    assert "Of 3 cells" in said and "in the baseline only" not in said
    assert cli.main(["compare", str(old), str(new)]) == 0
    assert "Measured in the baseline only, 2 cells: predis get." in capsys.readouterr().out
    told = json.loads((old / "comparison.json").read_text())
    assert [key[2] for key in told["only_in_baseline"]] == ['{"keys": 3}', '{"keys": 4}']


# ---- What is said, written and returned


def test_the_command_line_says_what_changed(tmp_path, capsys):
    new, old = make_run(tmp_path / "new", 1, times={3: 0.8, 9: 1.3}), make_run(tmp_path / "old", 2)
    assert cli.main(["compare", str(new), str(old)]) == 1
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert [line.split()[0] for line in lines if " keys=" in line] == ["regressed", "improved"]
    assert "keys=3 throughput" in said and "keys=4 " not in said and "|" not in said
    assert "environments differ" not in said
    assert "Of 40 cells: 1 regressed, 1 improved, " in said
    written = (new / "comparison.md").read_text()
    assert written.count("\n| regressed | 0.") == 1 and "Of 40 cells: 1 regressed" in written
    told = json.loads((new / "comparison.json").read_text())
    assert len(told["cells"]) == CELLS and told["cells"][0]["verdict"] == REGRESSED
    assert {"ratio", "low", "high", "delta", "p_adjusted", "n"} <= set(told["cells"][0])
    assert not list(old.glob("comparison.*"))
    assert cli.main(["compare", str(new), str(old), "--all"]) == 1
    assert capsys.readouterr().out.count("keys=") == CELLS
    assert cli.main(["compare", str(old), str(old)]) == 0


def test_another_machine_is_said(tmp_path, capsys):
    other = {"cpu": "abacus", "cores": 1, "commit": "c0ffee", "packages": {"numpy": "0.1"},
             "gpu": {"name": "NVIDIA A", "driver": "1"}, "servers": {"redis": {"version": "7"}}}  # fmt: skip
    same = other | {"gpu": {"name": "NVIDIA A", "driver": "2"}, "recorded_at": "2026-01-01"}
    old = make_run(tmp_path / "old", 2, other, cells=2)
    new = make_run(tmp_path / "new", 1, same, cells=2)
    assert cli.main(["compare", str(new), str(old)]) == 0
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if "->" in line] == ["- GPU driver: 1 -> 2"]
    new = make_run(tmp_path / "here", 1, {"commit": "decaf"}, cells=2, times={1: 0.5})
    assert cli.main(["compare", str(new), str(old)]) == 1
    said = capsys.readouterr().out
    above, _, _ = said.partition("verdict")
    for name in ("cpu: abacus", "cores: 1", "commit: c0ffee -> decaf", "GPU name: NVIDIA A", "server redis: 7"):  # fmt: skip
        assert f"- {name}" in above
    assert f"- numpy: 0.1 -> {np.__version__}" in above and "- pandas: None -> " in above


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"gpu": {"name": "NVIDIA H200"}}, "nvidia-h200"),
        ({"gpu": None, "cpu": "Abacus(R) 7"}, "cpu-abacus-r-7"),
    ],
)
def test_the_recorded_run_of_the_same_machine_is_the_baseline(
    tmp_path, monkeypatch, capsys, environment, name
):
    monkeypatch.setattr(results, "REFERENCE", tmp_path / "reference")
    new = make_run(tmp_path / "new", 1, environment, times={3: 0.8})
    make_run(tmp_path / "reference" / "nvidia-other", 2)
    assert cli.main(["compare", str(new)]) == 2
    wanted = tmp_path / "reference" / name
    assert f"no recorded run to compare with: {wanted}" in capsys.readouterr().out
    make_run(wanted, 2, environment)
    assert cli.main(["compare", str(new)]) == 1
    assert json.loads((new / "comparison.json").read_text())["baseline"] == str(wanted)


@pytest.mark.parametrize("side", ["new", "old"])
@pytest.mark.parametrize(
    "spoil", ["absent", "no environment", "half an environment", "a list", "samples", "no samples"]
)
def test_what_is_no_run_is_refused(tmp_path, side, spoil, capsys):
    for name in ("new", "old"):
        make_run(tmp_path / name, 1, cells=2)
    environment, parquet = tmp_path / side / "environment.json", tmp_path / side / "samples.t.parquet"  # fmt: skip
    {
        "absent": lambda: shutil.rmtree(tmp_path / side),
        "no environment": environment.unlink,
        "half an environment": lambda: environment.write_text('{"cpu'),
        "a list": lambda: environment.write_text('["recorded_at"]'),
        "samples": lambda: parquet.write_bytes(b"half a file"),
        "no samples": parquet.unlink,
    }[spoil]()
    assert cli.main(["compare", str(tmp_path / "new"), str(tmp_path / "old")]) == 2
    assert capsys.readouterr().out.startswith("predis-lab: ")
    assert not (tmp_path / "new" / "comparison.json").exists()


def test_a_run_that_nothing_can_be_written_to_is_judged(tmp_path, capsys):
    new, old = make_run(tmp_path / "new", 1, times={3: 0.8}), make_run(tmp_path / "old", 2)
    (new / "comparison.md").mkdir()
    assert cli.main(["compare", str(new), str(old)]) == 1
    assert "predis-lab: not written: " in capsys.readouterr().out


# ---- A history of runs


def series(seed, *levels, noise=0.02):
    noisy = np.random.default_rng(seed).standard_normal(sum(n for n, _ in levels))
    return np.concatenate([[level] * n for n, level in levels]) * np.exp(noise * noisy)


def indices(values, least=0.05):
    return [point.index for point in changepoints.change_points(values, least=least)]


def test_changes_of_level_are_found_where_they_are():
    assert indices(series(0, (20, 1.0))) == indices(series(1, (9, 1.0))) == []
    hits = [indices(series(seed, (8, 1.0), (6, 0.85))) == [8] for seed in range(20)]
    assert sum(hits) >= 19
    assert indices(series(2, (12, 1.0), (12, 0.8), (12, 1.1))) == [12, 24]
    assert indices(series(2, (12, 1.0), (12, 0.6), (12, 0.7))) == [12, 24]
    assert indices(series(3, (12, 1.0), (12, 0.96), noise=0.001)) == []  # sure, but small
    (point,) = changepoints.change_points(series(4, (10, 100.0), (10, 80.0)), least=0.05)
    assert point.ratio == pytest.approx(0.8, rel=0.03) and point.p <= changepoints.LEVEL


def test_series_without_a_change_have_one_as_rarely_as_said():
    alarms = sum(bool(indices(series(seed, (14, 1.0)), least=0.0)) for seed in range(60))
    assert alarms <= 4  # 60 at 1 %: more in 3 of 10,000 cases


def test_the_energy_is_its_definition():
    values = np.log(series(5, (5, 1.0), (4, 2.0)))
    distances = np.abs(values[:, None] - values)

    def energy(n):
        a, b = values[:n], values[n:]
        within = [np.abs(x[:, None] - x).sum() / (len(x) * (len(x) - 1)) for x in (a, b)]
        return len(a) * len(b) / len(values) * (2 * np.abs(a[:, None] - b).mean() - sum(within))

    split, largest = changepoints._furthest(distances)
    assert split == max(range(2, 8), key=energy) and largest == pytest.approx(energy(split))


def test_a_history_says_since_when(tmp_path, capsys):
    nights = tmp_path / "nights"
    machine = {"cpu": "abacus", "gpu": None}
    for night in range(12):
        told = machine | {"recorded_at": f"2026-01-{12 - night:02}"}  # the last by name came first
        slow = {1: 0.85} if night < 5 else {}
        make_run(nights / f"r{night:02}", night, told, cells=3, times=slow)
    make_run(nights / "other", 1, {"cpu": "another"}, cells=3, times={1: 0.1})
    (nights / "broken").mkdir()
    (nights / "broken" / "environment.json").write_text("{")
    run = nights / "r00"
    assert cli.main(["compare", str(run), str(nights / "r01"), "--history", str(nights)]) == 0
    said = capsys.readouterr().out
    assert "Change points in the course of 12 runs of this machine: 1." in said
    assert "predis: get keys=1 throughput: 0.8" in said and "x from r04 on" in said
    (change,) = json.loads((run / "comparison.json").read_text())["change_points"]
    assert change["run"] == "r04" and change["ratio"] == pytest.approx(0.85, rel=0.04)
    assert cli.main(["compare", str(run), str(run), "--history", str(tmp_path / "none")]) == 2
    alone = tmp_path / "alone"
    alone.mkdir()
    assert cli.main(["compare", str(run), str(run), "--history", str(alone)]) == 0
    assert f"It takes {changepoints.NEEDED} runs to find one." in capsys.readouterr().out
