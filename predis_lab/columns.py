"""Column: packed byte strings, on the host or on the device.

Everything a caller may hand over (Arrow, NumPy, lists, CuPy) becomes one of these at the door, without a
copy where the memory layout allows; tables see nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from .errors import InvalidKey, InvalidValue, UnsupportedType

MAX_KEY_NBYTES = 2**16 - 1
MAX_VALUE_NBYTES = 64 * 2**20
_CACHED_ROWS = 2**16  # whose offsets stay in a core's cache between two passes over them


@dataclass(frozen=True, slots=True)
class Column:
    """`length` byte strings packed end to end.

    data:      uint8, 1-D, NumPy or CuPy; row i is data[offsets[i]:offsets[i + 1]]
    offsets:   int32 or int64, shape (length + 1,), on the same side; None where every row has `width` bytes
    width:     bytes per row where offsets is None
    validity:  uint8 bitmap, least significant bit first as in Arrow, set = present; None = all present
    nulls:     rows that are not present; -1 where nobody has counted them

    >>> Column.of([b"a", b"bcd"]).to_arrow().to_pylist()
    [b'a', b'bcd']
    """

    data: Any
    offsets: Any
    width: int
    length: int
    validity: Any = None
    nulls: int = -1

    @classmethod
    def of(cls, rows: Any) -> Column:
        """Any supported column as a Column; raises UnsupportedType for anything else.

        Arrow binary, string, their large, view and fixed-size variants, chunked or not, and whatever exports
        the Arrow C data interface; NumPy `S` (NumPy's meaning: trailing NULs are padding), `V`, `U` and
        object arrays; NumPy or CUDA arrays of two or more dimensions (each row's bytes); iterables of
        bytes-like objects and str (UTF-8).
        """
        if isinstance(rows, Column):
            return rows
        if isinstance(rows, (pa.Array, pa.ChunkedArray)):
            return _from_arrow(rows)
        if hasattr(rows, "__cuda_array_interface__"):
            return _from_device(rows)
        if isinstance(rows, np.ndarray):
            return _from_numpy(rows)
        if hasattr(rows, "__arrow_c_array__"):
            return _from_arrow(pa.array(rows))
        if hasattr(rows, "__arrow_c_stream__"):
            return _from_arrow(pa.chunked_array(rows))
        if isinstance(rows, (str, bytes, bytearray, memoryview, dict)) or not isinstance(
            rows, Iterable
        ):
            raise UnsupportedType(f"a column of byte strings is needed, not {type(rows).__name__}")
        return _from_list(rows if isinstance(rows, list) else list(rows))

    @classmethod
    def single(cls, row: bytes) -> Column:
        """A column of this one row."""
        return cls(np.frombuffer(row, np.uint8), None, len(row), 1)

    @classmethod
    def packed(cls, data: Any, offsets: Any) -> Column:
        """A variable-length column over arrays the caller already has, e.g. CuPy arrays on the device.

        data: uint8, 1-D. offsets: int32 or int64, 1-D, ascending, within data. Nothing is copied. On the device the
        check of the offsets waits for them.
        """
        for name, array, kinds in (("data", data, ("u1",)), ("offsets", offsets, ("i4", "i8"))):
            if getattr(array, "ndim", None) != 1 or np.dtype(array.dtype).str[1:] not in kinds:
                raise UnsupportedType(
                    f"{name} must be one-dimensional of dtype {' or '.join(kinds)}"
                )
            if not array.flags.c_contiguous:
                raise UnsupportedType(f"{name} must be contiguous")
        if len(offsets) == 0:
            raise UnsupportedType("offsets must have one entry more than there are rows")
        if (
            int(offsets[0]) < 0
            or int(offsets[-1]) > len(data)
            or (offsets[1:] < offsets[:-1]).any()
        ):
            raise UnsupportedType(f"offsets must ascend from 0 or more to {len(data)} or less")
        return cls(data, offsets, 0, len(offsets) - 1)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, rows: slice) -> Column:
        """A view of consecutive rows; a bitmap must be cut at a multiple of eight."""
        start, stop, step = rows.indices(self.length)
        if step != 1 or (self.validity is not None and start % 8):
            raise IndexError(
                "a Column is cut into consecutive rows, a bitmap at multiples of eight"
            )
        stop = max(start, stop)
        validity = None if self.validity is None else self.validity[start // 8 : (stop + 7) // 8]
        if self.offsets is None:
            data = self.data[start * self.width : stop * self.width]
            return Column(data, None, self.width, stop - start, validity)
        return Column(self.data, self.offsets[start : stop + 1], 0, stop - start, validity)

    @property
    def on_device(self) -> bool:
        """Whether the bytes lie in device memory."""
        return not isinstance(self.data, np.ndarray)

    @property
    def span(self) -> tuple[int, int]:
        """First byte used in `data`, and one past the last. Waits for the device where it lies there."""
        if self.offsets is None:
            return 0, self.length * self.width
        return int(self.offsets[0]), int(self.offsets[-1])

    @property
    def nbytes(self) -> int:
        """Payload bytes of all rows. Waits for the device where the column lies there."""
        start, stop = self.span
        return stop - start

    def lengths_range(self) -> tuple[int, int]:
        """Shortest and longest row in bytes; (0, 0) for no rows."""
        if self.length == 0:
            return 0, 0
        if self.offsets is None:
            return self.width, self.width
        low, high, step = 2**63, 0, self.length if self.on_device else _CACHED_ROWS
        for start in range(0, self.length, step):
            part = self.offsets[start : start + step + 1]
            lengths = part[1:] - part[:-1]
            low, high = min(low, int(lengths.min())), max(high, int(lengths.max()))
        return low, high

    def to_arrow(self) -> pa.Array:
        """The rows as an Arrow array over the same host memory; fixed-size, binary or large binary."""
        if self.on_device:
            raise UnsupportedType(
                "the column lies on the device: use its data and offsets, or copy it first"
            )
        validity = None if self.validity is None else pa.py_buffer(self.validity)
        data = pa.py_buffer(self.data)
        if self.offsets is None:
            return pa.Array.from_buffers(
                pa.binary(self.width), self.length, [validity, data], self.nulls
            )
        dtype = pa.binary() if self.offsets.dtype == np.int32 else pa.large_binary()
        return pa.Array.from_buffers(
            dtype, self.length, [validity, pa.py_buffer(self.offsets), data], self.nulls
        )


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
    found &= offsets[1:] - offsets[:-1] == width
    if not len(data) or not width:
        return xp.zeros((n, width), np.uint8), found
    places = offsets[:-1].astype(np.int64)[:, None] + xp.arange(width)[None, :]
    return data[xp.minimum(places, len(data) - 1)] * found[:, None], found


def check_keys(keys: Column) -> Column:
    """The column, without a bitmap, if every key has 1 byte to 64 KiB - 1; raises InvalidKey otherwise."""
    null = _first_null(keys)
    if null is not None:
        raise InvalidKey(f"row {null} of the keys is null: a key has 1 to {MAX_KEY_NBYTES} bytes")
    low, high = keys.lengths_range()
    if keys.length and (low < 1 or high > MAX_KEY_NBYTES):
        given = low if low < 1 else high
        raise InvalidKey(f"a key of {given} bytes was given: a key has 1 to {MAX_KEY_NBYTES} bytes")
    return _plain(keys, low, high)


def check_values(values: Column, keys: Column) -> Column:
    """The column, without a bitmap, if it has a value for every key; raises InvalidValue otherwise.

    Values too long are no error here: they get their own status, and the rest of the batch is stored.
    """
    if values.length != keys.length:
        raise InvalidValue(f"{keys.length} keys were given with {values.length} values")
    null = _first_null(values)
    if null is not None:
        raise InvalidValue(f"row {null} of the values is null: erase the key instead")
    # On the device the lengths would have to be waited for.
    return _plain(values, *((0, 1) if values.on_device else values.lengths_range()))


def _plain(column: Column, low: int, high: int) -> Column:
    """The rows without a bitmap, and without offsets where they all have one length: such are moved as whole pieces."""
    if column.offsets is None or low != high or not column.length:
        return column if column.validity is None else replace(column, validity=None)
    start, stop = column.span
    return Column(column.data[start:stop], None, low, column.length)


def _first_null(column: Column) -> int | None:
    """The first row that is null, or None: a column with a bitmap need not have one."""
    if column.validity is None:
        return None
    bitmap = column.validity.get() if column.on_device else column.validity
    nulls = np.flatnonzero(np.unpackbits(bitmap, count=column.length, bitorder="little") == 0)
    return int(nulls[0]) if len(nulls) else None


def _from_arrow(rows: pa.Array | pa.ChunkedArray) -> Column:
    if isinstance(rows, pa.ChunkedArray):
        rows = _combine(rows)
    kind = rows.type
    if pa.types.is_binary_view(kind) or pa.types.is_string_view(kind):
        rows, kind = rows.cast(pa.large_binary()), pa.large_binary()
    n, start = len(rows), rows.offset
    validity = _bitmap(rows) if rows.null_count else None
    if pa.types.is_fixed_size_binary(kind):
        width = kind.byte_width
        data = _bytes_of(rows.buffers()[1])[start * width : (start + n) * width]
        return Column(data, None, width, n, validity)
    if pa.types.is_binary(kind) or pa.types.is_string(kind):
        dtype: Any = np.int32
    elif pa.types.is_large_binary(kind) or pa.types.is_large_string(kind):
        dtype = np.int64
    else:
        raise UnsupportedType(f"a column of byte strings is needed, not Arrow {kind}")
    _, offsets, data = rows.buffers()
    if offsets is None or n == 0:
        return Column(_bytes_of(data), np.zeros(1, dtype), 0, 0)
    return Column(
        _bytes_of(data), np.frombuffer(offsets, dtype)[start : start + n + 1], 0, n, validity
    )


def _combine(rows: pa.ChunkedArray) -> pa.Array:
    if rows.num_chunks == 1:
        return rows.chunk(0)
    if pa.types.is_binary(rows.type) or pa.types.is_string(rows.type):
        # 32-bit offsets may not span the chunks' bytes together.
        rows = rows.cast(pa.large_binary())
    return rows.combine_chunks() if rows.num_chunks else pa.array([], rows.type)


def _bitmap(rows: pa.Array) -> np.ndarray:
    bits = np.asarray(rows.is_valid())
    return np.packbits(bits, bitorder="little")


def _bytes_of(buffer: pa.Buffer | None) -> np.ndarray:
    return np.zeros(0, np.uint8) if buffer is None else np.frombuffer(buffer, np.uint8)


def _from_numpy(rows: np.ndarray) -> Column:
    if rows.dtype.kind == "O" and rows.ndim == 1:
        return _from_list(rows.tolist())
    if rows.dtype.kind == "U" and rows.ndim == 1:
        return _from_list(rows.tolist())  # Arrow itself would cut each row at its first NUL
    if rows.dtype.kind == "S" and rows.ndim == 1:
        return _from_padded(np.ascontiguousarray(rows))
    if rows.dtype.kind == "V" and rows.dtype.fields is None and rows.ndim == 1:
        data = np.ascontiguousarray(rows).view(np.uint8)
        return Column(data, None, rows.dtype.itemsize, len(rows))
    if rows.dtype.kind in "biufcV" and rows.ndim >= 2:
        data = np.ascontiguousarray(rows).reshape(-1).view(np.uint8)
        return Column(data, None, _row_nbytes(rows), len(rows))
    raise UnsupportedType(
        f"a NumPy column is S, V, U or object in one dimension, or one row per byte string in two or more, "
        f"not {rows.dtype} in {rows.ndim}"
    )


def _row_nbytes(rows: Any) -> int:
    return int(np.prod(rows.shape[1:], dtype=np.int64)) * rows.dtype.itemsize


def _from_padded(rows: np.ndarray) -> Column:
    width, n = rows.dtype.itemsize, len(rows)
    if width == 0 or n == 0:
        return Column(np.zeros(0, np.uint8), np.zeros(n + 1, np.int64), 0, n)
    grid = rows.view(np.uint8).reshape(n, width)
    if grid[:, -1].all():
        return Column(grid.reshape(-1), None, width, n)
    lengths = np.strings.str_len(rows)
    offsets = np.zeros(n + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return Column(grid[np.arange(width) < lengths[:, None]], offsets, 0, n)


def _from_device(rows: Any) -> Column:
    try:
        import cupy
    except ImportError as error:
        raise UnsupportedType("a CUDA array was given, but CuPy is not installed here") from error
    rows = cupy.asarray(rows)
    if rows.ndim < 2:
        raise UnsupportedType(
            "a CUDA array needs one row per byte string; see Column.packed for packed ones"
        )
    data = cupy.ascontiguousarray(rows).reshape(-1).view(cupy.uint8)
    return Column(data, None, _row_nbytes(rows), len(rows))


def _from_list(rows: list) -> Column:
    try:
        return _from_arrow(pa.array(rows, pa.binary()))
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowCapacityError, TypeError, ValueError):
        # The rare list with something bytes() reads but Arrow does not, or with more than 2 GiB.
        converted = [_byte_string(row, index) for index, row in enumerate(rows)]
        return _from_arrow(pa.array(converted, pa.large_binary()))


def utf8(text: str) -> bytes:
    """The text's bytes; raises UnsupportedType where it has none, as with half of a surrogate pair."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise UnsupportedType(f"text that UTF-8 can write is needed: {error}") from error


def _byte_string(row: Any, index: int) -> bytes | None:
    if row is None or isinstance(row, bytes):
        return row
    if isinstance(row, str):
        return utf8(row)
    if isinstance(row, (bytearray, memoryview, np.bytes_)):
        return bytes(row)
    raise UnsupportedType(
        f"row {index} is {type(row).__name__}: bytes-like objects and str are allowed"
    )
