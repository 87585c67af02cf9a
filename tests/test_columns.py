"""Column: what may be handed over, what it becomes, and what is refused, against plain lists of bytes."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predis_lab import Column, InvalidKey, UnsupportedType
from predis_lab.checks import check_keys

ROWS = [b"", b"a", b"\0", b"a\0", b"\0b", b"\xff" * 15, b"x" * 16, b"y" * 17, b"z" * 4096]
TEXT = ["", "a", "ü", "a\0b", "z" * 300]
VARIABLE = [pa.binary(), pa.large_binary(), pa.binary_view()]
TEXTUAL = [pa.string(), pa.large_string(), pa.string_view()]

BYTES = st.lists(st.binary(max_size=40), max_size=30)
CUTS = st.tuples(st.integers(0, 30), st.integers(0, 30))
quick = settings(max_examples=60, deadline=None, database=None)


class FromC:
    """Exports an Arrow array through the C data interface, and is no Arrow class itself."""

    def __init__(self, array):
        self.__arrow_c_array__ = array.__arrow_c_array__


class FromStream:
    """The same for chunks."""

    def __init__(self, chunks):
        self.__arrow_c_stream__ = chunks.__arrow_c_stream__


def rows_of(column: Column) -> list:
    assert len(column) == column.length
    return column.to_arrow().to_pylist()


def read(rows) -> list:
    return rows_of(Column.of(rows))


# ---- Arrow


@pytest.mark.parametrize("kind", VARIABLE, ids=str)
def test_arrow_bytes(kind):
    assert read(pa.array(ROWS, kind)) == ROWS
    assert read(pa.array([], kind)) == []
    assert read(pa.array([*ROWS, None, b"end"], kind)) == [*ROWS, None, b"end"]


@pytest.mark.parametrize("kind", TEXTUAL, ids=str)
def test_arrow_text_is_utf8(kind):
    expected = [text.encode() for text in TEXT]
    assert read(pa.array(TEXT, kind)) == expected
    assert read(pa.array([None, *TEXT], kind)) == [None, *expected]
    assert read(pa.chunked_array([TEXT, [], TEXT], kind)) == expected * 2


@pytest.mark.parametrize("width", [1, 8, 17])
def test_arrow_fixed_size(width):
    rows = [bytes([i]) * width for i in range(11)]
    array = pa.array(rows, pa.binary(width))
    column = Column.of(array)
    assert column.offsets is None and column.width == width
    assert rows_of(column) == rows
    assert read(array[3:9]) == rows[3:9]
    assert read(array[11:]) == []
    assert read(pa.chunked_array([array[:4], array[9:]])) == rows[:4] + rows[9:]
    assert read(pa.array([rows[0], None], pa.binary(width))) == [rows[0], None]


def test_arrow_memory_is_not_copied():
    array = pa.array(ROWS, pa.binary())
    column = Column.of(array[2:])
    assert column.data.ctypes.data == array.buffers()[2].address
    assert column.offsets.ctypes.data == array.buffers()[1].address + 2 * 4
    back = column.to_arrow()
    assert back.buffers()[2].address == array.buffers()[2].address


@quick
@given(
    BYTES,
    CUTS,
    st.sampled_from([pa.binary(), pa.large_binary(), pa.binary_view()]),
    st.booleans(),
)
def test_slices_of_arrow(rows, cut, kind, with_nulls):
    if with_nulls:
        rows = [None if i % 3 == 0 else row for i, row in enumerate(rows)]
    start, n = cut
    array = pa.array(rows, kind)
    assert read(array.slice(min(start, len(rows)), n)) == rows[start : start + n]


@quick
@given(st.lists(BYTES, max_size=5), st.sampled_from([pa.binary(), pa.large_binary()]))
def test_chunks_of_arrow(chunks, kind):
    array = pa.chunked_array([pa.array(chunk, kind) for chunk in chunks], kind)
    assert read(array) == [row for chunk in chunks for row in chunk]


def test_whatever_exports_arrow():
    array = pa.array(ROWS)
    assert read(FromC(array)) == ROWS
    assert read(FromC(array[2:5])) == ROWS[2:5]
    assert read(FromStream(pa.chunked_array([array, array[:3]]))) == ROWS + ROWS[:3]


def test_nulls_outside_a_slice_do_not_count():
    array = pa.array([None, b"a", b"b", None])
    assert check_keys(Column.of(array[1:3])).length == 2
    with pytest.raises(InvalidKey, match="row 2 of the keys is null"):
        check_keys(Column.of(array[1:]))


@pytest.mark.parametrize(
    "rows",
    [
        pa.array([b"a", b"b"]).dictionary_encode(),
        pa.array([1, 2]),
        pa.array([1.5]),
        pa.array([True]),
        pa.array([[b"a"]]),
        pa.nulls(3),
        pa.array([{"a": b"a"}]),
        pa.chunked_array([[1, 2]]),
        pa.record_batch({"a": [b"a"]}),
        pa.table({"a": [b"a"]}),
        FromC(pa.array([1, 2])),
    ],
    ids=lambda rows: type(rows).__name__ + str(getattr(rows, "type", "")),
)
def test_other_arrow_types_are_refused(rows):
    with pytest.raises(UnsupportedType, match="a column of byte strings is needed, not Arrow"):
        Column.of(rows)


# ---- NumPy


@quick
@given(BYTES, st.integers(1, 45))
def test_numpy_s_drops_trailing_nuls_and_no_others(rows, width):
    rows = [row[:width] for row in rows]
    array = np.array(rows, f"S{width}")
    assert read(array) == [row.rstrip(b"\0") for row in rows]
    assert read(array[::2]) == [row.rstrip(b"\0") for row in rows[::2]]
    assert read(array[::-1]) == [row.rstrip(b"\0") for row in rows[::-1]]


def test_numpy_s_of_full_width_is_fixed():
    array = np.array([b"ab\0c", b"\0\0\0d", b"efgh"])
    column = Column.of(array)
    assert column.offsets is None and column.width == 4
    assert rows_of(column) == [b"ab\0c", b"\0\0\0d", b"efgh"]
    assert read(np.zeros(3, "S0")) == [b"", b"", b""]
    assert read(np.zeros(3, "S7")) == [b"", b"", b""]
    assert read(np.zeros(0, "S7")) == []


def test_numpy_v_keeps_every_byte():
    assert read(np.array([b"a\0b", b"\0\0\0", b"abc"], "V3")) == [b"a\0b", b"\0\0\0", b"abc"]
    assert read(np.array([b"ab", b"cd", b"ef"], "V2")[::-2]) == [b"ef", b"ab"]
    assert read(np.zeros(0, "V3")) == []


def test_numpy_text_and_objects():
    text = ["", "a", "ü", "z" * 300]
    assert read(np.array(text)) == [row.encode() for row in text]
    assert read(np.array(text)[::-2]) == [row.encode() for row in text[::-2]]
    mixed = np.array([b"a\0", "ü", bytearray(b"x"), np.bytes_(b"z"), None], object)
    assert read(mixed) == [b"a\0", "ü".encode(), b"x", b"z", None]
    assert read(mixed[:4][::-1]) == [b"z", b"x", "ü".encode(), b"a\0"]


def test_numpy_text_keeps_nuls_before_the_end():
    assert read(np.array(["a\0b", "a\0c", "\0d"])) == [b"a\0b", b"a\0c", b"\0d"]


@pytest.mark.parametrize("dtype", ["u1", "<i8", ">i4", "f4", "c16", "?"])
@pytest.mark.parametrize("shape", [(5, 3), (5, 2, 2), (1, 1), (0, 4)])
def test_numpy_rows_are_their_bytes(dtype, shape):
    rows = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    assert read(rows) == [row.tobytes() for row in rows]
    assert read(rows[:, ::-1]) == [row.tobytes() for row in rows[:, ::-1]]
    assert read(np.asfortranarray(rows)) == [row.tobytes() for row in rows]
    assert read(rows[:, :0]) == [b""] * len(rows)


@pytest.mark.parametrize(
    "rows",
    [
        np.arange(3),
        np.array(b"a"),
        np.zeros((2, 2), "M8[s]"),
        np.array([[b"a"]]),
        np.array([["a"]]),
        np.array([[b"a"]], object),
        np.zeros(2, [("a", "i4")]),
    ],
    ids=lambda rows: f"{rows.dtype}-{rows.ndim}d",
)
def test_other_numpy_arrays_are_refused(rows):
    with pytest.raises(UnsupportedType, match=f"not .* in {rows.ndim}"):
        Column.of(rows)


# ---- Iterables

BYTES_LIKE = st.one_of(
    st.none(),
    st.binary(max_size=20),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    st.binary(max_size=20).map(bytearray),
    st.binary(max_size=20).map(memoryview),
)


def as_bytes(row):
    return row.encode() if isinstance(row, str) else None if row is None else bytes(row)


@quick
@given(st.lists(BYTES_LIKE, max_size=20))
def test_lists_of_anything_like_bytes(rows):
    expected = [as_bytes(row) for row in rows]
    assert read(rows) == expected
    assert read(tuple(rows)) == expected
    assert read(row for row in rows) == expected


def test_empty_lists():
    for rows in ([], (), iter(())):
        column = Column.of(rows)
        assert (len(column), column.nbytes, column.lengths_range()) == (0, 0, (0, 0))
        assert check_keys(column) is column


@pytest.mark.parametrize(
    "row",
    [3, 1.5, [b"a"], object(), float("nan"), True, np.void(b"a")],
    ids=lambda row: type(row).__name__,
)
def test_a_row_of_another_type_is_named(row):
    with pytest.raises(UnsupportedType, match=f"row 2 is {type(row).__name__}: bytes-like"):
        Column.of([b"a", "b", row, b"c"])


@pytest.mark.parametrize(
    "rows",
    [
        b"abc",
        "abc",
        bytearray(b"a"),
        memoryview(b"a"),
        {b"a": 1},
        None,
        7,
        object(),
        pa.scalar(b"a"),
    ],
    ids=lambda rows: type(rows).__name__,
)
def test_what_is_no_column_is_refused(rows):
    with pytest.raises(UnsupportedType, match=f"not {type(rows).__name__}"):
        Column.of(rows)


# ---- Columns of the caller's own


def test_packed():
    data = np.frombuffer(b"abcdef", np.uint8)
    for dtype in (np.int32, np.int64):
        column = Column.packed(data, np.array([0, 1, 1, 4], dtype))
        assert rows_of(column) == [b"a", b"", b"bcd"]
        assert column.lengths_range() == (0, 3) and column.span == (0, 4)
    assert Column.of(column) is column
    assert rows_of(Column.packed(data, np.array([2, 4, 6], np.int64))) == [b"cd", b"ef"]
    assert rows_of(Column.packed(data[:0], np.zeros(1, np.int32))) == []


@pytest.mark.parametrize(
    ("data", "offsets", "message"),
    [
        (np.zeros(4, "i1"), np.zeros(2, "i4"), "data must be one-dimensional of dtype u1"),
        (np.zeros((2, 2), "u1"), np.zeros(2, "i4"), "data must be"),
        (b"abcd", np.zeros(2, "i4"), "data must be"),
        (np.zeros(4, "u1"), np.zeros(2, "u4"), "offsets must be one-dimensional of dtype i4 or i8"),
        (np.zeros(4, "u1"), [0, 4], "offsets must be"),
        (np.zeros(8, "u1")[::2], np.zeros(2, "i4"), "data must be contiguous"),
        (np.zeros(4, "u1"), np.zeros(4, "i4")[::2], "offsets must be contiguous"),
        (np.zeros(4, "u1"), np.zeros(0, "i4"), "one entry more"),
        (np.zeros(4, "u1"), np.array([0, 64], "i4"), "ascend"),
        (np.zeros(4, "u1"), np.array([0, 3, 2, 4], "i8"), "ascend"),
        (np.zeros(4, "u1"), np.array([-1, 4], "i4"), "ascend"),
    ],
)
def test_packed_refuses(data, offsets, message):
    with pytest.raises(UnsupportedType, match=message):
        Column.packed(data, offsets)


@quick
@given(BYTES, CUTS, CUTS, st.booleans())
def test_slices_of_columns(rows, outer, inner, fixed):
    if fixed:
        rows = [row.ljust(40, b".") for row in rows]
    array = pa.array(rows, pa.binary(40) if fixed else pa.binary())
    column = Column.of(array)[outer[0] : outer[1]]
    assert rows_of(column) == rows[outer[0] : outer[1]]
    expected = rows[outer[0] : outer[1]][inner[0] : inner[1]]
    column = column[inner[0] : inner[1]]
    assert rows_of(column) == expected
    assert column.nbytes == sum(map(len, expected))
    lengths = [len(row) for row in expected]
    assert column.lengths_range() == ((min(lengths), max(lengths)) if lengths else (0, 0))
    assert not lengths or column.shortest() == min(lengths)


def test_slices_with_nulls_begin_at_multiples_of_eight():
    rows = [None if i % 5 == 2 else b"%d" % i for i in range(40)]
    column = Column.of(pa.array(rows))
    for start in (0, 8, 32, 40):
        for stop in (start, 39, 40):
            assert rows_of(column[start:stop]) == rows[start:stop]
    for cut in (slice(1, None), slice(0, 8, 2)):
        with pytest.raises(IndexError, match="multiples of eight"):
            column[cut]
    with pytest.raises(IndexError, match="consecutive"):
        Column.of([b"a", b"b"])[::-1]
