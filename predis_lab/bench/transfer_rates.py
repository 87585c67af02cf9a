"""What the link carries, by size, direction, kind of memory, chunks and streams: into samples of a run. For notebook 04.

Imports CuPy: only for where there is a GPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cupy
import numpy as np
from cupy.cuda import runtime

from ..gpu import limits as launch
from ..gpu.health import TIMEOUT_S, Health
from ..gpu.memory import on_device
from ..gpu.pinned import pinned
from ..gpu.staging import Staging
from . import limits
from .pipeline_samples import (
    ALONE,
    BANDWIDTH,
    BOTH,
    CHUNKS,
    DOWN,
    LATENCY,
    LINK,
    OWN_STREAM,
    SAME_STREAM,
    SIZES,
    TURNS,
    UP,
)
from .results import Run

PINNED, PAGEABLE, ZERO_COPY, STAGED = "pinned", "pageable", "zero-copy", "staged"
PACKED = "packed"  # pageable memory that several cores copy into pinned buffers, as the cache has it done
# Ways to cross by themselves, one copy waited for after the other. "Both" is an upload and a download at once.
WAYS = (
    *((PINNED, direction) for direction in (UP, DOWN, BOTH)),
    *((kind, direction) for kind in (PAGEABLE, ZERO_COPY) for direction in (UP, DOWN)),
    (PACKED, UP),
)
# Ways to cross in chunks; staged: one core copies each chunk from pageable memory into a pinned buffer first.
CHUNKED = (*((PINNED, direction) for direction in (UP, DOWN, BOTH)), (STAGED, UP))
# Copies too short for the clock are made several times: until this much has crossed, but no more often than this.
WORTH_NBYTES, MOST_CALLS = 2**24, 200
ZERO_COPY_NBYTES = 64  # read or written by neighbouring threads at once
# A short copy among chunks that wait: so many of them, so long, and so many before it.
TURN_NBYTES, QUEUED, BEFORE = 2**16, 16, 2

Progress = Callable[[float], object]


@dataclass(frozen=True)
class Link:
    """Measured bandwidth of large pinned copies, bytes per second."""

    up: float
    down: float
    both: float


def measure_link(run: Run, nbytes: int, repeats: int) -> Link:
    """The limits of `bench.limits` for this link, recorded under names of this notebook. nbytes: of one copy."""
    found = {
        limit.name: replace(limit, name=limit.name.replace("limit_", "link_", 1))
        for limit in limits.link_limits(nbytes, repeats)
    }
    kept = [limit for limit in found.values() if limit.name in LINK]
    limits.record(run, kept, {"nbytes": nbytes})
    names = ("limit_h2d_pinned", "limit_d2h_pinned", "limit_both_pinned")
    return Link(*(found[name].interval.value for name in names))


class Ends:
    """Memory at both ends of the link, and two streams, for copies of up to nbytes."""

    def __init__(self, nbytes: int):
        self.pinned = {UP: pinned(nbytes, np.uint8), DOWN: pinned(nbytes, np.uint8)}
        self.pageable = np.ones(nbytes, np.uint8)
        self.device = {UP: on_device(nbytes, np.uint8), DOWN: on_device(nbytes, np.uint8)}
        self.streams = {way: cupy.cuda.Stream(non_blocking=True) for way in (UP, DOWN)}
        self.places = cupy.arange(max(1, nbytes // ZERO_COPY_NBYTES), dtype=np.uint32)
        self._staging = Staging(Health(TIMEOUT_S))
        for buffer in self.pinned.values():
            buffer[:] = 1
        cupy.cuda.get_current_stream().synchronize()  # the places are there before other streams read them

    def mover(self, kind: str, direction: str, nbytes: int) -> Callable[[], None]:
        """One crossing of nbytes each way, done when it returns."""
        ways = (UP, DOWN) if direction == BOTH else (direction,)
        start = {ZERO_COPY: self._read_by_kernel, PACKED: self._pack}.get(kind, self._copy)

        def move() -> None:
            for way in ways:
                start(kind, way, nbytes)
            for way in ways:
                self.streams[way].synchronize()

        return move

    def _copy(self, kind: str, way: str, nbytes: int) -> None:
        host = self.pageable if kind == PAGEABLE else self.pinned[way]
        copy(way, host.ctypes.data, self.device[way].data.ptr, nbytes, self.streams[way])

    def _pack(self, kind: str, way: str, nbytes: int) -> None:
        device = self.device[way].data.ptr
        self._staging.upload(self.pageable[:nbytes], device, self.streams[way])

    def _read_by_kernel(self, kind: str, way: str, nbytes: int) -> None:
        """A kernel that copies between mapped pinned memory and the device's, in order."""
        places = self.places[: nbytes // ZERO_COPY_NBYTES]
        ends = self.pinned[way], self.device[way]
        source, target = ends if way == UP else ends[::-1]
        with self.streams[way]:
            launch.gather(source, ZERO_COPY_NBYTES, places, target)


def copy(way: str, host: int, device: int, nbytes: int, stream: cupy.cuda.Stream) -> None:
    """One asynchronous copy between addresses, up or down; of pageable memory too, which the driver copies first."""
    ends = (device, host, nbytes, runtime.memcpyHostToDevice)
    if way == DOWN:
        ends = (host, device, nbytes, runtime.memcpyDeviceToHost)
    runtime.memcpyAsync(*ends, stream.ptr)


def transfer_sweep(
    run: Run, sizes: Sequence[int], repeats: int, progress: Progress = lambda _: None
) -> None:
    """Bandwidth of single crossings by size, for every kind of memory and direction.

    sizes: bytes of one copy, multiples of 64. progress: called after each size with 1
    """
    ends = Ends(max(sizes))
    for nbytes in sizes:
        calls = max(1, min(MOST_CALLS, WORTH_NBYTES // nbytes))
        for kind, direction in WAYS:
            move = ends.mover(kind, direction, nbytes)
            params = {"direction": direction, "nbytes": nbytes}
            moved = calls * nbytes * (2 if direction == BOTH else 1)
            for repeat in range(-1, repeats):  # the first one warms up
                seconds = _seconds(move, calls)
                if repeat >= 0:
                    run.add_sample(kind, SIZES, params, repeat, BANDWIDTH, moved / seconds, "B/s")
        progress(1)


def chunk_sweep(
    run: Run,
    chunk_sizes: Sequence[int],
    streams: Sequence[int],
    nbytes: int,
    repeats: int,
    progress: Progress = lambda _: None,
) -> None:
    """Bandwidth of nbytes that cross in chunks, dealt out to streams in turn.

    With "both", every other chunk goes down. progress: called after each number of streams with 1
    """
    ends = Ends(nbytes)
    for count in streams:
        dealt = [cupy.cuda.Stream(non_blocking=True) for _ in range(count)]
        ring = [pinned(max(chunk_sizes), np.uint8) for _ in range(count)]
        for chunk_nbytes in chunk_sizes:
            for kind, direction in CHUNKED:
                params = {
                    "direction": direction,
                    "chunk_nbytes": chunk_nbytes,
                    "streams": count,
                    "nbytes": nbytes,
                }
                move = _in_chunks(ends, kind, direction, nbytes, chunk_nbytes, dealt, ring)
                for repeat in range(-1, repeats):
                    seconds = _seconds(move, 1)
                    if repeat >= 0:
                        run.add_sample(
                            kind, CHUNKS, params, repeat, BANDWIDTH, nbytes / seconds, "B/s"
                        )
        progress(1)


def _in_chunks(
    ends: Ends, kind: str, direction: str, nbytes: int, chunk_nbytes: int, streams: list, ring: list
) -> Callable[[], None]:
    drained = [cupy.cuda.Event(disable_timing=True) for _ in streams]

    def move() -> None:
        for i, at in enumerate(range(0, nbytes, chunk_nbytes)):
            turn, size = i % len(streams), min(chunk_nbytes, nbytes - at)
            way = (UP, DOWN)[i % 2] if direction == BOTH else direction
            host = ends.pinned[way].ctypes.data + at
            if kind == STAGED:
                drained[turn].synchronize()
                ring[turn][:size] = ends.pageable[at : at + size]
                host = ring[turn].ctypes.data
            copy(way, host, ends.device[way].data.ptr + at, size, streams[turn])
            if kind == STAGED:
                drained[turn].record(streams[turn])
        for stream in streams:
            stream.synchronize()

    return move


def turns(run: Run, chunk_nbytes: int, repeats: int) -> None:
    """How long a short copy takes while many chunks wait to go the same way: on their stream, and on one of its own."""
    ends, other = Ends(max(chunk_nbytes, TURN_NBYTES)), cupy.cuda.Stream(non_blocking=True)
    chunks, short, arrived = ends.streams[UP], on_device(TURN_NBYTES, np.uint8), cupy.cuda.Event()

    def send(queued: int) -> None:
        for _ in range(queued):
            copy(UP, ends.pinned[UP].ctypes.data, ends.device[UP].data.ptr, chunk_nbytes, chunks)

    params = {"chunk_nbytes": chunk_nbytes, "queued": QUEUED, "before": BEFORE}
    ways = {
        ALONE: (other, 0, 0),
        SAME_STREAM: (chunks, BEFORE, QUEUED),
        OWN_STREAM: (other, BEFORE, QUEUED),
    }
    for way, (stream, before, queued) in ways.items():
        for repeat in range(-1, repeats):
            began = time.perf_counter()
            send(before)
            copy(UP, ends.pinned[UP].ctypes.data, short.data.ptr, TURN_NBYTES, stream)
            arrived.record(stream)
            send(queued - before)
            arrived.synchronize()
            seconds = time.perf_counter() - began
            chunks.synchronize()
            if repeat >= 0:
                run.add_sample(way, TURNS, params, repeat, LATENCY, seconds, "s")


def _seconds(move: Callable[[], None], calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        move()
    return time.perf_counter() - began
