"""From samples to tables of who is how much faster. Called by notebooks, the report and README.

Systems are named by who and how: "predis-cuda columns", "predis-host lists", "redis mget unix". A comparison with
Redis takes, cell by cell, the transport that served it better.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from ..bench.harness import POOLED, comparison_table
from ..bench.results import Run
from ..bench.statistics import Comparison, judge
from . import units

CELL = ["workload", "records", "keys"]  # what makes one cell of the comparison
COLUMNS = list(Comparison.__dataclass_fields__)
TRANSPORTS = ("unix", "tcp")


def best_transport(samples: pd.DataFrame) -> pd.DataFrame:
    """The samples with, for each server and way of asking, only the faster transport of each cell, unnamed."""
    parts = [system.rpartition(" ") for system in samples["system"]]
    split = [
        part if part[2] in TRANSPORTS else (system, "", "")
        for part, system in zip(parts, samples["system"], strict=True)
    ]
    named = samples.assign(
        _base=[part[0] for part in split], _transport=[part[2] for part in split]
    )
    rates = named[named["metric"] == "throughput"]
    medians = rates.groupby([*CELL, "_base", "_transport"], dropna=False)["value"].median()
    best = medians.reset_index().sort_values("value").drop_duplicates([*CELL, "_base"], keep="last")
    kept = named.merge(best[[*CELL, "_base", "_transport"]], on=[*CELL, "_base", "_transport"])
    return kept.assign(system=kept["_base"], transport=kept["_transport"]).drop(
        columns=["_base", "_transport"]
    )


def against(
    samples: pd.DataFrame, pairs: Sequence[tuple[str, str]], *, noise_floor: float = 0.0
) -> pd.DataFrame:
    """Throughput of each candidate over its baseline in every cell both have; Holm over all of them together."""
    chosen = best_transport(samples)
    tables = [
        comparison_table(
            chosen, candidate=candidate, baseline=baseline, by=CELL, noise_floor=noise_floor
        ).assign(candidate=candidate, baseline=baseline)
        for candidate, baseline in pairs
    ]
    tables = [table for table in tables if len(table)]
    if not tables:
        return pd.DataFrame(columns=[*CELL, *COLUMNS, "candidate", "baseline"])
    table = pd.concat(tables, ignore_index=True)
    judged = judge([Comparison(**row) for row in table[COLUMNS].to_dict("records")])
    table[COLUMNS] = pd.DataFrame([vars(comparison) for comparison in judged])
    return table.sort_values([*CELL, "candidate", "baseline"], ignore_index=True)


def default_pairs(samples: pd.DataFrame) -> list[tuple[str, str]]:
    """Each face of Predis against each way of asking Redis, as far as both were measured."""
    systems = set(best_transport(samples)["system"]) if len(samples) else set()
    faces = sorted(system for system in systems if system.startswith("predis"))
    baselines = sorted(system for system in systems if system.startswith("redis"))
    return [(face, baseline) for face in faces for baseline in baselines]


def way(system: str) -> str:
    """How a server was asked: by "pipeline", or by one "command" for all keys."""
    return "pipeline" if system.endswith("pipeline") else "command"


def ratio_text(row: Any) -> str:
    """A comparison's ratio with its interval."""
    return times_text(row.ratio, row.low, row.high)


def times_text(value: float, low: float, high: float) -> str:
    """A ratio and its interval.

    >>> times_text(12.0, 11.5, 12.6)
    '12.0x [11.5, 12.6]'
    """
    return f"{units.digits(value)}x [{units.digits(low)}, {units.digits(high)}]"


def pooled_latencies(samples: pd.DataFrame, workload: str, records: str, keys: int) -> pd.DataFrame:
    """Seconds a call by system (rows) and percentile (columns), over all its calls; NaN where they were too few."""
    chosen = best_transport(samples)
    cell = (chosen["workload"] == workload) & (chosen["records"] == records)
    chosen = chosen[cell & (chosen["keys"] == keys) & chosen["metric"].isin(POOLED)]
    return chosen.pivot(index="system", columns="metric", values="value").reindex(columns=POOLED)


def at_redis_best(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `against` in which Redis was asked in the way that served it best, cell by cell and face by face."""
    if not len(table):
        return table
    lowest = table.groupby([*CELL, "candidate"], sort=False)["ratio"].idxmin()
    return table.loc[sorted(lowest)]


def record_ratios(run: Run, table: pd.DataFrame) -> None:
    """Adds each comparison of `against` to the run as a figure, such as get_fixed_16_64_b_1000_columns_over_mget."""
    for row in table.itertuples():
        face, way = row.candidate.split()[-1], row.baseline.split()[-1]
        name = f"{row.workload} {row.records} {int(row.keys)} {face} over {way}"
        run.add_figure(
            re.sub(r"[^a-z0-9]+", "_", name.lower()),
            row.ratio,
            "1",
            low=row.low,
            high=row.high,
            n=min(row.n_candidate, row.n_baseline),
        )
