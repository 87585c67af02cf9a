"""Ticks as samples in the store, and back: what an export, a recording and a replay share. Called by `session` and `replay`.

A tick is a block. Readings are stored with the tick that they were read for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ..bench.results import Run, read_environment, when_recorded
from ..bench.statistics import ratio_interval
from .scenes import Controls
from .ticks import PREDIS, REDIS, Side, Tick

NOTEBOOK = "10_live_dashboard"
WORKLOAD = "live"
MACHINE = "machine"
AT = "at"
P50, P99 = "window_latency_p50", "window_latency_p99"
Facts = dict[str, Any]


class TapeError(ValueError):
    """A folder that holds no recording, or a session that has nothing to store."""


def save(ticks: Iterable[Tick], facts: Facts, directory: Path) -> Path:
    """Adds ticks to a run's folder as samples, and the speed-up of each cell as a figure; the folder."""
    ticks = list(ticks)
    if not ticks:
        raise TapeError("nothing has been measured yet: there is nothing to store")
    run = Run.open(directory, notebook=NOTEBOOK)
    record(run, ticks)
    run.save([facts["server"]] if "server" in facts else [])
    return run.directory


def record(run: Run, ticks: Iterable[Tick]) -> None:
    """Adds ticks to a run. Metrics: throughput (1/s), window_latency_p50 and _p99 (s), unsent (1), readings by their names."""
    cells: dict[tuple[str, Controls], tuple[list[float], list[float]]] = {}
    for tick in ticks:
        params = tick.controls.params(tick.scene)

        def add(system: str, metric: str, value: float | None, unit: str) -> None:
            if value is not None:
                run.add_sample(system, WORKLOAD, params, tick.number, metric, value, unit)  # noqa: B023

        add(MACHINE, AT, tick.at, "s")
        for side in tick.sides:
            add(side.system, "throughput", side.rate, "1/s")
            add(side.system, P50, side.p50, "s")
            add(side.system, P99, side.p99, "s")
            add(side.system, "unsent", side.unsent or None, "1")
        for name, value in tick.readings.items() if tick.renewed else ():
            add(MACHINE, name, value, unit_of(name))
        rates = cells.setdefault((tick.scene, tick.controls), ([], []))
        for side, values in zip(tick.sides, rates, strict=True):
            values.append(side.rate)
    for (scene, controls), (predis, redis) in cells.items():
        # What is offered is no rate of theirs.
        if len(predis) >= 2 and not controls.rate and all(redis):
            name = f"live_{scene}_{controls.batch}_{controls.value_nbytes}_b_{controls.threads}_threads_{controls.reads:.0%}_reads"
            run.add_interval(name.replace("%", ""), ratio_interval(predis, redis), "1")


def load(directory: Path) -> tuple[list[Tick], Facts]:
    """Ticks of a recording and what they ran on; raises TapeError where there is none."""
    file = directory / f"samples.{NOTEBOOK}.parquet"
    if not file.exists():
        raise TapeError(f"{directory} holds no recording: there is no {file.name}")
    ticks = list(_ticks(pq.read_table(file).to_pylist()))
    if not ticks:
        raise TapeError(f"{file} holds no ticks")
    return ticks, _facts(directory, ticks[0])


def unit_of(reading: str) -> str:
    """The base unit of a reading by its name."""
    if reading.endswith("_rate"):
        return "B/s"
    return "B" if reading.endswith(("_memory", "_nbytes")) else "1"


def said_of(facts: Facts) -> str:
    """Where and when a recording was made, in words."""
    return f"{facts['device']}, {when_recorded(facts['environment'], NOTEBOOK).replace('`', '')}"


def _ticks(rows: list[dict[str, Any]]) -> Iterator[Tick]:
    blocks: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        if row["workload"] == WORKLOAD and row["block"] >= 0:
            blocks.setdefault(row["block"], []).append(row)
    readings: dict[str, Any] = {}
    before, segment = None, 0
    for number in sorted(blocks):
        values: dict[str, dict[str, Any]] = {}
        for row in blocks[number]:
            values.setdefault(row["system"], {})[row["metric"]] = row["value"]
        params = json.loads(blocks[number][0]["params"])
        machine = values.pop(MACHINE)
        at, readings = machine.pop(AT), machine or readings
        names = sorted(values, key=lambda system: REDIS if system.startswith("redis") else PREDIS)
        predis, redis = (_side(name, values[name]) for name in names)
        controls = Controls.of_params(params)
        segment += before not in (None, (params, *names))
        before = params, *names
        told = (predis, redis), readings, bool(machine)
        yield Tick(number, at, segment, params["records"], controls, *told)


def _side(system: str, values: dict[str, float]) -> Side:
    p50, p99 = values.get(P50), values.get(P99)
    unsent = int(values.get("unsent", 0))
    return Side(system, values["throughput"], unsent, p50, p99)


def _facts(directory: Path, first: Tick) -> Facts:
    environment = read_environment(directory)
    backend = "cuda" if first.sides[PREDIS].system.startswith("predis-cuda") else "host"
    gpu = environment.get("gpu")
    device = gpu["name"] if gpu and backend == "cuda" else "host memory"
    server = environment.get("servers", {}).get("redis", {"name": "redis", "version": "?"})
    return {"backend": backend, "device": device, "server": server, "environment": environment}
