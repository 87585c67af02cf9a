"""Figures, tables and sentences of notebook 03: ways, the tuner beside all it could have chosen, scaling, single calls, threads.

In the style of `figures`; each takes samples or stored figures and shows all of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from ..bench import tuning_samples as measured
from ..bench.results import Run, read_figures, reference_directory
from ..bench.statistics import median_interval
from ..client import Predis
from ..errors import CacheFull, InvalidValue
from . import units
from .figures import INK, SOFT, draw_line, legend_beside, new_axes, style, tick_text
from .kernel_show import NOTHING
from .show import banner, table

_LOOKS = {"doorbell": ("#009E73", "s"), "launch": ("#E69F00", "v"), "pipeline": ("#0072B2", "o")}
GOAL = "#D55E00"


def source(run: Run, on_gpu: bool) -> tuple[dict[str, dict[str, Any]], Markdown]:
    """The figures to speak of, and where they come from: this run, the recorded one, or nowhere yet."""
    if on_gpu:
        return run.figures, Markdown("Measured here, in this run.")
    recorded = reference_directory()
    figures = read_figures(recorded) if recorded else {}
    if recorded and "tuning_regret_max" in figures:
        return figures, banner(recorded, run.notebook)
    held = f" (`outputs/reference/{recorded.name}`)" if recorded else ""
    return {}, Markdown(
        f"> **Not measured here, and not recorded.** No GPU answers, and the recorded run{held} does not hold this notebook "
        "yet: what follows shows what needs no GPU, and says so where something is missing."
    )


def constants(samples: pd.DataFrame) -> HTML:
    """What the tuner knows of the machine."""
    rows = [
        (row.metric.removesuffix("_s").replace("_", " "), units.format_quantity(row.value, row.unit))
        for row in samples.itertuples()
    ]  # fmt: skip
    return table(rows, ["constant", "measured"])


# ---- Ways


def crossovers(samples: pd.DataFrame) -> Figure:
    """Seconds of a lookup against keys a call, a line for each way; both logarithmic, bars are 95 % intervals."""
    nbytes = int(samples["value_nbytes"].iloc[0])
    figure, axes = new_axes(f"A lookup by each way, values of {nbytes:,} B")
    for way, (colour, marker) in _LOOKS.items():
        points = list(measured.by_rows(samples[samples["way"] == way]))
        if points:
            draw_line(axes, points, colour, marker, measured.WAYS[way])
    axes.set(xscale="log", yscale="log", xlabel="keys a call", ylabel="a call takes")
    _few(axes.xaxis, sorted(set(samples["rows"])), "{:,.0f}")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value, "s")))
    legend_beside(axes)
    return figure


def crossovers_verdict(samples: pd.DataFrame) -> Markdown:
    """From how many keys on each way takes less than the one before it."""
    lines = []
    ways = [way for way in _LOOKS if way in set(samples["way"])]
    for one, other in itertools.pairwise(ways):
        at = measured.crossing(samples, one, other)
        said = f"from **{at:,} keys** on" if at is not None else "nowhere in what was measured"
        lines.append(f"- {measured.WAYS[other]} takes less than {measured.WAYS[one]} {said}")
    return Markdown("\n".join(lines) or NOTHING)


# ---- The map


def regret_map(samples: pd.DataFrame) -> Figure:
    """What the tuner takes beyond the best fixed setting: a panel a verb, a square for each size of values and of batches."""
    cells = measured.regrets(samples)
    style()
    verbs = sorted({cell.verb for cell in cells})
    sizes, batches = ([*sorted({getattr(c, name) for c in cells})] for name in ("value_nbytes", "rows"))  # fmt: skip
    figure, panels = plt.subplots(
        len(verbs), 1, figsize=(8.2, (0.55 * len(sizes) + 1.3) * len(verbs)), squeeze=False
    )
    norm = TwoSlopeNorm(0, -2 * measured.REGRET_MOST, 2 * measured.REGRET_MOST)
    for verb, axes in zip(verbs, panels[:, 0], strict=True):
        grid = np.full((len(sizes), len(batches)), np.nan)
        for cell in (cell for cell in cells if cell.verb == verb):
            at = sizes.index(cell.value_nbytes), batches.index(cell.rows)
            grid[at] = cell.regret.value
            strong = abs(cell.regret.value) > 1.3 * measured.REGRET_MOST
            axes.text(at[1], at[0], f"{cell.regret.value:+.1%}\n{cell.chosen}", ha="center", va="center",
                      fontsize=8, color="white" if strong else INK)  # fmt: skip
        axes.imshow(grid, cmap="PuOr_r", norm=norm, aspect="auto")
        axes.set_title(f"{verb}: beyond the best fixed setting, and the way chosen")
        axes.set_xticks(range(len(batches)), [f"{rows:,}" for rows in batches])
        axes.set_yticks(range(len(sizes)), [f"{size:,} B" for size in sizes])
        axes.grid(False)
        axes.tick_params(length=0)
    panels[-1, 0].set_xlabel("keys a call")
    figure.tight_layout()
    plt.close(figure)
    return figure


def regret_table(samples: pd.DataFrame) -> HTML:
    """Each point: the best fixed setting, what the tuner's calls went by, and its regret."""
    rows = [
        (cell.verb, f"{cell.value_nbytes:,}", f"{cell.rows:,}", cell.best, measured.WAYS[cell.chosen], _percent(cell.regret))
        for cell in measured.regrets(samples)
    ]  # fmt: skip
    return table(rows, ["", "value, B", "keys", "best fixed setting", "the tuner's way", "regret"])


