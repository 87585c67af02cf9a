"""The table on the device: columns that stay there, streams, large values, and how index and log make room."""

import numpy as np
import pytest
from tiered import keys_of

from predis_lab import Column, InvalidKey, InvalidValue, Status, UnsupportedType

try:
    import cupy

    from predis_lab.gpu import launched
    from predis_lab.gpu.sizing import HARD_LOAD
except ImportError:  # every test here then skips with this as its reason, see conftest
    cupy = launched = None

pytestmark = pytest.mark.gpu

MIB = 2**20


def on_device(rows, dtype=np.int32):
    """A packed column on the device from a list of bytes."""
    offsets = np.zeros(len(rows) + 1, dtype)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    data = np.frombuffer(b"".join(rows), np.uint8)
    return Column.packed(cupy.asarray(data), cupy.asarray(offsets))


def from_device(column):
    """A column on the device as a list of bytes and None."""
    assert column.on_device and isinstance(column.data, cupy.ndarray)
    arrays = (column.data, column.offsets, column.validity)
    data, offsets, validity = (None if a is None else cupy.asnumpy(a) for a in arrays)
    return Column(data, offsets, column.width, len(column), validity).to_arrow().to_pylist()


def noise(nbytes, seed):
    return np.random.default_rng(seed).integers(0, 256, nbytes, np.uint8).tobytes()


def dead_time():
    """Work for the current stream that takes far longer than enqueueing it."""
    work = cupy.ones(2**24, cupy.float32)
    for _ in range(300):
        work = cupy.sqrt(work * work + 1)


