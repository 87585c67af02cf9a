"""README's figure and table, written from the reference run between markers. Called by `cli`."""

from __future__ import annotations

import re
from pathlib import Path

from ..bench.harness import noise_floor_of
from ..bench.limits import TABLE
from ..bench.results import (
    ROOT,
    read_environment,
    read_figures,
    read_samples,
    reference_directory,
    when_recorded,
)
from . import comparison, figures, units
from .figures import look

FIGURE = Path("outputs/reference/readme.svg")
RECORDS = "fixed 16+64 B"
_BETWEEN = re.compile(r"(<!-- generated: begin -->\n).*?(<!-- generated: end -->)", re.DOTALL)


class ReadmeError(RuntimeError):
    """A README that can't be written: no markers in it, or no reference run to write from."""


def update_readme(readme: Path) -> None:
    """Writes the figure beside the reference run, and README's text between its markers."""
    reference = reference_directory()
    if reference is None:
        raise ReadmeError("there is no reference run in outputs/reference to write from")
    text = readme.read_text()
    if not _BETWEEN.search(text):
        raise ReadmeError(f"{readme} has no lines '<!-- generated: begin -->' and 'end'")
    compared = _compared(reference)
    figures.save(figures.ratios(compared, "GET: Predis over Redis"), ROOT / FIGURE)
    readme.write_text(
        _BETWEEN.sub(lambda found: found[1] + _section(reference, compared) + found[2], text)
    )


def _compared(reference: Path):
    samples = read_samples(reference)
    floor = noise_floor_of(samples)
    cells = samples[(samples["records"] == RECORDS) & (samples["workload"] == "get")]
    return comparison.against(cells, comparison.default_pairs(cells), noise_floor=floor)


def _section(reference: Path, compared) -> str:
    environment, stored = read_environment(reference), read_figures(reference)
    redis = environment["servers"]["redis"]
    lines = [
        f"![How many times Redis's rate Predis reaches, by keys a call]({FIGURE})",
        "",
        f"One Python client on one machine: {environment['gpu']['name']}, {environment['cpu']}, Redis "
        f"{redis['version']} with redis-py and hiredis at the better of unix socket and TCP; keys of 16 bytes, values "
        f"of 64. Recorded {when_recorded(environment, '06_redis_comparison')}; median and 95 % interval. [All of it](outputs/reference/{reference.name}).",
        "",
        "| keys a call | Predis | over one Redis command | over a Redis pipeline |",
        "|---:|---|---|---|",
    ]
    for (keys, candidate), rows in compared.groupby(["keys", "candidate"]):
        cells = {"pipeline": "", "command": ""}
        for row in rows.itertuples():
            text = f"{comparison.ratio_text(row)} {row.verdict}"
            cells[comparison.way(row.baseline)] = text
        face = look(candidate)[2].removeprefix("Predis, ")
        lines.append(f"| {int(keys):,} | {face} | {cells['command']} | {cells['pipeline']} |")
    lines += [
        "",
        f"The table alone, keys and values in GPU memory, {when_recorded(environment, '01_kernel_tuning')}; the ceiling is "
        "what the memory accesses alone reached in that run:",
        "",
        "| load factor 0.8 unless said | keys a second | of its ceiling |",
        "|---|---|---|",
    ]
    for name, label in TABLE.items():
        if name in stored:
            figure = stored[name]
            share = f"{figure['value'] / figure['ceiling']:.0%}" if "ceiling" in figure else ""
            lines.append(f"| {label} | {units.format_figure(figure)} | {share} |")
    return "\n".join([*lines, "", ""])
