"""Calls that a launch or a few serve: a few keys in mapped pinned memory, or columns that lie on the device. Called by `engine`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import cupy
import numpy as np

from ..columns import Column
from ..errors import DeviceTimeout, PinnedMemoryUnavailable
from . import appending
from .batch import Batch, rows_that_fit, stored_in_part
from .column_kernels import lay_out
from .copies import copy_async
from .mapped import Block, Lookup, MappedColumn, mapped_nbytes
from .memory import REFUSALS, device_bytes, on_device
from .moving import rebase, uploaded
from .packed import INT32_MAX, Packed, padded
from .pinned import host_array, pinned
from .pipeline import Pipeline
from .sizing import ALONE_NBYTES, BRIEF_ROWS
from .table import DeviceTable

CHUNK_NBYTES = 2**29  # of records, per launch of an insert of columns on the device
CHUNK_ROWS = 2**24
# Of keys on the host: a kernel reads fewer across the link in less time than it takes to copy them first.
NEAR_NBYTES = 2**16


class Launched:
    """A table's calls on mapped memory, on the engine's stream, and on device columns, on the current one."""

    def __init__(self, table: DeviceTable, pipeline: Pipeline):
        self.table, self.pipeline, self.health = table, pipeline, table.health
        self._stream = pipeline.stream
        self._read_last: Column | None = None
        self._borrowed: deque[tuple[Any, Any]] = deque()
        self._events: list[Any] = []  # that have happened

    def guess_nbytes(self, n: int) -> int:
        """Bytes to have ready for n values: the most there can be, or where values differ much twice the mean."""
        table, most = self.table, self.table.find_nbytes(n)
        if most <= 2**26 or (table.uniform_nbytes is not None and most <= INT32_MAX):
            return most
        return int(
            min(most, max(2**26, 2 * n * table.live_nbytes / max(table.entries, 1)), INT32_MAX)
        )

    def find(self, keys: Column, now_ms: int, guess: int) -> Lookup | None:
        """The values of host keys, answered; None where it is no small call after all."""
        try:
            call = self.table.look_up(keys, guess, now_ms, self._stream)
        except PinnedMemoryUnavailable:
            return None
        call.prepare()
        try:
            self.health.wait(self._stream, "a lookup", brief=True)
        except DeviceTimeout:
            self.health.kept.append(call)  # which it may still use
            raise
        self._has_read(call.keys, now_ms, self._stream)
        return call if call.total <= call.capacity else None

    def find_on_device(self, keys: Column, now_ms: int) -> Packed:
        """The values on the device, of keys in any memory."""
        return self._bring(self._near(keys), now_ms)

    def _bring(self, keys: Column, now_ms: int) -> Packed:
        guess = self.guess_nbytes(len(keys))
        packed = self.table.find(keys, now_ms, new=device_bytes, capacity=guess)
        # Where the guess is the most there can be, nothing needs to be waited for.
        if guess < self.table.find_nbytes(len(keys)) and packed.total > guess:
            packed = self.table.find(keys, now_ms, new=device_bytes, capacity=packed.total)
        self._has_read(keys, now_ms, nullcontext())
        self._borrow(keys)
        return packed

    def find_rows(self, keys: Column, width: int, now_ms: int) -> tuple[Any, Any]:
        """Values of `width` bytes as rows on the device, and which keys have one; see `DeviceEngine.find_rows`."""
        near = self._near(keys)
        answer = self.table.find_rows(near, width, now_ms)
        if answer is None:
            return lay_out(self._bring(near, now_ms).column, width)
        self._has_read(near, now_ms, nullcontext())
        self._borrow(near)
        return answer

    def _near(self, keys: Column) -> Column:
        """Keys where kernels on the current stream reach them: on the device, or a few of them in pinned memory.

        Tiers keep what they are told of for longer.
        """
        small = not keys.on_device and keys.nbytes <= NEAR_NBYTES
        if small and not self.table.tiers.host.capacity:
            with suppress(PinnedMemoryUnavailable):
                return Block.of(keys)[0]
        return self.on_device(keys)

    def _borrow(self, keys: Column) -> None:
        """Keeps keys in pinned memory until what the current stream was told so far is done."""
        if not keys.on_device:
            self._keep(keys, cupy.cuda.get_current_stream())

    def _keep(self, memory: Any, stream: Any) -> None:
        borrowed, events = self._borrowed, self._events
        while borrowed and borrowed[0][0].done:
            events.append(borrowed.popleft()[0])
        read = events.pop() if events else cupy.cuda.Event(disable_timing=True)
        read.record(stream)
        borrowed.append((read, memory))

    def _has_read(self, keys: Column, now_ms: int, stream: AbstractContextManager) -> None:
        """Tells the tiers what was looked up, once the answer is there: nobody waits for what they do with it."""
        if self.pipeline.note_read(keys, now_ms, stream):
            # Keys in pinned memory have to last until a later lookup has waited for the stream.
            self._read_last = None if keys.on_device else keys

    def per_key(
        self, keys: Column, dtype: np.dtype, fill: Callable[[Column, Any], None]
    ) -> np.ndarray:
        """One answer of `dtype` per key, written by `fill(column, answers)`, an array or an address."""
        n = len(keys)
        if keys.on_device:
            answers = on_device(n, dtype)
            for row in range(0, n, CHUNK_ROWS):
                fill(keys[row : row + CHUNK_ROWS], answers[row : row + CHUNK_ROWS])
            return self._brought(answers)
        block = Block(mapped_nbytes(keys) + padded(n * dtype.itemsize))
        asked, begin = MappedColumn(keys, block), block.take(n * dtype.itemsize)
        try:
            with self._stream:
                if n:
                    fill(asked, block.at + begin)
            self.health.wait(self._stream, "a lookup", brief=True)
        except DeviceTimeout:
            self.health.kept.append(block)  # which it may still use
            raise
        return np.frombuffer(block.view, dtype, n, begin).copy()

    def _brought(self, answers: Any) -> np.ndarray:
        """A device array on the host, once the current stream has passed; others get through meanwhile."""
        stream, result = cupy.cuda.get_current_stream(), host_array(len(answers), answers.dtype)
        copy_async(result.ctypes.data, answers.data.ptr, result.nbytes, stream, down=True)
        try:
            self.health.wait(stream, "an answer", brief=len(answers) <= BRIEF_ROWS)
        except DeviceTimeout:
            self.health.kept += answers, result  # which it may still use
            raise
        return result.view(np.ndarray)

    def scan(self, first: int, n: int, now_ms: int) -> Column:
        """The keys in n slots from slot `first` on, in host memory."""
        capacity = 0
        while True:
            with self._stream:
                packed = self.table.scan(first, n, now_ms, capacity)
            self.health.wait(self._stream, "a scan")
            if packed.total <= capacity:
                return Column.of(packed.column.to_arrow().drop_null())
            capacity = packed.total

    def insert(self, keys: Column, values: Column, expire_at_ms: int, now_ms: int) -> np.ndarray:
        """A status per record. Host columns are mapped, unless either is on the device: then both go there."""
        if keys.on_device or values.on_device:
            status = on_device(len(keys), np.int8)
            records = keys, values, expire_at_ms, now_ms, status
            batch, failure = self._append(*records, lambda *pair: [*map(self.on_device, pair)])
            return stored_in_part(self._brought(status), batch, failure)
        status, used = pinned(len(keys), np.int8), list[Any]()

        def reach(*pair: Column) -> list[MappedColumn]:
            # With checksums nobody may read between a batch's first record and its seal.
            nbytes = 0 if self.table.checksums else sum(column.nbytes for column in pair)
            with self.health.unlocked() if nbytes > ALONE_NBYTES else nullcontext():
                copies = Block.of(*pair)
            used.extend(copies)
            self._send(copies)
            return copies

        try:
            with self._stream:
                batch, failure = self._append(keys, values, expire_at_ms, now_ms, status, reach)
            self.health.wait(self._stream, "a write", brief=True)  # a seal reads the keys
        except DeviceTimeout:
            self.health.kept += *used, status  # which it may still use
            raise
        return stored_in_part(np.array(status), batch, failure)

    def _append(
        self,
        keys: Column,
        values: Column,
        expire_at_ms: int,
        now_ms: int,
        status: Any,
        reach: Callable[[Column, Column], list[Any]],
    ) -> tuple[Batch, Exception | None]:
        """Stores a batch on the current stream; what was refused on the way, where some had been stored.

        reach: columns where kernels reach them
        """
        table, n, row, failure = self.table, len(keys), 0, None
        batch = appending.begin(table, keys, values, now_ms)
        try:
            while row < n:
                stop = row + max(rows_that_fit(keys, values, row, n, CHUNK_NBYTES), 1)
                stop = min(stop, row + CHUNK_ROWS)
                keys_there, values_there = reach(keys[row:stop], values[row:stop])
                records = keys_there, values_there, expire_at_ms, now_ms
                appending.append(table, batch, *records, status)
                row = stop
        except REFUSALS as error:
            if not batch.row:
                raise
            failure = error
        finally:
            appending.end(table, batch)
        return batch, failure

    def _send(self, columns: list[MappedColumn]) -> None:
        """Copies many bytes to the device, where kernels then read them: across the link they would take thrice as long.

        To where the pipeline's records go: of those who write, one is at work.
        """
        block, pipeline = columns[0].block, self.pipeline
        memory = pipeline.records.memory
        if NEAR_NBYTES < block.used <= memory.size:
            if pipeline.given_up:
                pipeline.records.drain(self.health)
                pipeline.given_up = False
            at = memory.data.ptr
            copy_async(at, block.at, block.used, self._stream)
            for column in columns:
                column.read_at(at)

    def on_device(self, column: Column) -> Column:
        """The column on the device, copied on the current stream."""
        if column.on_device:
            return column
        stream = cupy.cuda.get_current_stream()

        def upload(source: np.ndarray) -> Any:
            target = device_bytes(source.nbytes)
            self.pipeline.staging.upload(source, target.data.ptr, stream)
            # If it is pinned, that is read when the caller may have let go of it.
            self._keep(source, stream)
            return target

        copy, start = uploaded(column, upload)
        rebase(copy, start)
        return copy
