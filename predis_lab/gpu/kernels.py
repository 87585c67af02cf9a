"""The CUDA kernels: source, compilation, and one typed launch function for each.

CuPy checks nothing at a launch, so every array that reaches a kernel passes `address` here: right dtype,
contiguous, large enough, and reachable from the device. Called by `table` and by the benchmarks of the hardware.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import cupy

from ..columns import Column
from ..errors import UnsupportedType
from .memory import PinnedArray
from .source import OPTIONS, ROWS_PER_THREAD, TILE, read_source

COUNTERS = 5  # words: entries, tombstones, live bytes, longest value, complement of the shortest
MAX_VALUE_NBYTES = 3  # the first of those that a rehash leaves alone
REPORT_WORDS = COUNTERS + 1  # and what a launch used of its piece of the log
WORK_WORDS = 2  # zero before a launch, and again after it


@functools.cache
def _module(name: str, device: int) -> cupy.RawModule:
    return cupy.RawModule(code=read_source(name), options=OPTIONS, backend="nvrtc")


@functools.cache
def _function(module: str, name: str, device: int) -> Any:
    return _module(module, device).get_function(name)


def function(module: str, name: str) -> Any:
    """The compiled kernel on the current device; compiled on first use, then cached by CuPy on disk."""
    return _function(module, name, cupy.cuda.runtime.getDevice())


def packing(n: int) -> tuple[int, int]:
    """Rows per thread, and blocks, of a launch that packs n rows.

    Many rows a thread where there are enough to fill the device all the same: fewer blocks then wait for one
    another's place in the output.
    """
    fill = 2 * _multiprocessors(cupy.cuda.runtime.getDevice())
    per_thread = max(1, min(ROWS_PER_THREAD, n // (TILE * fill)))
    return per_thread, -(-n // (TILE * per_thread))


def scan_states(n: int) -> int:
    """Zeroed words that a launch that packs n rows needs: one per block, none where there is only one."""
    blocks = packing(n)[1]
    return blocks if blocks > 1 else 0


@functools.cache
def _multiprocessors(device: int) -> int:
    return cupy.cuda.runtime.getDeviceProperties(device)["multiProcessorCount"]


def find(
    keys: Column,
    index: Any,
    now_ms: int,
    values: Any,
    offsets: Any,
    validity: Any,
    total: Any,
    work: Any,
    states: Any,
) -> None:
    """Values of n keys, packed.

    index: uint64 (buckets * 8,). values: uint8 (capacity,). offsets: int32 or int64 (n + 1,).
    validity: uint32 (ceil(n / 32),). total: uint64 (1,). work: uint64 (WORK_WORDS,), zero before and after.
    states: uint64 (scan_states(n),), zeroed.
    """
    n = len(keys)
    if n:
        output = _output(n, values, offsets, validity, total, work, states)
        _launch_packing("find", "find", n, *_column(keys), n, *_index(index), now_ms, *output)


def find_dense(
    keys: Column, index: Any, now_ms: int, width: int, values: Any, offsets: Any, validity: Any
) -> None:
    """Values of n keys, all of `width` bytes, one after the other; zeros where a key is absent.

    values: uint8 (n * width,). offsets: int32 or int64 (n + 1,). validity: uint32 (ceil(n / 32),).
    """
    n = len(keys)
    launch(
        "find",
        "find_dense",
        n,
        *_column(keys),
        n,
        *_index(index),
        now_ms,
        width,
        address(values, "u1", n * width),
        address(offsets, "i4 i8", n + 1),
        int(offsets.dtype.itemsize == 8),
        address(validity, "u4", -(-n // 32)),
    )


def peek(keys: Column, index: Any, now_ms: int, present: Any = None, expiry: Any = None) -> None:
    """Presence (uint8 or bool, (n,)) and expiry (int64 ms since the epoch, -1 never, -2 absent, (n,)) of n keys."""
    n = len(keys)
    present = 0 if present is None else address(present, "b1 u1", n)
    expiry = 0 if expiry is None else address(expiry, "i8", n)
    launch("find", "peek", n, *_column(keys), n, *_index(index), now_ms, present, expiry)


@dataclass(frozen=True)
class LogSpan:
    """Where a launch writes, and where its batch has written: addresses in the log."""

    tail: int  # in the current segment
    begin: int  # of the batch in the current segment
    end: int  # of the current segment
    earlier: Any = None  # uint64, begin and end of the batch in each earlier segment; None for none


def insert(
    keys: Column,
    values: Column,
    index: Any,
    now_ms: int,
    expire_at_ms: int,
    log: LogSpan,
    first_row: int,
    status: Any,
    counters: Any,
    report: Any,
    work: Any,
) -> None:
    """Appends n records to the log and publishes them.

    log: with room for them all. first_row: of these records in their batch. status: int8, one per row of the
    whole batch; written for these rows, and for earlier ones that they supersede. counters: uint64 (COUNTERS,).
    report: pinned uint64 (REPORT_WORDS,), valid after the stream is synchronised.
    """
    n = len(keys)
    if len(values) != n:
        raise UnsupportedType(f"{n} keys with {len(values)} values")
    n_earlier = 0 if log.earlier is None else len(log.earlier)
    launch(
        "insert",
        "insert",
        n,
        *_column(keys),
        *_column(values),
        n,
        *_index(index),
        now_ms,
        expire_at_ms,
        log.tail,
        log.begin,
        log.end,
        address(log.earlier, "u8", n_earlier) if n_earlier else 0,
        n_earlier // 2,
        first_row,
        address(status, "i1", first_row + n),
        *_counters(counters, report),
        address(work, "u8", WORK_WORDS),
    )


def erase(
    keys: Column, index: Any, now_ms: int, erased: Any, counters: Any, report: Any, work: Any
) -> None:
    """Takes n keys out of the index. erased: uint8 or bool (n,)."""
    n = len(keys)
    outcome = address(erased, "b1 u1", n)
    launch(
        "erase",
        "erase",
        n,
        *_column(keys),
        n,
        *_index(index),
        now_ms,
        outcome,
        *_counters(counters, report),
        address(work, "u8", WORK_WORDS),
    )


def expire(keys: Column, index: Any, now_ms: int, expire_at_ms: int, found: Any) -> None:
    """Sets the expiry (ms since the epoch, 0 never) of n keys. found: uint8 or bool (n,)."""
    n = len(keys)
    launch(
        "erase",
        "expire",
        n,
        *_column(keys),
        n,
        *_index(index),
        now_ms,
        expire_at_ms,
        address(found, "b1 u1", n),
    )


def scan_keys(
    slots: Any,
    now_ms: int,
    keys: Any,
    offsets: Any,
    validity: Any,
    total: Any,
    work: Any,
    states: Any,
) -> None:
    """The keys that n slots (uint64) hold as a column of n rows, null where a slot holds none."""
    n = len(slots)
    output = _output(n, keys, offsets, validity, total, work, states)
    _launch_packing("maintain", "scan_keys", n, address(slots, "u8", n), n, now_ms, *output)


def count_alive(slots: Any, now_ms: int, count: Any) -> None:
    """Adds to count, uint64 (1,), the records in n slots that have not expired."""
    n = len(slots)
    launch(
        "maintain", "count_alive", n, address(slots, "u8", n), n, now_ms, address(count, "u8", 1)
    )


def rehash(slots: Any, now_ms: int, index: Any, counters: Any, report: Any, work: Any) -> None:
    """Puts the live records of `slots` into an empty index with room for all of them."""
    n = len(slots)
    launch(
        "maintain",
        "rehash",
        n,
        address(slots, "u8", n),
        n,
        now_ms,
        *_index(index),
        *_counters(counters, report),
        address(work, "u8", WORK_WORDS),
    )


def census(slots: Any, now_ms: int, starts: Any, live_nbytes: Any) -> None:
    """Adds up the live bytes in each segment. starts: uint64, ascending addresses; live_nbytes: uint64, zeroed."""
    n, segments = len(slots), len(starts)
    launch(
        "maintain",
        "census",
        n,
        address(slots, "u8", n),
        n,
        now_ms,
        address(starts, "u8", segments),
        segments,
        address(live_nbytes, "u8", segments),
    )


def relocate(
    slots: Any,
    now_ms: int,
    starts: Any,
    chosen: Any,
    log: int,
    counters: Any,
    report: Any,
    work: Any,
) -> None:
    """Moves the live records of the chosen segments (uint8 (segments,)) to the address `log`."""
    n, segments = len(slots), len(starts)
    launch(
        "maintain",
        "relocate",
        n,
        address(slots, "u8", n),
        n,
        now_ms,
        address(starts, "u8", segments),
        segments,
        address(chosen, "b1 u1", segments),
        log,
        *_counters(counters, report),
        address(work, "u8", WORK_WORDS),
    )


def launch(module: str, name: str, n: int, *arguments: int) -> None:
    """One thread per row. Only for typed launch functions: nothing is checked here."""
    # Kernels take 64-bit integers and pointers only: what a Python int becomes on its way.
    if n:
        function(module, name)((-(-n // TILE),), (TILE,), arguments)


def _launch_packing(module: str, name: str, n: int, *arguments: int) -> None:
    function(module, name)((packing(n)[1],), (TILE,), arguments)


def address(array: Any, kinds: str, n: int) -> int:
    """The device address of an array of at least n items whose dtype is one of `kinds` ("b1 u1")."""
    if array.dtype.str[1:] not in kinds.split():
        raise UnsupportedType(f"an array of {kinds} is needed, not {array.dtype}")
    if array.size < n or not array.flags.c_contiguous:
        raise UnsupportedType(f"a contiguous array of {n} items is needed, not {array.shape}")
    if isinstance(array, cupy.ndarray):
        return array.data.ptr
    if isinstance(array, PinnedArray):
        return array.ctypes.data
    raise UnsupportedType(
        f"the device can't reach a {type(array).__name__}: device or pinned memory is needed"
    )


def _column(column: Column) -> tuple[int, int, int]:
    if column.offsets is None:
        return address(column.data, "u1", column.length * column.width), 0, column.width
    wide = column.offsets.dtype.itemsize == 8
    offsets = address(column.offsets, "i4 i8", column.length + 1)
    return address(column.data, "u1", 0), offsets, -1 if wide else -2


def _index(index: Any) -> tuple[int, int]:
    return address(index, "u8", 8), len(index) // 8


def _output(
    n: int, data: Any, offsets: Any, validity: Any, total: Any, work: Any, states: Any
) -> tuple[int, ...]:
    needed = scan_states(n)
    return (
        address(data, "u1", 0),
        data.size,
        address(offsets, "i4 i8", n + 1),
        int(offsets.dtype.itemsize == 8),
        address(validity, "u4", -(-n // 32)),
        address(total, "u8", 1),
        packing(n)[0],
        address(work, "u8", WORK_WORDS),
        address(states, "u8", needed) if needed else 0,
    )


def _counters(counters: Any, report: Any) -> tuple[int, int]:
    return address(counters, "u8", COUNTERS), address(report, "u8", REPORT_WORDS)
