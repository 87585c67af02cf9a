"""What keys and values have to be: rows of one length, empty ones, nulls, at the column and at the door of a cache."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predis_lab import Column, InvalidKey, InvalidValue, UnsupportedType
from predis_lab.arguments import encode_column, encode_key
from predis_lab.checks import MAX_KEY_NBYTES, check_keys, check_values

BYTES = st.lists(st.binary(max_size=40), max_size=30)
quick = settings(max_examples=60, deadline=None, database=None)


@pytest.mark.parametrize("at", [0, 70_000, 199_999])
def test_lengths_of_more_rows_than_are_looked_at_at_once(at):
    lengths = np.full(200_000, 5)
    lengths[at], lengths[100] = 2, 9
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    column = Column.packed(np.zeros(offsets[-1], np.uint8), offsets)
    assert (column.shortest(), column.lengths_range()) == (2, (2, 9))
    assert check_values(column, column).offsets is not None
    even = Column.packed(np.zeros(10**6, np.uint8), np.arange(0, 10**6 + 1, 5))
    assert even.shortest() == check_values(even, even).width == 5


@pytest.mark.parametrize("dtype", [pa.binary(), pa.large_binary()], ids=str)
def test_key_lengths(dtype):
    allowed = Column.of(pa.array([b"k", b"k" * MAX_KEY_NBYTES], dtype))
    assert check_keys(allowed) is allowed
    for given_nbytes in (0, MAX_KEY_NBYTES + 1, 100_000):
        with pytest.raises(InvalidKey, match=f"key of {given_nbytes} bytes .* 1 to 65535 bytes"):
            check_keys(Column.of(pa.array([b"k", b"k" * given_nbytes, b"k"], dtype)))


@pytest.mark.parametrize("width", [0, MAX_KEY_NBYTES + 1])
def test_key_lengths_of_fixed_rows(width):
    with pytest.raises(InvalidKey, match=f"key of {width} bytes .* 1 to 65535 bytes"):
        check_keys(Column.of(np.zeros((2, width), "u1")))
    assert check_keys(Column.of(np.zeros((0, width), "u1"))).length == 0


@pytest.mark.parametrize("at", [0, 7, 8, 20])
def test_nulls_are_refused_by_row(at):
    rows = [b"k"] * 21
    rows[at] = None
    with pytest.raises(InvalidKey, match=f"row {at} of the keys is null: .* 1 to 65535 bytes"):
        check_keys(Column.of(rows))
    with pytest.raises(InvalidValue, match=f"row {at} of the values is null: erase the key"):
        check_values(Column.of(rows), Column.of([b"k"] * 21))


@pytest.mark.parametrize(("keys", "values"), [(2, 3), (3, 2), (0, 1), (1, 0)])
def test_keys_and_values_are_as_many(keys, values):
    with pytest.raises(InvalidValue, match=f"{keys} keys were given with {values} values"):
        check_values(Column.of([b"v"] * values), Column.of([b"k"] * keys))


def test_values_may_be_empty_and_long():
    values = Column.of([b"", b"v" * (MAX_KEY_NBYTES + 1)])
    assert check_values(values, Column.of([b"a", b"b"])) is values


@quick
@given(st.lists(st.binary(max_size=6), min_size=1, max_size=20), BYTES)
def test_rows_of_one_length_lose_their_offsets(rows, others):
    column = check_values(Column.of(rows), Column.of(rows))
    assert (column.offsets is None) == (len({*map(len, rows)}) == 1)
    assert column.to_arrow().to_pylist() == rows
    if all(rows):
        keys = check_keys(Column.of(pa.array([*others, *rows], pa.binary())[len(others) :]))
        assert (keys.offsets is None) == (column.offsets is None)
        assert keys.to_arrow().to_pylist() == rows


@pytest.mark.parametrize("n", [1, 2, 255, 256, 257])
@pytest.mark.parametrize("odd", [None, b"12345", bytearray(b"1234"), "1234", memoryview(b"1234")])
def test_lists_of_rows_of_one_length_but_for_one(n, odd):
    rows = [b"%04d" % i for i in range(n)]
    if odd is not None:
        rows[n // 2] = odd
    wanted = [row.encode() if isinstance(row, str) else bytes(row) for row in rows]
    for column in (Column.of(rows), encode_column(rows, encode_key)):
        assert column.to_arrow().to_pylist() == wanted
        plain = check_keys(column)
        assert (plain.offsets is None) == (len({*map(len, wanted)}) == 1)
        assert plain.to_arrow().to_pylist() == wanted


@quick
@given(st.lists(st.none() | st.binary(min_size=2, max_size=2), max_size=40), st.integers(0, 40))
@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(2)])
def test_nulls_of_a_part(kind, rows, start):
    part = pa.array(rows, kind)[start:]
    column = Column.of(part)
    assert column.to_arrow().equals(part) and column.to_arrow().null_count == part.null_count
    column.to_arrow().validate(full=True)


# ---- The same at the door of a cache


def test_a_cache_refuses_before_it_stores(cache):
    for keys, values, error in [
        ([b"a", b""], [b"1", b"2"], InvalidKey),
        ([b"a", None], [b"1", b"2"], InvalidKey),
        ([b"a", b"k" * 65536], [b"1", b"2"], InvalidKey),
        ([b"a", b"b"], [b"1", None], InvalidValue),
        ([b"a", b"b"], [b"1"], InvalidValue),
        ([b"a", 7], [b"1", b"2"], UnsupportedType),
        (b"ab", [b"1", b"2"], UnsupportedType),
        ([b"a"], pa.array([1]), UnsupportedType),
    ]:
        with pytest.raises(error):
            cache.insert(keys, values)
    for verb in (cache.find, cache.contains, cache.erase):
        for keys, error in [
            ([b"a", b""], InvalidKey),
            ([None], InvalidKey),
            (["k" * 65536], InvalidKey),
            ([1.5], UnsupportedType),
            (np.arange(3), UnsupportedType),
        ]:
            with pytest.raises(error):
                verb(keys)
    assert cache.dbsize() == 0
