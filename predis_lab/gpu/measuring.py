"""The constants of `stages.Machine`, measured on this machine. Called by `engine`, and through `Predis.tuning`.

They are read where an earlier process has kept them. Otherwise a step of a few milliseconds is made at the end of a bulk call
now and then, so that all steps together take a twentieth of such calls' time at most, and first calls nothing at all. Copies
and kernels are timed by the device's events, calls and packing by the host's clock; each is a median. Nothing is stored in
the table, and the device memory is that of the buffers for bulk calls, while nobody uses them.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import cupy
import numpy as np
from cupy.cuda import runtime

from ..columns import Column
from ..errors import PredisError
from . import kept, modules, tuner
from .block import NotServedError
from .copies import copy_async, copy_together
from .health import Health
from .memory import REFUSALS
from .pinned import host_array
from .sizing import DEPTH, MOST_DEPTH, PACKERS
from .stages import Machine, Setting
from .transfers import Transfers

if TYPE_CHECKING:
    from .engine import DeviceEngine

SHARE = 1 / 20  # of the time that bulk calls take
TIMES = 15  # each call or copy is made; three more warm up
COPY_NBYTES = 2**23
PACK_NBYTES = 2**21, 2**24  # twice as much as one core would copy alone, and much more
KEY_NBYTES, ROWS, BELL_ROWS = 16, 2048, 256
_LEAST_S = 1e-9  # of what a clock tells
_LEAST_ROW_S = 1e-12  # for a key, of which a device looks up ten thousand in a microsecond
_NOW_MS = 1  # nothing has expired by then

Step = tuple[str, float]


class Measuring:
    """What is known of this machine so far, and the rest of the steps."""

    def __init__(self, engine: DeviceEngine):
        self._engine = engine
        self._found: dict[str, float] = {}
        self._steps: Iterator[Step] | None = None
        self._due_s = tuner.MEASURED_AFTER_S  # of bulk calls
        machine = kept.read(modules.cache_directory(), self._identity())
        if machine is not None:
            engine.tuner.adopt(machine)

    def _identity(self) -> kept.Identity:
        from .. import __version__

        properties = runtime.getDeviceProperties(runtime.getDevice())
        return {
            "gpu": properties["name"].decode(),
            "memory_nbytes": int(properties["totalGlobalMem"]),
            "driver": int(runtime.driverGetVersion()),
            "predis_lab": __version__,
            "packers": PACKERS,
            "doorbell": int(self._engine.doorbell is not None),
        }

    def go_on(self) -> None:
        """The next step, if one is due, by a call that has its answer and is alone with the device."""
        if self._due_s > self._engine.pipeline.transfers.busy_s or self._engine.is_shared:
            return
        began = time.perf_counter()
        try:
            self._step()
        except (PredisError, NotServedError, *REFUSALS):
            # The call itself went well; whoever wants to know why measures again.
            self._due_s = math.inf
        else:
            self._due_s += (time.perf_counter() - began) / SHARE

    def finish(self) -> Machine:
        """All steps anew, one after the other, within a second or so; what they came to is in force and kept."""
        self._steps = None
        self._found.clear()
        while self._step():
            pass
        assert self._engine.tuner.machine is not None
        return self._engine.tuner.machine

    def _step(self) -> bool:
        if self._steps is None:
            self._steps = _steps(self._engine)
        for name, value in self._steps:
            self._found[name] = max(value, _LEAST_ROW_S)
            return True
        machine = Machine(**self._found, packers=PACKERS)  # type: ignore[arg-type]
        kept.write(modules.cache_directory(), self._identity(), machine)
        self._engine.tuner.adopt(machine)
        return False


def _steps(engine: DeviceEngine) -> Iterator[Step]:
    """Name and value of each constant."""
    one, many = _keys(1), _keys(ROWS)

    def peek(column: Column, out: Any) -> None:
        engine.table.peek(column, _NOW_MS, present=out)

    yield "launch_s", _median(lambda: engine._launched.per_key(one, np.dtype(np.bool_), peek))
    if engine.doorbell is not None:
        asked = [_median(lambda n=n: _ring(engine, many[:n])) for n in (1, BELL_ROWS)]  # type: ignore[misc]
        yield "bell_s", asked[0]
        yield "bell_row_s", (asked[1] - asked[0]) / (BELL_ROWS - 1)
    yield from _packing()
    yield from _crossing(engine)
    yield from _chunks(engine, many, peek)


def _ring(engine: DeviceEngine, keys: Column) -> None:
    """Asks the doorbell, which takes calls once the device is idle."""
    assert engine.doorbell is not None
    engine.health.wait(engine.pipeline.stream, "what was under way", brief=True)
    engine.doorbell.contains(keys, _NOW_MS)


def _packing() -> Iterator[Step]:
    """Copies into pinned memory by one core, and by all of them: these have to be woken, then all copy together."""
    source, target = np.ones(PACK_NBYTES[1], np.uint8), host_array(PACK_NBYTES[1], np.uint8)
    target[:] = 0
    alone = _median(lambda: copy_together(target, source[: PACK_NBYTES[0]], 1), 5)
    yield "pack", PACK_NBYTES[0] / alone
    short, long = (
        _median(lambda n=n: copy_together(target, source[:n], PACKERS), 5)  # type: ignore[misc]
        for n in PACK_NBYTES
    )
    # The cores together are never slower than one.
    most = max(
        (PACK_NBYTES[1] - PACK_NBYTES[0]) / max(long - short, _LEAST_S), PACK_NBYTES[0] / alone
    )
    most = min(most, PACKERS * PACK_NBYTES[0] / alone)
    yield "pack_most", most
    yield "wake_s", (short - PACK_NBYTES[0] / most) / PACKERS


def _crossing(engine: DeviceEngine) -> Iterator[Step]:
    """Copies across the link and within the device's memory, and a kernel that looks keys up; by the device's clock."""
    pipeline, stream = engine.pipeline, cupy.cuda.Stream(non_blocking=True)

    def timed(stream: Any, enqueue: Callable[[], object]) -> float:
        return _on_device(engine.health, stream, enqueue)

    with engine.health.holding(pipeline.reading):
        pipeline.answers.drain(engine.health)
        memory = pipeline.answers.memory
        nbytes = min(memory.size // 2, COPY_NBYTES)
        host = host_array(nbytes, np.uint8)
        here, there = host.ctypes.data, memory.data.ptr

        def copied(count: int, down: bool) -> float:
            to, source = (here, there) if down else (there, here)
            return timed(stream, lambda: copy_async(to, source, count, stream, down=down))

        latency = copied(256, False)
        up, down = copied(nbytes, False), copied(nbytes, True)

        def within() -> None:
            kind = runtime.memcpyDeviceToDevice
            runtime.memcpyAsync(there + nbytes, there, nbytes, kind, stream.ptr)

        moved = timed(stream, within)
        rows = max(nbytes // KEY_NBYTES, 1)
        keys = Column(memory[: rows * KEY_NBYTES], None, KEY_NBYTES, rows)
        out = memory[nbytes : nbytes + rows].view(np.bool_)

        def look_up() -> None:
            engine.table.peek(keys, _NOW_MS, present=out)

        looked = timed(pipeline.stream, look_up)
    yield "copy_s", latency
    yield "up", nbytes / max(up - latency, _LEAST_S)
    yield "down", nbytes / max(down - latency, _LEAST_S)
    yield "memory", 2 * nbytes / max(moved, _LEAST_S)
    yield "row_s", looked / rows


def _chunks(engine: DeviceEngine, keys: Column, peek: Callable) -> Iterator[Step]:
    """Calls through the pipeline that carry next to nothing, as one chunk and as many."""
    pipeline = engine.pipeline
    told, pipeline.transfers = pipeline.transfers, Transfers()
    whole = Setting(pipeline.room_nbytes // DEPTH, DEPTH, 1)
    cut = Setting(min(2**12, pipeline.room_nbytes // MOST_DEPTH), DEPTH, 1)
    try:
        one = _median(lambda: pipeline.per_key(keys[:8], np.bool_, peek, whole))
        many = _median(lambda: pipeline.per_key(keys, np.bool_, peek, cut), 5)
    finally:
        pipeline.transfers = told
    chunks = keys.nbytes / (cut.chunk_nbytes / 2)
    yield "chunk_s", min((many - one) / (chunks - 1), one / 2)
    yield "bulk_s", one - min((many - one) / (chunks - 1), one / 2)


def _keys(n: int) -> Column:
    """Keys that nobody stores, in host memory."""
    data = np.random.default_rng(0).integers(0, 256, n * KEY_NBYTES, np.uint8)
    return Column(data, None, KEY_NBYTES, n)


def _median(call: Callable[[], object], times: int = TIMES) -> float:
    found = []
    for _ in range(times + 3):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return statistics.median(found[3:])


def _on_device(health: Health, stream: Any, enqueue: Callable[[], object]) -> float:
    """Seconds of what is enqueued, by events around it."""
    began, ended, found = cupy.cuda.Event(), cupy.cuda.Event(), []
    for _ in range(TIMES):
        with stream:
            began.record(stream)
            enqueue()
            ended.record(stream)
        health.wait(ended, "a measurement", brief=True)
        found.append(cupy.cuda.get_elapsed_time(began, ended) * 1e-3)
    return statistics.median(found[3:])
