"""Figures of notebook 04: the link by size, chunks and streams, stages on a timeline, goals, compression, load.

In the style of `figures`; each takes samples or stored figures and draws all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from ..bench import pipeline_samples as measured
from ..bench.host_transfers import ARROW_NAMES, RANDOM, REAL
from ..bench.statistics import median_interval
from .figures import INK, SOFT, draw_line, new_axes, shares, style, tick_text

GOAL = "#D55E00"
# Colour and marker by kind of memory, codec, or place in the legend: told apart in grey by their markers.
_KINDS = {
    "pinned": ("#0072B2", "o"),
    "pageable": ("#E69F00", "v"),
    "zero-copy": ("#009E73", "s"),
    "packed": ("#8A6FA8", "D"),
}
_CODECS = {"lz4": ("#0072B2", "o"), "snappy": ("#009E73", "s"), "zstd": ("#8A6FA8", "D")}
_PLACES = [("#56B4E9", "o"), ("#0072B2", "s"), ("#009E73", "^"), ("#8A6FA8", "D"), (INK, "v")]
_STAGES = {
    measured.PACK: "#E69F00",
    measured.UPLOAD: "#56B4E9",
    measured.KERNEL: "#009E73",
    measured.DOWNLOAD: "#0072B2",
}
_WAYS = {"up": "upload", "down": "download", "both": "both at once, summed"}


def nbytes_text(nbytes: float) -> str:
    """A power of two as people write it.

    >>> nbytes_text(1024), nbytes_text(64 * 2**20)
    ('1 KiB', '64 MiB')
    """
    for factor, prefix in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if nbytes >= factor:
            return f"{nbytes / factor:g} {prefix}"
    return f"{nbytes:g} B"


def bandwidth_by_size(samples: pd.DataFrame) -> Figure:
    """Bandwidth against bytes a copy, a line for each kind of memory, a panel for each direction; both logarithmic."""
    figure, panels = _panels(1, 3)
    for axes, (direction, title) in zip(panels, _WAYS.items(), strict=True):
        rows = samples[samples["direction"] == direction]
        for kind, (colour, marker) in _KINDS.items():
            _line(axes, rows[rows["system"] == kind], "nbytes", colour, marker, kind)
        axes.set(xscale="log", yscale="log", xlabel="a copy")
        _sizes(axes, samples["nbytes"], every=2)
        _bandwidths(axes, title)
    for axes in panels:
        axes.set_ylim(samples["value"].min() / 1.5, samples["value"].max() * 1.5)
    panels[0].set_ylabel("bandwidth")
    _legend(panels)
    return _done(figure)


def chunks(samples: pd.DataFrame) -> Figure:
    """Bandwidth against bytes a chunk, a line for each number of streams; a panel for each way to cross."""
    ways = [
        *((("pinned", direction), f"pinned, {title}") for direction, title in _WAYS.items()),
        (("staged", "up"), "pageable, packed by one core"),
    ]
    figure, panels = _panels(2, 2)
    for axes, ((kind, direction), title) in zip(panels, ways, strict=True):
        rows = samples[(samples["system"] == kind) & (samples["direction"] == direction)]
        for (count, group), (colour, marker) in zip(rows.groupby("streams"), _PLACES, strict=False):
            label = f"{int(count)} stream{'s' * (count > 1)}"
            _line(axes, group, "chunk_nbytes", colour, marker, label)
        axes.set(xscale="log", ylim=(0, None))
        _sizes(axes, samples["chunk_nbytes"], every=2)
        _bandwidths(axes, title)
    for axes in panels[2:]:
        axes.set_xlabel("a chunk")
    _legend(panels[:2])
    return _done(figure)


def timeline(samples: pd.DataFrame, call: str) -> Figure:
    """One call: a row for each stage, a bar for each chunk; marked below, when neither link nor kernel was at work."""
    intervals = measured.timeline_of(samples, call)
    whole = intervals[intervals["stage"] == measured.WHOLE]
    wall = float(whole["stop"].iloc[0])
    found = intervals[intervals["stage"] != measured.WHOLE]
    rows = [stage for stage in measured.STAGES if stage in set(found["stage"])]
    title = measured.LABELS.get(call, call)
    figure, axes = new_axes(f"{title}: one call", 0.5 * len(rows) + 1.8)
    for at, stage in enumerate(rows):
        for one in found[found["stage"] == stage].itertuples():
            axes.barh(at, one.stop - one.start, left=one.start, height=0.7, color=_STAGES[stage],
                      alpha=1.0 if one.chunk % 2 else 0.7)  # fmt: skip
    busy = found[found["stage"].isin(measured.BUSY)]
    gaps = _gaps(zip(busy["start"], busy["stop"], strict=True), wall)
    for start, stop in gaps:
        axes.barh(len(rows), stop - start, left=start, height=0.4, color=GOAL)
    labels = [*rows, "neither link nor kernel"]
    axes.set_yticks(range(len(labels)), labels, color=INK)
    axes.axvline(wall, color=INK, linewidth=1.2)
    axes.set(ylim=(len(rows) + 0.5, -0.6), xlim=(0, wall * 1.01), xlabel="since the call began")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value, "s")))
    axes.grid(False, axis="y")
    return figure


def _gaps(spans: Iterable[measured.Span], wall: float) -> list[measured.Span]:
    """What the spans leave free between 0 and wall."""
    free, reached = [], 0.0
    for start, stop in sorted(spans):
        if start > reached:
            free.append((reached, min(start, wall)))
        reached = max(reached, stop)
    return [*free, (reached, wall)] if reached < wall else free


def goals(figures: dict[str, dict[str, Any]], names: dict[str, str]) -> Figure:
    """Bars: each figure as a share of its ceiling, with its value; a tick marks its goal where it has one."""
    ceilings = {
        name: figures[name]["ceiling"] for name in names if "ceiling" in figures.get(name, {})
    }
    return shares(
        figures,
        names,
        "Bulk calls, as a share of what the link carries",
        "share of the ceiling; the tick is the goal",
        {
            name: bound / ceiling
            for name, ceiling in ceilings.items()
            if (bound := measured.GOALS.get(name, measured.Goal()).bound(ceiling)) is not None
        },
    )


def compression(samples: pd.DataFrame, link: dict[str, float], cores: int) -> Figure:
    """Plain bytes a second that would cross, against cores at work: real values solid, random bytes dashed.

    link: bandwidth by direction. cores: that this machine has, marked
    """
    figure, panels = _panels(1, 2)
    counts = np.array([1, 2, 4, 8, 16, 32, 64])
    work = (("up", "upload, host compresses", "compress"), ("down", "download, host decompresses", "decompress"))  # fmt: skip
    for axes, (direction, title, metric) in zip(panels, work, strict=True):
        for codec in ARROW_NAMES:
            colour, marker = _CODECS[codec]
            for data, line in ((REAL, "-"), (RANDOM, "--")):
                crossing = [
                    measured.compressed_bandwidth(samples, codec, data, metric, link[direction], n)
                    for n in counts
                ]
                label = codec if data == REAL else None
                axes.plot(counts, crossing, line, marker=marker, color=colour, linewidth=1.8,
                          markersize=5, label=label, alpha=1 if data == REAL else 0.5)  # fmt: skip
        axes.axhline(link[direction], color=INK, linewidth=1.6, label="not compressed")
        axes.axvline(cores, color=SOFT, linewidth=1.2, linestyle=":", label=f"{cores} cores here")
        axes.set(xscale="log", yscale="log", xlabel="cores at work")
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.xaxis.set_minor_locator(NullLocator())
        _bandwidths(axes, title)
    panels[0].set_ylabel("plain bytes a second")
    _legend(panels)
    return _done(figure)


def load(samples: pd.DataFrame) -> Figure:
    """Operations a second, and latency of a batch (mean and p99), window by window, one line a load; dashes are goals."""
    figure, panels = _panels(1, 3)
    for axes, metric, title in zip(
        panels,
        (measured.RATE, "latency_mean", "latency_p99"),
        ("operations a second", "latency, mean", "latency, p99"),
        strict=True,
    ):
        unit = "1/s" if metric == measured.RATE else "s"
        for name, (colour, marker) in zip(measured.SUSTAINED, _PLACES[1:], strict=False):
            rows = samples[(samples["workload"] == name) & (samples["metric"] == metric)]
            rows = rows.sort_values("block")
            if not len(rows):
                continue
            threads = int(rows["threads"].iloc[0])
            window = rows["seconds"].iloc[0] / len(rows)
            axes.plot((rows["block"] + 0.5) * window, rows["value"], marker=marker, markersize=4, color=colour,
                      linewidth=1.6, label=f"{threads} thread{'s' * (threads > 1)}")  # fmt: skip
            suffix = "" if metric == measured.RATE else f"_{metric}"
            goal = measured.GOALS.get(name + suffix, measured.Goal()).bound(None)
            if goal:
                axes.axhline(goal, color=colour, linewidth=1.2, linestyle="--")
        axes.set(xlabel="seconds", ylim=(0, None))
        axes.set_title(title, fontsize=10.5)
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _, unit=unit: tick_text(value, unit))
        )
    _legend(panels)
    return _done(figure)


# ---- Parts of figures


def _panels(rows: int, columns: int) -> tuple[Figure, list[Axes]]:
    style()
    figure, panels = plt.subplots(
        rows, columns, figsize=(3.5 * columns + 1.6, 3.1 * rows), squeeze=False
    )  # fmt: skip
    return figure, list(panels.flat)


def _legend(panels: list[Axes]) -> None:
    """Of the first panel, beside the last."""
    handles, labels = panels[0].get_legend_handles_labels()
    panels[-1].legend(
        handles, labels, loc="upper left", bbox_to_anchor=(1.01, 1.0), labelcolor=INK, fontsize=9.5
    )


def _done(figure: Figure) -> Figure:
    figure.tight_layout()
    plt.close(figure)  # shown where a cell ends with it, and once only
    return figure


def _line(axes: Axes, rows: pd.DataFrame, by: str, colour: str, marker: str, label: str) -> None:
    points = [
        (float(place), median_interval(group["value"].to_numpy()))
        for place, group in rows.groupby(by)
    ]
    if points:
        draw_line(axes, points, colour, marker, label, markersize=5)


def _sizes(axes: Axes, sizes: pd.Series, every: int) -> None:
    """Ticks at every so many of the sizes, the last one among them."""
    places = sorted(set(sizes))[::-1][::every]
    axes.set_xticks(places, [nbytes_text(place) for place in places])
    axes.tick_params(axis="x", labelsize=8.5, rotation=30)
    axes.xaxis.set_minor_locator(NullLocator())


def _bandwidths(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10.5)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value, "B/s")))
