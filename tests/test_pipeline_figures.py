"""Figures, tables and sentences of notebook 04: what they are given, all of it; a plain line where that is nothing."""

import numpy as np
import pytest
from IPython.display import Markdown

from predis_lab.bench import pipeline_samples as measured
from predis_lab.bench import results
from predis_lab.report import kernel_show, pipeline_figures, pipeline_show

LINK = {"up": 55e9, "down": 55e9, "both": 100e9}
CALL = "pipeline_find_64v"


def add(run, system, workload, params, metric, unit, value, blocks=3):
    for block in range(blocks):
        run.add_sample(system, workload, params, block, metric, value * (1 + 0.01 * block), unit)


@pytest.fixture
def run(tmp_path):
    """A little of everything that notebook 04 leaves."""
    run = results.Run.open(tmp_path, notebook="t")
    for nbytes in (2**10, 2**16, 2**22, 2**28):
        for kind, best, wait in (("pinned", 55e9, 9e-6), ("pageable", 9e9, 2e-5), ("zero-copy", 45e9, 3e-6)):  # fmt: skip
            for direction in ("up", "down", "both") if kind == "pinned" else ("up", "down"):
                told = {"direction": direction, "nbytes": nbytes}
                rate = (2 if direction == "both" else 1) * nbytes / (wait + nbytes / best)
                add(run, kind, "transfer", told, "bandwidth", "B/s", rate)
    for streams in (1, 2, 4, 8):
        for chunk in (2**20, 2**23, 2**26):
            for kind, direction in (("pinned", "up"), ("pinned", "down"), ("pinned", "both"), ("staged", "up")):  # fmt: skip
                told = {"direction": direction, "chunk_nbytes": chunk, "streams": streams}
                rate = 10e9 if kind == "staged" else 55e9 * (1 + (streams > 1 and direction == "both"))  # fmt: skip
                rate *= chunk / (chunk + 2e5) * min(1, 0.7 + 0.3 * (streams - 1))
                add(run, kind, "chunks", told | {"nbytes": 2**28}, "bandwidth", "B/s", rate)
    leave_timeline(run)
    leave_codecs(run)
    leave_load(run)
    return run


def leave_timeline(run):
    """Four chunks; a gap before the first upload, and one at the end."""
    spans = [("call", -1, 0.0, 10e-3)]
    for chunk in range(4):
        at = 1e-3 + 2e-3 * chunk
        spans += [
            ("pack", chunk, at - 1e-3, at),
            ("upload", chunk, at, at + 1e-3),
            ("kernel", chunk, at + 1e-3, at + 1.5e-3),
            ("download", chunk, at + 1e-3, at + 2.5e-3),
        ]
    for number, (stage, chunk, start, stop) in enumerate(spans):
        told = {"call": CALL, "stage": stage, "chunk": chunk, "interval": number}
        run.add_sample("predis", "timeline", told, 0, "start", start, "s")
        run.add_sample("predis", "timeline", told, 0, "stop", stop, "s")


def leave_codecs(run):
    for codec, ratio, compress, decompress in (
        ("lz4", 2.5, 0.6e9, 3e9),
        ("snappy", 2.2, 0.5e9, 1.5e9),
        ("zstd", 4.0, 0.35e9, 1e9),
    ):
        for data, factor in (("airports", 1), ("random", 1 / ratio)):
            told = {"data": data}
            add(run, codec, "codec", told, "ratio", "1", ratio * factor)
            add(run, codec, "codec", told, "compress", "B/s", compress / factor)
            add(run, codec, "codec", told, "decompress", "B/s", decompress / factor)
    for data, bits, seconds in (("airports", 9, 1e-9), ("fixed 64 B", 0, 3e-10)):
        told = {"data": data, "bits": bits, "rows": 1000}
        for block in range(3):
            run.add_sample("numpy", "offsets", told, block, "saved", 4 - bits / 8, "B")
            run.add_sample("numpy", "offsets", told, block, "rebuild", seconds, "s")


