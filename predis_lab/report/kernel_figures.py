"""Figures of notebooks 01 and 02: the ladder against its ceilings, launch settings, predicted occupancy.

In the style of `figures`; each takes samples or predictions and draws all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ..bench import kernel_samples
from ..bench.kernel_samples import CEILING, WINNER, Cell
from ..bench.launch_settings import KERNELS, Prediction
from ..bench.statistics import median_interval
from ..gpu.ladder import RUNGS
from . import units
from .figures import INK, draw_line, legend_beside, new_axes, style, tick_text

CLIMB, BESIDE, SERVES, BOUND, OTHER = "#0072B2", "#56B4E9", "#009E73", "#D55E00", "#8A6FA8"
WANTED = 0.75  # occupancy
# By place in the legend: told apart in grey by their markers.
_SERIES = [
    (CLIMB, "o"),
    (BOUND, "^"),
    (SERVES, "s"),
    ("#E69F00", "v"),
    ("#8A6FA8", "D"),
    (INK, "P"),
]


def ladder(samples: pd.DataFrame, workload: str) -> Figure:
    """Every rung as a share of the ceiling, with its rate: a panel for each batch of small values, and each larger value."""
    shown = _panels(samples, workload)
    rungs = kernel_samples.rungs_of(samples, workload)
    climb = [name for name in rungs if kernel_samples.is_climb(name)]
    # A row is left free before what is no step of the climb.
    rows = [*climb, WINNER, None, *(name for name in rungs if name not in climb)]
    if rows[-1] is None:
        del rows[-1]
    style()
    figure, panels = plt.subplots(
        1, len(shown), figsize=(2.6 + 2.2 * len(shown), 0.3 * len(rows) + 1.3), sharey=True, squeeze=False
    )  # fmt: skip
    furthest = 1.0
    for axes, cell in zip(panels[0], shown, strict=True):
        for at, system in enumerate(rows):
            if system is not None:
                furthest = max(furthest, _rung(axes, at, system, samples, workload, cell))
        axes.axvline(1, color=BOUND, linewidth=2)
        axes.set_title(f"{cell[0]:,} B, {cell[1]:,} keys", fontsize=10.5)
        axes.tick_params(axis="y", length=0)
        axes.set(ylim=(len(rows) - 0.4, -0.6), xticks=[0, 0.5, 1])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        axes.grid(False, axis="y")
    for axes in panels[0]:
        axes.set_xlim(0, 1.5 * furthest)  # rates stand at the right
    places = [at for at, system in enumerate(rows) if system]
    panels[0][0].set_yticks(places, [_label(system) for system in rows if system], color=INK)
    figure.suptitle(f"{workload.capitalize()}: keys a second, as a share of the same accesses alone",
                    x=0.01, ha="left", color=INK, fontweight="bold", fontsize=12)  # fmt: skip
    figure.tight_layout()
    plt.close(figure)
    return figure


def _panels(samples: pd.DataFrame, workload: str) -> list[Cell]:
    cells = kernel_samples.cells(samples, workload)
    smallest, most = cells[0][0], max(batch for _, batch in cells)
    return [cell for cell in cells if cell[0] == smallest or cell[1] == most]


def _label(system: str) -> str:
    if system == WINNER:
        return "serves the cache"
    return (
        f"{system} · {RUNGS[system].title}"
        if kernel_samples.is_climb(system)
        else RUNGS[system].title
    )


def _rung(
    axes: Axes, at: int, system: str, samples: pd.DataFrame, workload: str, cell: Cell
) -> float:
    """Draws one bar; how far it goes."""
    found = kernel_samples.rates(samples, system, workload, cell)
    ceiling = kernel_samples.rates(samples, CEILING, workload, cell)
    if len(found) < 2 or len(ceiling) < 2:
        return 0.0
    rate, bound = median_interval(found), median_interval(ceiling).value
    beside = system != WINNER and not kernel_samples.is_climb(system)
    colour = SERVES if system == WINNER else BESIDE if beside else CLIMB
    axes.barh(at, rate.value / bound, height=0.66, color=colour)
    axes.hlines(at, rate.low / bound, rate.high / bound, color=INK, linewidth=1.4)
    axes.annotate(units.format_quantity(rate.value, "1/s"), (1, at), xycoords=("axes fraction", "data"),
                  ha="right", va="center", color=INK, fontsize=8.5)  # fmt: skip
    return rate.high / bound


def launch_settings(samples: pd.DataFrame, kernel: str, by: str) -> Figure:
    """Rate against predicted occupancy, a line for each value of `by` ("threads", "pieces"); ringed: the usual setting.

    A line has the fastest setting of each occupancy. Bars are 95 % intervals.
    """
    chosen = kernel_samples.sweep_of(samples, kernel, by)
    figure, axes = new_axes(f"{kernel}, by {_NAMES[by]}")
    for (value, rows), (colour, marker) in zip(chosen.groupby(by), _SERIES, strict=False):
        points = [
            (float(occupancy), median_interval(group["value"].to_numpy()))
            for occupancy, group in _best_at_each(rows)
        ]
        draw_line(axes, points, colour, marker, f"{int(value)} {_NAMES[by]}")
    usual = chosen[chosen["usual"].astype(bool)]
    if len(usual):
        axes.plot(usual["occupancy"].iloc[0], usual["value"].median(), "o", markersize=14,
                  markerfacecolor="none", markeredgecolor=INK, linestyle="none", label="serves the cache")  # fmt: skip
    axes.set(
        xlabel="predicted occupancy", ylabel="keys a second", ylim=(0, 1.08 * chosen["value"].max())
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value, "1/s")))
    legend_beside(axes)
    return figure


_NAMES = {"threads": "threads a block", "pieces": "pieces under way", "rounds": "rounds under way"}


def _best_at_each(rows: pd.DataFrame):
    """By occupancy, the samples of the fastest setting that has it: different caps may come to the same registers."""
    for occupancy, group in rows.groupby("occupancy"):
        medians = group.groupby("params")["value"].median()
        yield occupancy, group[group["params"] == medians.idxmax()]


def predicted_occupancy(found: Sequence[Prediction]) -> Figure:
    """What the compiler's registers leave room for, by architecture: a bar for each kernel."""
    figure, axes = new_axes("Predicted occupancy, by architecture", 0.28 * len(found) + 1.4)
    architectures = list(dict.fromkeys(one.arch for one in found))
    for series, (kernel, colour) in enumerate(zip(KERNELS, (CLIMB, SERVES, OTHER), strict=True)):
        for one in (one for one in found if one.kernel == kernel):
            at = architectures.index(one.arch) + 0.28 * (series - 1)
            label = kernel if one.arch == architectures[0] else None
            axes.barh(at, one.occupancy.share, height=0.25, color=colour, label=label)
            spilled = f", {one.spill_nbytes} B spilled" if one.spill_nbytes else ""
            axes.annotate(f"{one.occupancy.share:.0%} · {one.registers} registers{spilled}", (0, at), (6, 0),
                          textcoords="offset points", va="center", color="white", fontsize=9)  # fmt: skip
    axes.axvline(WANTED, color=BOUND, linewidth=2)
    axes.set_yticks(range(len(architectures)), [f"sm_{arch}" for arch in architectures], color=INK)
    axes.set(
        xlim=(0, 1.02),
        ylim=(len(architectures) - 0.5, -0.5),
        xlabel="share of the warps that a multiprocessor holds",
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axes.grid(False, axis="y")
    legend_beside(axes)
    return figure
