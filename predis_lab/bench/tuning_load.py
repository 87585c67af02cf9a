"""Single operations by each way, threads, what the doorbell costs everybody else, and the first call of a process. For notebook 03.

Everything but the first call only where there is a GPU; that one is measured on any machine, with whatever serves there.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from ..client import Predis
from ..gpu.sizing import ROWS
from ..gpu.tuning import Tuning
from .contestants import WrongAnswerError
from .harness import run_block
from .results import Run
from .statistics import median_interval
from .tuning_rates import LARGEST, Stock
from .tuning_samples import BESIDE, FIRST, LATENCY, RATE, SINGLE, THREADS, thread_figure

BELL = Tuning(doorbell_rows=ROWS, small_nbytes=LARGEST)
LAUNCHED = Tuning(doorbell_rows=0, small_nbytes=LARGEST)
DISTINCT = 512  # keys of single calls, asked one after the other
# In a process of its own. Times are told as they come, for its end is no part of any.
_FIRST = """
import time
began = time.perf_counter()
from predis_lab import Predis
imported = time.perf_counter()
cache = Predis("64MiB")
cache.set("a", "b")
assert cache.get("a") == b"b"
answered = time.time()
print(imported - began, answered, flush=True)
"""


# ---- One operation


def measure_singles(run: Run, records: int, value_nbytes: int, *, blocks: int, calls: int) -> None:
    """Latency of single gets and sets by each way, blocks in turns: p50 and p99 of each block, medians over blocks.

    calls: a block
    """
    stock = Stock(records, value_nbytes, room_nbytes=8 * blocks * calls * (value_nbytes + 64))
    keys: list[bytes] = stock.records.keys[:DISTINCT].to_pylist()
    values: list[bytes] = stock.records.values[:DISTINCT].to_pylist()
    if [stock.cache.get(key) for key in keys] != values:
        raise WrongAnswerError("single gets found other values than were stored")
    with Predis("64MiB", backend="cuda", hot_bytes="16MiB") as hot:
        hot.insert(stock.records.keys[:DISTINCT], stock.records.values[:DISTINCT])
        if [hot.get(key) for key in keys + keys][DISTINCT:] != values:  # the second time from there
            raise WrongAnswerError("the host tier returned other values than were stored")
        contestants = {
            "single_get": (BELL, _getter(stock.cache, keys)),
            "single_get_launch": (LAUNCHED, _getter(stock.cache, keys)),
            "single_set": (BELL, _setter(stock.cache, keys, values)),
            "single_set_stored": (BELL, _setter(stock.cache, keys, values, stored=True)),
            "single_set_launch": (LAUNCHED, _setter(stock.cache, keys, values)),
            "single_get_hot": (None, _getter(hot, keys)),
        }
        found: dict[str, list[float]] = {}
        for block in range(-1, blocks):  # the first one warms up
            for name, (tuning, call) in contestants.items():
                if tuning is BELL and not stock.rings:
                    continue
                with stock.pinned(tuning):
                    _, latencies = run_block(call, calls)
                for end, percentile in (("", 50), ("_p99", 99)):
                    value = float(np.percentile(latencies, percentile)) * 1e-9
                    if block >= 0:
                        found.setdefault(name + end, []).append(value)
                        run.add_sample("predis", SINGLE, {}, block, name + end, value, "s")
    stock.cache.close()
    for name, took in found.items():
        run.add_interval(name, median_interval(took), "s")


def _getter(cache: Predis, keys: Sequence[bytes]) -> Callable[[], Any]:
    turns = _endless(keys)
    return lambda: cache.get(next(turns))


def _setter(
    cache: Predis, keys: Sequence[bytes], values: Sequence[bytes], *, stored: bool = False
) -> Callable[[], Any]:
    """stored: whether each call ends with the record in the table, not with its being on the way"""
    turns = _endless(list(zip(keys, values, strict=True)))
    if stored:
        engine: Any = cache._table
        return lambda: (cache.set(*next(turns)), engine.table.settle())
    return lambda: cache.set(*next(turns))


def _endless(items: Sequence[Any]) -> Any:
    while True:
        yield from items


# ---- Several threads


def measure_threads(
    run: Run,
    records: int,
    value_nbytes: int,
    *,
    threads: Sequence[int],
    sizes: Sequence[int],
    blocks: int,
    block_seconds: float,
) -> None:
    """Lookups from so many threads, each one call after the other: rate of all together, and p99 of a call.

    sizes: keys a call; 1 is `get`
    """
    stock = Stock(records, value_nbytes)
    for rows in sizes:
        asked: list[Any] = stock.records.keys[:DISTINCT].to_pylist()
        ask: Callable[[Any], Any] = stock.cache.get
        if rows > 1:
            drawn = stock.generator.integers(0, records, (DISTINCT, rows))
            asked = [stock.records.keys.take(pa.array(one)) for one in drawn]
            ask = stock.cache.find
        for count in threads:
            rates, tails = [], []
            for block in range(-1, blocks):
                latencies = _together(ask, asked, count, block_seconds)
                if block < 0:
                    continue
                in_time = len(latencies) - count  # each thread's last call ended later
                rates.append(rows * in_time / block_seconds)
                tails.append(float(np.percentile(latencies, 99)))
                told = {"threads": count, "rows": rows}
                run.add_sample("predis", THREADS, told, block, RATE, rates[-1], "1/s")
                run.add_sample("predis", THREADS, told, block, LATENCY, tails[-1], "s")
            run.add_interval(thread_figure(count, rows), median_interval(rates), "1/s")
            run.add_interval(f"{thread_figure(count, rows)}_p99", median_interval(tails), "s")
    stock.cache.close()


def _together(
    ask: Callable[[Any], Any], asked: Sequence[Any], count: int, seconds: float
) -> np.ndarray:
    """Latencies (s) of all calls of `count` threads until each has made one that ends after so many seconds.

    Those last ones too: most of them have waited for a turn.
    """
    clock, end = time.perf_counter, 0.0

    def begin() -> None:
        nonlocal end
        end = clock() + seconds

    ready = threading.Barrier(count, begin)

    def work(number: int) -> list[float]:
        turns = _endless(asked[number % len(asked) :])
        took: list[float] = []
        ready.wait()
        now = clock()
        while True:
            began = now
            ask(next(turns))
            now = clock()
            took.append(now - began)
            if now > end:
                return took

    with ThreadPoolExecutor(count) as pool:
        working = [pool.submit(work, number) for number in range(count)]
        return np.array([seconds for one in working for seconds in one.result()])


# ---- What the doorbell costs everybody else


def measure_beside(
    run: Run, records: int, value_nbytes: int, rows: int, *, blocks: int, block_seconds: float
) -> None:
    """Keys a second of bulk lookups by one thread: alone, and while another gets single keys all the time, by either way."""
    stock = Stock(records, value_nbytes)
    keys: list[bytes] = stock.records.keys[:DISTINCT].to_pylist()
    call, get, stop = stock.call("find", rows), _getter(stock.cache, keys), threading.Event()
    rates: dict[str, list[float]] = {}
    ways = {"beside_alone": None, "beside_doorbell": BELL, "beside_launch": LAUNCHED}
    if not stock.rings:
        del ways["beside_doorbell"]

    def ring() -> int:
        rung = 0
        while not stop.is_set():
            get()
            rung += 1
        return rung

    for block in range(-1, blocks):
        for name, tuning in ways.items():
            # Bulk calls go as they are built, lest they learn from one another's blocks.
            with stock.pinned(_bulk(tuning)), ThreadPoolExecutor(1) as pool:
                stop.clear()
                ringing = pool.submit(ring) if tuning else None
                calls, began = 0, time.perf_counter()
                while (seconds := time.perf_counter() - began) < block_seconds:
                    call()
                    calls += 1
                stop.set()
                rung = ringing.result() if ringing else 0
            if block >= 0:
                rates.setdefault(name, []).append(rows * calls / seconds)
                run.add_sample("predis", BESIDE, {}, block, name, rates[name][-1], "1/s")
                run.add_sample("predis", BESIDE, {}, block, f"{name}_gets", rung / seconds, "1/s")
    stock.cache.close()
    for name, found in rates.items():
        run.add_interval(name, median_interval(found), "1/s")


def _bulk(tuning: Tuning | None) -> Tuning:
    """Only single keys by that way."""
    return Tuning(doorbell_rows=1 if tuning is BELL else 0)


# ---- The first call


def measure_first_call(run: Run, repeats: int) -> None:
    """A second process: from its start to the first answered get, and how much of that its import takes."""
    first, imports = [], []
    for repeat in range(-1, repeats):  # the first of them may have to compile
        began = time.time()
        told = subprocess.run(
            [sys.executable, "-c", _FIRST], capture_output=True, check=True, text=True
        )
        imported, answered = map(float, told.stdout.split())
        if repeat >= 0:
            first.append(answered - began)
            imports.append(imported)
            run.add_sample("predis", FIRST, {}, repeat, "first_call", first[-1], "s")
            run.add_sample("predis", FIRST, {}, repeat, "import_time", imported, "s")
    run.add_interval("first_call", median_interval(first), "s")
    run.add_interval("import_time", median_interval(imports), "s")
