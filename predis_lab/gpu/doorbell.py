"""A few keys at a time, asked of a block that stays on the device: no launch, no allocation, no synchronising. Called by `engine`.

The block is started when it is asked for something and leaves by itself some milliseconds later, answers or not
(kernels/doorbell.cu): whatever waits for the device to be idle (a driver that frees memory, another process, the end of this
one) waits no longer than that. A call keeps the table's lock until it is answered, so nothing else is launched meanwhile;
and it is made only while nothing is under way on the device, for the block keeps no stream's order.
"""

from __future__ import annotations

import struct
import time
import weakref
from typing import TYPE_CHECKING, Any

import cupy
import numpy as np

from ..columns import Column
from ..errors import DeviceFailed
from . import kernels
from .batch import record_bound
from .launching import address, index_arguments
from .memory import on_device
from .modules import function
from .packed import padded
from .pinned import pinned
from .sizing import MAX_LOAD, NBYTES, ROWS

if TYPE_CHECKING:
    from .memory import Segment
    from .table import DeviceTable

THREADS = 256
DEFINES = (f"TILE={THREADS}",)

STAY_NS = 5_000_000  # of the block, once started
# Looks at the answer's number, of some ten nanoseconds each, before others get the interpreter.
_SPINS = 2000
_SUSPECT_S = 1e-3  # after which it is asked whether the block still lives

# Words of a mailbox, see kernels/doorbell.cu; STARTED is the host's own: the number of the last block.
ASKED, STARTED, REQUEST, ANSWERED, GONE, TOTAL, WORDS = 0, 1, 8, 32, 33, 34, 40
FIND, PEEK, ERASE, INSERT = 1, 2, 3, 4
_REQUEST = struct.Struct("22Q")
_SENT = 8 * 64  # where columns begin
_BROUGHT = _SENT + NBYTES
_LEFT_TO_32_BITS = 2**64 - 2  # strides that stand for offsets of 32 and of 64 bits
_LEFT_TO_64_BITS = 2**64 - 1


_abandoned: list[Any] = []  # mailboxes that a block may still look at


class NotServedError(Exception):
    """Another way has to be gone; nothing has changed."""


