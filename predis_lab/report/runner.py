"""Executes the notebooks of a profile into one folder, and turns them into pages. Called by `cli`."""

from __future__ import annotations

import base64
import io
import re
import time
import traceback
import warnings
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, TextIO

import nbformat
import papermill
import yaml
from nbconvert import HTMLExporter
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from papermill.exceptions import PapermillExecutionError
from PIL import Image

from ..bench.results import ROOT

CELL_SECONDS = 3600  # no cell of any profile takes longer
NUMBERED = "[0-9][0-9]_*.ipynb"


class ParameterError(ValueError):
    """A parameters file that does not fit its notebook."""


@dataclass(frozen=True)
class Job:
    """One notebook to execute with its parameters."""

    notebook: Path
    parameters: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What became of a notebook. `error`: None, or what its failing cell said."""

    name: str
    seconds: float
    error: str | None


def plan(notebooks: Path, params: Path, profile: str, only: list[str] | None = None) -> list[Job]:
    """The notebooks of a profile in order; raises ParameterError before anything has run.

    only:  numbers or names to choose by, e.g. ["00", "06_redis_comparison"]
    """
    found = sorted(notebooks.glob(NUMBERED))
    if only:
        named = {
            name: [n for n in found if n.stem == name or n.stem.startswith(f"{name}_")]
            for name in only
        }
        unknown = [name for name, matches in named.items() if not matches]
        if unknown:
            raise ParameterError(f"no notebook in {notebooks} is called {' or '.join(unknown)}")
        found = [notebook for notebook in found if any(notebook in m for m in named.values())]
    if not found:
        raise ParameterError(f"no notebook in {notebooks} is called {NUMBERED}")
    jobs = []
    for notebook in found:
        file = params / f"{notebook.stem}.{profile}.yaml"
        if not file.exists():
            raise ParameterError(
                f"{notebook.stem} has no parameters for the profile {profile!r}: {file}"
            )
        parameters = _read_parameters(file)
        check_parameters(notebook, parameters, file)
        jobs.append(Job(notebook, parameters))
    return jobs


def _read_parameters(file: Path) -> dict[str, Any]:
    try:
        parameters = yaml.safe_load(file.read_text()) or {}
    except yaml.YAMLError as error:
        raise ParameterError(f"{file} is no YAML: {error}") from error
    if not isinstance(parameters, dict):
        raise ParameterError(f"{file} holds no parameters by name: {parameters!r}")
    return parameters


def check_parameters(notebook: Path, parameters: dict[str, Any], source: Path) -> None:
    """Raises ParameterError for a parameter that the notebook does not have: papermill would only warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = set(papermill.inspect_notebook(str(notebook)))
    if not known:
        raise ParameterError(f"{notebook} has no cell tagged 'parameters'")
    unknown = sorted(parameters.keys() - known)
    if unknown:
        raise ParameterError(
            f"{source} sets {', '.join(unknown)}, which {notebook.name} does not have; "
            f"it has {', '.join(sorted(known))}"
        )


def execute(jobs: list[Job], directory: Path) -> list[Outcome]:
    """Runs the notebooks one by one; one that fails is kept as far as it came, and the others go on."""
    directory.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for number, job in enumerate(jobs, 1):
        name = job.notebook.stem
        print(f"[{number}/{len(jobs)}] {name}", flush=True)
        outcomes.append(run(job, directory))
        print(
            f"[{number}/{len(jobs)}] {name}: {outcomes[-1].error or 'done'}, "
            f"{outcomes[-1].seconds:.0f} s",
            flush=True,
        )
    return outcomes


