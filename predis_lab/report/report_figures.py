"""The report's figures, each between its question and its answer. Called by `html` and notebook 09.

They are those of `figures`, made narrower for a column of a page or a phone, and a few that only the report has.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import Markdown, display
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ..bench import limits
from ..bench.statistics import median_interval
from . import comparison, figures, memory_figures, scaling, units
from .facts import Facts
from .figures import INK, SOFT, Described, legend_beside, look, new_axes, tick_text
from .sentences import VERBS, crossing, face, is_drawable, keys_text, named, work_name
from .tails import tails

HEIGHT = 4.4  # inches at most, without a legend
WIDTH = 5.2  # inches: type of 10 points is still that size on a phone


@dataclass(frozen=True)
class Shown:
    """A figure, the question that it answers, and the answer, written from the same data."""

    question: str
    figure: Figure
    answer: str


def show(shown: Sequence[Shown], nothing: str) -> None:
    """Shows them in a notebook; `nothing` where there are none."""
    for one in shown:
        answered = Described(one.figure, one.answer)
        display(Markdown(f"**{one.question}**"), answered, Markdown(one.answer))
    if not shown:
        display(Markdown(nothing))


# ---- By section


def throughput(facts: Facts) -> list[Shown]:
    """Operations a second: of whole calls, and of the table alone."""
    found = [_rates(facts, workload, records) for workload, records in _series(facts)]
    table = {
        name: label
        for name, label in limits.TABLE.items()
        if facts.stored.get(name, {}).get("ceiling")
    }
    if table:
        question = "How close does the table alone come to what its memory accesses allow?"
        title = "The table in GPU memory"
        figure = figures.shares(facts.stored, table, title, "share of the accesses alone")
        found.append(Shown(question, _narrow(figure), _reached(facts, table)))
    return found


def _rates(facts: Facts, workload: str, records: str) -> Shown:
    rates = facts.rates(workload, records)
    most = max(keys for by_keys in rates.values() for keys in by_keys)
    told = ", ".join(
        f"{named(system)} {_rate(by_keys[most])}"
        for system, by_keys in rates.items()
        if most in by_keys
    )
    return Shown(
        f"How many operations a second: {work_name(workload, records)}?",
        _narrow(figures.rates_by_keys(_drawable(facts.cells), workload, records)),
        f"At {keys_text(most)} a call: {told}.",
    )


def _reached(facts: Facts, table: dict[str, str]) -> str:
    shares = {
        label: facts.stored[name]["value"] / facts.stored[name]["ceiling"]
        for name, label in table.items()
    }
    least, most = min(shares, key=lambda one: shares[one]), max(shares, key=lambda one: shares[one])
    return (
        f"Between {shares[least]:.0%} ({least}) and {shares[most]:.0%} ({most}) of the rate that the same memory accesses "
        "reach by themselves; bars carry keys a second."
    )


def speedup(facts: Facts) -> list[Shown]:
    """Predis over Redis, by keys a call, and by scenario where there are several."""
    compared, best, found = _drawn(facts.at_depth.compared), _drawn(facts.at_best), []
    for workload, records in _series(facts):
        name = work_name(workload, records)
        rows = _of(compared, workload=workload, records=records)
        if len(rows):
            figure = figures.ratios(rows, f"{name}: Predis over Redis")
            answer = _wins(_of(best, workload=workload, records=records))
            found.append(Shown(f"How many times Redis's rate: {name}?", _narrow(figure), answer))
    for workload, rows in compared.groupby("workload", sort=False):
        if workload in VERBS or rows["records"].nunique() < 2:
            continue
        keys = int(rows["keys"].max())
        at = {"played": f"batches of {keys:,}", "single": "one by one"}
        title = at.get(str(workload), f"{workload}, {keys_text(keys)} a call")
        figure = figures.ratios_by_workload(rows, keys, f"{title.capitalize()}: Predis over Redis")
        answer = _verdicts(_of(best, workload=workload, keys=keys), keys)
        found.append(Shown(f"And as operations come in practice: {title}?", _narrow(figure), answer))  # fmt: skip
    return found


def latency(facts: Facts) -> list[Shown]:
    """p95 and p99 of a call by keys."""
    found = []
    for workload, records in _series(facts):
        table = tails(facts, workload, records)
        table = table[table["system"].map(is_drawable).astype(bool)]
        for percentile in ("p95", "p99"):
            rows = table[table["percentile"] == percentile]
            if len(rows):
                of = percentile.removeprefix("p")
                question = f"What do {of} of 100 calls stay within: {work_name(workload, records)}?"
                title = f"{work_name(workload, records)}: {percentile} of a call"
                found.append(Shown(question, _tail(rows, title), _longest(rows)))
    return found


def scaling_figures(facts: Facts) -> list[Shown]:
    """Growth by step, one figure a workload."""
    found = []
    for workload, records in _series(facts):
        steps = {
            system: scaling.steps(rates)
            for system, rates in facts.rates(workload, records).items()
            if len(rates) > 1 and is_drawable(system)
        }
        if steps:
            title = f"{work_name(workload, records)}: growth of the rate"
            question = f"Up to where do more keys a call mean a higher rate: {work_name(workload, records)}?"
            found.append(Shown(question, _growth(steps, title), _bends(facts, workload, records)))
    return found


def memory(facts: Facts) -> list[Shown]:
    """What a record takes."""
    found = []
    names = {
        name: name.removeprefix("record_nbytes_").capitalize()
        for name in sorted(facts.stored)
        if name.startswith("record_nbytes_")
    }
    if names:
        told = ", ".join(
            f"{label} {units.digits(facts.stored[name]['value'])} B"
            for name, label in names.items()
        )
        found.append(
            Shown(
                "How many bytes does a record take, all in all?",
                _narrow(figures.bars(facts.stored, names, "Bytes a record", "B")),
                f"{told}. Counted once, by each system's own accounting of the same records: a count has no interval.",
            )
        )  # fmt: skip
    if "record_part_payload" in facts.stored:
        parts = memory_figures.record_parts(facts.stored)
        found.append(Shown("Of what does that consist on the GPU?", _narrow(parts.figure), _parts(facts)))  # fmt: skip
    return found


# ---- Figures that only the report has


def _tail(rows: pd.DataFrame, title: str) -> Figure:
    """Seconds a call against keys a call; hollow and without an interval where only all blocks together had calls enough."""
    figure, axes = new_axes(title)
    for _, points in rows.groupby(
        rows["system"].map(named)
    ):  # GET at one key and MGET beyond are one line
        points = points.sort_values("keys")
        colour, marker, name = look(points["system"].iloc[0])
        axes.plot(points["keys"], points["value"], color=colour, linewidth=1.6)
        axes.plot([], [], marker, linestyle="-", color=colour, markersize=6, label=name)
        measured = points[points["low"].notna()]
        axes.vlines(
            measured["keys"], measured["low"], measured["high"], color=colour, linewidth=1.6
        )
        for one in points.itertuples():
            inside = "white" if math.isnan(one.low) else colour
            axes.plot(
                one.keys, one.value, marker, color=colour, markerfacecolor=inside, markersize=6
            )
    axes.set(xscale="log", yscale="log", xlabel="keys a call", ylabel="seconds a call")
    figures.quantities(axes, "y", "s")
    figures.counts(axes, rows["keys"])
    legend_beside(axes)
    return _narrow(figure)


def _growth(steps: dict[str, list[scaling.Step]], title: str) -> Figure:
    """Growth over each step at the middle of it, one line a system."""
    figure, axes = new_axes(title)
    for at, name in ((1, "as the keys"), (0, "not at all")):
        axes.axhline(at, color=INK, linewidth=1.2)
        axes.annotate(name, (1, at), (-2, 3), xycoords=("axes fraction", "data"), textcoords="offset points",
                      ha="right", fontsize=8.5, color=SOFT)  # fmt: skip
    ends = set()
    for system, found in steps.items():
        colour, marker, name = look(system)
        middle = [math.sqrt(step.fewer * step.more) for step in found]
        axes.plot(middle, [s.growth.value for s in found], marker=marker, color=colour, linewidth=1.4, markersize=5.5,
                  label=name)  # fmt: skip
        axes.vlines(
            middle,
            [s.growth.low for s in found],
            [s.growth.high for s in found],
            color=colour,
            linewidth=1.6,
        )
        ends |= {end for step in found for end in (step.fewer, step.more)}
    axes.set(xscale="log", xlabel="keys a call", ylabel="growth of the rate")
    figures.counts(axes, ends)
    legend_beside(axes)
    return _narrow(figure)


# ---- Answers


def _rate(blocks: np.ndarray) -> str:
    return units.format_figure(vars(median_interval(blocks)) | {"unit": "1/s"})


def _wins(best: pd.DataFrame) -> str:
    """From where on each face is faster, against Redis asked in its better way."""
    told = []
    for candidate, rows in best.groupby("candidate"):
        rows = rows.sort_values("keys")
        first = crossing(rows)
        where = (
            f"faster from {keys_text(first)} a call on" if first else "not faster at the most keys"
        )
        few, many = rows.iloc[0], rows.iloc[-1]
        told.append(
            f"{face(str(candidate))} {comparison.ratio_text(few)} at {keys_text(few['keys'])} and "
            f"{comparison.ratio_text(many)} at {keys_text(many['keys'])}, {where}"
        )
    return f"Against Redis asked in its better way: {'; '.join(told)}. Hollow: no difference is claimed."


def _verdicts(rows: pd.DataFrame, keys: int) -> str:
    told = []
    for candidate, found in rows.groupby("candidate"):
        faster = int((found["verdict"] == "faster").sum())
        least, most = (found.loc[found["ratio"].agg(end)] for end in ("idxmin", "idxmax"))
        told.append(
            f"{face(str(candidate))} are faster in {faster} of {len(found)}, from {comparison.ratio_text(least)} "
            f"({least['records']}) to {comparison.ratio_text(most)} ({most['records']})"
        )
    return f"At {keys_text(keys)} a call, against Redis asked in its better way: {'; '.join(told)}."


def _longest(rows: pd.DataFrame) -> str:
    few = rows[rows["keys"] == rows["keys"].min()].sort_values("value")
    told = ", ".join(f"{named(row.system)} {_seconds(row)}" for row in few.itertuples())
    hollow = " Hollow, without interval: over all blocks together, because one had too few calls." if rows["low"].isna().any() else ""  # fmt: skip
    return f"At {keys_text(few['keys'].iloc[0])} a call: {told}.{hollow}"


def _seconds(row: object) -> str:
    low, high = (None if math.isnan(end) else end for end in (row.low, row.high))  # type: ignore[attr-defined]
    return units.format_figure({"value": row.value, "low": low, "high": high, "unit": "s"})  # type: ignore[attr-defined]


def _bends(facts: Facts, workload: str, records: str) -> str:
    return " ".join(
        line for system, line in bends(facts, workload, records) if system.startswith("predis")
    )


def bends(facts: Facts, workload: str, records: str) -> Iterator[tuple[str, str]]:
    """For each system where its rate stops growing as the keys do, and what a call's fixed part has to do with it."""
    for system, rates in facts.rates(workload, records).items():
        if len(rates) < 2:
            continue
        step, cost = scaling.bend(scaling.steps(rates)), scaling.cost(rates)
        where = "no bend that the samples show"
        if step:
            grown = step.growth
            where = f"bends between {step.fewer:,} and {step.more:,} keys (growth {grown.value:.2f} [{grown.low:.2f}, {grown.high:.2f}])"  # fmt: skip
        yield (
            system,
            f"{named(system)}: {where}. A call of {keys_text(cost.fewest)} takes {units.format_quantity(cost.call_s, 's')}, as long as "
            f"{units.digits(cost.balance)} keys at the {units.format_quantity(cost.key_s, 's')} a key of calls of {cost.most:,}.",
        )


