"""What notebook 03 measures, by name, and how it is read from samples: without CUDA.

Written by `tuning_rates` and `tuning_load`, read by `report.tuning_show`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .pipeline_samples import kept
from .statistics import Interval, median_interval, ratio_interval

LATENCY, RATE = "latency", "throughput"
TUNER = "tuner"  # the system, beside the fixed settings
# Workloads of samples.
CROSSOVER, SWEEP, REGRET = "crossover", "sweep", "regret"
ADAPTATION, SCALING, CONSTANTS = "adaptation", "scaling", "constants"
BESIDE, THREADS, SINGLE, FIRST = "beside", "threads", "single", "first"

# Ways of a call, as they are drawn and spoken of.
WAYS = {"doorbell": "doorbell", "launch": "one launch", "pipeline": "pipeline"}
SINGLES = {
    "single_get": "get, doorbell, p50",
    "single_get_p99": "get, doorbell, p99",
    "single_get_launch": "get, one launch, p50",
    "single_get_launch_p99": "get, one launch, p99",
    "single_set": "set, doorbell, p50",
    "single_set_p99": "set, doorbell, p99",
    "single_set_stored": "set, doorbell, until it is stored, p50",
    "single_set_launch": "set, one launch, p50",
    "single_get_hot": "get, host tier, p50",
    "single_get_hot_p99": "get, host tier, p99",
}
# What has to hold of them: seconds at most.
LIMITS = {"single_get": 5e-6, "single_get_p99": 10e-6, "single_set": 7e-6, "single_get_hot": 0.6e-6}
FIRST_LIMITS = {"first_call": 2.5, "import_time": 0.4}
FIRSTS = {
    "first_call": "from `python -c` to the first answered get",
    "import_time": "of it, `import predis_lab`",
}
BESIDES = {
    "beside_alone": "nothing beside them",
    "beside_doorbell": "single gets at the doorbell beside them",
    "beside_launch": "single gets by launches beside them",
}
REGRET_MOST = 0.05
BEND = 0.5  # of a slope: from where on a call of twice as many keys takes nearly twice as long

crossover_samples = kept([CROSSOVER], "rows", "value_nbytes", "way")
regret_samples = kept([REGRET], "verb", "rows", "value_nbytes", "way")
adaptation_samples = kept([ADAPTATION], "phase", "value_nbytes", "rows", "way")
scaling_samples = kept([SCALING], "rows", "value_nbytes", "way", "binding")
constant_samples = kept([CONSTANTS])
beside_samples = kept([BESIDE])
thread_samples = kept([THREADS], "threads", "rows")
single_samples = kept([SINGLE])


def thread_figure(threads: int, rows: int) -> str:
    """Id of the total rate; with `_p99` behind it, of a call's latency."""
    return f"threads_{threads}_{rows}"


@dataclass(frozen=True)
class Cell:
    """One point of the regret map.

    regret:  what the tuner's calls took beyond those of the best fixed setting, as a share of these
    best:    that setting. chosen: the way that the tuner's calls went
    """

    verb: str
    value_nbytes: int
    rows: int
    regret: Interval
    best: str
    chosen: str


def regrets(samples: pd.DataFrame) -> list[Cell]:
    """Of every point that was measured, in order."""
    found = []
    for (verb, size, rows), cell in samples.groupby(["verb", "value_nbytes", "rows"]):
        took = {name: one["value"].to_numpy() for name, one in cell.groupby("system")}
        tuned = took.pop(TUNER)
        best = min(took, key=lambda name: float(np.median(took[name])))
        ratio = ratio_interval(tuned, took[best])
        regret = Interval(ratio.value - 1, ratio.low - 1, ratio.high - 1, ratio.n)
        chosen = cell.loc[cell["system"] == TUNER, "way"].mode().iloc[0]
        found.append(Cell(str(verb), int(size), int(rows), regret, best, str(chosen)))
    return found


def by_rows(samples: pd.DataFrame) -> Iterator[tuple[int, Interval]]:
    """Keys a call, ascending, and the median of what was measured there."""
    for rows, group in samples.groupby("rows"):
        yield int(rows), median_interval(group["value"].to_numpy())  # type: ignore[call-overload]


def crossing(samples: pd.DataFrame, one: str, other: str) -> int | None:
    """The fewest keys a call from which on the other way takes less than one; None where it never does."""
    took = {way: dict(by_rows(samples[samples["way"] == way])) for way in (one, other)}
    both = sorted(took[one].keys() & took[other].keys())
    slower = [rows for rows in both if took[other][rows].value >= took[one][rows].value]
    beyond = [rows for rows in both if not slower or rows > slower[-1]]
    return beyond[0] if beyond else None


def slope(samples: pd.DataFrame, low: float, high: float) -> float | None:
    """Of log rate over log keys a call, between two numbers of keys; 1 where all keys are answered together."""
    points = [(rows, one.value) for rows, one in by_rows(samples) if low <= rows <= high]
    if len(points) < 2:
        return None
    x, y = np.log([point[0] for point in points]), np.log([point[1] for point in points])
    return float(np.polyfit(x, y, 1)[0])


def bend(samples: pd.DataFrame) -> int | None:
    """The keys a call from which on the slope to the next point stays below BEND; None where it never does."""
    points = [(rows, one.value) for rows, one in by_rows(samples)]
    slopes = [
        (at[0], np.log(to[1] / at[1]) / np.log(to[0] / at[0]))
        for at, to in itertools.pairwise(points)
    ]
    found = None
    for rows, value in reversed(slopes):
        if value >= BEND:
            break
        found = rows
    return found