def run(job: Job, directory: Path, log: TextIO | None = None) -> Outcome:
    """Runs one notebook into a folder that exists; one that fails is kept as far as it came.

    log:  takes what the notebook prints and the traceback of its failure, in place of a progress bar; what
          native code writes to the kernel's descriptors goes where this process's do
    """
    began, error = time.monotonic(), None
    try:
        papermill.execute_notebook(
            str(job.notebook),
            str(directory / job.notebook.name),
            parameters={**job.parameters, "run_dir": str(directory)},
            kernel_name="python3",
            cwd=str(ROOT),
            execution_timeout=CELL_SECONDS,
            progress_bar=log is None,
            stdout_file=log,
            stderr_file=log,
            # A kernel that reads its own descriptors takes a crash's last words with it.
            extra_arguments=["--IPKernelApp.capture_fd_output=False"] if log else [],
        )
    except Exception as failure:  # noqa: BLE001 - a kernel that dies must not take the other notebooks along
        if isinstance(failure, PapermillExecutionError):
            error = f"{failure.ename}: {failure.evalue}"
        else:
            error = traceback.format_exc(limit=1)
        if log:
            traceback.print_exc(file=log)
    tidy(directory / job.notebook.name)
    return Outcome(job.notebook.stem, time.monotonic() - began, error)


def tidy(notebook: Path) -> None:
    """Takes out what progress bars drew and wiped away again, and keeps images small."""
    if not notebook.exists():
        return
    content, _ = CoalesceStreamsPreprocessor().preprocess(nbformat.read(notebook, 4), {})
    for cell in content.cells:
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("text", "shown").strip()]
            for data in (o.data for o in cell.outputs if "image/png" in o.get("data", {})):
                data["image/png"] = _small(data["image/png"])
    nbformat.write(content, notebook)


def _small(png: str) -> str:
    """A PNG in base64 with 256 colours, which no figure of ours exceeds by much: a third of the bytes."""
    drawn = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA")
    on_white = Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn).convert("RGB")
    file = io.BytesIO()
    on_white.quantize(256, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return min(png, base64.b64encode(file.getvalue()).decode(), key=len)


def log_of(directory: Path, notebook: str) -> Path:
    """Where a run keeps what the process of a notebook wrote, if it keeps it."""
    return directory / "logs" / f"{notebook}.log"


def publish(directory: Path, outcomes: list[Outcome]) -> Path:
    """HTML pages for the executed notebooks, the report with its data, and an index of them all; the index's path."""
    # They draw figures, which processes that execute notebooks never do.
    from . import html
    from .facts import Facts

    for outcome in outcomes:
        notebook = directory / f"{outcome.name}.ipynb"
        if notebook.exists():
            notebook.with_suffix(".html").write_text(page(notebook))
    logs = {
        outcome.name: log.relative_to(directory).as_posix()
        for outcome in outcomes
        if (log := log_of(directory, outcome.name)).exists()
    }
    index = directory / html.INDEX
    index.write_text(html.index_page(directory, outcomes, logs))
    html.write_report(
        Facts.of(directory)
    )  # last: whatever becomes of it, the index leads to what there is
    return index


def page(notebook: Path) -> str:
    """A notebook as one HTML file that needs nothing from elsewhere."""
    exporter = HTMLExporter(embed_images=True, mathjax_url="", require_js_url="", jquery_url="")
    content = _with_alt_texts(nbformat.read(notebook, 4))
    body, _ = exporter.from_notebook_node(content, {"metadata": {"name": notebook.stem}})
    # The template loads scripts for widgets, formulas and diagrams, of which our notebooks have none.
    return re.sub(
        r"<script(?=[^>]*\bsrc=|[^>]*>(?:(?!</script>).)*https://).*?</script>",
        "",
        body,
        flags=re.DOTALL,
    )


def _with_alt_texts(content: Any) -> Any:
    """The notebook with images that have an alt text as HTML: the exporter's template knows of none."""
    for cell in content.cells:
        for output in cell.get("outputs", []):
            alt = output.get("metadata", {}).get("image/png", {}).get("alt")
            if alt:
                image = output.data["image/png"].replace("\n", "")
                source = f"data:image/png;base64,{image}"
                output.data = {"text/html": f'<img alt="{escape(alt)}" src="{source}">'}
    return content
