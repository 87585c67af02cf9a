"""Batches between host memory and the table: chunks through rings of device buffers, so that packing, upload, kernel and
download of neighbouring chunks overlap. Called by `engine`.

A stream for each way of the link and one for the kernels are all the overlap there is to be had: a chunk's upload, kernel
and download follow one another by events, and each engine works through its own queue. Lookups and inserts share them: a
copy engine goes on with one stream for as long as that has something to copy, so that on streams of their own a few keys
would stand still until somebody's last record is up. Keys go up well before they are looked up, for the answers to many of
them come down, and what others upload may come first. Answers are copied straight into pinned memory that becomes the
returned array.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from typing import Any

import cupy
import numpy as np
import pyarrow as pa

from ..columns import Column
from ..errors import DeviceTimeout
from . import appending
from .answer import Answer
from .batch import Batch, stored_in_part
from .copies import copy_async
from .health import Turns
from .memory import REFUSALS, device_bytes, on_device
from .moving import rebase, uploaded
from .packed import Packed
from .pinned import host_array, pinned, pool
from .ring import (
    BITMAP_ROWS,
    DEPTH,
    KEYS_SHARE,
    Chunk,
    Ring,
    Sizes,
    Upload,
    even_rows,
    pieces,
    share_of,
)
from .sizing import UPLOADS_AHEAD
from .stages import Setting
from .staging import Part, Staging
from .table import DeviceTable
from .tracing import Interval, Trace
from .transfers import Moved, Transfers, measured

SPLIT_NBYTES = 2**29  # answers longer than expected come in halves from here on


class Pipeline:
    """Bulk calls on a table. memory: uint8, on the device: where the buffers lie, of these sizes.

    stream:       on which the table's kernels run
    room_nbytes:  of a ring of answers or records; as much as its buffers have together
    records:      that ring of records; `launched` has its own lie there
    given_up:     whether the last call that failed was, so that uploads may still be on their way into it
    """

    def __init__(self, table: DeviceTable, stream: Any, memory: Any, sizes: Sizes):
        self.table, self.health, self.stream = table, table.health, stream
        self.transfers = Transfers()
        self.trace: Trace | None = None
        self.given_up = False
        self.writing = Turns()  # one writer at a time, for as long as its call takes
        self._up, self._down = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
        self.room_nbytes = DEPTH * sizes.chunk
        answers, records = DEPTH * sizes.keys, DEPTH * (sizes.keys + sizes.chunk)
        self._keys = Ring(memory[:answers], "an upload", "a lookup")
        self.answers = Ring(memory[answers:records], "a lookup", "a download")
        self.records = Ring(memory[records : sizes.rings], "an upload", "a write")
        self.reading = threading.Lock()
        self.staging = Staging(self.health)

    # ---- Reading

    def find(self, keys: Column, now_ms: int, setting: Setting) -> pa.Array:
        """The values of n keys in host memory, in pinned memory."""
        answer = Answer(len(keys), self.health, self._down)

        def launch(chunk: Chunk) -> None:
            memory = chunk.buffer.memory
            chunk.answer = self.table.find(
                chunk.keys,
                now_ms,
                new=lambda nbytes: memory[:nbytes],
                capacity=memory.size - Packed.head_nbytes(chunk.rows),
                count=chunk.buffer.count,
            )
            chunk.sized = chunk.answer.full

        def collect(chunk: Chunk) -> int:
            if chunk.answer.total > len(chunk.answer.data):
                total = chunk.answer.total
                return self._bring_long(answer, chunk.keys, chunk.first, total, now_ms)
            answer.count(setting.depth)  # the chunk before those had this one's buffer
            return answer.add(chunk.first, chunk.answer)

        width = self._expected_nbytes()
        self._read(keys, width, launch, collect, answer, setting, note_at_ms=now_ms)
        return answer.array()

    def per_key(
        self, keys: Column, dtype: Any, fill: Callable[[Column, Any], None], setting: Setting
    ) -> np.ndarray:
        """One answer of `dtype` per key in host memory, written by `fill(column, answers)`."""
        result = host_array(len(keys), dtype)

        def launch(chunk: Chunk) -> None:
            chunk.answer = chunk.buffer.memory[: chunk.rows * result.itemsize].view(dtype)
            fill(chunk.keys, chunk.answer)
            chunk.sized = True

        def collect(chunk: Chunk) -> int:
            target = result[chunk.first : chunk.stop]
            source = chunk.answer.data.ptr
            copy_async(target.ctypes.data, source, target.nbytes, self._down, down=True)
            return target.nbytes

        self._read(keys, result.itemsize, launch, collect, result, setting)
        return result.view(np.ndarray)

    def _read(
        self,
        keys: Column,
        answer_nbytes: float,
        launch: Callable[[Chunk], None],
        collect: Callable[[Chunk], int],
        keep: Any,
        setting: Setting,
        *,
        note_at_ms: int | None = None,
    ) -> None:
        """Chunks of keys up, `launch`, and `collect`, which says how many bytes it brings; about answer_nbytes a key.

        note_at_ms: when the keys count as read
        """
        asked, numbers = deque[Chunk](), itertools.count()

        def ask(upload: Upload, first: int) -> int:
            number, buffer = next(numbers), self.answers.next(self.health)
            most = self.answers.nbytes / (answer_nbytes + 1)
            stop = first + even_rows(upload.stop - first, share_of(number) * most)
            chunk = Chunk(number, first, stop, upload, buffer)
            with self.health.lock, self.stream, self._span("kernel", chunk.number, self.stream):
                launch(chunk)
            for event in (buffer.ready, upload.buffer.done):
                event.record(self.stream)
            asked.append(chunk)
            return stop

        def is_sized(chunk: Chunk) -> bool:
            # A copy to pageable memory would wait for its turn in the driver, however long that takes.
            return chunk.sized and not pool.refused

        def finish() -> None:
            chunk = asked.popleft()
            if is_sized(chunk):
                self._down.wait_event(chunk.buffer.ready)
            else:
                self.health.wait(chunk.buffer.ready, "a lookup")
            with self._span("download", chunk.number, self._down):
                moved.brought += collect(chunk)
            chunk.buffer.done.record(self._down)
            if note_at_ms is not None and self.table.tiers.holds:
                with self.health.lock:
                    self.note_read(chunk.keys, note_at_ms, self.stream)
                chunk.upload.buffer.done.record(self.stream)

        def look_up(upload: Upload) -> None:
            self._await(upload)
            first = upload.first
            while first < upload.stop:
                first = ask(upload, first)
                while asked and (
                    len(asked) >= 2 or is_sized(asked[0]) or asked[0].buffer.ready.done
                ):
                    finish()

        with (
            self.health.holding(self.reading),
            self.health.unlocked(),
            measured(self.transfers, self.health.lock) as moved,
            self._kept(keep, keys),
            closing(self._uploads(self._keys, [keys], BITMAP_ROWS, moved)) as uploads,
        ):
            self.staging.packers = setting.packers
            self._keys.shape(int(KEYS_SHARE * setting.chunk_nbytes), setting.depth, self.health)
            self.answers.shape(setting.chunk_nbytes, setting.depth, self.health)
            ahead, most_ahead = deque[Upload](), min(UPLOADS_AHEAD, setting.depth - 2)
            for upload in uploads:
                ahead.append(upload)
                if len(ahead) > min((upload.number + 3) // 4, most_ahead):  # the first one at once
                    look_up(ahead.popleft())
            while ahead:
                look_up(ahead.popleft())
            while asked:
                finish()
            self.answers.drain(self.health)

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

    def insert(
        self, keys: Column, values: Column, expire_at_ms: int, now_ms: int, setting: Setting
    ) -> np.ndarray:
        """A status per record of columns in host memory. The caller holds `writing`.

        raises: DeviceFailed, with the statuses where part of the batch has been stored
        """
        sent, result = deque[Upload](), host_array(len(keys), np.int8)
        self.staging.packers = setting.packers
        self.records.shape(setting.chunk_nbytes, setting.depth, self.health)
        with self.stream:
            status = on_device(len(keys), np.int8)
            batch = appending.begin(self.table, keys, values, now_ms)

        def store() -> None:
            upload = sent.popleft()
            self._await(upload)
            with self.health.lock, self.stream, self._span("kernel", upload.number, self.stream):
                keys_up, values_up = upload.columns
                records = keys_up, values_up, expire_at_ms, now_ms
                appending.append(self.table, batch, *records, status)
            upload.buffer.done.record(self.stream)

        failure: Exception | None = None
        with (
            measured(self.transfers, self.health.lock) as moved,
            self._kept(result, keys, values, status),
        ):
            with (
                self._ended(batch),
                self.health.unlocked(),
                closing(self._uploads(self.records, [keys, values], 1, moved)) as uploads,
            ):
                try:
                    for upload in uploads:
                        sent.append(upload)
                        while sent and (
                            len(sent) >= setting.depth - 1 or sent[0].buffer.ready.done
                        ):
                            store()
                    while sent:
                        store()
                except REFUSALS as error:
                    failure = error
                    with suppress(*REFUSALS):  # what is up already
                        while sent and sent[0].first == batch.row:
                            store()
                    if not batch.row:
                        raise
                    self.health.wait(self._up.record(), "what was under way")
            self._down.wait_event(self.stream.record())
            with self._span("download", 0, self._down):
                at = result.ctypes.data
                copy_async(at, status.data.ptr, result.nbytes, self._down, down=True)
            moved.brought += result.nbytes
            # Not for what lookups bring after it.
            self.health.wait(self._down.record(), "a download")
        return stored_in_part(result.view(np.ndarray), batch, failure)

    @contextmanager
    def _ended(self, batch: Batch) -> Iterator[None]:
        """Seals a batch, and gives back what it has not used of the log, whatever happens."""
        try:
            yield
        finally:
            with self.stream:
                appending.end(self.table, batch)
            self.records.record(self.stream)  # a seal finds its keys there

    # ---- Both

    def _uploads(
        self, ring: Ring, columns: Sequence[Column], step: int, moved: Moved
    ) -> Generator[Upload, None, None]:
        """The columns' `pieces`, each once it is on its way."""
        steps = pieces(columns, ring.nbytes, step)
        with closing(self.staging.parts(columns, steps, self._up)) as parts:
            rows = ((part, *piece) for part in parts for piece in part.pieces)
            for number, (part, first, stop) in enumerate(rows):
                upload = Upload(number, first, stop, ring.next(self.health))
                moved.sent += self._send(part, upload)
                yield upload

    def _send(self, part: Part, upload: Upload) -> int:
        """Starts the upload; its bytes."""
        sent = 0

        def up(source: np.ndarray) -> Any:
            nonlocal sent
            sent += source.nbytes
            target = upload.buffer.take(source.nbytes)
            with self._span("upload", upload.number, self._up):
                copy_async(target.data.ptr, source.ctypes.data, source.nbytes, self._up)
            return target

        first, stop = upload.first - part.first, upload.stop - part.first
        with self._up:
            sides = [
                uploaded(column[first:stop], up, base)
                for column, base in zip(part.columns, part.bases, strict=True)
            ]
        upload.columns, upload.starts = [list(side) for side in zip(*sides, strict=True)]
        upload.buffer.ready.record(self._up)
        return sent

    def _await(self, upload: Upload) -> None:
        """Waits until it is on the device; on the kernels' stream others' kernels would be kept waiting too."""
        self.health.wait(upload.buffer.ready, "an upload")
        with self.stream:
            for column, start in zip(upload.columns, upload.starts, strict=True):
                rebase(column, start)

    def _span(self, stage: str, chunk: int, stream: Any) -> AbstractContextManager:
        return nullcontext() if self.trace is None else self.trace.span(stage, chunk, stream)

    @contextmanager
    def _kept(self, *used: Any) -> Iterator[None]:
        """Whatever fails, the device is done with what a call used before anybody else gets it."""
        try:
            yield
        except BaseException as error:
            self.health.kept.extend(used)
            self.given_up = isinstance(error, DeviceTimeout)
            if not self.given_up:
                with suppress(*REFUSALS):  # where nothing works any more, nothing is written either
                    for stream in (self._up, self.stream, self._down):
                        self.health.wait(stream, "what was under way")
                self.health.kept.clear()
            raise

    @contextmanager
    def traced(self) -> Iterator[list[Interval]]:
        """The intervals of all bulk calls made inside, there when the block is left."""
        found: list[Interval] = []
        self.trace = self.staging.trace = Trace()
        try:
            yield found
            found.extend(self.trace.intervals())
        finally:
            self.trace = self.staging.trace = None

    def close(self) -> None:
        """Gives the buffers back."""
        self.staging.close()
        for ring in (self._keys, self.answers, self.records):
            ring.close()
