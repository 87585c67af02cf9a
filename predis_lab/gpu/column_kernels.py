"""Typed launches of the kernels on packed columns alone (`kernels/columns.cu`). Called by `answer`, `moving` and `launched`.

CuPy could calculate all of this too; it would compile a kernel for each operation in the middle of somebody's first call.
"""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from ..columns import Column
from .launching import WARP, address, column_arguments, launch
from .modules import block_threads

LANE_NBYTES = 16  # that a thread moves at once


def shift_offsets(offsets: Any, by: int, shifted: Any) -> None:
    """Adds `by` to each of n offsets. offsets, shifted: int32 or int64 (n,), the same array or another one."""
    n = len(offsets)
    launch(
        "columns",
        "shift_offsets",
        n,
        address(offsets, "i4 i8", n),
        int(offsets.dtype.itemsize == 8),
        n,
        by,
        address(shifted, "i4 i8", n),
        int(shifted.dtype.itemsize == 8),
    )


def lay_out(column: Column, width: int) -> tuple[Any, Any]:
    """The rows of `width` bytes of a packed column, which has validity, as uint8 (n, width), zeros elsewhere.

    And which they are, bool (n,); both on the device.
    """
    n = len(column)
    rows, present = cupy.zeros((n, width), np.uint8), cupy.empty(n, np.bool_)
    lanes = 1
    while lanes < WARP and lanes * LANE_NBYTES < width:
        lanes *= 2
    launch(
        "columns",
        "lay_out",
        n,
        *column_arguments(column),
        address(column.validity, "u1", -(-n // 8)),
        n,
        width,
        address(rows, "u1", n * width),
        address(present, "b1", n),
        lanes,
        rows=block_threads() // lanes,
    )
    return rows, present
