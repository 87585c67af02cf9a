"""The part of a table that lies in host memory: how records get there, and how what is read comes back.

The log's oldest segments move to mapped pinned memory when the device has no room left; kernels read them there at the
same address. Host segments are filled one after the other, and when the host's part is full the oldest of them is written
anew without its dead. What is done to the slots: kernels/tiers.cu. Called by `table` and `engine`.
"""

from __future__ import annotations

import warnings
from collections.abc import Container
from typing import TYPE_CHECKING

import cupy
import numpy as np

from ..columns import Column
from . import kernels, maintain_kernels, tier_kernels
from .memory import OPEN_SHARE, SLACK_NBYTES, Arena, Segment, from_host, on_device
from .pinned import pinned

if TYPE_CHECKING:
    from .table import DeviceTable

# Notes of what was read are taken away once in this many reads per record of the table. Half of the records on the device
# and uniform reads: one in twelve of those from the host then moves a record. Twice as many, one in six; without end, one
# in four, and of a Zipf load less stays on the device, for what was read twice long ago comes back as what is read often.
MEMORY_READS = 1 / 4
DEAD_SHARE = (
    1 / 10
)  # of the host's part: from there on its oldest segments are cleaned; and what inserts leave free
# Host segments written anew, at most, for the sake of records that come back: a lookup waits for it, once in that time.
CLEANED_AT_ONCE = 16


