"""What each rung of the ladder reaches, beside the table that serves the cache and its accesses alone. For notebooks 01, 02.

Every system holds the same records of 16-byte keys at load factor 0.8 (or what its rung bears), and keeps it: keys are erased, come back, are
written over and are looked up, fresh random ones in every repeat. Between timings a buffer larger than the caches is
written: that empties them, and keeps the device busy while the launches to be timed queue up behind it.
Imports CuPy: only for where there is a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import repeat
from typing import Any

import cupy
import numpy as np

from ..columns import Column
from ..gpu import kernels, modules, replay
from ..gpu.ladder import OPERATIONS, RUNGS
from ..gpu.ladder_table import LadderTable
from ..gpu.memory import SLACK_NBYTES, on_device
from ..table import Status
from .device_records import KEY_NBYTES, keys, values
from .kernel_samples import CEILING, RATE, WINNER, WORKLOADS
from .limits import event_seconds
from .results import Run
from .table_rates import CHUNK, NOW_MS, Answer, FixedTable, expect, replay_insert

LAUNCHES = 10  # back to back, at most, where one is too short to be timed
LONG_ENOUGH = 10**5  # keys


class Climber:
    """The table of one rung."""

    def __init__(self, name: str, records: int, value_nbytes: int, spare: int):
        self.name = name
        self.table = LadderTable(name, records, KEY_NBYTES, value_nbytes, spare=spare)
        self.found = on_device(records, np.bool_)
        for first in range(0, records, CHUNK):
            numbers = cupy.arange(first, min(records, first + CHUNK), dtype=np.uint64)
            status = on_device(len(numbers), np.int8)
            self.insert(keys(numbers), values(numbers, value_nbytes), status)
            expect(status, Status.STORED)

    def measures(self, workload: str) -> bool:
        """Whether its code for this is its own."""
        return WORKLOADS[workload] in RUNGS[self.name].operations

    def find(self, asked: Column, answer: Answer) -> None:
        self.table.find(
            _rows(asked), answer.values.reshape(answer.n, answer.value_nbytes), self.found
        )

    def insert(self, asked: Column, written: Column, status: Any) -> None:
        self.table.insert(_rows(asked), _rows(written), status)

    def erase(self, asked: Column, erased: Any) -> None:
        self.table.erase(_rows(asked), erased)

    def close(self) -> None:
        del self.table, self.found
        cupy.get_default_memory_pool().free_all_blocks()


class Winner:
    """The table that serves the cache, by its kernels alone: no waiting for reports, no growing."""

    name = WINNER

    def __init__(self, records: int, value_nbytes: int, spare: int):
        self.fixed = FixedTable(records, value_nbytes)
        self.table = self.fixed.table
        self.log = on_device(spare * self.fixed.nbytes + SLACK_NBYTES, np.uint8)
        self.used = 0

    def measures(self, workload: str) -> bool:
        return True

    def find(self, asked: Column, answer: Answer, defines: tuple[str, ...] = ()) -> None:
        answer.find(self.table, asked, defines)

    def insert(
        self, asked: Column, written: Column, status: Any, defines: tuple[str, ...] = ()
    ) -> None:
        tail, nbytes = self.log.data.ptr + self.used, len(asked) * self.fixed.nbytes
        assert self.used + nbytes + SLACK_NBYTES <= self.log.nbytes
        span, kept = kernels.LogSpan(tail, tail, tail + nbytes), self._kept()
        kernels.insert(asked, written, self.table.index, NOW_MS, 0, span, 0, status, *kept, defines)
        self.used += nbytes

    def erase(self, asked: Column, erased: Any) -> None:
        kernels.erase(asked, self.table.index, NOW_MS, erased, *self._kept())

    def _kept(self) -> tuple[Any, Any, Any]:
        return self.table.counters, self.table.report, self.table.work

    def close(self) -> None:
        self.table.close()
        del self.fixed, self.table, self.log
        cupy.get_default_memory_pool().free_all_blocks()


class Trial:
    """Measures systems one after the other in the same way, into the samples of a run."""

    def __init__(self, run: Run, records: int, repeats: int, scrub_nbytes: int, seed: int = 0):
        self.run, self.records, self.repeats, self.seed = run, records, repeats, seed
        self.scrub = on_device(scrub_nbytes, np.uint8)
        self.sink = cupy.zeros(1, np.uint32)
        self.cell: dict[str, int] = {}
        self.repeat = 0

    def measure(self, system: Any, value_nbytes: int, batch: int, *, all_verbs: bool) -> None:
        """Every repeat erases keys, brings them back, writes over others, and looks others up: load 0.8 all the while."""
        self.cell = {"batch": batch, "value_nbytes": value_nbytes, "records": self.records}
        generator, launches = cupy.random.RandomState(self.seed), launches_of(batch, self.records)
        for turn in range(-1, self.repeats):  # the first one warms up
            self.repeat = turn
            if all_verbs:
                picked = self._pick(generator, batch, launches)
                self._erase(system, picked)
                self._insert(system, "insert", picked)
                self._insert(system, "update", self._pick(generator, batch, launches))
            if system.measures("find"):
                self._find(system, self._pick(generator, batch, launches))

    def _find(self, system: Any, picked: list) -> None:
        asked = [keys(part) for part in picked]
        answers = [Answer(len(part), self.cell["value_nbytes"]) for part in picked]
        if system.name == WINNER:
            traces = [replay.trace(part, system.table.index) for part in asked]
            again = zip(answers, traces, strict=True)
            calls = [partial(one.replay, system.table, trace) for one, trace in again]
            self._time(CEILING, "find", calls)
        self._time(system.name, "find", list(map(partial, repeat(system.find), asked, answers)))
        for part, answer in zip(picked, answers, strict=True):
            answer.check(part)

    def _insert(self, system: Any, workload: str, picked: list) -> None:
        asked = [keys(part) for part in picked]
        written = [values(part, self.cell["value_nbytes"]) for part in picked]
        statuses = [on_device(len(part), np.int8) for part in picked]
        expected = Status.STORED
        if system.name == WINNER:
            expected = Status.UPDATED if workload == "update" else expected
            index = system.table.index.copy()
            traces = [replay.trace(part, index) for part in asked]
            columns, records = (KEY_NBYTES + written[0].width), system.fixed.nbytes
            room = [
                [on_device(len(p) * size, np.uint8) for p in picked] for size in (columns, records)
            ]
            again = traces, repeat(index), *room
            self._time(CEILING, workload, list(map(partial, repeat(replay_insert), *again)))
        calls = list(map(partial, repeat(system.insert), asked, written, statuses))
        self._time(system.name, workload, calls, keep=system.measures(workload))
        for status in statuses:
            expect(status, expected)

    def _erase(self, system: Any, picked: list) -> None:
        asked = [keys(part) for part in picked]
        erased = [on_device(len(part), np.bool_) for part in picked]
        if system.name == WINNER:
            index = system.table.index.copy()
            traces = [replay.trace(part, index) for part in asked]
            again = traces, repeat(index), erased, repeat(self.sink)
            self._time(CEILING, "erase", list(map(partial, repeat(replay.erase), *again)))
        calls = list(map(partial, repeat(system.erase), asked, erased))
        self._time(system.name, "erase", calls, keep=system.measures("erase"))
        for one in erased:
            expect(one, True)

    def _pick(self, generator: Any, batch: int, launches: int) -> list:
        """Distinct numbers of stored records, a batch for each launch."""
        numbers = generator.permutation(self.records).astype(np.uint64)
        return [numbers[i * batch : (i + 1) * batch] for i in range(launches)]

    def _time(self, system: str, workload: str, calls: list[partial], keep: bool = True) -> None:
        self.scrub.data.memset_async(0, self.scrub.nbytes, cupy.cuda.get_current_stream())
        _, seconds = event_seconds(lambda: [call() for call in calls])
        if keep and self.repeat >= 0:
            rate = len(calls) * self.cell["batch"] / seconds
            self.run.add_sample(system, workload, self.cell, self.repeat, RATE, rate, "1/s")


def launches_of(batch: int, records: int) -> int:
    """How many launches of a batch are timed together."""
    return max(1, min(LAUNCHES, LONG_ENOUGH // batch, records // batch))


def ladder_rates(
    run: Run,
    rungs: Sequence[str],
    value_sizes: Sequence[int],
    batches: Sequence[int],
    *,
    records: int,
    repeats: int,
    scrub_nbytes: int,
    seed: int = 0,
    progress: Callable[[float], object] = lambda _: None,
) -> None:
    """Every verb of each rung, of the winner and of the ceilings at the first value size; lookups alone at the others.

    batches: keys a launch, at most `records`. progress: called after each system and size
    raises: MemoryError where the device can't hold a table
    """
    trial = Trial(run, records, repeats, scrub_nbytes, seed)
    for size in value_sizes:
        all_verbs = size == value_sizes[0]
        rows = sum(batch * launches_of(batch, records) for batch in batches)
        spare = 2 * (repeats + 1) * rows if all_verbs else 0
        makers = [partial(Climber, name) for name in rungs] + [Winner]
        for make in makers:
            system = make(records, size, spare)
            for batch in batches:
                trial.measure(system, size, batch, all_verbs=all_verbs)
            system.close()
            progress(1)


def compile_rungs(
    rungs: Sequence[str], progress: Callable[[float], object] = lambda _: None
) -> None:
    """Compiles what the rungs need, beforehand. progress: called with each module's share of all."""
    wanted = {
        (f"ladder_{operation}", RUNGS[name].defines(operation))
        for name in rungs
        for operation in OPERATIONS
    }
    modules.prepare(wanted, progress)


def _rows(column: Column) -> Any:
    return column.data.reshape(len(column), column.width)
