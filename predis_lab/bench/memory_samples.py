"""What notebook 05 measures, by name, and how it is read from samples: without CUDA.

Written by `memory_rates`, `pool_churn` and `soak`, read by `report.memory_figures` and `report.memory_show`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from .results import Run
from .statistics import median_interval

KEY_NBYTES, VALUE_NBYTES = 16, 64  # of the record whose cost is counted
PAYLOAD_NBYTES = KEY_NBYTES + VALUE_NBYTES
# Where the bytes of a record go, from the first on; together all that the cache has taken.
PARTS = {
    "payload": "key and value",
    "header": "header",
    "padding": "padding to 16 B",
    "index": "index",
    "dead": "dead records",
    "buffers": "buffers of calls",
    "unwritten": "not written to: kept for compaction, ends of segments and pages",
}
# Who is given the same sizes to hold.
ARENA = "arena"
HOLDERS = {
    ARENA: "the cache's log",
    "default_pool": "CuPy's default pool",
    "async_pool": "CuPy's async pool",
}
PERCENTILES = {"p50": 50.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
READERS = {"quiet": "nothing else", "compacting": "beside compaction"}
# Figures of `tier_rates`, and what to call them.
TIERS = {
    "tier_uniform_bandwidth": "find, half of the records on the host: their bytes over the link",
    "tier_uniform_promoting": "the same, with what is brought back meanwhile",
    "tier_zipf_share": "hits served from the device, Zipf 0.99, a tenth of the records there",
}
# What limits the first of them.
GATHER = "tier_gather"


@dataclass(frozen=True)
class RecordCost:
    """What a full cache of one size of record consists of, in bytes.

    taken:  from the driver, by its own count
    parts:  by PARTS, of all records together
    """

    capacity: int
    records: int
    taken: int
    parts: dict[str, int]

    @property
    def overhead(self) -> float:
        """Bytes a record beyond its key and value."""
        return self.taken / self.records - PAYLOAD_NBYTES


@dataclass(frozen=True)
class Step:
    """One step of compaction. seconds: by the device's clock, census included; moved, freed: bytes."""

    seconds: float
    moved: int
    freed: int


@dataclass
class Churn:
    """What became of one holder. latencies: seconds of each allocation, or of each batch where batches are what it takes."""

    holder: str
    live: list[int] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    failures: int = 0

    @property
    def held_over_live(self) -> np.ndarray:
        """One ratio per turn, from the first one on at which it was as full as it was ever to be."""
        live, held = (np.asarray(values, float) for values in (self.live, self.held))
        full = int(np.argmax(live >= 0.99 * live.max()))
        return held[full:] / live[full:]


def record_cost(run: Run, cost: RecordCost) -> None:
    """Adds the parts of a record, and `record_overhead`, to a run."""
    for part, nbytes in cost.parts.items():
        run.add_figure(f"record_part_{part}", nbytes / cost.records, "B")
    run.add_figure("record_overhead", cost.overhead, "B", n=cost.records)
    run.add_figure("record_overhead_capacity", cost.capacity, "B")


def record_steps(run: Run, share: float, value_nbytes: int, steps: list[Step]) -> None:
    """Adds the steps at one live share to a run: bytes moved, freed and seconds of each; rates of those that moved something."""
    told = {"live": share, "value_nbytes": value_nbytes}
    for number, step in enumerate(steps):
        for metric, value, unit in (
            ("seconds", step.seconds, "s"),
            ("moved", step.moved, "B"),
            ("freed", step.freed, "B"),
        ):
            run.add_sample(ARENA, "compaction", told, number, metric, value, unit)
    moving = [step for step in steps if step.moved]
    if len(moving) > 1:
        name = f"{share:.0%}".rstrip("%")
        for metric in ("moved", "freed"):
            rates = [getattr(step, metric) / step.seconds for step in moving]
            run.add_interval(f"compaction_{metric}_{name}", median_interval(rates), "B/s")
        seconds = [step.seconds for step in moving]
        run.add_interval(f"compaction_step_{name}", median_interval(seconds), "s")


def record_readers(run: Run, latencies: dict[str, list[float]]) -> None:
    """Adds the latencies of single lookups to a run, by READERS: percentiles as figures."""
    for name, seconds in latencies.items():
        for percentile, share in PERCENTILES.items():
            value = float(np.percentile(seconds, share))
            run.add_figure(f"reader_{name}_{percentile}", value, "s", n=len(seconds))


def record_churn(run: Run, churn: Churn, params: dict) -> None:
    """Adds a holder's course to a run, and its figures: held over live at worst, latencies, failures."""
    for turn, (live, held) in enumerate(zip(churn.live, churn.held, strict=True)):
        run.add_sample(churn.holder, "churn", params, turn, "live", live, "B")
        run.add_sample(churn.holder, "churn", params, turn, "held", held, "B")
    ratios = churn.held_over_live
    run.add_figure(
        f"churn_{churn.holder}_held",
        float(np.median(ratios)),
        "1",
        low=float(ratios.min()),
        high=float(ratios.max()),
        n=len(ratios),
    )
    for percentile, share in PERCENTILES.items():
        value = float(np.percentile(churn.latencies, share))
        run.add_figure(
            f"churn_{churn.holder}_latency_{percentile}", value, "s", n=len(churn.latencies)
        )
    run.add_figure(
        f"churn_{churn.holder}_failures", churn.failures, "1", n=max(1, len(churn.latencies))
    )


def step_samples(samples: pd.DataFrame) -> pd.DataFrame:
    """Steps of compaction, a row each: live, value_nbytes, seconds, moved, freed."""
    return _wide(samples, "compaction", ["live", "value_nbytes"], ["seconds", "moved", "freed"])


def churn_samples(samples: pd.DataFrame) -> pd.DataFrame:
    """Turns of the churn, a row each and holder: system, live, held."""
    return _wide(samples, "churn", ["system"], ["live", "held"])


def soak_samples(samples: pd.DataFrame) -> pd.DataFrame:
    """Readings of the soak, a row each, in order."""
    return _wide(samples, "soak", [], ["elapsed", "live", "log_used", "device", "pool"])


def _wide(samples: pd.DataFrame, workload: str, by: list[str], metrics: list[str]) -> pd.DataFrame:
    chosen = samples[samples["workload"] == workload] if len(samples) else samples
    if not len(chosen) or not set(by) <= set(chosen.columns):
        return pd.DataFrame(columns=[*by, "block", *metrics])
    wide = chosen.pivot_table(index=[*by, "block"], columns="metric", values="value")
    return wide.reset_index().dropna(subset=metrics)


def holders_of(samples: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each holder's turns, in HOLDERS' order."""
    for holder in HOLDERS:
        rows = samples[samples["system"] == holder]
        if len(rows):
            yield holder, rows.sort_values("block")
