"""DeviceEngine: the Table protocol on a GPU. Chooses the way for each call.

A few keys are asked for at the `doorbell` where there is one and the device is idle. Other small calls read keys from and
write answers to mapped pinned memory inside the one kernel they launch. Larger ones with columns in host memory go through
`pipeline`. Columns on the device stay there, on the stream they were made on.

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

from ..columns import Column, dense_rows
from ..errors import (
    CorruptRecord,
    DeviceFailed,
    DeviceUnavailable,
    InvalidArgument,
    PinnedMemoryUnavailable,
)
from ..table import NO_CHECKSUMS, Status
from . import usage
from .announced import Announced
from .batch import rows_that_fit, stored_in_part, too_large
from .checksums import check, verify
from .device import Device
from .doorbell import Doorbell, NotServedError
from .health import TIMEOUT_S, Health
from .maintenance import compact_step
from .memory import REFUSALS, device_bytes, on_device, raise_failure
from .moving import mapped, on_host, rebase, uploaded
from .packed import INT32_MAX, Packed
from .pinned import pinned
from .pipeline import Pipeline
from .table import DeviceTable

# A call with less traffic than this, both ways together, goes through mapped memory.
SMALL_NBYTES = 2**18
CHUNK_NBYTES = 2**29  # of records, per launch of an insert of columns on the device
CHUNK_ROWS = 2**24
# Per step of a scan at least: a launch costs more than reading a few thousand slots.
SCAN_SLOTS = 2**14

_UNANSWERED = object()  # by the doorbell

_abandoned: list[Any] = []  # closed while the device was stuck: it may still use their memory


def check_device() -> None:
    """Raises DeviceUnavailable with the reason where no CUDA device answers."""
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except CUDARuntimeError as error:
        raise DeviceUnavailable(f"no CUDA device answers: {error}") from error
    if count == 0:
        raise DeviceUnavailable("no CUDA device answers: the driver counts none")


class DeviceEngine:
    """A table of `capacity_nbytes` on the current device, buffers included, and more on the host; see `Table` for the verbs.

    timeout_s:  how long one step on the device may take before DeviceTimeout is raised
    doorbell:   whether a few keys are asked of a block that stays on the device
    """

    def __init__(
        self,
        capacity_nbytes: int,
        host_capacity_nbytes: int = 0,
        checksums: bool = False,
        timeout_s: float = TIMEOUT_S,
        doorbell: bool = False,
    ):
        check_device()
        self.health = Health(timeout_s, raise_failure)
        self.lock = self.health.lock
        self._under_way = 0
        self._capacity = capacity_nbytes
        self._stream = cupy.cuda.Stream(non_blocking=True)
        buffers = Pipeline.nbytes(capacity_nbytes)
        with self._stream:
            self.table = DeviceTable(
                capacity_nbytes - buffers, host_capacity_nbytes, checksums, self.health
            )
            self.pipeline = Pipeline(self.table, self._stream, capacity_nbytes)
            # With checksums records are checked, and sealed, by launches of their own.
            self.doorbell = Doorbell(self.table) if doorbell and not checksums else None
        self._read_last: Column | None = None
        self._announced = Announced(self._bring, self.pipeline.writing)

    @property
    def has_expiry(self) -> bool:
        return self.table.has_expiry

    # ---- Reading

    def get(self, key: bytes, now_ms: int) -> bytes | None:
        with self._guard:
            value = self._ring("get", key, now_ms)
        if value is not _UNANSWERED:
            return value
        keys = Column.single(key)
        longest = self.table.max_value_nbytes
        if longest <= SMALL_NBYTES:
            with self._guard:
                self._check(keys, now_ms)
                packed = self._find_small(keys, now_ms, longest)
            if packed is not None:  # an Arrow array would take longer to make than the lookup
                return packed.data[: packed.total].tobytes() if packed.arrays[2][0] else None
        return self.find(keys, now_ms).to_arrow()[0].as_py()

    def find(self, keys: Column, now_ms: int) -> Column:
        with self._guard:
            self._check(keys, now_ms)
            if keys.on_device:
                return self._find_on_device(keys, now_ms).column
            answer = self._ring("find", keys, now_ms)
            if answer is not _UNANSWERED:
                return answer
            guess = self._guess_nbytes(len(keys))
            if keys.nbytes + guess <= SMALL_NBYTES:
                packed = self._find_small(keys, now_ms, guess)
                if packed is not None:
                    return packed.column
            return self.pipeline.find(keys, now_ms)

    def find_on_device(self, keys: Column, now_ms: int) -> Column:
        """The values on the device, on the current stream. keys: in any memory."""
        with self._guard:
            self._check(keys, now_ms)
            return self._find_on_device(self._on_device(keys), now_ms).column

    def find_rows(self, keys: Column, width: int, now_ms: int) -> tuple[Any, Any]:
        """Values of `width` bytes as uint8 (n, width), zeros elsewhere, and whether each is one, bool (n,).

        On the device, on the current stream; nothing is waited for where all values have that width.
        """
        with self._guard:
            self._check(keys, now_ms)
            packed = self._find_on_device(self._on_device(keys), now_ms)
            full = packed.full and len(packed.data) == len(keys) * width
            return dense_rows(cupy, packed.column, width, full=full)

    def _find_small(self, keys: Column, now_ms: int, guess: int) -> Packed | None:
        """None where it is no small call after all."""
        try:
            with self._stream:
                asked = mapped(keys)
                packed = self.table.find(asked, now_ms, new=_pinned_bytes, capacity=guess)
            self.health.wait(self._stream, "a lookup", brief=True)
        except PinnedMemoryUnavailable:
            return None
        self._has_read(asked, now_ms)
        return packed if packed.total <= len(packed.data) else None

    def _find_on_device(self, keys: Column, now_ms: int) -> Packed:
        guess = self._guess_nbytes(len(keys))
        packed = self.table.find(keys, now_ms, new=device_bytes, capacity=guess)
        # Where the guess is the most there can be, nothing needs to be waited for.
        if guess < self.table.find_nbytes(len(keys)) and packed.total > guess:
            packed = self.table.find(keys, now_ms, new=device_bytes, capacity=packed.total)
        self._has_read(keys, now_ms, nullcontext())
        return packed

    def _has_read(
        self, keys: Column, now_ms: int, stream: AbstractContextManager | None = None
    ) -> None:
        """Tells the tiers what was looked up, once the answer is there: nobody waits for what they do with it."""
        if self.pipeline.note_read(keys, now_ms, stream or self._stream):
            # Keys in pinned memory have to last until a later lookup has waited for the stream.
            self._read_last = None if keys.on_device else keys

    def prefetch(self, keys: Column, now_ms: int) -> None:
        self.health.check()
        if self.table.tiers.holds and len(keys):
            self._announced.add(keys, now_ms, self.table.tiers.announced_segments)

    def _bring(self, keys: Column, now_ms: int, segments: int) -> int:
        """Brings up what was announced, see `Announced`, by a thread that holds `writing`."""
        with self.lock, self._guard, self._stream:
            return self.table.tiers.prefetch(self._on_device(keys), now_ms, segments)

    def _guess_nbytes(self, n: int) -> int:
        """Bytes to have ready for n values: the most there can be, or where values differ much twice the mean."""
        table, most = self.table, self.table.find_nbytes(n)
        if most <= 2**26 or (table.uniform_nbytes is not None and most <= INT32_MAX):
            return most
        return int(
            min(most, max(2**26, 2 * n * table.live_nbytes / max(table.entries, 1)), INT32_MAX)
        )

    def _check(self, keys: Column, now_ms: int) -> None:
        """Raises CorruptRecord where a record no longer matches; before it is read, for so may its length not."""
        if not self.table.checksums:
            return
        corrupt = self._per_key(
            keys, np.bool_, lambda column, out: check(self.table, column, now_ms, out)
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
            answer = self._ring("contains", keys, now_ms)
            if answer is not _UNANSWERED:
                return answer
            return self._per_key(
                keys, np.bool_, lambda column, out: self.table.peek(column, now_ms, present=out)
            )

    def expiry(self, keys: Column, now_ms: int) -> np.ndarray:
        with self._guard:
            answer = self._ring("expiry", keys, now_ms)
            if answer is not _UNANSWERED:
                return answer
            return self._per_key(
                keys, np.int64, lambda column, out: self.table.peek(column, now_ms, expiry=out)
            )

    def count(self, now_ms: int) -> int:
        with self._guard, self._stream:
            return self.table.count(now_ms)

    def scan(self, count: int, now_ms: int) -> Iterator[Column]:
        table, slot, epoch = self.table, 0, self.table.epoch
        step = max(SCAN_SLOTS, count)
        while slot < table.slots:
            n = min(step, table.slots - slot)
            yield self._scan_slots(slot, n, now_ms)
            slot += n
            if epoch != table.epoch:
                slot, epoch = 0, table.epoch  # the index has grown: its slots are others now

    def _scan_slots(self, first: int, n: int, now_ms: int) -> Column:
        capacity = 0
        with self._guard:
            while True:
                with self._stream:
                    packed = self.table.scan(first, n, now_ms, capacity)
                self.health.wait(self._stream, "a scan")
                if packed.total <= capacity:
                    return Column.of(packed.column.to_arrow().drop_null())
                capacity = packed.total

    # ---- Writing

    def insert(self, keys: Column, values: Column, expire_at_ms: int, now_ms: int) -> np.ndarray:
        with self._guard, self.health.holding(self.pipeline.writing):
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

    def put(self, key: bytes, value: bytes, expire_at_ms: int, now_ms: int) -> int:
        with self._guard, self.health.holding(self.pipeline.writing):
            answer = self._ring("put", key, value, expire_at_ms, now_ms)
            if answer is not _UNANSWERED:
                return answer
            keys, values = Column.single(key), Column.single(value)
            return int(self._insert(keys, values, expire_at_ms, now_ms)[0])

    def _insert(self, keys: Column, values: Column, expire_at_ms: int, now_ms: int) -> np.ndarray:
        answer = self._ring("insert", keys, values, expire_at_ms, now_ms)
        if answer is not _UNANSWERED:
            return answer
        small = not keys.on_device and not values.on_device
        if small and keys.nbytes + values.nbytes > SMALL_NBYTES:
            # With checksums nobody may read between a batch's first record and its seal: the lock is not left.
            with self.lock if self.table.checksums else nullcontext():
                return self.pipeline.insert(keys, values, expire_at_ms, now_ms)
        n, row, table = len(keys), 0, self.table
        kept, failure = [], None  # pinned, until the device has read them
        with self._stream if small else nullcontext():
            status: Any = (pinned if small else on_device)(n, np.int8)
            batch = table.begin(keys, values, now_ms)
            try:
                while row < n:
                    stop = row + max(rows_that_fit(keys, values, row, n, CHUNK_NBYTES), 1)
                    stop = min(stop, row + CHUNK_ROWS)
                    reach = mapped if small else self._on_device
                    pair = reach(keys[row:stop]), reach(values[row:stop])
                    if small:
                        kept.append(pair)
                    table.append(batch, *pair, expire_at_ms, now_ms, status)
                    row = stop
            except REFUSALS as error:
                if not batch.row:
                    raise
                failure = error
            finally:
                table.end(batch)
            if small:  # the seal reads the keys
                self.health.wait(self._stream, "a write", brief=True)
            return stored_in_part(np.array(status if small else status.get()), batch, failure)

    def erase(self, keys: Column, now_ms: int) -> np.ndarray:
        with self._guard, self.health.holding(self.pipeline.writing):
            answer = self._ring("erase", keys, now_ms)
            if answer is not _UNANSWERED:
                return answer
            return self._per_key(
                keys, np.bool_, lambda column, out: self.table.erase(column, now_ms, out)
            )

    def expire(self, keys: Column, expire_at_ms: int, now_ms: int) -> np.ndarray:
        with self._guard, self.health.holding(self.pipeline.writing):
            return self._per_key(
                keys,
                np.bool_,
                lambda column, out: self.table.expire(column, expire_at_ms, now_ms, out),
            )

    def compact(self, now_ms: int) -> int:
        with self._guard, self.health.holding(self.pipeline.writing), self._stream:
            return compact_step(self.table, now_ms)

    def clear(self) -> None:
        self._announced.forget()
        with self._guard, self.health.holding(self.pipeline.writing), self._stream:
            self.table.clear()

    # ---- What it is

    def memory(self) -> dict[str, int | float]:
        with self._stream:
            return usage.of_engine(self.table, self._capacity, Pipeline.nbytes(self._capacity))

    def stats(self) -> dict[str, int]:
        if not self.table.tiers.capacity:
            return {}
        pending = {"pending_keys": self._announced.pending, "failed_keys": self._announced.failed}
        with self._stream:
            return self.table.tiers.stats() | {f"prefetch_{name}": n for name, n in pending.items()}

    def transfers(self) -> dict[str, float]:
        return usage.of_link(self.pipeline.transfers, self.health.waited_s)

    def describe(self) -> dict[str, str]:
        return {"backend": "cuda", "device": Device.current().name}

    def traced(self) -> AbstractContextManager:
        """When each stage of the bulk calls made inside began and ended: `Pipeline.traced`."""
        return self.pipeline.traced()

    def close(self) -> None:
        with self.health.unlocked():
            self._announced.close(lambda: self.health.stuck is not None)
        while self._under_way:  # calls of other threads that have left the lock to wait
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

    # ---- Moving columns

    @property
    def _guard(self) -> _Guard:
        return _Guard(self)

    def _ring(self, verb: str, *asked: Any) -> Any:
        """What the doorbell answers, or _UNANSWERED where another way has to be gone."""
        if self.doorbell is None:
            return _UNANSWERED
        try:
            return getattr(self.doorbell, verb)(*asked)
        except NotServedError:
            return _UNANSWERED

    def _per_key(self, keys: Column, dtype: Any, fill: Callable[[Column, Any], None]) -> np.ndarray:
        """One answer of `dtype` per key, written by `fill(column, answers)`."""
        n = len(keys)
        if not keys.on_device and keys.nbytes + n * np.dtype(dtype).itemsize > SMALL_NBYTES:
            return self.pipeline.per_key(keys, dtype, fill)
        if keys.on_device:
            answers = on_device(n, dtype)
            for row in range(0, n, CHUNK_ROWS):
                fill(keys[row : row + CHUNK_ROWS], answers[row : row + CHUNK_ROWS])
            return answers.get()
        asked, answers = mapped(keys), pinned(n, dtype)  # both are kept until the device is done
        with self._stream:
            if n:
                fill(asked, answers)
        self.health.wait(self._stream, "a lookup", brief=True)
        return np.array(answers)

    def _on_device(self, column: Column) -> Column:
        """The column on the device, copied on the current stream."""
        if column.on_device:
            return column
        stream = cupy.cuda.get_current_stream()

        def upload(source: np.ndarray) -> Any:
            target = device_bytes(source.nbytes)
            self.pipeline.upload(source, target.data.ptr, stream)
            return target

        copy, start = uploaded(column, upload)
        rebase(copy, start)
        return copy


class _Guard:
    """A call under way: refused while the device is stuck, and what the driver refuses gets a name."""

    __slots__ = ("_engine",)

    def __init__(self, engine: DeviceEngine):
        self._engine = engine

    def __enter__(self) -> None:
        self._engine.health.check()
        self._engine._under_way += 1

    def __exit__(self, kind: Any, error: BaseException | None, *_: object) -> None:
        self._engine._under_way -= 1
        if isinstance(error, REFUSALS):
            raise DeviceFailed(f"the device refused: {error}") from error


def _pinned_bytes(nbytes: int) -> Any:
    return pinned(nbytes, np.uint8)
