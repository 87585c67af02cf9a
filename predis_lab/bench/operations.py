"""What a workload does, operation by operation: verbs, records, sizes and times as columns, and batches of them.

`scenarios` makes operations by description, `trace` reads recorded ones; whoever measures sends their batches. Everything
is drawn from a generator that the caller seeds, and nothing loops over operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
import pyarrow as pa

from .workloads import MIX, Records, fixed_array

_DRAWN_AT_ONCE = 2**15  # numbers of which all intermediate columns stay in a core's cache
_MOST_RECORDS = 2**31  # the product of two of their numbers still fits 64 bits
_NOISE = np.frombuffer(np.random.default_rng(0).bytes(2**16), np.uint8)


class Verb(IntEnum):
    """What is done to a record. An insert is a write of a record that was not there."""

    READ = 0
    WRITE = 1
    READ_MODIFY_WRITE = 2
    DELETE = 3


# By verb: whether it looks the record up, and whether it stores it.
_READS = np.array([True, False, True, False])
_WRITES = np.array([False, True, True, False])


@dataclass(frozen=True)
class Batch:
    """Some operations as columns of calls. What order the calls have is up to the caller; those of one column keep theirs.

    read_keys:     of reads and of read-modify-writes
    write_keys:    of writes and of read-modify-writes; a key may come more than once, and the last one counts
    write_values:  as many
    write_ttl_s:   int32, as many, 0 for no end; None where the workload knows no time to live
    delete_keys:   of deletes
    start_s:       float64, intended starts of all operations of the batch; None where there are none
    """

    read_keys: pa.Array
    write_keys: pa.Array
    write_values: pa.Array
    write_ttl_s: np.ndarray | None
    delete_keys: pa.Array
    start_s: np.ndarray | None


@dataclass(frozen=True)
class Data:
    """The records that a workload is about, each a function of its number: what a cache is filled with, and what is asked.

    A value depends on nothing but record and size, so that an answer is right or wrong whichever write came last.

    count:         records to fill a cache with, numbers 0 to count - 1; operations may add others
    keys:          numbers (int64, n) -> n distinct keys, an Arrow binary array
    value_nbytes:  numbers -> the values' sizes (int32, n) in bytes
    values:        numbers, sizes -> n values of these sizes, an Arrow binary array
    """

    name: str
    count: int
    keys: Callable[[np.ndarray], pa.Array]
    value_nbytes: Callable[[np.ndarray], np.ndarray]
    values: Callable[[np.ndarray, np.ndarray], pa.Array]

    def filled(self) -> Records:
        """All that a cache is filled with."""
        return self.records(np.arange(self.count))

    def records(self, numbers: np.ndarray) -> Records:
        """Those of these numbers, to fill a cache with or to compare answers with."""
        values = self.values(numbers, self.value_nbytes(numbers))
        return Records(self.name, self.keys(numbers), values)


@dataclass(frozen=True)
class Operations:
    """n operations in their order.

    verb:          uint8, a `Verb`
    record:        int64, the number of the record that is meant
    value_nbytes:  int32, size of the value that is written; 0 where none is
    start_s:       float64, when each is meant to start, ascending; None where each starts when the one before has ended
    ttl_s:         int32, time to live of what is written, 0 for no end; None where the workload knows none
    """

    verb: np.ndarray
    record: np.ndarray
    value_nbytes: np.ndarray
    start_s: np.ndarray | None = None
    ttl_s: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.verb)

    def __getitem__(self, part: slice) -> Operations:
        """A part of them, without a copy; `operations[thread::threads]` deals them out."""
        return Operations(
            self.verb[part],
            self.record[part],
            self.value_nbytes[part],
            None if self.start_s is None else self.start_s[part],
            None if self.ttl_s is None else self.ttl_s[part],
        )

    def mix(self) -> dict[Verb, float]:
        """Share of each verb that occurs."""
        counts = np.bincount(self.verb, minlength=len(Verb))
        return {verb: float(counts[verb] / len(self)) for verb in Verb if counts[verb]}

    def paced(self, rate: float) -> Operations:
        """The same arrivals, faster or slower: `rate` operations a second on average between the first and the last."""
        if self.start_s is None:
            raise ValueError("operations without intended start times have no pace to change")
        since = self.start_s - self.start_s[0]
        if not since[-1]:
            raise ValueError("operations that all start at once have no pace to change")
        return replace(self, start_s=since * ((len(self) - 1) / rate / since[-1]))

    def batches(self, data: Data, size: int) -> Iterator[Batch]:
        """One batch for each `size` operations; the last may be smaller."""
        for row in range(0, len(self), size):
            yield self[row : row + size]._batch(data)

    def _batch(self, data: Data) -> Batch:
        reads, writes = _READS[self.verb], _WRITES[self.verb]
        written = self.record[writes]
        return Batch(
            read_keys=data.keys(self.record[reads]),
            write_keys=data.keys(written),
            write_values=data.values(written, self.value_nbytes[writes]),
            write_ttl_s=None if self.ttl_s is None else self.ttl_s[writes],
            delete_keys=data.keys(self.record[self.verb == Verb.DELETE]),
            start_s=self.start_s,
        )


def hinted(batches: Iterator[Batch]) -> Iterator[tuple[Batch, pa.Array | None]]:
    """Each batch with the keys that the next one reads, to announce them; None with the last."""
    before = None
    for batch in batches:
        if before is not None:
            yield before, batch.read_keys
        before = batch
    if before is not None:
        yield before, None


def written(
    data: Data,
    verb: np.ndarray,
    record: np.ndarray,
    *,
    start_s: np.ndarray | None = None,
    ttl_s: np.ndarray | None = None,
) -> Operations:
    """Operations whose writes store what the data says; sizes and `ttl_s` are 0 where nothing is stored."""
    writes = _WRITES[verb]
    value_nbytes = data.value_nbytes(record) * writes
    return Operations(
        verb, record, value_nbytes, start_s, None if ttl_s is None else ttl_s * writes
    )


# ---- Records by number


def numbered_keys(numbers: np.ndarray, key_nbytes: int) -> pa.Array:
    """The key of each number: 8 bytes or more, the first 8 of them a bijection of it, the same that `workloads.fixed` has."""
    if key_nbytes < 8:
        raise ValueError(
            f"a key of {key_nbytes} bytes can't carry its number: 8 or more are needed"
        )
    words = np.empty((len(numbers), -(-key_nbytes // 8)), np.uint64)
    word = _stamps(numbers)
    for column in range(words.shape[1]):
        words[:, column] = word
        word = (word ^ (word >> np.uint64(29))) * MIX
    grid = words.view(np.uint8)[:, :key_nbytes]
    return fixed_array(np.ascontiguousarray(grid).reshape(-1), key_nbytes, len(numbers))


def of_one_size(name: str, count: int, key_nbytes: int, value_nbytes: int) -> Data:
    """Records with keys and values of one size each; a value is its key's first 8 bytes, then noise that all share."""

    def values(numbers: np.ndarray, sizes: np.ndarray) -> pa.Array:
        grid = np.empty((len(numbers), value_nbytes), np.uint8)
        grid[:] = np.resize(_NOISE, value_nbytes)
        grid[:, :8] = _stamps(numbers).view(np.uint8).reshape(-1, 8)[:, :value_nbytes]
        return fixed_array(grid.reshape(-1), value_nbytes, len(numbers))

    return Data(
        name,
        count,
        keys=lambda numbers: numbered_keys(numbers, key_nbytes),
        value_nbytes=lambda numbers: np.full(len(numbers), value_nbytes, np.int32),
        values=values,
    )


