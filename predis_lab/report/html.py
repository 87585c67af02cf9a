"""The pages of a run: the report that can be handed over alone, and the index that leads to all the rest. Called by `runner`
and notebook 09.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from ..bench.results import read_environment
from . import machine, sentences
from .facts import Facts
from .inline import svg
from .raw import write_raw
from .report_figures import Shown
from .sections import sections

if TYPE_CHECKING:
    from .runner import Outcome

REPORT, INDEX = "report.html", "index.html"
TEMPLATES = Path(__file__).with_name("templates")
Progress = Callable[[float], object]
_GOOD, _BAD = {"faster", "holds", "linear"}, {"slower", "fails", "falling"}


def write_report(facts: Facts, progress: Progress = lambda _: None) -> Path:
    """Writes the report of a run, and the samples of all its notebooks in one file each; the report's path.

    progress:  called with each share of the work that is done
    """
    page = report_page(facts, progress)
    write_raw(facts.directory)
    path = facts.directory / REPORT
    path.write_text(page)
    return path


def report_page(facts: Facts, progress: Progress = lambda _: None) -> str:
    """The report as one text that needs nothing from elsewhere; every number in it is read from the run's files."""
    found = []
    for section in sections(facts):
        found.append(section)
        progress(1 / 24)  # half of the work is in a dozen sections, half in their figures
    figures = sum(len(section.shown) for section in found)

    def drawn(shown: Shown) -> Markup:
        progress(1 / 2 / figures)
        return _drawn(shown)

    return _render(
        "report.html.j2",
        {"drawn": drawn, "judged": _judged},
        run=facts.directory.name,
        on=machine.in_short(facts.environment),
        when=machine.when(facts.environment),
        summary=sentences.summary(facts),
        headline=sentences.headline(facts),
        sections=found,
    )


def index_page(directory: Path, outcomes: list[Outcome], logs: dict[str, str]) -> str:
    """What became of each notebook, with links to its page and log, and to the report. logs: paths by notebook"""
    existing = {one.name for one in outcomes if (directory / f"{one.name}.html").exists()}
    environment = read_environment(directory)
    return _render(
        "index.html.j2",
        {},
        run=directory.name,
        on=machine.in_short(environment),
        when=machine.when(environment),
        report=REPORT,
        outcomes=outcomes,
        existing=existing,
        logs=logs,
    )


def _render(template: str, filters: dict[str, Callable[..., str]], **context: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(template).render(**context)


def _judged(cell: str) -> str:
    """The classes of a cell that ends in a verdict, or is one."""
    before, _, last = cell.rpartition(" ")
    found = "good" if last in _GOOD else "bad" if last in _BAD else ""
    return found if before else f"{found} alone"


def _drawn(shown: Shown) -> Markup:
    """The figure, described by its answer for those who can't see it."""
    label = Markup('<svg role="img" aria-label="{}"').format(shown.answer)
    return Markup(svg(shown.figure)).replace(Markup("<svg"), label, 1)
