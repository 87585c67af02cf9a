"""DeviceEngine: the Table protocol on a GPU. Chooses the way for each call.

A few keys are asked for at the `doorbell` where there is one and the device is idle. Other small calls read keys from and
write answers to mapped pinned memory inside the one kernel they launch (`launched`). Larger ones with columns in host memory
go through `pipeline`. `tuner` says which are small. Columns on the device stay there, on the stream they were made on.

A call is made with `lock` held, and leaves it while it waits for the device: other callers get through meanwhile. Writers
take their turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import cupy
import numpy as np
import pyarrow as pa
from cupy.cuda.runtime import CUDARuntimeError

from ..columns import Column
from ..errors import CacheClosed, CorruptRecord, DeviceFailed, DeviceUnavailable, InvalidArgument
from ..table import NO_CHECKSUMS, Status
from . import mailbox, measuring, usage
from .announced import Announced
from .batch import too_large
from .block import NotServedError
from .checksums import check, verify
from .device import Device
from .doorbell import Doorbell
from .guard import Guard
from .health import TIMEOUT_S, Health
from .launched import Launched
from .maintenance import compact_step
from .memory import Scratch, from_driver, raise_failure
from .moving import on_host
from .pipeline import Pipeline
from .ring import sizes_of
from .singles import Singles
from .sizing import ROWS, SMALL_NBYTES
from .stages import DOORBELL, FIND, INSERT, LAUNCH, PEEK, PIPELINE, Machine
from .table import DeviceTable
from .told import InForce
from .tuner import Tuner
from .tuning import Tuning

# Per step of a scan at least: a launch costs more than reading a few thousand slots.
SCAN_SLOTS = 2**14

BOOL, INT64 = np.dtype(np.bool_), np.dtype(np.int64)  # of answers

_abandoned: list[Any] = []  # closed while the device was stuck: it may still use their memory


def check_device() -> None:
    """Raises DeviceUnavailable with the reason where no CUDA device answers."""
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except CUDARuntimeError as error:
        raise DeviceUnavailable(f"no CUDA device answers: {error}") from error
    if count == 0:
        raise DeviceUnavailable("no CUDA device answers: the driver counts none")


class DeviceEngine(Singles):
    """A table of `capacity_nbytes` on the current device, buffers included, and more on the host; see `Table` for the verbs.

    timeout_s:  how long one step on the device may take before DeviceTimeout is raised
    doorbell:   whether a few keys are asked of a block that stays on the device, where the host can ask it
    tuning:     what to choose by; None: what was measured on this machine, see `measuring`
    """

    def __init__(
        self,
        capacity_nbytes: int,
        host_capacity_nbytes: int = 0,
        checksums: bool = False,
        timeout_s: float = TIMEOUT_S,
        doorbell: bool = False,
        tuning: Tuning | None = None,
    ):
        check_device()
        self.health = Health(timeout_s, raise_failure)
        self.lock = self.health.calls
        self._guard = Guard(self.health)
        self._capacity, self.closed = capacity_nbytes, False
        self._stream = cupy.cuda.Stream(non_blocking=True)
        sizes = sizes_of(capacity_nbytes)
        memory = from_driver(sizes.total)
        if memory is None:
            raise InvalidArgument(f"the device has no {sizes.total:,} bytes left for buffers")
        scratch = Scratch(memory[sizes.rings :] if sizes.scratch else None)
        left = capacity_nbytes - sizes.total
        with self._stream:
            self.table = DeviceTable(left, host_capacity_nbytes, checksums, self.health, scratch)
            self.pipeline = Pipeline(self.table, self._stream, memory, sizes)
            # With checksums records are checked, and sealed, by launches of their own. Where there is none the tuner knows.
            has_doorbell = doorbell and not checksums and mailbox.is_in_order()
            self.doorbell: Any = Doorbell(self.table) if has_doorbell else None
        # Who writes knows what there is: nothing is posted meanwhile.
        self._writing = self.health.holding(self.pipeline.writing, self.table.settle)
        self._launched = Launched(self.table, self.pipeline)
        bell = ROWS if self.doorbell is not None else 0
        base, room, table = Tuning(small_nbytes=SMALL_NBYTES), self.pipeline.room_nbytes, self.table
        self.tuner = Tuner(base, tuning, bell, room, lambda: table.load_factor)
        self.measuring = measuring.Measuring(self)
        self._announced = Announced(self._bring, self.pipeline.writing)

    @property
    def has_expiry(self) -> bool:
        return self.table.has_expiry

    @property
    def is_shared(self) -> bool:
        """Whether more than one call is under way."""
        return self._guard.under_way > 1

    @property
    def tuning(self) -> InForce:
        """What is chosen by, to be looked at."""
        return InForce(self)

    # ---- Reading

    def find(self, keys: Column, now_ms: int) -> pa.Array:
        n, up = keys.length, keys.nbytes
        guess = self._launched.guess_nbytes(n)
        arm, began = self.tuner.turn(FIND, n, up, guess)
        if arm.way is DOORBELL:
            try:
                if self.health.stuck is None:  # as in `get`
                    return self._timed(self.doorbell.find(keys, now_ms), arm, up + guess, began)
            except NotServedError:
                pass
            arm, began = self.tuner.unserved(up + guess), 0.0
        with self._guard:
            self._check(keys, now_ms)
            if arm.way is LAUNCH:
                call = self._launched.find(keys, now_ms, guess)
                if call is not None:
                    return self._timed(call.array(), arm, up + guess, began)
                began = 0.0
            answer = self.pipeline.find(keys, now_ms, arm.setting)
            return self._timed(answer, arm, up + guess, began)

    def find_on_device(self, keys: Column, now_ms: int) -> Column:
        """The values on the device, on the current stream. keys: in any memory."""
        with self._guard:
            self._check(keys, now_ms)
            return self._launched.find_on_device(keys, now_ms).column

    def find_rows(self, keys: Column, width: int, now_ms: int) -> tuple[Any, Any]:
        """Values of `width` bytes as uint8 (n, width), zeros elsewhere, and whether each is one, bool (n,).

        On the device, on the current stream; nothing is waited for where all values have that width.
        """
        with self._guard:
            self._check(keys, now_ms)
            return self._launched.find_rows(keys, width, now_ms)

    def prefetch(self, keys: Column, now_ms: int) -> None:
        self.health.check()
        if self.table.tiers.holds and len(keys):
            self._announced.add(keys, now_ms, self.table.tiers.announced_segments)

    def _bring(self, keys: Column, now_ms: int, segments: int) -> int:
        """Brings up what was announced, see `Announced`, by a thread that holds `writing`."""
        with self.health.lock, self._guard, self._stream:
            return self.table.tiers.prefetch(self._launched.on_device(keys), now_ms, segments)

    def _check(self, keys: Column, now_ms: int) -> None:
        """Raises CorruptRecord where a record no longer matches; before it is read, for so may its length not."""
        if not self.table.checksums:
            return
        corrupt = self._per_key(
            "", keys, now_ms, BOOL, lambda column, out: check(self.table, column, now_ms, out)
        )
        if corrupt.any():
            first = int(corrupt.argmax())
            key = on_host(keys[first : first + 1]).to_arrow()[0].as_py()
            raise CorruptRecord(int(corrupt.sum()), key)

    def verify(self) -> int:
        if not self.table.checksums:
            raise InvalidArgument(NO_CHECKSUMS)
        with self._guard, self._stream:
            return verify(self.table)

    def contains(self, keys: Column, now_ms: int) -> np.ndarray:
        with self._guard:
            return self._per_key(
                "contains",
                keys,
                now_ms,
                BOOL,
                lambda column, out: self.table.peek(column, now_ms, present=out),
            )

    def expiry(self, keys: Column, now_ms: int) -> np.ndarray:
        with self._guard:
            return self._per_key(
                "expiry",
                keys,
                now_ms,
                INT64,
                lambda column, out: self.table.peek(column, now_ms, expiry=out),
            )

    def count(self, now_ms: int) -> int:
        with self._guard, self._stream:
            return self.table.count(now_ms)

    def scan(self, count: int, now_ms: int) -> Iterator[Column]:
        table, slot, epoch = self.table, 0, self.table.epoch
        step = max(SCAN_SLOTS, count)
        while slot < table.slots:
            n = min(step, table.slots - slot)
            with self._guard:
                piece = self._launched.scan(slot, n, now_ms)
            yield piece
            slot += n
            if epoch != table.epoch:
                slot, epoch = 0, table.epoch  # the index has grown: its slots are others now

    # ---- Writing

    def insert(self, keys: Column, values: Column, expire_at_ms: int, now_ms: int) -> np.ndarray:
        with self._guard, self._writing:
            refused = too_large(values)
            if refused is None:
                return self._insert(keys, values, expire_at_ms, now_ms)
            status = np.full(len(keys), Status.TOO_LARGE, np.int8)
            fits = pa.array(~refused)
            keys, values = (
                Column.of(on_host(column).to_arrow().filter(fits)) for column in (keys, values)
            )
            try:
                status[~refused] = self._insert(keys, values, expire_at_ms, now_ms)
            except DeviceFailed as error:
                if error.status is not None:
                    status[~refused], error.status = error.status, status
                raise
            return status

    def _insert(self, keys: Column, values: Column, expire_at_ms: int, now_ms: int) -> np.ndarray:
        if keys.on_device or values.on_device:
            return self._launched.insert(keys, values, expire_at_ms, now_ms)
        traffic = keys.nbytes + values.nbytes
        arm, began = self.tuner.turn(INSERT, keys.length, traffic, 0)
        records = keys, values, expire_at_ms, now_ms
        if arm.way is DOORBELL:
            try:
                answer = self.doorbell.insert(*records)
            except NotServedError:
                arm, began = self.tuner.unserved(traffic), 0.0
            else:
                return self._timed(answer, arm, traffic, began)
        if arm.way is not PIPELINE:
            return self._timed(self._launched.insert(*records), arm, traffic, began)
        # With checksums nobody may read between a batch's first record and its seal: the lock is not left.
        with self.health.lock if self.table.checksums else nullcontext():
            answer = self.pipeline.insert(*records, arm.setting)
        return self._timed(answer, arm, traffic, began)

    def erase(self, keys: Column, now_ms: int) -> np.ndarray:
        with self._guard, self._writing:
            return self._per_key(
                "erase",
                keys,
                now_ms,
                BOOL,
                lambda column, out: self.table.erase(column, now_ms, out),
            )

    def expire(self, keys: Column, expire_at_ms: int, now_ms: int) -> np.ndarray:
        with self._guard, self._writing:
            return self._per_key(
                "",
                keys,
                now_ms,
                BOOL,
                lambda column, out: self.table.expire(column, expire_at_ms, now_ms, out),
            )

    def compact(self, now_ms: int) -> int:
        with self._guard, self._writing, self._stream:
            return compact_step(self.table, now_ms)

    def clear(self) -> None:
        self._announced.forget()
        with self._guard, self._writing, self._stream:
            self.table.clear()

    # ---- What it is

    def memory(self) -> dict[str, int | float]:
        with self._stream:
            return usage.of_engine(self.table, self._capacity, sizes_of(self._capacity).total)

    def stats(self) -> dict[str, int]:
        if not self.table.tiers.capacity:
            return {}
        pending = {"pending_keys": self._announced.pending, "failed_keys": self._announced.failed}
        with self._stream:
            return self.table.tiers.stats() | {f"prefetch_{name}": n for name, n in pending.items()}

    def transfers(self) -> dict[str, float]:
        return usage.of_link(self.pipeline.transfers, self.health.waited_s)

    def measure(self) -> Machine:
        """The constants of this machine anew, by a call that keeps the table to itself: a second at most."""
        with self.health.lock, self._guard, self._writing:
            if self.closed:
                raise CacheClosed("the cache has been closed")
            return self.measuring.finish()

    def describe(self) -> dict[str, str]:
        return {"backend": "cuda", "device": Device.current().name, "tuning": self.tuner.state}

    def traced(self) -> AbstractContextManager:
        """When each stage of the bulk calls made inside began and ended: `Pipeline.traced`."""
        return self.pipeline.traced()

    def close(self) -> None:
        self.closed = True
        with self.health.unlocked():
            self._announced.close(lambda: self.health.stuck is not None)
        while self._guard.under_way:  # calls of other threads that have left the lock to wait
            with self.health.unlocked():
                time.sleep(1e-3)
        if self.health.stuck is not None and not self.health.stuck[0].done:
            _abandoned.append((self.table, self.pipeline, self.health))
            return
        if self.doorbell is not None:
            self.doorbell.close()
        with self._stream:
            self.table.close()
        self.pipeline.close()
        # They refer to this, or have memory of its own: both would be kept until somebody looks for cycles.
        del self.doorbell, self.measuring, self._announced

    # ---- Ways

    def _timed(self, answer: Any, arm: Any, traffic: int, began: float) -> Any:
        """The answer, once the tuner knows how long it took; where nothing is known of this machine, more is measured."""
        if began:
            self.tuner.ended(arm, traffic, began)
        elif arm.way is PIPELINE and self.tuner.machine is None:
            self.measuring.go_on()
        return answer

    def _per_key(
        self,
        verb: str,
        keys: Column,
        now_ms: int,
        dtype: np.dtype,
        fill: Callable[[Column, Any], None],
    ) -> np.ndarray:
        """One answer of `dtype` per key, written by `fill(column, answers)`. verb: of the doorbell; "" where it has none"""
        if keys.on_device:
            return self._launched.per_key(keys, dtype, fill)
        n = keys.length
        up, down = keys.nbytes, n * dtype.itemsize
        arm, began = self.tuner.turn(PEEK, n, up, down)
        if arm.way is DOORBELL:
            try:
                if verb:
                    answer = getattr(self.doorbell, verb)(keys, now_ms)
                    return self._timed(answer, arm, up + down, began)
            except NotServedError:
                pass
            arm, began = self.tuner.unserved(up + down), 0.0
        if arm.way is PIPELINE:
            answer = self.pipeline.per_key(keys, dtype, fill, arm.setting)
        else:
            answer = self._launched.per_key(keys, dtype, fill)
        return self._timed(answer, arm, up + down, began)
