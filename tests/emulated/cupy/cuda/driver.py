"""The driver's functions of the stand-in."""

from __future__ import annotations

import ctypes
from typing import Any

MOST_ARGUMENTS = 24
kernels: dict[int, Any] = {}  # by what stands for their handle


def launchKernel(  # noqa: N802
    function: int, blocks: int, y: int, z: int, threads: int, ty: int, tz: int, shared: int, stream: int,
    arguments: int, extra: int,
) -> None:  # fmt: skip
    """As the driver, which has read the arguments when it returns; all are 64-bit integers."""
    places = ctypes.cast(arguments, ctypes.POINTER(ctypes.c_uint64 * MOST_ARGUMENTS))[0]
    words = tuple(ctypes.c_int64.from_address(place).value for place in places)
    kernels[function].launch(stream, (blocks,), (threads,), words)


def occupancyMaxActiveBlocksPerMultiprocessor(function: int, threads: int, shared: int) -> int:  # noqa: N802
    # What the driver of an H100 says of a kernel of 64 registers a thread, which every kernel here claims to be.
    return 1024 // threads
