"""Host bytes on their way to the device: straight from pinned memory, or through a ring of pinned buffers that several
cores fill while the link empties it. Called by `pipeline`.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import cupy
import numpy as np
from cupy.cuda import runtime

from .health import Health
from .pinned import host_array, is_pinned

PIECE_NBYTES = (
    2 * 2**20
)  # per buffer: long enough for the link, short enough for a core's share of the cache
BUFFERS = 16
# Cores that copy: one manages some 10 GB/s, the link five times as much.
_PACKERS = min(8, os.cpu_count() or 1)


class Staging:
    """Uploads from any host memory.

    sent_nbytes:  so far
    trace:        called with (start, stop) of each copy into a buffer, in the host's seconds; None as a rule
    """

    def __init__(self, health: Health):
        self._health = health
        self.sent_nbytes = 0
        self._buffers: list[Any] = []
        self._drained: list[Any] = []
        self._turn = 0
        self._packers: ThreadPoolExecutor | None = None
        self.trace: Callable[[float, float], None] | None = None

    @property
    def nbytes(self) -> int:
        """Pinned bytes that it keeps."""
        return len(self._buffers) * PIECE_NBYTES

    def upload(self, source: np.ndarray, target: int, stream: Any) -> None:
        """Copies a contiguous array to a device address, in order on the stream.

        Pinned memory must stay unchanged until the stream has passed; pageable memory has been read on return.
        """
        if not source.nbytes:
            return
        self.sent_nbytes += source.nbytes
        if is_pinned(source):
            copy_async(target, source.ctypes.data, source.nbytes, stream)
            return
        data = source.reshape(-1).view(np.uint8)
        under_way: deque[tuple[int, int, int, Future]] = deque()
        for start in range(0, data.size, PIECE_NBYTES):
            piece = data[start : start + PIECE_NBYTES]
            if len(under_way) == min(BUFFERS, 2 * _PACKERS):
                self._send(under_way.popleft(), stream)
            turn = self._next()
            future = self._pack(self._buffers[turn][: piece.size], piece)
            under_way.append((turn, target + start, piece.size, future))
        while under_way:
            self._send(under_way.popleft(), stream)

    def close(self) -> None:
        """Ends the threads, gives the buffers back."""
        if self._packers:
            self._packers.shutdown()
        self._buffers.clear()

    def _next(self) -> int:
        """The next buffer's number, once the link has emptied it."""
        if not self._buffers:
            self._buffers = [host_array(PIECE_NBYTES, np.uint8) for _ in range(BUFFERS)]
            self._drained = [cupy.cuda.Event(disable_timing=True) for _ in range(BUFFERS)]
            self._packers = ThreadPoolExecutor(_PACKERS, thread_name_prefix="predis-pack")
        self._turn = (self._turn + 1) % BUFFERS
        self._health.wait(self._drained[self._turn], "an upload")
        return self._turn

    def _pack(self, buffer: np.ndarray, piece: np.ndarray) -> Future:
        def copy() -> None:
            began = time.perf_counter()
            np.copyto(buffer, piece)  # leaves the interpreter to others
            if self.trace:
                self.trace(began, time.perf_counter())

        assert self._packers is not None
        return self._packers.submit(copy)

    def _send(self, packed: tuple[int, int, int, Future], stream: Any) -> None:
        turn, target, nbytes, future = packed
        with self._health.unlocked():
            future.result()
        copy_async(target, self._buffers[turn].ctypes.data, nbytes, stream)
        self._drained[turn].record(stream)


def copy_async(target: int, source: int, nbytes: int, stream: Any, *, down: bool = False) -> None:
    """One asynchronous copy between addresses, to the device or `down` from it; host ends should be pinned."""
    if nbytes:
        kind = runtime.memcpyDeviceToHost if down else runtime.memcpyHostToDevice
        runtime.memcpyAsync(target, source, nbytes, kind, stream.ptr)