def leave_load(run):
    noise = np.random.default_rng(0)
    for name, threads, rate in (("sustained", 1, 2.4e6), ("sustained_threads", 16, 1.4e6)):
        told = {"threads": threads, "batch": 1000, "seconds": 10.0}
        for window in range(10):
            value = rate * (1 + 0.05 * noise.random())
            run.add_sample("predis", name, told, window, "throughput", value, "1/s")
            for metric, latency in (("latency_mean", 4e-4), ("latency_p99", 2e-3)):
                run.add_sample("predis", name, told, window, metric, latency * threads**0.5, "s")
        for metric in ("p50", "p95", "p99", "p99.9", "max"):
            run.add_sample("predis", name, told, -1, f"pooled_latency_{metric}", 1e-3, "s")
        run.add_sample("predis", name, told, -1, "errors", 0, "1")
        run.add_sample("predis", name, told, -1, "operations", 10 * rate, "1")


FIGURES = {
    "pipeline_find_64v": {"value": 700e6, "low": 690e6, "high": 710e6, "ceiling": 810e6},
    "pipeline_find_1024v": {"value": 48e6, "low": 47e6, "high": 49e6, "ceiling": 53e6},
    "pipeline_insert_64v_pinned": {"value": 300e6, "low": 290e6, "high": 310e6, "ceiling": 690e6},
    "pipeline_find_64v_binary": {"value": 80e6, "low": 79e6, "high": 81e6, "ceiling": 800e6},
    "pipeline_overhead": {"value": 0.03, "low": 0.02, "high": 0.04},
}
FIGURES = {
    name: {"n": 5, "unit": "1" if name == "pipeline_overhead" else "1/s", **entry}
    for name, entry in FIGURES.items()
}


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


def lines(axes):
    return {line.get_label(): line for line in axes.get_lines()}


# ---- Figures


def test_bandwidths_have_a_panel_per_direction_and_a_line_per_kind(run):
    figure = pipeline_figures.bandwidth_by_size(measured.size_samples(run.frame()))
    figure.draw_without_rendering()
    assert titles(figure) == ["upload", "download", "both at once, summed"]
    up, _, both = figure.axes
    assert set(lines(up)) == {"pinned", "pageable", "zero-copy"} and set(lines(both)) == {"pinned"}
    assert list(lines(up)["pinned"].get_xdata()) == [2**10, 2**16, 2**22, 2**28]
    assert "256 MiB" in [label.get_text() for label in up.get_xticklabels()]


def test_chunks_have_a_panel_per_way_and_a_line_per_number_of_streams(run):
    figure = pipeline_figures.chunks(measured.chunk_samples(run.frame()))
    figure.draw_without_rendering()
    assert len(figure.axes) == 4 and titles(figure)[3] == "pageable, packed by one core"
    for axes in figure.axes:
        assert set(lines(axes)) == {"1 stream", "2 streams", "4 streams", "8 streams"}
        assert list(lines(axes)["1 stream"].get_xdata()) == [2**20, 2**23, 2**26]


def test_the_timeline_has_a_row_per_stage_a_bar_per_chunk_and_the_gaps(run):
    figure = pipeline_figures.timeline(measured.timeline_samples(run.frame()), CALL)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [*measured.STAGES, "neither link nor kernel"]
    bars = [(bar.get_y() + bar.get_height() / 2, bar.get_x(), bar.get_width()) for bar in axes.patches]  # fmt: skip
    assert len(bars) == 4 * 4 + 2
    gaps = [(start, width) for row, start, width in bars if row == pytest.approx(4)]
    assert gaps == [(0, pytest.approx(1e-3)), (pytest.approx(9.5e-3), pytest.approx(0.5e-3))]


def test_goals_are_ticks_on_bars_of_shares():
    figure = pipeline_figures.goals(FIGURES, measured.PIPELINE)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[-1] == "find, 64 B values" and len(labels) == 4
    shares = [bar.get_width() for bar in axes.patches if bar.get_width() != 1]
    assert shares == pytest.approx([48 / 53, 300 / 690, 0.1, 700 / 810])
    ticks = [mark.get_segments()[0][0][0] for mark in axes.collections]
    assert sorted(ticks) == pytest.approx(sorted([650 / 810, 0.9, 450 / 690]))


def test_compression_has_a_line_per_codec_and_kind_of_data(run):
    samples = measured.codec_samples(run.frame())
    figure = pipeline_figures.compression(samples, LINK, cores=16)
    figure.draw_without_rendering()
    up = lines(figure.axes[0])
    assert {"lz4", "snappy", "zstd", "not compressed", "16 cores here"} <= set(up)
    assert len(up) == 3 + 3 + 2
    assert up["lz4"].get_ydata()[0] == pytest.approx(0.606e9)
    assert lines(figure.axes[1])["lz4"].get_ydata()[-1] == pytest.approx(2.525 * 55e9)


