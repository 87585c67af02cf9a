"""What every launch goes through: checked addresses, grids sized by the device. Called by `kernels`, `checksums`,
`limits`, `replay` and `ladder_table`, which hold the typed launches.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cupy
import numpy as np

from ..columns import Column
from ..errors import UnsupportedType
from .modules import block_threads, function, multiprocessors, resident_blocks
from .pinned import PinnedArray
from .source import ROWS_PER_THREAD

WARP = 32  # threads


def packing(n: int) -> tuple[int, int]:
    """Rows per block, and blocks, of a launch that packs n rows.

    Many rows where there are enough to fill the device all the same: fewer blocks then wait for one another's place in
    the output. Few rows are spread over as many blocks as there are multiprocessors: most of their threads only copy.
    """
    tile, spread = block_threads(), multiprocessors()
    rows = tile * max(1, min(ROWS_PER_THREAD, n // (tile * 2 * spread)))
    while rows > WARP and n <= rows // 2 * spread:
        rows = rows // 2 // WARP * WARP
    return rows, -(-n // rows)


def scan_states(n: int) -> int:
    """Zeroed words that a launch that packs n rows needs: one per block, none where there is only one."""
    blocks = packing(n)[1]
    return blocks if blocks > 1 else 0


def launch(
    module: str,
    name: str,
    n: int,
    *arguments: int,
    resident: bool = False,
    defines: tuple[str, ...] = (),
) -> None:
    """One thread per row. Only for typed launch functions: nothing is checked here.

    resident: no more blocks than the device holds at once; the kernel goes over the rest of the rows by itself.
    defines: other compile options than the usual, for measuring what they do (`source.options_for`)
    """
    # Kernels take 64-bit integers and pointers only: what a Python int becomes on its way.
    if n:
        kernel, tile = function(module, name, defines), block_threads(defines)
        blocks = -(-n // tile)
        if resident:
            blocks = min(blocks, resident_blocks(kernel))
        kernel((blocks,), (tile,), arguments)


def launch_packing(module: str, name: str, n: int, *arguments: int) -> None:
    function(module, name)((packing(n)[1],), (block_threads(),), arguments)


def address(array: Any, kinds: str, n: int) -> int:
    """The device address of an array of at least n items whose dtype is one of `kinds` ("b1 u1")."""
    if array.dtype not in _dtypes(kinds):
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


@lru_cache
def _dtypes(kinds: str) -> frozenset[np.dtype]:
    return frozenset(map(np.dtype, kinds.split()))


def column_arguments(column: Column) -> tuple[int, int, int]:
    """Data, offsets and stride of a column, as kernels take it: `Column` in kernels/common.cuh."""
    if column.offsets is None:
        return address(column.data, "u1", column.length * column.width), 0, column.width
    wide = column.offsets.dtype.itemsize == 8
    offsets = address(column.offsets, "i4 i8", column.length + 1)
    return address(column.data, "u1", 0), offsets, -1 if wide else -2


def index_arguments(index: Any) -> tuple[int, int]:
    """Address and buckets of an index, uint64 (buckets * 8,)."""
    return address(index, "u8", 8), len(index) // 8