def noise(numbers: np.ndarray, value_nbytes: np.ndarray) -> pa.Array:
    """Values of any sizes: noise that begins with 8 bytes of the record's own, or as many as there is room for."""
    sizes, which = np.unique(value_nbytes, return_inverse=True)
    pool = pa.array([np.resize(_NOISE, size).tobytes() for size in sizes], pa.binary())
    stamps = _stamps(numbers).view(np.uint8).reshape(-1, 8)
    return stamped(pool.take(pa.array(which)), 0, stamps)


def stamped(values: pa.Array, at: int, stamps: np.ndarray) -> pa.Array:
    """The values with row i of `stamps` (uint8, n by k) written over value i from byte `at` on, as far as the value goes.

    values:  pa.binary(), without nulls, of offset 0
    """
    offsets = np.frombuffer(values.buffers()[1], np.int32)[: len(values) + 1]
    data = np.frombuffer(values.buffers()[2] or b"", np.uint8).copy()
    place = offsets[:-1, None] + np.arange(at, at + stamps.shape[1])
    fits = place < offsets[1:, None]
    data[place[fits]] = stamps[fits]
    return pa.Array.from_buffers(
        pa.binary(), len(values), [None, values.buffers()[1], pa.py_buffer(data)]
    )


def _stamps(numbers: np.ndarray) -> np.ndarray:
    return (np.asarray(numbers).astype(np.uint64) + np.uint64(1)) * MIX


# ---- Which record


