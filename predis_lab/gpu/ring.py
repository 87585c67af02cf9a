"""Chunks of a batch, and the ring of device buffers that they pass through. Used by `pipeline`."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import cupy
import numpy as np

from ..columns import Column
from ..errors import InvalidArgument
from .health import Health
from .memory import device_bytes, from_driver
from .packed import padded
from .pinned import pinned
from .staging import Staging

DEPTH = 4  # chunks under way: one being packed, one going up, one being answered, one coming down
CHUNK_NBYTES = 32 * 2**20  # of a chunk, in its larger direction
MIN_CHUNK_NBYTES = 2**12
CHUNK_SHARE = 1 / 256  # of the capacity, at most
FIRST_SHARE = 1 / 8  # of a chunk: the first one; each of the next is twice as long
KEYS_SHARE = 1 / 2  # of a chunk of answers: room for the keys they answer
BITMAP_ROWS = 8  # bitmaps are cut at whole bytes


@dataclass
class Slot:
    """Buffers of one chunk, and how far it has come. What they have no room for gets memory of its own for the time."""

    up: Any  # uint8, on the device
    down: Any
    count: Any  # uint64 (1,), pinned: bytes of the answer
    used: int = 0
    more: list[Any] = field(default_factory=list)
    uploaded: Any = field(default_factory=lambda: cupy.cuda.Event(disable_timing=True))
    computed: Any = field(default_factory=lambda: cupy.cuda.Event(disable_timing=True))
    done: Any = field(default_factory=lambda: cupy.cuda.Event(disable_timing=True))
    noted: Any = field(default_factory=lambda: cupy.cuda.Event(disable_timing=True))

    def take(self, nbytes: int) -> Any:
        """Room for an upload."""
        if self.used + nbytes > self.up.size:
            self.more.append(device_bytes(nbytes))
            return self.more[-1]
        room = self.up[self.used : self.used + nbytes]
        self.used += padded(nbytes)
        return room


class Ring:
    """The slots of one direction, used in turn, by one call at a time.

    stream:          of its uploads
    brought_nbytes:  down, so far
    """

    def __init__(self, up_nbytes: int, down_nbytes: int, health: Health):
        self.busy, self.staging = threading.Lock(), Staging(health)
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.brought_nbytes = 0
        self.up_nbytes, self.down_nbytes = up_nbytes, down_nbytes
        self._turn, self.slots = 0, []
        for _ in range(DEPTH):
            memory = from_driver(up_nbytes + down_nbytes)
            if memory is None:
                raise InvalidArgument(f"the device has no {up_nbytes + down_nbytes:,} bytes left")
            count = pinned(1, np.uint64)
            self.slots.append(Slot(memory[:up_nbytes], memory[up_nbytes:], count))

    def next(self, health: Health, stage: str) -> Slot:
        """The slot used longest ago, once its chunk is done with."""
        self._turn = (self._turn + 1) % DEPTH
        slot = self.slots[self._turn]
        health.wait(slot.done, stage)
        health.wait(slot.noted, "what comes back from the host")
        slot.used = 0
        slot.more.clear()
        return slot


@dataclass
class Chunk:
    """Rows first to stop of a batch, in a slot."""

    number: int
    first: int
    stop: int
    slot: Slot
    columns: list[Column] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)  # of each column's offsets
    answer: Any = None

    @property
    def rows(self) -> int:
        return self.stop - self.first


def ring_nbytes(capacity_nbytes: int) -> tuple[int, int]:
    """Of a slot: for keys to look up, and for answers or records."""
    chunk = min(max(int(CHUNK_SHARE * capacity_nbytes), MIN_CHUNK_NBYTES), CHUNK_NBYTES)
    return int(KEYS_SHARE * chunk) // 256 * 256, chunk // 256 * 256


def pieces(
    columns: Sequence[Column], nbytes: int, most: int, step: int = BITMAP_ROWS
) -> Iterator[tuple[int, int]]:
    """First row, and one past the last, of pieces of columns of at most nbytes and `most` rows, but of `step` at least.

    The first ones are shorter: until the first has passed a stage, the next one stands idle.
    """
    n, first, share = len(columns[0]), 0, FIRST_SHARE
    while first < n:
        last = min(n, first + max(step, int(share * most) // step * step))

        def size(count: int, first: int = first) -> int:
            return sum(_upload_nbytes(column, first, first + count) for column in columns)

        fitting = bisect.bisect_right(range(last - first + 1), share * nbytes, key=size) - 1
        if first + fitting < n:
            fitting = max(step, fitting // step * step)
        yield first, min(n, first + fitting)
        first, share = first + fitting, min(1.0, 2 * share)


def _upload_nbytes(column: Column, first: int, stop: int) -> int:
    if column.offsets is None:
        return padded((stop - first) * column.width)
    data = int(column.offsets[stop]) - int(column.offsets[first])
    return padded(data) + padded((stop - first + 1) * column.offsets.itemsize)