def test_a_load_has_a_line_per_number_of_threads(run):
    figure = pipeline_figures.load(measured.window_samples(run.frame()))
    figure.draw_without_rendering()
    assert titles(figure) == ["operations a second", "latency, mean", "latency, p99"]
    rates = lines(figure.axes[0])
    assert {"1 thread", "16 threads"} <= set(rates)
    assert list(rates["1 thread"].get_xdata())[:2] == [0.5, 1.5]


def test_sizes_are_written_as_powers_of_two():
    assert [pipeline_figures.nbytes_text(n) for n in (512, 2**10, 2**26, 2**30)] == [
        "512 B",
        "1 KiB",
        "64 MiB",
        "1 GiB",
    ]


# ---- Tables and sentences


def test_the_verdict_on_sizes_names_the_best_and_the_half(run):
    text = pipeline_show.sizes_verdict(measured.size_samples(run.frame())).data
    assert "- pinned, up: at best **55" in text and "half of it from 4 MiB on" in text
    assert "- pinned, both" in text and "- zero-copy, down" in text
    assert "Of 1 KiB going up, zero-copy carries 2.98" in text


def test_the_verdict_on_chunks_names_the_fewest_streams_that_do(run):
    text = pipeline_show.chunks_verdict(measured.chunk_samples(run.frame())).data
    assert text.count("\n") == 3 and "- staged, up: at best" in text
    assert "already with 2 streams, chunks of 8 MiB" in text


def test_stages_are_shares_of_the_call(run):
    html = pipeline_show.stages(measured.timeline_samples(run.frame())).data
    assert "find, 64 B values" in html and "10.0 ms" in html
    assert ">40%<" in html and ">20%<" in html and ">60%<" in html


def test_what_the_cache_counted_is_shown_with_units():
    told = {"calls": 1200, "uploaded_bytes": 5e9, "busy_seconds": 0.25, "peak_bandwidth": 50e9}
    html = pipeline_show.transfers(told | {"link_utilisation": 0.7912}).data
    for text in ("1,200", "5.00 GB", "250 ms", "50.0 GB/s", "0.791", ">uploaded<", ">busy<"):
        assert text in html
    assert "peak bandwidth" in html and "link utilisation" in html


def test_goals_are_judged_with_their_intervals():
    html = pipeline_show.goals(FIGURES, measured.PIPELINE).data
    assert html.count("<tr>") == 1 + 4 and "at least 650 M/s" in html
    assert "at least 90% of the ceiling" in html
    said = pipeline_show.goals_verdict(FIGURES, measured.PIPELINE).data.splitlines()
    assert said == [
        "- Met: find, 64 B values (1.08 of the goal).",
        "- Missed: insert, 64 B values, pinned (0.67 of the goal).",
        "- Open: find, 1 KiB values (1.01 of the goal).",
    ]
    text = pipeline_show.overhead_verdict(FIGURES).data
    assert "**3.0% [2.0%, 4.0%]** of the call; the goal, below 5%, is met." in text


def test_compression_is_judged_by_what_crosses(run):
    samples = measured.codec_samples(run.frame())
    text = pipeline_show.compression_verdict(samples, LINK, 16).data
    up, down = text.splitlines()
    assert "**Upload** (55.0 GB/s)" in up and "**It does not pay.**" in up
    assert "lz4 0.176x" in up and "91 cores" in up
    assert "**Download**" in down and "**It does not pay.**" in down
    assert "It could pay with lz4, " in pipeline_show.compression_verdict(samples, LINK, 64).data
    assert "No bandwidth" in pipeline_show.compression_verdict(samples, {}, 16).data
    assert pipeline_show.codecs(samples).data.count("<tr>") == 1 + 6


def test_offsets_are_judged_by_the_time_they_save(run):
    samples = measured.offset_samples(run.frame())
    text = pipeline_show.offsets_verdict(samples, LINK).data
    assert "airports: 9 bits a row instead of 32 save 2.88 B, **0.0523 ns**" in text
    assert "20 cores' work" in text and "fixed 64 B: 0 bits" in text
    assert "it pays" in pipeline_show.offsets_verdict(samples, {"down": 1e9}).data


