"""Columns from one memory to another, each of their arrays whole. Used by `engine` and `pipeline`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cupy
import numpy as np

from ..columns import Column
from .column_kernels import shift_offsets


def uploaded(
    column: Column, upload: Callable[[np.ndarray], Any], base: int = 0
) -> tuple[Column, int]:
    """The column elsewhere, and where its offsets begin: on the device that remains to be taken off them, by `rebase`.

    upload: starts an array's copy, and gives the uint8 array that it goes to. base: where `data` begins, as the offsets have it
    """
    start, stop = column.span
    data, offsets = upload(column.data[start - base : stop - base]), column.offsets
    if offsets is not None:
        offsets = upload(offsets).view(offsets.dtype)
    return Column(data, offsets, column.width, len(column)), start


def rebase(column: Column, start: int) -> None:
    """Takes `start` off a device column's offsets, on the current stream."""
    if column.offsets is not None and start:
        shift_offsets(column.offsets, -start, column.offsets)


def on_host(column: Column) -> Column:
    """The column in pageable memory; a host column itself."""
    if not column.on_device:
        return column
    offsets = None if column.offsets is None else cupy.asnumpy(column.offsets)
    return Column(cupy.asnumpy(column.data), offsets, column.width, column.length)
