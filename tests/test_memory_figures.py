"""Figures, tables and sentences of notebook 05: what they are given, all of it; a plain line where that is nothing."""

import nbformat
import numpy as np
import pytest

from predis_lab.bench import memory_samples, results, soak
from predis_lab.bench.memory_samples import Churn, RecordCost, Step
from predis_lab.report import figures, memory_figures, memory_show, runner

GIB = 2**30


@pytest.fixture
def run(tmp_path):
    """A run with everything that notebook 05 measures."""
    run = results.Run.open(tmp_path, notebook="05_memory_pools")
    run.add_figure(f"capacity_taken_{8 * GIB}", 0.998 * 8 * GIB, "B", ceiling=8 * GIB)
    run.add_figure(f"capacity_taken_{2**26}", 1.03 * 2**26, "B", ceiling=2**26)
    parts = {
        "payload": 80,
        "header": 16,
        "padding": 0,
        "index": 10,
        "dead": 0,
        "buffers": 4,
        "unwritten": 3.5,
    }
    n = 10**6
    parts = {part: int(n * nbytes) for part, nbytes in parts.items()}
    cost = RecordCost(GIB, n, sum(parts.values()), parts)
    memory_samples.record_cost(run, cost)
    for share, seconds in ((0.5, 1e-3), (0.9, 2e-3)):
        steps = [Step(seconds * (1 + i / 50), int(share * 2**26), int((1 - share) * 2**26)) for i in range(9)]  # fmt: skip
        memory_samples.record_steps(run, share, 256, [*steps, Step(1e-4, 0, 2**20)])
    latencies = {"quiet": [1e-5] * 99 + [1e-4], "compacting": [2e-5] * 99 + [3e-3]}
    memory_samples.record_readers(run, latencies)
    for holder, ratio, failures in (("arena", 1.1, 0), ("default_pool", 1.4, 7)):
        live = [10**6 * min(turn, 20) for turn in range(1, 60)]
        held = [int(ratio * nbytes) for nbytes in live]
        churn = Churn(holder, live, held, [1e-6] * 50 + [2e-3], failures)
        memory_samples.record_churn(run, churn, {"capacity": GIB})
    readings = [
        {"elapsed": t / 10, "live": 9e8, "log_used": 9.6e8, "index": 1e6, "device": 1.1e9, "pool": 1.5e9,
         "compactions": t, "failures": 0, "full": True}
        for t in range(60)
    ]  # fmt: skip
    soaked = soak.Soaked(readings, 6.0, 400, 0, 0, 90_000, 10**11, 0.97)
    soak.record(run, soaked, {"capacity": GIB})
    return run


def drawn(described):
    """The figure's axes; its words say something."""
    assert isinstance(described, figures.Described) and described.alt.endswith(".")
    described.figure.draw_without_rendering()
    return described.figure.axes


def test_capacities_are_shares_of_what_was_asked_for(run):
    (axes,) = drawn(memory_figures.capacities(run.figures))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["8 GiB", "64 MiB"]
    text = memory_show.capacity_verdict(run.figures).data
    assert "furthest off is 64 MiB with 103.0%" in text and text.endswith("**no**.")
    kept = {name: entry for name, entry in run.figures.items() if name.endswith(str(8 * GIB))}
    assert memory_show.capacity_verdict(kept).data.endswith("**yes**.")
    html = memory_show.arithmetic([8 * GIB, 2**26]).data
    assert ">126 MiB<" in html and ">65<" in html and ">31<" in html


def test_the_parts_of_a_record_add_up(run):
    (axes,) = drawn(memory_figures.record_parts(run.figures))
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == pytest.approx([80, 16, 10, 4, 3.5]) and axes.get_xlim()[1] > 120
    text = memory_show.record_verdict(run.figures).data
    assert "**33.5 B** beyond its own 80, within the goal of 40 B" in text and "80% full" in text
    run.figures["record_overhead"]["value"] = 41.0
    assert "beyond the goal" in memory_show.record_verdict(run.figures).data


def test_holders_are_compared_once_they_are_full(run):
    samples = memory_samples.churn_samples(run.frame())
    (axes,) = drawn(memory_figures.churn(samples))
    lines = {line.get_label(): line.get_ydata() for line in axes.get_lines()}
    assert lines["the cache's log"][-1] == pytest.approx(1.1)
    assert lines["CuPy's default pool"][-1] == pytest.approx(1.4)
    html = memory_show.churn_table(run.figures).data
    assert html.count("<tr>") == 3 and "2.00 ms" in html and ">7<" in html
    text = memory_show.churn_verdict(run.figures).data
    assert text.index("the cache's log 1.10") < text.index("CuPy's default pool 1.40")
    assert "7 refused" in text and "async" not in text
    churn = Churn("arena", [1, 50, 100, 100], [90, 90, 120, 110])
    assert churn.held_over_live == pytest.approx([1.2, 1.1])


