"""Interleaved trials: every system in the same process, block by block, in random order.

A block is enough calls to last `block_seconds`; it gives one throughput and one latency distribution. While it runs the
machine is watched: a block during which the GPU was throttled or others had the CPU is made again, a few times at most.
Called by notebooks through `measure`.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd
from hdrh.histogram import HdrHistogram

from .results import Run
from .servers import running
from .statistics import Comparison, compare, judge
from .telemetry import Telemetry, Window, unit_of

# A percentile needs this many calls in its block: ten beyond it, lest it be the maximum under another name.
PERCENTILES = {"p50": (50.0, 20), "p95": (95.0, 200), "p99": (99.0, 1000), "p99.9": (99.9, 10_000)}
POOLED = [f"pooled_latency_{name}" for name in PERCENTILES]
ALL_BLOCKS = -1  # the block number of what describes all blocks together
LONGEST_NS = 60 * 10**9
# Per block, whatever the clock says: their latencies are kept until the block is over.
MAX_CALLS = 200_000
# A block is made again so many times at most; all of them together, by the share of the blocks that were asked for.
MOST_RERUNS, RERUN_SHARE = 2, 0.1

T = TypeVar("T")


@dataclass
class Contestant:
    """One system doing one piece of work.

    call:        does the work once
    operations:  how many operations (keys) one call carries
    check:       raises if the answers are wrong; called once, before anything is timed
    prepare:     called before each block and not timed, e.g. to put back what the block will delete
    max_calls:   how many calls a block may make at most after one `prepare`
    tell:        called after each block, not timed: further metrics of it, as name -> value, unit
    """

    system: str
    call: Callable[[], object]
    operations: int = 1
    check: Callable[[], None] | None = None
    prepare: Callable[[], None] = lambda: None
    max_calls: int = MAX_CALLS
    tell: Callable[[], dict[str, tuple[float, str]]] = dict


@dataclass(frozen=True)
class Block(Generic[T]):
    """What one block came to. reruns: how often it was made again, since the one before was disturbed"""

    result: T
    window: Window
    reruns: int


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

    Metrics per block: throughput (1/s, operations), latency_mean and latency_<percentile> (s, per call), what the
    contestant tells, what `telemetry` reads, reruns and disturbed (1, whether the block that was kept was disturbed too).
    Over all blocks together: pooled_latency_<percentile>, which describes; tests and intervals use blocks.
    progress:  called after each block with its share of a round
    returns:   by system, a histogram of all calls in ns
    """
    for contestant in contestants:
        if contestant.check is not None:
            contestant.check()
    calls = [_calibrate(contestant, block_seconds) for contestant in contestants]
    histograms = {contestant.system: HdrHistogram(1, LONGEST_NS, 3) for contestant in contestants}
    generator = np.random.default_rng(seed)
    spare = max(MOST_RERUNS, int(RERUN_SHARE * blocks * len(contestants)))
    with Telemetry(running()) as telemetry, tidy():
        for block in range(blocks):
            gc.collect()  # between blocks, so that none has to be within one
            for i in generator.permutation(len(contestants)):
                contestant = contestants[i]
                work, most = partial(run_block, contestant.call, calls[i]), min(MOST_RERUNS, spare)
                done = undisturbed(work, telemetry, most, contestant.prepare)
                spare -= done.reruns
                seconds, latencies = done.result
                histogram = histogram_of(latencies)
                histograms[contestant.system].add(histogram)
                rate = calls[i] * contestant.operations / seconds
                metrics = {
                    "throughput": (rate, "1/s"),
                    "latency_mean": (seconds / calls[i], "s"),
                    **{
                        f"latency_{name}": (value, "s") for name, value in percentiles_of(histogram)
                    },
                    **contestant.tell(),
                    **observed(done),
                }
                for metric, (value, unit) in metrics.items():
                    run.add_sample(contestant.system, workload, params, block, metric, value, unit)
                progress(1 / len(contestants))
    cost = telemetry.cost_cpu
    run.add_sample("machine", workload, params, ALL_BLOCKS, "telemetry_cpu", cost, "1")
    for system, histogram in histograms.items():
        for name, value in percentiles_of(histogram):
            pooled = f"pooled_latency_{name}"
            run.add_sample(system, workload, params, ALL_BLOCKS, pooled, value, "s")
    return histograms


@contextlib.contextmanager
def tidy() -> Iterator[None]:
    """Objects there are already are left out of collections meanwhile: between two blocks only what is new is looked at."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def undisturbed(
    work: Callable[[], T],
    telemetry: Telemetry,
    most_reruns: int,
    prepare: Callable[[], object] = lambda: None,
) -> Block[T]:
    """A block of work, made again while it was disturbed, so many times at most.

    Whether it was is told by the machine, never by what was measured. prepare: before each time, and not watched
    """
    reruns = 0
    while True:
        prepare()
        began = telemetry.look().at
        result = work()
        window = telemetry.between(began, telemetry.look().at)
        if not window.disturbed or reruns >= most_reruns:
            return Block(result, window, reruns)
        reruns += 1


def observed(block: Block[Any]) -> dict[str, tuple[float, str]]:
    """What was seen beside a block, as metrics."""
    metrics = {name: (value, unit_of(name)) for name, value in block.window.values.items()}
    metrics["reruns"] = (block.reruns, "1")
    metrics["disturbed"] = (float(bool(block.window.disturbed)), "1")
    return metrics


def percentiles_of(histogram: HdrHistogram) -> Iterator[tuple[str, float]]:
    """Name and seconds of each percentile that the number of calls allows."""
    count = histogram.get_total_count()
    allowed = {name: one for name, (one, needed) in PERCENTILES.items() if count >= needed}
    values = histogram.get_percentile_to_value_dict(list(allowed.values())) if allowed else {}
    for name, percentile in allowed.items():
        yield name, values[percentile] * 1e-9


def run_block(call: Callable[[], object], calls: int) -> tuple[float, np.ndarray]:
    """Seconds for `calls` calls, and each one's latency in ns."""
    stamps: list[int] = []  # faster than an array, and nothing else may cost time between two calls
    stamp, clock = stamps.append, time.perf_counter_ns
    collecting = gc.isenabled()
    gc.disable()
    try:
        stamp(clock())
        for _ in range(calls):
            call()
            stamp(clock())
    finally:
        if collecting:
            gc.enable()
    return (stamps[-1] - stamps[0]) * 1e-9, np.diff(np.array(stamps, np.int64))


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
