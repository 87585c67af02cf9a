"""What keys and values have to be, before anything is done with them. Called by `client` and `verbs`."""

from __future__ import annotations

import numpy as np

from .columns import Column
from .errors import InvalidKey, InvalidValue

MAX_KEY_NBYTES = 2**16 - 1
MAX_VALUE_NBYTES = 64 * 2**20


def check_keys(keys: Column) -> Column:
    """The column, without a bitmap, if every key has 1 byte to 64 KiB - 1; raises InvalidKey otherwise."""
    if keys.offsets is None and keys.validity is None and 1 <= keys.width <= MAX_KEY_NBYTES:
        return keys
    null = _first_null(keys)
    if null is not None:
        raise InvalidKey(f"row {null} of the keys is null: a key has 1 to {MAX_KEY_NBYTES} bytes")
    if not keys.length:
        return _plain(keys, None)
    nbytes = keys.nbytes
    # None is longer than all together.
    low, high = keys.lengths_range() if nbytes > MAX_KEY_NBYTES else (keys.shortest(), nbytes)
    if low < 1 or high > MAX_KEY_NBYTES:
        given = low if low < 1 else high
        raise InvalidKey(f"a key of {given} bytes was given: a key has 1 to {MAX_KEY_NBYTES} bytes")
    return _plain(keys, low if low * keys.length == nbytes else None)


def check_values(values: Column, keys: Column) -> Column:
    """The column, without a bitmap, if it has a value for every key; raises InvalidValue otherwise.

    Values too long are no error here: they get their own status, and the rest of the batch is stored.
    """
    if values.length != keys.length:
        raise InvalidValue(f"{keys.length} keys were given with {values.length} values")
    if values.offsets is None and values.validity is None:
        return values
    null = _first_null(values)
    if null is not None:
        raise InvalidValue(f"row {null} of the values is null: erase the key instead")
    # On the device the lengths would have to be waited for.
    return _plain(values, None if values.on_device else _one_length(values))


def _plain(column: Column, width: int | None) -> Column:
    """The rows without a bitmap, and without offsets where they all have one width: such are moved as whole pieces."""
    if width is None or column.offsets is None:
        if column.validity is None:
            return column
        return Column(column.data, column.offsets, column.width, column.length)
    start, stop = column.span
    return Column(column.data[start:stop], None, width, column.length)


def _one_length(column: Column) -> int | None:
    """The length of every row, None where they differ: most often the first one tells."""
    offsets, n = column.offsets, column.length
    if offsets is None or not n:
        return None
    first = int(offsets[1]) - int(offsets[0])
    return first if first * n == column.nbytes and first == column.shortest() else None


def _first_null(column: Column) -> int | None:
    """The first row that is null, or None: a column with a bitmap need not have one."""
    if column.validity is None:
        return None
    bitmap = column.validity.get() if column.on_device else column.validity
    nulls = np.flatnonzero(np.unpackbits(bitmap, count=column.length, bitorder="little") == 0)
    return int(nulls[0]) if len(nulls) else None
