"""Two runs, cell by cell: what became slower, what became faster, and what cannot be told. Called by `cli` and `nightly`.

A cell is one metric of one system at one piece of work; its blocks are the replicates. A regression is confirmed where the
median is worse by LEAST or more, the whole interval is on the worse side of 1 and of the noise floor, and the chance of one
false alarm in the whole table stays within ALPHA (Mann-Whitney, Holm).
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import changepoints, results
from .harness import noise_floor_of
from .statistics import Comparison, compare, holm, min_blocks, speedup

CELL = ["system", "workload", "params", "metric"]
LEAST = 0.05
ALPHA = 0.05
VERDICTS = REGRESSED, IMPROVED, SAME, AMBIGUOUS, NOISE, UNDECIDED = (
    "regressed",
    "improved",
    "same",  # the whole interval within LEAST of 1
    "ambiguous",
    "within noise",  # all that a claim takes, but not beyond the noise floor
    "undecided",  # too few blocks for any claim
)
BETTER_BY_UNIT = {"1/s": "higher", "B/s": "higher", "s": "lower", "B": "lower"}
# Metrics whose direction their unit does not tell; None: not compared.
BETTER_BY_METRIC = {
    "ratio": "higher",  # plain bytes over compressed ones
    "saved": "higher",  # bytes that need not cross the link
    "overhead": "lower",  # share of a call in which neither link nor kernel was at work
    "error_rate": "lower",
    # What was offered, and what telemetry saw beside it.
    **dict.fromkeys(("offered", "gpu_memory", "process_memory", "redis_memory", "valkey_memory")),
    # Moments and states in the course of one measurement: no replicates, and neither better nor worse.
    **dict.fromkeys(("start", "stop", "elapsed", "live", "held", "moved", "freed")),
    **dict.fromkeys(("device", "index", "log_used", "pool")),
}
# What may differ between two environments and move a figure.
_FACTS = ("cpu", "cores", "memory_nbytes", "kernel", "python", "predis_lab", "commit")
_GPU_FACTS = ("name", "driver", "cuda", "power_limit_w")


class NoRunError(ValueError):
    """A folder that holds no run, or a run without a baseline."""


@dataclass(frozen=True)
class Table:
    """How a run compares with its baseline.

    cells:             one row a cell that both measured, worst first; ratios above 1 are better than the baseline
    only_run:          cells of the run alone; only_baseline: of the baseline alone
    without_direction: metrics, with their units, that were not compared
    floor:             the larger of both noise floors
    needed:            blocks a side from which on a cell of this table can be decided
    """

    cells: pd.DataFrame
    only_run: list[tuple[str, ...]]
    only_baseline: list[tuple[str, ...]]
    without_direction: list[str]
    floor: float
    needed: int


def better(metric: str, unit: str) -> str | None:
    """Whether "higher" or "lower" values of a metric are better; None where neither is.

    >>> better("throughput", "1/s"), better("latency_p50", "s"), better("ratio", "1"), better("live", "B")
    ('higher', 'lower', 'higher', None)
    """
    return BETTER_BY_METRIC.get(metric, BETTER_BY_UNIT.get(unit))


def slug(name: str) -> str:
    """A name as folders have it.

    >>> slug("NVIDIA H200")
    'nvidia-h200'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def default_baseline(run: Path) -> Path:
    """The recorded run of the same GPU model, or without a GPU of the same CPU; raises NoRunError where there is none."""
    environment = environment_of(run)
    gpu = environment.get("gpu")
    name = (
        slug(gpu.get("name") or "unknown")
        if gpu
        else f"cpu-{slug(environment.get('cpu') or 'unknown')}"
    )
    baseline = results.REFERENCE / name
    if not (baseline / "environment.json").exists():
        raise NoRunError(f"there is no recorded run to compare with: {baseline}")
    return baseline


