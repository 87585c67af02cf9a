"""Kernels on packed columns alone, against NumPy and plain lists of bytes; and what their callers make of them."""

import numpy as np
import pyarrow as pa
import pytest
from chunked import some
from tiered import keys_of

from predis_lab import Column, Predis

try:
    import cupy

    from predis_lab.gpu import column_kernels, kernels
except ImportError:  # every test here then skips with this as its reason, see conftest
    cupy = column_kernels = None

pytestmark = pytest.mark.gpu

WIDE, NARROW = np.int64, np.int32


@pytest.mark.parametrize("n", [1, 127, 1000])
@pytest.mark.parametrize(("dtype", "into"), [(NARROW, NARROW), (WIDE, WIDE), (NARROW, WIDE)])
def test_shifted_offsets(n, dtype, into):
    offsets = np.random.default_rng(n).integers(0, 2**30, n).astype(dtype)
    by = 2**40 if into is WIDE else -(2**20)
    there, shifted = cupy.asarray(offsets), cupy.zeros(n + 1, into)
    column_kernels.shift_offsets(there, by, shifted[:n])
    assert (cupy.asnumpy(shifted[:n]) == offsets.astype(into) + by).all() and int(shifted[n]) == 0
    assert (cupy.asnumpy(there) == offsets).all()
    column_kernels.shift_offsets(there, -7, there)
    assert (cupy.asnumpy(there) == offsets - 7).all()


@pytest.mark.parametrize("dtype", [NARROW, WIDE])
@pytest.mark.parametrize("width", [0, 1, 15, 16, 17, 100, 520, 5000])
def test_rows_that_are_laid_out(width, dtype):
    """Those of that width, wherever they begin; zeros for rows that are missing, or longer, or shorter."""
    generator = np.random.default_rng(width)
    lengths = np.where(
        generator.random(333) < 0.6, width, generator.integers(0, 2 * width + 3, 333)
    )
    rows = [generator.bytes(int(length)) for length in lengths]
    valid = generator.random(333) < 0.8
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(dtype) + dtype(3)
    data = np.frombuffer(b"xyz" + b"".join(rows), np.uint8)
    bits = np.packbits(valid, bitorder="little")
    column = Column(*map(cupy.asarray, (data, offsets)), 0, len(rows), cupy.asarray(bits))
    laid, present = column_kernels.lay_out(column, width)
    wanted = valid & (lengths == width)
    assert laid.shape == (333, width) and cupy.asnumpy(present).tolist() == wanted.tolist()
    expected = [row if there else bytes(width) for row, there in zip(rows, wanted, strict=True)]
    assert [row.tobytes() for row in cupy.asnumpy(laid)] == expected


@pytest.mark.parametrize("n", [0, 1, 100, 5000])
def test_keys_are_counted(n):
    with Predis("64MiB", backend="cuda") as cache:
        keys = keys_of(np.arange(2 * n + 1))
        cache.insert(keys[::2], keys[::2])
        table, count = cache._table.table, cupy.full(1, 5, np.uint64)
        asked = Column(cupy.asarray(keys.reshape(-1)), None, 16, 2 * n + 1)
        kernels.peek(asked, table.index, 1, count=count)
        assert int(count[0]) == 5 + n + 1


@pytest.mark.parametrize("length", [12, 16])
def test_tensors_of_values_of_several_lengths(length):
    """Asked for in one length: found where a value has it, whether or not all others have, and whichever keys ask."""
    with Predis("64MiB", backend="cuda") as cache, Predis("64MiB", backend="host") as host:
        keys, values = [b"k%05d" % i * (1 + i % 2) for i in range(2000)], some(2000, 0, 20)
        values[:500] = [bytes([1 + i % 255]) * length for i in range(500)]
        for one in (cache, host):
            one.insert(pa.array(keys, pa.binary()), pa.array(values, pa.binary()))
        asked = pa.array([*keys[::-1], b"absent"], pa.binary())
        rows, found = cache.find(asked, dtype="u1", shape=(length,), device=True)
        expected, there = host.find(asked, dtype="u1", shape=(length,))
        assert found.get().tolist() == there.tolist() and there.sum() >= 500
        assert (rows.get() == expected).all()
