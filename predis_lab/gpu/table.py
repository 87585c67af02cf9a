"""DeviceTable: an index of 64-byte buckets over a log of records in device memory; what has no room there, see `tiers`.

Columns come in and go out in memory the device reaches (device arrays, or pinned host arrays); moving anything
else across is the engine's job. Calls are ordered: each waits, on the device, for the one before it, whatever
stream it was made on. How a batch is stored: `appending`.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

import cupy
import numpy as np

from ..columns import Column
from ..errors import DeviceTimeout
from ..table import NEVER
from . import kernels, launching, maintain_kernels, sizing
from .health import TIMEOUT_S, Health
from .maintenance import Compactions, compact_step
from .mapped import Lookup
from .memory import SLACK_NBYTES, Arena, Scratch, Segment, from_driver, on_device
from .modules import prepare
from .packed import Packed
from .pinned import pinned
from .sizing import ALONE_NBYTES, LIST_WORDS, LONG_NBYTES, MIN_INDEX
from .tiers import Tiers

# That every table launches kernels of.
MODULES = ("find", "insert", "erase", "maintain", "stretches", "columns")


class DeviceTable:
    """Records of variable length by variable-length keys.

    capacity:       bytes of device memory for index and log together
    host_capacity:  bytes of pinned memory for what the log has no room for there, taken as they are needed
    checksums:      whether every record carries one, see gpu/checksums.py
    health:         how long to wait for the device, and whose lock to leave meanwhile
    scratch:        what small arrays are taken from

    unreported:     rows inserted that nobody has waited for yet
    posted:         what waits for those that a block at the doorbell has been given; None: there are none
    """

    def __init__(
        self,
        capacity: int,
        host_capacity: int = 0,
        checksums: bool = False,
        health: Health | None = None,
        scratch: Scratch | None = None,
    ):
        # Not in the middle of somebody's call.
        names = *MODULES, *["tiers"] * bool(host_capacity), *["checksum"] * checksums
        prepare([(name, ()) for name in names])
        self.health = health or Health(TIMEOUT_S)
        self._unread = False  # the last report: it had not come when it was waited for
        self.unreported = 0
        self.posted: Callable[[], None] | None = None
        self.arena = Arena(capacity, sizing.segment_nbytes(capacity, host_capacity))
        self.compactions = Compactions()
        self.checksums = checksums
        self.scratch = scratch = scratch or Scratch()
        self.tiers = Tiers(self, host_capacity)
        self.counters = scratch.take(kernels.COUNTERS, np.uint64)
        self.report = pinned(kernels.REPORT_WORDS, np.uint64)
        self.work = scratch.take(kernels.WORK_WORDS, np.uint64)
        self.work.fill(0)
        self.counters_at = launching.address(self.counters, "u8", kernels.COUNTERS)
        self.report_at = launching.address(self.report, "u8", kernels.REPORT_WORDS)
        self.work_at = launching.address(self.work, "u8", kernels.WORK_WORDS)
        self._places = scratch.take(sizing.BRIEF_ROWS, np.uint64)
        self.places_at = launching.address(self._places, "u8", sizing.BRIEF_ROWS)
        self._listed = scratch.take(LIST_WORDS, np.uint64)
        self._listed_at = launching.address(self._listed, "u8", LIST_WORDS)
        self._states, self._states_at = on_device(0, np.uint64), 0
        self._epoch = kernels.LAST_EPOCH
        self._stream: Any = None
        self._idle = False  # whether it is known that nothing is under way
        self.launches = 0  # and what else may change what a block at the doorbell sees
        self.epoch = 0  # of the index: a slot number means nothing in the next one
        self.clear()

    # ---- What it holds

    @property
    def load_factor(self) -> float:
        """Share of the slots that hold a record."""
        return self.entries / self.slots

    def clear(self) -> None:
        """Removes every record; the device's capacity stays taken."""
        self.enter()
        self.tiers.clear()
        self.arena.clear()
        self.set_index(from_driver(self.arena.taken(MIN_INDEX)), MIN_INDEX)
        self.arena.require()
        self.counters.fill(0)
        self.entries = self.erased = self.live_nbytes = self.max_value_nbytes = 0
        self.stuck_nbytes = 0  # dead, but not worth moving when compaction last looked
        # The length of every value written since, where there is but one.
        self.uniform_nbytes: int | None = None
        self.has_expiry = False

    def close(self) -> None:
        """Gives the memory back once the device is done; the table is of no use any more."""
        self.health.wait(self.enter(), "what was under way")
        self.tiers.clear()
        self.arena.close()
        del (
            self.index,
            self._places,
            self._states,
            self._listed,
            self.tiers,
            self.counters,
            self.work,
            self.scratch,
        )

    def count(self, now_ms: int) -> int:
        """Records that have not expired."""
        self.settle()
        if self._unread or self.has_expiry:
            self.enter()
        if not self.has_expiry:
            return self.entries
        count = cupy.zeros(1, np.uint64)
        maintain_kernels.count_alive(self.index, now_ms, count)
        return int(count[0])

    # ---- Reading

    def find(
        self,
        keys: Column,
        now_ms: int,
        *,
        new: Callable[[int], Any],
        capacity: int,
        count: Any = None,
    ) -> Packed:
        """The values, on their way on the current stream.

        new, count: as of `Packed.empty`. capacity: bytes to have ready for them. Where they turn out to be more, they
        are missing, and the call has to be made again with as many as there are. Where keys and all values of the table
        are whole pieces of 16 bytes, and not a few long ones are asked for, absent keys take up as many zero bytes as the others,
        and the total is known at once.
        """
        stream, width = self.enter(), self.uniform_nbytes
        n = len(keys)
        dense = width is not None and kernels.are_dense(n, width) and kernels.is_dense(keys)
        if width is not None and dense and n * width <= capacity:
            packed = Packed.empty(n, n * width, new, full=True)
            kernels.find_dense(keys, self.index_at, now_ms, width, *packed.arrays[:3])
            return packed
        packed = Packed.empty(n, capacity, new, count=count)
        output, listed = self._output(packed, stream), self._listed_if_long(stream)
        kernels.find(keys, self.index_at, now_ms, output, listed=listed)
        return packed

    def look_up(self, keys: Column, capacity: int, now_ms: int, stream: Any) -> Lookup:
        """The same on a stream for a few keys in host memory, which go along. capacity: below 2 GiB

        raises: PinnedMemoryUnavailable
        """
        call = self._copied(keys, capacity)
        self.enter(stream)
        values, offsets, validity, total = call.places
        if call.width is not None:
            places = values, None, validity
            kernels.find_dense(call.keys, self.index_at, now_ms, call.width, *places, stream=stream)
        else:
            rows, blocks = launching.packing(keys.length)
            scan = rows, *self._scan(blocks, stream)
            output = values, capacity, offsets, 0, validity, total, *scan
            listed = self._listed_if_long(stream)
            kernels.find(call.keys, self.index_at, now_ms, output, stream, listed)
        return call

    def _copied(self, keys: Column, capacity: int) -> Lookup:
        """The memory of `look_up`. Where that takes a while, others get through meanwhile."""
        width = self.uniform_nbytes
        if width is not None and (
            not kernels.are_dense(keys.length, width)
            or keys.length * width > capacity
            or not kernels.is_in_pieces(keys)
        ):
            width = None
        room = capacity if width is None else keys.length * width
        if keys.nbytes <= ALONE_NBYTES:
            return Lookup(keys, room, width)
        with self.health.unlocked():
            call = Lookup(keys, room, width)
        # Values of other lengths may have been stored.
        return call if width in (None, self.uniform_nbytes) else self._copied(keys, capacity)

    def find_rows(self, keys: Column, width: int, now_ms: int) -> tuple[Any, Any] | None:
        """Values of `width` bytes as uint8 (n, width), zeros elsewhere, and which keys have one, bool (n,).

        In device memory, on their way on the current stream; None where keys or values are not whole pieces of 16 bytes.
        """
        whole = width % kernels.PIECE_NBYTES == 0 and kernels.is_dense(keys)
        if width != self.uniform_nbytes or not whole:
            return None
        self.enter()
        n = len(keys)
        memory = cupy.cuda.alloc(n * (width + 1))
        at = memory.ptr, memory.ptr + n * width
        kernels.find_dense(keys, self.index_at, now_ms, width, at[0], None, None, present=at[1])
        rows = cupy.ndarray((n, width), np.uint8, memory)
        return rows, cupy.ndarray((n,), np.bool_, memory + n * width)

    def _listed_if_long(self, stream: Any) -> int:
        return self.listed(stream) if self.max_value_nbytes >= LONG_NBYTES else 0

    def listed(self, stream: Any) -> int:
        """Where long values are listed, see `stretches`: none so far."""
        self._listed.data.memset_async(0, 8, stream)
        return self._listed_at

    def find_nbytes(self, n: int) -> int:
        """The most bytes that n values can have together."""
        return n * self.max_value_nbytes

    def peek(self, keys: Column, now_ms: int, *, present: Any = None, expiry: Any = None) -> None:
        """Fills `present` (bool) and `expiry` (int64), see `Table.expiry`, for each key."""
        self.enter()
        kernels.peek(keys, self.index_at, now_ms, present, expiry)

    def scan(self, first: int, n: int, now_ms: int, capacity: int) -> Packed:
        """The keys in n slots from slot `first` on, null where a slot holds none; as `find`, in pinned memory."""
        stream = self.enter()
        packed = Packed.empty(n, capacity, lambda nbytes: pinned(nbytes, np.uint8))
        slots = self.index[first : first + n]
        maintain_kernels.scan_keys(slots, now_ms, self._output(packed, stream))
        return packed

    # ---- Writing

    def erase(self, keys: Column, now_ms: int, erased: Any) -> None:
        """Removes the keys and fills `erased` (bool, (n,)); returns when the device is done."""
        if len(keys):
            stream = self.enter()
            kernels.erase(
                keys,
                self.index_at,
                now_ms,
                erased,
                self.counters_at,
                self.report_at,
                self.work_at,
            )
            self.read_report(stream)

    def expire(self, keys: Column, expire_at_ms: int, now_ms: int, found: Any) -> None:
        """Sets when the keys expire (NEVER: not at all) and fills `found` (bool, (n,))."""
        self.enter()
        expiry = self.noted_expiry(expire_at_ms)
        kernels.expire(keys, self.index_at, now_ms, expiry, found)

    def noted_expiry(self, expire_at_ms: int) -> int:
        """A moment or NEVER as records hold it, before any of them does."""
        if expire_at_ms == NEVER:
            return 0
        self.has_expiry |= expire_at_ms > 0
        return expire_at_ms

    # ---- Room

    @property
    def is_stale(self) -> bool:
        """Whether as many records are gone as there are slots: buckets they went past still send searches on."""
        return self.erased > self.slots

    def set_index(self, memory: cupy.ndarray, nbytes: int) -> None:
        """Takes the first nbytes of another piece of memory for the index, and empties them."""
        memory.data.memset_async(0, nbytes)
        self.index = memory[:nbytes].view(np.uint64)
        self.index_at = launching.index_arguments(self.index)
        self.slots = len(self.index)
        self.epoch += 1
        self.arena.reserved = self.arena.taken(nbytes)

    def segment_for(
        self, nbytes: int, now_ms: int, keep: Container[Segment], *, promoting: bool = False
    ) -> Segment | None:
        """Another segment than `keep` with room for nbytes, after compaction and demotion if need be; None if no help."""
        arena = self.arena
        while True:
            segment = arena.reopen(nbytes, keep)
            if segment is not None:
                return segment
            # One segment's worth is kept back: compaction needs somewhere to copy to.
            if (
                arena.available
                >= max(nbytes + SLACK_NBYTES, arena.segment_nbytes) + arena.segment_nbytes
            ):
                return arena.append(nbytes)
            if not compact_step(self, now_ms, keep, pressed=True) and not self.tiers.demote(
                now_ms, keep, promoting=promoting
            ):
                return None

    # ---- Launching

    def enter(self, stream: Any = None) -> Any:
        """The stream, as a rule the current one, made to wait for what this table did on another one."""
        self.settle()
        if self._unread and self.health.stuck is None:
            self.take_report()
        self._idle = False
        self.launches += 1
        stream = stream or cupy.cuda.get_current_stream()
        if self._stream is not None and self._stream.ptr != stream.ptr:
            stream.wait_event(self._stream.record())
        self._stream = stream
        return stream

    def _output(self, packed: Packed, stream: Any) -> kernels.Output:
        """What a launch that packs rows writes."""
        scan = self._scan(launching.packing(packed.n)[1], stream)
        return kernels.packed_output(packed.n, *packed.arrays, *scan)

    def _scan(self, blocks: int, stream: Any) -> tuple[int, int, int]:
        """What so many blocks scan with: addresses of ticket and states, and an epoch of which none of these are."""
        if self._states.size < blocks:
            with stream:
                self._states, self._epoch = on_device(2 * blocks, np.uint64), kernels.LAST_EPOCH
            self._states_at = launching.address(self._states, "u8", blocks)
        if self._epoch == kernels.LAST_EPOCH:
            self._states.data.memset_async(0, self._states.nbytes, stream)
            self._epoch = 0
        self._epoch += 1
        return self.work_at, self._states_at, self._epoch

    def read_report(self, stream: Any, *, brief: bool = False) -> int:
        """Waits for the launch, takes over its counters; the bytes it used of the log."""
        try:
            self.health.wait(stream, "a write", brief=brief)
        except DeviceTimeout:
            self._unread = True
            raise
        return self.take_report()

    def read_reports(self, stream: Any, *, brief: bool = False) -> None:
        """Waits for the launches that nobody has waited for; where the device is stuck, whoever calls next does."""
        if not self.unreported:
            return
        if self.health.stuck is None:
            self.read_report(stream, brief=brief)
        else:
            self.health.stuck, self._unread = (stream, "a write"), True

    def settle(self) -> None:
        """Returns when records that were posted are stored; raises DeviceFailed or DeviceTimeout where the device gave up.

        Where the device is stuck already, whoever calls next waits for them.
        """
        if self.posted is not None and self.health.stuck is None:
            self.posted()

    def expect_values(self, longest: int) -> None:
        """Values are being stored that are not as long as all so far: for whoever looks up before they are reported."""
        self.uniform_nbytes = None
        self.max_value_nbytes = max(self.max_value_nbytes, longest)

    def is_idle(self) -> bool:
        """Whether all that was launched is done, and has been reported: who then asks in no stream's order sees the same."""
        if not self._idle and not self._unread and not self.unreported:
            self._idle = self._stream is None or self._stream.done
        return self._idle

    def leave_unread(self) -> None:
        """For whoever calls next: a write may have gone on, and its report is still to come."""
        self._unread, self._idle = True, False
        self.launches += 1

    def take_report(self) -> int:
        """Takes over the counters that a write has reported; the bytes it used of the log."""
        self._unread, self.unreported = False, 0
        entries, self.live_nbytes, _, longest, shortest_complement, used = self.report.tolist()
        if entries < self.entries:
            self.erased += self.entries - entries
        self.entries = entries
        self.max_value_nbytes = longest
        self.uniform_nbytes = longest if longest + shortest_complement == 2**64 - 1 else None
        return used