def environment_of(run: Path) -> dict[str, Any]:
    """A run's environment; raises NoRunError where a folder holds none."""
    try:
        environment = results.read_environment(run)
    except ValueError as error:
        raise NoRunError(f"{run / 'environment.json'} can't be read: {error}") from error
    if not isinstance(environment, dict) or "recorded_at" not in environment:
        raise NoRunError(f"{run} holds no run")
    return environment


def table(run: pd.DataFrame, baseline: pd.DataFrame) -> Table:
    """Every cell that both sides measured, judged; Holm over all of them that have two blocks a side or more.

    run, baseline: samples, see `results.read_samples`
    """
    floor = max(noise_floor_of(run), noise_floor_of(baseline))
    new, old = cells(run), cells(baseline)
    keys = sorted(new.keys() & old.keys())
    found = {
        key: compare(new[key], old[key], better=_direction(key), noise_floor=floor)
        for key in keys
        if min(len(new[key]), len(old[key])) >= 2 and _has_ratio(new[key], old[key])
    }
    adjusted = dict(zip(found, holm([one.p for one in found.values()]), strict=True))
    rows = []
    for key in keys:
        now, before = float(np.median(new[key])), float(np.median(old[key]))
        ratio = math.nan
        if _has_ratio(new[key], old[key]):
            ratio = float(speedup(now, before, better=_direction(key)))
        one, p = found.get(key), float(adjusted.get(key, math.nan))
        rows.append(
            (
                *key, before, now, ratio, one.low if one else math.nan, one.high if one else math.nan,
                p, one.delta if one else math.nan, min(len(new[key]), len(old[key])),
                _verdict(one, p, len(found)) if one else UNDECIDED,
            )
        )  # fmt: skip
    columns = [
        *CELL, "unit", "before", "now", "ratio", "low", "high", "p_adjusted", "delta", "n", "verdict",
    ]  # fmt: skip
    kept = [samples[samples["block"] >= 0] for samples in (run, baseline)]
    metrics = {pair for side in kept for pair in zip(side["metric"], side["unit"], strict=True)}
    return Table(
        pd.DataFrame(rows, columns=columns).sort_values("ratio", kind="stable", ignore_index=True),
        sorted(new.keys() - old.keys()),
        sorted(old.keys() - new.keys()),
        sorted(f"{metric} ({unit})" for metric, unit in metrics if better(metric, unit) is None),
        floor,
        min_blocks(max(1, len(found)), ALPHA),
    )


def cells(samples: pd.DataFrame) -> dict[tuple[str, ...], np.ndarray]:
    """The blocks of each cell that has a direction, by cell and unit; what describes all blocks together is left out."""
    groups = samples[samples["block"] >= 0].groupby([*CELL, "unit"])["value"]
    return {key: blocks.to_numpy() for key, blocks in groups if better(*key[-2:])}


def differences(run: dict[str, Any], baseline: dict[str, Any]) -> list[str]:
    """In what the two environments differ, as text; a machine that changed is no regression of the code."""

    def told(side: dict[str, Any]) -> dict[str, Any]:
        gpu, packages = side.get("gpu") or {}, side.get("packages") or {}
        servers = side.get("servers") or {}
        return (
            {name: side.get(name) for name in _FACTS}
            | {f"GPU {name}": gpu.get(name) for name in _GPU_FACTS}
            | {name: packages[name] for name in sorted(packages)}
            | {f"server {name}": servers[name].get("version") for name in sorted(servers)}
        )

    now, before = told(run), told(baseline)
    return [
        f"{name}: {before.get(name)} -> {now.get(name)}"
        for name in {**now, **before}
        if now.get(name) != before.get(name)
    ]


