"""Batches between host memory and the table: chunks through a ring of device buffers, so that packing, upload, kernel and
download of neighbouring chunks overlap. Called by `engine`.

A stream for each way of the link and one for the kernels are all the overlap there is to be had: a chunk's upload, kernel
and download follow one another by events, and each engine works through its own queue. Lookups and inserts upload on
streams of their own, lest a few keys wait behind many records. Answers are copied
straight into pinned memory that becomes the returned array.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import cupy
import numpy as np
from cupy.cuda.runtime import CUDARuntimeError

from ..columns import Column
from ..errors import DeviceTimeout
from .answer import Answer
from .batch import Batch
from .memory import device_bytes, on_device
from .moving import rebase, uploaded
from .packed import Packed
from .pinned import host_array, pinned
from .ring import BITMAP_ROWS, DEPTH, Chunk, Ring, pieces, ring_nbytes
from .staging import copy_async
from .table import DeviceTable
from .tracing import Interval, Trace

__all__ = ["Interval", "Pipeline", "Transfers"]

SPLIT_NBYTES = 2**29  # answers longer than expected come in halves from here on


@dataclass
class Transfers:
    """What has crossed the link in bulk calls; times in seconds of the host's clock."""

    calls: int = 0
    uploaded_nbytes: int = 0
    downloaded_nbytes: int = 0
    busy_s: float = 0.0
    peak_bandwidth: float = 0.0  # bytes per second, both ways together, of the best call


