"""Answer: the packed column that a bulk lookup hands back, growing chunk by chunk in pinned memory. Called by `pipeline`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..columns import Column
from .health import Health
from .packed import INT32_MAX, Packed
from .pinned import host_array
from .staging import copy_async

# Room beyond what the rows so far lead one to expect: less than this of a second copy, and of memory.
_MARGIN = 1.06


class Answer:
    """n rows to come.

    stream:  on which they are copied
    """

    def __init__(self, n: int, health: Health, stream: Any):
        self.n, self.nbytes = n, 0
        self._health, self._stream = health, stream
        self._offsets = host_array(n + 1, np.int32)
        self._offsets[0] = 0
        self._validity = host_array(-(-n // 8), np.uint8)
        self._data = host_array(0, np.uint8)

    def add(self, first: int, packed: Packed) -> int:
        """Starts to copy the next rows, from row `first`, a multiple of eight, on; how many bytes are on their way."""
        total, before, stream = packed.total, self.nbytes, self._stream
        data, offsets, validity, _ = packed.arrays()
        self._make_room(before + total, first + packed.n, exact=packed.full)
        wide = before + total > INT32_MAX
        if wide and self._offsets.dtype == np.int32:
            self._widen(first)
        with stream:
            if self._offsets.dtype == np.int64:
                offsets = offsets.astype(np.int64)
            if before:
                offsets += before
        rows = slice(first, first + packed.n + (first + packed.n == self.n))
        bits = self._validity[first // 8 : -(-(first + packed.n) // 8)]
        pieces = (
            (self._data[before : before + total], data),
            (self._offsets[rows], offsets),
            (bits, validity),
        )
        for target, source in pieces:
            copy_async(target.ctypes.data, source.data.ptr, target.nbytes, stream, down=True)
        self.nbytes += total
        return sum(target.nbytes for target, _ in pieces)

    def column(self) -> Column:
        """The rows, once the stream has passed."""
        return Column(self._data[: self.nbytes], self._offsets, 0, self.n, self._validity)

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
        self._health.wait(self._stream, "a download")
        offsets = host_array(self.n + 1, np.int64)
        np.copyto(offsets[: rows + 1], self._offsets[: rows + 1])
        self._offsets = offsets
