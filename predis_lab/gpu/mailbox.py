"""How requests and answers lie in the memory that a block at the doorbell looks at, see kernels/doorbell.cu. Used by `block`,
`doorbell` and `engine`."""

from __future__ import annotations

import platform
import struct
import time
from typing import Any

import numpy as np

from ..columns import Column
from .packed import padded
from .sizing import NBYTES, ROWS

# Mailboxes in turns, each for a request in sectors of three words and its number; the words of an answer; what the host brings;
# what the block does.
BOXES, BOX_NBYTES = 8, 256
SENT = BOXES * BOX_NBYTES + 256  # where columns begin
BROUGHT = SENT + NBYTES
DENSE_AT = ROWS // 8  # where values begin whose places are known, behind bits

# Words of an answer.
ANSWERED, GONE, TOTAL, EXPIRY = 256, 257, 258, 259

FIND, DENSE, PEEK, ERASE, INSERT, GET, LOOK, PUT, DROP, LEAVE = range(1, 11)
REQUEST, SHORT = struct.Struct("24Q"), struct.Struct("QQQQ24sQ")
PUTS = [struct.Struct("QQQQ24sQQQQQ" + n * "24sQ") for n in range(6)]  # by a value's sectors
MOST_NBYTES = NBYTES - 24 * ROWS  # of keys and values in a request, beside their offsets
SHORT_NBYTES, SHORT_VALUE_NBYTES = 24, 24 * 5  # at most, of what a short request has in itself
LEFT_TO_32_BITS = 2**64 - 2  # strides that stand for offsets of 32 and of 64 bits
LEFT_TO_64_BITS = 2**64 - 1

_abandoned: list[Any] = []  # mailboxes that a block may still look at


def is_in_order() -> bool:
    """Whether this host's stores become visible, and its loads are made, in the order of the program: what is read here relies on it.

    x86-64 promises that. Arm (a Grace Hopper's host) does not, and Python has no fences.
    """
    return platform.machine().lower() in ("x86_64", "amd64")


def write(
    memory: memoryview, there: int, column: Column, begin: int
) -> tuple[tuple[int, int, int], int]:
    """Copies a host column to byte `begin` of the memory; how a kernel takes it, and where there is room for the next.

    there: where the memory's first byte lies for kernels

    Bytes by a memoryview: NumPy lets go of the interpreter, and waking whoever waits for it costs more than the copy.
    """
    if column.offsets is None:
        nbytes = column.length * column.width
        end, data = begin + nbytes, column.data
        memory[begin:end] = data if data.size == nbytes else data[:nbytes]
        return (there + begin, 0, column.width), padded(end)
    first, last = column.span
    end = begin + last - first
    memory[begin:end] = column.data.data[first:last]
    at = padded(end)
    end = at + column.offsets.nbytes
    dtype = column.offsets.dtype
    np.subtract(column.offsets, first, out=np.frombuffer(memory[at:end], dtype))
    stride = LEFT_TO_64_BITS if dtype.itemsize == 8 else LEFT_TO_32_BITS
    return (there + begin, there + at, stride), padded(end)


def until_gone(memory: Any, stream: Any) -> None:
    """Waits until the last block has left; the memory stays taken where none ever does.

    stream: the block's. It says that it is gone before it looks for a request, or writes an answer, one last time; and one
    that was never started, or died, says nothing
    """
    began = time.perf_counter()
    while not stream.done:
        if time.perf_counter() - began > 1:
            _abandoned.append(memory)
            return
        time.sleep(1e-4)
