"""A slowdown is found, a run against its like raises no alarm, and what can't be told is said to be so."""

import json

import numpy as np
import pytest

from predis_lab import cli
from predis_lab.bench import regressions, results
from predis_lab.bench.regressions import AMBIGUOUS, IMPROVED, REGRESSED, SAME, UNDECIDED

CELLS = 40
NOISE = 0.03


def make_run(folder, seed, *, blocks=12, faster=None, metric="throughput", unit="1/s", floor=None, cells=CELLS):  # fmt: skip
    """A run of many cells with log-normal noise. faster: cell number -> by how many times its values are multiplied"""
    run = results.Run.open(folder, notebook="t")
    generator = np.random.default_rng(seed)
    for cell in range(cells):
        values = 1e6 * (cell + 1) * np.exp(NOISE * generator.standard_normal(blocks))
        for block, value in enumerate(values * (faster or {}).get(cell, 1)):
            run.add_sample("predis", "get", {"keys": cell}, block, metric, value, unit)
    if floor is not None:
        run.add_sample("machine", "a/a", {}, -1, "noise_floor", floor, "1")
    run.save()
    return run.directory


def found(tmp_path, **options):
    """The verdict on cell 7 of a run with these options against one without."""
    plain = {k: v for k, v in options.items() if k not in ("faster", "floor")}
    sides = make_run(tmp_path / "new", 1, **options), make_run(tmp_path / "old", 2, **plain)
    table = regressions.table(*map(results.read_samples, sides))
    (row,) = table[table["params"] == '{"keys": 7}'].itertuples()
    return row


def test_a_slowdown_of_a_tenth_is_caught(tmp_path):
    caught = 0
    for trial in range(20):
        new = make_run(tmp_path / f"new{trial}", 2 * trial, faster={trial: 0.9})
        old = make_run(tmp_path / f"old{trial}", 2 * trial + 1)
        table = regressions.table(results.read_samples(new), results.read_samples(old))
        caught += list(table.loc[table["verdict"] == REGRESSED, "params"]) == [
            f'{{"keys": {trial}}}'
        ]
    assert caught >= 19


def test_a_run_against_its_like_raises_no_alarm(tmp_path):
    alarms = 0
    for trial in range(20):
        sides = [make_run(tmp_path / f"{trial}{side}", 100 + 2 * trial + side) for side in (0, 1)]
        alarms += regressions.compare_runs(*sides) == 1
    assert alarms <= 1


@pytest.mark.parametrize(
    ("metric", "unit", "times", "verdict"),
    [
        ("throughput", "1/s", 0.85, REGRESSED), ("throughput", "1/s", 1.15, IMPROVED),
        ("bandwidth", "B/s", 0.85, REGRESSED), ("latency_p50", "s", 1.15, REGRESSED),
        ("latency_p50", "s", 0.85, IMPROVED), ("record_nbytes", "B", 1.15, REGRESSED),
        ("throughput", "1/s", 1.0, SAME), ("throughput", "1/s", 0.94, AMBIGUOUS),
    ],
)  # fmt: skip
def test_what_is_better_depends_on_the_unit(tmp_path, metric, unit, times, verdict):
    row = found(tmp_path, metric=metric, unit=unit, faster={7: times})
    assert row.verdict == verdict
    ratio = times if unit in ("1/s", "B/s") else 1 / times
    assert row.low < ratio * 1.02 and row.high > ratio * 0.98 and row.low <= row.ratio <= row.high


def test_what_has_no_direction_is_not_compared(tmp_path):
    sides = [make_run(tmp_path / name, 1, metric="hits", unit="1") for name in "ab"]
    assert not len(regressions.table(*map(results.read_samples, sides)))
    assert regressions.compare_runs(*sides) == 2


def test_within_the_noise_nothing_is_claimed(tmp_path):
    assert found(tmp_path, faster={7: 0.85}, floor=0.05).verdict == REGRESSED
    assert found(tmp_path, faster={7: 0.85}, floor=0.25).verdict != REGRESSED


def test_few_blocks_leave_it_undecided(tmp_path, capsys):
    assert found(tmp_path, blocks=5, faster={7: 0.5}).verdict == UNDECIDED
    assert regressions.compare_runs(tmp_path / "new", tmp_path / "old") == 0
    said = capsys.readouterr().out
    assert "40 undecided" in said and "7 a side are needed" in said
    assert found(tmp_path, blocks=7, faster={7: 0.5}).verdict == REGRESSED


def test_cells_of_one_side_are_left_out(tmp_path):
    sides = make_run(tmp_path / "a", 1, cells=5), make_run(tmp_path / "b", 2, cells=3)
    assert len(regressions.table(*map(results.read_samples, sides))) == 3


def test_the_command_line_says_what_changed(tmp_path, capsys):
    new, old = make_run(tmp_path / "new", 1, faster={3: 0.8, 9: 1.3}), make_run(tmp_path / "old", 2)
    environment = json.loads((new / "environment.json").read_text())
    environment["packages"]["numpy"] = "0.1"
    (new / "environment.json").write_text(json.dumps(environment))
    assert cli.main(["compare", str(new), str(old)]) == 1
    said = capsys.readouterr().out
    assert said.count("regressed") == 2 and said.count("improved") == 2  # in a row, and in the sum
    assert '{"keys": 3}' in said and '{"keys": 4}' not in said
    assert f"- numpy: {np.__version__} -> 0.1" in said
    assert (new / "comparison.md").read_text() == said
    told = json.loads((new / "comparison.json").read_text())
    assert len(told["cells"]) == CELLS and told["cells"][0]["verdict"] == REGRESSED
    assert cli.main(["compare", str(new), str(old), "--all"]) == 1
    assert '{"keys": 4}' in capsys.readouterr().out
    assert cli.main(["compare", str(old), str(old)]) == 0


def test_the_recorded_run_of_the_same_gpu_is_the_baseline(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, "REFERENCE", tmp_path / "reference")
    new = make_run(tmp_path / "new", 1, faster={3: 0.8})
    assert cli.main(["compare", str(new)]) == 2
    environment = json.loads((new / "environment.json").read_text())
    cpu = regressions.slug(environment["cpu"])
    assert f"no recorded run to compare with: {tmp_path}/reference/" in capsys.readouterr().out
    make_run(tmp_path / "reference" / f"cpu-{cpu}", 2)
    if environment["gpu"] is None:
        assert cli.main(["compare", str(new)]) == 1
    environment["gpu"] = {"name": "NVIDIA H200"}
    (new / "environment.json").write_text(json.dumps(environment))
    assert cli.main(["compare", str(new)]) == 2
    make_run(tmp_path / "reference" / "nvidia-h200", 3)
    assert cli.main(["compare", str(new)]) == 1


@pytest.mark.parametrize("spoil", ["absent", "no environment", "samples"])
def test_what_is_no_run_is_refused(tmp_path, spoil, capsys):
    new, old = make_run(tmp_path / "new", 1), tmp_path / "old"
    if spoil != "absent":
        make_run(old, 2)
    if spoil == "no environment":
        (old / "environment.json").unlink()
    if spoil == "samples":
        (old / "samples.t.parquet").write_bytes(b"half a file")
    assert cli.main(["compare", str(new), str(old)]) == 2
    assert capsys.readouterr().out.startswith("predis-lab: ")
    assert not (new / "comparison.json").exists()
