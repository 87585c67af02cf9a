"""What every launch goes through: checked addresses, grids sized by the device. Called by `kernels`, `maintain_kernels`,
`column_kernels`, `tier_kernels`, `stretches`, `checksums`, `limits`, `replay` and `ladder_table`, which hold the typed launches.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from functools import cache, lru_cache
from typing import Any

import cupy
import numpy as np
from cupy.cuda import driver, runtime

from ..columns import Column
from ..errors import UnsupportedType
from .mapped import MappedColumn
from .modules import block_threads, function, multiprocessors, resident_blocks
from .pinned import PinnedArray
from .source import ROWS_PER_THREAD

WARP = 32  # threads
BITS = 8  # rows of which a block that packs has a multiple: their bits are a byte
MOST_ARGUMENTS = 24  # of a kernel


def packing(n: int) -> tuple[int, int]:
    """Rows per block, and blocks, of a launch that packs n rows.

    Many rows where there are enough to fill the device all the same: fewer blocks then wait for one another's place in
    the output. Few rows are spread over as many blocks as there are multiprocessors: most of their threads only copy.
    """
    return _packing(n, runtime.getDevice())


@lru_cache(1024)
def _packing(n: int, device: int) -> tuple[int, int]:
    tile, spread = block_threads(), multiprocessors()
    rows = tile * max(1, min(ROWS_PER_THREAD, n // (tile * 2 * spread)))
    while rows > BITS and n <= rows // 2 * spread:
        rows = rows // 2 // BITS * BITS
    return rows, -(-n // rows)


def tile_rows(n: int, least: int, defines: tuple[str, ...] = ()) -> int:
    """Rows per block of a launch whose warps have as many rows each: `least` to 32, few where there are few rows."""
    return _tile_rows(n, least, defines, runtime.getDevice())


@lru_cache(1024)
def _tile_rows(n: int, least: int, defines: tuple[str, ...], device: int) -> int:
    warps, rows = block_threads(defines) // WARP, WARP
    while rows > least and n <= rows // 2 * warps * multiprocessors():
        rows //= 2
    return rows * warps


def launch(
    module: str,
    name: str,
    n: int,
    *arguments: int,
    resident: bool = False,
    rows: int = 0,
    defines: tuple[str, ...] = (),
    stream: Any = None,
) -> None:
    """One thread per row. Only for typed launch functions: nothing is checked here.

    resident: no more blocks than the device holds at once; the kernel goes over the rest of the rows by itself.
    rows: per block, where that is not one per thread
    defines: other compile options than the usual, for measuring what they do (`source.options_for`)
    stream: None: the current one
    """
    if n:
        kernel, tile, most = _prepared(module, name, resident, defines, runtime.getDevice())
        blocks = -(-n // (rows or tile))
        blocks = min(blocks, most) if resident else blocks
        _send(kernel, blocks, tile, arguments, stream or cupy.cuda.get_current_stream())


@cache
def _prepared(
    module: str, name: str, resident: bool, defines: tuple[str, ...], device: int
) -> tuple[int, int, int]:
    """A kernel's handle, threads per block, and for one that is to be resident as many blocks as the device holds."""
    kernel = function(module, name, defines)
    return kernel.kernel.ptr, block_threads(defines), resident_blocks(kernel) if resident else 0


class _Frame:
    """What one thread's launches take their arguments from: 64-bit words, and a pointer to each.

    Kernels take 64-bit integers and pointers only. CuPy would look at every one anew, which takes longer than the launch.
    """

    def __init__(self) -> None:
        cupy.cuda.Device().use()  # the driver asks for a context that is this thread's own
        self.words = (ctypes.c_int64 * MOST_ARGUMENTS)()
        at = ctypes.addressof(self.words)
        self.pointers = (ctypes.c_int64 * MOST_ARGUMENTS)(*range(at, at + 8 * MOST_ARGUMENTS, 8))
        self.at = ctypes.addressof(self.pointers)


_threads = threading.local()  # each with a `frame`, once it has launched something
_WORDS = [struct.Struct(f"{n}q") for n in range(MOST_ARGUMENTS + 1)]


def _send(kernel: int, blocks: int, threads: int, arguments: tuple[int, ...], stream: Any) -> None:
    try:
        frame = _threads.frame
    except AttributeError:
        frame = _threads.frame = _Frame()
    _WORDS[len(arguments)].pack_into(frame.words, 0, *arguments)
    driver.launchKernel(kernel, blocks, 1, 1, threads, 1, 1, 0, stream.ptr, frame.at, 0)


def address(array: Any, kinds: str, n: int) -> int:
    """The device address of an array of at least n items whose dtype is one of `kinds` ("b1 u1").

    An int is one that has been checked before, or a place in a small call's memory (`mapped`).
    """
    if type(array) is int:
        return array
    if array.dtype not in _dtypes(kinds):
        raise UnsupportedType(f"an array of {kinds} is needed, not {array.dtype}")
    if array.size < n or not array.flags.c_contiguous:
        raise UnsupportedType(f"a contiguous array of {n} items is needed, not {array.shape}")
    if isinstance(array, cupy.ndarray):
        return array.data.ptr
    if isinstance(array, PinnedArray):
        return array.ptr
    raise UnsupportedType(
        f"the device can't reach a {type(array).__name__}: device or pinned memory is needed"
    )


@lru_cache
def _dtypes(kinds: str) -> frozenset[np.dtype]:
    return frozenset(map(np.dtype, kinds.split()))


def column_arguments(column: Column) -> tuple[int, int, int]:
    """Data, offsets and stride of a column, as kernels take it: `Column` in kernels/common.cuh."""
    if type(column) is MappedColumn:
        return column.arguments
    if column.offsets is None:
        return address(column.data, "u1", column.length * column.width), 0, column.width
    wide = column.offsets.dtype.itemsize == 8
    offsets = address(column.offsets, "i4 i8", column.length + 1)
    return address(column.data, "u1", 0), offsets, -1 if wide else -2


def index_arguments(index: Any) -> tuple[int, int]:
    """Address and buckets of an index, uint64 (buckets * 8,), or what this has made of it before."""
    if type(index) is tuple:
        return index
    return address(index, "u8", 8), len(index) // 8
