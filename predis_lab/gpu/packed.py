"""Packed: a column in the making, that one kernel writes from front to back. Used by `table` and `engine`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from ..columns import Column

INT32_MAX = 2**31 - 1


@dataclass(frozen=True)
class Packed:
    """A packed column that a kernel writes, pinned or on the device.

    head:   uint8; the bytes of all rows together (8), validity bits, offsets, each at a multiple of 16
    data:   uint8, the rows
    n:      rows
    wide:   whether the offsets have 64 bits
    full:   whether the rows fill `data`, which head then does not say
    count:  uint64 (1,), pinned: where the bytes of all rows together are told instead; None: in head
    """

    BITS_AT: ClassVar[int] = 16  # in the head

    head: Any
    data: Any
    n: int
    wide: bool
    full: bool = False
    count: Any = None

    @classmethod
    def empty(
        cls,
        n: int,
        capacity: int,
        new: Callable[[int], Any],
        *,
        full: bool = False,
        count: Any = None,
    ) -> Packed:
        """Room for n rows of `capacity` bytes together. new: gives as many bytes, as uint8, as it is asked for."""
        wide = capacity > INT32_MAX
        split = cls.head_nbytes(n, wide)
        memory = new(split + capacity)
        packed = cls(memory[:split], memory[split:], n, wide, full, count)
        if n == 0:
            packed.head[:] = 0
        return packed

    @classmethod
    def head_nbytes(cls, n: int, wide: bool = False) -> int:
        """Bytes of the head of n rows."""
        return padded(cls.offsets_at(n) + (8 if wide else 4) * (n + 1))

    @classmethod
    def offsets_at(cls, n: int) -> int:
        """Where in the head the offsets of n rows begin."""
        return cls.BITS_AT + padded(-(-n // 8))

    @cached_property
    def arrays(self) -> tuple[Any, Any, Any, Any]:
        """data, offsets (int32 or int64), validity (uint32), total (uint64, (1,))."""
        at, dtype = self.offsets_at(self.n), np.int64 if self.wide else np.int32
        offsets = self.head[at : at + np.dtype(dtype).itemsize * (self.n + 1)].view(dtype)
        count = self.head[:8].view(np.uint64) if self.count is None else self.count
        return self.data, offsets, self.head[self.BITS_AT : at].view(np.uint32), count

    @property
    def column(self) -> Column:
        data, offsets, validity, _ = self.arrays
        return Column(data, offsets, 0, self.n, validity.view(np.uint8)[: -(-self.n // 8)])

    @property
    def total(self) -> int:
        """Bytes of all rows together; wait for the stream first where they are told in pinned memory."""
        return len(self.data) if self.full else int(self.arrays[3][0])


def padded(nbytes: int) -> int:
    """The next multiple of 16."""
    return (nbytes + 15) & ~15


_uniform: dict[int, np.ndarray] = {}  # by width; the last one


def uniform_offsets(n: int, width: int) -> np.ndarray:
    """Offsets of n rows of one width, (n + 1,), not to be written to: int32, or int64 where that is too short."""
    offsets = _uniform.get(width)
    if offsets is None or len(offsets) <= n:
        dtype = np.int32 if n * width <= INT32_MAX else np.int64
        offsets = np.arange(n + 1, dtype=dtype)
        offsets *= dtype(width)
        offsets.flags.writeable = False
        _uniform.clear()
        _uniform[width] = offsets
    if offsets.dtype == np.int64 and n * width <= INT32_MAX:
        return offsets[: n + 1].astype(np.int32)
    return offsets[: n + 1]
