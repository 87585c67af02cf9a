"""The store of a run: what survives the way to disk and back, and what is refused before it."""

import doctest
import json
import math
import multiprocessing

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predis_lab.bench import results
from predis_lab.bench.statistics import median_interval

PARAMS = st.dictionaries(
    st.sampled_from(["n", "size", "mode", "tuned"]),
    st.integers(-(2**40), 2**40) | st.text(max_size=5) | st.booleans(),
)
ROWS = st.lists(
    st.tuples(
        st.text(min_size=1, max_size=8),
        st.text(min_size=1, max_size=8),
        PARAMS,
        st.integers(0, 1000),
        st.sampled_from(["throughput", "latency_p99"]),
        st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from(results.UNITS),
    ),
    max_size=20,
)


@pytest.fixture
def run(tmp_path):
    return results.Run.open(tmp_path / "run", notebook="t")


def sample(run, params=None, value=1.0, **changes):
    row = {"system": "a", "workload": "w", "block": 0, "metric": "m", "unit": "1/s"} | changes
    run.add_sample(params=params or {}, value=value, **row)


def test_examples_hold():
    failed, attempted = doctest.testmod(results)
    assert attempted and not failed


# ---- Samples


@settings(deadline=None, max_examples=30)
@given(rows=ROWS)
def test_samples_come_back(tmp_path_factory, rows):
    run = results.Run.open(tmp_path_factory.mktemp("run"), notebook="t")
    for row in rows:
        run.add_sample(*row)
    run.save()
    for frame in (results.read_samples(run.directory), run.frame()):
        assert len(frame) == len(rows)
        for (system, workload, params, block, metric, value, unit), row in zip(
            rows, frame.to_dict("records"), strict=True
        ):
            assert row["run"] == run.directory.name
            assert (row["system"], row["workload"], row["block"]) == (system, workload, block)
            assert (row["metric"], row["value"], row["unit"]) == (metric, value, unit)
            assert json.loads(row["params"]) == params
            assert list(json.loads(row["params"])) == sorted(params)
            for name, parameter in params.items():
                assert row[name] == parameter


def test_params_become_columns_and_are_missing_where_they_were_not_given(run):
    sample(run, {"n": 3})
    sample(run, {"size": 64})
    frame = run.frame()
    assert frame.n.iloc[0] == 3 and pd.isna(frame.n.iloc[1])
    assert pd.isna(frame["size"].iloc[0]) and frame["size"].iloc[1] == 64


@pytest.mark.parametrize("name", results.SCHEMA.names)
def test_params_can_not_be_called_like_columns(run, name):
    with pytest.raises(results.ResultError, match="names of their own"):
        sample(run, {"n": 1, name: 2})
    assert not run.rows


def test_a_run_without_samples(run):
    run.save()
    assert list(results.read_samples(run.directory).columns) == results.SCHEMA.names
    assert len(results.read_samples(run.directory)) == 0
    assert results.read_figures(run.directory) == {}


def test_a_folder_that_is_no_run(tmp_path):
    assert len(results.read_samples(tmp_path)) == 0
    assert results.read_figures(tmp_path) == results.read_environment(tmp_path) == {}


def test_saving_again_replaces(run):
    sample(run)
    run.add_figure("f", 1.0, "s")
    run.save()
    again = results.Run.open(run.directory, notebook="t")
    sample(again, value=2.0)
    again.add_figure("f", 2.0, "s")
    again.save()
    assert results.read_samples(run.directory).value.tolist() == [2.0]
    assert results.read_figures(run.directory)["f"]["value"] == 2.0


# ---- Figures


def test_an_interval_becomes_a_figure(run):
    interval = median_interval([3.0, 1.0, 2.0, 5.0, 4.0])
    run.add_interval("f", interval, "B/s", ceiling=10.0)
    run.save()
    assert results.read_figures(run.directory)["f"] == {
        "value": 3.0, "low": interval.low, "high": interval.high,
        "n": 5, "unit": "B/s", "ceiling": 10.0,
    }  # fmt: skip