def _parts(facts: Facts) -> str:
    stored = facts.stored
    overhead = sum(one["value"] for name, one in stored.items() if name.startswith("record_part_")) - stored["record_part_payload"]["value"]  # fmt: skip
    return (
        f"Of a full cache's {units.digits(stored['record_part_payload']['value'] + overhead)} B a record, "
        f"{units.digits(overhead)} B are not its key and value."
    )


# ---- Parts of figures


def _series(facts: Facts) -> list[tuple[str, str]]:
    return [cell for cell in facts.series if any(map(is_drawable, facts.rates(*cell)))]


def _of(rows: pd.DataFrame, **where: Any) -> pd.DataFrame:
    """Those rows in which columns have these values."""
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return rows


def _drawn(compared: pd.DataFrame) -> pd.DataFrame:
    return compared[compared["candidate"].map(is_drawable).astype(bool)]


def _drawable(cells: pd.DataFrame) -> pd.DataFrame:
    return cells[cells["system"].map(is_drawable).astype(bool)]


def _narrow(figure: Figure) -> Figure:
    """The figure for a column of the page: the title from its edge on, numbers of keys written short, the legend below."""
    (axes,) = figure.axes
    title = axes.get_title(loc="left")
    figure.suptitle(title, x=0.02, ha="left", fontsize=11, fontweight="bold", color=INK)
    axes.set_title("")
    height = min(HEIGHT, figure.get_size_inches()[1])
    if axes.get_xlabel() == "keys a call":
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    elif axes.get_xscale() == "linear":
        axes.locator_params(axis="x", nbins=5)
    if legend := axes.get_legend():
        handles, labels = axes.get_legend_handles_labels()
        legend.remove()
        columns = 1 if max(map(len, labels)) > 24 else 2
        figure.legend(handles, labels, loc="outside lower left", labelcolor=INK, fontsize=9, ncols=columns)  # fmt: skip
        height += 0.2 * -(-len(labels) // columns)
    figure.set_size_inches(WIDTH, height)
    figure.set_layout_engine("constrained")
    return figure


def short_count(value: float) -> str:
    """A number of keys where there is little room.

    >>> short_count(10), short_count(100_000)
    ('10', '100 k')
    """
    return tick_text(value, "1/s").removesuffix("/s").strip()
