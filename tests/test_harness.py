"""Trials and their store: what is counted, in which order, and what survives."""

import json

import numpy as np
import pytest

from predis_lab.bench import harness, results


def contestant(system, log, operations=1, **options):
    return harness.Contestant(system, lambda: log.append(system), operations, **options)


def test_each_round_runs_everyone_once_in_changing_order(tmp_path):
    log = []
    run = results.Run.open(tmp_path, notebook="t")
    ran, shares = [], []

    def count(share):
        ran.append(log[-1])
        shares.append(share)

    people = [contestant(system, log) for system in "abc"]
    harness.measure(
        people, run=run, workload="w", params={}, blocks=12, block_seconds=0.001,
        progress=count,
    )  # fmt: skip
    assert sum(shares) == pytest.approx(12)  # rounds
    orders = [tuple(ran[i : i + 3]) for i in range(0, len(ran), 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert len(set(orders)) > 1
    frame = run.frame()
    counts = frame[frame.metric == "throughput"].groupby("system").block.nunique()
    assert counts.to_dict() == {"a": 12, "b": 12, "c": 12}


def test_operations_are_counted_per_call(tmp_path):
    run = results.Run.open(tmp_path, notebook="t")
    harness.measure(
        [contestant("a", [], operations=1000)],
        run=run,
        workload="w",
        params={"n": 5},
        blocks=3,
        block_seconds=0.001,
    )
    frame = (
        run.frame().query("block >= 0").pivot_table(index="block", columns="metric", values="value")
    )
    assert np.allclose(frame["throughput"] * frame["latency_mean"], 1000)
    assert set(run.frame()["n"]) == {5}


def test_wrong_answers_are_found_before_anything_is_timed(tmp_path):
    log = []

    def wrong():
        raise AssertionError("wrong answers")

    with pytest.raises(AssertionError, match="wrong answers"):
        harness.measure(
            [contestant("a", log, check=wrong)], run=results.Run.open(tmp_path, notebook="t"),
            workload="w", params={}, blocks=2, block_seconds=0.001,
        )  # fmt: skip
    assert log == []


def test_percentiles_need_enough_calls(tmp_path):
    run = results.Run.open(tmp_path, notebook="t")
    few = harness.Contestant("few", lambda: [None for _ in range(200_000)])
    many = harness.Contestant("many", lambda: None)
    harness.measure([few, many], run=run, workload="w", params={}, blocks=2, block_seconds=0.02)
    metrics = run.frame().groupby("system").metric.unique()
    assert "latency_p99" not in metrics["few"]
    assert "latency_p99.9" in metrics["many"]


def test_histograms_hold_every_call():
    latencies = np.random.default_rng(0).integers(100, 10**7, 5000)
    histogram = harness.histogram_of(latencies)
    assert histogram.get_total_count() == 5000
    for percentile in (50, 95, 99):
        expected = np.percentile(latencies, percentile, method="inverted_cdf")
        assert histogram.get_value_at_percentile(percentile) == pytest.approx(expected, rel=2e-3)


def test_comparisons_join_what_both_were_measured_at(tmp_path):
    run = results.Run.open(tmp_path, notebook="t")
    generator = np.random.default_rng(0)
    for block in range(12):
        for n, factor in ((10, 2.0), (100, 0.5)):
            run.add_sample(
                "new",
                "get",
                {"n": n},
                block,
                "throughput",
                factor * generator.normal(100, 1),
                "1/s",
            )
            run.add_sample(
                "old", "get", {"n": n}, block, "throughput", generator.normal(100, 1), "1/s"
            )
        run.add_sample("new", "get", {"n": 1000}, block, "throughput", 1.0, "1/s")
    table = harness.comparison_table(
        run.frame(), candidate="new", baseline="old", by=["workload", "n"]
    )
    assert dict(zip(table.n, table.verdict, strict=True)) == {10: "faster", 100: "slower"}


def test_a_run_holds_what_several_notebooks_wrote(tmp_path):
    for notebook in ("one", "two"):
        run = results.Run.open(tmp_path, notebook=notebook)
        run.add_sample("a", notebook, {"b": 1, "a": "x"}, 0, "throughput", 1.5, "1/s")
        run.add_figure(f"{notebook}_rate", 1.5, "1/s", low=1.0, high=2.0, n=3, ceiling=4.0)
        run.save(servers=[{"name": notebook}])
    assert set(results.read_figures(tmp_path)) == {"one_rate", "two_rate"}
    assert results.read_figures(tmp_path)["one_rate"] == {
        "value": 1.5, "unit": "1/s", "low": 1.0, "high": 2.0, "n": 3, "ceiling": 4.0,
    }  # fmt: skip
    frame = results.read_samples(tmp_path)
    assert sorted(frame.workload) == ["one", "two"] and set(frame.a) == {"x"}
    assert json.loads(frame.params.iloc[0]) == {"a": "x", "b": 1}
    environment = results.read_environment(tmp_path)
    assert environment["cores"] > 0 and set(environment["servers"]) == {"one", "two"}
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


@pytest.mark.parametrize(
    ("value", "unit"), [(float("nan"), "s"), (float("inf"), "s"), (1.0, "ms"), (1.0, "")]
)
def test_what_is_no_measurement_is_refused(tmp_path, value, unit):
    run = results.Run.open(tmp_path, notebook="t")
    with pytest.raises(results.ResultError):
        run.add_figure("f", value, unit)
    with pytest.raises(results.ResultError):
        run.add_sample("a", "w", {}, 0, "m", value, unit)
    assert not run.figures and not run.rows
