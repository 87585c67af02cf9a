"""A cache kept nearly full for a long time: random inserts, updates, erases and expiries, checked all along. For notebook 05.

What a key should hold is known from a size and a place in one block of random bytes, of which every value is a piece: the
oracle needs a few bytes a key. Expiry goes by a clock of its own, which each turn moves on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ..backend import make_table
from ..columns import Column
from ..table import NEVER, RECORD_HEADER_NBYTES, Status, Table
from .results import Run

KEY_NBYTES = 16
_MIX = np.array(
    [0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9], np.uint64
)  # odd: distinct numbers, distinct keys
TURN_MS = 20  # by which a turn moves the clock on
LONGEST_TTL_MS = 400 * TURN_MS
CHECKED = 64  # keys a lookup
READINGS = 200
SHARES = {"insert": 0.5, "erase": 0.1, "expire": 0.1}  # of all turns; what is left looks keys up


class Oracle:
    """What a table should hold: for each of n numbers a size, -1 for none, where its bytes begin, and when it expires."""

    def __init__(self, n: int, largest: int, generator: np.random.Generator):
        self.sizes, self.starts = np.full(n, -1, np.int64), np.zeros(n, np.int64)
        self.expiries = np.full(n, NEVER, np.int64)
        self._bytes = np.frombuffer(generator.bytes(2 * largest), np.uint8)

    def alive(self, now_ms: int) -> np.ndarray:
        """bool per number: whether it is there."""
        return (self.sizes >= 0) & ((self.expiries < 0) | (self.expiries > now_ms))

    def live_nbytes(self, now_ms: int) -> int:
        """Bytes of the log that the records that are there take."""
        return int(record_nbytes(self.sizes[self.alive(now_ms)]).sum())

    def values(self, starts: np.ndarray, sizes: np.ndarray) -> Column:
        """The pieces one after the other."""
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        pieces = [
            self._bytes[at : at + n] for at, n in zip(starts.tolist(), sizes.tolist(), strict=True)
        ]
        return Column(np.concatenate(pieces), offsets, 0, len(sizes))

    def wrong(self, numbers: np.ndarray, found: pa.Array, now_ms: int) -> int:
        """How many of the answers differ from what they should be."""
        alive, count = self.alive(now_ms)[numbers], 0
        for row, value in enumerate(found):
            number = numbers[row]
            start, size = int(self.starts[number]), int(self.sizes[number])
            expected = self._bytes[start : start + size] if alive[row] else None
            buffer = value.as_buffer()
            if expected is None or buffer is None:
                count += expected is not None or buffer is not None
            else:
                count += not np.array_equal(np.frombuffer(buffer, np.uint8), expected)
        return count


@dataclass
class Soaked:
    """What a soak saw. readings: one row each, bytes but for `elapsed` (s) and the counts.

    failures:     records refused, though there was room for them
    wrong:        answers and statuses that were not as they should be, of `checked`
    written:      bytes of records inserted
    utilisation:  live bytes over bytes of the log's segments, after compaction at the end
    growth:       by how much the most device memory of the last third exceeds that of the first third, once it was full
    """

    readings: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    turns: int = 0
    failures: int = 0
    wrong: int = 0
    checked: int = 0
    written: int = 0
    utilisation: float = 1.0
    freed: int = 0

    @property
    def growth(self) -> int:
        device = [reading["device"] for reading in self.readings if reading["full"]]
        third = len(device) // 3
        return int(max(0, max(device[-third:]) - max(device[:third]))) if third else 0


def record_nbytes(sizes: Any) -> Any:
    """Bytes of the log that records with values of these sizes take."""
    return (RECORD_HEADER_NBYTES + KEY_NBYTES + sizes + 15) // 16 * 16


def keys(numbers: np.ndarray) -> Column:
    """A key for each number."""
    words = numbers.astype(np.uint64)[:, None] * _MIX[None, :]
    return Column(words.reshape(-1).view(np.uint8), None, KEY_NBYTES, len(numbers))


class Soak:
    """One table, its oracle and its clock; `turn` does one thing to both."""

    def __init__(
        self,
        capacity: int,
        full: float,
        smallest: int,
        largest: int,
        batch: int,
        seed: int,
        backend: str,
    ):
        self.generator = np.random.default_rng(seed)
        self.smallest, self.largest, self.batch = smallest, largest, batch
        self.table: Table = make_table(capacity, backend)
        self.full = full * (capacity - self.table.memory().get("buffers", 0))
        mean = (largest - smallest) / np.log(largest / smallest) + KEY_NBYTES + RECORD_HEADER_NBYTES
        # Half as many keys again as find room: some are there when they are written, some are not.
        n = max(4 * batch, int(1.5 * self.full / mean))
        self.oracle = Oracle(n, largest, self.generator)
        self.on_device, self.now_ms, self.seen = backend == "cuda", 1, Soaked()

    def fill(self) -> None:
        """Inserts keys that are not there until as much is live as is to be, or time after time nothing finds room."""
        refused = 0
        while not self._is_full() and refused < 20:
            before = self.seen.failures
            self.insert(self._absent())
            refused += self.seen.failures - before == self.batch

    def turn(self) -> None:
        """An insert, an erase, an expiry, or lookups that are checked; then what it takes to be full again."""
        self.now_ms += TURN_MS
        self.seen.turns += 1
        verbs, shares = [self.insert, self.erase, self.expire, self.look_up], list(SHARES.values())
        verbs[int(np.searchsorted(np.cumsum(shares), self.generator.random()))]()
        self.fill()

    def insert(self, numbers: np.ndarray | None = None) -> None:
        """A batch of new sizes for random keys, a quarter of the batches to expire; what they need is made free first."""
        oracle = self.oracle
        numbers = self._numbers(self.batch) if numbers is None else numbers
        draws = self.generator.uniform(
            np.log(self.smallest), np.log(self.largest + 1), len(numbers)
        )
        sizes = np.exp(draws).astype(np.int64)
        starts = self.generator.integers(0, self.largest, len(numbers))
        expires = self.now_ms + int(self.generator.integers(TURN_MS, LONGEST_TTL_MS))
        expires = expires if self.generator.random() < 0.25 else NEVER
        self._make_room(int(record_nbytes(sizes).sum()))
        was = oracle.alive(self.now_ms)[numbers]
        asked, values = self._sided(keys(numbers), oracle.values(starts, sizes))
        status = self.table.insert(asked, values, expires, self.now_ms)
        refused = status == Status.NO_SPACE
        expected = np.where(was, int(Status.UPDATED), int(Status.STORED))
        self._judge(status[~refused] == expected[~refused])
        self.seen.failures += int(refused.sum())
        taken = numbers[~refused]
        oracle.sizes[taken], oracle.starts[taken] = sizes[~refused], starts[~refused]
        oracle.expiries[taken] = expires
        self.seen.written += int(record_nbytes(sizes[~refused]).sum())

    def erase(self, numbers: np.ndarray | None = None) -> None:
        """Some random keys, of which some are not there."""
        numbers = self._numbers(self.batch // 4) if numbers is None else numbers
        was = self.oracle.alive(self.now_ms)[numbers]
        (column,) = self._sided(keys(numbers))
        self._judge(self.table.erase(column, self.now_ms) == was)
        self.oracle.sizes[numbers] = -1

    def expire(self) -> None:
        """Some random keys get, or lose, a time to live."""
        numbers = self._numbers(self.batch // 4)
        moment = self.now_ms + int(self.generator.integers(TURN_MS, LONGEST_TTL_MS))
        moment = moment if self.generator.random() < 0.5 else NEVER
        was = self.oracle.alive(self.now_ms)[numbers]
        (column,) = self._sided(keys(numbers))
        self._judge(self.table.expire(column, moment, self.now_ms) == was)
        self.oracle.expiries[numbers[was]] = moment

    def look_up(self) -> None:
        """Some random keys, their values compared byte by byte."""
        numbers = self._numbers(CHECKED)
        found = self.table.find(keys(numbers), self.now_ms)
        self.seen.wrong += self.oracle.wrong(numbers, found, self.now_ms)
        self.seen.checked += len(numbers)

    def read(self, elapsed: float, taken: Callable[[], int], base: int) -> None:
        """Takes a reading. taken: bytes of the device, `base` before there was this table."""
        memory = self.table.memory()  # before the pool gives back what it keeps
        self.seen.readings.append(
            {
                "elapsed": elapsed,
                "live": self.oracle.live_nbytes(self.now_ms),
                "log_used": memory.get("log_used", memory["used"]),
                "index": memory.get("index", 0),
                "device": taken() - base,
                "pool": memory.get("pool", 0),
                "compactions": memory.get("compactions_count", 0),
                "failures": self.seen.failures,
                "full": self._is_full(),
            }
        )

    def finish(self) -> Soaked:
        """Compacts, checks every key there is, and closes."""
        alive = np.flatnonzero(self.oracle.alive(self.now_ms))
        self._judge(np.array([self.table.count(self.now_ms) == len(alive)]))
        while freed := self.table.compact(self.now_ms):
            self.seen.freed += freed
        memory, live = self.table.memory(), self.oracle.live_nbytes(self.now_ms)
        self.seen.utilisation = live / (memory.get("log", memory["used"]) or 1)
        for start in range(0, len(alive), CHECKED):
            numbers = alive[start : start + CHECKED]
            found = self.table.find(keys(numbers), self.now_ms)
            self.seen.wrong += self.oracle.wrong(numbers, found, self.now_ms)
            self.seen.checked += len(numbers)
        self.table.close()
        return self.seen

    def _is_full(self) -> bool:
        index = self.table.memory().get("index", 0)
        return self.oracle.live_nbytes(self.now_ms) + index >= 0.95 * self.full

    def _numbers(self, n: int) -> np.ndarray:
        return self.generator.choice(len(self.oracle.sizes), n, replace=False)

    def _absent(self) -> np.ndarray:
        absent = np.flatnonzero(~self.oracle.alive(self.now_ms))
        return self.generator.choice(absent, min(self.batch, len(absent)), replace=False)

    def _make_room(self, nbytes: int) -> None:
        """Erases random records until, index included, there are nbytes below what counts as full."""
        alive = np.flatnonzero(self.oracle.alive(self.now_ms))
        costs = record_nbytes(self.oracle.sizes[alive])
        index = self.table.memory().get("index", 0)
        needed = int(costs.sum()) + nbytes + index - self.full
        if needed > 0 and len(alive):
            order = self.generator.permutation(len(alive))
            count = int(np.searchsorted(np.cumsum(costs[order]), needed)) + 1
            self.erase(alive[order[:count]])

    def _sided(self, *columns: Column) -> list[Column]:
        """The columns on the host, or every other time, where there is a device, on it."""
        if not self.on_device or self.generator.random() < 0.5:
            return list(columns)
        import cupy

        def up(column: Column) -> Column:
            offsets = None if column.offsets is None else cupy.asarray(column.offsets)
            return Column(cupy.asarray(column.data), offsets, column.width, len(column))

        return [up(column) for column in columns]

    def _judge(self, right: np.ndarray) -> None:
        self.seen.checked += len(right)
        self.seen.wrong += int((~right).sum())


def soak(
    seconds: float,
    capacity: int,
    *,
    full: float = 0.9,
    smallest: int = 16,
    largest: int = 2**20,
    batch: int = 256,
    seed: int = 0,
    backend: str = "cuda",
    progress: Callable[[float], object] = lambda _: None,
) -> Soaked:
    """Fills a cache to a share of what its index and log may take, and keeps it there for some seconds.

    full:               share of that which live records and the index make up
    smallest, largest:  bytes of a value; every order of magnitude is as likely as the next
    batch:              records an insert: their bytes must fit between `full` and the capacity
    backend:            "cuda" or "host"
    progress:           called with shares of the time
    """
    taken = _taken if backend == "cuda" else lambda: 0
    base = taken()
    work = Soak(capacity, full, smallest, largest, batch, seed, backend)
    work.fill()
    began, read, told = time.monotonic(), -1.0, 0.0
    while (elapsed := time.monotonic() - began) < seconds:
        work.turn()
        if elapsed - read >= seconds / READINGS:
            work.read(elapsed, taken, base)
            progress((elapsed - told) / seconds)
            read = told = elapsed
    work.read(seconds, taken, base)
    work.seen.seconds = time.monotonic() - began
    progress((seconds - told) / seconds)
    return work.finish()


def _taken() -> int:
    import cupy

    cupy.get_default_memory_pool().free_all_blocks()  # which grows with the longest batch so far
    free, total = cupy.cuda.runtime.memGetInfo()
    return total - free


def record(run: Run, soaked: Soaked, params: dict) -> None:
    """Adds the readings to a run, and what they come to."""
    for number, reading in enumerate(soaked.readings):
        for metric, value in reading.items():
            unit = {"elapsed": "s"}.get(
                metric, "1" if metric in ("compactions", "failures", "full") else "B"
            )
            run.add_sample("arena", "soak", params, number, metric, float(value), unit)
    n = soaked.turns
    run.add_figure("soak_utilisation", soaked.utilisation, "1")
    run.add_figure("soak_growth", soaked.growth, "B", n=len(soaked.readings))
    run.add_figure("soak_failures", soaked.failures, "1", n=n)
    run.add_figure("soak_wrong", soaked.wrong, "1", n=soaked.checked)
    run.add_figure("soak_seconds", soaked.seconds, "s")
    run.add_figure("soak_written", soaked.written, "B", n=n)
    run.add_figure("soak_full", float(np.mean([r["full"] for r in soaked.readings])), "1")
