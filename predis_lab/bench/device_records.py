"""Records made on the device, for benchmarks of the table alone: seeded by their numbers, so that any can be made again.

Keys of distinct numbers are distinct. Called by `table_rates`. Imports CuPy: only for where there is a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cupy
import numpy as np
import pyarrow as pa

from ..columns import Column
from .workloads import airports

KEY_NBYTES = 16
# Odd multipliers: a bijection of the numbers, so that distinct records have distinct keys.
_MIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9)
_DIGITS = 8  # of a number, at the end of a real key


def keys(numbers: Any) -> Column:
    """Keys of 16 bytes, one for each number (uint64)."""
    return _words(numbers, [numbers * np.uint64(mix) for mix in _MIX])


def values(numbers: Any, nbytes: int) -> Column:
    """Values of nbytes, a multiple of 8, one for each number."""
    odd = 2 * cupy.arange(nbytes // 8, dtype=np.uint64) + np.uint64(1)
    data = (numbers[:, None] * odd[None, :]).reshape(-1).view(np.uint8)
    return Column(data, None, nbytes, len(numbers))


def _words(numbers: Any, columns: list) -> Column:
    data = cupy.stack(columns, axis=1).reshape(-1).view(np.uint8)
    return Column(data, None, 8 * len(columns), len(numbers))


@dataclass(frozen=True)
class RealRecords:
    """Real records of variable length: each number's key is an airport's name and the number, its value the airport's JSON.

    Names are cut so that keys have 80 bytes at most; values that have not 20 to 600 bytes are left out.
    """

    names: tuple[Any, Any]  # bytes and offsets (int64) of all names, on the device
    documents: tuple[Any, Any]

    @classmethod
    def load(cls) -> RealRecords:
        """From the package airportsdata."""
        import airportsdata

        documents = airports().values.to_pylist()
        names = [
            entry["name"].encode()[: 80 - _DIGITS] for entry in airportsdata.load("ICAO").values()
        ]
        rows = [i for i, text in enumerate(documents) if 20 <= len(text) <= 600]
        return cls(_upload([names[i] for i in rows]), _upload([documents[i] for i in rows]))

    def keys(self, numbers: Any) -> Column:
        """One key for each number (uint64, below 10^8)."""
        column = _gather(self.names, numbers, _DIGITS)
        assert column.offsets is not None
        ends = column.offsets[1:].astype(np.int64)
        for digit in range(_DIGITS):
            figure = numbers // np.uint64(10**digit) % np.uint64(10) + np.uint64(ord("0"))
            column.data[ends - 1 - digit] = figure.astype(np.uint8)
        return column

    def values(self, numbers: Any) -> Column:
        """One value for each number."""
        return _gather(self.documents, numbers, 0)


def _upload(rows: list[bytes]) -> tuple[Any, Any]:
    array = pa.array(rows, pa.large_binary())
    _, offsets, data = array.buffers()
    return (
        cupy.asarray(np.frombuffer(data, np.uint8)),
        cupy.asarray(np.frombuffer(offsets, np.int64)[: len(rows) + 1]),
    )


def _gather(rows: tuple[Any, Any], numbers: Any, extra: int) -> Column:
    """Row number % rows for each number, with `extra` bytes of room behind each."""
    data, offsets = rows
    row = (numbers % np.uint64(len(offsets) - 1)).astype(np.int64)
    lengths = offsets[row + 1] - offsets[row]
    ends = cupy.zeros(len(numbers) + 1, np.int64)
    cupy.cumsum(lengths + extra, out=ends[1:])
    # Each byte's place in its own row, then in the source.
    byte = cupy.arange(int(ends[-1]))
    owner = cupy.searchsorted(ends[1:], byte, side="right")
    place = byte - ends[owner]
    source = offsets[row][owner] + cupy.minimum(place, lengths[owner] - 1)
    return Column(data[source], ends.astype(np.int32), 0, len(numbers))
