"""A small call's memory: one piece, pinned, which kernels know by addresses and the host by bytes. Called by `launched`.

Making an array of each part would take longer than the lookup.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from ..columns import BINARY, Column
from .copies import copy_together
from .packed import Packed, padded, uniform_offsets
from .pinned import PinnedArray, pinned_memory
from .sizing import ALONE_NBYTES, PACKERS

# Of as many bytes NumPy's copies let others have the interpreter; for fewer, waking them would take longer than the copy.
WAKING_NBYTES = 2**17


class MappedColumn(Column):
    """A copy of a host column in pinned memory. What kernels take is known; arrays are made for who asks for them.

    arguments: address of the data, address of the offsets or 0, and stride, as `Column` in kernels/common.cuh: in the
               block, or in a copy of it on the device
    """

    __slots__ = ("_arrays", "arguments")

    def __init__(self, source: Column, block: Block):
        self.length, self.validity = source.length, None
        self.width, offsets = source.width, source.offsets
        first, last = source.span
        begin, at, stride = block.put(source.data, first, last), 0, source.width
        if offsets is None:
            self.offsets = None
        else:
            at, dtype = block.take(offsets.nbytes), offsets.dtype
            np.subtract(offsets, first, out=block.array(at, len(offsets), dtype))
            stride, at = -1 if dtype.itemsize == 8 else -2, block.at + at
        self.arguments = block.at + begin, at, stride
        self._arrays = block, begin, last - first, at - block.at, offsets

    def __getattr__(self, part: str) -> Any:
        if part not in ("data", "offsets"):
            raise AttributeError(part)
        block, begin, nbytes, at, offsets = self._arrays
        self.data = block.array(begin, nbytes, np.uint8)
        if offsets is not None:
            self.offsets = block.array(at, len(offsets), offsets.dtype)
        return getattr(self, part)

    def __getitem__(self, rows: slice) -> Column:
        if rows.indices(self.length) == (0, self.length, 1):
            return self
        return Column.__getitem__(self, rows)

    @property
    def on_device(self) -> bool:
        """Not that: kernels reach it where it lies."""
        return False

    @property
    def block(self) -> Block:
        """Where it lies."""
        return self._arrays[0]

    def read_at(self, address: int) -> None:
        """Has kernels read it there, where the whole block has been copied to."""
        data, offsets, stride = self.arguments
        by = address - self.block.at
        self.arguments = data + by, offsets and offsets + by, stride


def mapped_nbytes(column: Column) -> int:
    """Bytes of a block that a copy of a host column takes."""
    offsets = 0 if column.offsets is None else padded(column.offsets.nbytes)
    return padded(column.nbytes) + offsets


class Block:
    """Pinned memory, handed out piece by piece at multiples of 16. Returns to a pool when nobody holds it any more.

    at, memory, view:  its address, what holds it, its bytes

    raises: PinnedMemoryUnavailable
    """

    __slots__ = ("at", "memory", "used", "view")

    def __init__(self, nbytes: int):
        self.memory = pinned_memory(nbytes)
        self.at, self.used = self.memory.ptr, 0
        self.view = memoryview(self.memory).cast("B")

    @classmethod
    def of(cls, *columns: Column) -> list[MappedColumn]:
        """Copies of host columns in a block of their own."""
        block = cls(sum(map(mapped_nbytes, columns)))
        return [MappedColumn(column, block) for column in columns]

    def take(self, nbytes: int) -> int:
        """Where the next nbytes begin in it."""
        begin = self.used
        self.used = begin + padded(nbytes)
        return begin

    def put(self, data: np.ndarray, first: int, last: int) -> int:
        """Copies these of a host array's bytes; where they begin in it."""
        nbytes = last - first
        begin = self.take(nbytes)
        if nbytes < WAKING_NBYTES:
            self.view[begin : begin + nbytes] = data.data[first:last]
        elif nbytes <= ALONE_NBYTES:
            np.copyto(self.array(begin, nbytes, np.uint8), data[first:last])
        else:
            copy_together(self.array(begin, nbytes, np.uint8), data[first:last], PACKERS)
        return begin

    def array(self, begin: int, n: int, dtype: Any) -> PinnedArray:
        """n items from there on."""
        return np.frombuffer(self.view, dtype, n, begin).view(PinnedArray)


class Lookup:
    """Keys to look up, and room for the answer: a packed column as `Packed` has it.

    keys:      in pinned memory
    capacity:  bytes of values
    width:     of every value, or None: where that is known, so are the offsets, and where values lie
    """

    __slots__ = ("_answer", "_block", "_offsets", "_values", "capacity", "keys", "width")

    def __init__(self, keys: Column, capacity: int, width: int | None):
        n = keys.length
        self.capacity, self.width = capacity, width
        self._offsets = Packed.offsets_at(n)
        self._values = Packed.head_nbytes(n) if width is None else self._offsets
        self._block = Block(self._values + padded(capacity) + mapped_nbytes(keys))
        self._block.take(self._values + padded(capacity))
        self.keys = MappedColumn(keys, self._block)
        if n == 0:
            self._block.view[:8] = bytes(8)

    @property
    def places(self) -> tuple[int, int, int, int]:
        """Addresses: of values, offsets, bits, and of how many bytes all values have."""
        at = self._block.at
        return at + self._values, at + self._offsets, at + Packed.BITS_AT, at

    @property
    def total(self) -> int:
        """Bytes of all values together; once they are there."""
        if self.width is not None:
            return self.keys.length * self.width
        return int.from_bytes(self._block.view[:8], "little")

    def value(self) -> bytes | None:
        """That of the only key."""
        if not self._block.view[Packed.BITS_AT] & 1:
            return None
        return self._block.view[self._values : self._values + self.total].tobytes()

    def prepare(self) -> None:
        """Makes of the answer's memory what `array` needs, for who has time before it is there."""
        block, n = self._block, self.keys.length
        whole = pa.foreign_buffer(block.at, self._values + self.capacity, block.memory)
        bits, values = whole.slice(Packed.BITS_AT), whole.slice(self._values)
        if self.width is None:  # Arrow looks at offsets, and these are to come
            self._answer: Any = [bits, whole.slice(self._offsets, 4 * (n + 1)), values]
        else:
            offsets = pa.py_buffer(uniform_offsets(n, self.width))
            self._answer = pa.Array.from_buffers(BINARY, n, [bits, offsets, values])

    def array(self) -> pa.Array:
        """The values."""
        if self.width is None:
            return pa.Array.from_buffers(BINARY, self.keys.length, self._answer)
        return self._answer
