"""The CUDA kernels that serve the cache: one typed launch function for each.

CuPy checks nothing at a launch, so every array that reaches a kernel passes `address` here: right dtype,
contiguous, large enough, and reachable from the device. Called by `table` and by the benchmarks of the hardware.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..columns import Column
from ..errors import UnsupportedType
from ..table import RECORD_HEADER_NBYTES
from .launching import (
    BITS,
    address,
    column_arguments,
    index_arguments,
    launch,
    packing,
    tile_rows,
)
from .memory import on_device
from .packed import padded
from .stretches import copy_stretches, may_be_long

# Words: entries, live bytes, those on the host, longest value, complement of the shortest.
COUNTERS = 5
HOST_NBYTES = 2
MAX_VALUE_NBYTES = 3  # the first of those that a rehash leaves alone
ON_HOST = 1 << 45  # flag of a slot, see kernels/common.cuh
PIECE_NBYTES = 16  # what the dense kernels move at once
MAX_DENSE_KEY_NBYTES = (
    64  # a record read for a key of another length is overrun by less: `memory.SLACK_NBYTES`
)
REPORT_WORDS = COUNTERS + 1  # and what a launch used of its piece of the log
WORK_WORDS = 2  # zero before a launch, and again after it
LAST_EPOCH = 2**14 - 1  # see `look_back` in kernels/blocks.cuh


# What a launch that packs rows writes, as `packed_output` has checked it: addresses of the values and of their offsets, how many
# bytes there are for the former, whether the latter have 64 bits, addresses of the bits and of the total; then rows per block,
# addresses of the ticket and of the states, and the launch's epoch.
Output = tuple[int, int, int, int, int, int, int, int, int, int]


def find(
    keys: Column, index: Any, now_ms: int, output: Output, stream: Any = None, listed: int = 0
) -> None:
    """Values of n keys, packed. index: uint64 (buckets * 8,). stream: None: the current one.

    listed: of `copy_stretches`, where values may be long; or 0
    """
    n = keys.length
    asked, slots = column_arguments(keys), index_arguments(index)
    arguments, rows = (*asked, n, *slots, now_ms, *output), output[6]
    if listed:
        launch("stretches", "find_long", n, *arguments, listed, rows=rows, stream=stream)
        copy_stretches(listed, output[1], stream)
    else:
        launch("find", "find", n, *arguments, rows=rows, stream=stream)


def find_dense(
    keys: Column,
    index: Any,
    now_ms: int,
    width: int,
    values: Any,
    offsets: Any,
    validity: Any,
    defines: tuple[str, ...] = (),
    *,
    present: Any = None,
    stream: Any = None,
) -> None:
    """Values of n keys, all of `width` bytes, one after the other; zeros where a key is absent.

    keys: `is_dense`. width: a multiple of 16. values: uint8 (n * width,), aligned. offsets: int32 or int64 (n + 1,).
    validity: uint32 (ceil(n / 32),). present: uint8 or bool (n,). Each of these three may be None. stream: as of `find`.
    """
    n = len(keys)
    rows = tile_rows(n, BITS, defines)
    launch(
        "find",
        "find_dense",
        n,
        *_dense(keys),
        n,
        *index_arguments(index),
        now_ms,
        width,
        _aligned(address(values, "u1", n * width), width),
        0 if offsets is None else address(offsets, "i4 i8", n + 1),
        int(offsets is not None and offsets.dtype.itemsize == 8),
        0 if validity is None else address(validity, "u4", -(-n // 32)),
        0 if present is None else address(present, "b1 u1", n),
        rows,
        rows=rows,
        defines=defines,
        stream=stream,
    )


def peek(
    keys: Column,
    index: Any,
    now_ms: int,
    present: Any = None,
    expiry: Any = None,
    count: Any = None,
) -> None:
    """Presence (uint8 or bool, (n,)) and expiry (int64 ms since the epoch, -1 never, -2 absent, (n,)) of n keys.

    count: uint64 (1,); how many are present is added to it
    """
    n = len(keys)
    present = 0 if present is None else address(present, "b1 u1", n)
    expiry = 0 if expiry is None else address(expiry, "i8", n)
    launch(
        "find",
        "peek",
        n,
        *column_arguments(keys),
        n,
        *index_arguments(index),
        now_ms,
        present,
        expiry,
        0 if count is None else address(count, "u8", 1),
    )


def record_nbytes(key_nbytes: int, value_nbytes: int) -> int:
    """Bytes of the log that a record takes; see kernels/common.cuh."""
    return padded(RECORD_HEADER_NBYTES + key_nbytes + value_nbytes)


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
    defines: tuple[str, ...] = (),
    *,
    places: Any = None,
    listed: int = 0,
    nbytes_at_most: int = 0,
) -> None:
    """Appends n records to the log, then publishes them.

    log: with room for them all. first_row: of these records in their batch. status: int8, one per row of the
    whole batch; written for these rows, and for earlier ones that they supersede. counters: uint64 (COUNTERS,).
    report: pinned uint64 (REPORT_WORDS,), valid after the stream is synchronised. places: uint64 (n,), used meanwhile;
    None: memory of the launch's own. listed: as of `find`; nbytes_at_most: of all records then.
    """
    n = len(keys)
    if len(values) != n:
        raise UnsupportedType(f"{n} keys with {len(values)} values")
    # All is checked before anything is written.
    asked, stored, slots = column_arguments(keys), column_arguments(values), index_arguments(index)
    batch = first_row, address(status, "i1", first_row + n), address(counters, "u8", COUNTERS)
    used = address(work, "u8", WORK_WORDS)
    n_earlier = 0 if log.earlier is None else len(log.earlier)
    earlier = address(log.earlier, "u8", n_earlier) if n_earlier else 0
    span = log.begin, log.end, earlier, n_earlier // 2
    reported = address(report, "u8", REPORT_WORDS)
    nbytes, written, rows = 0, 0, tile_rows(n, 1, defines)
    arguments: tuple[int, ...]
    if is_dense(keys) and is_dense(values, None) and not listed:
        nbytes = record_nbytes(keys.width, values.width)
        whole = asked[0], keys.width, stored[0], values.width
        arguments = *whole, n, expire_at_ms, log.tail, *batch, used, rows
        launch("insert", "write_dense", n, *arguments, rows=rows, defines=defines)
    else:
        places = on_device(n, np.uint64) if places is None else places
        written = address(places, "u8", n)
        arguments = *asked, *stored, n, expire_at_ms, log.tail, written, *batch, used, rows
        if listed:
            launch("stretches", "write_long", n, *arguments, listed, rows=rows)
            copy_stretches(listed, nbytes_at_most)
        else:
            launch("insert", "write", n, *arguments, rows=rows, defines=defines)
    launch(
        "insert",
        "publish",
        n,
        *asked,
        n,
        *slots,
        now_ms,
        log.tail,
        nbytes,
        written,
        *span,
        *batch,
        reported,
        used,
        resident=True,
        defines=defines,
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
        *column_arguments(keys),
        n,
        *index_arguments(index),
        now_ms,
        outcome,
        *counter_arguments(counters, report),
        address(work, "u8", WORK_WORDS),
        resident=True,
    )


def expire(keys: Column, index: Any, now_ms: int, expire_at_ms: int, found: Any) -> None:
    """Sets the expiry (ms since the epoch, 0 never) of n keys. found: uint8 or bool (n,)."""
    n = len(keys)
    launch(
        "erase",
        "expire",
        n,
        *column_arguments(keys),
        n,
        *index_arguments(index),
        now_ms,
        expire_at_ms,
        address(found, "b1 u1", n),
    )


def are_dense(n: int, width: int) -> bool:
    """Whether n values of this one length are for the dense kernels: whole pieces, and not a few long ones, see `stretches`."""
    return width % PIECE_NBYTES == 0 and not may_be_long(n, width)


def is_dense(column: Column, longest: int | None = MAX_DENSE_KEY_NBYTES) -> bool:
    """Whether rows are whole aligned pieces of 16 bytes, `longest` bytes at most: what the dense kernels take."""
    return is_in_pieces(column, longest) and (
        column.width == 0 or column_arguments(column)[0] % PIECE_NBYTES == 0
    )


def is_in_pieces(column: Column, longest: int | None = MAX_DENSE_KEY_NBYTES) -> bool:
    """The same wherever they lie: for who is going to copy them to an aligned place."""
    width = column.width
    return (
        column.offsets is None
        and width % PIECE_NBYTES == 0
        and (longest is None or 0 < width <= longest)
    )


def _dense(column: Column) -> tuple[int, int, int]:
    arguments = column_arguments(column)
    if not is_in_pieces(column) or arguments[0] % PIECE_NBYTES:
        raise UnsupportedType("keys in aligned pieces of 16 bytes, 64 at most, are needed")
    return arguments


def _aligned(where: int, width: int) -> int:
    if where % PIECE_NBYTES or width % PIECE_NBYTES:
        raise UnsupportedType("values in aligned pieces of 16 bytes are needed")
    return where


def packed_output(
    n: int, values: Any, offsets: Any, validity: Any, total: Any, work: Any, states: Any, epoch: int
) -> Output:
    """What `find` and `scan_keys` write of n rows.

    values: uint8 (capacity,). offsets: int32 or int64 (n + 1,). validity: uint32 (ceil(n / 32),). total: uint64 (1,).
    work: uint64 (WORK_WORDS,), zero before and after. states: uint64, a word per block (`packing`) where there are several;
    zero, or as launches of other epochs left them. epoch: of this launch, 1 to LAST_EPOCH.
    """
    rows, blocks = packing(n)
    return (
        address(values, "u1", 0),
        values.size,
        address(offsets, "i4 i8", n + 1),
        int(offsets.dtype.itemsize == 8),
        address(validity, "u4", -(-n // 32)),
        address(total, "u8", 1),
        rows,
        address(work, "u8", WORK_WORDS),
        address(states, "u8", blocks) if blocks > 1 else 0,
        epoch,
    )


def counter_arguments(counters: Any, report: Any) -> tuple[int, int]:
    """What launches that change records count in; see `insert`."""
    return address(counters, "u8", COUNTERS), address(report, "u8", REPORT_WORDS)