def history_of(run: Path, folder: Path) -> tuple[list[dict[str, Any]], int]:
    """Cells whose level changed in the course of the runs in a folder and of this one, the worst first, and how many runs.

    Runs of other machines and folders that hold no run are left out. What other processes on the machine do from night to
    night is part of a series' scatter, so no noise floor is added.
    """
    if not folder.is_dir():
        raise NoRunError(f"{folder} is no folder")
    runs = {}
    for path in {run.resolve(), *(each.resolve() for each in folder.iterdir())}:
        try:
            runs[path] = environment_of(path)
        except (NoRunError, OSError):
            continue
    here = _machine(runs[run.resolve()])
    alike = [path for path in runs if _machine(runs[path]) == here]
    alike.sort(key=lambda path: (runs[path]["recorded_at"], path.name))
    series: dict[tuple, list[tuple[str, float]]] = {}
    for path in alike:
        for key, blocks in cells(results.read_samples(path)).items():
            if _has_ratio(blocks):
                series.setdefault(key, []).append((path.name, float(np.median(blocks))))
    changes = [
        dict(zip([*CELL, "unit"], key, strict=True))
        | {
            "run": medians[point.index][0],
            "ratio": float(speedup(point.ratio, 1.0, better=_direction(key))),
            "p": point.p,
        }
        for key, medians in sorted(series.items())
        for point in changepoints.change_points([value for _, value in medians], least=LEAST)
    ]
    return sorted(changes, key=lambda change: change["ratio"]), len(alike)


def _machine(environment: dict[str, Any]) -> tuple:
    return (environment.get("gpu") or {}).get("name"), environment.get("cpu")


def _direction(key: tuple[str, ...]) -> str:
    return better(*key[-2:]) or ""


def _has_ratio(*sides: np.ndarray) -> bool:
    return all((side > 0).all() for side in sides)


def _verdict(one: Comparison, p: float, tests: int) -> str:
    beyond = 1 + one.noise_floor
    if p <= ALPHA and one.ratio <= 1 - LEAST and one.high < 1:
        return REGRESSED if one.high < 1 / beyond else NOISE
    if p <= ALPHA and one.ratio >= 1 + LEAST and one.low > 1:
        return IMPROVED if one.low > beyond else NOISE
    smallest = 2 / math.comb(one.n_candidate + one.n_baseline, one.n_baseline)
    if p > ALPHA and smallest * tests > ALPHA:
        return UNDECIDED
    within = one.low >= 1 / (1 + LEAST) and one.high <= 1 + LEAST
    return SAME if within else AMBIGUOUS


# ---- What is said and written


def compare_runs(
    run: Path,
    baseline: Path | None = None,
    *,
    everything: bool = False,
    history: Path | None = None,
) -> int:
    """Prints how a run compares, and leaves `comparison.md` and `comparison.json` in it.

    baseline:    by default the recorded run of the same machine, see `default_baseline`
    everything:  all cells, not only those that changed
    history:     a folder of runs to look for change points in; they never make a regression

    Returns 0, or 1 where a regression is confirmed, or 2 where nothing could be compared.
    """
    try:
        run = run.resolve()
        here = environment_of(run)
        baseline = (baseline or default_baseline(run)).resolve()
        there = environment_of(baseline)
        found = table(results.read_samples(run), results.read_samples(baseline))
        if not len(found.cells):
            raise NoRunError(f"{run} and {baseline} have no measurement in common")
        changes, runs = history_of(run, history) if history else ([], 0)
    except (OSError, ValueError) as error:
        print(f"predis-lab: {error}")
        return 2
    judged, changed = found.cells, differences(here, there)
    shown = judged if everything else judged[judged["verdict"].isin([REGRESSED, IMPROVED])]
    above = [f"# {run.name} against {baseline.name}", ""]
    if changed:
        above += ["The environments differ, and a changed machine is no regression of the code:", ""]  # fmt: skip
        above += [*(f"- {one}" for one in changed), ""]
    rows = [_row(row, found.needed) for row in shown.itertuples()]
    below = [
        *([""] if rows else []),
        *_summary(found, everything),
        *(_history(changes, runs) if history else []),
    ]
    print("\n".join([*above, *_plain(rows), *below]))
    told = {
        "baseline": str(baseline),
        "differences": changed,
        "least": LEAST,
        "alpha": ALPHA,
        "noise_floor": found.floor,
        "blocks_needed": found.needed,
        "cells": judged.astype(object).where(judged.notna(), None).to_dict("records"),
        "only_in_run": found.only_run,
        "only_in_baseline": found.only_baseline,
        "without_direction": found.without_direction,
        "change_points": changes,
    }
    try:
        (run / "comparison.md").write_text("\n".join([*above, *_markdown(rows), *below]) + "\n")
        (run / "comparison.json").write_text(json.dumps(told, indent=1) + "\n")
    except OSError as error:  # the verdict stands, written or not
        print(f"predis-lab: not written: {error}")
    return int((judged["verdict"] == REGRESSED).any())