def drawn(
    generator: np.random.Generator, choices: np.ndarray, shares: Sequence[float], size: int
) -> np.ndarray:
    """`size` of the choices, each as often as its share says; shares are divided by their sum."""
    bounds = np.cumsum(shares[:-1]) / np.sum(shares)
    throws = generator.random(size, np.float32)
    index = np.zeros(size, np.uint8)
    for bound in bounds:
        index += throws >= bound
    return choices[index]


def zipf(generator: np.random.Generator, records: int, alpha: float, size: int) -> np.ndarray:
    """`size` ranks from 0 to records - 1, rank k with a probability in proportion to (k + 1) ** -alpha, exactly.

    Rejection-inversion (Hörmann, Derflinger: Rejection-inversion to generate variates from monotone discrete
    distributions, ACM TOMACS 6.3, 1996): the integral of x ** -alpha is inverted, which needs no table, takes the same
    time for any number of records, and is right at once in most throws.

    alpha:  0 (uniform) or more
    """
    low, high = float(_area(1.5, alpha)) - 1, float(_area(records + 0.5, alpha))
    squeeze = 2 - float(_area_inverse(_area(2.5, alpha) - 2**-alpha, alpha))
    ranks = np.empty(size, np.int64)
    done = 0
    while done < size:
        area = generator.random(min(_DRAWN_AT_ONCE, size - done))
        area *= low - high
        area += high
        x = _area_inverse(area, alpha)
        rank = np.clip(np.rint(x), 1, records)
        right = rank - x <= squeeze
        unsure = np.flatnonzero(~right)
        other = rank[unsure]
        right[unsure] = area[unsure] >= _area(other + 0.5, alpha) - other**-alpha
        rank = rank[right]
        ranks[done : done + len(rank)] = rank
        done += len(rank)
    ranks -= 1
    return ranks


def _area(x, alpha: float):
    """Integral of x ** -alpha from 1 on."""
    if alpha == 1:
        return np.log(x)
    return np.expm1((1 - alpha) * np.log(x)) / (1 - alpha)


def _area_inverse(area, alpha: float):
    if alpha == 1:
        return np.exp(area)
    return np.exp(np.log1p(area * (1 - alpha)) / (1 - alpha))


def scrambled(ranks: np.ndarray, records: int) -> np.ndarray:
    """A record number for each rank, a bijection: popular records lie spread out, as in YCSB's ScrambledZipfian.

    YCSB hashes, so that some records take several ranks and some none; here frequencies stay those of the ranks. The step
    from one rank to the next is near the golden section of all records, which leaves no large part without popular ones.
    """
    if records > _MOST_RECORDS:
        raise ValueError(f"{records} records are too many: at most {_MOST_RECORDS}")
    step = round(records * 0.6180339887498949)
    while math.gcd(step, records) != 1:
        step += 1
    return (ranks.view(np.uint64) * np.uint64(step) % np.uint64(records)).view(np.int64)


def hotspot(
    generator: np.random.Generator, records: int, hot: int, share: float, size: int
) -> np.ndarray:
    """`size` ranks: a share of them uniformly of the `hot` first, the others uniformly of the rest; YCSB's hotspot."""
    ranks = generator.integers(hot, records, size)
    to_hot = generator.random(size, np.float32) < share
    ranks[to_hot] = generator.integers(0, hot, np.count_nonzero(to_hot))
    return ranks


def latest(
    generator: np.random.Generator, inserts: np.ndarray, records: int, alpha: float
) -> np.ndarray:
    """Record of each operation where inserts add records and the others ask for late ones; YCSB's "latest".

    inserts:  bool, n; the first gets number `records`, the next one more
    The record inserted last before an operation has rank 0, the one before it rank 1, as far back as `records`.
    """
    newest = np.cumsum(inserts) + (records - 1)
    ranks = zipf(generator, records, alpha, len(inserts))
    ranks[inserts] = 0
    return newest - ranks


# ---- When


def arrivals(
    generator: np.random.Generator, curve: np.ndarray, duration_s: float, size: int
) -> np.ndarray:
    """`size` ascending times of a Poisson process whose rate follows the curve, given that it has `size` events.

    Given their number, the events of such a process are independent draws from its curve. Uniform draws come in
    order as sums of exponential gaps, and the curve's cumulated share is inverted at each.

    curve:  relative rates in equal parts of the duration, above 0
    """
    gaps = np.cumsum(generator.standard_exponential(size + 1))
    cumulated = np.concatenate([[0.0], np.cumsum(curve)]) / np.sum(curve)
    edges = np.linspace(0, duration_s, len(curve) + 1)
    return np.interp(gaps[:-1] / gaps[-1], cumulated, edges)
