"""The figures: one style, one function a figure. Called by notebooks and README; reads samples and figures only.

Every system has one colour, marker and name everywhere. The colours are Okabe and Ito's, told apart by readers of any
colour vision; markers and labels tell them apart in print.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ..bench.harness import POOLED
from ..bench.operations import Operations
from ..bench.statistics import Interval, median_interval
from . import units
from .comparison import best_transport, pooled_latencies
from .comparison import way as way_of

INK, SOFT, LINE = "#1b2330", "#5a6676", "#dde2e9"
# Colour and marker by who answers, and by how it is asked.
_LOOKS = {
    "predis columns": ("#0072B2", "o", "Predis, columns"),
    "predis lists": ("#56B4E9", "s", "Predis, lists"),
    "redis command": ("#D55E00", "^", "Redis, one command"),
    "redis pipeline": ("#E69F00", "v", "Redis, pipeline"),
    "valkey command": ("#8A6FA8", "D", "Valkey, one command"),
    "dict command": ("#5a6676", "x", "a Python dict"),
}
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 10.5,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlepad": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
    "figure.dpi": 110,
    "figure.facecolor": "white",
    "savefig.bbox": "tight",
}


@dataclass(frozen=True)
class Described:
    """A figure and the words that stand for it where it can't be seen; a notebook shows the one and keeps the other."""

    figure: Figure
    alt: str

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        image = io.BytesIO()
        self.figure.savefig(image, format="png")
        return {"image/png": image.getvalue()}, {"image/png": {"alt": self.alt}}


def look(system: str) -> tuple[str, str, str]:
    """Colour, marker and name of a system."""
    who, *how = system.split(" ")
    who = who.split("-")[0]
    way = how[0] if how and how[0] in ("columns", "lists", "pipeline") else "command"
    return _LOOKS[f"{who} {way}"]


def rates_by_keys(samples: pd.DataFrame, workload: str, records: str) -> Figure:
    """Operations per second against keys a call, both logarithmic; one line a system, bars are 95 % intervals."""
    chosen = samples[(samples["workload"] == workload) & (samples["records"] == records)]
    return _rates(chosen, "keys", "keys a call", f"{workload.upper()}, {records}")


def rates_by_size(samples: pd.DataFrame, workload: str, keys: int) -> Figure:
    """Operations per second against bytes a value, both logarithmic."""
    chosen = samples[(samples["workload"] == workload) & (samples["keys"] == keys)]
    title = f"{workload.upper()}, {keys:,} keys a call"
    return _rates(chosen[chosen["value_nbytes"].notna()], "value_nbytes", "bytes a value", title)


def latencies(samples: pd.DataFrame, workload: str, records: str, keys: int) -> Figure:
    """Latency of a call by percentile, one row a system, over all of its calls; none beyond what their number allows."""
    table = pooled_latencies(samples, workload, records, keys)
    order = table[POOLED[0]].sort_values(ascending=False).index
    figure, axes = new_axes(
        f"{workload.upper()}, {keys:,} keys a call: latency", len(order) * 0.6 + 1.6
    )
    offsets = dict(zip(POOLED, (7, -14, 7, -14), strict=True))  # lest neighbours overlap
    for row, system in enumerate(order):
        colour, _, name = look(system)
        points = table.loc[system].dropna()
        axes.plot(points, [row] * len(points), color=colour, linewidth=2, alpha=0.35)
        for percentile, value in points.items():
            axes.plot(value, row, "o", color=colour, markersize=6)
            text = str(percentile).removeprefix("pooled_latency_")
            axes.annotate(
                text,
                (value, row),
                (0, offsets[str(percentile)]),
                textcoords="offset points",
                fontsize=8,
                ha="center",
            )
        axes.annotate(name, (0, row), (-8, 0), xycoords=("axes fraction", "data"),
                      textcoords="offset points", ha="right", va="center", color=INK)  # fmt: skip
    axes.set(xscale="log", xlabel="seconds a call", ylim=(-0.6, len(order) - 0.3), yticks=[])
    axes.margins(x=0.08)
    axes.grid(False, axis="y")
    quantities(axes, "x", "s")
    return figure