class Doorbell:
    """A mailbox in mapped pinned memory, and the block that answers. Whoever writes holds the table's turn to do so.

    dead:  whether a block ended without a word: none is asked again
    """

    def __init__(self, table: DeviceTable):
        self.table, self.health = table, table.health
        self._memory = pinned(_BROUGHT + NBYTES, np.uint8)
        self._memory[:_SENT] = 0
        self._at = self._memory.ctypes.data
        self._bytes = self._memory.view(np.ndarray)  # whose slices cost half as much
        self._view = self._bytes.data
        self._words = self._view[: 8 * WORDS].cast("Q")
        # Nobody else gets memory that a block looks at.
        self._leave = weakref.finalize(self, _until_gone, self._memory, self._words)
        self._places = on_device(ROWS, np.uint64)
        self._kernel = function("doorbell", "serve", DEFINES)
        # The device's first choice where its multiprocessors are all taken.
        self._stream = cupy.cuda.Stream(non_blocking=True, priority=-5)
        self._asked = 0
        self.dead = False
        counters = address(table.counters, "u8", kernels.COUNTERS)
        report = address(table.report, "u8", kernels.REPORT_WORDS)
        work = address(table.work, "u8", kernels.WORK_WORDS)
        self._own = counters, report, work, address(self._places, "u8", ROWS)
        self._epoch, self._index = -1, (0, 0)

    # ---- Verbs; each raises NotServedError where the table has to be asked in another way

    def get(self, key: bytes, now_ms: int) -> bytes | None:
        """The value of one key, or None."""
        n = len(key)
        self._begin(1, n)
        self._view[_SENT : _SENT + n] = key
        self._ask_for_values((self._at + _SENT, 0, n), 1, now_ms)
        if not self._view[_BROUGHT] & 1:
            return None
        begin = _BROUGHT + _values_at(1)
        return self._view[begin : begin + self._words[TOTAL]].tobytes()

    def find(self, keys: Column, now_ms: int) -> Column:
        """The values of some keys, in memory of their own."""
        n = len(keys)
        self._begin(n, _nbytes(keys))
        self._ask_for_values(self._put(keys, _SENT)[0], n, now_ms)
        offsets, values = padded(-(-n // 8)), _values_at(n)
        brought = self._bytes[_BROUGHT : _BROUGHT + values + self._words[TOTAL]].copy()
        places = brought[offsets : offsets + 4 * (n + 1)].view(np.int32)
        return Column(brought[values:], places, 0, n, brought[: -(-n // 8)])

    def contains(self, keys: Column, now_ms: int) -> np.ndarray:
        """bool per key."""
        return self._peek(keys, now_ms, np.bool_, 0)

    def expiry(self, keys: Column, now_ms: int) -> np.ndarray:
        """int64 per key, as `Table.expiry`."""
        return self._peek(keys, now_ms, np.int64, 1)

    def erase(self, keys: Column, now_ms: int) -> np.ndarray:
        """bool per key."""
        n = len(keys)
        self._begin(n, _nbytes(keys))
        self._write(ERASE, n, self._put(keys, _SENT)[0], now_ms)
        return self._brought(n, np.bool_)

    def insert(self, keys: Column, values: Column, expire_at_ms: int, now_ms: int) -> np.ndarray:
        """A status per record, where log and index have room for all of them."""
        n = len(keys)
        self._begin(n, padded(_nbytes(keys)) + _nbytes(values))
        bound = record_bound(keys, values, 0, n)
        segment = self._segment(n, bound)
        sent, begin = self._put(keys, _SENT)
        stored, _ = self._put(values, begin)
        self._insert(n, sent, stored, expire_at_ms, now_ms, segment, bound)
        return self._brought(n, np.int8)

    def put(self, key: bytes, value: bytes, expire_at_ms: int, now_ms: int) -> int:
        """The status of one record."""
        n, begin, size = len(key), _SENT + padded(len(key)), len(value)
        self._begin(1, padded(n) + size)
        bound = kernels.record_nbytes(n, size)
        segment = self._segment(1, bound)
        self._view[_SENT : _SENT + n] = key
        self._view[begin : begin + size] = value
        sent, stored = (self._at + _SENT, 0, n), (self._at + begin, 0, size)
        self._insert(1, sent, stored, expire_at_ms, now_ms, segment, bound)
        return self._view[_BROUGHT]

    def close(self) -> None:
        """Returns when the block has left."""
        self._leave()

    # ---- Inside

    def _segment(self, n: int, nbytes: int) -> Segment:
        """Where n records are written to, if log and index have room for them as they are."""
        table = self.table
        segments = table.arena.segments
        if not segments or table.is_stale or table.entries + n > MAX_LOAD * table.slots:
            raise NotServedError
        if segments[-1] is table.tiers.target or nbytes > segments[-1].room:
            raise NotServedError
        return segments[-1]

    def _insert(
        self,
        n: int,
        keys: tuple[int, int, int],
        values: tuple[int, int, int],
        expire_at_ms: int,
        now_ms: int,
        segment: Segment,
        bound: int,
    ) -> None:
        expiry = self.table.noted_expiry(expire_at_ms)
        tail = segment.address + segment.used
        segment.used += bound  # lest anything is written there should the answer not come
        segment.used += self._write(INSERT, n, keys, now_ms, values, expiry, tail, bound) - bound

    def _begin(self, n: int, nbytes: int) -> None:
        """Raises NotServedError for a call that is too large, or while the device is at work."""
        table = self.table
        if self._words[ANSWERED] != self._asked:  # of a call that was interrupted
            self._wait(self._asked)
        if n > ROWS or not 0 < nbytes <= NBYTES - 24 * ROWS or self.dead or not table.is_idle():
            raise NotServedError
        if table.tiers.holds:  # what is looked up there may have to move
            raise NotServedError
        if table.epoch != self._epoch:
            self._index, self._epoch = index_arguments(table.index), table.epoch

    def _put(self, column: Column, begin: int) -> tuple[tuple[int, int, int], int]:
        """Copies a host column into the mailbox; how a kernel takes it, and where there is room for the next."""
        first, last = column.span
        end = begin + last - first
        self._bytes[begin:end] = column.data[first:last]
        if column.offsets is None:
            return (self._at + begin, 0, column.width), padded(end)
        at = padded(end)
        end = at + column.offsets.nbytes
        np.subtract(column.offsets, first, out=self._bytes[at:end].view(column.offsets.dtype))
        wide = column.offsets.dtype.itemsize == 8
        stride = _LEFT_TO_64_BITS if wide else _LEFT_TO_32_BITS
        return (self._at + begin, self._at + at, stride), padded(end)

    def _brought(self, n: int, dtype: Any) -> np.ndarray:
        nbytes = n * np.dtype(dtype).itemsize
        return self._bytes[_BROUGHT : _BROUGHT + nbytes].view(dtype).copy()

    def _ask_for_values(self, sent: tuple[int, int, int], n: int, now_ms: int) -> None:
        at, values = self._at + _BROUGHT, _values_at(n)
        room = NBYTES - values
        self._ask(FIND, n, sent, now_ms, answer=(at + values, at + padded(-(-n // 8)), at, room))
        if self._words[TOTAL] > room:
            raise NotServedError

    def _peek(self, keys: Column, now_ms: int, dtype: Any, place: int) -> np.ndarray:
        n = len(keys)
        self._begin(n, _nbytes(keys))
        answer = [0, 0, 0, 0]
        answer[place] = self._at + _BROUGHT
        self._ask(PEEK, n, self._put(keys, _SENT)[0], now_ms, answer=tuple(answer))
        return self._brought(n, dtype)

    def _ask(
        self,
        verb: int,
        n: int,
        keys: tuple[int, int, int],
        now_ms: int,
        values: tuple[int, int, int] = (0, 0, 0),
        expiry: int = 0,
        tail: int = 0,
        room: int = 0,
        answer: tuple[int, ...] | None = None,
    ) -> None:
        """Rings, and waits for the answer."""
        words, place = self._words, answer or (self._at + _BROUGHT, 0, 0, 0)
        _REQUEST.pack_into(
            self._view, 8 * REQUEST, verb, n, *keys, *values, *self._index, now_ms, expiry, tail, room, *place, *self._own
        )  # fmt: skip
        self._asked = number = self._asked + 1
        words[ASKED] = number
        if words[GONE] == words[STARTED]:
            self._start()
        try:
            for _ in range(_SPINS):
                if words[ANSWERED] == number:
                    return
            self._wait(number)
        except KeyboardInterrupt:
            self._wait(number)  # nothing may be launched beside it
            raise

    def _write(self, *asked: Any) -> int:
        """As `_ask`, and takes over the table's counters; bytes used of the log."""
        try:
            self._ask(*asked)
        except NotServedError:
            raise DeviceFailed("a write was under way when the device stopped answering") from None
        except BaseException:  # what it has changed is told by its report, once that is there
            self.table.leave_unread()
            raise
        return self.table.take_report()

    def _start(self) -> None:
        self._words[STARTED] = number = self._words[STARTED] + 1
        with self._stream:
            self._kernel((1,), (THREADS,), (self._at, number, STAY_NS))

    def _wait(self, number: int) -> None:
        words, began = self._words, time.perf_counter()
        while words[ANSWERED] != number:
            waited = time.perf_counter() - began
            if words[GONE] == words[STARTED]:
                if words[ANSWERED] != number:  # it left just before it was asked
                    self._start()
            elif waited > _SUSPECT_S and self._stream.done:
                if words[ANSWERED] != number and words[GONE] != words[STARTED]:
                    self.dead = True
                    raise NotServedError
            elif waited > self.health.timeout_s:
                self.health.give_up(self._stream, "a small call")
            time.sleep(0)


def _until_gone(memory: Any, words: Any) -> None:
    """Waits until the last block has left a mailbox; the memory stays taken where none ever does."""
    began = time.perf_counter()
    while words[GONE] != words[STARTED]:
        if time.perf_counter() - began > 1:
            _abandoned.append(memory)
            return
        time.sleep(1e-4)


def _values_at(n: int) -> int:
    """Where the values of n keys begin in an answer: behind bits, and offsets of 32 bits."""
    return padded(-(-n // 8)) + padded(4 * (n + 1))


def _nbytes(column: Column) -> int:
    """Of its rows, where they lie on the host."""
    if column.on_device:
        raise NotServedError
    return column.nbytes
