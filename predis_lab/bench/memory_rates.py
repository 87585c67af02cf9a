"""What records cost in memory, and what it costs to get the room of dead ones back. For notebook 05.

Imports CuPy: only for where there is a GPU.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import cupy
import numpy as np

from ..client import Predis
from ..gpu import kernels
from ..gpu.maintenance import compact_step
from ..gpu.table import DeviceTable
from ..table import RECORD_HEADER_NBYTES, Status
from .contestants import WrongAnswerError
from .device_records import keys, values
from .limits import event_seconds
from .memory_samples import KEY_NBYTES, PAYLOAD_NBYTES, VALUE_NBYTES, RecordCost, Step
from .results import Run
from .table_rates import NOW_MS, Answer, contains, erase, expect, insert

Progress = Callable[[float], object]


def taken_from_driver() -> int:
    """Bytes of device memory in use by all processes, less what CuPy's pool holds unused."""
    cupy.get_default_memory_pool().free_all_blocks()
    free, total = cupy.cuda.runtime.memGetInfo()
    return total - free


def warm_up() -> None:
    """Compiles and loads what a cache needs, so that it is not counted as a cache's."""
    for doorbell in (True, False):
        with Predis("2MiB", backend="cuda", doorbell=doorbell) as cache:
            for keys in ([b"key"], [b"longer key"]):
                cache.insert(keys, [b"value"])
                cache.find(keys)
                cache.erase(keys)


def capacities_taken(run: Run, capacities: list[int]) -> None:
    """Adds to a run what an empty cache of each capacity takes, by the driver's own count; figures with that ceiling."""
    warm_up()
    for capacity in capacities:
        before = taken_from_driver()
        with Predis(capacity, backend="cuda"):
            taken = taken_from_driver() - before
        run.add_figure(f"capacity_taken_{capacity}", taken, "B", ceiling=capacity)


def record_overhead(
    capacity: int, *, batch: int = 2**20, progress: Progress = lambda _: None
) -> RecordCost:
    """Fills a cache with records of 16 + 64 bytes until it refuses one, and counts what it has taken.

    batch:     records an insert; columns on the device
    progress:  called with the share of the capacity that each batch took
    """
    warm_up()
    before = taken_from_driver()
    with Predis(capacity, backend="cuda") as cache:
        taken, written, full = taken_from_driver() - before, 0, False
        while not full:
            numbers = cupy.arange(written, written + batch, dtype=np.uint64)
            full = not cache.insert(keys(numbers), values(numbers, VALUE_NBYTES)).ok
            written += batch
            progress(batch * (PAYLOAD_NBYTES + 32) / capacity)
        memory, records = cache.info("memory"), cache.dbsize()
    taken = max(taken, memory["taken_memory"])  # whatever else may have given memory back meanwhile
    record = kernels.record_nbytes(KEY_NBYTES, VALUE_NBYTES)
    parts = {
        "payload": PAYLOAD_NBYTES * records,
        "header": RECORD_HEADER_NBYTES * records,
        "padding": (record - PAYLOAD_NBYTES - RECORD_HEADER_NBYTES) * records,
        "index": memory["index_memory"],
        "dead": memory["log_dead_memory"],
        "buffers": memory["buffers_memory"],
    }
    parts["unwritten"] = taken - sum(parts.values())
    return RecordCost(capacity, records, taken, parts)


def compaction_cost(capacity: int, share: float, value_nbytes: int, *, seed: int = 0) -> list[Step]:
    """Every step of compacting a full log, of whose records a share, here and there, is live. Checks what is left.

    capacity:      of the table
    value_nbytes:  a multiple of 16; keys have 16
    """
    table, generator = DeviceTable(capacity), cupy.random.RandomState(seed)
    records = _fill(table, value_nbytes)
    gone = generator.permutation(records)[: round((1 - share) * records)].astype(np.uint64)
    expect(erase(table, keys(gone)), True)
    steps = []
    while True:
        moved = table.compactions.moved_nbytes
        freed, seconds = event_seconds(compact_step, table, NOW_MS)
        if not freed:
            break
        steps.append(Step(seconds, table.compactions.moved_nbytes - moved, freed))
    _check(table, records, gone, value_nbytes)
    table.close()
    return steps