def _summary(found: Table, everything: bool) -> list[str]:
    counts = found.cells["verdict"].value_counts()
    said = ", ".join(f"{counts.get(verdict, 0)} {verdict}" for verdict in VERDICTS)
    lines = [f"Of {len(found.cells)} cells: {said}.", ""]
    undecided = found.cells[found.cells["verdict"] == UNDECIDED]
    if len(undecided):
        worse = int((undecided["ratio"] <= 1 - LEAST).sum())
        lines.append(
            f"- Undecided cells have too few blocks to tell: {found.needed} a side are needed. "
            f"{worse} of them look worse by {LEAST:.0%} or more."
        )
    if found.floor:
        lines.append(f"- Noise floor: changes within {found.floor:.1%} are not claimed.")
    for where, keys in (("the run", found.only_run), ("the baseline", found.only_baseline)):
        if keys:
            systems = sorted({f"{system} {workload}" for system, workload, *_ in keys})
            named = [_named(key) for key in keys] if everything else systems
            more = f", and {len(named) - 10} more" if not everything and len(named) > 10 else ""
            listed = ", ".join(named if everything else named[:10])
            lines.append(f"- Measured in {where} only, {len(keys)} cells: {listed}{more}.")
    if found.without_direction:
        lines.append(f"- Neither better nor worse: {', '.join(found.without_direction)}.")
    return lines


def _history(changes: list[dict[str, Any]], runs: int) -> list[str]:
    lines = ["", f"Change points in the course of {runs} runs of this machine: {len(changes)}."]
    if runs < changepoints.NEEDED:
        lines.append(f"It takes {changepoints.NEEDED} runs to find one.")
    elif changes:
        lines += [
            f"Each is {LEAST:.0%} or more, and one by chance in {changepoints.LEVEL:.0%} of cells that did not change.",
            "",
        ]
    for change in changes:
        key = tuple(change[name] for name in CELL)
        lines.append(f"- {_named(key)}: {change['ratio']:.3f}x from {change['run']} on")
    return lines


HEADER = ["verdict", "ratio [95 %]", "p", "delta", "blocks", "before", "now", "cell"]


def _row(row: Any, needed: int) -> list[str]:
    verdict = row.verdict
    if verdict == UNDECIDED:
        short = f"{row.n} blocks, {needed} needed"
        verdict += f": {short if row.ratio > 0 else 'values of 0 have no ratio'}"
    known = math.isfinite(row.p_adjusted)
    return [
        verdict,
        f"{row.ratio:.3f}x" + (f" [{row.low:.3f}, {row.high:.3f}]" if known else ""),
        f"{row.p_adjusted:.1e}" if known else "",
        f"{row.delta:+.2f}" if known else "",
        str(row.n),
        f"{row.before:.4g}",
        f"{row.now:.4g} {row.unit}",
        _named((row.system, row.workload, row.params, row.metric)),
    ]


def _named(key: tuple[str, ...]) -> str:
    system, workload, params, metric, *_ = key
    told = (f"{name}={value}" for name, value in json.loads(params).items())
    return " ".join([f"{system}:", workload, *told, metric])


def _plain(rows: list[list[str]]) -> list[str]:
    table = [HEADER, *rows] if rows else []
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def _markdown(rows: list[list[str]]) -> list[str]:
    table = [HEADER, ["---"] * len(HEADER), *rows] if rows else []
    return [f"| {' | '.join(text.replace('|', chr(92) + '|') for text in row)} |" for row in table]