def test_a_load_is_told_with_its_errors(run):
    html = pipeline_show.load(measured.window_samples(run.frame())).data
    assert html.count("<tr>") == 3 and "24,000,000" in html and "10 s" in html
    figures = {
        "sustained": {"value": 2.4e6, "low": 2.3e6, "high": 2.5e6, "unit": "1/s", "n": 10},
        "sustained_latency_p99": {"value": 6e-3, "low": None, "high": None, "unit": "s", "n": 9},
        "sustained_errors": {"value": 3.0, "low": None, "high": None, "unit": "1", "n": 9},
    }
    text = pipeline_show.load_verdict(figures).data
    assert "- Met: operations a second, one thread" in text and "- Missed: latency of a batch, p99" in text  # fmt: skip
    assert text.endswith("**3 operations failed.**")
    figures["sustained_errors"]["value"] = 0.0
    assert pipeline_show.load_verdict(figures).data.endswith("No operation failed.")


def test_the_link_is_told_as_the_driver_tells_it(tmp_path, monkeypatch):
    def machine(name, **gpu):
        (tmp_path / name).mkdir()
        told = {"name": "Some GPU", "link_generation": 5, "link_width": 16, **gpu}
        results._write_json(tmp_path / name / "environment.json", {"gpu": told if gpu else None})
        return tmp_path / name

    here, there, bare = machine("a", link_width=8), machine("b", link_width=None), machine("c")
    figures = {"link_h2d_pinned": {"value": 25e9, "ceiling": 31.5e9}}
    monkeypatch.setattr(pipeline_show, "reference_directory", lambda: there)
    html = pipeline_show.link_facts(here, True, figures).data
    assert ">5<" in html and ">8<" in html and "31.5 GB/s" in html and "driver says" in html
    html = pipeline_show.link_facts(here, False, {}).data
    assert "not told" in html and "recorded run said" in html
    monkeypatch.setattr(pipeline_show, "reference_directory", lambda: bare)
    assert pipeline_show.link_facts(here, False, {}).data == kernel_show.NOTHING


def test_the_summary_says_once_that_something_is_missing():
    nothing = Markdown(kernel_show.NOTHING)
    assert pipeline_show.summary([Markdown("a"), Markdown("b")]).data == "a\n\nb"
    text = pipeline_show.summary([nothing, Markdown("a"), nothing]).data
    assert text == "a\n\nOf the rest: not measured here, and no recorded run holds it."


def test_a_link_of_another_notebook_is_called_so():
    limit = {"value": 55e9}
    recorded = {"limit_h2d_pinned": limit, "limit_d2h_pinned": limit}
    assert measured.link_of(recorded) == {"up": 55e9, "down": 55e9}
    text = pipeline_show.link_origin(recorded).data
    assert "recorded run of notebook 00: 55.0 GB/s up" in text
    own = {**recorded, "link_h2d_pinned": {"value": 50e9}}
    assert measured.link_of(own)["up"] == 50e9 and pipeline_show.link_origin(own).data == ""
    assert pipeline_show.link_origin({}).data == kernel_show.NOTHING


# ---- Nothing


def test_nothing_is_said_plainly(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline_show, "reference_directory", lambda: None)
    source = Markdown("Measured here, in this run.")
    assert "not recorded" in pipeline_show.origin({"find_64v": {}}, source).data
    assert pipeline_show.origin({"link_h2d_pinned": {}}, source) is source
    nothing = results.Run.open(tmp_path, notebook="t").frame()
    for keep, draw in (
        (measured.size_samples, pipeline_figures.bandwidth_by_size),
        (measured.chunk_samples, pipeline_figures.chunks),
        (measured.timeline_samples, pipeline_show.stages),
        (measured.window_samples, pipeline_figures.load),
    ):
        assert kernel_show.shown(draw, keep(nothing)).data == kernel_show.NOTHING
    for told in (
        pipeline_show.goals({}, measured.PIPELINE),
        pipeline_show.goals_verdict({}, measured.PIPELINE),
        pipeline_show.overhead_verdict({}),
        pipeline_show.load_verdict({}),
        pipeline_show.offsets_verdict(nothing, LINK),
        pipeline_show.transfers({}),
    ):
        assert told.data == kernel_show.NOTHING
