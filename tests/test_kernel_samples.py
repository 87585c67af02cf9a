"""What notebooks 01 and 02 measure: complete, positive, checked against what was stored, and read back by name."""

import numpy as np
import pytest

from predis_lab.bench import kernel_samples, launch_settings, results
from predis_lab.gpu.ladder import RUNGS

SCRUB = 2**16


@pytest.fixture
def run(tmp_path):
    return results.Run.open(tmp_path / "run", notebook="t")


def ladder_of(run, *, rate=1e9):
    """Samples as `ladder_rates` leaves them: v1, v2 and v6, the winner and the ceiling."""
    for workload, kernel in kernel_samples.WORKLOADS.items():
        for size, batch in ((64, 100), (64, 1000), (256, 1000)):
            if size == 256 and workload != "find":
                continue
            cell = {"batch": batch, "value_nbytes": size, "records": 5000}
            for speed, system in enumerate(("v1", "v2", "v6", "winner", "ceiling"), 1):
                if system in RUNGS and kernel not in RUNGS[system].operations:
                    continue
                for block in range(4):
                    value = rate * speed * (1 + 0.001 * block)
                    run.add_sample(system, workload, cell, block, "throughput", value, "1/s")
    return kernel_samples.ladder_samples(run.frame())


def test_cells_are_value_sizes_and_batches(run):
    samples = ladder_of(run)
    assert kernel_samples.cells(samples, "find") == [(64, 100), (64, 1000), (256, 1000)]
    assert kernel_samples.cells(samples, "erase") == [(64, 100), (64, 1000)]
    assert kernel_samples.main_cell(samples, "find") == (64, 1000)
    assert kernel_samples.rungs_of(samples, "erase") == ["v1", "v2"]
    assert kernel_samples.rungs_of(samples, "find") == ["v1", "v2", "v6"]


def test_a_rung_that_changes_nothing_is_as_fast_as_its_parent(run):
    """v6 leaves erase as v5 has it; v5, v4 and v3 were not measured here, and are not guessed at."""
    samples = ladder_of(run)
    assert len(kernel_samples.rates(samples, "v6", "erase", (64, 1000))) == 0
    run.add_sample(
        "v5",
        "erase",
        {"batch": 1000, "value_nbytes": 64, "records": 5000},
        0,
        "throughput",
        7.0,
        "1/s",
    )
    samples = kernel_samples.ladder_samples(run.frame())
    assert kernel_samples.rates(samples, "v6", "erase", (64, 1000)).tolist() == [7.0]


def test_the_winner_over_v1_is_recorded_for_every_verb(run):
    kernel_samples.record_winner(run, ladder_of(run))
    assert set(run.figures) == {"k4_find", "k4_insert", "k4_update", "k4_erase"}
    ratio = run.figures["k4_find"]
    assert ratio["value"] == pytest.approx(4, rel=0.01) and ratio["unit"] == "1" and ratio["n"] == 4
    assert ratio["low"] <= ratio["value"] <= ratio["high"]


def test_samples_come_from_this_run_or_from_the_recorded_one(run, tmp_path, monkeypatch):
    recorded = results.Run.open(tmp_path / "gpu", notebook="t")
    ladder_of(recorded)
    recorded.save()
    monkeypatch.setattr(kernel_samples, "reference_directory", lambda: recorded.directory)
    keep = kernel_samples.ladder_samples
    assert len(kernel_samples.samples_of(run, True, keep)) == 0
    assert len(kernel_samples.samples_of(run, False, keep)) == len(recorded.rows)
    assert len(kernel_samples.samples_of(run, False, kernel_samples.sweep_samples)) == 0
    monkeypatch.setattr(kernel_samples, "reference_directory", lambda: None)
    assert len(kernel_samples.samples_of(run, False, keep)) == 0


# ---- On a GPU


@pytest.mark.gpu
def test_the_ladder_is_measured(run):
    from predis_lab.bench.ladder_rates import compile_rungs, ladder_rates

    shares, done = [], []
    options = {"records": 3000, "repeats": 3, "scrub_nbytes": SCRUB, "progress": shares.append}
    compile_rungs(["v1", "v6", "v7"], done.append)
    assert sum(done) == pytest.approx(1)
    ladder_rates(run, ["v1", "v6", "v7"], [64, 256], [100, 1000], **options)
    samples = kernel_samples.ladder_samples(run.frame())
    assert len(samples) == len(run.rows) and len(shares) == 2 * 4
    assert np.isfinite(samples["value"]).all() and (samples["value"] > 0).all()
    counted = samples.groupby(["system", "workload", "value_nbytes", "batch"])["value"].count()
    assert set(counted) == {3}
    for system in ("v1", "v7", "winner", "ceiling"):
        assert set(counted[system].index) == {
            *((verb, 64, batch) for verb in kernel_samples.WORKLOADS for batch in (100, 1000)),
            *(("find", 256, batch) for batch in (100, 1000)),
        }
    assert ("erase", 64, 100) not in counted["v6"].index
    kernel_samples.record_winner(run, samples)
    assert len(run.figures) == 4


@pytest.mark.gpu
def test_launch_settings_are_measured(run):
    from predis_lab.bench.occupancy_rates import compile_settings, occupancy_rates
    from predis_lab.gpu import modules

    usual = launch_settings.usual("find_dense", modules.multiprocessor())
    settings = {
        "find_dense": launch_settings.in_flight(
            usual, [1, usual.pieces], [1, usual.rounds], [0.75]
        ),
        "publish": launch_settings.blocks_by_registers(usual, [128, 256], [0.5]),
    }
    assert len(settings["find_dense"]) == 4
    options = {"records": 3000, "batch": 700, "repeats": 3, "scrub_nbytes": SCRUB}
    compile_settings(settings)
    occupancy_rates(run, settings, **options)
    samples = kernel_samples.sweep_samples(run.frame())
    assert len(samples) == len(run.rows) == 3 * (4 + 2)
    assert (samples["value"] > 0).all() and samples["occupancy"].between(0, 1).all()
    assert set(samples["threads"]) == {128, 256} and set(samples["pieces"]) == {1, usual.pieces}
    assert not len(kernel_samples.ladder_samples(run.frame()))
