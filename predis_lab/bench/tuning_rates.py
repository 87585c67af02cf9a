"""What the tuner chooses beside everything it could have chosen, host columns in and out. For notebook 03.

Keys of 16 bytes, all of them there; each call asks for records drawn at random beforehand, and answers are compared with what
was stored, before the clock runs. Settings are timed in turns, in random order, block by block. Calls go through the client.
Only for where there is a GPU.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from ..client import Predis
from ..gpu import stages
from ..gpu.sizing import DEPTH, MIN_CHUNK_NBYTES, PACKERS, ROWS
from ..gpu.stages import DOORBELL, FIND, INSERT, LAUNCH, PIPELINE
from ..gpu.tuning import MOST_SMALL_NBYTES, Tuning
from .contestants import WrongAnswerError
from .pipeline_samples import KEY_NBYTES
from .results import Run
from .statistics import median_interval
from .tuning_samples import (
    ADAPTATION,
    CONSTANTS,
    CROSSOVER,
    LATENCY,
    RATE,
    REGRET,
    SCALING,
    SWEEP,
    TUNER,
    bend,
    regrets,
    scaling_samples,
    slope,
)
from .workloads import fixed

BATCHES = 4  # of each size, asked in turn
FINALISTS = 3  # fixed settings that are timed once more, beside the tuner
SWEPT_BLOCKS = 3
LEARNING_CALLS, LEARNING_S = 600, 0.6  # of the tuner before it is timed, at most
LARGEST = 2**30
UNITS = {"_s": "s", "up": "B/s", "down": "B/s", "memory": "B/s", "pack": "B/s", "pack_most": "B/s"}

Progress = Callable[[float], object]
Call = Callable[[], Any]


class Stock:
    """A cache of records of one size, with room to write over them.

    room_nbytes: of records that are written before it is filled anew
    """

    def __init__(self, records: int, value_nbytes: int, *, room_nbytes: int = 0, seed: int = 0):
        self.value_nbytes, self.generator = value_nbytes, np.random.default_rng(seed)
        self.records = fixed(records, KEY_NBYTES, value_nbytes, seed=seed)
        # Header, padding, and slots of an index that may have to grow.
        record = KEY_NBYTES + value_nbytes + 40
        capacity = int(1.3 * (records * record + room_nbytes)) + 2**26
        self.cache = Predis(capacity, backend="cuda")
        self.refill()

    @property
    def engine(self) -> Any:
        """Of the cache: whoever measures looks inside."""
        return self.cache._table

    @property
    def rings(self) -> bool:
        """Whether there is a doorbell on this host."""
        return self.engine.doorbell is not None

    def refill(self) -> None:
        """Its records once, and nothing else."""
        self.cache.flushdb()
        step = max(1, 2**28 // (KEY_NBYTES + self.value_nbytes))
        for row in range(0, len(self.records), step):
            part = slice(row, row + step)
            self.cache.insert(self.records.keys[part], self.records.values[part]).raise_for_status()

    def call(self, verb: str, rows: int) -> Call:
        """What asks for, or writes over, so many records, others each time. Its answers have been compared."""
        drawn = [self.generator.integers(0, len(self.records), rows) for _ in range(BATCHES)]
        keys = [self.records.keys.take(pa.array(numbers)) for numbers in drawn]
        values = [self.records.values.take(pa.array(numbers)) for numbers in drawn]
        turns = itertools.cycle(range(BATCHES))
        found = self.cache.find(keys[0])
        if found.null_count or not found.equals(values[0].cast(found.type)):
            raise WrongAnswerError("a lookup found other values than were stored")
        if verb == FIND:
            return lambda: self.cache.find(keys[next(turns)])

        def write() -> None:
            turn = next(turns)
            if not self.cache.insert(keys[turn], values[turn]).ok:
                raise WrongAnswerError("an insert over stored records was refused")

        return write

    @contextmanager
    def pinned(self, tuning: Tuning | None) -> Iterator[None]:
        """Calls inside go by this; by the tuner, where it is None."""
        self.engine.tuner.pin(tuning)
        try:
            yield
        finally:
            self.engine.tuner.pin(None)

    def way(self, call: Call) -> str:
        """The way that one call takes, by what counts them."""
        before = self._counts()
        call()
        after = self._counts()
        return next((way for way in before if after[way] > before[way]), LAUNCH)

    def _counts(self) -> dict[str, int]:
        engine = self.engine
        rung = engine.doorbell._asked if self.rings else 0
        return {PIPELINE: engine.pipeline.transfers.calls, DOORBELL: rung}


def measure_machine(run: Run) -> Any:
    """The constants of this machine, anew, as samples; what is measured now is kept for other processes."""
    with Predis("1GiB", backend="cuda") as cache:
        machine = cache.tuning.measure()
    for name, value in asdict(machine).items():
        unit = next((unit for end, unit in UNITS.items() if name.endswith(end)), "1")
        run.add_sample("machine", CONSTANTS, {}, 0, name, value, unit)
    return machine


def fixed_tunings(stock: Stock, verb: str, rows: int) -> dict[str, Tuning]:
    """Every setting that such calls can be pinned to, by name: chunks that halve, two depths, some cores and many."""
    shape = stock.engine.tuner.shape_of(verb, rows, KEY_NBYTES, stock.value_nbytes)
    nbytes = rows * max(shape.up, shape.down)
    found = {}
    if stock.rings and stages.fits_doorbell(shape):
        found[DOORBELL] = Tuning(doorbell_rows=ROWS, small_nbytes=LARGEST)
    if shape.traffic <= MOST_SMALL_NBYTES:
        found[LAUNCH] = Tuning(doorbell_rows=0, small_nbytes=LARGEST)
    room = stock.engine.pipeline.room_nbytes
    for depth in (DEPTH, 2, 8):
        chunk = room // depth // 256 * 256
        while chunk >= MIN_CHUNK_NBYTES and chunk * 256 > nbytes:
            # Of chunks that hold the whole batch one will do.
            if chunk < 4 * nbytes or (depth == DEPTH and chunk == room // DEPTH // 256 * 256):
                for packers in sorted({PACKERS, max(PACKERS // 3, 1)}):
                    name = f"{PIPELINE}, {depth} of {chunk} B, {packers} cores"
                    found[name] = Tuning(0, 0, chunk, depth, packers)
            chunk = chunk // 4 // 256 * 256
    return found


def measure_cell(
    run: Run, stock: Stock, verb: str, rows: int, *, blocks: int, block_seconds: float
) -> None:
    """One point of the map: all fixed settings, then the best of them beside the tuner."""
    if verb == INSERT:
        stock.refill()
    call, settings = stock.call(verb, rows), fixed_tunings(stock, verb, rows)
    told = {"verb": verb, "rows": rows, "value_nbytes": stock.value_nbytes}
    swept = _in_turns(stock, settings, call, SWEPT_BLOCKS, block_seconds)
    for name, took in swept.items():
        for block, seconds in enumerate(took):
            run.add_sample(name, SWEEP, told, block, LATENCY, seconds, "s")
    _learn(call)
    best = sorted(swept, key=lambda name: float(np.median(swept[name])))[:FINALISTS]
    finalists = {TUNER: None, **{name: settings[name] for name in best}}
    ways = {TUNER: stock.way(call), **{name: name.split(",")[0] for name in best}}
    for name, took in _in_turns(stock, finalists, call, blocks, block_seconds).items():
        for block, seconds in enumerate(took):
            params = told | {"way": ways[name]}
            run.add_sample(name, REGRET, params, block, LATENCY, seconds, "s")


def measure_crossovers(
    run: Run, stock: Stock, sizes: Sequence[int], *, blocks: int, block_seconds: float
) -> None:
    """Seconds of a lookup by each way against keys a call; the pipeline as it is built."""
    ways = {
        DOORBELL: Tuning(doorbell_rows=ROWS, small_nbytes=LARGEST),
        LAUNCH: Tuning(doorbell_rows=0, small_nbytes=LARGEST),
        PIPELINE: Tuning(doorbell_rows=0, small_nbytes=0),
    }
    for rows in sizes:
        call, open_to = stock.call(FIND, rows), fixed_tunings(stock, FIND, rows)
        chosen = {way: one for way, one in ways.items() if way == PIPELINE or way in open_to}
        for way, took in _in_turns(stock, chosen, call, blocks, block_seconds).items():
            told = {"rows": rows, "value_nbytes": stock.value_nbytes, "way": way}
            for block, seconds in enumerate(took):
                run.add_sample("predis", CROSSOVER, told, block, LATENCY, seconds, "s")


def measure_map(
    run: Run,
    value_sizes: Sequence[int],
    batches: Sequence[int],
    *,
    records_nbytes: int,
    call_nbytes: int,
    blocks: int,
    block_seconds: float,
    seed: int = 0,
    progress: Progress = lambda _: None,
) -> None:
    """All points up to call_nbytes a call, lookups and inserts; the largest regret as a figure.

    records_nbytes: of values in each cache. progress: after each size of values with its share of 1
    """
    for value_nbytes in value_sizes:
        records = max(records_nbytes // value_nbytes, 1000)
        stock = Stock(records, value_nbytes, room_nbytes=64 * call_nbytes, seed=seed)
        for verb, rows in itertools.product((FIND, INSERT), batches):
            if rows * (KEY_NBYTES + value_nbytes) <= call_nbytes:
                measure_cell(run, stock, verb, rows, blocks=blocks, block_seconds=block_seconds)
        stock.cache.close()
        progress(1 / len(value_sizes))
    samples = run.frame()
    cells = regrets(samples[samples["workload"] == REGRET])
    worst = max(cells, key=lambda cell: cell.regret.value)
    run.add_interval("tuning_regret_max", worst.regret, "1")
    run.add_interval("tuning_regret", median_interval([cell.regret.value for cell in cells]), "1")


def measure_adaptation(
    run: Run, value_sizes: Sequence[int], rows: int, calls: int, *, records: int, seed: int = 0
) -> None:
    """Lookups while the values behind the keys change their size again and again: what each call took, and its way.

    For each phase the cache is emptied and filled with longer or shorter values; its tuner goes on. The best fixed setting of
    each phase is timed after it, for comparison.
    """
    largest = max(value_sizes)
    stock = Stock(records, largest, room_nbytes=records * largest * len(value_sizes), seed=seed)
    for phase, value_nbytes in enumerate(value_sizes):
        stock.value_nbytes, stock.records = value_nbytes, fixed(records, KEY_NBYTES, value_nbytes, seed=seed)  # fmt: skip
        stock.refill()
        call = stock.call(FIND, rows)
        told = {"phase": phase, "value_nbytes": value_nbytes, "rows": rows}
        for number in range(calls):
            began = time.perf_counter()
            way = stock.way(call)
            took = time.perf_counter() - began
            run.add_sample(TUNER, ADAPTATION, told | {"way": way}, number, LATENCY, took, "s")
        settings = fixed_tunings(stock, FIND, rows)
        swept = _in_turns(stock, settings, call, SWEPT_BLOCKS, 0.002)
        best = min(swept, key=lambda name: float(np.median(swept[name])))
        for number, took in enumerate(swept[best]):
            params = told | {"way": best.split(",")[0]}
            run.add_sample("best fixed", ADAPTATION, params, number, LATENCY, took, "s")
    stock.cache.close()


def measure_scaling(
    run: Run,
    sizes: Sequence[int],
    value_nbytes: int,
    *,
    records: int,
    blocks: int,
    block_seconds: float,
    seed: int = 0,
) -> None:
    """Keys a second against keys a call, as tuned, each with its way and the stage that binds it by the model."""
    stock = Stock(records, value_nbytes, seed=seed)
    for rows in sizes:
        call = stock.call(FIND, rows)
        _learn(call)
        way = stock.way(call)
        choice = stock.cache.tuning.explain(rows, value_nbytes).choice
        binding = choice.estimates[way].binding if choice and way in choice.estimates else ""
        told = {"rows": rows, "value_nbytes": value_nbytes, "way": way, "binding": binding}
        took = _in_turns(stock, {TUNER: None}, call, blocks, block_seconds)[TUNER]
        for block, seconds in enumerate(took):
            run.add_sample("predis", SCALING, told, block, RATE, rows / seconds, "1/s")
        run.add_interval(f"scaling_{rows}", median_interval([rows / s for s in took]), "1/s")
    stock.cache.close()
    samples = scaling_samples(run.frame())
    for name, value in (("slope", slope(samples, 10, 10_000)), ("bend", bend(samples))):
        if value is not None:
            run.add_figure(f"scaling_{name}", value, "1", n=len(sizes))


def _in_turns(
    stock: Stock, settings: dict[str, Any], call: Call, blocks: int, block_seconds: float
) -> dict[str, list[float]]:
    """Seconds a call in each block of each setting."""
    calls, took = {}, {name: [0.0] * blocks for name in settings}
    for name, tuning in settings.items():
        with stock.pinned(tuning):
            seconds = min(_block(call, 1) for _ in range(3))
            calls[name] = int(min(max(block_seconds / seconds, 1), 10_000))
    for block in range(blocks):
        for name in stock.generator.permutation(list(settings)):
            with stock.pinned(settings[name]):
                took[name][block] = _block(call, calls[name])
    return took


def _block(call: Call, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - began) / calls


def _learn(call: Call) -> None:
    """Lets the tuner see some calls of this size."""
    began = time.perf_counter()
    for _ in range(LEARNING_CALLS):
        call()
        if time.perf_counter() - began > LEARNING_S:
            return
