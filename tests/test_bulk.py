"""Large batches against an oracle of NumPy arrays, and what becomes of batches that do not fit.

Keys are numbers and values versions, both spelt out as bytes of varying length, so that a few arrays indexed by
key number say what every call has to answer.
"""

import numpy as np
import pyarrow as pa
import pytest
from conftest import BACKENDS

from predis_lab import CacheFull, Column, InvalidValue, Predis, Status
from predis_lab.checks import MAX_VALUE_NBYTES

MAX_KEY, MAX_VALUE = 40, 200
NOISE = np.random.default_rng(0).integers(0, 256, 2**16 + MAX_VALUE, np.uint8)


def scrambled(numbers, salt):
    """One 64-bit hash a number (splitmix64's finaliser)."""
    h = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(salt)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    return h ^ (h >> np.uint64(27))


def packed(rows, lengths, null=None):
    """The first `lengths` bytes of each row of a uint8 matrix as an Arrow array."""
    offsets = np.zeros(len(rows) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    data = rows[np.arange(rows.shape[1], dtype=np.uint8) < lengths[:, None].astype(np.uint8)]
    validity = None if null is None else pa.py_buffer(np.packbits(~null, bitorder="little"))
    buffers = [validity, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.binary(), len(rows), buffers)


def keys_of(numbers):
    """8 to 40 bytes: the number, then as much noise as the number says."""
    h = scrambled(numbers, 1)
    rows = np.lib.stride_tricks.sliding_window_view(NOISE, MAX_KEY)[h % np.uint64(2**16)]
    rows[:, :8] = np.ascontiguousarray(numbers, "<u8").view(np.uint8).reshape(-1, 8)
    return packed(rows, 8 + (h >> np.uint64(20)) % np.uint64(MAX_KEY - 7))


def values_of(numbers, versions, absent=None):
    """0 to 200 bytes that follow from number and version; null where absent."""
    h = scrambled(numbers * np.int64(1_000_003) + versions, 2)
    rows = np.lib.stride_tricks.sliding_window_view(NOISE, MAX_VALUE)[h % np.uint64(2**16)]
    rows[:, :8] = h.view(np.uint8).reshape(-1, 8)
    lengths = (h >> np.uint64(20)) % np.uint64(MAX_VALUE + 1)
    return packed(rows, lengths if absent is None else np.where(absent, 0, lengths), absent)


class Oracle:
    """A cache and what it has to hold: `version[number]`, 0 where there is no such key."""

    def __init__(self, cache, universe, seed):
        self.cache = cache
        self.generator = np.random.default_rng(seed)
        self.version = np.zeros(universe, np.int64)
        self.rows = self.operations = 0

    def draw(self, n):
        self.operations += n
        return self.generator.integers(0, len(self.version), n)

    def insert(self, n):
        numbers = self.draw(n)
        versions = self.rows + 1 + np.arange(n)
        self.rows += n
        was = self.version[numbers] > 0
        report = self.cache.insert(keys_of(numbers), values_of(numbers, versions))
        np.maximum.at(self.version, numbers, versions)
        wins = self.version[numbers] == versions
        fate = np.where(was, Status.UPDATED, Status.STORED)
        assert np.array_equal(report.status, np.where(wins, fate, Status.SUPERSEDED))

    def find(self, n):
        self.check_values(self.draw(n))

    def check_values(self, numbers):
        versions = self.version[numbers]
        expected = values_of(numbers, versions, absent=versions == 0)
        found = self.cache.find(keys_of(numbers))
        assert found.null_count == expected.null_count
        assert found.equals(expected.cast(found.type))

    def contains(self, n):
        numbers = self.draw(n)
        assert np.array_equal(self.cache.contains(keys_of(numbers)), self.version[numbers] > 0)

    def erase(self, n):
        numbers = self.draw(n)
        told = self.cache.erase(keys_of(numbers))
        expected = np.zeros(len(self.version), np.int64)
        expected[numbers] = self.version[numbers] > 0
        assert np.array_equal(np.bincount(numbers[told], minlength=len(expected)), expected)
        self.version[numbers] = 0

    def check(self):
        """Every key there could be, and how many there are."""
        assert self.cache.dbsize() == np.count_nonzero(self.version)
        for start in range(0, len(self.version), 2**20):
            self.check_values(np.arange(start, min(start + 2**20, len(self.version))))


def test_the_oracle_spells_numbers_apart():
    numbers = np.arange(20_000)
    keys, values = keys_of(numbers), values_of(numbers, numbers % 7)
    assert len(keys.unique()) == 20_000
    for column, low, high in ((keys, 8, MAX_KEY), (values, 0, MAX_VALUE)):
        assert Column.of(column).lengths_range() == (low, high)
    assert not values.equals(values_of(numbers, numbers % 7 + 1))
    assert values_of(numbers, numbers % 7, absent=numbers < 5).slice(5).equals(values.slice(5))


def test_random_batches(cache):
    oracle = Oracle(cache, universe=30_000, seed=1)
    for n in (1, 127, 129, 1000, 4097, 10_000, 20_000):
        oracle.insert(n)
        oracle.find(n)
        oracle.erase(n // 2)
        oracle.contains(n)
        oracle.insert(n // 3)
        oracle.find(n)
        assert cache.dbsize() == np.count_nonzero(oracle.version)
    oracle.check()
    numbers = np.frombuffer(b"".join(key[:8] for key in cache.scan_iter()), "<u8")
    assert np.array_equal(np.sort(numbers), np.flatnonzero(oracle.version))
    assert oracle.operations > 140_000


@pytest.mark.parametrize("backend", BACKENDS)
def test_updates_in_little_room(backend):
    """About a third of the capacity is live, and is written over several times: nothing is refused or lost."""
    with Predis("6MiB", backend=backend) as cache:
        oracle = Oracle(cache, universe=12_000, seed=2)
        for turn in range(24):
            oracle.insert(3000)
            oracle.erase(500)
            oracle.contains(1000)
            if turn % 6 == 0:
                oracle.check()
        oracle.check()
        info = cache.info()
        assert info["used_memory"] <= info["maxmemory"]


@pytest.mark.gpu
def test_ten_million_operations():
    """The index begins at some thousand slots and is rehashed again and again."""
    with Predis("4GiB", backend="cuda") as cache:
        oracle = Oracle(cache, universe=3_000_000, seed=3)
        for n in (1000, 30_000, 200_000, *[1_000_000] * 3):
            oracle.insert(n)
            oracle.find(n)
            oracle.erase(n // 4)
            oracle.contains(n)
        oracle.check()
        for _ in range(2):
            oracle.insert(500_000)
            oracle.erase(1_000_000)
            oracle.find(500_000)
        oracle.check()
        assert oracle.operations >= 10_000_000


@pytest.mark.gpu
def test_compaction_of_many_records():
    with Predis("256MiB", backend="cuda") as cache:
        oracle = Oracle(cache, universe=600_000, seed=4)
        for turn in range(8):
            oracle.insert(500_000)
            oracle.erase(100_000)
            if turn % 3 == 2:
                oracle.check()
        oracle.check()
        info = cache.info()
        assert info["used_memory"] <= info["maxmemory"]
        assert (
            oracle.rows * 140 > 2 * info["maxmemory"]
        )  # far more was written than there is room for


@pytest.fixture(params=BACKENDS)
def tiny(request):
    """A cache of 1 MiB on each backend: soon full."""
    with Predis("1MiB", backend=request.param) as predis:
        yield predis


# ---- Statuses, and a full cache


def test_statuses(cache):
    assert cache.insert([b"a", b"b"], [b"1", b"2"]).counts() == {"stored": 2}
    report = cache.insert([b"c", b"a", b"c", b"d", b"a", b"c"], [b"%d" % i for i in range(6)])
    assert report.status.dtype == np.int8 and report.ok
    assert report.status.tolist() == [
        Status.SUPERSEDED, Status.SUPERSEDED, Status.SUPERSEDED,
        Status.STORED, Status.UPDATED, Status.STORED,
    ]  # fmt: skip
    assert report.counts() == {"stored": 2, "updated": 1, "superseded": 3}
    assert report.raise_for_status() is None
    assert cache.mget("a", "b", "c", "d") == [b"4", b"2", b"5", b"3"]
    empty = cache.insert([], [])
    assert empty.ok and empty.counts() == {} and len(empty.status) == 0
    assert cache.mset({"1": "text", 1: "int", b"1": "bytes"}) and cache.get("1") == b"bytes"
    assert cache.dbsize() == 5


def test_values_too_large(cache):
    large = bytes(MAX_VALUE_NBYTES + 1)
    report = cache.insert([b"a", b"b", b"a", b"c"], [b"1", large, large, large[1:]])
    assert report.counts() == {"stored": 2, "too_large": 2} and not report.ok
    assert report.status.tolist() == [Status.STORED, *[Status.TOO_LARGE] * 2, Status.STORED]
    with pytest.raises(InvalidValue, match="at most 64 MiB: 2 stored, 2 too_large of 4 records"):
        report.raise_for_status()
    assert cache.mget("a", "b") == [b"1", None] and cache.get("c") == large[1:]
    rows = np.frombuffer(large, np.uint8).reshape(1, -1)
    assert cache.insert([b"d"], rows).counts() == {"too_large": 1}
    for call in (lambda: cache.set("a", large), lambda: cache.mset({"d": 1, "a": large})):
        with pytest.raises(InvalidValue, match=f"value of {len(large)} bytes .* {len(large) - 1}"):
            call()
    assert cache.get("a") == b"1" and cache.dbsize() == 2


def numbered(n, value_nbytes, prefix=b"key"):
    keys = [b"%s:%08d" % (prefix, i) for i in range(n)]
    return keys, [
        key[-value_nbytes:].rjust(value_nbytes, b".") if value_nbytes else b"" for key in keys
    ]


@pytest.mark.parametrize(
    ("n", "value_nbytes"), [(60_000, 0), (20_000, 100), (1000, 3000), (40, 10**5)]
)
def test_a_full_cache_keeps_what_it_accepted(tiny, n, value_nbytes):
    keys, values = numbered(n, value_nbytes)
    report = tiny.insert(keys, values)
    counts = report.counts()
    assert set(counts) == {"stored", "no_space"} and sum(counts.values()) == n and not report.ok
    stored = report.status == Status.STORED
    assert np.array_equal(tiny.contains(keys), stored)
    expected = [value if there else None for value, there in zip(values, stored, strict=True)]
    assert tiny.find(keys).to_pylist() == expected
    assert tiny.dbsize() == counts["stored"]
    assert set(tiny.scan_iter()) == {key for key, there in zip(keys, stored, strict=True) if there}
    info = tiny.info()
    assert 0 < info["used_memory"] <= info["maxmemory"] == 2**20
    assert info["records_memory"] >= counts["stored"] * (len(keys[0]) + value_nbytes)


def test_mset_says_what_found_no_space(tiny):
    before = {b"old:%d" % i: b"x" * 100 for i in range(500)}
    assert tiny.mset(before) is True
    keys, values = numbered(20_000, 100)
    with pytest.raises(CacheFull, match=r"capacity is used up: .* of 20000 records") as error:
        tiny.mset(dict(zip(keys, values, strict=True)))
    status = error.value.status
    assert isinstance(error.value, MemoryError) and len(status) == 20_000
    assert set(status.tolist()) == {Status.STORED, Status.NO_SPACE}
    assert np.array_equal(tiny.contains(keys), status == Status.STORED)
    assert tiny.mget(list(before)) == list(before.values())
    assert tiny.dbsize() == 500 + int((status == Status.STORED).sum())
    with pytest.raises(CacheFull) as error:
        tiny.set("large", bytes(2**20))
    assert error.value.status.tolist() == [Status.NO_SPACE]
    assert "large" not in tiny and tiny.get(keys[0]) == values[0]


@pytest.mark.parametrize(("n", "value_nbytes"), [(60_000, 0), (20_000, 100), (1000, 3000)])
@pytest.mark.parametrize("survivors", [0, 2])
def test_room_comes_back(tiny, n, value_nbytes, survivors):
    """Of a full cache everything goes, or all but every second record; what is freed can be used again."""
    keys, values = numbered(n, value_nbytes)
    stored = tiny.insert(keys, values).counts()["stored"]
    kept = slice(0, stored, survivors) if survivors else slice(0)
    keep = keys[kept]
    assert tiny.erase(sorted(set(keys[:stored]) - set(keep))).all()
    assert tiny.dbsize() == len(keep)
    new_keys, new_values = numbered(stored // 8, value_nbytes, b"new")
    assert tiny.insert(new_keys, new_values).counts() == {"stored": stored // 8}
    assert tiny.find(new_keys).to_pylist() == new_values
    assert tiny.find(keep).to_pylist() == values[kept]
    assert tiny.flushdb() and tiny.dbsize() == 0
    assert tiny.insert(keys[: stored // 2], values[: stored // 2]).ok