class Pipeline:
    """Bulk calls on a table.

    stream:  on which the table's kernels run
    """

    def __init__(self, table: DeviceTable, stream: Any, capacity_nbytes: int):
        self.table, self.health, self.stream = table, table.health, stream
        self.transfers = Transfers()
        self.trace: Trace | None = None
        self._borrowed: list[tuple[Any, np.ndarray]] = []
        self.writing = threading.Lock()  # one writer at a time, for as long as its call takes
        self._down = cupy.cuda.Stream(non_blocking=True)
        up, down = ring_nbytes(capacity_nbytes)
        self._reader, self._writer = (
            Ring(up, down, self.health),
            Ring(down, 0, self.health),
        )

    @staticmethod
    def nbytes(capacity_nbytes: int) -> int:
        """Device bytes that a pipeline's buffers take."""
        up, down = ring_nbytes(capacity_nbytes)
        return DEPTH * (up + 2 * down)

    # ---- Reading

    def find(self, keys: Column, now_ms: int) -> Column:
        """The values of n keys in host memory, in pinned memory."""
        answer = Answer(len(keys), self.health, self._down)

        def launch(chunk: Chunk) -> None:
            slot, room = chunk.slot, chunk.slot.down.size - Packed.head_nbytes(chunk.rows)
            chunk.answer = self.table.find(
                chunk.columns[0],
                now_ms,
                new=lambda nbytes: slot.down[:nbytes],
                capacity=room,
                count=slot.count,
            )

        def collect(chunk: Chunk) -> int:
            if chunk.answer.total > len(chunk.answer.data):
                column, total = chunk.columns[0], chunk.answer.total
                return self._bring_long(answer, column, chunk.first, total, now_ms)
            return answer.add(chunk.first, chunk.answer)

        self._read(keys, self._expected_nbytes(), launch, collect, answer, note_at_ms=now_ms)
        return answer.column()

    def per_key(self, keys: Column, dtype: Any, fill: Callable[[Column, Any], None]) -> np.ndarray:
        """One answer of `dtype` per key in host memory, written by `fill(column, answers)`."""
        result = host_array(len(keys), dtype)

        def launch(chunk: Chunk) -> None:
            chunk.answer = chunk.slot.down[: chunk.rows * result.itemsize].view(dtype)
            fill(chunk.columns[0], chunk.answer)

        def collect(chunk: Chunk) -> int:
            target = result[chunk.first : chunk.stop]
            source = chunk.answer.data.ptr
            copy_async(target.ctypes.data, source, target.nbytes, self._down, down=True)
            return target.nbytes

        self._read(keys, result.itemsize, launch, collect, result)
        return result.view(np.ndarray)

    def _read(
        self,
        keys: Column,
        answer_nbytes: float,
        launch: Callable[[Chunk], None],
        collect: Callable[[Chunk], int],
        keep: Any,
        *,
        note_at_ms: int | None = None,
    ) -> None:
        """Chunks of keys up, `launch`, and `collect`, which says how many bytes it brings; about answer_nbytes a key.

        note_at_ms: when the keys count as read
        """
        ring, sent, asked = self._reader, deque[Chunk](), deque[Chunk]()
        most = int(ring.down_nbytes / (answer_nbytes + 1))

        def ask() -> None:
            chunk = sent.popleft()
            self._await(chunk)
            with self.health.lock, self.stream, self._span("kernel", chunk.number, self.stream):
                launch(chunk)
            chunk.slot.computed.record(self.stream)
            asked.append(chunk)

        def finish() -> None:
            chunk = asked.popleft()
            self.health.wait(chunk.slot.computed, "a lookup")
            with self._span("download", chunk.number, self._down):
                ring.brought_nbytes += collect(chunk)
            chunk.slot.done.record(self._down)
            if note_at_ms is not None and self.table.tiers.holds:
                with self.health.lock:
                    self.note_read(chunk.columns[0], note_at_ms, self.stream)
                chunk.slot.noted.record(self.stream)

        with (
            self.health.holding(ring.busy),
            self.health.unlocked(),
            self._measured(ring),
            self._kept(ring, keep, keys),
        ):
            for number, (first, stop) in enumerate(pieces([keys], ring.up_nbytes, most)):
                chunk = Chunk(number, first, stop, ring.next(self.health, "a download"))
                self._send(ring, [keys], chunk)
                sent.append(chunk)
                while sent and (len(sent) >= 2 or sent[0].slot.uploaded.done):
                    ask()
                while asked and (len(asked) >= 2 or asked[0].slot.computed.done):
                    finish()
            while sent:
                ask()
            while asked:
                finish()
            self.health.wait(self._down, "a download")

    def note_read(self, keys: Column, now_ms: int, stream: AbstractContextManager) -> bool:
        """Tells the tiers of keys in memory that the device reaches; whether it did.

        What they then move is a write: where another writer is at work, these keys are not noted.
        """
        if not self.table.tiers.holds or not self.writing.acquire(blocking=False):
            return False
        try:
            with stream:
                self.table.tiers.read(keys, now_ms)
        finally:
            self.writing.release()
        return True

    def _bring_long(
        self, answer: Answer, column: Column, first: int, total: int, now_ms: int
    ) -> int:
        """The answers of a chunk that turned out longer than its buffer: in memory of their own, and in halves."""
        if total > SPLIT_NBYTES and len(column) > BITMAP_ROWS:
            middle = max(BITMAP_ROWS, len(column) // 2 // BITMAP_ROWS * BITMAP_ROWS)
            brought = 0
            for part, at in ((column[:middle], first), (column[middle:], first + middle)):
                total = self._look_up(part, 0, now_ms).total
                brought += self._bring_long(answer, part, at, total, now_ms)
            return brought
        packed = self._look_up(column, total, now_ms)
        if packed.total > total:  # other values by now
            return self._bring_long(answer, column, first, packed.total, now_ms)
        brought = answer.add(first, packed)
        self.health.wait(self._down, "a download")
        return brought

    def _look_up(self, column: Column, nbytes: int, now_ms: int) -> Packed:
        count = pinned(1, np.uint64)
        with self.health.lock, self.stream:
            packed = self.table.find(column, now_ms, new=device_bytes, capacity=nbytes, count=count)
        self.health.wait(self.stream, "a lookup")
        return packed

    def _expected_nbytes(self) -> float:
        """Of one answer to a lookup, offset and bit included."""
        table = self.table
        if table.uniform_nbytes is not None:
            return table.uniform_nbytes + 4.125
        return 1.25 * table.live_nbytes / max(table.entries, 1) + 4.125

    # ---- Writing

    def insert(self, keys: Column, values: Column, expire_at_ms: int, now_ms: int) -> np.ndarray:
        """A status per record of columns in host memory. The caller holds `writing`."""
        ring, staged, result = self._writer, deque[Chunk](), host_array(len(keys), np.int8)
        with self.stream:
            status = on_device(len(keys), np.int8)
            batch = self.table.begin(keys, values, now_ms)

        def store() -> None:
            chunk = staged.popleft()
            self._await(chunk)
            with self.health.lock, self.stream, self._span("kernel", chunk.number, self.stream):
                keys_up, values_up = chunk.columns
                self.table.append(batch, keys_up, values_up, expire_at_ms, now_ms, status)
            chunk.slot.done.record(self.stream)

        with self._measured(ring), self._kept(ring, result, keys, values, status):
            with self._ended(batch), self.health.unlocked():
                steps = pieces([keys, values], ring.up_nbytes, len(keys), step=1)
                for number, (first, stop) in enumerate(steps):
                    chunk = Chunk(number, first, stop, ring.next(self.health, "a write"))
                    self._send(ring, [keys, values], chunk)
                    staged.append(chunk)
                    while staged and (len(staged) >= DEPTH - 1 or staged[0].slot.uploaded.done):
                        store()
                while staged:
                    store()
            copy_async(result.ctypes.data, status.data.ptr, result.nbytes, self.stream, down=True)
            ring.brought_nbytes += result.nbytes
            self.health.wait(self.stream, "a download")
        return result.view(np.ndarray)

    @contextmanager
    def _ended(self, batch: Batch) -> Iterator[None]:
        """Seals a batch, and gives back what it has not used of the log, whatever happens."""
        try:
            yield
        finally:
            with self.stream:
                self.table.end(batch)
            for slot in self._writer.slots:  # where a seal finds its keys
                slot.done.record(self.stream)

    # ---- Both

    def _send(self, ring: Ring, columns: Sequence[Column], chunk: Chunk) -> None:
        """Starts the upload of the chunk's rows of each column."""

        def up(source: np.ndarray) -> Any:
            target = chunk.slot.take(source.nbytes)
            ring.staging.upload(source, target.data.ptr, ring.stream, chunk.number)
            return target

        with ring.stream:
            parts = [uploaded(column[chunk.first : chunk.stop], up) for column in columns]
        chunk.columns, chunk.starts = [list(side) for side in zip(*parts, strict=True)]
        chunk.slot.uploaded.record(ring.stream)

    def _await(self, chunk: Chunk) -> None:
        """Waits until the chunk is on the device; on the kernels' stream others' kernels would be kept waiting too."""
        self.health.wait(chunk.slot.uploaded, "an upload")
        with self.stream:
            for column, start in zip(chunk.columns, chunk.starts, strict=True):
                rebase(column, start)

    def upload(self, source: np.ndarray, target: int, stream: Any) -> None:
        """Copies host memory to a device address, for calls that are not in chunks: `Staging.upload`."""
        self._reader.staging.upload(source, target, stream)
        # Pinned memory is read later: the caller may have let go of it by then.
        self._borrowed = [(read, memory) for read, memory in self._borrowed if not read.done]
        self._borrowed.append((stream.record(cupy.cuda.Event(disable_timing=True)), source))

    def _span(self, stage: str, chunk: int, stream: Any) -> AbstractContextManager:
        return nullcontext() if self.trace is None else self.trace.span(stage, chunk, stream)

    @contextmanager
    def _measured(self, ring: Ring) -> Iterator[None]:
        """Counts a call and what it moves."""
        transfers, began = self.transfers, time.perf_counter()
        sent, brought = ring.staging.sent_nbytes, ring.brought_nbytes
        yield
        seconds = time.perf_counter() - began
        sent, brought = ring.staging.sent_nbytes - sent, ring.brought_nbytes - brought
        with self.health.lock:
            transfers.calls += 1
            transfers.uploaded_nbytes += sent
            transfers.downloaded_nbytes += brought
            transfers.busy_s += seconds
            transfers.peak_bandwidth = max(transfers.peak_bandwidth, (sent + brought) / seconds)

    @contextmanager
    def _kept(self, ring: Ring, *used: Any) -> Iterator[None]:
        """Whatever fails, the device is done with what a call used before anybody else gets it."""
        try:
            yield
        except BaseException as error:
            self.health.kept.extend(used)
            if not isinstance(error, DeviceTimeout):
                with suppress(
                    CUDARuntimeError
                ):  # where nothing works any more, nothing is written either
                    for stream in (ring.stream, self.stream, self._down):
                        self.health.wait(stream, "what was under way")
                self.health.kept.clear()
            raise

    @contextmanager
    def traced(self) -> Iterator[list[Interval]]:
        """The intervals of all bulk calls made inside, there when the block is left."""
        found: list[Interval] = []
        self.trace = Trace()
        stagings = [ring.staging for ring in (self._reader, self._writer)]
        for staging in stagings:
            staging.trace = self.trace
        try:
            yield found
            found.extend(self.trace.intervals())
        finally:
            self.trace = None
            for staging in stagings:
                staging.trace = None

    def close(self) -> None:
        """Gives the buffers back."""
        for ring in (self._reader, self._writer):
            ring.staging.close()
            ring.slots.clear()
