"""Percentiles of a call's latency with intervals, as far as the number of calls allows. Called by the report's figures and tables."""

from __future__ import annotations

import pandas as pd

from ..bench.harness import POOLED
from ..bench.statistics import median_interval
from .facts import Facts

PERCENTILES = [name.removeprefix("pooled_latency_") for name in POOLED]
_COLUMNS = ["system", "keys", "percentile", "value", "low", "high", "n"]


def tails(facts: Facts, workload: str, records: str) -> pd.DataFrame:
    """Seconds a call: system, keys, percentile, value, low, high, n; one row where something was measured.

    A percentile of each of n blocks gives a median and its interval. Where a block had too few calls for it, the percentile of
    all blocks' calls together stands instead; it has no interval (low, high: NaN) and an n of 1.
    """
    cell = (facts.cells["workload"] == workload) & (facts.cells["records"] == records)
    rows = []
    for (system, keys), found in facts.cells[cell].groupby(["system", "keys"]):
        values = dict(iter(found.groupby("metric")["value"]))
        for name in PERCENTILES:
            blocks, pooled = (
                values.get(f"{kind}_{name}") for kind in ("latency", "pooled_latency")
            )
            if blocks is not None and len(blocks) > 1:
                one = median_interval(blocks.to_numpy())
                rows.append((system, int(keys), name, one.value, one.low, one.high, one.n))
            elif pooled is not None:
                rows.append(
                    (system, int(keys), name, pooled.iloc[0], float("nan"), float("nan"), 1)
                )
    return pd.DataFrame(rows, columns=_COLUMNS)
