"""Memory: device arrays in and outside of pools, and the log's segments.

The index and the log take their memory straight from the driver, so that `capacity` means bytes and freed
memory goes back; what lives for one call comes from CuPy's pools.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import Any

import cupy
import numpy as np
from cupy.cuda import runtime

from ..errors import DeviceFailed, InvalidArgument
from . import sizing
from .pinned import PinnedArray
from .sizing import ALIGNMENT, rounded

# Room in a segment below this share of it is left alone: each piece of a batch costs a launch.
OPEN_SHARE = 1 / 16
# Kept free at the end of each segment: `find_dense` reads a record before it knows that it is another one, and a shorter one;
# a block at the doorbell reads this much of any.
SLACK_NBYTES = 128
_NOT_READY = 600  # cudaErrorNotReady
# What a device, its driver or its pool raises where it refuses something.
REFUSALS = (runtime.CUDARuntimeError, cupy.cuda.memory.OutOfMemoryError)


def refused(error: BaseException, status: np.ndarray | None = None) -> DeviceFailed:
    """One of those by a name; with a status per record, where some had been stored."""
    return DeviceFailed(f"the device refused: {error}", status)


def on_device(n: int, dtype: Any) -> cupy.ndarray:
    """An uninitialised device array of shape (n,) from CuPy's pool, ordered with the current stream."""
    return cupy.empty(n, dtype)


def raise_failure(awaited: Any) -> None:
    """Raises what the driver says of a stream or an event, unless that is that it is done, or not yet."""
    is_event = isinstance(awaited, cupy.cuda.Event)
    status = (runtime.eventQuery if is_event else runtime.streamQuery)(awaited.ptr)
    if status not in (0, _NOT_READY):
        raise runtime.CUDARuntimeError(status)


class Scratch:
    """Small arrays that a table keeps for its calls: pieces of one allocation as long as that lasts, then of their own.

    memory:  uint8, or None: there is none
    """

    def __init__(self, memory: cupy.ndarray | None = None):
        self._left = memory

    def take(self, n: int, dtype: Any) -> cupy.ndarray:
        """An uninitialised device array of shape (n,)."""
        nbytes = n * np.dtype(dtype).itemsize
        if self._left is None or self._left.size < nbytes:
            return on_device(n, dtype)
        piece, self._left = self._left[:nbytes], self._left[rounded(nbytes, ALIGNMENT) :]
        return piece.view(dtype)


def device_bytes(nbytes: int) -> cupy.ndarray:
    """`on_device`, in bytes."""
    return cupy.empty(nbytes, np.uint8)


def from_driver(nbytes: int) -> cupy.ndarray | None:
    """An uninitialised uint8 device array of its own allocation, or None where the device has no memory left."""
    try:
        memory = cupy.cuda.Memory(nbytes)
    except cupy.cuda.runtime.CUDARuntimeError:
        cupy.get_default_memory_pool().free_all_blocks()  # what the pool holds unused may be what is missing
        try:
            memory = cupy.cuda.Memory(nbytes)
        except cupy.cuda.runtime.CUDARuntimeError:
            return None
    return cupy.ndarray((nbytes,), cupy.uint8, memptr=cupy.cuda.MemoryPointer(memory, 0))


def from_host(nbytes: int) -> PinnedArray | None:
    """An uninitialised uint8 array of pinned memory of its own, outside the pool, or None where the system pins no more."""
    try:
        memory = cupy.cuda.PinnedMemoryPointer(cupy.cuda.PinnedMemory(nbytes), 0)
    except cupy.cuda.runtime.CUDARuntimeError:
        return None
    return np.frombuffer(memory, np.uint8, nbytes).view(PinnedArray)


@dataclass(eq=False)
class Segment:
    """A piece of the log, on the device or in pinned memory. Records are appended at `used`; nothing is ever overwritten.

    address, nbytes, end:  of `array`, which every write asks for
    """

    array: Any
    used: int = 0
    address: int = field(init=False)
    nbytes: int = field(init=False)
    end: int = field(init=False)

    def __post_init__(self) -> None:
        array = self.array
        self.address = array.ptr if isinstance(array, PinnedArray) else array.data.ptr
        self.nbytes = array.size
        self.end = self.address + self.nbytes

    @property
    def room(self) -> int:
        return self.nbytes - SLACK_NBYTES - self.used


