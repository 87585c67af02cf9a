"""How busy the GPU is while columns are found and stored without a pause. Called by notebook 07.

`sustained` does the work, and telemetry looks on. A window of it is a block: the driver averages utilisation over up to a
second, so windows are to be as long; shorter ones read the same average more than once.

Columns lie on the host, so that it is the link that is busy; or on the device, for a program whose data is there.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ..client import Predis
from .contestants import backend_of
from .results import Run
from .sustained import VALUE_NBYTES, Batch, fill, refused, rows_of, sustained, wrong_rows
from .telemetry import NothingReadError, Telemetry, unit_of

WORKLOAD = "busy"


@dataclass(frozen=True)
class DeviceBatch:
    """A `Batch` whose columns, uint8 (n, width), lie on the device; a call is over when the device is done with it."""

    keys: Any
    values: Any
    host_keys: pa.Array

    @classmethod
    def of(cls, batch: Batch) -> DeviceBatch:
        """Copies it there."""
        import cupy

        values = None if batch.values is None else cupy.asarray(rows_of(batch.values))
        return cls(cupy.asarray(rows_of(batch.keys)), values, batch.keys)

    def send(self, cache: Predis) -> Any:
        """Makes the call; of a lookup values and how many there are."""
        if self.values is not None:
            return cache.insert(self.keys, self.values)
        rows, found = cache.find(self.keys, dtype="u1", shape=(VALUE_NBYTES,))
        return rows, int(found.sum())

    def errors(self, answer: Any) -> int:
        """As of Batch."""
        return len(self.keys) - answer[1] if self.values is None else refused(answer)

    def wrong(self, answer: Any) -> int:
        """As of Batch; zeros of a key that was not found count twice."""
        return wrong_rows(self.host_keys, answer[0].get())


ON_DEVICE: dict[str, Any] = {"distinct": 10, "lay": DeviceBatch.of}  # how `sustained` asks there


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
    device: bool = False,
    progress: Callable[[float], object] = lambda _: None,
) -> None:
    """Adds throughput (1/s, keys) and what telemetry reads to the run, window by window.

    batch:     keys a call; four of five calls find, the others store
    seconds:   in all
    device:    whether columns lie on the device, which there has to be
    progress:  called with shares of the time
    """
    cache.flushdb()
    keys = fill(cache, records)
    # Some to a window: where threads keep the interpreter busy, a reading comes late, or none in a window.
    interval_s = min(0.1, seconds / windows / 5)
    with Telemetry(interval_s=interval_s) as telemetry:
        load = sustained(
            cache, keys, seconds=seconds, threads=threads, batch=batch, windows=windows, seed=seed,
            progress=progress, **(ON_DEVICE if device else {}),
        )  # fmt: skip
        telemetry.look()
    # Before that batches are prepared, and after it answers are looked at: neither is the work.
    edges = np.linspace(load.began, load.began + load.seconds, windows + 1)
    system = f"predis-{backend_of(cache)} columns" + " on device" * device
    params = {"batch": batch, "threads": threads}
    for block, (rate, _) in enumerate(load.windows):
        run.add_sample(system, WORKLOAD, params, block, "throughput", rate, "1/s")
        with suppress(NothingReadError):  # whoever looks needs the interpreter, which is kept busy
            for metric, value in telemetry.between(*edges[block : block + 2]).values.items():
                run.add_sample(system, WORKLOAD, params, block, metric, value, unit_of(metric))
    failed = load.errors / load.operations
    run.add_sample(system, WORKLOAD, params, 0, "error_rate", failed, "1")