def regret_verdict(samples: pd.DataFrame) -> Markdown:
    """Where the tuner comes within the goal of the best fixed setting, and where it does not."""
    cells = measured.regrets(samples)
    within = [cell for cell in cells if cell.regret.value <= measured.REGRET_MOST]
    worst = max(cells, key=lambda cell: cell.regret.value)
    lines = [
        f"- Within {measured.REGRET_MOST:.0%} of the best fixed setting at **{len(within)} of {len(cells)}** points.",
        f"- At worst **{_percent(worst.regret)}**: {worst.verb}, {worst.value_nbytes:,} B, {worst.rows:,} keys, "
        f"by {measured.WAYS[worst.chosen]} where `{worst.best}` was best.",
    ]
    beyond = [cell for cell in cells if cell.regret.low > measured.REGRET_MOST]
    if beyond:
        lines.append(f"- Beyond it with their whole intervals: {len(beyond)} points.")
    return Markdown("\n".join(lines))


def _percent(interval: Any) -> str:
    return f"{interval.value:+.1%} [{interval.low:+.1%}, {interval.high:+.1%}]"


# ---- Adaptation


def adaptation(samples: pd.DataFrame) -> Figure:
    """Each call in turn, by the way it went; the best fixed setting of each phase as a line."""
    figure, axes = new_axes("While the size of values changes")
    tuned, fixed = (samples[samples["system"] == name] for name in (measured.TUNER, "best fixed"))
    start, shown = 0, set()
    for phase, calls in tuned.groupby("phase"):
        ended = start + len(calls)
        for way, rows in calls.groupby("way"):
            colour, marker = _LOOKS[way]
            axes.plot(start + rows["block"], rows["value"], marker, color=colour, markersize=3, linestyle="none",
                      label="" if way in shown else measured.WAYS[way])  # fmt: skip
            shown.add(way)
        best = fixed.loc[fixed["phase"] == phase, "value"].median()
        axes.hlines(best, start, ended, color=GOAL, linewidth=1.8, label="" if start else "best fixed setting")  # fmt: skip
        if start:
            axes.axvline(start, color=SOFT, linewidth=1)
        axes.annotate(f"{calls['value_nbytes'].iloc[0]:,.0f} B", (start, 1), (4, -10), fontsize=9, color=INK,
                      xycoords=("data", "axes fraction"), textcoords="offset points")  # fmt: skip
        start = ended
    axes.set(yscale="log", xlabel="calls since the start", ylabel="a call takes", xlim=(0, start))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value, "s")))
    legend_beside(axes)
    return figure