@pytest.mark.parametrize("part", ["low", "high", "ceiling"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_every_part_of_a_figure_is_finite(run, part, value):
    with pytest.raises(results.ResultError, match="no measurement"):
        run.add_figure("f", 1.0, "s", **{part: value})
    assert not run.figures


@pytest.mark.parametrize("unit", ["ms", "us", "GB/s", "ops/s", "", "%", "S"])
def test_units_are_base_units(run, unit):
    with pytest.raises(results.ResultError, match="a unit is one of"):
        run.add_figure("f", 1.0, unit)
    with pytest.raises(results.ResultError, match="a unit is one of"):
        sample(run, unit=unit)


@pytest.mark.parametrize("unit", results.UNITS)
def test_base_units_are_taken(run, unit):
    run.add_figure("f", 1.0, unit)
    sample(run, unit=unit)
    assert run.figures["f"]["unit"] == run.frame().unit[0] == unit


@pytest.mark.parametrize("kind", [int, float, np.float64, np.float32, np.int64])
def test_numpy_numbers_are_numbers(run, kind):
    run.add_figure("f", kind(3), "1", low=kind(2), high=kind(4), n=kind(5), ceiling=kind(6))
    sample(run, value=kind(3))
    run.save()
    assert results.read_figures(run.directory)["f"] == {
        "value": 3, "low": 2, "high": 4, "n": 5, "unit": "1", "ceiling": 6,
    }  # fmt: skip
    assert results.read_samples(run.directory).value.tolist() == [3.0]


# ---- Several notebooks, one folder


def test_notebooks_in_one_folder_keep_each_others_results(tmp_path):
    one = results.Run.open(tmp_path, notebook="one")
    two = results.Run.open(tmp_path, notebook="two")
    for run in (one, two):
        sample(run, {run.notebook: 1}, workload=run.notebook)
        run.add_figure(f"{run.notebook}_rate", 1.0, "1/s")
    one.save()
    two.save()
    one.add_figure("one_more", 2.0, "1/s")
    one.save()
    assert set(results.read_figures(tmp_path)) == {"one_rate", "one_more", "two_rate"}
    assert sorted(results.read_samples(tmp_path).workload) == ["one", "two"]


def save_often(directory, notebook, gate):
    with pytest.MonkeyPatch.context() as patch:
        machine = {"recorded_at": "now", "commit": "c"}
        patch.setattr(results, "describe_machine", lambda: dict(machine))  # slow, and not the point
        gate.wait()
        for number in range(50):
            run = results.Run.open(directory, notebook=f"{notebook}{number}")
            run.add_figure(run.notebook, number, "1")
            run.save([{"name": run.notebook}])


def test_notebooks_may_save_to_one_folder_at_the_same_time(tmp_path):
    context = multiprocessing.get_context("fork")
    gate = context.Barrier(2)
    saving = [context.Process(target=save_often, args=(tmp_path, name, gate)) for name in "ab"]
    for process in saving:
        process.start()
    for process in saving:
        process.join(60)
        assert process.exitcode == 0
    expected = {f"{name}{number}" for name in "ab" for number in range(50)}
    assert set(results.read_figures(tmp_path)) == expected
    environment = results.read_environment(tmp_path)
    assert set(environment["notebooks"]) == set(environment["servers"]) == expected


def test_servers_of_all_notebooks_are_remembered(tmp_path):
    def save(notebook, *servers):
        results.Run.open(tmp_path, notebook=notebook).save(servers=iter(servers))
        return results.read_environment(tmp_path)["servers"]

    assert save("one", {"name": "redis", "version": "8"}) == {
        "redis": {"name": "redis", "version": "8"}
    }
    assert set(save("two", {"name": "valkey", "version": "9"})) == {"redis", "valkey"}
    assert set(save("three")) == {"redis", "valkey"}
    assert save("two", {"name": "redis", "version": "9"})["redis"]["version"] == "9"


def test_the_environment_says_what_it_ran_on(run):
    run.save()
    environment = results.read_environment(run.directory)
    assert {"recorded_at", "commit", "python", "packages", "cpu", "cores", "gpu"} <= set(
        environment
    )
    assert environment["memory_nbytes"] > 0 and environment["cores"] > 0
    assert environment["packages"]["numpy"] == np.__version__


# ---- Folders


def test_an_interactive_run_has_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "OUTPUTS", tmp_path)
    assert results.Run.open("", notebook="t").directory == tmp_path / "interactive"
    assert (tmp_path / "interactive").is_dir()


def test_run_ids_sort_by_time():
    assert pd.to_datetime(results.new_run_id(), format="%Y%m%dT%H%M%SZ").year >= 2026
    assert results.new_run_id() <= results.new_run_id()


def test_the_reference_is_the_last_run_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "REFERENCE", tmp_path / "reference")
    assert results.reference_directory() is None
    for name in ("h200", "a100", "h100"):
        results.Run.open(tmp_path / "reference" / name, notebook="t").save()
    (tmp_path / "reference" / "z-without-figures").mkdir()
    assert results.reference_directory() == tmp_path / "reference" / "h200"