def ratios(table: pd.DataFrame, title: str) -> Figure:
    """Predis over Redis against keys a call, from `comparison.against`; hollow where no difference is claimed."""
    figure, axes = new_axes(title)
    axes.axhline(1, color=INK, linewidth=1.2)
    for (candidate, way), rows in table.assign(way=table["baseline"].map(way_of)).groupby(
        ["candidate", "way"], sort=False
    ):
        rows = rows.sort_values("keys")
        colour, marker, name = look(str(candidate))
        style = "--" if way == "pipeline" else "-"
        axes.plot(rows["keys"], rows["ratio"], style, color=colour, linewidth=1.6,
                  label=_against(name, str(way)))  # fmt: skip
        axes.vlines(rows["keys"], rows["low"], rows["high"], color=colour, linewidth=1.6)
        for row in rows.itertuples():
            claimed = row.verdict in ("faster", "slower")
            face = colour if claimed else "white"
            axes.plot(row.keys, row.ratio, marker, color=colour, markerfacecolor=face, markersize=6)
    axes.set(yscale="log", xscale="log", xlabel="keys a call", ylabel="times Redis's rate")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    _few_ticks(axes.yaxis)
    counts(axes, table["keys"])
    legend_beside(axes)
    return figure


def ratios_by_workload(table: pd.DataFrame, keys: int, title: str) -> Figure:
    """Predis over Redis, one row a scenario, at one batch size; hollow where no difference is claimed."""
    chosen = table[table["keys"] == keys]
    order = chosen.groupby("records")["ratio"].median().sort_values().index
    figure, axes = new_axes(title, 0.42 * len(order) + 1.6)
    axes.axvline(1, color=INK, linewidth=1.2)
    places = {name: at for at, name in enumerate(order)}
    pairs = chosen.groupby(["candidate", "baseline"], sort=False)
    for number, ((candidate, baseline), rows) in enumerate(pairs):
        colour, marker, name = look(str(candidate))
        way = way_of(str(baseline))
        style: Any = ":" if way == "pipeline" else "-"
        at = rows["records"].map(places) + 0.13 * (number - (len(pairs) - 1) / 2)
        axes.hlines(at, rows["low"], rows["high"], color=colour, linewidth=1.6, linestyle=style)
        claimed = rows["verdict"].isin(["faster", "slower"])
        for these, face in ((claimed, colour), (~claimed, "white")):
            axes.plot(rows["ratio"][these], at[these], marker, color=colour, markerfacecolor=face, markersize=6)  # fmt: skip
        axes.plot([], [], marker, color=colour, linestyle=style, label=_against(name, way))
    axes.set_yticks(range(len(order)), order, color=INK)
    axes.set(xscale="log", xlabel="times Redis's rate")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    _few_ticks(axes.xaxis)
    axes.grid(False, axis="y")
    legend_beside(axes)
    return figure


def arrivals(operations: dict[str, Operations], parts: int = 96) -> Figure:
    """Operations per second through the day that each scenario describes, relative to its mean."""
    figure, axes = new_axes("When operations are meant to start")
    for (name, made), style in zip(operations.items(), ("-", "--", ":"), strict=False):
        assert made.start_s is not None
        counts, edges = np.histogram(made.start_s, parts)
        axes.plot((edges[:-1] + edges[1:]) / 7200, counts / counts.mean(), style, label=name, linewidth=1.8)  # fmt: skip
    axes.set(xlabel="hours since the day began", ylabel="times the mean rate", ylim=(0, None))
    legend_beside(axes)
    return figure


def shares(
    figures: dict[str, dict[str, Any]],
    names: dict[str, str],
    title: str,
    scale: str = "share of what the hardware's own numbers promise",
    goals: dict[str, float] | None = None,
) -> Figure:
    """Bars: each figure that has a ceiling as a share of it, with its value; a tick marks its goal where it has one.

    names: figure id -> label. goals: figure id -> share
    """
    rows = [(name, figures[name]) for name in names if "ceiling" in figures.get(name, {})]
    figure, axes = new_axes(title, 0.42 * len(rows) + 1.2)
    widest = 1.0
    for at, (name, entry) in enumerate(reversed(rows)):
        share = entry["value"] / entry["ceiling"]
        axes.barh(at, 1, height=0.62, color=LINE, alpha=0.6)
        axes.barh(at, share, height=0.62, color="#0072B2")
        text = f"{units.format_quantity(entry['value'], entry['unit'])} · {share:.0%}"
        goal, inside = (goals or {}).get(name), share > 0.4
        # From the left, and beside a short bar past its goal: a tick is near the end of most bars.
        start = 0 if inside else max(share, goal or 0)
        axes.annotate(text, (start, at), (6, 0), textcoords="offset points", ha="left",
                      va="center", color="white" if inside else INK, fontsize=9)  # fmt: skip
        if goal is not None:
            axes.vlines(goal, at - 0.4, at + 0.4, color="#D55E00", linewidth=2.4)
        widest = max(widest, share, goal or 0)
    axes.set_yticks(range(len(rows)), [names[name] for name, _ in reversed(rows)], color=INK)
    axes.set(xlim=(0, 1.02 * widest), xlabel=scale)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axes.grid(False, axis="y")
    return figure


