"""Interleaved trials: every system in the same process, block by block, in random order.

A block is enough calls to last `block_seconds`; it gives one throughput and one latency distribution. Called by
notebooks through `measure`.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from hdrh.histogram import HdrHistogram

from .results import Run
from .statistics import Comparison, compare, judge

# A percentile needs this many calls in its block: ten beyond it, lest it be the maximum under another name.
PERCENTILES = {"p50": (50.0, 20), "p95": (95.0, 200), "p99": (99.0, 1000), "p99.9": (99.9, 10_000)}
POOLED = [f"pooled_latency_{name}" for name in PERCENTILES]
ALL_BLOCKS = -1  # the block number of what describes all blocks together
LONGEST_NS = 60 * 10**9
# Per block, whatever the clock says: their latencies are kept until the block is over.
MAX_CALLS = 200_000


@dataclass
class Contestant:
    """One system doing one piece of work.

    call:        does the work once
    operations:  how many operations (keys) one call carries
    check:       raises if the answers are wrong; called once, before anything is timed
    prepare:     called before each block and not timed, e.g. to put back what the block will delete
    max_calls:   how many calls a block may make at most after one `prepare`
    """

    system: str
    call: Callable[[], object]
    operations: int = 1
    check: Callable[[], None] | None = None
    prepare: Callable[[], None] = lambda: None
    max_calls: int = MAX_CALLS


def measure(
    contestants: Sequence[Contestant],
    *,
    run: Run,
    workload: str,
    params: dict,
    blocks: int,
    block_seconds: float,
    seed: int = 0,
    progress: Callable[[float], object] = lambda _: None,
) -> dict[str, HdrHistogram]:
    """Runs `blocks` blocks of each contestant and adds their samples to the run.

    Metrics per block: throughput (1/s, operations), latency_mean and latency_<percentile> (s, per call). Over all
    blocks together: pooled_latency_<percentile>, which describes; tests and intervals use blocks.
    progress:  called after each block with its share of a round
    returns:   by system, a histogram of all calls in ns
    """
    for contestant in contestants:
        if contestant.check is not None:
            contestant.check()
    calls = [_calibrate(contestant, block_seconds) for contestant in contestants]
    histograms = {contestant.system: HdrHistogram(1, LONGEST_NS, 3) for contestant in contestants}
    generator = np.random.default_rng(seed)
    for block in range(blocks):
        gc.collect()  # between blocks, so that none has to be within one
        for i in generator.permutation(len(contestants)):
            contestant = contestants[i]
            contestant.prepare()
            seconds, latencies = run_block(contestant.call, calls[i])

            def add(metric: str, value: float, unit: str, system: str = contestant.system) -> None:
                run.add_sample(system, workload, params, block, metric, value, unit)  # noqa: B023

            add("throughput", calls[i] * contestant.operations / seconds, "1/s")
            add("latency_mean", seconds / calls[i], "s")
            histogram = histogram_of(latencies)
            for name, value in _percentiles(histogram):
                add(f"latency_{name}", value, "s")
            histograms[contestant.system].add(histogram)
            progress(1 / len(contestants))
    for system, histogram in histograms.items():
        for name, value in _percentiles(histogram):
            pooled = f"pooled_latency_{name}"
            run.add_sample(system, workload, params, ALL_BLOCKS, pooled, value, "s")
    return histograms


def _percentiles(histogram: HdrHistogram) -> Iterator[tuple[str, float]]:
    """Name and seconds of each percentile that the number of calls allows."""
    for name, (percentile, needed) in PERCENTILES.items():
        if histogram.get_total_count() >= needed:
            yield name, histogram.get_value_at_percentile(percentile) * 1e-9


def run_block(call: Callable[[], object], calls: int) -> tuple[float, np.ndarray]:
    """Seconds for `calls` calls, and each one's latency in ns."""
    stamps = np.empty(calls + 1, np.int64)
    clock = time.perf_counter_ns
    collecting = gc.isenabled()
    gc.disable()
    try:
        stamps[0] = clock()
        for i in range(1, calls + 1):
            call()
            stamps[i] = clock()
    finally:
        if collecting:
            gc.enable()
    return float(stamps[-1] - stamps[0]) * 1e-9, np.diff(stamps)


def histogram_of(latencies_ns: np.ndarray) -> HdrHistogram:
    """The latencies as an HDR histogram of three significant digits."""
    histogram = HdrHistogram(1, LONGEST_NS, 3)
    for value, count in zip(*np.unique(latencies_ns, return_counts=True), strict=True):
        histogram.record_value(int(min(max(value, 1), LONGEST_NS)), int(count))
    return histogram


def comparison_table(
    samples: pd.DataFrame,
    *,
    candidate: str,
    baseline: str,
    by: Sequence[str],
    metric: str = "throughput",
    better: str = "higher",
    noise_floor: float = 0.0,
) -> pd.DataFrame:
    """One judged comparison for every combination of `by` that both systems were measured at; Holm over all."""
    chosen = samples[samples["metric"] == metric]
    keys, comparisons = [], []
    for key, group in chosen.groupby(list(by), dropna=False, sort=True):
        sides = [
            group.loc[group["system"] == system, "value"].to_numpy()
            for system in (candidate, baseline)
        ]
        if all(len(side) >= 2 for side in sides):
            keys.append(key)
            comparisons.append(compare(*sides, better=better, noise_floor=noise_floor))
    judged = [vars(comparison) for comparison in judge(comparisons)] if comparisons else []
    columns = list(Comparison.__dataclass_fields__)
    return pd.DataFrame(keys, columns=list(by)).join(pd.DataFrame(judged, columns=columns))


def noise_floor_of(samples: pd.DataFrame) -> float:
    """The largest noise floor that the samples hold; 0 where none was measured."""
    measured = (samples["workload"] == "a/a") & (samples["metric"] == "noise_floor")
    return float(samples.loc[measured, "value"].max()) if measured.any() else 0.0


def _calibrate(contestant: Contestant, block_seconds: float) -> int:
    """How many calls last a block, from calls that are not recorded; they warm up what there is to warm up too."""
    calls = 1
    while True:
        contestant.prepare()
        seconds, _ = run_block(contestant.call, calls)
        if seconds >= block_seconds / 4 or calls >= contestant.max_calls:
            return max(1, min(contestant.max_calls, int(np.ceil(calls * block_seconds / seconds))))
        wanted = max(2 * calls, int(calls * block_seconds / 2 / max(seconds, 1e-9)))
        calls = min(contestant.max_calls, wanted)