def _fill(table: DeviceTable, value_nbytes: int, batch: int = 2**16) -> int:
    """Inserts new records until one finds no room; how many did."""
    batch = max(1, min(batch, table.arena.segment_room // (value_nbytes + 64)))
    written = 0
    while True:
        numbers = cupy.arange(written, written + batch, dtype=np.uint64)
        status = insert(table, keys(numbers), values(numbers, value_nbytes))
        stored = int((status == int(Status.STORED)).sum())
        written += stored
        if stored < batch:
            return written


def _check(table: DeviceTable, records: int, gone: Any, value_nbytes: int, most: int = 2**16):
    """Raises WrongAnswerError unless the erased records, and they alone, are gone, and some of the others are whole."""
    if contains(table, keys(gone)).any():
        raise WrongAnswerError("a record is back that had been erased")
    is_gone = np.zeros(records, np.bool_)
    is_gone[cupy.asnumpy(gone).astype(np.int64)] = True
    left = np.flatnonzero(~is_gone).astype(np.uint64)
    if table.entries != len(left):
        raise WrongAnswerError(f"{len(left)} records should be left, and {table.entries} are")
    if len(left):
        asked = cupy.asarray(left[:: -(-len(left) // most)])
        answer = Answer(len(asked), value_nbytes)
        answer.find(table, keys(asked))
        answer.check(asked)


def reader_latencies(
    capacity: int,
    value_nbytes: int,
    rounds: int,
    *,
    seed: int = 0,
    progress: Progress = lambda _: None,
) -> dict[str, list[float]]:
    """Seconds of single lookups by one thread: while nothing else happens, and while another compacts the same cache.

    rounds:    times that half of the records are erased and the log compacted
    progress:  called after each round
    """
    generator = np.random.default_rng(seed)
    latencies: dict[str, list[float]] = {"quiet": [], "compacting": []}
    with Predis(capacity, backend="cuda") as cache:
        records = int(0.7 * capacity) // (value_nbytes + 64)
        numbers = np.arange(records, dtype=np.uint64)
        _store(cache, numbers, value_nbytes)
        kept = cupy.asarray(generator.choice(numbers[::2], 256))
        names = [row.tobytes() for row in cupy.asnumpy(keys(kept).data).reshape(-1, KEY_NBYTES)]
        _timed(cache, names, itertools.repeat(True, 256))  # the first ones compile
        for _ in range(rounds):
            cache.erase(keys(cupy.asarray(numbers[1::2])))
            compacting = threading.Thread(target=cache.compact)
            compacting.start()
            going_on = itertools.takewhile(bool, iter(compacting.is_alive, None))
            latencies["compacting"] += _timed(cache, names, going_on)
            compacting.join()
            missing = len(latencies["compacting"]) - len(latencies["quiet"])
            latencies["quiet"] += _timed(cache, names, itertools.repeat(True, missing))
            _store(cache, numbers[1::2], value_nbytes)
            progress(1)
    return latencies


def _store(cache: Predis, numbers: Any, value_nbytes: int, batch: int = 2**16) -> None:
    for start in range(0, len(numbers), batch):
        part = cupy.asarray(numbers[start : start + batch])
        cache.insert(keys(part), values(part, value_nbytes)).raise_for_status()


def _timed(cache: Predis, names: list[bytes], going_on: Iterable[bool]) -> list[float]:
    """Seconds of looking up one key after the other, over and over, as often as something goes on."""
    seconds = []
    for name, _ in zip(itertools.cycle(names), going_on, strict=False):
        began = time.perf_counter()
        value = cache.get(name)
        seconds.append(time.perf_counter() - began)
        if value is None:
            raise WrongAnswerError("a record was missing while the log was compacted")
    return seconds
