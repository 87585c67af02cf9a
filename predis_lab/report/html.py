"""The page that opens a run: what came out, what it ran on, and where to read on. Called by `runner`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from ..bench.results import read_environment, read_figures, read_samples
from . import claims, comparison, units

if TYPE_CHECKING:
    from .runner import Outcome

_TEMPLATE = Path(__file__).with_name("index.html.j2")


def index_page(directory: Path, outcomes: list[Outcome]) -> str:
    """The index of a run as one self-contained HTML text; every number in it is read from the run's files."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_TEMPLATE.read_text())
    figures, samples = read_figures(directory), read_samples(directory)
    settled = claims.settle(samples)
    said = claims.tally(settled)
    return template.render(
        run=directory.name,
        machine=machine_rows(read_environment(directory)),
        on_gpu=bool(read_environment(directory).get("gpu")),
        outcomes=outcomes,
        existing={
            outcome.name for outcome in outcomes if (directory / f"{outcome.name}.html").exists()
        },
        logs={
            outcome.name: log.relative_to(directory).as_posix()
            for outcome in outcomes
            if (log := log_of(directory, outcome.name)).exists()
        },
        claims=claims.rows(settled) if said else [],
        tally=said,
        comparisons=comparison.summary_rows(samples),
        # Ratios stand in the comparison already.
        figures=[
            figure_row(name, figure)
            for name, figure in sorted(figures.items())
            if figure["unit"] != "1"
        ],
    )


def log_of(directory: Path, notebook: str) -> Path:
    """Where a run keeps what the process of a notebook wrote, if it keeps it."""
    return directory / "logs" / f"{notebook}.log"


def figure_row(name: str, figure: dict[str, Any]) -> dict[str, str]:
    """One stored figure as text for a table."""
    ceiling = figure.get("ceiling")
    return {
        "name": name,
        "value": units.format_figure(figure),
        "n": str(figure["n"]),
        "ceiling": units.format_quantity(ceiling, figure["unit"]) if ceiling else "",
        "share": f"{figure['value'] / ceiling:.0%}" if ceiling else "",
    }


def machine_rows(environment: dict[str, Any]) -> list[tuple[str, str]]:
    """What a run ran on, as pairs of label and text."""
    if not environment:
        return []
    gpu = environment.get("gpu")
    rows = [
        ("Recorded", environment["recorded_at"]),
        ("Commit", environment["commit"] or "not known"),
        (
            "GPU",
            f"{gpu['name']}, driver {gpu['driver']}"
            if gpu
            else "none: Predis runs on its host table",
        ),
        ("CPU", f"{environment['cores']} cores of {environment['cpu']}"),
        ("Memory", units.format_quantity(environment["memory_nbytes"], "B")),
        ("Python", environment["python"]),
    ]
    for server in environment.get("servers", {}).values():
        threads = server["configuration"].get("io-threads", "?")
        rows.append(
            (
                server["name"].capitalize(),
                f"{server['version']}, {server['allocator']}, {threads} io-thread(s), {server['source']}",
            )
        )
    return rows