# ---- Columns that stay on the device


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("n", [1, 31, 33, 1000, 20_001])
def test_packed_columns_in_and_out(make, n, dtype):
    cache = make("256MiB")
    keys = [b"key:%d" % i + b"x" * (i % 40) for i in range(n)]
    values = [b"v%d" % i * (i % 9) for i in range(n)]
    absent = [b"absent:%d" % i for i in range(n)]
    report = cache.insert(on_device(keys, dtype), on_device(values, dtype))
    assert isinstance(report.status, np.ndarray) and report.counts() == {"stored": n}
    mixed = [key for pair in zip(keys, absent, strict=True) for key in pair]
    expected = [value for pair in zip(values, [None] * n, strict=True) for value in pair]
    assert from_device(cache.find(on_device(mixed, dtype))) == expected
    assert cache.find(mixed).to_pylist() == expected
    assert cache.contains(on_device(mixed, dtype)).tolist() == [True, False] * n
    assert cache.erase(on_device(mixed[: n + 1], dtype)).sum() == (n + 2) // 2
    left = [*[None] * ((n + 2) // 2), *values[(n + 2) // 2 :]]
    assert from_device(cache.find(on_device(keys, dtype))) == left
    assert cache.dbsize() == n - (n + 2) // 2


@pytest.mark.parametrize("nbytes", [0, 1, 15, 16, 17, 48, 100, 4096])
@pytest.mark.parametrize("n", [5, 3000])
def test_values_of_one_length_and_then_another(make, n, nbytes):
    cache = make("256MiB")
    numbers = np.arange(n)
    values = np.frombuffer(noise(n * nbytes, nbytes), np.uint8).reshape(n, nbytes)
    assert cache.insert(cupy.asarray(keys_of(numbers)), cupy.asarray(values)).ok
    expected = [row.tobytes() for row in values] + [None] * n
    keys = keys_of(np.arange(2 * n))
    assert cache.find(keys).to_pylist() == expected
    assert from_device(cache.find(cupy.asarray(keys))) == expected
    assert cache.get(keys[1].tobytes()) == expected[1] and cache.get(keys[n].tobytes()) is None
    cache.set(keys[0].tobytes(), b"!" * (nbytes + 1))
    expected[0] = b"!" * (nbytes + 1)
    assert cache.find(keys).to_pylist() == expected
    assert from_device(cache.find(cupy.asarray(keys))) == expected
    cache.flushdb()
    assert cache.find(keys[:3]).to_pylist() == [None] * 3
    cache.set(keys[0].tobytes(), b"?" * (nbytes + 2))
    assert from_device(cache.find(cupy.asarray(keys[:2]))) == [b"?" * (nbytes + 2), None]


@pytest.mark.parametrize("share", [0, 0.01, 0.7, 1])
def test_some_of_the_keys_asked_for_are_there(make, share):
    cache, generator = make("64MiB"), np.random.default_rng(int(100 * share))
    numbers = np.arange(20_000)  # in a small index: many searches go on
    values = generator.integers(0, 256, (len(numbers), 64), np.uint8)
    assert cache.insert(cupy.asarray(keys_of(numbers)), cupy.asarray(values)).ok
    asked = generator.permutation(2 * len(numbers))[:5003]
    asked = np.where(generator.random(5003) < share, asked % len(numbers), asked + len(numbers))
    expected = [values[i].tobytes() if i < len(numbers) else None for i in asked]
    assert from_device(cache.find(cupy.asarray(keys_of(asked)))) == expected


def test_one_column_here_and_one_there(make):
    cache = make("64MiB")
    keys, rows = keys_of(np.arange(5000)), np.arange(5000 * 8, dtype="f4").reshape(5000, 8)
    expected = [row.tobytes() for row in rows]
    for first, second in ((cupy.asarray(keys), rows), (keys, cupy.asarray(rows))):
        assert cache.insert(first, second).counts() == {"stored": 5000}
        assert cache.find(keys).to_pylist() == expected
        found = cache.find(cupy.asarray(keys))
        assert cupy.array_equal(found.data.view(cupy.float32).reshape(5000, 8), cupy.asarray(rows))
        cache.flushdb()
    strided = cupy.asarray(np.repeat(keys, 2, axis=0))[::2]
    assert cache.insert(strided, rows).ok and cache.find(keys).to_pylist() == expected


def test_columns_on_the_device_are_checked(make):
    cache = make("64MiB")
    keys = cupy.asarray(keys_of(np.arange(3)))
    verbs = [cache.find, cache.contains, cache.erase, lambda rows: cache.insert(rows, keys)]
    for wrong, error in [
        (on_device([b"a", b"", b"c"]), InvalidKey),
        (on_device([b"a", b"b" * 65536, b"c"]), InvalidKey),
        (cupy.zeros((3, 0), cupy.uint8), InvalidKey),
        (cupy.zeros((3, 65536), cupy.uint8), InvalidKey),
        (cupy.zeros(3, cupy.uint8), UnsupportedType),
    ]:
        for verb in verbs:
            with pytest.raises(error):
                verb(wrong)
    with pytest.raises(InvalidValue, match="3 keys were given with 2 values"):
        cache.insert(keys, keys[:2])
    with pytest.raises(UnsupportedType, match="on the device"):
        Column.of(keys).to_arrow()
    assert cache.dbsize() == 0


def test_values_found_are_values_to_insert(make):
    """What `find` gives back on the device goes into another cache, as no row of it is null."""
    one, other = make("64MiB"), make("64MiB")
    keys, values = on_device([b"a", b"bb"]), [b"1", b"two"]
    one.insert(keys, values)
    assert other.insert(keys, one.find(keys)).counts() == {"stored": 2}
    assert other.find([b"a", b"bb"]).to_pylist() == values
    with pytest.raises(InvalidValue, match="row 1 of the values is null"):
        other.insert(keys, one.find(on_device([b"a", b"absent"])))


def test_empty_batches_and_an_empty_table(make):
    cache = make("64MiB")
    some = keys_of(np.arange(7))
    for turn in range(2):
        for nothing in ([], cupy.zeros((0, 16), cupy.uint8), on_device([])):
            assert len(cache.find(nothing)) == 0
            assert len(cache.contains(nothing)) == len(cache.erase(nothing)) == 0
            assert len(cache.insert(nothing, nothing).status) == 0
        if turn == 0:
            for keys in (some, cupy.asarray(some)):
                assert not cache.contains(keys).any() and not cache.erase(keys).any()
            assert cache.find(some).to_pylist() == [None] * 7
            assert from_device(cache.find(cupy.asarray(some))) == [None] * 7
            assert list(cache.scan_iter()) == [] and cache.dbsize() == 0
            cache.insert(some, some)
    assert cache.dbsize() == 7 and cache.contains(some).all()


def test_the_longest_keys(make):
    cache = make("256MiB")
    keys = [noise(32767, 1) + bytes([i]) + noise(32767, 2) for i in range(100)]
    keys += [key[:-1] for key in keys] + [key[1:] for key in keys]
    values = [b"%d" % i for i in range(300)]
    assert len(keys[0]) == 65535 and cache.insert(on_device(keys), on_device(values)).ok
    assert cache.find(keys).to_pylist() == values
    assert from_device(cache.find(on_device(keys[::-1]))) == values[::-1]
    assert set(cache.scan_iter()) == set(keys)
    assert cache.erase(on_device(keys[::2])).all()
    assert cache.contains(keys).tolist() == [False, True] * 150


# ---- Streams


@pytest.mark.parametrize("uniform", [True, False])
def test_calls_are_ordered_on_the_callers_stream(make, uniform):
    cache = make("256MiB")
    n = 4000
    right, wrong = (keys_of(np.arange(start, start + n)) for start in (0, 10**6))
    values = [b"%08d" % i * (1 if uniform else i % 5) for i in range(n)]
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        keys, source = cupy.asarray(wrong), cupy.asarray(right)
        rows = on_device(values)
        dead_time()
        keys[...] = source
        assert cache.insert(keys, rows).counts() == {"stored": n}
    assert cache.find(right).to_pylist() == values and not cache.contains(wrong).any()
    with stream:
        keys[...] = cupy.asarray(wrong)
        dead_time()
        keys[...] = source
        found = cache.find(keys)
        copies = [found.data.copy(), found.offsets.copy(), found.validity.copy()]
        keys[...] = 0
    stream.synchronize()
    assert from_device(Column(copies[0], copies[1], 0, n, copies[2])) == values
    with stream:
        dead_time()
        keys[...] = source
        assert cache.contains(keys).all() and cache.erase(keys[: n // 2]).all()
    assert cache.dbsize() == n - n // 2


def test_streams_see_each_others_writes(make):
    cache = make("64MiB")
    keys = cupy.asarray(keys_of(np.arange(1000)))
    cupy.cuda.get_current_stream().synchronize()
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(3)]
    for turn in range(30):
        with streams[turn % 3]:
            values = cupy.full((1000, 24), turn, cupy.uint8)
            cache.insert(keys, values)
        with streams[(turn + 1) % 3]:
            found = cache.find(keys)
            assert bool((found.data == turn).all()) and len(found.data) == 24_000
        assert cache.get(b"\0" * 8 + b"." * 8) == bytes([turn]) * 24


# ---- Batches in pieces


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize(("rows", "nbytes"), [(1024, 2**29), (2**24, 2**14), (64, 2**12)])
def test_duplicates_across_pieces(make, monkeypatch, there, rows, nbytes):
    """A batch is cut by rows, by bytes, and where a segment of the log ends; the last of equal keys wins."""
    monkeypatch.setattr(launched, "CHUNK_ROWS", rows)
    monkeypatch.setattr(launched, "CHUNK_NBYTES", nbytes)
    cache = make("2MiB")
    n, distinct = 10_000, 700
    numbers = np.random.default_rng(5).integers(0, distinct, n)
    keys, values = keys_of(numbers), [b"%d" % i for i in range(n)]
    last = np.zeros(distinct, np.int64)
    np.maximum.at(last, numbers, np.arange(n))
    wins = last[numbers] == np.arange(n)
    for turn, batch in enumerate([(keys, values), (cupy.asarray(keys), on_device(values))]):
        cache.flushdb()
        if there:
            cache.insert(keys_of(np.arange(0, distinct, 2)), [b"old"] * (distinct // 2))
        fate = np.where(there & (numbers % 2 == 0), Status.UPDATED, Status.STORED)
        status = cache.insert(*batch).status
        assert np.array_equal(status, np.where(wins, fate, Status.SUPERSEDED)), turn
        assert cache.find(keys).to_pylist() == [values[row] for row in last[numbers]]
        assert cache.contains(keys).all() and cache.dbsize() == distinct
    assert cache.erase(keys).sum() == distinct and cache.dbsize() == 0


def test_values_that_differ_much_in_length(make, monkeypatch):
    """The guess of a result's size fails: it is found again with room enough, or in halves."""
    cache = make("128MiB")
    small = [b"s%d" % i for i in range(200)]
    large = noise(8 * MIB, 1)
    cache.mset({**dict.fromkeys(small, b"x"), b"large": large})
    keys = [b"large" if i % 6 == 0 else key for i, key in enumerate(small[:120])]
    expected = [large if key == b"large" else b"x" for key in keys]
    assert from_device(cache.find(on_device(keys))) == expected
    assert cache.find(keys).to_pylist() == expected
    monkeypatch.setattr(launched, "INT32_MAX", 100 * MIB)
    assert cache.find(keys).to_pylist() == expected


# ---- Values large and larger


@pytest.mark.parametrize("nbytes", [4096, 4097, 65537, MIB - 1, MIB, 3 * MIB + 5, 8 * MIB])
def test_large_values(make, nbytes):
    cache = make("256MiB")
    values = [noise(nbytes, seed) for seed in range(4)]
    keys = [b"large:%d" % i for i in range(4)]
    assert cache.mset(dict(zip(keys, values, strict=True)))
    assert [cache.get(key) for key in keys] == values
    assert cache.mget([*keys, "absent", *keys]) == [*values, None, *values]
    assert from_device(cache.find(on_device(keys[::-1]))) == values[::-1]
    rows = cupy.asarray(np.frombuffer(values[0], np.uint8).reshape(1, -1))
    assert cache.insert(keys[3:], rows).counts() == {"updated": 1}
    assert cache.get(keys[3]) == values[0] and cache.dbsize() == 4


def test_a_value_of_64_mib(make):
    cache = make("512MiB")
    value, other = noise(64 * MIB, 1), noise(64 * MIB, 2)
    for turn in range(4):  # more, all together, than the capacity
        for data in (value, other):
            assert cache.set("largest", data) is True and cache.get("largest") == data
            cache.set(f"small:{turn}", b"x")
    assert cache.mget("small:0", "largest") == [b"x", other]
    assert cache.delete("largest") == 1 and cache.get("largest") is None


def test_a_large_value_takes_the_room_of_small_ones(make):
    """Segments that compaction has emptied serve records longer than a segment too."""
    cache = make("64MiB")
    keys = [b"small:%d" % i for i in range(55)]
    assert cache.mset(dict.fromkeys(keys, bytes(MIB - 200)))
    assert cache.delete(*keys) == 55
    large = noise(8 * MIB, 3)
    for name in ("a", "b", "c"):
        assert cache.set(name, large) is True
    assert cache.mget("a", "b", "c") == [large] * 3


# ---- Room in log and index


def test_compaction_keeps_what_is_live(make):
    """40 % of the room is live, and written over seven times: the log is compacted more than once."""
    cache = make("16MiB")
    generator, n = np.random.default_rng(6), 6000
    keys, values = keys_of(np.arange(n)), generator.integers(0, 256, (n, 1000), np.uint8)
    assert cache.insert(keys, values).ok
    for turn in range(1, 41):
        numbers = generator.permutation(n)[:1000]
        values[numbers, 500:] = turn
        assert cache.insert(keys[numbers], values[numbers]).counts() == {"updated": 1000}
        if turn % 8 == 0:
            assert b"".join(cache.find(keys).to_pylist()) == values.tobytes()
            info = cache.info()
            assert info["used_memory"] <= info["maxmemory"] == 16 * MIB
    assert cache.dbsize() == n


def test_expired_records_give_their_room_back(make, clock):
    cache = make("16MiB")
    keep = keys_of(np.arange(10**6, 10**6 + 500))
    assert cache.insert(keep, keep).ok
    rows = np.zeros((8000, 1000), np.uint8)
    for turn in range(8):
        keys = keys_of(np.arange(turn * 8000, (turn + 1) * 8000))
        rows[:] = turn
        assert cache.insert(keys, rows, ex=10).counts() == {"stored": 8000}
        assert cache.dbsize() == 8500
        assert cache.find(keys[:100]).to_pylist() == [bytes([turn]) * 1000] * 100
        clock.now += 10_000
        assert cache.dbsize() == 500 and not cache.contains(keys).any()
    assert cache.find(keep).to_pylist() == [row.tobytes() for row in keep]


def test_the_index_grows_and_stays_below_its_load(make):
    cache = make("256MiB")
    table, total, rehashes = cache._table.table, 0, 0
    epoch, slots = table.epoch, table.slots
    for n in (100, 5000, 5000, 10_000, 20_000, 40_000, 80_000, 160_000, 7, 320_000):
        numbers = np.arange(total, total + n)
        assert cache.insert(keys_of(numbers), keys_of(numbers)).counts() == {"stored": n}
        total += n
        rehashes += table.epoch - epoch
        epoch = table.epoch
        assert cache.dbsize() == table.entries == total
        assert table.load_factor == total / table.slots <= HARD_LOAD
    assert rehashes >= 5 and table.slots > 32 * slots
    everything = np.arange(total + 1000)
    assert np.array_equal(cache.contains(keys_of(everything)), everything < total)
    found = cache.find(keys_of(everything[:total]))
    assert b"".join(found.to_pylist()) == keys_of(everything[:total]).tobytes()


def test_an_index_that_many_records_have_left_is_made_anew(make):
    cache = make("64MiB")
    table = cache._table.table
    keys, values = keys_of(np.arange(5000)), keys_of(np.arange(5000), 64)
    epochs = {table.epoch}
    for _ in range(6):
        assert cache.insert(keys, values).ok
        epochs.add(table.epoch)
        assert table.erased <= table.slots and table.entries == 5000
        assert cache.erase(keys).all()
    assert len(epochs) > 2 and not cache.contains(keys).any()


def test_erased_slots_are_used_again(make):
    cache = make("64MiB")
    table = cache._table.table
    slots = table.slots
    for turn in range(40):
        keys = keys_of(np.arange(turn * 4000, (turn + 1) * 4000))
        assert cache.insert(keys, keys).counts() == {"stored": 4000}
        assert cache.find(keys[::500]).to_pylist() == [key.tobytes() for key in keys[::500]]
        assert table.entries <= HARD_LOAD * table.slots
        assert cache.erase(keys).all() and cache.dbsize() == 0
    assert table.slots <= 2 * slots


@pytest.mark.parametrize("batches", [1, 20])
def test_the_index_may_not_outgrow_the_capacity(make, batches):
    """Records of few bytes: the index is full before the log; what it can't hold is refused, nothing else."""
    cache = make("1MiB")
    table, keys = cache._table.table, keys_of(np.arange(100_000), 8)
    status = np.concatenate([cache.insert(part, part).status for part in np.split(keys, batches)])
    assert set(status.tolist()) == {Status.STORED, Status.NO_SPACE}
    assert np.array_equal(cache.contains(keys), status == Status.STORED)
    assert table.load_factor <= HARD_LOAD and table.entries == cache.dbsize()
    assert cache.info()["used_memory"] <= MIB
