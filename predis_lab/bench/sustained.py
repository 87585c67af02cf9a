"""Mixed batches through the whole path for as long as one likes, from one thread or several. For `busy` and notebook 04.

Columns are made beforehand; every call is the client's own `find` or `insert`. Each value begins with its key, so that
answers can be told right from wrong whichever insert came last. Runs on any backend.
"""

from __future__ import annotations

import itertools
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from hdrh.histogram import HdrHistogram

from ..client import Predis
from ..errors import PredisError
from .harness import ALL_BLOCKS, histogram_of
from .pipeline_samples import KEY_NBYTES, RATE
from .results import Run
from .statistics import median_interval
from .workloads import fixed

VALUE_NBYTES = 64
LOADED_AT_ONCE = 2**20  # records
DISTINCT = 100  # batches a thread has, asked over and over
KEPT_EVERY, MOST_KEPT = (
    1000,
    50,
)  # answers, to be compared with what was stored once the clock has stopped
LOOK_SECONDS = 0.25  # how often the waiting thread tells its progress
PERCENTILES = {"p50": 50.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}


@dataclass(frozen=True)
class Batch:
    """One call's columns; a lookup where there are no values."""

    keys: pa.Array
    values: pa.Array | None

    def send(self, cache: Predis) -> Any:
        """Makes the call."""
        if self.values is None:
            return cache.find(self.keys)
        return cache.insert(self.keys, self.values)

    def errors(self, answer: Any) -> int:
        """Operations that were not answered: keys that were not found, records that were refused."""
        if self.values is None:
            return answer.null_count
        return refused(answer)

    def wrong(self, answer: Any) -> int:
        """Answers of a lookup that do not begin with their key; those that are missing have been counted."""
        whole, there = answer.drop_null(), self.keys.filter(answer.is_valid())
        return wrong_rows(there, rows_of(whole.cast(pa.binary(VALUE_NBYTES))))


def refused(report: Any) -> int:
    """Records that an insert did not take."""
    return 0 if report.ok else sum(report.counts().get(s, 0) for s in ("too_large", "no_space"))


def wrong_rows(keys: pa.Array, rows: np.ndarray) -> int:
    """Values, uint8 (n, VALUE_NBYTES), that do not begin with their key."""
    return int((rows[:, :KEY_NBYTES] != rows_of(keys)).any(axis=1).sum())


