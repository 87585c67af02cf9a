"""Records to fill a cache with, and keys to ask for: seeded, vectorised, of fixed size or real.

Called by notebooks and tests. Everything is an Arrow array, so that it reaches a table without a copy.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Odd, so that multiplication modulo 2^64 maps distinct numbers to distinct numbers (Steele et al., SplitMix).
MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Records:
    """Distinct keys with their values; Arrow binary arrays of n rows, fixed-size where all rows have one size."""

    name: str
    keys: pa.Array
    values: pa.Array

    def __len__(self) -> int:
        return len(self.keys)

    def first(self, n: int) -> Records:
        """The first n of them."""
        return Records(self.name, self.keys[:n], self.values[:n])

    def describe(self) -> dict[str, float]:
        """Number of records, and mean, shortest and longest key and value in bytes."""
        facts: dict[str, float] = {"records": len(self)}
        for side, column in (("key", self.keys), ("value", self.values)):
            lengths = pc.binary_length(column)
            facts[f"{side}_nbytes_mean"] = float(pc.mean(lengths).as_py())
            facts[f"{side}_nbytes_min"] = int(pc.min(lengths).as_py())
            facts[f"{side}_nbytes_max"] = int(pc.max(lengths).as_py())
        return facts


def fixed(n: int, key_nbytes: int = 16, value_nbytes: int = 64, *, seed: int = 0) -> Records:
    """n records of one size with incompressible bytes; keys are distinct.

    key_nbytes: 8 or more; the first 8 bytes of each key are a bijection of its number.
    """
    keys = _numbered_keys(0, n, key_nbytes, seed)
    generator = np.random.default_rng((seed, 1))
    values = np.frombuffer(generator.bytes(n * value_nbytes), np.uint8)
    return Records(
        f"fixed {key_nbytes}+{value_nbytes} B", keys, fixed_array(values, value_nbytes, n)
    )


def airports() -> Records:
    """Real records of variable length: airports as JSON by ICAO code, from the package airportsdata."""
    import airportsdata

    table = airportsdata.load("ICAO")
    values = [
        json.dumps(airport, ensure_ascii=False, separators=(",", ":")) for airport in table.values()
    ]
    return Records("airports", _binary(list(table)), _binary(values))


def repeated(records: Records, n: int) -> Records:
    """n records of the same shape: the real ones over and over, a replica number before each key.

    For sizes beyond the data set. Values repeat, which no system compared here profits from.
    """
    if n <= len(records):
        return records.first(n)
    rows = pa.array(np.arange(n) % len(records))
    replicas = pa.array(np.arange(n) // len(records)).cast(pa.string()).cast(pa.binary())
    real = records.keys.take(rows).cast(pa.binary())
    keys = pc.binary_join_element_wise(replicas, real, pa.scalar(b":", pa.binary()))
    return Records(f"{records.name} repeated", keys, records.values.take(rows))


def pick(records: Records, size: int, *, hit_ratio: float = 1.0, seed: int = 0) -> pa.Array:
    """`size` keys drawn uniformly from the records, a share of them replaced by keys that are surely absent."""
    generator = np.random.default_rng((seed, 2))
    hits = round(size * hit_ratio)
    found = records.keys.take(pa.array(generator.integers(0, len(records), hits)))
    if hits == size:
        return found
    missing = absent(records, size - hits, seed=seed)
    if missing.type != found.type:
        found, missing = found.cast(pa.binary()), missing.cast(pa.binary())
    return pa.concat_arrays([found, missing]).take(pa.array(generator.permutation(size)))


def absent(records: Records, size: int, *, seed: int = 0) -> pa.Array:
    """`size` distinct keys that are in no data set made here, of the records' own kind."""
    if pa.types.is_fixed_size_binary(records.keys.type):
        # Numbers beyond those of any record, through the same bijection, so the first 8 bytes differ from all.
        return _numbered_keys(2**40, size, records.keys.type.byte_width, 0)
    generator = np.random.default_rng((seed, 3))
    return _binary([b"\0absent:%d" % number for number in generator.permutation(size)])


def _numbered_keys(first: int, n: int, key_nbytes: int, seed: int) -> pa.Array:
    if key_nbytes < 8:
        raise ValueError(
            f"a key of {key_nbytes} bytes can't carry its number: 8 or more are needed"
        )
    generator = np.random.default_rng((seed, first))
    grid = np.frombuffer(generator.bytes(n * key_nbytes), np.uint8).reshape(n, key_nbytes).copy()
    numbers = (np.arange(first, first + n, dtype=np.uint64) + np.uint64(1)) * MIX
    grid[:, :8] = numbers.view(np.uint8).reshape(n, 8)
    return fixed_array(grid.reshape(-1), key_nbytes, n)


def fixed_array(data: np.ndarray, width: int, n: int) -> pa.Array:
    """n rows of `width` bytes each, over this memory."""
    return pa.Array.from_buffers(pa.binary(width), n, [None, pa.py_buffer(data)])


def _binary(rows: list) -> pa.Array:
    return pa.array(rows, pa.binary())
