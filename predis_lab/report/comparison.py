"""From samples to tables of who is how much faster. Called by notebooks, the index and README.

Systems are named by who and how: "predis-cuda columns", "predis-host lists", "redis mget unix". A comparison with
Redis takes, cell by cell, the transport that served it better.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ..bench.harness import comparison_table
from . import units

CELL = ["workload", "records", "keys"]  # what makes one cell of the comparison
TRANSPORTS = ("unix", "tcp")


def best_transport(samples: pd.DataFrame) -> pd.DataFrame:
    """The samples with, for each server and way of asking, only the faster transport of each cell, unnamed."""
    parts = samples["system"].str.rsplit(" ", n=1, expand=True)
    named = samples.assign(
        _base=parts[0].where(parts[1].isin(TRANSPORTS), samples["system"]),
        _transport=parts[1].where(parts[1].isin(TRANSPORTS), ""),
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
    """Throughput of each candidate over its baseline in every cell both have; Holm over each pair's table."""
    chosen = best_transport(samples)
    tables = [
        comparison_table(
            chosen, candidate=candidate, baseline=baseline, by=CELL, noise_floor=noise_floor
        ).assign(candidate=candidate, baseline=baseline)
        for candidate, baseline in pairs
    ]
    return (
        pd.concat([table for table in tables if len(table)], ignore_index=True)
        if tables
        else pd.DataFrame()
    )


def default_pairs(samples: pd.DataFrame) -> list[tuple[str, str]]:
    """Each face of Predis against each way of asking Redis, as far as both were measured."""
    systems = set(best_transport(samples)["system"]) if len(samples) else set()
    faces = sorted(system for system in systems if system.startswith("predis"))
    baselines = sorted(system for system in systems if system.startswith("redis"))
    return [(face, baseline) for face in faces for baseline in baselines]


def summary_rows(samples: pd.DataFrame) -> list[dict[str, str]]:
    """The comparison as text for a table; empty where a run holds none."""
    if not len(samples) or not set(CELL) <= set(samples.columns):
        return []
    samples = samples[samples["keys"].notna()]
    floor = float(samples.loc[samples["metric"] == "noise_floor", "value"].max() or 0.0)
    floor = 0.0 if pd.isna(floor) else floor
    table = against(samples, default_pairs(samples), noise_floor=floor)
    rates = best_transport(samples)
    rates = rates[rates["metric"] == "throughput"].groupby([*CELL, "system"])["value"].median()
    rows = []
    for row in table.itertuples():
        cell = (row.workload, row.records, row.keys)
        rows.append(
            {
                "workload": row.workload,
                "records": row.records,
                "keys": f"{int(row.keys):,}",
                "candidate": row.candidate,
                "candidate_rate": units.format_quantity(rates[(*cell, row.candidate)], "1/s"),
                "baseline": row.baseline,
                "baseline_rate": units.format_quantity(rates[(*cell, row.baseline)], "1/s"),
                "ratio": f"{units.digits(row.ratio)} [{units.digits(row.low)}, {units.digits(row.high)}]",
                "p": f"{row.p_adjusted:.1e}",
                "verdict": row.verdict,
            }
        )
    return rows
