"""Host bytes on their way to the device: straight from pinned memory, or through pinned buffers that several cores fill
while the link empties them. Called by `pipeline`.
"""

from __future__ import annotations

import threading
import time
from contextlib import nullcontext
from typing import Any

import cupy
import numpy as np
import pyarrow as pa
from cupy.cuda import runtime

from .health import Health
from .pinned import host_array, is_pinned
from .tracing import Trace

# Waking the cores that copy takes as long as copying a megabyte: few, long pieces.
PIECE_NBYTES = 32 * 2**20
BUFFERS = 3  # one being filled, one on its way, one between
ALONE_NBYTES = 2**20  # one core copies up to here
# One core manages some 6 to 10 GB/s, the link five times as much.
PACKERS = max(1, min(14, pa.cpu_count() - 2))


class Staging:
    """Uploads from any host memory.

    sent_nbytes:  so far
    trace:        where each copy is noted; None as a rule
    """

    def __init__(self, health: Health):
        self._health = health
        self._busy = threading.Lock()
        self._buffers: list[np.ndarray] = []
        self._drained: list[Any] = []
        self._turn = 0
        self.sent_nbytes = 0
        self.trace: Trace | None = None

    def upload(self, source: np.ndarray, target: int, stream: Any, chunk: int = 0) -> None:
        """Copies a contiguous array to a device address, in order on the stream; `chunk` is what a trace calls it.

        Pinned memory must stay unchanged until the stream has passed; pageable memory has been read on return.
        """
        if not source.nbytes:
            return
        self.sent_nbytes += source.nbytes
        if is_pinned(source):
            self._copy(target, source, stream, chunk)
            return
        data = source.reshape(-1).view(np.uint8)
        with self._health.holding(self._busy):  # while one packs, others may come to call
            for start in range(0, data.size, PIECE_NBYTES):
                self._send(data[start : start + PIECE_NBYTES], target + start, stream, chunk)

    def _send(self, piece: np.ndarray, target: int, stream: Any, chunk: int) -> None:
        if not self._buffers:
            self._buffers = [host_array(PIECE_NBYTES, np.uint8) for _ in range(BUFFERS)]
            self._drained = [cupy.cuda.Event(disable_timing=True) for _ in range(BUFFERS)]
        self._turn = (self._turn + 1) % BUFFERS
        buffer, drained = self._buffers[self._turn], self._drained[self._turn]
        self._health.wait(drained, "an upload")
        began = time.perf_counter()
        with self._health.unlocked():
            copy_together(buffer, piece)
        if self.trace:
            self.trace.packed(chunk, began, time.perf_counter())
        self._copy(target, buffer[: piece.size], stream, chunk)
        drained.record(stream)

    def _copy(self, target: int, source: np.ndarray, stream: Any, chunk: int) -> None:
        with self.trace.span("upload", chunk, stream) if self.trace else nullcontext():
            copy_async(target, source.ctypes.data, source.nbytes, stream)

    def close(self) -> None:
        """Gives the buffers back."""
        self._buffers.clear()


def copy_together(target: np.ndarray, source: np.ndarray) -> None:
    """Copies bytes to the front of `target` with several cores, the interpreter left to others."""
    writer = pa.FixedSizeBufferWriter(pa.py_buffer(target))
    writer.set_memcopy_threads(PACKERS)
    writer.set_memcopy_threshold(ALONE_NBYTES)
    writer.write(pa.py_buffer(source))


def copy_async(target: int, source: int, nbytes: int, stream: Any, *, down: bool = False) -> None:
    """One asynchronous copy between addresses, to the device or `down` from it; host ends should be pinned."""
    if nbytes:
        kind = runtime.memcpyDeviceToHost if down else runtime.memcpyHostToDevice
        runtime.memcpyAsync(target, source, nbytes, kind, stream.ptr)
