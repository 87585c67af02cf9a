"""What notebooks 01 and 02 measure, by name, and how it is read from samples: without CUDA.

Written by `ladder_rates` and `occupancy_rates`, read by `report.kernel_figures` and `report.kernel_show`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..gpu.ladder import ERASE, FIND, INSERT, RUNGS
from .results import Run, read_samples, reference_directory
from .statistics import Interval, ratio_interval

RATE = "throughput"
WINNER = "winner"  # what serves the cache
CEILING = "ceiling"  # the winner's accesses alone
# What is asked of each rung, and whose kernel answers.
WORKLOADS = {"find": FIND, "insert": INSERT, "update": INSERT, "erase": ERASE}
LADDER_COLUMNS = ("batch", "value_nbytes", "records")
SWEPT = "sweep"  # the workload of launch settings; the system is the kernel
SWEEP_COLUMNS = (
    *("threads", "resident", "pieces", "rounds"),
    *("registers", "local_nbytes", "occupancy", "usual"),
)

Cell = tuple[int, int]  # bytes a value, keys a launch


def samples_of(run: Run, measured: bool, keep: Callable[[pd.DataFrame], pd.DataFrame]) -> Any:
    """This run's samples of one kind, or the recorded run's; none at all where neither has any.

    keep: `ladder_samples` or `sweep_samples`
    """
    recorded = reference_directory()
    if measured:
        return keep(run.frame())
    return keep(read_samples(recorded)) if recorded else pd.DataFrame()


def ladder_samples(samples: pd.DataFrame) -> pd.DataFrame:
    """The samples of rungs, winner and ceilings."""
    systems = [*RUNGS, WINNER, CEILING]
    return _kept(samples, samples["system"].isin(systems), LADDER_COLUMNS)


def sweep_samples(samples: pd.DataFrame) -> pd.DataFrame:
    """The samples of launch settings."""
    return _kept(samples, samples["workload"] == SWEPT, SWEEP_COLUMNS)


def sweep_of(samples: pd.DataFrame, kernel: str, by: str) -> pd.DataFrame:
    """Of one kernel's settings, those that differ from the usual one in `by` and in the cap on registers alone.

    by: "threads", "pieces" or "rounds"
    """
    chosen = samples[samples["system"] == kernel]
    usual = chosen[chosen["usual"].astype(bool)]
    for name in ("threads", "pieces", "rounds"):
        if name != by and len(usual):
            chosen = chosen[chosen[name] == usual[name].iloc[0]]
    return chosen


def _kept(samples: pd.DataFrame, chosen: pd.Series, columns: Sequence[str]) -> pd.DataFrame:
    if not set(columns) <= set(samples.columns):
        return samples.iloc[:0]
    kept = samples[chosen & (samples["metric"] == RATE)]
    return kept.dropna(subset=list(columns))


def cells(samples: pd.DataFrame, workload: str) -> list[Cell]:
    """Value size and batch of what was measured, ascending."""
    chosen = samples.loc[samples["workload"] == workload, ["value_nbytes", "batch"]]
    return sorted({(int(size), int(batch)) for size, batch in chosen.itertuples(index=False)})


def main_cell(samples: pd.DataFrame, workload: str) -> Cell:
    """The largest batch of the smallest values: the one that sentences speak of."""
    size = cells(samples, workload)[0][0]
    return max(cell for cell in cells(samples, workload) if cell[0] == size)


def rates(samples: pd.DataFrame, system: str, workload: str, cell: Cell) -> np.ndarray:
    """Keys a second per repeat; of a rung that changes nothing here, its parent's."""
    at = (samples["value_nbytes"] == cell[0]) & (samples["batch"] == cell[1])
    measured = samples[at & (samples["workload"] == workload)]
    while True:
        found = measured.loc[measured["system"] == system, "value"].to_numpy()
        parent = RUNGS[system].parent if system in RUNGS else None
        if len(found) or parent is None or WORKLOADS[workload] in RUNGS[system].operations:
            return found
        system = parent


def rungs_of(samples: pd.DataFrame, workload: str) -> list[str]:
    """The rungs that were measured doing this, in the ladder's order."""
    measured = set(samples.loc[samples["workload"] == workload, "system"])
    return [name for name in RUNGS if name in measured]


def is_climb(rung: str) -> bool:
    """Whether a rung is a step on the way up, not beside the last one."""
    return rung.startswith("v")


def over(
    samples: pd.DataFrame, system: str, baseline: str, workload: str, cell: Cell
) -> Interval | None:
    """How many times the baseline's rate; None where either was measured less than twice."""
    sides = [rates(samples, name, workload, cell) for name in (system, baseline)]
    return ratio_interval(*sides) if min(map(len, sides)) > 1 else None


def record_winner(run: Run, samples: pd.DataFrame) -> None:
    """Adds the winner over v1 to the run, as k4_find and so on."""
    for workload in WORKLOADS:
        if cells(samples, workload):
            ratio = over(samples, WINNER, "v1", workload, main_cell(samples, workload))
            if ratio:
                run.add_interval(f"k4_{workload}", ratio, "1")