@dataclass
class Arena:
    """The log's segments, all together and with `reserved` (the index) within `capacity` bytes as the driver counts them.

    Device segments are taken from the driver before they are needed: taking one costs as much as writing half of it.
    """

    capacity: int
    segment_nbytes: int
    reserved: int = 0
    allocate: Callable[[int], Any] = from_driver
    segments: list[Segment] = field(default_factory=list)
    free: list[Segment] = field(default_factory=list)
    allocations: int = 0  # so far

    @property
    def segment_room(self) -> int:
        """Bytes of records that an empty segment of the usual size takes."""
        return self.segment_nbytes - SLACK_NBYTES

    @property
    def nbytes_in_use(self) -> int:
        """Bytes of the segments that make up the log."""
        return sum(segment.nbytes for segment in self.segments)

    @property
    def nbytes(self) -> int:
        """Bytes taken from the driver for segments, in use or free."""
        return self.nbytes_in_use + sum(segment.nbytes for segment in self.free)

    @property
    def used(self) -> int:
        """Bytes of the log that hold records, live or dead."""
        return sum(segment.used for segment in self.segments)

    @property
    def left(self) -> int:
        """Bytes that may still be taken."""
        return self.capacity - self.reserved - self.nbytes

    @property
    def available(self) -> int:
        """Bytes that segments may still be made of, those of free segments included."""
        return self.capacity - self.reserved - self.nbytes_in_use

    def reopen(self, nbytes: int, taken: Container[Segment]) -> Segment | None:
        """The segment, none of `taken`, that compaction left with enough room to go on writing to, if there is one."""
        wanted = max(nbytes, int(OPEN_SHARE * self.segment_nbytes))
        for segment in self.segments:
            if segment.room >= wanted and segment not in taken:
                self.segments.remove(segment)
                self.segments.append(segment)
                return segment
        return None

    def append(self, nbytes: int) -> Segment | None:
        """A fresh segment at the end of the log with room for nbytes, or None where capacity or memory ends."""
        wanted = nbytes + SLACK_NBYTES
        reused = wanted <= self.segment_nbytes and bool(self.free)
        segment = self.free.pop() if reused else self._take(max(wanted, self.segment_nbytes))
        if segment is not None:
            self.segments.append(segment)
        return segment

    def make_left(self, nbytes: int) -> bool:
        """Gives free segments back until nbytes are left to be taken; whether they are."""
        while self.left < nbytes and self.free:
            self.free.pop()
        return self.left >= nbytes

    def taken(self, nbytes: int) -> int:
        """What the driver takes for an allocation of nbytes."""
        on_device = self.allocate is from_driver
        return sizing.rounded(
            nbytes, sizing.granule(self.capacity) if on_device else sizing.ALIGNMENT
        )

    def _take(self, nbytes: int) -> Segment | None:
        nbytes = self.taken(nbytes)
        if not self.make_left(nbytes):
            return None
        array = self.allocate(nbytes)
        self.allocations += 1
        return None if array is None else Segment(array)

    def release(self, segment: Segment) -> None:
        """Takes a segment without live records out of the log. No kernel may be reading it any more."""
        self.segments.remove(segment)
        segment.used = 0
        if segment.nbytes == self.segment_nbytes:
            self.free.append(segment)

    def fill(self) -> bool:
        """Takes what is left of the capacity from the driver; False where the device lacks it."""
        while self.left >= self.segment_nbytes:
            segment = self._take(self.segment_nbytes)
            if segment is None:
                return False
            self.free.append(segment)
        return True

    def require(self) -> None:
        """As `fill`; raises InvalidArgument where the device lacks it."""
        if not self.fill():
            free, total = runtime.memGetInfo()
            said = (
                f"{self.capacity:,} bytes for index and log are not to be had: "
                f"{self.nbytes + self.reserved:,} were, and the device has {free:,} of its {total:,} left"
            )
            self.close()
            raise InvalidArgument(said)

    def clear(self) -> None:
        """Takes every segment out of the log."""
        for segment in list(self.segments):
            self.release(segment)

    def close(self) -> None:
        """Gives every segment back to the driver."""
        self.segments.clear()
        self.free.clear()