def adaptation_verdict(samples: pd.DataFrame) -> Markdown:
    """Of each phase: what the second half of its calls took, beside the best fixed setting."""
    lines = []
    tuned, fixed = (samples[samples["system"] == name] for name in (measured.TUNER, "best fixed"))
    for phase, calls in tuned.groupby("phase"):
        later = calls[calls["block"] >= calls["block"].max() / 2]
        best = fixed.loc[fixed["phase"] == phase, "value"].median()
        over = later["value"].median() / best - 1
        switched = int((calls["way"] != calls["way"].shift()).sum() - 1)
        lines.append(
            f"- {calls['value_nbytes'].iloc[0]:,.0f} B: by {measured.WAYS[later['way'].mode().iloc[0]]}, "
            f"**{over:+.1%}** beside the best fixed setting; the way changed {switched} times, trials included"
        )
    return Markdown("\n".join(lines))


# ---- Scaling


def scaling(samples: pd.DataFrame) -> Figure:
    """Keys a second against keys a call, the way of each point marked; dashes are as much more as there are more keys."""
    figure, axes = new_axes("Lookups as batches grow")
    points = list(measured.by_rows(samples))
    axes.plot([p[0] for p in points], [p[1].value for p in points], color=SOFT, linewidth=1.2)
    for way, (colour, marker) in _LOOKS.items():
        chosen = list(measured.by_rows(samples[samples["way"] == way]))
        rows, rates = [p[0] for p in chosen], [p[1] for p in chosen]
        if rows:
            axes.plot(rows, [r.value for r in rates], marker, color=colour, label=measured.WAYS[way])  # fmt: skip
            axes.vlines(rows, [r.low for r in rates], [r.high for r in rates], color=colour)
    first, most = points[0], max(point[1].value for point in points)
    ends = [first[0], most / first[1].value * first[0]]
    axes.plot(ends, [first[1].value, most], "--", color=GOAL, linewidth=1.2, label="in proportion")
    axes.set(xscale="log", yscale="log", xlabel="keys a call", ylabel="keys a second")
    _few(axes.xaxis, [p[0] for p in points], "{:,.0f}")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value, "1/s")))
    legend_beside(axes)
    return figure


def scaling_table(samples: pd.DataFrame) -> HTML:
    """Each size of batch: rate, way, and the stage that binds by the model."""
    rows = []
    for count, one in measured.by_rows(samples):
        at = samples[samples["rows"] == count].iloc[0]
        shown = units.format_figure({**vars(one), "unit": "1/s"})
        rows.append((f"{count:,}", shown, measured.WAYS[at["way"]], at["binding"] or "not told"))
    return table(rows, ["keys", "keys a second [95 % interval]", "way", "bound by, says the model"])


def scaling_verdict(samples: pd.DataFrame) -> Markdown:
    """Slopes from ten keys to ten thousand and beyond, where the line bends, and what binds there."""
    lines = []
    for low, high in ((10, 10_000), (10_000, float("inf"))):
        slope = measured.slope(samples, low, high)
        if slope is not None:
            span = f"{low:,} to {high:,}" if high < float("inf") else f"{low:,} on"
            lines.append(f"- Slope from {span} keys: **{slope:.2f}** (1: a call takes the same however many keys it has)")  # fmt: skip
    bend = measured.bend(samples)
    if bend is None:
        lines.append("- It does not bend in what was measured.")
    else:
        at = samples[samples["rows"] == bend].iloc[0]
        told = f"; by the model {at['binding']} binds there" if at["binding"] else ""
        lines.append(f"- It bends at **{bend:,} keys** ({measured.WAYS[at['way']]}){told}.")
    return Markdown("\n".join(lines))


# ---- Figures against their limits


def limits(figures: dict[str, dict[str, Any]], names: dict[str, str], most: dict[str, float]) -> HTML:  # fmt: skip
    """Figures by id -> label with their intervals, and what they are to stay below."""
    rows = []
    for name in (name for name in names if name in figures):
        entry, limit = figures[name], most.get(name)
        goal = units.format_quantity(limit, entry["unit"]) if limit else ""
        met = "" if limit is None else "met" if entry["value"] <= limit else "missed"
        rows.append((names[name], units.format_figure(entry), str(entry["n"]), goal, met))
    return table(rows, ["", "median [95 % interval]", "n", "at most", "verdict"])


