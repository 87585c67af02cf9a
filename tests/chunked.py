"""Columns in host memory for bulk calls that go in many chunks; the caches are conftest's."""

import numpy as np
import pyarrow as pa

CHUNK = 4096  # bytes, in these tests


def fixed(numbers, width=16):
    rows = np.zeros((len(numbers), width), np.uint8)
    rows[:, :8] = np.ascontiguousarray(numbers, "<u8").view(np.uint8).reshape(-1, 8)
    return rows


def column(rows):
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(rows.shape[1]), len(rows), [None, pa.py_buffer(np.ascontiguousarray(rows))]
    )


def some(n, low, high, seed=0):
    """n byte strings of `low` to `high` bytes."""
    generator = np.random.default_rng(seed)
    return [generator.bytes(int(size)) for size in generator.integers(low, high + 1, n)]


def pinned_column(rows):
    from predis_lab.gpu import pinned

    array = pinned.pinned(rows.size, np.uint8)
    array[:] = rows.reshape(-1)
    return column(array.reshape(rows.shape))
