"""Values of one length as an array that a caller calculates with. Used by `client` and `gpu.launched`."""

from __future__ import annotations

from typing import Any

import numpy as np

from .columns import Column


def dense_rows(xp: Any, column: Column, width: int, *, full: bool = False) -> tuple[Any, Any]:
    """The rows of `width` bytes as uint8 (n, width), zeros elsewhere, and which they are, bool (n,).

    xp: numpy or cupy, as the column lies. column: with offsets. full: its rows are known to have that width, all of
    them; a device then has nothing to look for.
    """
    n, data, offsets = len(column), column.data, column.offsets
    if column.validity is None:
        found = xp.ones(n, np.bool_)
    else:
        found = xp.unpackbits(column.validity, bitorder="little")[:n].view(np.bool_)
    if full:
        return data[: n * width].reshape(n, width), found
    even = offsets[1:] - offsets[:-1] == width
    found &= even
    if not len(data) or not width:
        return xp.zeros((n, width), np.uint8), found
    filled = 0 if column.on_device else int(np.count_nonzero(even))
    if filled and column.nbytes == filled * width:  # all others are empty: these lie end to end
        start, stop = column.span
        rows = packed = np.array(data[start:stop]).reshape(filled, width)
        if filled < n:
            rows = np.zeros((n, width), np.uint8)
            rows[even] = packed
        if not found.all():
            rows[~found] = 0
        return rows, found
    places = offsets[:-1].astype(np.int64)[:, None] + xp.arange(width)[None, :]
    return data[xp.minimum(places, len(data) - 1)] * found[:, None], found
