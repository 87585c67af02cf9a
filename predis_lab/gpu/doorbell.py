"""A few keys at a time, asked of a block that stays on the device: no launch, no allocation, no synchronising. Called by `engine`.

A call is made only while nothing is under way on the device, for the block keeps no stream's order, and keeps the table's lock
until it is answered, so nothing else is launched meanwhile. A single record with room for it is posted: it lies in a mailbox,
whoever asks there later finds it stored, and who launches anything waits for it first (`DeviceTable.settle`) and is told where
the device had stopped answering. The block reads no memory that was not there when it was started: where the table has taken
some since, it is told to leave and started again.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ..columns import BINARY, Column
from ..errors import DeviceFailed
from ..table import ABSENT, NEVER, RECORD_HEADER_NBYTES, Status
from . import kernels, mailbox
from .batch import record_bound
from .block import Block, NotServedError
from .guard import named
from .launching import index_arguments
from .mailbox import ANSWERED, BOX_NBYTES, BOXES, GONE, TOTAL  # asked for by every call
from .packed import padded, uniform_offsets
from .sizing import HARD_LOAD, MAX_LOAD, NBYTES, ROWS

if TYPE_CHECKING:
    from .memory import Segment
    from .table import DeviceTable

_STORED = int(Status.STORED)
_BOOL, _INT8, _INT64 = np.dtype(np.bool_), np.dtype(np.int8), np.dtype(np.int64)


class Doorbell(Block):
    """What the block is asked, by whoever holds the table's turn to do so. Columns lie on the host."""

    def __init__(self, table: DeviceTable):
        super().__init__(table)
        self._memory_seen = (0, 0)  # see `_look_again`
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
        n, table = keys.length, self.table
        self._begin(n, keys.nbytes)
        if table.uniform_nbytes is None:
            self.settle()  # what has been posted may well be of one length
        width = table.uniform_nbytes
        if width and kernels.are_dense(n, width) and kernels.is_in_pieces(keys):
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

        # As `_ask` would, a quarter of a microsecond sooner.
        data, sent, to, view = keys.data, n * keys.width, self._to, self._view
        view[mailbox.SENT : mailbox.SENT + sent] = data if data.size == sent else data[:sent]
        self._asked = a = self._asked + 1
        mailbox.REQUEST.pack_into(
            view, a % BOXES * BOX_NBYTES, mailbox.DENSE | 6 << 4 | self._buckets << 16, now_ms, self._index, a,
            n, sent, 0, a, 0, 0, keys.width, a, 0, 0, 0, a, 0, 0, width, a, to + mailbox.DENSE_AT, 0, to, a,
        )  # fmt: skip
        room, answer = self._be_answered(a, prepare)
        room[:] = self._view[mailbox.BROUGHT : mailbox.BROUGHT + nbytes]
        return answer

    def contains(self, keys: Column, now_ms: int) -> np.ndarray:
        """bool per key."""
        return self._peek(keys, now_ms, _BOOL, self._to)

    def expiry(self, keys: Column, now_ms: int) -> np.ndarray:
        """int64 per key, as `Table.expiry`."""
        return self._peek(keys, now_ms, _INT64, 0, self._to)

    def expiry_of(self, key: bytes, now_ms: int) -> int:
        """The same of one key."""
        if len(key) > mailbox.SHORT_NBYTES:
            return int(self.expiry(Column.single(key), now_ms)[0])
        self._be_answered(self._send_shortly(mailbox.LOOK, key, now_ms))
        if not self._words[TOTAL]:
            return ABSENT
        moment = self._words[mailbox.EXPIRY]
        return NEVER if moment == 2**64 - 1 else moment

    def erase(self, keys: Column, now_ms: int) -> np.ndarray:
        """bool per key."""
        n = keys.length
        self._begin(n, keys.nbytes)
        self._settle(self._ask(mailbox.ERASE, keys, now_ms, 0, self._to))
        return self._brought(n, _BOOL)

    def drop(self, key: bytes, now_ms: int) -> bool:
        """The same of one key."""
        self.settle()  # who erases tells by the table's counters how many records are gone
        if len(key) > mailbox.SHORT_NBYTES:
            return bool(self.erase(Column.single(key), now_ms)[0])
        self._settle(self._send_shortly(mailbox.DROP, key, now_ms))
        return self._words[TOTAL] != 0

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


def _none() -> None:
    """A reference to nothing."""
