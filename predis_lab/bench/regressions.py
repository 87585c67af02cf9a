"""Two runs, cell by cell: what became slower, what became faster, and what cannot be told. Called by `cli` and `nightly`.

A cell is one metric of one system at one piece of work; its blocks are the replicates. A regression is confirmed where the
median is worse by LEAST or more, the whole interval is on the worse side of 1 and of the noise floor, and the chance of one
false alarm in the whole table stays below ALPHA (Mann-Whitney, Holm).
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd

from . import results
from .statistics import compare, holm, min_blocks

CELL = ["system", "workload", "params", "metric"]
BETTER = {
    "1/s": "higher",
    "B/s": "higher",
    "s": "lower",
    "B": "lower",
}  # by unit; others have no direction
LEAST = 0.05
ALPHA = 0.05
REGRESSED, IMPROVED, SAME, AMBIGUOUS, UNDECIDED = (
    "regressed",
    "improved",
    "same",
    "ambiguous",
    "undecided",
)
# What may differ between two environments and move a figure.
_FACTS = ("cpu", "cores", "kernel", "python", "commit")
_GPU_FACTS = ("name", "driver", "power_limit_w")


class NoRunError(ValueError):
    """A folder that holds no run, or a run without a baseline."""


def slug(name: str) -> str:
    """A name as folders have it.

    >>> slug("NVIDIA H200")
    'nvidia-h200'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def default_baseline(run: Path) -> Path:
    """The recorded run of the same GPU model, or without a GPU of the same CPU; raises NoRunError where there is none."""
    environment = results.read_environment(run)
    gpu = environment.get("gpu")
    name = slug(gpu["name"]) if gpu else f"cpu-{slug(environment.get('cpu', 'unknown'))}"
    baseline = results.REFERENCE / name
    if not (baseline / "environment.json").exists():
        raise NoRunError(f"there is no recorded run to compare with: {baseline}")
    return baseline


def table(run: pd.DataFrame, baseline: pd.DataFrame) -> pd.DataFrame:
    """One row a cell that both sides measured twice or more, worst first; ratios above 1 are better than the baseline.

    run, baseline:  samples, see `results.read_samples`
    columns:        those of a cell, unit, ratio, low, high, p_adjusted, delta, n, verdict
    """
    floor = max(_noise_floor(run), _noise_floor(baseline))
    sides = [_cells(samples) for samples in (run, baseline)]
    keys = sorted(sides[0].keys() & sides[1].keys())
    found = [
        compare(sides[0][key], sides[1][key], better=BETTER[key[-1]], noise_floor=floor)
        for key in keys
    ]
    rows = [
        {
            **dict(zip([*CELL, "unit"], key, strict=True)),
            "ratio": one.ratio,
            "low": one.low,
            "high": one.high,
            "p_adjusted": float(p),
            "delta": one.delta,
            "n": min(one.n_candidate, one.n_baseline),
            "verdict": _verdict(one, float(p), floor, len(keys)),
        }
        for key, one, p in zip(keys, found, holm([one.p for one in found]), strict=True)
    ]
    columns = [*CELL, "unit", "ratio", "low", "high", "p_adjusted", "delta", "n", "verdict"]
    return pd.DataFrame(rows, columns=columns).sort_values("ratio", ignore_index=True)


def differences(run: dict[str, Any], baseline: dict[str, Any]) -> list[str]:
    """In what the two environments differ, as text; a machine that changed is no regression of the code."""
    pairs: list[tuple[str, Any, Any]] = [
        (name, run.get(name), baseline.get(name)) for name in _FACTS
    ]
    gpus = [side.get("gpu") or {} for side in (run, baseline)]
    pairs += [(f"GPU {name}", gpus[0].get(name), gpus[1].get(name)) for name in _GPU_FACTS]
    packages = [side.get("packages", {}) for side in (run, baseline)]
    names = sorted({*packages[0], *packages[1]})
    pairs += [(name, packages[0].get(name), packages[1].get(name)) for name in names]
    return [f"{name}: {before} -> {now}" for name, now, before in pairs if now != before]


