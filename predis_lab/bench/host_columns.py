"""Arrow columns in host memory, pageable or pinned, of rows made on the device; and answers taken back there. For `pipeline_rates`.

Imports CuPy: only for where there is a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cupy
import numpy as np
import pyarrow as pa

from ..columns import Column
from ..gpu.memory import on_device
from ..gpu.pinned import pinned
from .pipeline_samples import DOWN, UP
from .transfer_rates import copy

CHUNK = 2**18  # rows made at once

Make = Callable[[Any], Column]  # numbers -> the rows of these numbers, on the device


class HostColumn:
    """Room for n rows of `width` bytes, filled again and again: pages are touched and locked once.

    pinned: whether the driver knows the memory. binary: `pa.binary()` with offsets instead of fixed-size
    """

    def __init__(self, n: int, width: int, *, pinned: bool = False, binary: bool = False):
        if binary and n * width >= 2**31:
            raise ValueError(f"{n:,} rows of {width} bytes are too many for 32-bit offsets")
        self.n, self.width, self.binary = n, width, binary
        self._room = _pinned if pinned else np.empty
        self.data = self._room(n * width, np.uint8)
        self.offsets: Any = None
        if binary:
            self.offsets = self._room(n + 1, np.int32)
            self.offsets[:] = np.arange(0, (n + 1) * width, width, dtype=np.int32)

    def filled(self, make: Make, numbers: Any) -> pa.Array:
        """The rows of these numbers, over this memory: valid until it is filled again."""
        stream = cupy.cuda.get_current_stream()
        for first in range(0, self.n, CHUNK):
            rows = make(numbers[first : first + CHUNK]).data
            at = self.data[first * self.width :]
            copy(DOWN, at.ctypes.data, rows.data.ptr, rows.nbytes, stream)
            stream.synchronize()  # before the rows go
        data = pa.py_buffer(self.data)
        if self.binary:
            offsets = pa.py_buffer(self.offsets)
            return pa.Array.from_buffers(pa.binary(), self.n, [None, offsets, data])
        return pa.Array.from_buffers(pa.binary(self.width), self.n, [None, data])


_pinned = pinned  # the name is an option's too


def host_column(make: Make, numbers: Any, *, pinned: bool = False) -> pa.Array:
    """A fixed-size column of these numbers in memory of its own."""
    width = make(numbers[:1]).width
    return HostColumn(len(numbers), width, pinned=pinned).filled(make, numbers)


def uploaded(array: np.ndarray) -> Any:
    """A copy of a uint8 host array on the device, without a stop in between where the array is pinned."""
    target, stream = on_device(array.size, np.uint8), cupy.cuda.get_current_stream()
    copy(UP, array.ctypes.data, target.data.ptr, array.size, stream)
    stream.synchronize()
    return target


def same_bytes(found: Any, stored: Any) -> bool:
    """Whether two uint8 arrays on the device are equal; their lengths are multiples of 8."""
    if len(found) != len(stored):
        return False
    return bool((found.view(np.uint64) == stored.view(np.uint64)).all())
