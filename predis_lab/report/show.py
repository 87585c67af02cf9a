"""What notebooks show beside figures: progress, tables, and sentences written from the data."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import HTML, Markdown
from tqdm import tqdm

from ..bench.harness import POOLED
from ..bench.results import Run, read_environment, read_figures, reference_directory
from . import comparison, units
from .figures import look
from .html import figure_row, machine_rows


@contextmanager
def progress(rounds: int, what: str) -> Iterator[tqdm]:
    """A bar on standard output for as many rounds, gone when it is done; `update` counts one."""
    with tqdm(total=rounds, desc=what, file=sys.stdout, leave=False, mininterval=0.5) as bar:
        yield bar


def table(rows: Sequence[Sequence[Any]], columns: Sequence[str]) -> HTML:
    """Rows of text as a table; a column whose entries begin with a digit is set flush right."""
    frame = pd.DataFrame(rows, columns=list(columns))
    right = [c for c in frame if frame[c].astype(str).str.match(r"^[\d+-]|^$").all()]
    style = frame.style.hide(axis="index").set_properties(**{"text-align": "left"})
    style = style.set_properties(subset=right, **{"text-align": "right"})
    return HTML(style.set_table_styles([{"selector": "th", "props": "text-align: left"}]).to_html())


def machine(directory: Path) -> HTML:
    """What a run ran on."""
    return table(machine_rows(read_environment(directory)), ["", "this run"])


def banner(directory: Path) -> Markdown:
    """Says that what follows was recorded elsewhere, where and when."""
    environment = read_environment(directory)
    return Markdown(
        f"> **Recorded, not measured here.** {environment['gpu']['name']}, "
        f"{environment['recorded_at'][:10]}, commit `{environment['commit']}`; "
        f"from `outputs/reference/{directory.name}`."
    )


def measured_or_recorded(run: Run, on_gpu: bool) -> tuple[dict[str, dict[str, Any]], Markdown]:
    """The figures to speak of, by id, and where they come from: this run, or the recorded one without a GPU."""
    if on_gpu:
        return run.figures, Markdown("Measured here, in this run.")
    recorded = reference_directory()
    if recorded is None:
        return {}, Markdown("> **No GPU here**, and no recorded run in `outputs/reference`.")
    return read_figures(recorded), banner(recorded)


def figures(stored: dict[str, dict[str, Any]], names: dict[str, str]) -> HTML:
    """Figures by id -> label, with their ceilings where they have one."""
    rows = []
    for name in (name for name in names if name in stored):
        row = figure_row(name, stored[name])
        rows.append((names[name], row["value"], row["n"], row["ceiling"], row["share"]))
    return table(rows, ["", "median [95 % interval]", "n", "ceiling", "of it"])


def latencies(samples: pd.DataFrame, workload: str, records: str, keys: int) -> HTML:
    """Latency of a call by percentile, over all calls of each system; empty where they were too few."""
    chosen = comparison.best_transport(samples)
    cell = (chosen["workload"] == workload) & (chosen["records"] == records)
    chosen = chosen[cell & (chosen["keys"] == keys) & chosen["metric"].isin(POOLED)]
    wide = chosen.pivot(index="system", columns="metric", values="value").reindex(columns=POOLED)
    rows = [
        (system, *("" if pd.isna(v) else units.format_quantity(v, "s") for v in wide.loc[system]))
        for system in wide[POOLED[0]].sort_values().index
    ]
    return table(rows, ["system", *(name.removeprefix("pooled_latency_") for name in POOLED)])


def ratios(compared: pd.DataFrame) -> HTML:
    """Each comparison with its interval, effect size, corrected p and verdict."""
    rows = [
        (
            row.workload, row.records, f"{int(row.keys):,}", row.candidate, row.baseline, ratio_text(row),
            f"{row.delta:+.2f}", f"{row.p_adjusted:.1e}", row.verdict,
        )
        for row in compared.itertuples()
    ]  # fmt: skip
    columns = [
        "workload",
        "records",
        "keys",
        "Predis",
        "Redis",
        "ratio",
        "Cliff's delta",
        "p",
        "verdict",
    ]
    return table(rows, columns)


def verdict(compared: pd.DataFrame) -> Markdown:
    """One line for each pair of a comparison over keys a call: where it wins, and where it does not."""
    lines = []
    for (candidate, baseline), rows in compared.groupby(["candidate", "baseline"], sort=False):
        ordered = rows.sort_values("keys")
        said = "; ".join(
            f"{ratio_text(row)} at {int(row.keys):,} ({row.verdict})"
            for row in ordered.itertuples()
        )
        lines.append(f"- **{look(candidate)[2]}**, against `{baseline}`: {said}")
    return Markdown("\n".join(lines))


def ratio_text(row: Any) -> str:
    """A ratio with its interval."""
    return f"{units.digits(row.ratio)}x [{units.digits(row.low)}, {units.digits(row.high)}]"
