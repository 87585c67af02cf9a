"""How fast bulk calls are, host columns in and host columns out, beside what the link could carry. For notebook 04.

Keys of 16 bytes. Every repeat asks for fresh random records in columns made before its clock starts; the host's clock times
the call of the client; what was found is compared with what was stored, and dropped before the next repeat, so that its
pinned memory serves again. A rate's ceiling is the bandwidth of pinned copies measured in the same run, as rows a second.
Imports CuPy: only for where there is a GPU.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import cupy
import numpy as np
import pyarrow as pa

from ..client import Predis
from ..columns import Column
from ..gpu import kernels
from . import device_records
from .contestants import WrongAnswerError
from .host_columns import HostColumn, host_column, same_bytes, uploaded
from .host_transfers import floor_rate
from .pipeline_samples import (
    BANDWIDTH,
    BOTH_WAYS,
    CALLS,
    KEY_NBYTES,
    LISTS,
    RATE,
    TIMELINE,
    WHOLE,
    Call,
    Moved,
    Traceable,
    nbytes_within,
    overhead,
)
from .results import Run
from .statistics import median_interval
from .transfer_rates import Link

CHUNK = 2**18  # records made and compared on the device at once
PARTS = 4  # calls that a batch is cut into where finds and inserts run at once
MOST_FINDS = 1000  # beside them

Progress = Callable[[float], object]
# One repeat: the call to be timed, and what raises where its answer is wrong.
Round = tuple[Callable[[], Any], Callable[[Any], None]]


class Stock:
    """A cache of records of one size, numbered from 0 on, with room for `fresh` more.

    raises: InvalidArgument where the device can't hold them
    """

    def __init__(self, records: int, value_nbytes: int, fresh: int, seed: int = 0):
        self.records, self.value_nbytes, self.fresh = records, value_nbytes, fresh
        record = kernels.record_nbytes(KEY_NBYTES, value_nbytes)
        # Log: those held, as many as come, and those that made the index grow. Index: up to twice the slots it needs.
        capacity = int(1.15 * record * (records + 2 * fresh)) + 32 * (records + fresh) + 2**25
        self.cache = Predis(capacity, backend="cuda")
        self._generator = cupy.random.RandomState(seed)
        self._next = records + fresh  # numbers never used yet
        self.refill()

    def refill(self) -> None:
        """Exactly its records again, in an index that has had room for the fresh ones too."""
        self.cache.flushdb()
        total = self.records + self.fresh
        for first in range(0, total, CHUNK):
            numbers = cupy.arange(first, min(total, first + CHUNK), dtype=np.uint64)
            made = device_records.keys(numbers), device_records.values(numbers, self.value_nbytes)
            self.cache.insert(*made).raise_for_status()
        # An insert is not to be charged with the growth of the index: it has grown by now.
        for first in range(self.records, total, CHUNK):
            numbers = cupy.arange(first, min(total, first + CHUNK), dtype=np.uint64)
            self.cache.erase(device_records.keys(numbers))

    def pick(self, n: int) -> Any:
        """Distinct numbers of stored records, on the device."""
        return self._generator.permutation(self.records)[:n].astype(np.uint64)

    def unused(self, n: int) -> Any:
        """Numbers of no record so far."""
        self._next += n
        return cupy.arange(self._next - n, self._next, dtype=np.uint64)

    def make_values(self, numbers: Any) -> Column:
        """The values of these numbers, on the device."""
        return device_records.values(numbers, self.value_nbytes)

    def check(self, found: pa.Array, numbers: Any) -> None:
        """Raises WrongAnswerError where a column of answers is another than was stored under the numbers."""
        column, width = Column.of(found), self.value_nbytes
        if found.null_count or len(found) != len(numbers) or column.offsets is None:
            raise WrongAnswerError("a lookup of stored keys did not find them all")
        start = int(column.offsets[0])
        if not (np.diff(column.offsets) == width).all():
            raise WrongAnswerError("a lookup found values of other lengths than were stored")
        for first in range(0, len(numbers), CHUNK):
            stored = self.make_values(numbers[first : first + CHUNK])
            at = start + first * width
            if not same_bytes(uploaded(column.data[at : at + len(stored.data)]), stored.data):
                raise WrongAnswerError("a lookup found other values than were stored")

    def check_stored(self, numbers: Any, of: Any) -> None:
        """Raises WrongAnswerError unless the records `numbers` hold the values made for the numbers `of`."""
        for first in range(0, len(numbers), CHUNK):
            part = slice(first, first + CHUNK)
            stored = self.make_values(of[part])
            found: Any = self.cache.find(device_records.keys(numbers[part]))
            if not same_bytes(found.data[: len(stored.data)], stored.data):
                raise WrongAnswerError("an insert stored other values than it was given")


class Pipeline:
    """Everything that is measured at one size of values, into the samples and figures of a run.

    rows: keys a call
    """

    def __init__(
        self,
        run: Run,
        link: Link,
        value_nbytes: int,
        *,
        records: int,
        rows: int,
        repeats: int,
        seed: int = 0,
    ):
        self.run, self.link, self.rows, self.repeats = run, link, rows, repeats
        self.stock = Stock(records, value_nbytes, rows, seed)
        self.cache = self.stock.cache
        self.params = {"records": records, "rows": rows, "value_nbytes": value_nbytes}

    def measure(self, progress: Progress = lambda _: None) -> None:
        """Every call of this size: its rate, and its overhead where it has one. progress: after each call with 1"""
        for call in CALLS:
            if call.value_nbytes == self.stock.value_nbytes:
                self._rate(call)
                if call.overhead:
                    self._trace(call)
                progress(1)

    # ---- One call

    def _rounds(self, call: Call) -> Iterator[Round]:
        """As many as one likes; what each needs is made when it is asked for."""
        return self._finds(call) if call.verb == "find" else self._inserts(call)

    def _finds(self, call: Call) -> Iterator[Round]:
        asked = HostColumn(self.rows, KEY_NBYTES, pinned=call.pinned, binary=call.binary)
        while True:
            numbers = self.stock.pick(self.rows)
            keys = asked.filled(device_records.keys, numbers)
            yield lambda: self.cache.find(keys), lambda found: self.stock.check(found, numbers)  # noqa: B023

    def _inserts(self, call: Call) -> Iterator[Round]:
        kind = {"pinned": call.pinned, "binary": call.binary}
        asked = HostColumn(self.rows, KEY_NBYTES, **kind)
        # Values are made once: gigabytes of them take longer to come by than to store.
        source = self.stock.unused(self.rows)
        values = HostColumn(self.rows, call.value_nbytes, **kind).filled(
            self.stock.make_values, source
        )
        while True:
            self.stock.refill()
            numbers = self.stock.unused(self.rows)
            keys = asked.filled(device_records.keys, numbers)

            def check(report: Any, numbers: Any = numbers) -> None:
                if report.counts() != {"stored": self.rows}:
                    raise WrongAnswerError(f"an insert of new keys came to {report.counts()}")
                self.stock.check_stored(numbers, source)

            yield lambda: self.cache.insert(keys, values), check  # noqa: B023

    def _rate(self, call: Call) -> None:
        rates, offset_nbytes = [], 4
        for repeat, (make, check) in zip(range(-1, self.repeats), self._rounds(call)):  # noqa: B905
            answer, seconds = _timed(make)
            check(answer)
            if isinstance(answer, pa.Array):
                offset_nbytes = 8 if pa.types.is_large_binary(answer.type) else 4
            del answer  # before the next call, for which its memory is wanted
            if repeat >= 0:
                rates.append(self.rows / seconds)
                self.run.add_sample(
                    "predis", call.name, self.params, repeat, RATE, rates[-1], "1/s"
                )
        ceiling = call.ceiling(self.link.up, self.link.down, offset_nbytes)
        self.run.add_interval(call.name, median_interval(rates), "1/s", ceiling=ceiling)

    def _trace(self, call: Call) -> None:
        """How long neither link nor kernel was at work, and the stages of the last repeat."""
        engine, shares = cast(Traceable, self.cache._table), []
        for repeat, (make, check) in zip(range(self.repeats), self._rounds(call)):  # noqa: B905
            with engine.traced() as intervals:
                answer, seconds = _timed(make)
            check(answer)
            del answer
            shares.append(overhead(intervals, seconds))
            self.run.add_sample(
                "predis", call.overhead, self.params, repeat, "overhead", shares[-1], "1"
            )
        self.run.add_interval(call.overhead, median_interval(shares), "1")
        spans = [(WHOLE, -1, 0.0, seconds)]
        spans += [(one.stage, one.chunk, one.start_s, one.stop_s) for one in intervals]
        for number, (stage, chunk, start, stop) in enumerate(spans):
            params = {"call": call.name, "stage": stage, "chunk": chunk, "interval": number}
            for metric, moment in (("start", start), ("stop", stop)):
                self.run.add_sample("predis", TIMELINE, params, repeat, metric, moment, "s")

    # ---- Both ways at once

    def measure_both_ways(self) -> None:
        """Bytes per second over both directions while one thread looks up and another inserts."""
        rows, name = self.rows // PARTS, BOTH_WAYS[self.stock.value_nbytes]
        source, rates = self.stock.unused(rows), []
        values = host_column(self.stock.make_values, source, pinned=True)
        for repeat in range(-1, self.repeats):
            self.stock.refill()
            fresh = [self.stock.unused(rows) for _ in range(PARTS)]
            inserted = [host_column(device_records.keys, numbers, pinned=True) for numbers in fresh]
            picked = [self.stock.pick(rows) for _ in range(PARTS)]
            asked = [host_column(device_records.keys, numbers, pinned=True) for numbers in picked]
            rate = self._both_ways(asked, picked, inserted, values)
            for numbers in fresh:
                self.stock.check_stored(numbers, source)
            if repeat >= 0:
                rates.append(rate)
                self.run.add_sample("predis", name, self.params, repeat, BANDWIDTH, rate, "B/s")
        self.run.add_interval(name, median_interval(rates), "B/s", ceiling=self.link.both)

    def _both_ways(
        self, asked: Sequence[pa.Array], picked: Sequence[Any], inserted: Sequence[pa.Array], values: pa.Array
    ) -> float:  # fmt: skip
        """From the start of both until either has made its calls; the others' calls count as far as they came."""
        find, insert = (Call("", "", verb, self.stock.value_nbytes) for verb in ("find", "insert"))
        ready, enough = threading.Barrier(2), threading.Event()
        last: list[tuple[int, pa.Array]] = []

        def look_up(turn: int) -> None:
            last.clear()
            last.append((turn % PARTS, self.cache.find(asked[turn % PARTS])))

        def write(turn: int) -> None:
            self.cache.insert(inserted[turn], values).raise_for_status()

        def loop(call: Callable[[int], None], turns: int, nbytes: float) -> list[Moved]:
            moved: list[Moved] = []
            ready.wait()
            for turn in range(turns):
                began = time.perf_counter()
                call(turn)
                moved.append(Moved(began, time.perf_counter(), nbytes))
                if enough.is_set():
                    break
            enough.set()
            return moved

        rows = len(values)
        with ThreadPoolExecutor(2) as pool:
            doing = [
                pool.submit(loop, call, turns, rows * (one.upload_nbytes() + one.download_nbytes()))
                for call, turns, one in ((look_up, MOST_FINDS, find), (write, PARTS, insert))
            ]
            calls = [one.result() for one in doing]
        for turn, found in last:
            self.stock.check(found, picked[turn])
        last.clear()
        began = min(moved[0].start_s for moved in calls)
        ended = min(moved[-1].stop_s for moved in calls)
        return nbytes_within(itertools.chain(*calls), began, ended) / (ended - began)

    # ---- Lists

    def measure_lists(self, rows: int) -> None:
        """Lists of bytes in, lists out, beside what Arrow takes for the same lists; one after the other in each repeat."""
        rates, floors = [], []
        params = self.params | {"rows": rows}
        for repeat in range(-1, self.repeats):
            numbers = self.stock.pick(rows)
            asked = host_column(device_records.keys, numbers).to_pylist()
            answers, seconds = _timed(lambda: self.cache.mget(asked))  # noqa: B023
            column = pa.array(answers, pa.binary())
            del answers
            self.stock.check(column, numbers)
            floor = floor_rate(asked, column)
            if repeat >= 0:
                rates.append(rows / seconds)
                floors.append(floor)
                for system, rate in (("predis", rates[-1]), ("arrow", floor)):
                    self.run.add_sample(system, LISTS, params, repeat, RATE, rate, "1/s")
        ceiling = median_interval(floors).value
        self.run.add_interval(LISTS, median_interval(rates), "1/s", ceiling=ceiling)

    def close(self) -> dict[str, Any]:
        """What the cache says of its transfers; its memory is given back."""
        told = self.cache.info("transfers")
        self.cache.close()
        return told


def pipeline_rates(
    run: Run,
    link: Link,
    value_nbytes: int,
    *,
    records: int,
    rows: int,
    repeats: int,
    list_rows: int = 0,
    seed: int = 0,
    progress: Progress = lambda _: None,
) -> dict[str, Any]:
    """Everything at one size of values; what the cache then says of its transfers.

    records:    in the cache, at least `rows`
    list_rows:  keys a call of `mget`; 0: not measured
    progress:   called after each call with 1, see `steps`
    """
    sized = {"records": records, "rows": rows, "repeats": repeats, "seed": seed}
    pipeline = Pipeline(run, link, value_nbytes, **sized)
    pipeline.measure(progress)
    pipeline.measure_both_ways()
    progress(1)
    if list_rows:
        pipeline.measure_lists(list_rows)
        progress(1)
    return pipeline.close()


def steps(value_sizes: Sequence[int], lists: bool) -> int:
    """How often `pipeline_rates` tells its progress over these sizes."""
    calls = sum(call.value_nbytes in value_sizes for call in CALLS)
    return calls + len(value_sizes) + lists


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    answer = call()
    return answer, time.perf_counter() - began
