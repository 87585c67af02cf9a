"""The same sizes given to three holders of device memory, over and over: the cache's log, and CuPy's two pools. For notebook 05.

Blocks come and go at random while as many bytes as the parameters say stay alive. Each holder may have `capacity` bytes,
and is asked for the same sizes in the same order; what it refuses counts as a failure and is not asked for again.
Imports CuPy: only for where there is a GPU.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cupy
import numpy as np

from ..backend import make_table
from ..columns import Column
from ..table import NEVER, RECORD_HEADER_NBYTES, Status
from .device_records import KEY_NBYTES, keys
from .memory_samples import ARENA, Churn, record_churn
from .results import Run

NOW_MS = 1
_COST = RECORD_HEADER_NBYTES + KEY_NBYTES + 15  # of a record beside its value, at most


@dataclass(frozen=True)
class Turn:
    """What comes and goes at once. freed: numbers of earlier blocks; sizes: of new ones, numbered from `first` on."""

    freed: np.ndarray
    first: int
    sizes: np.ndarray


def log_uniform(generator: np.random.Generator, n: int, smallest: int, largest: int) -> np.ndarray:
    """n sizes in bytes, each order of magnitude as likely as the next."""
    return np.exp(generator.uniform(np.log(smallest), np.log(largest + 1), n)).astype(np.int64)


def turns(
    capacity: int, full: float, written: float, batch: int, smallest: int, largest: int, seed: int
) -> Iterator[Turn]:
    """What all holders are asked: batches of random sizes, and random blocks freed before each so that they fit.

    full:     share of the capacity that is live, records' headers and keys included
    written:  capacities' worth of blocks in all
    """
    generator = np.random.default_rng(seed)
    alive, live, total, first = np.zeros((0, 2), np.int64), 0, 0, 0
    while total < written * capacity:
        sizes = log_uniform(generator, batch, smallest, largest)
        cost = int(sizes.sum()) + batch * _COST
        alive = generator.permutation(alive)
        needed = live + cost - full * capacity
        gone = int(np.searchsorted(np.cumsum(alive[:, 1] + _COST), needed)) + 1 if needed > 0 else 0
        freed, alive = alive[:gone], alive[gone:]
        yield Turn(freed[:, 0], first, sizes)
        numbers = np.arange(first, first + batch)
        alive = np.concatenate([alive, np.stack([numbers, sizes], axis=1)])
        live = int((alive[:, 1] + _COST).sum())
        total += cost
        first += batch


def pool_churn(
    run: Run,
    capacity: int,
    *,
    full: float,
    written: float,
    batch: int,
    smallest: int = 16,
    largest: int = 2**20,
    seed: int = 0,
    progress: Callable[[float], object] = lambda _: None,
) -> dict[str, Churn]:
    """Gives each holder the same turns, and adds what became of them to the run.

    batch:     blocks a turn
    progress:  called after each holder
    """
    holders: dict[str, Callable[[list[Turn]], Churn]] = {
        ARENA: lambda plan: _arena(plan, capacity),
        "default_pool": lambda plan: _pool(plan, "default_pool", _default_pool(capacity)),
        "async_pool": lambda plan: _pool(plan, "async_pool", _async_pool()),
    }
    params = {"capacity": capacity, "full": full, "smallest": smallest, "largest": largest}
    plan = list(turns(capacity, full, written, batch, smallest, largest, seed))
    found = {}
    for name, hold in holders.items():
        found[name] = hold(plan)
        record_churn(run, found[name], params)
        progress(1)
    return found


def _default_pool(capacity: int) -> Any:
    pool = cupy.cuda.MemoryPool()
    pool.set_limit(size=capacity)
    return pool


def _async_pool() -> Any:
    """The driver's pool; it has no limit but the device."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is called experimental
        return cupy.cuda.MemoryAsyncPool()


def _pool(plan: list[Turn], holder: str, pool: Any) -> Churn:
    blocks: dict[int, Any] = {}
    sizes: dict[int, int] = {}
    churn, live = Churn(holder), 0
    stream = cupy.cuda.get_current_stream()
    for turn in plan:
        for number in turn.freed.tolist():
            if blocks.pop(number, None) is not None:
                live -= sizes.pop(number)
        for number, size in enumerate(turn.sizes.tolist(), turn.first):
            began = time.perf_counter()
            try:
                blocks[number] = pool.malloc(size)
            except cupy.cuda.memory.OutOfMemoryError:
                churn.failures += 1
            else:
                sizes[number] = size
                live += size
            churn.latencies.append(time.perf_counter() - began)
        stream.synchronize()
        churn.live.append(live)
        churn.held.append(int(pool.total_bytes()))
    blocks.clear()
    stream.synchronize()
    pool.free_all_blocks()
    return churn


def _arena(plan: list[Turn], capacity: int) -> Churn:
    sizes: dict[int, int] = {}
    churn, live = Churn(ARENA), 0
    most = max(int(turn.sizes.sum()) for turn in plan)
    source = cupy.zeros(most, np.uint8)  # whatever a record holds, it takes the same room
    table = make_table(capacity, "cuda")
    for turn in plan:
        if len(turn.freed):
            table.erase(keys(cupy.asarray(turn.freed.astype(np.uint64))), NOW_MS)
            live -= sum(sizes.pop(number, 0) for number in turn.freed.tolist())
        offsets = np.concatenate([[0], np.cumsum(turn.sizes)])
        numbers = np.arange(turn.first, turn.first + len(turn.sizes), dtype=np.uint64)
        column = Column(source[: offsets[-1]], cupy.asarray(offsets), 0, len(numbers))
        asked = keys(cupy.asarray(numbers))
        cupy.cuda.get_current_stream().synchronize()
        began = time.perf_counter()
        status = table.insert(asked, column, NEVER, NOW_MS)
        churn.latencies.append(time.perf_counter() - began)
        stored = status == Status.STORED
        churn.failures += int((~stored).sum())
        sizes |= dict(zip(numbers[stored].tolist(), turn.sizes[stored].tolist(), strict=True))
        live += int(turn.sizes[stored].sum())
        churn.live.append(live)
        churn.held.append(int(table.memory()["used"]))
    table.close()
    return churn
