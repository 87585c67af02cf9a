"""Long values are copied by a launch of their own, in stretches by all warps of the device. Used by `kernels` and `appending`."""

from __future__ import annotations

from typing import Any

from .launching import WARP, launch
from .sizing import LONG_NBYTES, MANY_ROWS, MOST_STRETCHES, STRETCH_NBYTES

# Of values of several lengths: shorter ones are enough for all warps.
_MEAN_NBYTES = LONG_NBYTES // 8


def may_be_long(n: int, width: int) -> bool:
    """Whether n values of this one length are to be listed."""
    return width >= LONG_NBYTES and n < MANY_ROWS


def some_may_be_long(n: int, nbytes: int) -> bool:
    """The same of n values of several lengths, nbytes together: some may be long, and they are not mostly short ones."""
    return nbytes >= LONG_NBYTES and nbytes >= _MEAN_NBYTES * n


def copy_stretches(listed: int, nbytes: int, stream: Any = None) -> None:
    """Copies what the launch before has listed at that address: uint64 (LIST_WORDS,), whose first word was zero before.

    nbytes: of all values, at most
    """
    warps = min(-(-nbytes // STRETCH_NBYTES), MOST_STRETCHES)
    launch("stretches", "copy_stretches", WARP * warps, listed, resident=True, stream=stream)
