"""Values of one length as an array that a caller calculates with. Used by `client`; on the device by `gpu.column_kernels`."""

from __future__ import annotations

import numpy as np

from .columns import Column


def dense_rows(column: Column, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of `width` bytes as uint8 (n, width), zeros elsewhere, and which they are, bool (n,).

    column: with offsets, in host memory
    """
    n, data, offsets = len(column), column.data, column.offsets
    if column.validity is None:
        found = np.ones(n, np.bool_)
    else:
        found = np.unpackbits(column.validity, bitorder="little")[:n].view(np.bool_)
    even = offsets[1:] - offsets[:-1] == width
    found &= even
    if not len(data) or not width:
        return np.zeros((n, width), np.uint8), found
    filled = int(np.count_nonzero(even))
    if filled and column.nbytes == filled * width:  # all others are empty: these lie end to end
        start, stop = column.span
        rows = packed = np.array(data[start:stop]).reshape(filled, width)
        if filled < n:
            rows = np.zeros((n, width), np.uint8)
            rows[even] = packed
        if not found.all():
            rows[~found] = 0
        return rows, found
    places = offsets[:-1].astype(np.int64)[:, None] + np.arange(width)[None, :]
    return data[np.minimum(places, len(data) - 1)] * found[:, None], found
