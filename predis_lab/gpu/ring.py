"""Chunks of a batch, and the rings of device buffers that they pass through. Used by `pipeline` and `staging`."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cupy
import numpy as np

from ..columns import Column
from .health import Health
from .memory import device_bytes
from .packed import padded
from .pinned import pinned
from .sizing import (
    CHUNK_NBYTES,
    DEPTH,
    FIRST_SHARE,
    KEYS_SHARE,
    MIN_CHUNK_NBYTES,
    MOST_DEPTH,
    PAGE_NBYTES,
    SCRATCH_NBYTES,
    SCRATCH_SHARE,
    granule,
    rounded,
)

CHUNK_SHARE = 1 / 256  # of the capacity, at most
BITMAP_ROWS = 8  # bitmaps are cut at whole bytes

Rows = tuple[int, int]  # the first, and one past the last


def _event() -> Any:
    return cupy.cuda.Event(disable_timing=True)


@dataclass
class Buffer:
    """Device memory of one chunk. What it has no room for gets memory of its own for the time.

    memory:  uint8
    count:   uint64 (1,), pinned: bytes of an answer
    ready:   recorded once the chunk is in it
    done:    recorded once it is not needed there any more
    """

    memory: Any
    count: Any
    used: int = 0
    more: list[Any] = field(default_factory=list)
    ready: Any = field(default_factory=_event)
    done: Any = field(default_factory=_event)

    def take(self, nbytes: int) -> Any:
        """Room for so many bytes."""
        if self.used + nbytes > self.memory.size:
            self.more.append(device_bytes(nbytes))
            return self.more[-1]
        room = self.memory[self.used : self.used + nbytes]
        self.used += padded(nbytes)
        return room


class Ring:
    """Buffers used in turn, by one call at a time; as many, and as long, as that call wants them to be.

    memory:             of all of them, uint8
    filling, emptying:  what a chunk is in its buffer for, as is told where it does not end
    """

    def __init__(self, memory: Any, filling: str, emptying: str):
        self.memory, self._stages = memory, (filling, emptying)
        self._events = [(_event(), _event(), pinned(1, np.uint64)) for _ in range(MOST_DEPTH)]
        self._cut(memory.size // DEPTH, DEPTH)

    def _cut(self, nbytes: int, depth: int) -> None:
        self.nbytes, self.depth, self._turn = nbytes, depth, 0
        self._buffers = [
            Buffer(self.memory[at * nbytes : (at + 1) * nbytes], count, ready=ready, done=done)
            for at, (ready, done, count) in enumerate(self._events[:depth])
        ]

    def shape(self, nbytes: int, depth: int, health: Health) -> None:
        """Has `depth` buffers of nbytes each, once all chunks are done with; by whoever makes the next call."""
        nbytes = min(nbytes, self.memory.size // depth) // 256 * 256
        if (nbytes, depth) != (self.nbytes, self.depth):
            self.drain(health)
            self._cut(nbytes, depth)

    def next(self, health: Health) -> Buffer:
        """The buffer used longest ago, once its chunk is done with."""
        self._turn = (self._turn + 1) % self.depth
        buffer = self._buffers[self._turn]
        self._await(buffer, health)
        buffer.used = 0
        buffer.more.clear()
        return buffer

    def drain(self, health: Health) -> None:
        """Waits until all chunks are done with."""
        for buffer in self._buffers:
            self._await(buffer, health)

    def _await(self, buffer: Buffer, health: Health) -> None:
        for awaited, stage in zip((buffer.ready, buffer.done), self._stages, strict=True):
            health.wait(awaited, stage)

    def record(self, stream: Any) -> None:
        """Has all chunks count as needed for what is on the stream so far."""
        for buffer in self._buffers:
            buffer.done.record(stream)

    def close(self) -> None:
        """Gives the memory back."""
        self._buffers.clear()
        self.memory = None


@dataclass
class Upload:
    """Rows first to stop of a call's columns, on their way to a buffer.

    starts:  of each column's offsets
    """

    number: int
    first: int
    stop: int
    buffer: Buffer
    columns: list[Column] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)


@dataclass
class Chunk:
    """Rows first to stop of a lookup, all of one upload, and the buffer that their answers go to.

    sized:  whether it is known how long the answers are before they are there
    """

    number: int
    first: int
    stop: int
    upload: Upload
    buffer: Buffer
    answer: Any = None
    sized: bool = False

    @property
    def rows(self) -> int:
        return self.stop - self.first

    @property
    def keys(self) -> Column:
        """On the device."""
        return self.upload.columns[0][
            self.first - self.upload.first : self.stop - self.upload.first
        ]


class Sizes(NamedTuple):
    """Bytes of what calls need of a capacity.

    keys, chunk:  of a buffer for keys to look up, of one for answers or records
    rings:        all buffers of all three rings
    scratch:      for the table's `Scratch`; 0: it has memory of its own
    total:        as the driver counts
    """

    keys: int
    chunk: int
    rings: int
    scratch: int
    total: int


def sizes_of(capacity_nbytes: int) -> Sizes:
    """What calls need of a capacity: whole pages, or half of one at most, beyond which the driver gives a whole one.

    Buffers fill these pages, but where they come to less than one, or are as long as they ever get.
    """
    chunk = min(max(int(CHUNK_SHARE * capacity_nbytes), MIN_CHUNK_NBYTES), CHUNK_NBYTES)
    scratch = SCRATCH_NBYTES if SCRATCH_SHARE * capacity_nbytes >= SCRATCH_NBYTES else 0
    step, chunks = granule(capacity_nbytes), DEPTH * (2 + KEYS_SHARE)
    whole = int(chunks * chunk + scratch) // step * step
    if step < PAGE_NBYTES:
        whole = min(whole, PAGE_NBYTES // 2)
    if whole and chunk < CHUNK_NBYTES:
        chunk = int((whole - scratch) / chunks)
    keys, chunk = int(KEYS_SHARE * chunk) // 256 * 256, chunk // 256 * 256
    rings = DEPTH * (keys + 2 * chunk)
    return Sizes(keys, chunk, rings, scratch, rounded(rings + scratch, step))


def share_of(number: int) -> float:
    """How long a chunk is to be: the first one is shorter, for until it has passed a stage, the next stands idle."""
    return 1.0 if number else FIRST_SHARE


def pieces(columns: Sequence[Column], nbytes: int, step: int) -> Iterator[Rows]:
    """Rows of columns that take at most nbytes together, see `share_of`, or as few as `step`."""
    n, first = len(columns[0]), 0
    for number in itertools.count():
        if first >= n:
            return
        fitting = _rows_within(columns, first, n, share_of(number) * nbytes)
        if first + fitting < n:
            fitting = max(step, fitting // step * step)
        yield first, min(n, first + fitting)
        first += fitting


def even_rows(left: int, most: float) -> int:
    """Of the rows left the next piece, where all pieces are to have about one length: `most` at most, or BITMAP_ROWS."""
    most = max(int(most) // BITMAP_ROWS * BITMAP_ROWS, BITMAP_ROWS)
    rows = -(-left // -(-left // most))
    return min(-(-rows // BITMAP_ROWS) * BITMAP_ROWS, left)


def _rows_within(columns: Sequence[Column], first: int, last: int, nbytes: float) -> int:
    """How many rows from `first` on, up to `last`, take at most nbytes."""
    width = sum(column.width for column in columns)
    if width and all(column.offsets is None for column in columns):  # no search is needed
        return min(last - first, max(0, int(nbytes) - 15 * len(columns)) // width)
    counts = range(last - first + 1)
    return (
        bisect.bisect_right(
            counts, nbytes, key=lambda count: upload_nbytes(columns, first, first + count)
        )
        - 1
    )


def upload_nbytes(columns: Sequence[Column], first: int, stop: int) -> int:
    """Bytes that rows first to stop of the columns take in a buffer."""
    return sum(_column_nbytes(column, first, stop) for column in columns)


def _column_nbytes(column: Column, first: int, stop: int) -> int:
    if column.offsets is None:
        return padded((stop - first) * column.width)
    data = int(column.offsets[stop]) - int(column.offsets[first])
    return padded(data) + padded((stop - first + 1) * column.offsets.itemsize)
