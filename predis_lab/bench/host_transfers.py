"""What the host alone would have to do for fewer bytes on the link, and for lists: into samples of a run. For notebook 04.

Needs no GPU. Compression is timed on one core at a time, with the codecs that Arrow brings; the device's side of it is not
measured but taken to cost nothing, so that what comes out is the most that compression could give.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from . import workloads
from .pipeline_samples import CODECS, KEY_NBYTES, OFFSET_NBYTES, OFFSETS
from .results import Run
from .statistics import Interval, median_interval

# By the names people use; the first is LZ4's block format, which devices decompress.
ARROW_NAMES = {"lz4": "lz4_raw", "snappy": "snappy", "zstd": "zstd"}
CHUNK_NBYTES = 2**22  # compressed at once, as a pipeline would
REAL, RANDOM = "airports", "random"


def codec_rates(
    run: Run, repeats: int, seed: int = 0, progress: Callable[[float], object] = lambda _: None
) -> None:
    """Ratio and speed of each codec on real values and on random bytes; speeds in bytes of plain data per second.

    progress: called after each codec with 1
    """
    real = _bytes_of(workloads.airports().values)
    columns = {REAL: real, RANDOM: np.random.default_rng(seed).bytes(len(real))}
    for codec, name in ARROW_NAMES.items():
        for data, plain in columns.items():
            chunks = [plain[at : at + CHUNK_NBYTES] for at in range(0, len(plain), CHUNK_NBYTES)]
            for repeat in range(-1, repeats):  # the first one warms up
                told = _round_trip(pa.Codec(name), chunks)
                for metric, value, unit in told if repeat >= 0 else ():
                    run.add_sample(codec, CODECS, {"data": data}, repeat, metric, value, unit)
        progress(1)
    _record(run)


def _round_trip(codec: pa.Codec, chunks: list[bytes]) -> list[tuple[str, float, str]]:
    began = time.perf_counter()
    packed = [codec.compress(chunk) for chunk in chunks]
    between = time.perf_counter()
    plain = [codec.decompress(one, len(chunk)) for one, chunk in zip(packed, chunks, strict=True)]
    ended = time.perf_counter()
    if any(bytes(one) != chunk for one, chunk in zip(plain, chunks, strict=True)):
        raise AssertionError(f"{codec.name} gave other bytes back than it was given")
    nbytes = sum(map(len, chunks))
    return [
        ("ratio", nbytes / sum(len(one) for one in packed), "1"),
        ("compress", nbytes / (between - began), "B/s"),
        ("decompress", nbytes / (ended - between), "B/s"),
    ]


def _record(run: Run) -> None:
    samples = run.frame()
    real = samples[(samples["workload"] == CODECS) & (samples["data"] == REAL)]
    for (codec, metric, unit), rows in real.groupby(["system", "metric", "unit"]):
        run.add_interval(f"{metric}_{codec}", median_interval(rows["value"].to_numpy()), unit)


def offset_rates(run: Run, rows: int, repeats: int) -> None:
    """What leaving offsets out would save of each row, and what it takes the host to have them all the same.

    Of real values their lengths would cross, packed into as many bits as the longest needs, to be summed up here; values of
    one length need nothing to cross. Unpacking the bits is not timed: another reason why what comes out is a bound.
    """
    values = workloads.airports().values
    lengths = np.resize(np.asarray(pc.binary_length(values)), rows).astype(np.uint16)
    filled = np.empty(rows + 1, np.int32)
    filled[0] = 0

    def sum_up() -> None:
        filled[1:] = lengths  # twice as fast as to have each widened while it is added
        np.cumsum(filled[1:], out=filled[1:])

    def count_up() -> None:
        filled[:] = np.arange(0, 64 * (rows + 1), 64, dtype=np.int32)

    if int(lengths.sum(dtype=np.int64)) >= 2**31 or 64 * (rows + 1) >= 2**31:
        raise ValueError(f"{rows:,} rows have more bytes than 32-bit offsets count")
    bits = int(lengths.max()).bit_length()
    for data, bits_left, rebuild in ((REAL, bits, sum_up), ("fixed 64 B", 0, count_up)):
        params = {"data": data, "bits": bits_left, "rows": rows}
        saved = OFFSET_NBYTES - bits_left / 8
        for repeat, seconds in enumerate(_seconds(rebuild, repeats)):
            run.add_sample("numpy", OFFSETS, params, repeat, "rebuild", seconds / rows, "s")
            run.add_sample("numpy", OFFSETS, params, repeat, "saved", saved, "B")


def list_floor(rows: int, value_nbytes: int, repeats: int, seed: int = 0) -> Interval:
    """Keys per second that go from a list into a column while as many values go from a column into a list.

    Whatever takes lists and gives lists does this, on one thread, whichever machine stands behind it.
    """
    data = workloads.fixed(rows, KEY_NBYTES, value_nbytes, seed=seed)
    keys, values = data.keys.to_pylist(), data.values.cast(pa.binary())
    return median_interval([floor_rate(keys, values) for _ in range(repeats + 1)][1:])


def floor_rate(keys: list[bytes], values: pa.Array) -> float:
    """Keys per second of one such pass."""
    began = time.perf_counter()
    pa.array(keys, pa.binary())
    values.to_pylist()
    return len(keys) / (time.perf_counter() - began)


def _bytes_of(column: pa.Array) -> bytes:
    return column.buffers()[2].to_pybytes()


def _seconds(call: Callable[[], None], repeats: int) -> list[float]:
    found = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return found[1:]
