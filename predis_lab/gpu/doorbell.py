"""A few keys at a time, asked of a block that stays on the device: no launch, no allocation, no synchronising. Called by `engine`.

The block is started when it is asked for something and leaves by itself some milliseconds later, answers or not
(kernels/doorbell.cu): whatever waits for the device to be idle (a driver that frees memory, another process, the end of this
one) waits no longer than that. A call is made only while nothing is under way on the device, for the block keeps no stream's
order, and keeps the table's lock until it is answered, so nothing else is launched meanwhile. A single record with room for it
is posted: it lies in a mailbox, whoever asks there later finds it stored, and who launches anything waits for it first
(`DeviceTable.settle`) and is told where the device had stopped answering. The block reads no memory that was not there when
it was started: where the table has taken some since, it is told to leave and started again.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import cupy
import numpy as np
import pyarrow as pa

from ..columns import BINARY, Column
from ..errors import DeviceFailed
from ..table import RECORD_HEADER_NBYTES, Status
from . import kernels, mailbox
from .batch import record_bound
from .guard import named
from .health import pause
from .launching import address, index_arguments
from .mailbox import ANSWERED, BOX_NBYTES, BOXES, GONE, TOTAL  # asked for by every call
from .memory import device_bytes, on_device
from .modules import function
from .packed import padded, uniform_offsets
from .pinned import pinned
from .sizing import HARD_LOAD, MAX_LOAD, NBYTES, ROWS

if TYPE_CHECKING:
    from .memory import Segment
    from .table import DeviceTable

THREADS = 512
DEFINES = (f"TILE={THREADS}", "ROWS_PER_THREAD=1")

STAY_NS = 5_000_000  # of the block, once started
# Looks at the answer's number, of some ten nanoseconds each, before others get the interpreter.
_SPINS = range(2000)
_SUSPECT_S = 1e-3  # after which it is asked whether the block still lives

_STORED = int(Status.STORED)
_BOOL, _INT8, _INT64 = np.dtype(np.bool_), np.dtype(np.int8), np.dtype(np.int64)


class NotServedError(Exception):
    """Another way has to be gone; nothing has changed."""


class Doorbell:
    """Mailboxes in mapped pinned memory, and the block that answers. Whoever writes holds the table's turn to do so.

    Columns lie on the host.

    dead:  whether a block ended without a word: none is asked again
    """

    def __init__(self, table: DeviceTable):
        self.table, self.health = table, table.health
        self._memory = pinned(mailbox.BROUGHT + NBYTES, np.uint8)
        self._memory[: mailbox.SENT] = 0
        self._at = self._memory.ctypes.data
        self._to = self._at + mailbox.BROUGHT  # where the block answers
        self._view = self._memory.data  # slices of which cost the least
        self._words = self._view[: mailbox.SENT].cast("Q")
        # Nobody else gets memory that a block looks at.
        self._leave = weakref.finalize(self, mailbox.until_gone, self._memory, self._words)
        self._copied, self._places = device_bytes(NBYTES), on_device(ROWS, np.uint64)
        self._from = self._copied.data.ptr - mailbox.SENT  # what is sent lies there for kernels
        self._kernel = function("doorbell", "serve", DEFINES)
        # The device's first choice where its multiprocessors are all taken.
        self._stream = cupy.cuda.Stream(non_blocking=True, priority=-5)
        self._asked = self._started = 0
        self.dead = False
        self._own = (
            self._at,
            self._at + mailbox.SENT,
            self._to,
            NBYTES,
            self._copied.data.ptr,
            address(table.counters, "u8", kernels.COUNTERS),
            address(table.report, "u8", kernels.REPORT_WORDS),
            address(self._places, "u8", ROWS),
        )
        self._seen, self._memory_seen = -1, (0, 0)  # launches; see `_look_again`
        self._index = self._buckets = 0
        self._uncrowded = self._most_entries = 0  # entries, before and after a write
        # Weakly held: the arena may give it back to the driver before this is asked again.
        self._segment: Callable[[], Segment | None] = _none
        self._first = 0  # where that begins

    # ---- Verbs; each raises NotServedError where the table has to be asked in another way

    def get(self, key: bytes, now_ms: int) -> bytes | None:
        """The value of one key, or None."""
        n, words = len(key), self._words
        if n > mailbox.SHORT_NBYTES:
            return self.find(Column.single(key), now_ms)[0].as_py()
        self._be_answered(self._send_shortly(mailbox.GET, key, now_ms))
        total = words[TOTAL]
        if not total:
            return None
        begin = mailbox.BROUGHT + RECORD_HEADER_NBYTES + n
        end = begin + total - 1
        if end > len(self._view):
            raise NotServedError
        return self._view[begin:end].tobytes()

    def find(self, keys: Column, now_ms: int) -> pa.Array:
        """The values of some keys, in memory of their own."""
        n, width = keys.length, self.table.uniform_nbytes
        self._begin(n, keys.nbytes)
        if width and width % kernels.PIECE_NBYTES == 0 and kernels.is_in_pieces(keys):
            return self._find_dense(keys, width, now_ms)
        offsets_at, to = padded(-(-n // 8)), self._to
        begin = offsets_at + padded(4 * (n + 1))
        room = NBYTES - begin
        self._be_answered(
            self._ask(mailbox.FIND, keys, now_ms, room, to + begin, to + offsets_at, to)
        )
        total = self._words[TOTAL]
        if total > room:
            raise NotServedError
        memory = pa.py_buffer(
            self._view[mailbox.BROUGHT : mailbox.BROUGHT + begin + total].tobytes()
        )
        offsets = memory.slice(offsets_at, 4 * (n + 1))
        return pa.Array.from_buffers(BINARY, n, [memory, offsets, memory.slice(begin)])

    def _find_dense(self, keys: Column, width: int, now_ms: int) -> pa.Array:
        """The same where all values have one length: what is known of the answer is made while it is waited for."""
        n = keys.length
        nbytes = mailbox.DENSE_AT + n * width
        if nbytes > NBYTES:
            raise NotServedError

        def prepare() -> tuple[memoryview, pa.Array]:
            room = memoryview(bytearray(nbytes))
            memory, offsets = pa.py_buffer(room.toreadonly()), uniform_offsets(n, width)
            buffers = [memory, pa.py_buffer(offsets), memory.slice(mailbox.DENSE_AT)]
            return room, pa.Array.from_buffers(BINARY, n, buffers)

        number = self._ask(
            mailbox.DENSE, keys, now_ms, width, self._to + mailbox.DENSE_AT, 0, self._to
        )
        room, answer = self._be_answered(number, prepare)
        room[:] = self._view[mailbox.BROUGHT : mailbox.BROUGHT + nbytes]
        return answer

    def contains(self, keys: Column, now_ms: int) -> np.ndarray:
        """bool per key."""
        key = _only(keys)
        if key is None:
            return self._peek(keys, now_ms, _BOOL, self._to)
        self._be_answered(self._send_shortly(mailbox.LOOK, key, now_ms))
        return np.array([self._words[TOTAL] != 0])

    def expiry(self, keys: Column, now_ms: int) -> np.ndarray:
        """int64 per key, as `Table.expiry`."""
        key = _only(keys)
        if key is None:
            return self._peek(keys, now_ms, _INT64, 0, self._to)
        self._be_answered(self._send_shortly(mailbox.LOOK, key, now_ms))
        return np.array([self._words[mailbox.EXPIRY]], np.uint64).view(np.int64)

    def erase(self, keys: Column, now_ms: int) -> np.ndarray:
        """bool per key."""
        key = _only(keys)
        if key is not None:
            self._settle(self._send_shortly(mailbox.DROP, key, now_ms))
            return np.array([self._words[TOTAL] != 0])
        n = keys.length
        self._begin(n, keys.nbytes)
        self._settle(self._ask(mailbox.ERASE, keys, now_ms, 0, self._to))
        return self._brought(n, _BOOL)

    def insert(self, keys: Column, values: Column, expire_at_ms: int, now_ms: int) -> np.ndarray:
        """A status per record, where log and index have room for all of them."""
        n = keys.length
        self._begin(n, padded(keys.nbytes) + values.nbytes)
        expiry, bound = self.table.noted_expiry(expire_at_ms), record_bound(keys, values, 0, n)
        segment, tail = self._take(n, bound)
        records = values, expiry, tail, bound
        number = self._ask(mailbox.INSERT, keys, now_ms, 0, self._to, 0, 0, *records)
        segment.used += self._settle(number) - bound
        return self._brought(n, _INT8)

    def put(self, key: bytes, value: bytes, expire_at_ms: int, now_ms: int) -> int:
        """STORED once the record lies in a mailbox; its status where it is too long for one."""
        n, size = len(key), len(value)
        if n > mailbox.SHORT_NBYTES or size > mailbox.SHORT_VALUE_NBYTES:
            keys, values = Column.single(key), Column.single(value)
            return int(self.insert(keys, values, expire_at_ms, now_ms)[0])
        table, words = self.table, self._words
        if table.launches != self._seen:
            self._look_again()
        expiry = table.noted_expiry(expire_at_ms)
        _, tail = self._take(1, kernels.record_nbytes(n, size))
        sectors = -(-size // 24)
        what = mailbox.PUT | (3 + sectors) << 4 | n << 8 | self._buckets << 16
        a = self._asked + 1
        parts = value[:24], a, value[24:48], a, value[48:72], a, value[72:96], a, value[96:], a
        # A box stays free for whoever asks next.
        if words[ANSWERED] + BOXES <= a:
            self._await_write(a + 1 - BOXES)
        if size != table.uniform_nbytes:
            table.expect_values(size)
        table.unreported += 1
        table.posted = self.settle
        self._asked = a
        mailbox.PUTS[sectors].pack_into(
            self._view, a % BOXES * BOX_NBYTES, what, now_ms, self._index, a, key, a, expiry, tail, size, a,
            *parts[: 2 * sectors],
        )  # fmt: skip
        if words[GONE] == self._started:
            self._await_write(0)  # only that there is a block
        return _STORED

    def settle(self) -> None:
        """Returns when what was posted is stored, and takes over the table's counters."""
        if self.table.posted is not None:
            self._settle(self._asked)

    def close(self) -> None:
        """Returns when the block has left; what was posted may not be stored."""
        self.table.posted = None
        self._leave()

    # ---- Inside

    def _begin(self, n: int, nbytes: int) -> None:
        """Raises NotServedError for a call that is too large, or while the device is at work."""
        if n > ROWS or not 0 < nbytes <= mailbox.MOST_NBYTES:
            raise NotServedError
        if self.table.launches != self._seen:
            self._look_again()

    @named
    def _look_again(self) -> None:
        """What may have changed since the table last launched something; raises NotServedError while that is under way."""
        table = self.table
        self.settle()
        if self.dead:
            raise NotServedError
        if self._words[ANSWERED] != self._asked:  # of a call that was interrupted
            self._wait(self._asked)
        # What is looked up in the tiers may have to move.
        if not table.is_idle() or table.tiers.holds:
            raise NotServedError
        memory = table.epoch, table.arena.allocations
        if memory != self._memory_seen and self._words[GONE] != self._started:
            self._seen = table.launches
            self._be_answered(self._send_shortly(mailbox.LEAVE, b"", 0))
        self._memory_seen = memory
        self._index, self._buckets = index_arguments(table.index)
        # As `appending` has it: who finds the index too full has it grown, and that is not done here.
        self._uncrowded = int(MAX_LOAD * table.slots)
        self._most_entries = int(HARD_LOAD * table.slots)
        segments = table.arena.segments
        self._segment = _none
        if segments and segments[-1] is not table.tiers.target:
            self._segment, self._first = weakref.ref(segments[-1]), segments[-1].address
        self._seen = table.launches

    def _take(self, n: int, nbytes: int) -> tuple[Segment, int]:
        """Where n records of nbytes together are written; raises NotServedError where log or index have no room as they are.

        Nothing else is written there, should the answer not come.
        """
        segment = self._segment()
        if segment is None or nbytes > segment.room:
            raise NotServedError
        if not self._has_slots(n):
            self.settle()  # there are as many records as have been posted, or fewer
            if not self._has_slots(n):
                raise NotServedError
        tail = self._first + segment.used
        segment.used += nbytes
        return segment, tail

    def _has_slots(self, n: int) -> bool:
        """Whether the index takes n more records as it is, if all that were posted are new ones."""
        table = self.table
        entries = table.entries + table.unreported
        most = self._most_entries - n
        return entries <= self._uncrowded and entries <= most and not table.is_stale

    def _brought(self, n: int, dtype: np.dtype) -> np.ndarray:
        copied = bytearray(self._view[mailbox.BROUGHT : mailbox.BROUGHT + n * dtype.itemsize])
        return np.frombuffer(copied, dtype)

    def _peek(
        self, keys: Column, now_ms: int, dtype: np.dtype, present: int, moments: int = 0
    ) -> np.ndarray:
        n = keys.length
        self._begin(n, keys.nbytes)
        self._be_answered(self._ask(mailbox.PEEK, keys, now_ms, 0, present, moments))
        return self._brought(n, dtype)

    def _ask(
        self,
        verb: int,
        keys: Column,
        now_ms: int,
        capacity: int,
        data: int,
        offsets: int = 0,
        bits: int = 0,
        values: Column | None = None,
        expiry: int = 0,
        tail: int = 0,
        room: int = 0,
    ) -> int:
        """Writes a request; its number. data, offsets, bits: addresses of the answer"""
        (k0, k1, k2), end = mailbox.write(self._view, self._from, keys, mailbox.SENT)
        v0 = v1 = v2 = 0
        if values is not None:
            (v0, v1, v2), end = mailbox.write(self._view, self._from, values, end)
        self._asked = a = self._asked + 1
        mailbox.REQUEST.pack_into(
            self._view, a % BOXES * BOX_NBYTES, verb | 6 << 4 | self._buckets << 16, now_ms, self._index, a,
            keys.length, end - mailbox.SENT, expiry, a, k0, k1, k2, a, v0, v1, v2, a,
            tail, room, capacity, a, data, offsets, bits, a,
        )  # fmt: skip
        return a

    def _send_shortly(self, verb: int, key: bytes, now_ms: int) -> int:
        """Writes a request about one key; its number."""
        if self.table.launches != self._seen:
            self._look_again()
        self._asked = a = self._asked + 1
        what = verb | 2 << 4 | len(key) << 8 | self._buckets << 16
        mailbox.SHORT.pack_into(
            self._view, a % BOXES * BOX_NBYTES, what, now_ms, self._index, a, key, a
        )
        return a

    def _be_answered(self, number: int, meanwhile: Callable[[], Any] | None = None) -> Any:
        """Returns what was made meanwhile, once there is an answer."""
        words = self._words
        if words[GONE] == self._started:
            self._start()
        try:
            made = meanwhile and meanwhile()
            for _ in _SPINS:
                if words[ANSWERED] >= number:
                    return made
            self._wait(number)
        except (KeyboardInterrupt, MemoryError):
            self._seen = -1
            self._wait(number)  # nothing may be launched beside it
            raise
        return made

    def _settle(self, number: int) -> int:
        """As `_be_answered`, of a write, and takes over the table's counters; bytes used of the log."""
        self._await_write(number)
        self.table.posted = None
        return self.table.take_report()

    def _await_write(self, number: int) -> None:
        table = self.table
        try:
            self._be_answered(number)
        except (NotServedError, DeviceFailed) as error:  # there is no block, and will be none
            table.leave_unread()
            table.posted = None
            if isinstance(error, DeviceFailed):
                raise
            lost = "a write was under way when the device stopped answering"
            raise DeviceFailed(lost) from None
        except BaseException:  # what it has changed is told by its report, once that is there
            table.leave_unread()
            raise

    @named
    def _start(self) -> None:
        self._words[mailbox.STARTED] = self._started = self._started + 1
        with self._stream:
            self._kernel((1,), (THREADS,), (*self._own, self._started, STAY_NS))

    @named
    def _wait(self, number: int) -> None:
        words, began = self._words, time.perf_counter()
        while words[ANSWERED] < number:
            waited = time.perf_counter() - began
            if words[GONE] == self._started:
                if words[ANSWERED] < number:  # it left just before it was asked
                    self._start()
            elif waited > _SUSPECT_S and self._stream.done:
                if words[ANSWERED] < number and words[GONE] != self._started:
                    self.dead, self._seen = True, -1
                    raise NotServedError
            elif waited > self.health.timeout_s:
                self._seen = -1
                self.health.give_up(self._stream, "a small call")
            pause(waited)


def _none() -> None:
    """A reference to nothing."""


def _only(keys: Column) -> bytes | None:
    """The key of a column of one, if a short request takes it."""
    if keys.length != 1:
        return None
    first, last = keys.span
    return keys.data[first:last].tobytes() if last - first <= mailbox.SHORT_NBYTES else None
