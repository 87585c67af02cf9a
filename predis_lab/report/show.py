"""What notebooks show beside figures: progress, tables, and sentences written from the data."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from tqdm import tqdm

from ..bench.harness import POOLED
from ..bench.results import Run, read_environment, read_figures, reference_directory, when_recorded
from ..bench.scenarios import Scenario
from ..bench.servers import Server
from ..client import Predis
from . import comparison, units
from .claims import rows as claim_rows
from .claims import settle
from .claims import tally as tally_claims
from .figures import look
from .machine import machine_rows


@contextmanager
def progress(rounds: int, what: str) -> Iterator[Callable[[float], None]]:
    """A bar on standard output, gone when it is done; call what it gives with each share of a round."""
    layout = "{desc}: {percentage:3.0f}% {bar:30} {elapsed}, {remaining} left"
    with tqdm(
        total=rounds, desc=what, file=sys.stdout, leave=False, mininterval=1, bar_format=layout
    ) as bar:
        yield lambda share: bar.update(min(share, rounds - bar.n))


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


def banner(directory: Path, notebook: str) -> Markdown:
    """Says that what follows was recorded elsewhere by that notebook, where and when."""
    environment = read_environment(directory)
    return Markdown(
        f"> **Recorded, not measured here.** {environment['gpu']['name']}, "
        f"{when_recorded(environment, notebook)}; "
        f"from `outputs/reference/{directory.name}`."
    )


def measured_or_recorded(run: Run, on_gpu: bool) -> tuple[dict[str, dict[str, Any]], Markdown]:
    """The figures to speak of, by id, and where they come from: this run, or the recorded one without a GPU."""
    if on_gpu:
        return run.figures, Markdown("Measured here, in this run.")
    recorded = reference_directory()
    if recorded is None:
        return {}, Markdown(
            "> **Not measured here**, and there is no recorded run in `outputs/reference`."
        )
    return read_figures(recorded), banner(recorded, run.notebook)


def figures(stored: dict[str, dict[str, Any]], names: dict[str, str]) -> HTML:
    """Figures by id -> label, with their ceilings where they have one."""
    rows = []
    for name in (name for name in names if name in stored):
        row = units.figure_row(name, stored[name])
        rows.append((names[name], row["value"], row["n"], row["ceiling"], row["share"]))
    return table(rows, ["", "median [95 % interval]", "n", "ceiling", "of it"])


def latencies(samples: pd.DataFrame, workload: str, records: str, keys: int) -> HTML:
    """Latency of a call by percentile, over all calls of each system; empty where they were too few."""
    wide = comparison.pooled_latencies(samples, workload, records, keys)
    rows = [
        (system, *("" if pd.isna(v) else units.format_quantity(v, "s") for v in wide.loc[system]))
        for system in wide[POOLED[0]].sort_values().index
    ]
    return table(rows, ["system", *(name.removeprefix("pooled_latency_") for name in POOLED)])


def disclosure(cache: Predis, servers: Sequence[Server], **facts: Any) -> HTML:
    """What a reader has to know before believing a comparison: what ran, how it was asked, what is included."""
    described = cache.info("server")
    rows = [
        ("Predis", f"{described['predis_version']}, {described['backend']} table on {described['device']}"),
        ("Predis includes", "the Python call, packing keys, the link both ways, answers as Python bytes or Arrow"),
    ]  # fmt: skip
    for server in servers:
        told = server.describe()
        options = ", ".join(f"{name} {value!r}" for name, value in told["configuration"].items())
        rows.append((server.name.capitalize(), f"{told['version']}, {told['source']}; {options}"))
        client = " + ".join(f"{package} {version}" for package, version in told["client"].items())
        rows.append(
            (f"{server.name.capitalize()}'s client", f"{client}; {', '.join(told['transports'])}")
        )
    rows.append(
        (
            "Redis includes",
            "the Python call, encoding, the socket both ways, answers as Python bytes",
        )
    )
    rows += [(name.replace("_", " ").capitalize(), str(fact)) for name, fact in facts.items()]
    return table(rows, ["", "disclosed"])


def tally(compared: pd.DataFrame) -> Markdown:
    """How many comparisons came out how."""
    counts = compared["verdict"].value_counts()
    said = ", ".join(f"{number} {verdict}" for verdict, number in counts.items())
    return Markdown(f"Of {len(compared)} comparisons: {said}.")


def ratios(compared: pd.DataFrame) -> HTML:
    """Each comparison with its interval, effect size, corrected p and verdict."""
    rows = [
        (
            row.workload, row.records, f"{int(row.keys):,}", row.candidate, row.baseline, comparison.ratio_text(row),
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


def scenarios(chosen: Sequence[Scenario], n: int) -> HTML:
    """What each scenario does, as counted in n of its operations."""
    rows = []
    for scenario in chosen:
        made = scenario.operations(n)
        told = scenario.data.records(np.arange(min(scenario.data.count, 1000))).describe()
        mix = ", ".join(
            f"{100 * share:.0f} % {verb.name.lower().replace('_', '-')}"
            for verb, share in made.mix().items()
        )
        popular = np.bincount(made.record).max() / len(made)
        rows.append(
            (
                scenario.name,
                f"{scenario.data.count:,}",
                f"{told['key_nbytes_mean']:,.0f} B",
                f"{told['value_nbytes_mean']:,.0f} B",
                mix,
                f"{popular:.2%}",
            )
        )
    columns = ["scenario", "records", "key", "value", "operations", "of them on one record"]
    return table(rows, columns)


def claims(samples: pd.DataFrame) -> HTML | Markdown:
    """What is claimed of a cache on a GPU, and what the samples make of it."""
    told = settle(samples)
    if not tally_claims(told):
        return Markdown("No GPU here: nothing is claimed of a host table.")
    rows = [tuple(row.values()) for row in claim_rows(told)]
    columns = ["claim", "at least", "measured", "blocks", "Cliff's delta", "p", "verdict"]
    return table(rows, columns)


def verdict(compared: pd.DataFrame) -> Markdown:
    """One line for each verb and pair of a comparison over keys a call: where it wins, and where it does not."""
    lines = []
    for (verb, candidate, baseline), rows in compared.groupby(
        ["workload", "candidate", "baseline"], sort=False
    ):
        said = "; ".join(
            f"{comparison.ratio_text(row)} at {int(row.keys):,} ({row.verdict})"
            for row in rows.sort_values("keys").itertuples()
        )
        lines.append(f"- {verb.upper()}, **{look(candidate)[2]}**, against `{baseline}`: {said}")
    return Markdown("\n".join(lines))
