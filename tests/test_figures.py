"""The figures draw what they are given, all of it, and nothing where there is nothing."""

import numpy as np
import pytest

from predis_lab.bench import harness, results
from predis_lab.report import comparison, figures, show

RECORDS = "fixed 16+64 B"
GPU = [
    "predis-cuda columns",
    "predis-cuda lists",
    "redis mget unix",
    "redis mget tcp",
    "redis pipeline unix",
    "valkey mget unix",
]


@pytest.fixture
def samples(tmp_path):
    """Two workloads at three numbers of keys, for six systems; the second system only once in a cell."""
    run = results.Run.open(tmp_path, notebook="t")
    generator = np.random.default_rng(1)
    for workload in ("get", "set"):
        for keys in (10, 100, 1000):
            params = {"records": RECORDS, "keys": keys, "value_nbytes": 64}
            for speed, system in enumerate(GPU, 1):
                for block in range(12):
                    rate = 1e5 * keys / speed * (1 + 0.01 * generator.random())
                    run.add_sample(system, workload, params, block, "throughput", rate, "1/s")
                for name, seconds in (("p50", 1e-5), ("p95", 2e-5), ("p99", 4e-5)):
                    metric = f"pooled_latency_{name}"
                    run.add_sample(
                        system, workload, params, harness.ALL_BLOCKS, metric, seconds * speed, "s"
                    )
    return run.frame()


STORED = {
    "limit_copy": {"value": 4e12, "low": 3.9e12, "high": 4.1e12, "unit": "B/s", "n": 5, "ceiling": 5e12},
    "find": {"value": 7e9, "low": 6.9e9, "high": 7.1e9, "unit": "1/s", "n": 5, "ceiling": 2e10},
    "erase": {"value": 9e9, "low": 8.9e9, "high": 9.1e9, "unit": "1/s", "n": 5},
    "elsewhere": {"value": 1.0, "low": 1.0, "high": 1.0, "unit": "1/s", "n": 5},
}  # fmt: skip
LABELS = {"limit_copy": "a copy", "find": "a find", "erase": "an erase", "absent": "not measured"}


def axes_of(figure):
    figure.draw_without_rendering()
    (axes,) = figure.axes
    return axes


def words(axes):
    return [text.get_text() for text in axes.texts]


def tick_labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_rates_have_a_line_per_way_of_asking_and_a_point_per_cell(samples):
    axes = axes_of(figures.rates_by_keys(samples, "get", RECORDS))
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert set(lines) == {
        "Predis, columns",
        "Predis, lists",
        "Redis, one command",
        "Redis, pipeline",
        "Valkey, one command",
    }
    for line in lines.values():
        assert line.get_xdata().tolist() == [10, 100, 1000]
    assert lines["Predis, columns"].get_ydata()[0] == pytest.approx(1e6, rel=0.02)
    assert lines["Redis, one command"].get_ydata()[0] == pytest.approx(1e6 / 3, rel=0.02)  # unix
    assert len({line.get_color() for line in lines.values()}) == 5
    assert len({line.get_marker() for line in lines.values()}) == 5


def test_rates_by_size(samples):
    axes = axes_of(figures.rates_by_size(samples, "set", 100))
    assert {tuple(line.get_xdata()) for line in axes.get_lines()} == {(64,)}


def test_latencies_name_every_system_and_percentile(samples):
    axes = axes_of(figures.latencies(samples, "get", RECORDS, 100))
    said = words(axes)
    assert said.count("p50") == said.count("p95") == said.count("p99") == 5
    assert "p99.9" not in said  # of which there is none
    assert said.count("Valkey, one command") == 1


def test_ratios_are_hollow_where_nothing_is_claimed(samples):
    cells = samples[samples["workload"] == "get"]
    pairs = [("predis-cuda columns", "redis mget"), ("predis-cuda lists", "redis pipeline")]
    for floor, face in ((0.0, "#0072B2"), (9.0, "white")):
        table = comparison.against(cells, pairs, noise_floor=floor)
        axes = axes_of(figures.ratios(table, "title"))
        marks = [line for line in axes.get_lines() if line.get_marker() == "o"]
        assert [mark.get_markerfacecolor() for mark in marks] == [face] * 3
        assert [float(mark.get_ydata()[0]) for mark in marks] == pytest.approx([3] * 3, rel=0.02)


def test_shares_leave_out_what_has_no_ceiling():
    axes = axes_of(figures.shares(STORED, LABELS, "title"))
    assert tick_labels(axes.yaxis) == ["a find", "a copy"]
    assert words(axes) == ["7.00 G/s · 35%", "4.00 TB/s · 80%"]


def test_bars_mark_the_ceilings_there_are():
    axes = axes_of(figures.bars(STORED, {"find": "a find", "erase": "an erase"}, "title", "1/s"))
    assert tick_labels(axes.yaxis) == ["an erase", "a find"]
    assert words(axes) == ["9.00 G/s", "7.00 G/s"]
    assert sorted(bar.get_width() for bar in axes.patches) == [7e9, 9e9]


@pytest.mark.parametrize("draw", [figures.shares, lambda *a: figures.bars(*a, "1/s")])
def test_nothing_to_draw(draw):
    assert not axes_of(draw({}, LABELS, "title")).patches


def test_an_unknown_system_has_no_look():
    with pytest.raises(KeyError):
        figures.look("memcached get")


def test_a_figure_is_the_same_file_every_time(samples, tmp_path):
    for name in ("a.svg", "b.svg"):
        figures.save(figures.rates_by_keys(samples, "get", RECORDS), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


# ---- Beside figures


def test_figures_in_a_table():
    html = show.figures(STORED, LABELS).data
    assert "7.00 [6.90, 7.10] G/s" in html and "20.0 G/s" in html and "35%" in html
    assert "an erase" in html and "not measured" not in html


def test_latencies_in_a_table(samples):
    html = show.latencies(samples, "get", RECORDS, 100).data
    assert "10.0 µs" in html and html.count("<tr>") == 6


def test_a_verdict_names_every_number_of_keys(samples):
    table = comparison.against(samples, comparison.default_pairs(samples))
    text = show.verdict(table).data
    assert len(text.splitlines()) == 2 * 2 * 2  # verbs, faces, ways
    assert all(f"at {keys}" in text for keys in ("10 ", "100 ", "1,000 "))
    assert show.tally(table).data == f"Of {len(table)} comparisons: {len(table)} faster."


def test_without_a_gpu_the_recorded_run_speaks(tmp_path, monkeypatch):
    recorded = results.Run.open(tmp_path / "gpu", notebook="t")
    recorded.add_figure("find", 7e9, "1/s")
    recorded.save()
    environment = results.read_environment(recorded.directory)
    environment["gpu"] = {"name": "Some GPU"}
    results._write_json(recorded.directory / "environment.json", environment)
    monkeypatch.setattr(show, "reference_directory", lambda: recorded.directory)
    run = results.Run.open(tmp_path / "here", notebook="t")
    stored, banner = show.measured_or_recorded(run, on_gpu=False)
    assert stored["find"]["value"] == 7e9
    assert "not measured here" in banner.data and "Some GPU" in banner.data
    assert show.measured_or_recorded(run, on_gpu=True)[0] is run.figures
    monkeypatch.setattr(show, "reference_directory", lambda: None)
    assert show.measured_or_recorded(run, on_gpu=False)[0] == {}