def compare_runs(run: Path, baseline: Path | None = None, *, everything: bool = False) -> int:
    """Prints how a run compares, and leaves `comparison.md` and `comparison.json` in it.

    everything: all cells, not only those that changed. Returns 0, or 1 where a regression is confirmed, or 2 where nothing
    could be compared
    """
    try:
        for folder in (run, *([baseline] if baseline else [])):
            if not (folder / "environment.json").exists():
                raise NoRunError(f"{folder} holds no run")
        baseline = baseline or default_baseline(run)
        found = table(results.read_samples(run), results.read_samples(baseline))
        if not len(found):
            raise NoRunError(f"{run} and {baseline} have no measurement in common")
    except (NoRunError, OSError, ValueError) as error:
        print(f"predis-lab: {error}")
        return 2
    changed = differences(results.read_environment(run), results.read_environment(baseline))
    shown = found if everything else found[found["verdict"].isin([REGRESSED, IMPROVED])]
    text = "\n".join(_lines(run, baseline, changed, found, shown))
    print(text)
    (run / "comparison.md").write_text(text + "\n")
    told = {"baseline": str(baseline), "differences": changed, "cells": found.to_dict("records")}
    (run / "comparison.json").write_text(json.dumps(told, indent=1) + "\n")
    return int((found["verdict"] == REGRESSED).any())


def _cells(samples: pd.DataFrame) -> dict[tuple, Any]:
    """The blocks of each cell, by cell and unit."""
    kept = samples[(samples["block"] >= 0) & samples["unit"].isin(BETTER)]
    groups = kept.groupby([*CELL, "unit"])["value"]
    return {key: blocks.to_numpy() for key, blocks in groups if len(blocks) >= 2}


def _noise_floor(samples: pd.DataFrame) -> float:
    floors = samples.loc[samples["metric"] == "noise_floor", "value"]
    return float(floors.max()) if len(floors) else 0.0


def _verdict(one: Any, p: float, floor: float, tests: int) -> str:
    if 2 / math.comb(one.n_candidate + one.n_baseline, one.n_baseline) * tests > ALPHA:
        return UNDECIDED
    if p <= ALPHA and one.ratio <= 1 - LEAST and one.high < 1 / (1 + floor):
        return REGRESSED
    if p <= ALPHA and one.ratio >= 1 + LEAST and one.low > 1 + floor:
        return IMPROVED
    within = 1 + max(LEAST, floor)
    return SAME if 1 / within <= one.low and one.high <= within else AMBIGUOUS


def _lines(
    run: Path, baseline: Path, changed: list[str], found: pd.DataFrame, shown: pd.DataFrame
) -> list[str]:
    lines = [f"# {run.name} against {baseline.name}", ""]
    if changed:
        lines += ["The environments differ:", "", *(f"- {one}" for one in changed), ""]
    if len(shown):
        lines += ["| system | work | metric | ratio [95 %] | p | delta | n | verdict |", "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for row in shown.itertuples():
        work = f"{row.workload} {row.params}"
        interval = f"{row.ratio:.3f}x [{row.low:.3f}, {row.high:.3f}]"
        lines.append(
            f"| {row.system} | {work} | {row.metric} | {interval} | {row.p_adjusted:.1e} | {row.delta:+.2f} | {row.n} "
            f"| {row.verdict} |"
        )
    counts = found["verdict"].value_counts()
    said = ", ".join(f"{counts[verdict]} {verdict}" for verdict in (REGRESSED, IMPROVED, SAME, AMBIGUOUS, UNDECIDED) if verdict in counts)  # fmt: skip
    lines += ["", f"Of {len(found)} cells: {said}."]
    if UNDECIDED in counts:
        needed = min_blocks(len(found), ALPHA)
        lines.append(f"Undecided cells have too few blocks to tell: {needed} a side are needed.")
    return lines
