"""Figures of notebook 05: what a capacity and a record take, churn, compaction, the soak. In the style of `figures`.

Each takes stored figures or samples, and comes with words that say what it shows.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from ..bench.memory_samples import HOLDERS, PARTS, PERCENTILES, READERS, holders_of
from ..bench.statistics import median_interval
from . import figures, units
from .figures import INK, SOFT, Described, draw_line, legend_beside, new_axes, style, tick_text

Figures = dict[str, dict[str, Any]]

BLUE, SKY, GREEN, RED, ORANGE, PURPLE = (
    *("#0072B2", "#56B4E9", "#009E73"),
    *("#D55E00", "#E69F00", "#8A6FA8"),
)
# Colour and hatching by part of a record: told apart in grey as well.
_PARTS = {
    "payload": (BLUE, ""),
    "header": (SKY, ""),
    "padding": (PURPLE, "xx"),
    "index": (ORANGE, "//"),
    "dead": (INK, ""),
    "buffers": (GREEN, "\\\\"),
    "unwritten": ("#dde2e9", ".."),
}
_HOLDERS = {"arena": (BLUE, "-"), "default_pool": (RED, "--"), "async_pool": (ORANGE, ":")}
GOAL_OVERHEAD, GOAL_UTILISATION, GOAL_CAPACITY = 40, 0.85, 0.02


def binary(nbytes: float) -> str:
    """A capacity as people ask for it.

    >>> binary(8 * 2**30), binary(64 * 2**20), binary(10**9)
    ('8 GiB', '64 MiB', '953.7 MiB')
    """
    for factor, prefix in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if nbytes >= factor:
            return f"{nbytes / factor:.1f}".removesuffix(".0") + f" {prefix}"
    return f"{nbytes:.0f} B"


def capacity_names(stored: Figures) -> dict[str, str]:
    """Figure id -> label of each capacity that was measured, ascending."""
    found = [name for name in stored if name.startswith("capacity_taken_")]
    found.sort(key=lambda name: stored[name]["ceiling"])
    return {name: binary(stored[name]["ceiling"]) for name in found}


def capacities(stored: Figures) -> Described:
    """What the driver counts as taken, as a share of the capacity that was asked for."""
    names = capacity_names(stored)
    title = "Device memory that an empty cache takes"
    figure = figures.shares(stored, names, title, "share of the capacity asked for")
    said = ", ".join(
        f"{label} {stored[name]['value'] / stored[name]['ceiling']:.1%}"
        for name, label in names.items()
    )
    return Described(
        figure, f"Bars, one a capacity, with the share that the driver counts: {said}."
    )


def record_parts(stored: Figures) -> Described:
    """One record of a full cache as a bar, its parts one after the other."""
    figure, axes = new_axes("Where the bytes of a record go", 1.9)
    at, said = 0.0, []
    for part, label in PARTS.items():
        nbytes = stored[f"record_part_{part}"]["value"] if f"record_part_{part}" in stored else 0
        if nbytes < 0.05:
            continue
        colour, hatch = _PARTS[part]
        text = f"{label}: {units.digits(nbytes)} B"
        axes.barh(0, nbytes, left=at, height=0.6, color=colour, hatch=hatch, edgecolor="white", label=text)  # fmt: skip
        at += nbytes
        said.append(text)
    goal = stored["record_part_payload"]["value"] + GOAL_OVERHEAD
    axes.axvline(goal, color=RED, linewidth=2, label=f"goal: {goal:.0f} B")
    axes.set(yticks=[], xlabel="bytes of device memory a record", xlim=(0, 1.06 * max(at, goal)))
    axes.grid(False, axis="y")
    legend_beside(axes)
    return Described(figure, f"One bar of {at:.1f} bytes in parts. {'; '.join(said)}.")


def churn(samples: pd.DataFrame) -> Described:
    """Bytes held over bytes live, by turn; one line a holder."""
    figure, axes = new_axes("Memory held for what is live")
    said = []
    for holder, rows in holders_of(samples):
        ratio = rows["held"] / rows["live"]
        colour, dashes = _HOLDERS[holder]
        axes.plot(rows["block"], ratio, dashes, color=colour, linewidth=1.8, label=HOLDERS[holder])
        said.append(f"{HOLDERS[holder]} ends at {ratio.iloc[-1]:.2f}")
    top = max(1.5, 1.05 * max((r["held"] / r["live"]).iloc[len(r) // 4 :].max() for _, r in holders_of(samples)))  # fmt: skip
    axes.axhline(1, color=SOFT, linewidth=1)
    axes.set(xlabel="turns", ylabel="bytes held / bytes live", ylim=(0.95, top))
    legend_beside(axes)
    return Described(figure, f"Lines over turns. {'; '.join(said)}.")


def compaction(samples: pd.DataFrame) -> Described:
    """Bytes a second that compaction moves, and that it frees, by the share of the log that is live."""
    figure, axes = new_axes("Compaction, by how much of the log is live")
    moving = samples[samples["moved"] > 0]
    said = []
    for metric, label, colour, marker in (
        ("moved", "moved", BLUE, "o"),
        ("freed", "made free", GREEN, "s"),
    ):
        points = [
            (float(live), median_interval((rows[metric] / rows["seconds"]).to_numpy()))
            for live, rows in moving.groupby("live")
            if len(rows) > 1
        ]
        draw_line(axes, points, colour, marker, label)
        said += [f"{label} {units.format_quantity(r.value, 'B/s')} at {live:.0%}" for live, r in points]  # fmt: skip
    axes.set(xlabel="share of the log that is live", ylabel="bytes a second", yscale="log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    _bytes(axes, "B/s")
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    legend_beside(axes)
    return Described(figure, f"Two lines over the live share, logarithmic: {'; '.join(said)}.")


def readers(stored: Figures) -> Described:
    """Latency of single lookups by percentile, alone and beside compaction; a row each."""
    figure, axes = new_axes("A lookup, alone and beside compaction", 2.4)
    said = []
    for row, (reader, label) in enumerate(READERS.items()):
        points = [stored[f"reader_{reader}_{name}"]["value"] for name in PERCENTILES]
        colour = BLUE if row == 0 else RED
        axes.plot(points, [row] * len(points), color=colour, linewidth=2, alpha=0.35)
        axes.plot(points, [row] * len(points), "o" if row == 0 else "^", color=colour, markersize=6)
        for turn, (name, value) in enumerate(zip(PERCENTILES, points, strict=True)):
            axes.annotate(name, (value, row), (0, 7 if turn % 2 == 0 else -14),
                          textcoords="offset points", fontsize=8, ha="center")  # fmt: skip
        said.append(f"{label}: median {units.format_quantity(points[0], 's')}, longest {units.format_quantity(points[-1], 's')}")  # fmt: skip
    axes.set_yticks(range(len(READERS)), list(READERS.values()), color=INK)
    axes.set(xscale="log", xlabel="seconds a lookup", ylim=(-0.6, len(READERS) - 0.3))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value, "s")))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    axes.margins(x=0.08)
    axes.grid(False, axis="y")
    return Described(figure, f"Two rows of percentiles on a logarithmic scale. {'; '.join(said)}.")


def soak(samples: pd.DataFrame) -> Described:
    """Over time: live bytes and bytes written to in the log; below, the device's memory, and what CuPy's pool has beside it."""
    style()
    figure, (above, below) = plt.subplots(2, 1, figsize=(7.6, 5.2), sharex=True)
    plt.close(figure)
    rows = samples.sort_values("elapsed")
    above.set_title("A cache kept full")
    for axes, metric, label, colour, dashes in (
        (above, "log_used", "written to, dead records included", SKY, "--"),
        (above, "live", "live records", BLUE, "-"),
        (below, "device", "device memory taken, without the pool", GREEN, "-"),
        (below, "pool", "CuPy's pool: columns of calls", RED, "--"),
    ):
        axes.plot(rows["elapsed"], rows[metric], dashes, color=colour, linewidth=1.6, label=label)
        axes.set_ylim(0, 1.1 * rows[["log_used", "device", "pool"]].max().max())
        _bytes(axes, "B")
        legend_beside(axes)
    below.set(xlabel="seconds")
    figure.align_ylabels()
    last = rows.iloc[-1]
    return Described(
        figure,
        f"Lines over {last['elapsed']:.0f} s: at the end {units.format_quantity(last['live'], 'B')} are live of "
        f"{units.format_quantity(last['log_used'], 'B')} written to, and {units.format_quantity(last['device'], 'B')} "
        f"of device memory are taken; {units.format_quantity(rows['device'].max(), 'B')} at most, beside up to "
        f"{units.format_quantity(rows['pool'].max(), 'B')} of CuPy's pool.",
    )


def _bytes(axes: Axes, unit: str) -> None:
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value, unit)))