def bars(
    figures: dict[str, dict[str, Any]], names: dict[str, str], title: str, unit: str
) -> Figure:
    """Bars: figures of one unit with their intervals; a tick marks a ceiling where there is one."""
    rows = [(label, figures[name]) for name, label in names.items() if name in figures]
    figure, axes = new_axes(title, 0.42 * len(rows) + 1.2)
    for at, (_, entry) in enumerate(reversed(rows)):
        value, high = entry["value"], entry["high"] or entry["value"]
        axes.barh(at, value, height=0.62, color="#0072B2")
        axes.hlines(at, entry["low"] or value, high, color=INK, linewidth=1.6)
        ceiling = entry.get("ceiling")
        if ceiling:
            axes.vlines(ceiling, at - 0.36, at + 0.36, color="#D55E00", linewidth=2.4)
        axes.annotate(units.format_quantity(value, unit), (high, at), (6, 0),
                      textcoords="offset points", va="center", color=INK, fontsize=9)  # fmt: skip
    axes.set_yticks(range(len(rows)), [label for label, _ in reversed(rows)], color=INK)
    axes.margins(x=0.14)
    axes.set(xlim=(0, None))
    axes.grid(False, axis="y")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value, unit)))
    return figure


def save(figure: Figure, path: Path) -> None:
    """The figure as SVG (or what the suffix says), the same bytes for the same figure."""
    plt.rcParams["svg.hashsalt"] = "predis-lab"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def style() -> None:
    """The style of every figure, for those that make their axes themselves."""
    plt.rcParams.update(_STYLE)


def new_axes(title: str, height: float = 4.2) -> tuple[Figure, Axes]:
    """One set of axes in the style."""
    style()
    figure, axes = plt.subplots(figsize=(7.6, height))
    axes.set_title(title)
    plt.close(figure)  # shown where a cell ends with it, and once only
    return figure, axes


def draw_line(
    axes: Axes,
    points: Sequence[tuple[float, Interval]],
    colour: str,
    marker: str,
    label: str,
    *,
    markersize: float = 6,
) -> None:
    """A line through medians, each with a bar over its interval. points: place on the x axis, and the interval there"""
    places = [place for place, _ in points]
    axes.plot(places, [one.value for _, one in points], marker=marker, color=colour, linewidth=1.8,
              markersize=markersize, label=label)  # fmt: skip
    axes.vlines(places, [one.low for _, one in points], [one.high for _, one in points], color=colour,
                linewidth=1.6)  # fmt: skip


def _rates(samples: pd.DataFrame, by: str, what: str, title: str) -> Figure:
    chosen = best_transport(samples)
    rates = chosen[chosen["metric"] == "throughput"].assign(_look=chosen["system"].map(look))
    figure, axes = new_axes(title)
    for colour, marker, name in [
        entry for entry in _LOOKS.values() if entry in set(rates["_look"])
    ]:
        points = [
            (x, median_interval(group["value"].to_numpy()))
            for x, group in rates[rates["_look"] == (colour, marker, name)].groupby(by)
        ]
        draw_line(axes, points, colour, marker, name, markersize=5.5)
    axes.set(xscale="log", yscale="log", xlabel=what, ylabel="operations per second")
    quantities(axes, "y", "1/s")
    counts(axes, rates[by])
    legend_beside(axes)
    return figure


def _against(name: str, way: str) -> str:
    return f"{name} / Redis, {'pipeline' if way == 'pipeline' else 'one command'}"


def legend_beside(axes: Axes) -> None:
    """Beside the axes."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), labelcolor=INK, fontsize=9.5)


def quantities(axes: Axes, side: str, unit: str) -> None:
    """Ticks of a logarithmic axis ("x" or "y") as quantities of a unit."""
    axis = axes.yaxis if side == "y" else axes.xaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value, unit)))
    _few_ticks(axis)


def _few_ticks(axis: Any) -> None:
    """Ticks at 1, 2 and 5 of each power of ten where there are few powers."""
    low, high = axis.get_view_interval()
    steps = (1, 2, 5) if high / low < 200 else (1,)
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_minor_locator(NullLocator())


def counts(axes: Axes, places: Iterable[float]) -> None:
    """Ticks where there are points, for few places on a logarithmic axis."""
    axes.set_xticks(sorted(set(places)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def tick_text(value: float, unit: str) -> str:
    """A quantity as short as it can be."""
    return (
        "0"
        if value == 0
        else units.format_quantity(value, unit).replace(".00", "").replace(".0 ", " ")
    )
