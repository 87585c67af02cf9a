"""Column: packed byte strings, on the host or on the device.

Everything a caller may hand over (Arrow, NumPy, lists, CuPy) becomes one of these at the door, without a
copy where the memory layout allows; tables see nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from .errors import UnsupportedType

_BYTE = np.dtype(np.uint8)  # which NumPy would look up for the class, at each view
BINARY, LARGE_BINARY = pa.binary(), pa.large_binary()
# Arrow's types with offsets, by their numbers: what `pa.types.is_binary` and the like compare, one after the other.
_OFFSETS = {
    kind.id: dtype
    for kinds, dtype in (
        ((BINARY, pa.string()), np.dtype(np.int32)),
        ((LARGE_BINARY, pa.large_string()), np.dtype(np.int64)),
    )
    for kind in kinds
}
_VIEWS, _FIXED = {pa.binary_view().id, pa.string_view().id}, pa.binary(1).id
_FEW_ROWS, _FEW_LISTED = 2**10, 2**8  # in a column, and in a list
_CACHED_ROWS = 2**16  # whose offsets stay in a core's cache between two passes over them


@dataclass(slots=True)  # frozen, one would take four times as long to make
class Column:
    """`length` byte strings packed end to end. Never changed once it is made.

    data:      uint8, 1-D, NumPy or CuPy; row i is data[offsets[i]:offsets[i + 1]]
    offsets:   int32 or int64, shape (length + 1,), on the same side; None where every row has `width` bytes
    width:     bytes per row where offsets is None
    validity:  uint8 bitmap, least significant bit first as in Arrow, set = present; None = all present

    >>> Column.of([b"a", b"bcd"]).to_arrow().to_pylist()
    [b'a', b'bcd']
    """

    data: Any
    offsets: Any
    width: int
    length: int
    validity: Any = None

    @classmethod
    def of(cls, rows: Any) -> Column:
        """Any supported column as a Column; raises UnsupportedType for anything else.

        Arrow binary, string, their large, view and fixed-size variants, chunked or not, and whatever exports
        the Arrow C data interface; NumPy `S` (NumPy's meaning: trailing NULs are padding), `V`, `U` and
        object arrays; NumPy or CUDA arrays of two or more dimensions (each row's bytes); iterables of
        bytes-like objects and str (UTF-8).
        """
        known = _KINDS.get(type(rows))
        if known is not None:
            return known(rows)
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
        return cls(np.frombuffer(row, _BYTE), None, len(row), 1)

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
        if self.offsets is None:
            return self.length * self.width
        return int(self.offsets[-1]) - int(self.offsets[0])

    def lengths_range(self) -> tuple[int, int]:
        """Shortest and longest row in bytes; (0, 0) for no rows."""
        if self.length == 0:
            return 0, 0
        if self.offsets is None:
            return self.width, self.width
        low, high = 2**63, 0
        for lengths in self._lengths():
            low, high = min(low, int(lengths.min())), max(high, int(lengths.max()))
        return low, high

    def shortest(self) -> int:
        """Bytes of the shortest row; there is one. In half the time of `lengths_range`."""
        if self.offsets is None:
            return self.width
        if self.length <= _FEW_ROWS and not self.on_device:
            lengths = self.offsets[1:] - self.offsets[:-1]
            told, first = lengths.tobytes(), lengths[:1].tobytes()
            # As a rule they are all alike, and a minimum takes five times as long as to see that.
            return int(lengths[0] if told == first * self.length else lengths.min())
        return min(int(lengths.min()) for lengths in self._lengths())

    def _lengths(self) -> Iterator[Any]:
        """Of the rows of a column with offsets, piece by piece."""
        step = self.length if self.on_device else _CACHED_ROWS
        for start in range(0, self.length, step):
            part = self.offsets[start : start + step + 1]
            yield part[1:] - part[:-1]

    def to_arrow(self, nulls: int = -1) -> pa.Array:
        """The rows as an Arrow array over the same host memory; fixed-size, binary or large binary.

        nulls:  how many are not present, where somebody has counted them
        """
        if self.on_device:
            raise UnsupportedType(
                "the column lies on the device: use its data and offsets, or copy it first"
            )
        buffers = [None if self.validity is None else pa.py_buffer(self.validity)]
        if self.offsets is None:
            kind = pa.binary(self.width)
        else:
            kind = BINARY if self.offsets.itemsize == 4 else LARGE_BINARY
            buffers.append(pa.py_buffer(self.offsets))
        buffers.append(pa.py_buffer(self.data))
        return pa.Array.from_buffers(kind, self.length, buffers, nulls)


def _from_arrow(rows: pa.Array | pa.ChunkedArray) -> Column:
    if isinstance(rows, pa.ChunkedArray):
        rows = _combine(rows)
    kind = rows.type
    number = kind.id
    if number in _VIEWS:
        rows, number = rows.cast(LARGE_BINARY), LARGE_BINARY.id
    if number == _FIXED:
        return _from_fixed(rows)
    dtype = _OFFSETS.get(number)
    if dtype is None:
        raise UnsupportedType(f"a column of byte strings is needed, not Arrow {kind}")
    n, (_, offsets, data) = len(rows), rows.buffers()
    if offsets is None or n == 0:
        return Column(_bytes_of(data), np.zeros(1, dtype), 0, 0)
    validity = _bitmap(rows) if rows.null_count else None
    places = np.frombuffer(offsets, dtype, n + 1, rows.offset * dtype.itemsize)
    return Column(_bytes_of(data), places, 0, n, validity)


def _from_fixed(rows: pa.FixedSizeBinaryArray) -> Column:
    n, width = len(rows), rows.type.byte_width
    validity = _bitmap(rows) if rows.null_count else None
    if not n * width:
        return Column(np.zeros(0, _BYTE), None, width, n, validity)
    data = np.frombuffer(rows.buffers()[1], _BYTE, n * width, rows.offset * width)
    return Column(data, None, width, n, validity)


def _combine(rows: pa.ChunkedArray) -> pa.Array:
    if rows.num_chunks == 1:
        return rows.chunk(0)
    if pa.types.is_binary(rows.type) or pa.types.is_string(rows.type):
        # 32-bit offsets may not span the chunks' bytes together.
        rows = rows.cast(pa.large_binary())
    return rows.combine_chunks() if rows.num_chunks else pa.array([], rows.type)


def _bitmap(rows: pa.Array) -> np.ndarray:
    first, cut = divmod(rows.offset, 8)
    if cut:
        return np.packbits(np.asarray(rows.is_valid()), bitorder="little")
    return np.frombuffer(rows.buffers()[0], _BYTE, -(-len(rows) // 8), first)


def _bytes_of(buffer: pa.Buffer | None) -> np.ndarray:
    return np.zeros(0, _BYTE) if buffer is None else np.frombuffer(buffer, _BYTE)


def _from_numpy(rows: np.ndarray) -> Column:
    dtype, kind = rows.dtype, rows.dtype.kind
    if rows.ndim == 1:
        if kind == "V" and dtype.fields is None:
            data = np.ascontiguousarray(rows).view(_BYTE)
            return Column(data, None, dtype.itemsize, len(rows))
        if kind == "S":
            return _from_padded(np.ascontiguousarray(rows))
        if kind in "OU":
            # Arrow itself would cut each row of text at its first NUL.
            return _from_list(rows.tolist())
    elif rows.ndim >= 2 and kind in "biufcV":
        data = np.ascontiguousarray(rows).reshape(-1).view(_BYTE)
        return Column(data, None, _row_nbytes(rows), len(rows))
    raise UnsupportedType(
        f"a NumPy column is S, V, U or object in one dimension, or one row per byte string in two or more, "
        f"not {rows.dtype} in {rows.ndim}"
    )


def _row_nbytes(rows: Any) -> int:
    return math.prod(rows.shape[1:]) * rows.dtype.itemsize


def _from_padded(rows: np.ndarray) -> Column:
    width, n = rows.dtype.itemsize, len(rows)
    if width == 0 or n == 0:
        return Column(np.zeros(0, np.uint8), np.zeros(n + 1, np.int64), 0, n)
    data = rows.view(_BYTE)
    # Every row's last byte, searched as memory is: for a few rows that takes a quarter of what `all` does.
    if 0 not in data[width - 1 :: width].tobytes():
        return Column(data, None, width, n)
    grid = data.reshape(n, width)
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


def few_even(rows: list) -> Column | None:
    """A few rows of bytes that all have one length, sooner than Arrow's builder has them; None of any others."""
    n = len(rows)
    if not 0 < n <= _FEW_LISTED or set(map(type, rows)) != {bytes}:
        return None
    width = len(rows[0])
    if not width or set(map(len, rows)) != {width}:
        return None
    return Column(np.frombuffer(b"".join(rows), _BYTE), None, width, n)


def _from_list(rows: list) -> Column:
    few = few_even(rows)
    if few is not None:
        return few
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


# What most calls bring is known by its very class: sooner than by one question after the other.
_KINDS: dict[type, Callable[[Any], Column]] = {
    np.ndarray: _from_numpy,
    list: _from_list,
    pa.FixedSizeBinaryArray: _from_fixed,
    pa.BinaryArray: _from_arrow,
    pa.LargeBinaryArray: _from_arrow,
    pa.StringArray: _from_arrow,
}
