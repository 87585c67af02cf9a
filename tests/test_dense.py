"""Values of one length as one array, against plain lists of bytes."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from predis_lab import Column
from predis_lab.dense import dense_rows


@settings(max_examples=60, deadline=None, database=None)
@given(
    st.lists(st.none() | st.binary(max_size=6), max_size=20), st.integers(0, 6), st.integers(0, 3)
)
def test_dense_rows(rows, width, cut):
    """Those of the width that is asked for, zeros elsewhere, wherever the column begins."""
    column = Column.of(pa.array([b"xy"] * cut + rows, pa.binary())[cut:])
    dense, found = dense_rows(column, width)
    assert found.tolist() == [row is not None and len(row) == width for row in rows]
    wanted = [row if there else bytes(width) for row, there in zip(rows, found, strict=True)]
    assert dense.shape == (len(rows), width) and [row.tobytes() for row in dense] == wanted
    assert dense.flags.writeable and dense.dtype == np.uint8


def test_dense_rows_of_nulls_that_take_up_room():
    bits, offsets = np.array([0b101], np.uint8), np.arange(0, 12, 3, dtype=np.int32)
    column = Column(np.arange(1, 10, dtype=np.uint8), offsets, 0, 3, bits)
    rows, found = dense_rows(column, 3)
    assert rows.tolist() == [[1, 2, 3], [0, 0, 0], [7, 8, 9]] and found.tolist() == [1, 0, 1]