def threads(samples: pd.DataFrame) -> Figure:
    """Keys a second against threads, a line for each size of call; both logarithmic."""
    figure, axes = new_axes("Lookups from several threads")
    rates = samples[samples["metric"] == measured.RATE]
    looks = [("#009E73", "s"), ("#E69F00", "v"), ("#0072B2", "o"), (INK, "^")]
    for (rows, group), (colour, marker) in zip(rates.groupby("rows"), looks, strict=False):
        points = [(int(n), median_interval(one["value"].to_numpy())) for n, one in group.groupby("threads")]  # fmt: skip
        name = "single gets" if rows == 1 else f"{int(rows):,} keys a call"  # type: ignore[call-overload]
        draw_line(axes, points, colour, marker, name)
    axes.set(xscale="log", yscale="log", xlabel="threads", ylabel="keys a second, all together")
    _few(axes.xaxis, sorted(set(rates["threads"])), "{:.0f}")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value, "1/s")))
    legend_beside(axes)
    return figure


def threads_verdict(samples: pd.DataFrame) -> Markdown:
    """For each size of call: what most threads reach beside one, and how long a call takes at p99."""
    lines = []
    for rows, group in samples.groupby("rows"):
        wide = group.pivot_table(index="threads", columns="metric", values="value", aggfunc="median")  # fmt: skip
        most, one = wide.index.max(), wide.index.min()
        ratio = wide.loc[most, measured.RATE] / wide.loc[one, measured.RATE]
        tail = units.format_quantity(wide.loc[most, measured.LATENCY], "s")
        name = "Single gets" if rows == 1 else f"{int(rows):,} keys a call"  # type: ignore[call-overload]
        lines.append(f"- {name}: {int(most)} threads answer **{ratio:.2f} times** what {int(one)} does; p99 of a call {tail}")  # fmt: skip
    return Markdown("\n".join(lines))


def beside_verdict(figures: dict[str, dict[str, Any]]) -> Markdown:
    """What is left of bulk lookups while single gets go on beside them."""
    alone = figures["beside_alone"]["value"]
    return Markdown(
        "\n".join(
            f"- {label}: **{figures[name]['value'] / alone:.0%}** of the rate alone"
            for name, label in measured.BESIDES.items()
            if name in figures and name != "beside_alone"
        )
    )


# ---- Partial failures


def partial_failures(backend: str) -> list[str]:
    """What becomes of batches that can't be stored as a whole, on purpose; the answers do not depend on the machine."""
    lines = []
    small, large = b"v" * 64, bytes(2**26 + 1)
    with Predis("16MiB", backend=backend) as cache:
        report = cache.insert([b"a", b"b", b"a", b"c"], [small, large, small, small])
        lines.append(f"too large:  {report.counts()}")
        lines.append(f"            b is {cache.get(b'b')!r}, {cache.dbsize()} keys are there")
        try:
            cache.mset({b"d": small, b"e": large})
        except InvalidValue as error:
            lines.append(f"mset:       {type(error).__name__}, statuses {error.status.tolist()}")
        lines.append(f"            d is there: {cache.get(b'd') == small}")
        cache.flushdb()
        keys = [b"%04d" % number for number in range(64)]
        report = cache.insert(keys, [bytes([number]) * 2**19 for number in range(64)])
        there = cache.contains(keys)
        stored = (report.status == 0).tolist()
        lines.append(
            f"no space:   {sorted(report.counts())}, {len(keys)} records of 512 KiB into 16 MiB"
        )
        lines.append(f"            what is there is what was stored: {there.tolist() == stored}")
        whole = all(cache.get(key) == bytes([n]) * 2**19 for n, key in enumerate(keys) if stored[n])
        lines.append(f"            each of them whole: {whole}")
        try:
            cache.mset({key: bytes(2**19) for key in keys})
        except CacheFull as error:
            lines.append(f"mset:       {type(error).__name__}, {len(error.status)} statuses")
    return lines


def summary(verdicts: Sequence[Markdown]) -> Markdown:
    """All of them together; those with nothing to say share one line."""
    said = [verdict.data for verdict in verdicts if verdict.data != NOTHING]
    missing = [f"Of the rest: {NOTHING[0].lower()}{NOTHING[1:]}"] if len(said) < len(verdicts) else []  # fmt: skip
    return Markdown("\n\n".join([*said, *missing]))


def _few(axis: Any, places: Sequence[float], shape: str) -> None:
    """Ticks at these places, or at some of them where they are many."""
    axis.set_ticks(list(places)[:: -(-len(places) // 8)])
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: shape.format(value)))
