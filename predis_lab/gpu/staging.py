"""Host bytes on their way to the device: straight from pinned memory, or through pinned buffers that several cores fill
while the link empties them. Called by `pipeline`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue
from typing import Any

import cupy
import numpy as np

from ..columns import Column
from .copies import copy_async, copy_together
from .health import Health
from .moving import uploaded
from .packed import padded
from .pinned import host_array, is_pinned
from .ring import Rows, upload_nbytes
from .sizing import BUFFER_NBYTES, PACKERS
from .tracing import Trace

AHEAD = 2  # parts packed before they are asked for
BUFFERS = AHEAD + 2  # one being sent, one that the link has yet to empty
MOST_ARRAYS = 4  # of a part: data and offsets of keys and values
PIECE_NBYTES = 4 * 2**20  # of what is sent without being cut into chunks


@dataclass
class Part:
    """Consecutive rows of a call's columns, in memory that copies start from.

    columns, bases:  these rows of each column; where its `data` begins, as its offsets have it
    first:           their first row in the call
    pieces:          what they are made up of, rows of the call
    buffer:          where they lie if they were packed, and the event that tells when the device has read them
    """

    columns: Sequence[Column]
    bases: Sequence[int]
    first: int
    pieces: Iterable[Rows]
    buffer: tuple[np.ndarray, Any] | None = None


class Staging:
    """Columns from any host memory, for any thread.

    packers:  cores that copy together
    trace:    where each packing is noted; None as a rule
    """

    def __init__(self, health: Health):
        self._health = health
        self._packer = ThreadPoolExecutor(1, "predis-pack", cupy.cuda.Device().use)
        self._copiers = ThreadPoolExecutor(MOST_ARRAYS - 1, "predis-copy")
        self._buffers: SimpleQueue[tuple[np.ndarray, Any]] = SimpleQueue()
        for _ in range(BUFFERS):  # their memory comes with the first use
            self._buffers.put((np.empty(0, np.uint8), cupy.cuda.Event(disable_timing=True)))
        self.packers = PACKERS
        self.trace: Trace | None = None

    def parts(
        self, columns: Sequence[Column], pieces: Iterable[Rows], stream: Any
    ) -> Generator[Part, None, None]:
        """The columns' pieces, as many at once as a buffer holds; all at once where they lie in pinned memory.

        Copies from a part have to be on `stream` when the next one is asked for. Pinned memory must stay unchanged until
        they are done; pageable memory has been read at the end, or when the iterator has been closed.
        """
        if all(map(_is_pinned, columns)):
            yield Part(columns, [0] * len(columns), 0, pieces)
            return
        runs, packing = enumerate(_runs(columns, pieces)), deque[Future[Part]]()
        try:
            part = None
            for first in islice(runs, 1):
                # Packed here, beside the others: there is nothing to be done meanwhile. Its buffer is taken before they may
                # take theirs, lest callers wait for one another's.
                taken = self._take()
                self._pack_ahead(columns, runs, packing)
                part = self._pack(columns, *first, taken)
            while part is not None:
                self._pack_ahead(columns, runs, packing)
                try:
                    yield part
                finally:
                    self._give_back(part, stream)
                part = packing.popleft().result() if packing else None
        finally:
            for one in packing:
                one.cancel()
            wait(packing)
            for one in packing:
                if not one.cancelled() and one.exception() is None:
                    self._give_back(one.result(), stream)

    def upload(self, source: np.ndarray, target: int, stream: Any) -> None:
        """Copies a contiguous array to a device address, in order on the stream: its memory as that of `parts`."""
        data = Column(source.reshape(-1).view(np.uint8), None, 1, source.nbytes)
        steps = range(0, source.nbytes, PIECE_NBYTES)
        pieces = ((at, min(at + PIECE_NBYTES, source.nbytes)) for at in steps)
        for part in self.parts([data], pieces, stream):
            held = part.columns[0].data
            copy_async(target + part.first, held.ctypes.data, held.nbytes, stream)

    def _pack_ahead(
        self,
        columns: Sequence[Column],
        runs: Iterator[tuple[int, list[Rows]]],
        packing: deque[Future[Part]],
    ) -> None:
        for run in islice(runs, AHEAD - len(packing)):
            packing.append(self._packer.submit(self._pack, columns, *run))

    def _take(self) -> tuple[np.ndarray, Any]:
        with self._health.unlocked():  # who has the buffers may need the lock to go on
            return self._buffers.get()

    def _pack(
        self,
        columns: Sequence[Column],
        number: int,
        run: Sequence[Rows],
        taken: tuple[np.ndarray, Any] | None = None,
    ) -> Part:
        first, stop = run[0][0], run[-1][1]
        nbytes, used = upload_nbytes(columns, first, stop), 0
        copies: list[tuple[np.ndarray, np.ndarray]] = []
        buffer, drained = taken or self._take()

        def copy(source: np.ndarray) -> np.ndarray:
            nonlocal used
            target = buffer[used : used + source.nbytes]
            used += padded(source.nbytes)
            copies.append((target, source))
            return target

        try:
            self._health.wait(drained, "an upload")
            began = time.perf_counter()
            with self._health.unlocked():
                if buffer.size < nbytes:
                    buffer = host_array(max(nbytes, BUFFER_NBYTES), np.uint8)
                packed = [uploaded(column[first:stop], copy) for column in columns]
                self._copy_all(copies)
            if self.trace:
                self.trace.packed(number, began, time.perf_counter())
        except BaseException:
            self._buffers.put((buffer, drained))
            raise
        parts, bases = zip(*packed, strict=True)
        return Part(parts, bases, first, run, (buffer, drained))

    def _copy_all(self, copies: list[tuple[np.ndarray, np.ndarray]]) -> None:
        """Fills (target, source) all at once: for one after the other the cores would have to be woken each time."""
        copies.sort(key=lambda copy: copy[1].nbytes)
        packers = self.packers
        others = [self._copiers.submit(copy_together, *one, packers) for one in copies[:-1]]
        try:
            copy_together(*copies[-1], packers)
        finally:
            wait(others)
        for copying in others:
            copying.result()

    def _give_back(self, part: Part, stream: Any) -> None:
        assert part.buffer is not None
        part.buffer[1].record(stream)
        self._buffers.put(part.buffer)

    def close(self) -> None:
        """Ends the threads that pack."""
        self._packer.shutdown()
        self._copiers.shutdown()


def _is_pinned(column: Column) -> bool:
    return is_pinned(column.data) and (column.offsets is None or is_pinned(column.offsets))


def _runs(columns: Sequence[Column], pieces: Iterable[Rows]) -> Iterator[list[Rows]]:
    """Pieces that follow one another and fit into a buffer: first one alone, then about twice as much each time."""
    run: list[Rows] = []
    most = 0
    for first, stop in pieces:
        if run and upload_nbytes(columns, run[0][0], stop) > most:
            most = min(BUFFER_NBYTES, 2 * upload_nbytes(columns, run[0][0], first))
            yield run
            run = []
        run.append((first, stop))
    if run:
        yield run
