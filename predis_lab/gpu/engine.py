"""DeviceEngine: the Table protocol on a GPU. Moves columns across the link and chooses the way for each call.

Small calls read keys from and write answers to mapped pinned memory inside the one kernel they launch; larger
ones are copied to the device and back. Results land in pinned memory that becomes the returned array itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import cupy
import numpy as np
import pyarrow as pa

from ..columns import MAX_KEY_NBYTES, MAX_VALUE_NBYTES, Column
from ..errors import DeviceUnavailable
from ..table import Status
from . import usage
from .device import Device
from .maintenance import compact_step
from .memory import Stage, download, on_device, pinned
from .packed import INT32_MAX, Packed
from .table import DeviceTable, rows_that_fit

# A call with less traffic than this, both ways together, goes through mapped memory.
SMALL_NBYTES = 2**18
CHUNK_NBYTES = 2**29  # of records, per launch of an insert
CHUNK_ROWS = 2**24
# Per step of a scan at least: a launch costs more than reading a few thousand slots.
SCAN_SLOTS = 2**14


def check_device() -> None:
    """Raises DeviceUnavailable with the reason where no CUDA device answers."""
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise DeviceUnavailable(f"no CUDA device answers: {error}") from error
    if count == 0:
        raise DeviceUnavailable("no CUDA device answers: the driver counts none")


class DeviceEngine:
    """A table of `capacity_nbytes` on the current device; see `Table` for the verbs."""

    def __init__(self, capacity_nbytes: int):
        check_device()
        self._stream = cupy.cuda.Stream(non_blocking=True)
        with self._stream:
            self.table = DeviceTable(capacity_nbytes)
            self._stage = Stage()
            self._key = pinned(MAX_KEY_NBYTES, np.uint8)

    # ---- Reading

    def get(self, key: bytes, now_ms: int) -> bytes | None:
        n, longest = len(key), self.table.max_value_nbytes
        self._key[:n] = np.frombuffer(key, np.uint8)
        column = Column(self._key[:n], None, n, 1)
        if longest > SMALL_NBYTES:
            return self.find(column, now_ms).to_arrow()[0].as_py()
        with self._stream:
            packed = self.table.find(column, now_ms, in_pinned=True, capacity=longest)
            self._stream.synchronize()
        return packed.data[: packed.total].tobytes() if packed.arrays()[2][0] else None

    def find(self, keys: Column, now_ms: int) -> Column:
        if keys.on_device:
            return self._find_on_device(keys, now_ms)
        width = self.table.uniform_nbytes or 1
        step = min(CHUNK_ROWS, INT32_MAX // width // 8 * 8)
        with self._stream:
            parts = [
                found
                for row in range(0, len(keys), step)
                for found in self._find_chunk(keys[row : row + step], now_ms)
            ]
        if len(parts) == 1:
            return parts[0]
        return Column.of(pa.chunked_array([part.to_arrow() for part in parts], pa.binary()))

    def _find_on_device(self, keys: Column, now_ms: int) -> Column:
        guess = self._guess_nbytes(len(keys))
        packed = self.table.find(keys, now_ms, in_pinned=False, capacity=guess)
        # Where the guess is the most there can be, nothing needs to be waited for.
        if guess < self.table.find_nbytes(len(keys)) and packed.total > guess:
            packed = self.table.find(keys, now_ms, in_pinned=False, capacity=packed.total)
        return packed.column

    def _find_chunk(self, keys: Column, now_ms: int) -> list[Column]:
        n, guess = len(keys), self._guess_nbytes(len(keys))
        small = keys.nbytes + guess <= SMALL_NBYTES
        reachable = self._reach(keys, small)
        while True:
            packed = self.table.find(reachable, now_ms, in_pinned=small, capacity=guess)
            head = self._to_host(packed.head)
            nbytes = Packed(head, packed.data, n, packed.wide, packed.full).total
            if nbytes <= guess:
                break
            if nbytes > INT32_MAX:
                middle = n // 2 // 8 * 8
                return self._find_chunk(keys[:middle], now_ms) + self._find_chunk(
                    keys[middle:], now_ms
                )
            guess = nbytes
        if small:
            return [packed.column]
        data = download(packed.data, nbytes)
        self._stream.synchronize()
        return [Packed(head, data, n, packed.wide).column]

    def _guess_nbytes(self, n: int) -> int:
        """Bytes to have ready for n values: the most there can be, or where values differ much twice the mean."""
        table, most = self.table, self.table.find_nbytes(n)
        if most <= 2**26 or (table.uniform_nbytes is not None and most <= INT32_MAX):
            return most
        return int(
            min(most, max(2**26, 2 * n * table.live_nbytes / max(table.entries, 1)), INT32_MAX)
        )

    def contains(self, keys: Column, now_ms: int) -> np.ndarray:
        return self._per_key(
            keys, np.bool_, lambda column, out: self.table.peek(column, now_ms, present=out)
        )

    def expiry(self, keys: Column, now_ms: int) -> np.ndarray:
        return self._per_key(
            keys, np.int64, lambda column, out: self.table.peek(column, now_ms, expiry=out)
        )

    def count(self, now_ms: int) -> int:
        with self._stream:
            return self.table.count(now_ms)

    def scan(self, count: int, now_ms: int) -> Iterator[Column]:
        table, slot, epoch = self.table, 0, self.table.epoch
        step = max(SCAN_SLOTS, count)
        while slot < table.slots:
            n = min(step, table.slots - slot)
            yield self._scan_slots(slot, n, now_ms)
            slot += n
            if epoch != table.epoch:
                slot, epoch = 0, table.epoch  # the index has grown: its slots are others now

    def _scan_slots(self, first: int, n: int, now_ms: int) -> Column:
        capacity = 0
        with self._stream:
            while True:
                packed = self.table.scan(first, n, now_ms, capacity)
                self._stream.synchronize()
                if packed.total <= capacity:
                    return Column.of(packed.column.to_arrow().drop_null())
                capacity = packed.total

    # ---- Writing

    def insert(self, keys: Column, values: Column, expire_at_ms: int, now_ms: int) -> np.ndarray:
        too_large = _too_large(values)
        if too_large is None:
            return self._insert(keys, values, expire_at_ms, now_ms)
        status = np.full(len(keys), Status.TOO_LARGE, np.int8)
        fits = pa.array(~too_large)
        keys, values = (
            Column.of(_on_host(column).to_arrow().filter(fits)) for column in (keys, values)
        )
        status[~too_large] = self._insert(keys, values, expire_at_ms, now_ms)
        return status

    def _insert(self, keys: Column, values: Column, expire_at_ms: int, now_ms: int) -> np.ndarray:
        n, row = len(keys), 0
        small = keys.nbytes + values.nbytes <= SMALL_NBYTES
        with self._ordered(keys, values):
            status = (pinned if small else on_device)(n, np.int8)
            batch = self.table.begin(keys, values, now_ms)
            while row < n:
                stop = row + min(
                    max(rows_that_fit(keys, values, row, n, CHUNK_NBYTES), 1), CHUNK_ROWS
                )
                chunk_keys, chunk_values = (
                    self._reach(column[row:stop], small) for column in (keys, values)
                )
                self.table.append(batch, chunk_keys, chunk_values, expire_at_ms, now_ms, status)
                row = stop
            self.table.end(batch)
            return np.asarray(self._to_host(status))

    def erase(self, keys: Column, now_ms: int) -> np.ndarray:
        return self._per_key(
            keys, np.bool_, lambda column, out: self.table.erase(column, now_ms, out)
        )

    def expire(self, keys: Column, expire_at_ms: int, now_ms: int) -> np.ndarray:
        return self._per_key(
            keys, np.bool_, lambda column, out: self.table.expire(column, expire_at_ms, now_ms, out)
        )

    def compact(self, now_ms: int) -> int:
        with self._stream:
            return compact_step(self.table, now_ms)

    def clear(self) -> None:
        with self._stream:
            self.table.clear()

    # ---- What it is

    def memory(self) -> dict[str, int | float]:
        buffers = self._stage.nbytes + self._key.nbytes
        return {**usage.of_table(self.table), "pinned_buffers": buffers, **usage.of_pools()}

    def describe(self) -> dict[str, str]:
        return {"backend": "cuda", "device": Device.current().name}

    def close(self) -> None:
        with self._stream:
            self.table.close()

    # ---- Moving columns

    def _ordered(self, *columns: Column) -> AbstractContextManager:
        """The stream to work on: the caller's where a column lies on the device, for it was made there."""
        return nullcontext() if any(column.on_device for column in columns) else self._stream

    def _per_key(self, keys: Column, dtype: Any, fill: Any) -> np.ndarray:
        """One answer of `dtype` per key, written by `fill(column, answers)`."""
        n = len(keys)
        result = np.empty(n, dtype)
        with self._ordered(keys):
            for row in range(0, n, CHUNK_ROWS):
                chunk = keys[row : row + CHUNK_ROWS]
                small = chunk.nbytes <= SMALL_NBYTES
                answers = (pinned if small else on_device)(len(chunk), dtype)
                fill(self._reach(chunk, small), answers)
                result[row : row + len(chunk)] = self._to_host(answers)
        return result

    def _reach(self, column: Column, small: bool) -> Column:
        """The column in memory that the device reaches."""
        if column.on_device:
            return column
        start, stop = column.span
        data = column.data[start:stop]
        if small:
            copy = pinned(len(data), np.uint8)
            copy[:] = data
            if column.offsets is None:
                return Column(copy, None, column.width, len(column))
            offsets = pinned(len(column) + 1, column.offsets.dtype)
            np.subtract(column.offsets, start, out=offsets)
            return Column(copy, offsets, 0, len(column))
        upload = self._stage.upload
        if column.offsets is None:
            return Column(upload(data), None, column.width, len(column))
        offsets = upload(column.offsets)
        if start:
            offsets -= start
        return Column(upload(data), offsets, 0, len(column))

    def _to_host(self, array: Any) -> np.ndarray:
        """The array on the host, after the current stream has done its work."""
        host = download(array) if isinstance(array, cupy.ndarray) else array
        cupy.cuda.get_current_stream().synchronize()
        return host


def _too_large(values: Column) -> np.ndarray | None:
    """bool per row, or None where no value is too long."""
    if values.nbytes <= MAX_VALUE_NBYTES or values.lengths_range()[1] <= MAX_VALUE_NBYTES:
        return None  # the first test alone settles nearly every batch
    if values.offsets is None:
        return np.ones(len(values), np.bool_)
    return cupy.asnumpy(values.offsets[1:] - values.offsets[:-1]) > MAX_VALUE_NBYTES


def _on_host(column: Column) -> Column:
    if not column.on_device:
        return column
    offsets = None if column.offsets is None else cupy.asnumpy(column.offsets)
    return Column(cupy.asnumpy(column.data), offsets, column.width, column.length)
