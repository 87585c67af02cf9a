"""The store of what was measured: samples, figures, environments, one folder a run.

    outputs/<run>/samples.<notebook>.parquet   tidy rows: run, system, workload, params, block, metric, value, unit
    outputs/<run>/figures.json                 figure id -> value, unit, low, high, n, and a ceiling where there is one
    outputs/<run>/environment.json             what it ran on

Notebooks write here; reports read here and nowhere else.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from .environment import describe_machine
from .statistics import Interval

ROOT = Path(__file__).resolve().parents[2]
OUTPUTS = ROOT / "outputs"
REFERENCE = OUTPUTS / "reference"
# Base units only: prefixes are for people, and added when shown.
UNITS = ("1/s", "B/s", "s", "B", "W", "Hz", "1")

SCHEMA = pa.schema(
    [
        ("run", pa.string()),
        ("system", pa.string()),
        ("workload", pa.string()),
        ("params", pa.string()),  # JSON, keys sorted
        ("block", pa.int32()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("unit", pa.string()),
    ]
)


class ResultError(ValueError):
    """A sample or figure that can't be stored: not finite, or not in a base unit."""


def new_run_id() -> str:
    """A name for a run from the time it began, UTC."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


def reference_directory() -> Path | None:
    """The committed run of a GPU host, if there is one; the last by name where there are several."""
    found = sorted(REFERENCE.glob("*/figures.json"))
    return found[-1].parent if found else None


@dataclass
class Run:
    """What one notebook adds to a run.

    >>> import tempfile
    >>> run = Run.open(tempfile.mkdtemp(), notebook="example")
    >>> run.add_sample("predis", "get", {"n": 1}, 0, "throughput", 2.0, "1/s")
    >>> run.add_figure("get_rate", 2.0, "1/s", low=1.9, high=2.1, n=12)
    >>> run.save()
    >>> read_figures(run.directory)["get_rate"]["value"]
    2.0
    """

    directory: Path
    notebook: str
    rows: list[tuple] = field(default_factory=list)
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, directory: str | Path, *, notebook: str) -> Run:
        """A run's folder, made if need be; "" stands for outputs/interactive."""
        path = Path(directory) if directory else OUTPUTS / "interactive"
        path.mkdir(parents=True, exist_ok=True)
        return cls(path, notebook)

    def add_sample(
        self,
        system: str,
        workload: str,
        params: dict,
        block: int,
        metric: str,
        value: float,
        unit: str,
    ) -> None:
        """One measured value of one block."""
        _check(metric, value, unit)
        if not params.keys().isdisjoint(SCHEMA.names):
            raise ResultError(f"parameters have names of their own, not {', '.join(SCHEMA.names)}")
        text = json.dumps(params, sort_keys=True)
        self.rows.append(
            (self.directory.name, system, workload, text, block, metric, float(value), unit)
        )

    def add_figure(
        self,
        name: str,
        value: float,
        unit: str,
        *,
        low: float | None = None,
        high: float | None = None,
        n: int = 1,
        ceiling: float | None = None,
    ) -> None:
        """One number worth quoting, with its interval, how many values it comes from, and what bounds it."""
        figure: dict[str, Any] = {"value": value, "low": low, "high": high, "ceiling": ceiling}
        for key, number in figure.items():
            if number is not None:
                _check(name, number, unit)
                figure[key] = float(number)  # whatever kind of number it came as
        if ceiling is None:
            del figure["ceiling"]
        figure |= {"unit": unit, "n": int(n)}
        self.figures[name] = figure

    def add_interval(
        self, name: str, interval: Interval, unit: str, *, ceiling: float | None = None
    ) -> None:
        """A figure from a bootstrap interval."""
        self.add_figure(
            name,
            interval.value,
            unit,
            low=interval.low,
            high=interval.high,
            n=interval.n,
            ceiling=ceiling,
        )

    def frame(self) -> pd.DataFrame:
        """The samples so far, params as columns."""
        return expand_params(self.table().to_pandas())

    def table(self) -> pa.Table:
        """The samples so far."""
        return pa.Table.from_pylist(
            [dict(zip(SCHEMA.names, row, strict=True)) for row in self.rows], SCHEMA
        )

    def save(self, servers: Iterable[dict] = ()) -> None:
        """Writes samples, figures and environment; other notebooks' figures in the same folder stay.

        Notebooks may write to one folder at the same time: each waits for its turn.
        """
        environment = describe_machine()
        with _alone_in(self.directory):
            self._save(environment, servers)

    def _save(self, environment: dict[str, Any], servers: Iterable[dict]) -> None:
        temporary = self.directory / f".samples.{self.notebook}.parquet"
        pq.write_table(self.table(), temporary, compression="zstd")
        os.replace(temporary, self.directory / f"samples.{self.notebook}.parquet")
        _write_json(self.directory / "figures.json", read_figures(self.directory) | self.figures)
        known = read_environment(self.directory)
        environment["servers"] = known.get("servers", {}) | {
            server["name"]: server for server in servers
        }
        # Notebooks of one folder need not have been executed together.
        executed = {key: environment[key] for key in ("recorded_at", "commit")}
        environment["notebooks"] = known.get("notebooks", {}) | {self.notebook: executed}
        _write_json(self.directory / "environment.json", environment)


def read_figures(directory: str | Path) -> dict[str, dict[str, Any]]:
    """A run's figures; empty where it has none."""
    return _read_json(Path(directory) / "figures.json")


def read_environment(directory: str | Path) -> dict[str, Any]:
    """A run's environment; empty where it has none."""
    return _read_json(Path(directory) / "environment.json")


def when_recorded(environment: dict[str, Any], notebook: str) -> str:
    """Date and commit of what a notebook added to a run; of the run as a whole where it added nothing."""
    executed = environment.get("notebooks", {}).get(notebook, environment)
    return f"{executed['recorded_at'][:10]} at commit `{executed['commit']}`"


def read_samples(directory: str | Path) -> pd.DataFrame:
    """All samples of a run, params as columns."""
    files = sorted(Path(directory).glob("samples.*.parquet"))
    tables = [pq.read_table(file, schema=SCHEMA) for file in files]
    return expand_params(
        pa.concat_tables(tables).to_pandas() if tables else SCHEMA.empty_table().to_pandas()
    )


def expand_params(samples: pd.DataFrame) -> pd.DataFrame:
    """Samples with a column for each parameter beside the JSON text."""
    params = pd.DataFrame([json.loads(text) for text in samples["params"]], index=samples.index)
    return samples.join(params)


def _check(name: str, value: float, unit: str) -> None:
    if unit not in UNITS:
        raise ResultError(f"{name}: a unit is one of {', '.join(UNITS)}, not {unit!r}")
    if not math.isfinite(value):
        raise ResultError(f"{name}: {value} is no measurement")


@contextlib.contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Holds a run's folder against other processes; the system lets go of it for a process that dies."""
    folder = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _read_json(path: Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {}


def _write_json(path: Path, content: dict) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    os.replace(temporary, path)