def test_compaction_is_told_by_live_share(run):
    samples = memory_samples.step_samples(run.frame())
    assert len(samples) == 20 and set(samples["live"]) == {0.5, 0.9}
    (axes,) = drawn(memory_figures.compaction(samples))
    moved, freed = axes.get_lines()
    assert moved.get_xdata() == pytest.approx([0.5, 0.9])
    assert moved.get_ydata() == pytest.approx([0.5 * 2**26 / 1.08e-3, 0.9 * 2**26 / 2.16e-3], 1e-2)
    assert freed.get_ydata()[0] > 5 * freed.get_ydata()[1]
    lines = memory_show.compaction_verdict(run.figures).data.splitlines()
    assert [line[:6] for line in lines] == ["- 50 %", "- 90 %"] and "a step takes 2.16" in lines[1]
    (axes,) = drawn(memory_figures.readers(run.figures))
    assert len(axes.get_yticks()) == 2
    text = memory_show.reader_verdict(run.figures).data
    assert "p50 10.0 µs → 20.0 µs" in text and "100 lookups each" in text


def test_a_soak_is_judged_by_all_of_it(run):
    samples = memory_samples.soak_samples(run.frame())
    above, below = drawn(memory_figures.soak(samples))
    assert len(samples) == 60 and len(above.get_lines()) == 2 and len(below.get_lines()) == 2
    for line in below.get_lines():  # none leaves the axes
        assert max(line.get_ydata()) < below.get_ylim()[1]
    text = memory_show.soak_verdict(run.figures).data
    assert "97.0% of the log's" in text and text.endswith("**Passed.**")
    for name, value in (
        ("failures", 1),
        ("wrong", 2),
        ("growth", 2**21),
        ("utilisation", 0.84),
        ("full", 0.3),
    ):
        entry = run.figures[f"soak_{name}"]
        before, entry["value"] = entry["value"], value
        assert memory_show.soak_verdict(run.figures).data.endswith("**Not passed.**"), name
        entry["value"] = before


def test_an_image_keeps_its_words_on_the_page(run, tmp_path):
    described = memory_figures.capacities(run.figures)
    data, metadata = described._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG")
    assert metadata["image/png"]["alt"] == described.alt
    output = nbformat.v4.new_output(
        "display_data",
        data={"image/png": "iVBORw0K\n"},
        metadata={"image/png": {"alt": 'a "b" <c'}},
    )
    cell = nbformat.v4.new_code_cell("1", outputs=[output])
    notebook = tmp_path / "t.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), notebook)
    page = runner.page(notebook)
    assert "data:image/png;base64,iVBORw0K" in page and "No description" not in page
    assert 'alt="a &quot;b&quot; &lt;c"' in page or "alt='a \"b\" &lt;c'" in page


def test_nothing_is_said_plainly(tmp_path, monkeypatch):
    run = results.Run.open(tmp_path, notebook="05_memory_pools")
    for keep in (memory_samples.churn_samples, memory_samples.step_samples, memory_samples.soak_samples):  # fmt: skip
        assert len(keep(run.frame())) == 0
    for told in (
        memory_show.capacity_verdict,
        memory_show.record_verdict,
        memory_show.churn_table,
        memory_show.churn_verdict,
        memory_show.compaction_verdict,
        memory_show.reader_verdict,
        memory_show.soak_verdict,
    ):
        assert told({}).data == memory_show.NOTHING
    # A recorded run of other notebooks says nothing of this one.
    other = {"find_64v": {"value": 1.0}}
    monkeypatch.setattr(memory_show, "measured_or_recorded", lambda *_: (other, "recorded"))
    found, source = memory_show.measured(run, False)
    assert found == {} and memory_show.NOTHING in source.data
    other["record_overhead"] = {"value": 30.0}
    assert memory_show.measured(run, False) == (other, "recorded")


def test_percentiles_end_with_the_longest():
    assert list(memory_samples.PERCENTILES)[-1] == "max"
    assert np.percentile([1, 2, 9], memory_samples.PERCENTILES["max"]) == 9


def test_the_tiers_are_held_against_their_aims():
    stored = {
        "tier_uniform_bandwidth": {"value": 45e9, "low": 44e9, "high": 46e9, "unit": "B/s", "n": 7, "ceiling": 55e9},
        "tier_uniform_promoting": {"value": 50e9, "low": 49e9, "high": 51e9, "unit": "B/s", "n": 7, "ceiling": 55e9},
        "tier_zipf_share": {"value": 0.81, "low": 0.8, "high": 0.82, "unit": "1", "n": 7},
    }  # fmt: skip
    text = memory_show.tiers_verdict(stored).data
    first, second, third = text.splitlines()
    assert "82% of an upload" in first and first.endswith("not reached.")
    assert "91% of an upload" in second and second.endswith("aim, reached.")
    assert "**81%**" in third and third.endswith("aim, reached.")
    gathered = {"value": 48e9, "low": 47e9, "high": 49e9, "unit": "B/s", "n": 7, "ceiling": 55e9}
    text = memory_show.tiers_verdict(stored | {"tier_gather": gathered}).data
    assert "87% of the upload; the lookup reaches 94% of that." in text.splitlines()[2]
    del stored["tier_zipf_share"]
    assert memory_show.tiers_verdict(stored).data == memory_show.NOTHING
