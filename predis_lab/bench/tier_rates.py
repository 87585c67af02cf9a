"""What lookups reach where a part of the records lies in host memory. For the notebooks.

Records of 16 + 256 bytes. Every repeat asks for fresh random keys; the device's own events time it; what was found is
compared with what was stored, and the table's own tally says on which side each record was met.
Imports CuPy: only for where there is a GPU.
"""

from __future__ import annotations

import math
from typing import Any

import cupy
import numpy as np

from ..columns import Column
from ..gpu import kernels, limits
from ..gpu.copies import copy_async
from ..gpu.memory import on_device
from ..gpu.pinned import pinned
from ..gpu.sizing import BUCKET_NBYTES, MAX_LOAD, SLOTS
from ..gpu.table import DeviceTable
from ..table import Status
from .device_records import KEY_NBYTES, keys, values
from .limits import Limit, event_seconds
from .memory_samples import GATHER, TIERS
from .statistics import median_interval
from .table_rates import CHUNK, NOW_MS, Answer, empty_table, expect, insert

VALUE_NBYTES = 256
RECORD_NBYTES = kernels.record_nbytes(KEY_NBYTES, VALUE_NBYTES)
UPLOAD_NBYTES = 2**28  # of one copy that the link is measured by
EXPONENT = 0.99  # of the Zipf load
WARM_READS = 6  # per record, before the share of hits is counted


def tier_rates(records: int, batch: int, repeats: int, *, seed: int = 0) -> list[Limit]:
    """Bandwidth of uniform lookups (B/s, of records on the host) beside that of an upload, and the share of Zipf hits.

    Beside the lookups a kernel reads as many records in host memory, at random, and does nothing else.

    raises:   MemoryError where the device can't hold half of the records
    """
    return [*_uniform(records, batch, repeats, seed), _zipf(records, batch, repeats, seed)]


def _uniform(records: int, batch: int, repeats: int, seed: int) -> list[Limit]:
    table, generator = _tiered(records, 1 / 2), cupy.random.RandomState(seed)
    answer = Answer(batch, VALUE_NBYTES)
    found: dict[str, list[float]] = {name: [] for name in list(TIERS)[:2]}
    links = [_upload_bandwidth() for _ in range(repeats + 1)]
    gathered = _gather_bandwidths(batch // 2, records // 2, repeats + 1, generator)
    for _ in range(repeats + 1):  # the first is warm-up
        for name, call in zip(found, (_find, _find_and_note), strict=True):
            numbers = generator.permutation(records)[:batch].astype(np.uint64)
            asked, before = keys(numbers), table.tiers.stats()["host_hits"]
            _, seconds = event_seconds(call, table, answer, asked)
            answer.check(numbers)
            if call is _find:
                table.tiers.read(asked, NOW_MS)
            nbytes = (table.tiers.stats()["host_hits"] - before) * RECORD_NBYTES
            found[name].append(nbytes / seconds)
    table.close()
    link = median_interval(links[1:]).value
    reached = [Limit(name, TIERS[name], rates[1:], "B/s", link) for name, rates in found.items()]
    alone = "random reads of records as long in host memory, and nothing else"
    return [*reached, Limit(GATHER, alone, gathered[1:], "B/s", link)]


def _zipf(records: int, batch: int, repeats: int, seed: int) -> Limit:
    table, generator = _tiered(records, 1 / 10), np.random.default_rng(seed)
    weights = np.cumsum(np.arange(1, records + 1) ** -EXPONENT)
    names = generator.permutation(records).astype(np.uint64)
    # More keys at a time than this, and one launch sees little of what the one before has brought back.
    n = min(batch, max(1, records // 20))
    answer, shares = Answer(n, VALUE_NBYTES), []
    warm = math.ceil(WARM_READS * records / n)
    for turn in range(warm + repeats):
        ranks = np.searchsorted(weights, generator.random(n) * weights[-1])
        numbers = cupy.asarray(names[ranks])
        before = table.tiers.stats()
        _find_and_note(table, answer, keys(numbers))
        if turn < warm:
            continue
        answer.check(numbers)
        after = table.tiers.stats()
        here, there = (after[name] - before[name] for name in ("device_hits", "host_hits"))
        shares.append(here / max(1, here + there))
    table.close()
    return Limit("tier_zipf_share", TIERS["tier_zipf_share"], shares, "1")


def _tiered(records: int, share: float) -> DeviceTable:
    """A table of so many records, numbered from 0 on, of which the last ones, this share of all, lie on the device."""
    index_nbytes = math.ceil(records / MAX_LOAD / SLOTS) * BUCKET_NBYTES
    # Two of 64 segments are kept back, for compaction and for what comes back; the smallest segments have 64 KiB.
    log_nbytes = max(share * records * RECORD_NBYTES, 6 * 2**16)
    capacity = int((index_nbytes + log_nbytes) * 64 / 62)
    if capacity > cupy.cuda.runtime.memGetInfo()[0]:
        raise MemoryError(f"{records:,} records need {capacity:,} bytes on the device")
    table = empty_table(capacity, index_nbytes, int(1.3 * records * RECORD_NBYTES))
    for first in range(0, records, CHUNK):
        numbers = cupy.arange(first, min(records, first + CHUNK), dtype=np.uint64)
        expect(insert(table, keys(numbers), values(numbers, VALUE_NBYTES)), Status.STORED)
    return table


def _find(table: DeviceTable, answer: Answer, asked: Column) -> None:
    answer.find(table, asked)


def _find_and_note(table: DeviceTable, answer: Answer, asked: Column) -> None:
    """A lookup as the engine makes it: what was read is noted, and brought back where that is due."""
    answer.find(table, asked)
    table.tiers.read(asked, NOW_MS)


def _gather_bandwidths(n: int, records: int, times: int, generator: Any) -> list[float]:
    """B/s of reads of n of these records across the link, each once, in an order drawn anew each time."""
    source, out = pinned(records * RECORD_NBYTES, np.uint8), on_device(n * RECORD_NBYTES, np.uint8)
    found = []
    for _ in range(times):
        places = generator.permutation(records)[:n].astype(np.uint32)
        _, seconds = event_seconds(limits.gather, source, RECORD_NBYTES, places, out)
        found.append(out.nbytes / seconds)
    return found


def _upload_bandwidth() -> float:
    """B/s of one copy from pinned memory."""
    source, target = pinned(UPLOAD_NBYTES, np.uint8), on_device(UPLOAD_NBYTES, np.uint8)
    stream = cupy.cuda.get_current_stream()

    def upload() -> Any:
        copy_async(target.data.ptr, source.ctypes.data, UPLOAD_NBYTES, stream)

    return UPLOAD_NBYTES / event_seconds(upload)[1]
