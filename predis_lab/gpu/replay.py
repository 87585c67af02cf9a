"""Typed launches of the kernels that repeat the table's accesses and nothing else (`kernels/replay.cu`).

`trace` notes where a batch's accesses go; the others make them again. What they reach is the ceiling of the operation:
the same sectors in the same pattern. Called by `bench.table_rates`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..columns import Column
from ..errors import UnsupportedType
from . import kernels, launching
from .limits import UNLIKELY
from .memory import on_device

TRACE_WORDS = 2


def trace(keys: Column, index: Any) -> Any:
    """uint64 (n * TRACE_WORDS,): where each key's search ends, how many buckets it reads, and the record it finds."""
    n = len(keys)
    traces = on_device(TRACE_WORDS * n, np.uint64)
    where = launching.address(traces, "u8", TRACE_WORDS * n)
    launching.launch(
        "replay",
        "trace",
        n,
        *launching.column_arguments(keys),
        n,
        *launching.index_arguments(index),
        where,
    )
    return traces


def find(
    traces: Any, index: Any, key_nbytes: int, width: int, values: Any, offsets: Any, sink: Any
) -> None:
    """The accesses of `kernels.find_dense`. values: uint8 (n * width,); offsets: int32 (n,); sink: uint32 (1,)."""
    n = len(traces) // TRACE_WORDS
    launching.launch(
        "replay",
        "replay_find",
        n,
        *_traced(traces, index),
        *_whole(key_nbytes, width),
        launching.address(values, "u1", n * width),
        launching.address(offsets, "i4", n),
        UNLIKELY,
        launching.address(sink, "u4", 1),
    )


def packed(
    traces: Any, index: Any, key_offsets: Any, value_offsets: Any, values: Any, sink: Any
) -> None:
    """The accesses of `kernels.find`. Offsets: int32 (n + 1,), of the keys asked for and of the values found."""
    n = len(traces) // TRACE_WORDS
    launching.launch(
        "replay",
        "replay_packed",
        n,
        *_traced(traces, index),
        launching.address(key_offsets, "i4", n + 1),
        launching.address(value_offsets, "i4", n + 1),
        launching.address(values, "u1", 0),
        UNLIKELY,
        launching.address(sink, "u4", 1),
    )


def publish(traces: Any, index: Any) -> None:
    """The accesses of publishing, once records are written. index: a copy, for it is spoilt."""
    n = len(traces) // TRACE_WORDS
    launching.launch(
        "replay", "replay_publish", n, *_traced(traces, index), UNLIKELY, resident=True
    )


def erase(traces: Any, index: Any, erased: Any, sink: Any) -> None:
    """The accesses of `kernels.erase`. index: a copy, for it is spoilt. erased: uint8 or bool (n,)."""
    n = len(traces) // TRACE_WORDS
    launching.launch(
        "replay",
        "replay_erase",
        n,
        *_traced(traces, index),
        launching.address(erased, "b1 u1", n),
        UNLIKELY,
        launching.address(sink, "u4", 1),
        resident=True,
    )


def _traced(traces: Any, index: Any) -> tuple[int, int, int, int]:
    n = len(traces) // TRACE_WORDS
    return launching.address(traces, "u8", TRACE_WORDS * n), n, *launching.index_arguments(index)


def _whole(key_nbytes: int, width: int) -> tuple[int, int]:
    if key_nbytes % kernels.PIECE_NBYTES or width % kernels.PIECE_NBYTES:
        raise UnsupportedType(
            f"keys of {key_nbytes} and values of {width} bytes are no whole pieces of 16"
        )
    return key_nbytes, width
