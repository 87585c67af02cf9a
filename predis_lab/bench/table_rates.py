"""How fast the table itself is: columns in device memory in and out, no link, no packing. For notebook 01.

Keys of 16 bytes unless said otherwise. Every repeat asks for fresh random records, made before its clock starts; the
device's own events time it; what was found is compared with what was stored. Beside each rate stands its ceiling: the same
accesses and nothing else (`gpu.replay`), measured on the same table in the same repeats.
Imports CuPy: only for where there is a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cupy
import numpy as np

from ..columns import Column
from ..gpu import appending, kernels, replay
from ..gpu.maintenance import rehash
from ..gpu.memory import device_bytes, on_device
from ..gpu.sizing import BUCKET_NBYTES, MAX_LOAD, SLOTS
from ..gpu.table import DeviceTable
from ..table import NEVER, Status
from .contestants import WrongAnswerError
from .device_records import KEY_NBYTES, RealRecords, keys, values
from .limits import TABLE, Limit, event_seconds
from .statistics import median_interval

NOW_MS = 1
CHUNK = 2**20  # records made at once
SMALL_LAUNCHES = 100  # back to back, at most, where one is too short to be timed


@dataclass
class Rates:
    """Rates (1/s, keys) by name, one per repeat, of operations and of their accesses alone; the first is warm-up."""

    measured: dict[str, list[float]] = field(default_factory=dict)
    ceilings: dict[str, list[float]] = field(default_factory=dict)

    def time(self, name: str, n: int, call: Callable[..., Any], *arguments: Any) -> Any:
        """Calls once, by the device's clock; what the call returns."""
        answer, seconds = event_seconds(call, *arguments)
        self.measured.setdefault(name, []).append(n / seconds)
        return answer

    def time_ceiling(self, name: str, n: int, call: Callable[..., Any], *arguments: Any) -> None:
        """The same for the accesses alone."""
        _, seconds = event_seconds(call, *arguments)
        self.ceilings.setdefault(name, []).append(n / seconds)

    def limits(self) -> list[Limit]:
        """All of them with their ceilings' medians."""
        found = []
        for name, rates in self.measured.items():
            ceiling = self.ceilings.get(name)
            bound = median_interval(ceiling[1:]).value if ceiling else None
            found.append(
                Limit(name, TABLE.get(name, name.replace("_", " ")), rates[1:], "1/s", bound)
            )
        return found


class FixedTable:
    """A device table of records of one size, numbered from 0 on.

    records:  that it holds
    full:     records at which its load factor is 0.8
    more:     how many can be written besides
    """

    def __init__(self, records: int, value_nbytes: int, *, full: int = 0, more: int = 0):
        self.records, self.value_nbytes = records, value_nbytes
        self.nbytes = kernels.record_nbytes(KEY_NBYTES, value_nbytes)
        self.index_nbytes = math.ceil((full or records) / MAX_LOAD / SLOTS) * BUCKET_NBYTES
        capacity = int(1.05 * self.nbytes * (records + more)) + 3 * self.index_nbytes + 2**26
        free = cupy.cuda.runtime.memGetInfo()[0]
        if capacity > free:
            raise MemoryError(f"{records:,} records need {capacity:,} bytes, and {free:,} are free")
        self.table = empty_table(capacity, self.index_nbytes)
        for first in range(0, records, CHUNK):
            self.store(first, min(CHUNK, records - first))

    def store(self, first: int, n: int) -> None:
        """Inserts new records by number."""
        numbers = cupy.arange(first, first + n, dtype=np.uint64)
        expect(insert(self.table, keys(numbers), values(numbers, self.value_nbytes)), Status.STORED)

    def renew_index(self) -> None:
        """The same records in an index of the same size without traces of what was erased."""
        rehash(self.table, self.index_nbytes, NOW_MS)

    def pick(self, generator: Any, n: int) -> Any:
        """Distinct numbers of stored records."""
        return generator.permutation(self.records)[:n].astype(np.uint64)


def empty_table(capacity: int, index_nbytes: int, host_capacity: int = 0) -> DeviceTable:
    """A table whose index has its size before any record comes."""
    table = DeviceTable(capacity, host_capacity)
    rehash(table, index_nbytes, NOW_MS)
    return table


