"""Answer: the packed column that a bulk lookup hands back, growing chunk by chunk in pinned memory. Called by `pipeline`."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pyarrow as pa

from ..columns import Column
from .column_kernels import shift_offsets
from .copies import copy_async
from .health import Health
from .memory import on_device
from .packed import INT32_MAX, Packed, uniform_offsets
from .pinned import host_array

# Room beyond what the rows so far lead one to expect: less than this of a second copy, and of memory.
_MARGIN = 1.06


class Answer:
    """n rows to come.

    As long as all have one length their offsets are known, and neither brought nor kept twice.

    stream:  on which they are copied
    """

    def __init__(self, n: int, health: Health, stream: Any):
        self.n, self.nbytes = n, 0
        self._present, self._uncounted = 0, deque[tuple[int, int]]()
        self._health, self._stream = health, stream
        self._width: int | None = None
        self._offsets: np.ndarray | None = None  # none needed so far
        self._validity = host_array(-(-n // 8), np.uint8)
        self._data = host_array(0, np.uint8)

    def add(self, first: int, packed: Packed) -> int:
        """Starts to copy the next rows, from row `first`, a multiple of eight, on; how many bytes are on their way."""
        total, before = packed.total, self.nbytes
        data, offsets, validity, _ = packed.arrays
        self._make_room(before + total, first + packed.n, exact=packed.full)
        bits = self._validity[first // 8 : -(-(first + packed.n) // 8)]
        pieces = [(self._data[before : before + total], data), (bits, validity)]
        width = total // packed.n if packed.full and packed.n else None
        if first == 0:
            self._width = width
        if self._offsets is not None or width is None or width != self._width:
            pieces.append(self._add_offsets(first, packed.n, offsets, total))
        for target, source in pieces:
            copy_async(target.ctypes.data, source.data.ptr, target.nbytes, self._stream, down=True)
        self.nbytes += total
        self._uncounted.append((first, first + packed.n))
        return sum(target.nbytes for target, _ in pieces)

    def count(self, under_way: int) -> None:
        """Counts which rows are there, but for those added last, `under_way` times: while others come, it costs nothing."""
        while len(self._uncounted) > under_way:
            first, stop = self._uncounted.popleft()
            bits = [None, pa.py_buffer(self._validity)]
            rows = pa.Array.from_buffers(pa.bool_(), stop - first, bits, offset=first)
            self._present += rows.true_count

    def array(self) -> pa.Array:
        """The rows, once the stream has passed."""
        self.count(0)
        offsets = self._offsets
        if offsets is None:
            offsets = uniform_offsets(self.n, self._width or 0)
        rows = Column(self._data[: self.nbytes], offsets, 0, self.n, self._validity)
        return rows.to_arrow(self.n - self._present)

    def _add_offsets(self, first: int, n: int, offsets: Any, total: int) -> tuple[np.ndarray, Any]:
        """Where the offsets of n more rows go, and what goes there."""
        if self._offsets is None:
            self._offsets = host_array(self.n + 1, np.int32)
            self._offsets[: first + 1] = uniform_offsets(first, self._width or 0)
        if self.nbytes + total > INT32_MAX and self._offsets.dtype == np.int32:
            self._widen(first)
        with self._stream:
            same = offsets.dtype == self._offsets.dtype
            shifted = offsets if same else on_device(len(offsets), np.int64)
            if self.nbytes or not same:
                shift_offsets(offsets, self.nbytes, shifted)
        return self._offsets[first : first + n + (first + n == self.n)], shifted

    def _make_room(self, nbytes: int, rows: int, *, exact: bool) -> None:
        if nbytes <= len(self._data):
            return
        expected = nbytes / rows * self.n
        wanted = max(nbytes, int(expected if exact else _MARGIN * expected + 64))
        with self._health.unlocked():
            data = host_array(wanted, np.uint8)
        if self.nbytes:
            self._health.wait(self._stream, "a download")
            np.copyto(data[: self.nbytes], self._data[: self.nbytes])
        self._data = data

    def _widen(self, rows: int) -> None:
        """Offsets of 64 bits from here on: more than 2 GiB have come."""
        assert self._offsets is not None
        self._health.wait(self._stream, "a download")
        offsets = host_array(self.n + 1, np.int64)
        np.copyto(offsets[: rows + 1], self._offsets[: rows + 1])
        self._offsets = offsets
