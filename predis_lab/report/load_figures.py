"""Figures of load: single operations, arrivals at a fixed rate, clients side by side, training. Called by notebooks 07 and 08.

In the style of `figures`, and with its colours where a system is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ..bench.open_loop import NOBODY, falls_behind
from ..bench.statistics import Interval, median_interval
from .claims import named
from .comparison import best_transport
from .figures import INK, LINE, SOFT, counts, legend_beside, look, new_axes, quantities

Look = tuple[str, str, str]
_HOT: Look = ("#009E73", "P", "Predis, hot tier")
_TENSORS: Look = ("#CC79A7", "h", "Predis, tensors")
_NOBODY: Look = (SOFT, ".", "nobody: the sender alone")


def look_of(system: str) -> Look:
    """Colour, marker and name of a system under load.

    >>> look_of("predis-host lists hot")[2], look_of("redis single unix")[2], look_of("nobody")[2]
    ('Predis, hot tier', 'Redis', 'nobody: the sender alone')
    """
    if system == NOBODY:
        return _NOBODY
    if system.startswith("predis"):
        special = {"hot": _HOT, "tensors": _TENSORS}.get(system.split()[-1])
        if special is not None:
            return special
    colour, marker, name = look(system)
    return colour, marker, name.removesuffix(", one command")


def singles(samples: pd.DataFrame) -> Figure:
    """Operations a second, one at a time: a row a scenario, a mark a system; bars are 95 % intervals."""
    rates = _throughput(best_transport(samples[samples["workload"] == "single"]))
    order = list(dict.fromkeys(rates["records"]))[::-1]
    figure, axes = new_axes("One operation at a time", 0.62 * len(order) + 1.6)
    systems = list(dict.fromkeys(rates["system"]))
    for number, system in enumerate(systems):
        colour, marker, name = look_of(str(system))
        beside = 0.12 * ((len(systems) - 1) / 2 - number)
        for at, records in enumerate(order):
            blocks = rates[(rates["system"] == system) & (rates["records"] == records)]["value"]
            if len(blocks) > 1:
                _mark(axes, median_interval(blocks.to_numpy()), at + beside, colour, marker)
        axes.plot([], [], marker, color=colour, label=name)
    axes.set_yticks(range(len(order)), [named(name) for name in order], color=INK)
    axes.set(xscale="log", xlabel="operations per second", ylim=(-0.6, len(order) - 0.4))
    axes.grid(False, axis="y")
    quantities(axes, "x", "1/s")
    legend_beside(axes)
    return figure


def open_latency(samples: pd.DataFrame, records: str, keys: int, percentile: str = "p99") -> Figure:
    """Latency from the intended start against the rate that was offered; hollow where a system fell behind."""
    cell = _open(samples, records, keys)
    figure, axes = new_axes(f"{_called(records, keys)}: {percentile} from the intended start")
    for system, rows in _by_system(cell):
        values = rows[rows["metric"] == f"latency_{percentile}"]
        _line(axes, values, "rate", look_of(system), hollow=_behind(rows))
    axes.set(xscale="log", yscale="log", xlabel="offered operations per second")
    quantities(axes, "x", "1/s")
    quantities(axes, "y", "s")
    legend_beside(axes)
    return figure


def open_served(samples: pd.DataFrame, records: str, keys: int) -> Figure:
    """The share of the offered rate that was served; hollow where a system fell behind."""
    cell = _open(samples, records, keys)
    figure, axes = new_axes(f"{_called(records, keys)}: served of what was offered", 3.4)
    axes.axhline(1, color=INK, linewidth=1.2)
    for system, rows in _by_system(cell):
        shares = _shares(rows).rename("value").reset_index()
        _line(axes, shares, "rate", look_of(system), hollow=_behind(rows))
    axes.set(xscale="log", xlabel="offered operations per second", ylim=(0, 1.06))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    quantities(axes, "x", "1/s")
    legend_beside(axes)
    return figure


def clients_rate(samples: pd.DataFrame, batch: int) -> Figure:
    """Operations a second of all clients together against their number; processes are dashed."""
    return _clients(samples, batch, "throughput", "1/s", "all clients together", "operations per second")  # fmt: skip


def clients_latency(samples: pd.DataFrame, batch: int, percentile: str = "p99") -> Figure:
    """Latency of a call against the number of clients; processes are dashed."""
    return _clients(samples, batch, f"latency_{percentile}", "s", f"{percentile} of a call", "seconds a call")  # fmt: skip


def waiting(samples: pd.DataFrame, records: str) -> Figure:
    """Bars: the share of a training step that is spent waiting for its data."""
    rows = samples[(samples["workload"] == "training") & (samples["records"] == records)]
    rows = best_transport(rows[rows["metric"].isin(["waiting_share", "throughput"])])
    shares = rows[rows["metric"] == "waiting_share"].groupby("system")["value"]
    found = {str(system): median_interval(blocks.to_numpy()) for system, blocks in shares}
    order = sorted(found, key=lambda system: -found[system].value)
    figure, axes = new_axes(f"{named(records)}: waiting for data", 0.5 * len(order) + 1.3)
    for at, system in enumerate(order):
        share, (colour, _, _) = found[system], look_of(system)
        axes.barh(at, 1, height=0.62, color=LINE, alpha=0.6)
        axes.barh(at, share.value, height=0.62, color=colour)
        axes.hlines(at, share.low, share.high, color=INK, linewidth=1.6)
        axes.annotate(f"{share.value:.0%}", (max(share.high, share.value), at), (6, 0),
                      textcoords="offset points", va="center", color=INK, fontsize=9)  # fmt: skip
    axes.set_yticks(range(len(order)), [look_of(system)[2] for system in order], color=INK)
    axes.set(xlim=(0, 1.05), xlabel="share of a step")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axes.grid(False, axis="y")
    return figure


# ---- Inside


def _clients(samples: pd.DataFrame, batch: int, metric: str, unit: str, what: str, label: str) -> Figure:  # fmt: skip
    rows = samples[(samples["workload"] == "clients") & (samples["batch"] == batch)]
    rows = rows[rows["metric"] == metric]
    called = "One key a call" if batch == 1 else f"{batch:,} keys a call"
    figure, axes = new_axes(f"{called}: {what}")
    for (system, kind), group in rows.groupby(["system", "as"], sort=False):
        colour, marker, name = look_of(str(system))
        styled = colour, marker, f"{name}, {kind}"
        _line(axes, group, "clients", styled, dashed=kind == "processes")
    axes.set(xscale="log", yscale="log", xlabel="clients", ylabel=label)
    quantities(axes, "y", unit)
    if len(rows):
        counts(axes, rows["clients"])
    legend_beside(axes)
    return figure


def _line(
    axes: Axes,
    rows: pd.DataFrame,
    by: str,
    styled: Look,
    *,
    hollow: Callable[[float], bool] = lambda _: False,
    dashed: bool = False,
) -> None:
    """Medians with their intervals; nothing where there are no two blocks."""
    colour, marker, name = styled
    groups = [(x, group["value"].to_numpy()) for x, group in rows.groupby(by) if len(group) > 1]
    points = [(x, median_interval(blocks)) for x, blocks in groups]
    if not points:
        return
    style = "--" if dashed else ":" if styled == _NOBODY else "-"
    axes.plot(
        [x for x, _ in points], [one.value for _, one in points], style, color=colour, linewidth=1.8
    )
    for x, one in points:
        axes.vlines(x, one.low, one.high, color=colour, linewidth=1.6)
        face = "white" if hollow(x) else colour
        axes.plot(x, one.value, marker, color=colour, markerfacecolor=face, markersize=6)
    axes.plot([], [], marker, color=colour, linestyle=style, label=name)


def _mark(axes: Axes, found: Interval, at: float, colour: str, marker: str) -> None:
    axes.hlines(at, found.low, found.high, color=colour, linewidth=1.6)
    axes.plot(found.value, at, marker, color=colour, markersize=7)


def _throughput(samples: pd.DataFrame) -> pd.DataFrame:
    return samples[samples["metric"] == "throughput"]


def _open(samples: pd.DataFrame, records: str, keys: int) -> pd.DataFrame:
    cell = samples[(samples["workload"] == "open") & (samples["records"] == records)]
    return cell[(cell["keys"] == keys) & cell["rate"].notna()]


def _by_system(cell: pd.DataFrame) -> Iterable[tuple[str, pd.DataFrame]]:
    """In one order, whoever came first in the measurement; nobody last."""
    names = sorted(set(cell["system"]), key=lambda name: (name == NOBODY, name))
    return [(name, cell[cell["system"] == name]) for name in names]


def _shares(rows: pd.DataFrame) -> Any:
    """Achieved over offered by rate and block."""
    wide = rows[rows["metric"].isin(["offered", "achieved"])]
    wide = wide.pivot(index=["rate", "block"], columns="metric", values="value")
    return wide["achieved"] / wide["offered"]


def _behind(rows: pd.DataFrame) -> Callable[[float], bool]:
    shares = _shares(rows)
    return lambda rate: falls_behind(np.asarray(shares.loc[rate]))


def _called(records: str, keys: int) -> str:
    what = "one operation a call" if keys == 1 else f"{keys:,} operations a call"
    return f"{named(records)}, {what}"