class Tiers:
    """A table's host segments, up to `capacity` bytes, and the device segment that records come back to.

    A tenth of the capacity is not filled by inserts: records that come back to the device leave dead ones behind, and
    those they displace there need room at once.
    """

    def __init__(self, table: DeviceTable, capacity: int):
        self.table, self.capacity = table, capacity
        self.host = Arena(capacity, table.arena.segment_nbytes, allocate=from_host)
        self.tally = table.scratch.take(tier_kernels.TALLY_WORDS, np.uint64)
        self.report = pinned(tier_kernels.TALLY_REPORTED, np.uint64)
        self.clear()

    def clear(self) -> None:
        """Forgets all, and gives the host's memory back."""
        if self.host.nbytes:
            # Others get through while this waits: until nothing is left with the lock held, for it is their records' memory.
            while not (stream := self.table.enter()).done:
                self.table.health.wait(stream, "what was under way")
        self.host.close()
        self.host.capacity = self.capacity
        self.tally.fill(0)
        self.report[:] = 0
        self.demoted_nbytes = 0
        self._reads = 0  # since notes were last taken away
        # The device segment that records come back to, taken whole, and what it was filled with before.
        self.target: Segment | None = None
        self._start = 0
        self._stuck = False  # the host had no room when last asked

    @property
    def holds(self) -> bool:
        """Whether there are records on the host."""
        return bool(self.host.segments)

    # ---- Back to the device

    def read(self, keys: Column, now_ms: int) -> None:
        """Notes that the keys were looked up, and brings back what was read twice of late: on the device's own time.

        keys: in memory the device reaches, until the stream has passed. At most one segment comes back.
        """
        if not self.holds or not len(keys):
            return
        self.table.enter()
        self._reads += len(keys)
        if self._reads > MEMORY_READS * self.table.entries:
            tier_kernels.forget(self.table.index)
            self._reads, self._stuck = len(keys), False
        wanted = self._touch(keys, at_once=False)
        # What the last launch has reported may be somewhat old, which only means to ask again next time.
        if self.target is None or self._asked >= (1 - OPEN_SHARE) * self._room:
            self._open(now_ms)
        self._promote(wanted, now_ms)

    @property
    def announced_segments(self) -> int:
        """That records may come back to at one announcement: half of the device's log."""
        return max(1, self.table.arena.capacity // self.table.arena.segment_nbytes // 2)

    def prefetch(self, keys: Column, now_ms: int, segments: int) -> int:
        """Brings the keys' records back, as far as some segments hold them; waits for the device. How many are left."""
        stream = self.table.enter()
        self._stuck = False
        for left in range(segments, 0, -1):
            if not self.holds or (self.target is None and not self._open(now_ms)):
                return 0
            self._promote(self._touch(keys, at_once=True), now_ms)
            self.table.health.wait(stream, "what comes back from the host")
            if self._asked <= self._room:
                return left
            self._settle()
        return 0

    @property
    def unfilled(self) -> int:
        """Bytes of the log that count as used, since records are to come back to them."""
        return max(0, self._room - self._asked)

    @property
    def _room(self) -> int:
        return 0 if self.target is None else self.target.used - self._start

    @property
    def _asked(self) -> int:
        """Bytes of that room that were asked for, as far as reported; more than there are where some found none."""
        return int(self.report[tier_kernels.TAIL])

    def _open(self, now_ms: int) -> bool:
        """Takes another segment for records to come back to, a whole one, for they may be as long; False if there is none."""
        self._settle()
        if self._stuck:
            return False
        room = self.table.arena.segment_room
        segment = self.table.segment_for(room, now_ms, (), promoting=True)
        self._stuck = segment is None
        if segment is None:
            return False
        self.target, self._start = segment, segment.used
        segment.used += segment.room
        self.tally[tier_kernels.TAIL] = 0
        self.report[tier_kernels.TAIL] = 0
        return True

    def _settle(self) -> None:
        """Waits for records on their way back; the segment they come to is one like others again."""
        if self.target is not None:
            used = int(self.tally[tier_kernels.TAIL])
            self.target.used = self._start + min(used, self._room)
            self.target = None

    def _touch(self, keys: Column, at_once: bool) -> cupy.ndarray:
        """The slots whose records are to come back, as many as one segment may hold."""
        most = 1 + self.table.arena.segment_room // tier_kernels.MIN_RECORD_NBYTES
        wanted = on_device(min(len(keys), most), np.uint64)
        tier_kernels.touch(keys, self.table.index, at_once, self.tally, wanted)
        return wanted

    def _promote(self, wanted: cupy.ndarray, now_ms: int) -> None:
        table, target = self.table, self.target
        tier_kernels.promote(
            wanted,
            now_ms,
            0 if target is None else target.address + self._start,
            self._room,
            table.arena.segment_room,
            table.counters,
            self.tally,
            self.report,
        )

    # ---- To the host

    def demote(
        self, now_ms: int, keep: Container[Segment] = (), *, promoting: bool = False
    ) -> bool:
        """Moves the device's oldest segment to the host; False where there is none, or no room for it.

        keep: segments to leave alone. promoting: may fill what is kept back for records that change sides.
        """
        if not self.host.capacity:
            return False
        arena = self.table.arena
        movable = [s for s in arena.segments if s not in keep]
        if movable == [self.target]:
            self._settle()
        source = next((s for s in movable if s is not self.target), None)
        if source is None or not self._make_room(source.used, now_ms, promoting):
            return False
        before = self.host.used
        moved = self._evacuate(source, arena, now_ms)
        self.demoted_nbytes += self.host.used - before
        return moved

    def _make_room(self, nbytes: int, now_ms: int, promoting: bool) -> bool:
        """Room for nbytes in the host's part, beside a segment that cleaning needs; whether there is."""
        host = self.host
        kept = host.segment_nbytes
        if not promoting:
            kept = max(2 * kept, int(DEAD_SHARE * host.capacity))
        wanted = max(nbytes + SLACK_NBYTES, host.segment_nbytes) + kept
        if host.available >= wanted:
            return True
        live = self.host_nbytes(now_ms)
        if host.used - live < max(host.segment_nbytes, DEAD_SHARE * host.used):
            return False
        for _ in range(CLEANED_AT_ONCE if promoting else len(host.segments)):
            oldest = host.segments[0]
            if not self._evacuate(oldest, host, now_ms):
                host.segments.append(host.segments.pop(0))  # too large to be moved, perhaps
            if host.available >= wanted:
                return True
        return False

    def _evacuate(self, source: Segment, arena: Arena, now_ms: int) -> bool:
        """Moves what lives in a segment of `arena` to the host log's tail, and gives the segment back; False for lack of room."""
        host, left = self.host, True
        tail = next((s for s in host.segments[-1:] if s is not source), None)
        if tail is not None and tail.room >= min(source.used, OPEN_SHARE * host.segment_nbytes):
            left = self._move(source, arena, tail, now_ms)
        if left:
            if host.available < max(source.used + SLACK_NBYTES, host.segment_nbytes):
                return False
            tail = host.append(source.used)
            if tail is None:
                self._exhausted()
                return False
            self._move(source, arena, tail, now_ms)
        arena.release(source)
        return True

    def _move(self, source: Segment, arena: Arena, target: Segment, now_ms: int) -> bool:
        """Moves as much as the target has room for; whether something is left."""
        table, stream = self.table, self.table.enter()
        maintain_kernels.relocate(
            table.index,
            now_ms,
            arena is self.host,
            # One segment among others: what lies before it and behind it.
            cupy.array([0, source.address, source.end], np.uint64),
            cupy.array([False, True, False], np.bool_),
            target.address + target.used,
            target.room,
            True,
            table.counters,
            table.report,
            table.work,
        )
        moved, room = table.read_report(stream), target.room
        target.used += min(moved, room)
        return moved > room

    def _exhausted(self) -> None:
        """The system pins no more memory: what there is of it is the capacity from now on."""
        self.host.capacity = self.host.nbytes
        warnings.warn(
            f"no more than {self.host.nbytes:,} bytes of host memory could be pinned: the cache makes do with them",
            RuntimeWarning,
            stacklevel=2,
        )

    # ---- What there is

    def host_nbytes(self, now_ms: int | None = None) -> int:
        """Bytes of live records on the host; with `now_ms` without those that have expired. Waits for the device."""
        table = self.table
        if not self.holds:
            return 0
        table.enter()
        if now_ms is None or not table.has_expiry:
            return int(table.counters[kernels.HOST_NBYTES])
        live = cupy.zeros(1, np.uint64)
        maintain_kernels.census(table.index, now_ms, True, cupy.zeros(1, np.uint64), live)
        return int(live[0])

    def memory(self) -> dict[str, int]:
        """Bytes by purpose: the host's capacity and what is pinned of it, live records on either side."""
        live = self.host_nbytes()
        return {
            "host_capacity": self.host.capacity,
            "host": self.host.nbytes,
            "host_records": live,
            "device_records": self.table.live_nbytes - live,
        }

    def stats(self) -> dict[str, int]:
        """Lookups that met a record on either side while there were any on the host, and bytes that changed sides."""
        self.table.enter()
        tally = self.tally.get()
        return {
            "device_hits": int(tally[tier_kernels.DEVICE_HITS]),
            "host_hits": int(tally[tier_kernels.HOST_HITS]),
            "promoted_bytes": int(tally[tier_kernels.PROMOTED_NBYTES]),
            "demoted_bytes": self.demoted_nbytes,
        }