class Answer:
    """Room for the answers of n keys with values of one length, and the launch that fills it."""

    def __init__(self, n: int, value_nbytes: int):
        self.n, self.value_nbytes = n, value_nbytes
        self.values = on_device(n * value_nbytes, np.uint8)
        wide = n * value_nbytes > 2**31 - 1
        self.offsets = on_device(n + 1, np.int64 if wide else np.int32)
        self.validity = on_device(-(-n // 32), np.uint32)
        self.sink = cupy.zeros(1, np.uint32)

    def find(self, table: DeviceTable, asked: Column, defines: tuple[str, ...] = ()) -> None:
        answer = self.values, self.offsets, self.validity
        kernels.find_dense(asked, table.index, NOW_MS, self.value_nbytes, *answer, defines)

    def replay(self, table: DeviceTable, traces: Any) -> None:
        offsets = self.offsets.view(np.int32)
        replay.find(
            traces, table.index, KEY_NBYTES, self.value_nbytes, self.values, offsets, self.sink
        )

    def check(self, numbers: Any) -> None:
        """Raises WrongAnswerError where the values are others than those of the numbers."""
        for first in range(0, self.n, CHUNK):
            part = numbers[first : first + CHUNK]
            stored = values(part, self.value_nbytes).data.view(np.uint64)
            at = first * self.value_nbytes
            found = self.values[at : at + stored.nbytes].view(np.uint64)
            if not (found == stored).all():
                raise WrongAnswerError("the device table found other values than were stored")

    def check_missing(self) -> None:
        """Raises WrongAnswerError where anything was found."""
        if self.validity.any() or self.values.any():
            raise WrongAnswerError("the device table found keys that were never stored")


def table_rates(records: int, batch: int, repeats: int, *, seed: int = 0) -> list[Limit]:
    """Every verb on records of 16 + 64 bytes; inserts take the load factor to 0.8, everything else is asked there.

    raises:   MemoryError where the device can't hold the table, its columns and what the repeats write
    """
    rates, generator = Rates(), cupy.random.RandomState(seed)
    fixed = FixedTable(records - batch, 64, full=records, more=3 * (repeats + 2) * batch)
    table, answer = fixed.table, Answer(batch, 64)
    for repeat in range(repeats + 1):
        fixed.renew_index()
        numbers = generator.permutation(batch).astype(np.uint64) + np.uint64(
            records + repeat * batch
        )
        fresh, written = keys(numbers), values(numbers, 64)
        _insert_ceiling(rates, "insert_64v", fixed, fresh)
        expect(rates.time("insert_64v", batch, insert, table, fresh, written), Status.STORED)

        old = fixed.pick(generator, batch)
        asked = keys(old)
        rates.time("find_64v", batch, answer.find, table, asked)
        answer.check(old)
        rates.time_ceiling(
            "find_64v", batch, answer.replay, table, replay.trace(asked, table.index)
        )
        absent = keys(old + np.uint64(2**40))
        rates.time("find_miss", batch, answer.find, table, absent)
        answer.check_missing()
        rates.time_ceiling(
            "find_miss", batch, answer.replay, table, replay.trace(absent, table.index)
        )
        expect(rates.time("contains", batch, contains, table, asked), True)

        old = fixed.pick(generator, batch)
        asked, written = keys(old), values(old, 64)
        expect(rates.time("update_64v", batch, insert, table, asked, written), Status.UPDATED)
        old = fixed.pick(generator, batch)
        asked, written = keys(old), values(old, 64)
        _erase_ceiling(rates, "erase", table, asked)
        expect(rates.time("erase", batch, erase, table, asked), True)
        erase(table, fresh)
        insert(table, asked, written)
    table.close()
    return rates.limits()


def size_rates(
    records: int,
    value_sizes: list[int],
    batch: int,
    repeats: int,
    memory_nbytes: int,
    *,
    seed: int = 0,
) -> list[Limit]:
    """Lookups of larger values, and inserts of 256 bytes. Tables larger than memory_nbytes have as many records as fit."""
    rates, generator = Rates(), cupy.random.RandomState(seed)
    for size in value_sizes:
        nbytes = kernels.record_nbytes(KEY_NBYTES, size)
        held = min(records, memory_nbytes // nbytes)
        n = min(batch, held // 4, 2**35 // size)
        more = (repeats + 2) * n if size == 256 else 0
        fixed, answer = FixedTable(held, size, more=more), Answer(n, size)
        for _ in range(repeats + 1):
            numbers = fixed.pick(generator, n)
            asked = keys(numbers)
            rates.time(f"find_{size}v", n, answer.find, fixed.table, asked)
            answer.check(numbers)
            traces = replay.trace(asked, fixed.table.index)
            rates.time_ceiling(f"find_{size}v", n, answer.replay, fixed.table, traces)
        if more:
            erase(fixed.table, keys(cupy.arange(held - n, held, dtype=np.uint64)))
            for repeat in range(repeats + 1):
                fixed.renew_index()
                numbers = cupy.arange(n, dtype=np.uint64) + np.uint64(held + repeat * n)
                asked, written = keys(numbers), values(numbers, size)
                name = f"insert_{size}v"
                _insert_ceiling(rates, name, fixed, asked)
                expect(rates.time(name, n, insert, fixed.table, asked, written), Status.STORED)
                erase(fixed.table, asked)
        fixed.table.close()
        del fixed, answer
        cupy.get_default_memory_pool().free_all_blocks()
    return rates.limits()


def load_rates(records: int, batch: int, repeats: int, *, seed: int = 0) -> list[Limit]:
    """Lookups in an index that is 95 % full."""
    rates, generator = Rates(), cupy.random.RandomState(seed)
    fixed, answer = FixedTable(records, 64), Answer(batch, 64)
    fixed.index_nbytes = math.ceil(records / 0.95 / SLOTS) * BUCKET_NBYTES
    fixed.renew_index()
    for _ in range(repeats + 1):
        numbers = fixed.pick(generator, batch)
        asked = keys(numbers)
        rates.time("find_64v_load95", batch, answer.find, fixed.table, asked)
        answer.check(numbers)
        traces = replay.trace(asked, fixed.table.index)
        rates.time_ceiling("find_64v_load95", batch, answer.replay, fixed.table, traces)
    fixed.table.close()
    return rates.limits()


def batch_rates(records: int, batches: list[int], repeats: int, *, seed: int = 0) -> list[Limit]:
    """Lookups in small batches, launches back to back: as many as make up 10^7 keys, captured as one graph."""
    rates, generator = Rates(), cupy.random.RandomState(seed)
    fixed = FixedTable(records, 64)
    for n in batches:
        launches = max(1, min(SMALL_LAUNCHES, 10**7 // n, records // n))
        name = f"find_64v_1e{round(math.log10(n))}"
        asked = [keys(fixed.pick(generator, n)) for _ in range(launches)]
        traces = [replay.trace(column, fixed.table.index) for column in asked]
        answers = [Answer(n, 64) for _ in range(launches)]
        cupy.cuda.get_current_stream().synchronize()
        with cupy.cuda.Stream(non_blocking=True) as stream:
            finds = _captured(
                stream, [(a.find, fixed.table, k) for a, k in zip(answers, asked, strict=True)]
            )
            again = _captured(
                stream, [(a.replay, fixed.table, t) for a, t in zip(answers, traces, strict=True)]
            )
            for _ in range(repeats + 1):
                numbers = fixed.pick(generator, n * launches)
                for i, column in enumerate(asked):
                    column.data[:] = keys(numbers[i * n : (i + 1) * n]).data
                    traces[i][:] = replay.trace(column, fixed.table.index)
                rates.time_ceiling(name, n * launches, again.launch, stream)
                rates.time(name, n * launches, finds.launch, stream)
                for i, answer in enumerate(answers):
                    answer.check(numbers[i * n : (i + 1) * n])
    fixed.table.close()
    return rates.limits()


def _captured(stream: Any, calls: list[tuple]) -> Any:
    """The launches of all calls as one graph, in order."""
    call, *arguments = calls[0]
    call(*arguments)  # compiled before it is captured
    stream.begin_capture()
    for call, *arguments in calls:
        call(*arguments)
    return stream.end_capture()


def real_table(records: int, real: RealRecords) -> DeviceTable:
    """A table of real records, numbered from 0 on, at load factor 0.8."""
    index_nbytes = math.ceil(records / MAX_LOAD / SLOTS) * BUCKET_NBYTES
    # No record is longer than 768 bytes.
    table = empty_table(768 * records + 2 * index_nbytes + 2**26, index_nbytes)
    for first in range(0, records, CHUNK // 4):
        numbers = cupy.arange(first, min(records, first + CHUNK // 4), dtype=np.uint64)
        expect(insert(table, real.keys(numbers), real.values(numbers)), Status.STORED)
    return table


def real_rates(records: int, batch: int, repeats: int, *, seed: int = 0) -> list[Limit]:
    """Lookups of real records of variable length, answered as one packed column."""
    rates, generator, real = Rates(), cupy.random.RandomState(seed), RealRecords.load()
    table = real_table(records, real)
    n, sink = min(batch, 2**21), cupy.zeros(1, np.uint32)
    for _ in range(repeats + 1):
        numbers = generator.permutation(records)[:n].astype(np.uint64)
        parts = [(real.keys(part), real.values(part)) for part in cupy.array_split(numbers, 8)]
        asked, stored = (_joined([part[side] for part in parts]) for side in (0, 1))
        found = rates.time("find_real", n, find_packed, table, asked, len(stored.data))
        if not cupy.array_equal(found.column.data[: len(stored.data)], stored.data):
            raise WrongAnswerError("the device table found other values than were stored")
        traces, out = replay.trace(asked, table.index), on_device(len(stored.data), np.uint8)
        rates.time_ceiling(
            "find_real",
            n,
            replay.packed,
            traces,
            table.index,
            asked.offsets,
            stored.offsets,
            out,
            sink,
        )
    table.close()
    return rates.limits()


def _joined(parts: list[Column]) -> Column:
    """One packed column of several."""
    data = cupy.concatenate([part.data for part in parts])
    starts = np.cumsum([0, *(len(part.data) for part in parts)])
    offsets = [
        part.offsets[:-1] + np.int32(at) for part, at in zip(parts, starts[:-1], strict=True)
    ]
    offsets.append(cupy.array([starts[-1]], np.int32))
    return Column(data, cupy.concatenate(offsets).astype(np.int32), 0, sum(map(len, parts)))


def _insert_ceiling(rates: Rates, name: str, fixed: FixedTable, fresh: Column) -> None:
    n = len(fresh)
    traces, index = replay.trace(fresh, fixed.table.index), fixed.table.index.copy()
    source = on_device(n * (KEY_NBYTES + fixed.value_nbytes), np.uint8)
    log = on_device(n * fixed.nbytes, np.uint8)
    rates.time_ceiling(name, n, replay_insert, traces, index, source, log)


def replay_insert(traces: Any, index: Any, source: Any, log: Any) -> None:
    """The accesses of an insert alone. index: a copy, for it is spoilt. source: keys and values; log: room for records."""
    log[: len(source)] = source  # records, with their headers from nowhere
    log[len(source) :].fill(0)
    replay.publish(traces, index)


def _erase_ceiling(rates: Rates, name: str, table: DeviceTable, asked: Column) -> None:
    traces, index, n = replay.trace(asked, table.index), table.index.copy(), len(asked)
    arguments = traces, index, on_device(n, np.bool_), cupy.zeros(1, np.uint32)
    rates.time_ceiling(name, n, replay.erase, *arguments)


def find_packed(table: DeviceTable, asked: Column, nbytes: int) -> Any:
    """The values, nbytes of them together, as one packed column."""
    return table.find(asked, NOW_MS, new=device_bytes, capacity=nbytes)


def contains(table: DeviceTable, asked: Column) -> Any:
    """bool per key."""
    present = on_device(len(asked), np.bool_)
    table.peek(asked, NOW_MS, present=present)
    return present


def insert(table: DeviceTable, asked: Column, written: Column) -> Any:
    """A status per record."""
    status = on_device(len(asked), np.int8)
    batch = appending.begin(table, asked, written, NOW_MS)
    appending.append(table, batch, asked, written, NEVER, NOW_MS, status)
    appending.end(table, batch)
    return status


def erase(table: DeviceTable, asked: Column) -> Any:
    """bool per key."""
    erased = on_device(len(asked), np.bool_)
    table.erase(asked, NOW_MS, erased)
    return erased


def expect(answers: Any, expected: Any) -> None:
    """Raises WrongAnswerError unless every answer is as expected."""
    if not (answers == int(expected)).all():
        raise WrongAnswerError(f"a batch on the device was not answered {expected!r} throughout")
