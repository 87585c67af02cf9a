"""How busy the GPU is while columns are found and stored without a pause. Called by notebook 07.

`sustained` does the work, and telemetry looks on. A window of it is a block: the driver averages utilisation over up to a
second, so windows are to be as long; shorter ones read the same average more than once.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from ..client import Predis
from .contestants import backend_of
from .results import Run
from .sustained import fill, sustained
from .telemetry import Telemetry, unit_of

WORKLOAD = "busy"


def measure_busy(
    run: Run,
    cache: Predis,
    *,
    records: int,
    batch: int,
    threads: int,
    seconds: float,
    windows: int,
    seed: int,
    progress: Callable[[float], object] = lambda _: None,
) -> None:
    """Adds throughput (1/s, keys) and what telemetry reads to the run, window by window.

    batch:     keys a call; four of five calls find, the others store
    seconds:   in all
    progress:  called with shares of the time
    """
    cache.flushdb()
    keys = fill(cache, records)
    # Some to a window: where threads keep the interpreter busy, a reading may come late.
    interval_s = min(0.1, seconds / windows / 5)
    with Telemetry(interval_s=interval_s) as telemetry:
        began = time.perf_counter()
        load = sustained(
            cache, keys, seconds=seconds, threads=threads, batch=batch, windows=windows, seed=seed,
            progress=progress,
        )  # fmt: skip
        telemetry.look()
        # Batches are prepared before the clock runs: what came first is not the work.
        ended = time.perf_counter()
    edges = np.linspace(max(began, ended - load.seconds), ended, windows + 1)
    system, params = f"predis-{backend_of(cache)} columns", {"batch": batch, "threads": threads}
    for block, (rate, _) in enumerate(load.windows):
        run.add_sample(system, WORKLOAD, params, block, "throughput", rate, "1/s")
        for metric, value in telemetry.between(edges[block], edges[block + 1]).values.items():
            run.add_sample(system, WORKLOAD, params, block, metric, value, unit_of(metric))
    failed = load.errors / load.operations
    run.add_sample(system, WORKLOAD, params, 0, "error_rate", failed, "1")