@dataclass
class Log:
    """What one thread did: when each batch had its answer, and how long that took (ns)."""

    ended_ns: array = field(default_factory=lambda: array("q"))
    latency_ns: array = field(default_factory=lambda: array("q"))
    errors: int = 0
    kept: list[tuple[Batch, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Load:
    """What a load came to.

    began:      when that was (s, perf_counter)
    seconds:    from the start to the last answer
    histogram:  latencies of all batches in ns
    windows:    per window: operations per second, and the latencies of the batches that ended in it (ns)
    errors:     operations that were not answered, or wrongly
    """

    operations: int
    began: float
    seconds: float
    histogram: HdrHistogram
    windows: list[tuple[float, np.ndarray]]
    errors: int


def fill(cache: Predis, records: int) -> pa.Array:
    """Stores that many records; their keys."""
    keys = fixed(records, KEY_NBYTES, 1).keys
    for row in range(0, records, LOADED_AT_ONCE):
        part = keys[row : row + LOADED_AT_ONCE]
        cache.insert(part, values_of(part, 0)).raise_for_status()
    return keys


def values_of(keys: pa.Array, version: int) -> pa.Array:
    """A value for each key: the key, then the version over and over."""
    grid = np.full((len(keys), VALUE_NBYTES), version % 256, np.uint8)
    grid[:, :KEY_NBYTES] = rows_of(keys)
    return pa.Array.from_buffers(
        pa.binary(VALUE_NBYTES), len(keys), [None, pa.py_buffer(grid.reshape(-1))]
    )


def sustained(
    cache: Predis,
    keys: pa.Array,
    *,
    seconds: float,
    threads: int,
    batch: int,
    find_share: float = 0.8,
    windows: int = 10,
    seed: int = 0,
    distinct: int = DISTINCT,
    lay: Callable[[Batch], Any] = lambda one: one,
    progress: Callable[[float], object] = lambda _: None,
) -> Load:
    """Batches of `batch` operations, each thread's one after the other, for `seconds`.

    keys:        of `fill`; drawn uniformly
    find_share:  of the batches that look up; the others write over records
    distinct:    batches that each thread has, asked over and over
    lay:         gives a batch's columns in the memory that they are to lie in, as something with Batch's methods
    progress:    called now and then with the share of the time that has gone by since the last time
    """
    logs = [Log() for _ in range(threads)]
    prepared = []
    for number in range(threads):
        generator = np.random.default_rng((seed, number))
        prepared.append([*map(lay, prepare(keys, batch, find_share, generator, distinct))])
    for batches in prepared:
        for one in batches[:2]:
            one.send(cache)
    started = threading.Barrier(threads + 1)
    with ThreadPoolExecutor(threads) as pool:
        doing = [
            pool.submit(_work, cache, batches, seconds, log, started)
            for batches, log in zip(prepared, logs, strict=True)
        ]
        started.wait()
        began_ns = time.perf_counter_ns()
        _wait(doing, seconds, progress)
        for work in doing:
            work.result()
    return _sum_up(logs, batch, began_ns, windows)


def prepare(
    keys: pa.Array, batch: int, find_share: float, generator: Any, distinct: int = DISTINCT
) -> list[Batch]:
    """A thread's batches, in random order."""
    finds = round(distinct * find_share)
    batches = []
    for number in range(distinct):
        drawn = keys.take(pa.array(generator.integers(0, len(keys), batch)))
        batches.append(Batch(drawn, None if number < finds else values_of(drawn, number)))
    return [batches[number] for number in generator.permutation(distinct)]


def _work(
    cache: Predis, batches: list[Any], seconds: float, log: Log, started: threading.Barrier
) -> None:
    clock = time.perf_counter_ns
    started.wait()
    ended = clock()
    deadline = ended + int(seconds * 1e9)
    for number, one in enumerate(itertools.cycle(batches)):
        if ended >= deadline:
            return
        began = clock()
        try:
            answer = one.send(cache)
        except PredisError:
            answer = None
        ended = clock()
        log.ended_ns.append(ended)
        log.latency_ns.append(ended - began)
        log.errors += len(one.keys) if answer is None else one.errors(answer)
        looked_up = answer is not None and one.values is None
        if number % KEPT_EVERY == 0 and len(log.kept) < MOST_KEPT and looked_up:
            log.kept.append((one, answer))


def _wait(doing: list, seconds: float, progress: Callable[[float], object]) -> None:
    while not all(one.done() for one in doing):
        time.sleep(min(LOOK_SECONDS, seconds / 4))
        progress(min(LOOK_SECONDS, seconds / 4) / seconds)


def _sum_up(logs: list[Log], batch: int, began_ns: int, windows: int) -> Load:
    ended = np.concatenate([np.frombuffer(log.ended_ns, np.int64) for log in logs])
    latencies = np.concatenate([np.frombuffer(log.latency_ns, np.int64) for log in logs])
    edges = np.linspace(began_ns, ended.max() + 1, windows + 1)
    place = np.searchsorted(edges, ended, side="right") - 1
    length = (edges[1] - edges[0]) * 1e-9
    parts = [latencies[place == window] for window in range(windows)]
    wrong = sum(one.wrong(answer) for log in logs for one, answer in log.kept)
    return Load(
        operations=len(ended) * batch,
        began=began_ns * 1e-9,
        seconds=float(edges[-1] - edges[0]) * 1e-9,
        histogram=histogram_of(latencies),
        windows=[(len(part) * batch / length, part) for part in parts],
        errors=sum(log.errors for log in logs) + wrong,
    )


def rows_of(column: pa.Array) -> np.ndarray:
    """A column of one width as uint8 (n, width), over the same memory."""
    width = column.type.byte_width
    start = column.offset * width
    data = np.frombuffer(column.buffers()[1], np.uint8)[start : start + len(column) * width]
    return data.reshape(len(column), width)


def record(run: Run, name: str, load: Load, *, threads: int, batch: int) -> None:
    """Adds a load to the run under its name ("sustained", "sustained_threads"): windows as samples, figures over all."""
    params = {"threads": threads, "batch": batch, "seconds": round(load.seconds, 3)}

    def add(block: int, metric: str, value: float, unit: str) -> None:
        run.add_sample("predis", name, params, block, metric, value, unit)

    for window, (rate, latencies) in enumerate(load.windows):
        add(window, RATE, rate, "1/s")
        if len(latencies):
            add(window, "latency_mean", float(latencies.mean()) * 1e-9, "s")
            add(window, "latency_p99", float(np.percentile(latencies, 99)) * 1e-9, "s")
    pooled = dict(percentiles(load.histogram))
    for percentile, value in pooled.items():
        add(ALL_BLOCKS, f"pooled_latency_{percentile}", value, "s")
    add(ALL_BLOCKS, "errors", load.errors, "1")
    add(ALL_BLOCKS, "operations", load.operations, "1")
    run.add_interval(name, median_interval([rate for rate, _ in load.windows]), "1/s")
    batches = load.histogram.get_total_count()
    mean = load.histogram.get_mean_value() * 1e-9
    run.add_figure(f"{name}_latency_mean", mean, "s", n=batches)
    run.add_figure(f"{name}_latency_p99", pooled["p99"], "s", n=batches)
    run.add_figure(f"{name}_errors", load.errors, "1", n=load.operations)


def percentiles(histogram: HdrHistogram) -> Iterator[tuple[str, float]]:
    """Name and seconds of each percentile."""
    for name, percentile in PERCENTILES.items():
        yield name, histogram.get_value_at_percentile(percentile) * 1e-9
