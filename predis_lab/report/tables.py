"""The report's tables, as text. Called by `html` and notebook 09."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import HTML

from ..bench import pipeline_samples, regressions
from ..bench.results import ROOT, read_environment, read_samples
from ..bench.statistics import median_interval
from . import comparison, scaling, show, units
from .facts import MISSING, Facts
from .report_figures import short_count
from .sentences import face, is_reading, named, of_work, work_name
from .tails import PERCENTILES, tails

NONE = "\N{EN DASH}"  # where nothing was measured
MOST_CHANGES = 20  # of each kind that the report shows
_NUMBER = re.compile(rf"[\d+{NONE}-]|$")
Rows = list[tuple[str, ...]]


@dataclass(frozen=True)
class Table:
    """Rows of text under a heading each, where there are several kinds of rows."""

    columns: tuple[str, ...]
    groups: list[tuple[str, Rows]]

    def __len__(self) -> int:
        return sum(len(rows) for _, rows in self.groups)

    @property
    def numeric(self) -> list[bool]:
        """By column whether all that stands in it begins with a digit."""
        rows = [row for _, rows in self.groups for row in rows]
        return [all(_NUMBER.match(row[at]) for row in rows) for at in range(len(self.columns))]

    def _repr_html_(self) -> str:
        if not len(self):
            return f"{MISSING[0].upper()}{MISSING[1:]}."
        grouped = any(heading for heading, _ in self.groups)
        rows = [(heading,) * grouped + row for heading, rows in self.groups for row in rows]
        shown: HTML = show.table(rows, ["", *self.columns] if grouped else self.columns)
        return str(shown.data)


def plain(columns: Sequence[str], rows: Sequence[tuple[str, ...]]) -> Table:
    """A table of one kind of rows."""
    return Table(tuple(columns), [("", list(rows))])


# ---- Comparisons


def side_by_side(facts: Facts) -> Table:
    """Every cell and face of Predis, each way of comparison in a column of its own."""
    columns = {
        "in process: over a dict": (facts.in_process, ("command",)),
        "behind a socket: over Redis": (facts.behind_a_socket, ("command", "pipeline")),
        "same depth: over one Redis command": (facts.at_depth, ("command",)),
        "same depth: over a Redis pipeline": (facts.at_depth, ("pipeline",)),
    }
    told: dict[tuple, dict[str, str]] = {}
    for column, (way, asked) in columns.items():
        for row in way.compared.itertuples():
            if comparison.way(row.baseline) in asked:
                key = (row.workload, row.records, row.keys, face(row.candidate))
                told.setdefault(key, {})[column] = f"{comparison.ratio_text(row)} {row.verdict}"
    groups: dict[str, Rows] = {}
    for key in sorted(told, key=lambda key: (facts.order.index(key[:2]), key)):
        workload, records, keys, how = key
        cells = (told[key].get(column, NONE) for column in columns)
        groups.setdefault(work_name(workload, records), []).append((f"{int(keys):,}", how, *cells))
    return Table(("keys a call", "Predis", *columns), list(groups.items()))


def comparisons(facts: Facts) -> Table:
    """Every comparison of every way with both rates, effect size, p and verdict."""
    groups: list[tuple[str, Rows]] = []
    for way in facts.ways:
        rows: Rows = [
            (
                work_name(row.workload, row.records), f"{int(row.keys):,}", face(row.candidate), _rate(facts, row, row.candidate),
                named(row.baseline), _rate(facts, row, row.baseline), comparison.ratio_text(row), f"{row.delta:+.2f}",
                str(min(row.n_candidate, row.n_baseline)), f"{row.p_adjusted:.1e}", row.verdict,
            )
            for row in way.compared.itertuples()
        ]  # fmt: skip
        if rows:
            groups.append((f"{way.name}, {way.verdicts}", rows))
    columns = (
        *("workload", "keys", "Predis", "operations a second", "against", "operations a second"),
        *("ratio", "Cliff's delta", "blocks", "p", "verdict"),
    )
    return Table(columns, groups)


def growth(facts: Facts) -> Table:
    """For each system the growth of its rate over every step of keys a call, and what it is called."""
    found = {
        (workload, records, system): {(s.fewer, s.more): s for s in scaling.steps(rates)}
        for workload, records in facts.series
        for system, rates in facts.rates(workload, records).items()
        if len(rates) > 1
    }
    ends = sorted({step for steps in found.values() for step in steps})
    groups: dict[str, Rows] = {}
    for (workload, records, system), steps in found.items():
        cells = (_grown(steps[end]) if end in steps else "" for end in ends)
        groups.setdefault(work_name(workload, records), []).append((named(system), *cells))
    return Table(
        ("system", *(f"{short_count(a)} to {short_count(b)}" for a, b in ends)),
        list(groups.items()),
    )


def latencies(facts: Facts) -> Table:
    """Percentiles of a call by workload, keys and system; a star where only all blocks together had calls enough."""
    groups = []
    for workload, records in facts.series:
        found = tails(facts, workload, records)
        rows = []
        for (keys, system), one in found.groupby(["keys", "system"]):
            values = {row.percentile: _wait(row) for row in one.itertuples()}
            rows.append((f"{keys:,}", named(str(system)), *(values.get(name, "") for name in PERCENTILES)))  # fmt: skip
        if rows:
            groups.append((work_name(workload, records), rows))
    return Table(("keys a call", "system", *PERCENTILES), groups)


def sustained(facts: Facts) -> Table:
    """What was reached over minutes."""
    names = [name for name in pipeline_samples.LOAD if name in facts.stored]
    rows = [
        (pipeline_samples.LOAD[name], units.format_figure(facts.stored[name]), f"{facts.stored[name]['n']:,}")
        for name in names
    ]  # fmt: skip
    return plain(("", "median [95 % interval]", "n"), rows)


def by_load(facts: Facts, workload: str, metric: str, load: str) -> Table:
    """A metric by system and load (a parameter, such as the number of clients), one group for each other setting."""
    found = of_work(facts, workload)
    found = found[found["metric"] == metric]
    if not len(found):
        return Table((load,), [])
    found = found.assign(_beside=[_beside(params, load) for params in found["params"]])
    loads = sorted(found[load].unique())
    groups: dict[str, Rows] = {}
    for (beside, system), rows in found.groupby(["_beside", "system"], sort=False):
        told = {
            at: _told(blocks["value"], blocks["unit"].iloc[0]) for at, blocks in rows.groupby(load)
        }
        cells = (told.get(at, "") for at in loads)
        groups.setdefault(str(beside), []).append((named(str(system)), *cells))
    return Table((load, *(f"{at:,.0f}" for at in loads)), list(groups.items()))


def machine_summary(facts: Facts) -> Table:
    """What the machine did and what failed, over all that was measured: what was least, usual and most."""
    rows = []
    for metric, found in _readings(facts).groupby("metric", sort=True):
        ends = (found["value"].median(), found["value"].min(), found["value"].max())
        told = (units.format_quantity(float(end), found["unit"].iloc[0]) for end in ends)
        rows.append((str(metric).replace("_", " "), *told, f"{len(found):,}"))
    return plain(("", "median", "least", "most", "blocks"), rows)


def readings(facts: Facts) -> Table:
    """The same by system, with intervals."""
    groups: dict[str, Rows] = {}
    for (metric, system), found in _readings(facts).groupby(["metric", "system"]):
        told = _told(found["value"], found["unit"].iloc[0])
        row = (named(str(system)), told, str(len(found)))
        groups.setdefault(str(metric).replace("_", " "), []).append(row)
    return Table(("while", "median [95 % interval]", "blocks"), list(groups.items()))


def stored_figures(facts: Facts) -> Table:
    """Every figure that a notebook recorded, with its ceiling; ratios of comparisons stand in their own table."""
    rows = []
    for name, one in sorted(facts.stored.items()):
        if "_over_" not in name:
            row = units.figure_row(name, one)
            rows.append((name, row["value"], row["n"], row["ceiling"], row["share"]))
    return plain(("figure", "value [95 % interval]", "n", "ceiling", "of it"), rows)


# ---- Against the recorded run


def baseline_of(directory: Path) -> Path:
    """The recorded run of this machine; raises NoRunError, with its reason, where there is none but this."""
    baseline = regressions.default_baseline(directory)
    if baseline.resolve() == directory.resolve():
        raise regressions.NoRunError("this is the recorded run of its machine")
    return baseline


def changes(facts: Facts) -> tuple[str, Table | None]:
    """What became slower and faster since the recorded run of the same machine: a sentence, and a table where there is one."""
    try:
        baseline = baseline_of(facts.directory)
    except regressions.NoRunError as reason:
        return f"Not compared with an earlier run: {str(reason).replace(f'{ROOT}/', '')}.", None
    found = regressions.table(facts.samples, read_samples(baseline))
    if not len(found.cells):
        return f"This run and {baseline.name} have no measurement in common.", None
    counts = found.cells["verdict"].value_counts()
    said = ", ".join(f"{counts.get(one, 0)} {one}" for one in regressions.VERDICTS)
    apart = regressions.differences(facts.environment, read_environment(baseline))
    sentence = (
        f"Of {len(found.cells)} cells that {baseline.name} measured too: {said}. Changes within "
        f"{max(found.floor, regressions.LEAST):.1%} are not claimed, and it takes {found.needed} blocks a side to tell."
    )
    if apart:
        sentence += f" The environments differ, and a changed machine is no regression of the code: {'; '.join(apart)}."
    kinds = ((regressions.REGRESSED, "Slower", False), (regressions.IMPROVED, "Faster", True))
    groups = [
        (heading, list(_changed(found.cells[found.cells["verdict"] == verdict], best_first)))
        for verdict, heading, best_first in kinds
    ]
    groups = [
        (f"{heading}: {len(rows)}" + (f", of which the first {MOST_CHANGES}" if len(rows) > MOST_CHANGES else ""), rows[:MOST_CHANGES])
        for heading, rows in groups
        if rows
    ]  # fmt: skip
    columns = ("system", "cell", "metric", "before", "now", "ratio", "Cliff's delta", "p")
    return sentence, Table(columns, groups) if groups else None


def _changed(cells: pd.DataFrame, best_first: bool) -> Iterator[tuple[str, ...]]:
    for row in cells.sort_values("ratio", ascending=not best_first).itertuples():
        cell = " ".join([row.workload, *(f"{k}={v}" for k, v in json.loads(row.params).items())])
        yield (
            row.system, cell, row.metric, units.format_quantity(row.before, row.unit),
            units.format_quantity(row.now, row.unit), comparison.ratio_text(row), f"{row.delta:+.2f}", f"{row.p_adjusted:.1e}",
        )  # fmt: skip


# ---- Cells of tables


def _readings(facts: Facts) -> pd.DataFrame:
    metrics = [metric for metric in facts.samples["metric"].unique() if is_reading(metric)]
    return facts.samples[facts.samples["metric"].isin(metrics) & (facts.samples["block"] >= 0)]


def _beside(params: str, load: str) -> str:
    rest = {k: v for k, v in json.loads(params).items() if k not in (load, "value_nbytes")}
    return ", ".join(f"{name} {value}" for name, value in rest.items())


def _grown(step: scaling.Step) -> str:
    return f"{step.growth.value:.2f} [{step.growth.low:.2f}, {step.growth.high:.2f}] {step.said}"


def _rate(facts: Facts, row: Any, system: str) -> str:
    blocks = facts.rates(row.workload, row.records)[system][int(row.keys)]
    return _told(blocks, "1/s")


def _told(blocks: np.ndarray | pd.Series, unit: str) -> str:
    """The median, with its interval where there are two blocks or more."""
    if len(blocks) < 2:
        return units.format_quantity(float(np.asarray(blocks)[0]), unit)
    return units.format_figure(vars(median_interval(np.asarray(blocks))) | {"unit": unit})


def _wait(row: Any) -> str:
    if math.isnan(row.low):
        return f"{units.format_quantity(row.value, 's')} *"
    return units.format_figure(row._asdict() | {"unit": "s"})
