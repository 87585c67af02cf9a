"""Bulk calls between host memory and the device: chunks and their edges, what they return, several callers."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from chunked import CHUNK, column, fixed, pinned_column, some

from predis_lab import InvalidArgument, Predis, Status

try:
    import cupy

    from predis_lab.gpu import answer, packed, pipeline, staging
except ImportError:  # every test here then skips with this as its reason, see conftest
    cupy = None

pytestmark = pytest.mark.gpu

MIB = 2**20


@pytest.fixture
def cache(chunked_cache):
    return chunked_cache


# ---- Chunks


ROWS = [1, 2, 7, 8, 9, 23, 24, 25, 47, 48, 49, 50, 51, 52, 63, 64, 65, 128, 500, 1001]


@pytest.mark.parametrize("n", ROWS)
@pytest.mark.parametrize("shape", ["fixed", "odd", "varied", "pinned"])
def test_every_edge_of_a_chunk(cache, n, shape):
    numbers = np.arange(n)
    keys = fixed(numbers, 17 if shape == "odd" else 16)
    sizes = {"fixed": (64, 64), "odd": (33, 33), "varied": (0, 200), "pinned": (64, 64)}[shape]
    values = some(n, *sizes)
    table_keys = {"varied": pa.array([bytes(row) for row in keys], pa.binary())}.get(shape)
    if table_keys is None:
        table_keys = pinned_column(keys) if shape == "pinned" else column(keys)
    report = cache.insert(table_keys, values)
    assert report.ok and len(report.status) == n
    assert cache.find(table_keys).to_pylist() == values
    absent = column(fixed(numbers + n, keys.shape[1]))
    mixed = pa.concat_arrays([absent, column(keys), absent]).take(np.random.permutation(3 * n))
    known = dict(zip(map(bytes, keys), values, strict=True))
    found = cache.find(mixed)
    assert found.to_pylist() == [known.get(key) for key in mixed.to_pylist()]
    assert found.null_count == 2 * n
    assert cache.contains(mixed).tolist() == [key in known for key in mixed.to_pylist()]
    assert cache.erase(table_keys[::2]).all() and len(cache) == n // 2
    assert cache.contains(table_keys).tolist() == [i % 2 == 1 for i in range(n)]


def test_duplicates_across_chunks_the_last_wins(cache):
    numbers = np.random.default_rng(1).integers(0, 200, 3000)
    values = fixed(np.arange(3000), 48)
    report = cache.insert(column(fixed(numbers)), column(values))
    last = {int(number): row for row, number in enumerate(numbers)}
    assert report.counts()["superseded"] == 3000 - len(last)
    found = cache.find(column(fixed(np.array(list(last))))).to_pylist()
    assert found == [bytes(values[row]) for row in last.values()]


@pytest.mark.parametrize("nbytes", [CHUNK - 16, CHUNK, CHUNK + 1, 5 * CHUNK, 3 * MIB])
def test_values_larger_than_a_buffer_and_than_a_segment(cache, nbytes):
    values = some(3, nbytes, nbytes) + some(30, 0, 40) + some(3, nbytes, nbytes, seed=1)
    keys = [b"%d" % i for i in range(len(values))]
    assert cache.insert(keys, values).ok
    assert cache.find(keys).to_pylist() == values
    assert cache.find(keys[::-1]).to_pylist() == values[::-1]


@pytest.mark.parametrize("split", [2**29, 1000])
def test_answers_longer_than_expected(cache, monkeypatch, split):
    monkeypatch.setattr(pipeline, "SPLIT_NBYTES", split)
    values = some(2000, 0, 8) + some(200, 900, 1500)
    keys = [b"%d" % i for i in range(len(values))]
    assert cache.insert(keys, values).ok
    found = cache.find([*keys, b"?"])
    assert found.to_pylist() == [*values, None] and found.null_count == 1


def test_more_than_offsets_of_32_bits_can_say(cache, monkeypatch):
    monkeypatch.setattr(answer, "INT32_MAX", 20_000)
    values = some(3000, 0, 30)
    keys = [b"%d" % i for i in range(len(values))]
    assert cache.insert(keys, values).ok
    found = cache.find(keys)
    assert found.type == pa.large_binary() and found.to_pylist() == values
    assert cache.find(keys[:500]).type == pa.binary()


def test_lengths_that_change_in_the_middle_of_a_lookup(cache, monkeypatch):
    """Offsets that were known have to be spelt out after all."""
    keys, values = column(fixed(np.arange(3000))), column(fixed(np.arange(3000), 64))
    cache.insert(keys, values)
    table, calls = cache._table.table, iter(range(10**9))
    uniform = type(table).find

    def find(*arguments, **options):
        if next(calls) == 3:
            cache._table.table.uniform_nbytes = None
        return uniform(table, *arguments, **options)

    monkeypatch.setattr(table, "find", find)
    found = cache.find(keys)
    assert next(calls) > 5 and found.to_pylist() == values.to_pylist()
    absent = column(fixed(np.arange(2000, 4000)))
    assert cache.find(absent).to_pylist() == values.to_pylist()[2000:] + [None] * 1000


@pytest.mark.parametrize("limit", [2**31 - 1, 100_000])
def test_known_offsets_are_shared_and_not_to_be_written(cache, monkeypatch, limit):
    for module in (answer, packed):
        monkeypatch.setattr(module, "INT32_MAX", limit)
    packed._uniform.clear()
    keys, values = column(fixed(np.arange(3000))), column(fixed(np.arange(3000), 64))
    cache.insert(keys, values)
    found = cache.find(keys)
    assert found.type == (pa.binary() if limit > 3000 * 64 else pa.large_binary())
    assert found.to_pylist() == values.to_pylist()
    less = cache.find(keys[:1000])
    assert less.type == pa.binary() and less.to_pylist() == values.to_pylist()[:1000]
    assert packed.uniform_offsets(1000, 64).flags.writeable == (
        limit == 100_000
    )  # where it is a copy
    assert packed.uniform_offsets(5, 3).tolist() == [0, 3, 6, 9, 12, 15]


def test_an_empty_table_and_empty_values(cache):
    keys = column(fixed(np.arange(1000)))
    assert cache.find(keys).to_pylist() == [None] * 1000
    assert not cache.contains(keys).any() and not cache.erase(keys).any()
    assert cache.insert(keys, [b""] * 1000).ok
    assert cache.find(keys).to_pylist() == [b""] * 1000


def test_a_full_cache_refuses_the_rest(small_chunks):
    with Predis("2MiB", backend="cuda") as cache:
        keys, values = column(fixed(np.arange(40_000))), column(fixed(np.arange(40_000), 64))
        status = cache.insert(keys, values).status
        stored = status == Status.STORED
        assert stored.any() and (status[~stored] == Status.NO_SPACE).all()
        expected = [
            row if there else None for row, there in zip(values.to_pylist(), stored, strict=True)
        ]
        assert cache.find(keys).to_pylist() == expected


# ---- Results


def test_results_outlive_what_they_were_read_from(small_chunks):
    keys, values = column(fixed(np.arange(2000))), column(fixed(np.arange(2000), 64))
    with Predis("64MiB", backend="cuda") as cache:
        cache.insert(keys, values)
        found = cache.find(keys)
        cache.insert(keys, column(fixed(np.arange(2000) + 7, 64)))
        for _ in range(5):
            assert cache.find(keys) != found
        cache.flushdb()
    assert found.to_pylist() == values.to_pylist()


def test_values_stay_on_the_device(cache):
    keys, rows = fixed(np.arange(3000)), np.arange(3000 * 16, dtype="f4").reshape(3000, 4, 4)
    cache.insert(column(keys), rows)
    asked = column(fixed(np.arange(1000, 4000)))
    found = cache.find(asked, device=True)
    assert found.on_device and len(found) == 3000
    values, there = cache.find(asked, dtype="f4", shape=(4, 4), device=True)
    assert isinstance(values, cupy.ndarray) and values.shape == (3000, 4, 4)
    assert np.array_equal(values.get()[:2000], rows[1000:]) and not values.get()[2000:].any()
    assert there.get().tolist() == [True] * 2000 + [False] * 1000
    on_host, there = cache.find(asked, dtype="f4", shape=(4, 4))
    assert np.array_equal(on_host, values.get()) and there[:2000].all() and not there[2000:].any()
    cache.set(b"another", b"of another length")
    again, there = cache.find(asked, dtype="f4", shape=(4, 4), device=True)
    assert np.array_equal(again.get(), values.get()) and int(there.sum()) == 2000
    rest, there = cache.find([b"another"], dtype="f4", shape=(4, 4), device=True)
    assert not there.get().any() and not rest.get().any()


@pytest.mark.parametrize("key_nbytes", [16, 24])
def test_rows_on_the_device_of_a_few_keys(cache, clock, key_nbytes):
    """Whose keys lie in pinned memory meanwhile, or are taken to the device: many calls before the first is looked at."""
    chance = np.random.default_rng(2)
    rows = chance.random((600, 16), "f4")
    keys = np.concatenate([fixed(np.arange(600), 16), np.zeros((600, key_nbytes - 16), "u1")], 1)
    cache.insert(keys, rows)
    cache.insert(keys[:50], rows[:50], px=50)
    asked, answers = [], []
    absent = np.full((1, key_nbytes), 0xEE, "u1")
    clock.now += 50
    for n in (1, 2, 31, 32, 33, 400, 5000) * 3:
        picked = chance.integers(0, 600, n)
        sent = np.concatenate([keys[picked], absent])
        asked.append(picked)
        answers.append(
            [
                cache.find(one, dtype="f4", shape=(16,), device=True)
                for one in (sent, cupy.asarray(sent))
            ]
        )
    for picked, sides in zip(asked, answers, strict=True):
        there = np.append(picked >= 50, False)
        expected = np.where(there[:, None], np.concatenate([rows[picked], rows[:1]]), 0)
        for found, present in sides:
            assert np.array_equal(found.get(), expected)
            assert present.dtype == bool and np.array_equal(present.get(), there)


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_dlpack_hands_rows_over_without_a_copy(cache, library):
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # or jax takes all there is
    module = pytest.importorskip(library)
    keys, rows = column(fixed(np.arange(500))), np.random.default_rng(0).random((500, 8), "f4")
    cache.insert(keys, rows)
    found, _ = cache.find(keys, dtype="f4", shape=(8,), device=True)
    cupy.cuda.get_current_stream().synchronize()
    taken = (module if library == "torch" else module.dlpack).from_dlpack(found)
    pointer = taken.data_ptr() if library == "torch" else taken.unsafe_buffer_pointer()
    assert pointer == found.data.ptr
    assert np.array_equal(np.asarray(taken.cpu() if library == "torch" else taken), rows)


@pytest.mark.parametrize(
    "wrong", [{"shape": (2,)}, {"dtype": "f4", "shape": 3}, {"dtype": "f4", "shape": (0,)}, {"dtype": object}]
)  # fmt: skip
def test_layouts_that_make_no_sense(cache, wrong):
    with pytest.raises(InvalidArgument):
        cache.find([b"key"], device=True, **wrong)


def test_what_was_moved_is_told(cache):
    keys, values = column(fixed(np.arange(4000))), column(fixed(np.arange(4000), 64))
    cache.insert(keys, values)
    cache.find(keys)
    told = cache.info("transfers")
    assert told["calls"] == 2 and told["uploaded_bytes"] == 4000 * (16 + 64 + 16)
    # Values, statuses, bits of presence; the offsets of values of one length are known.
    assert told["downloaded_bytes"] == 4000 * 64 + 4000 + 500
    assert told["peak_bandwidth"] >= told["mean_bandwidth"] > 0


def test_stages_are_traced(cache):
    keys, values = column(fixed(np.arange(4000))), column(fixed(np.arange(4000), 64))
    cache.insert(keys, values)
    with cache._table.traced() as intervals:
        cache.find(keys)
    assert {one.stage for one in intervals} == {"pack", "upload", "kernel", "download"}
    assert all(0 <= one.stop_s - one.start_s < 10 for one in intervals)
    chunks = {one.chunk for one in intervals}
    assert chunks == set(range(len(chunks))) and len(chunks) > 4
    with cache._table.traced() as nothing:
        pass
    assert nothing == []


# ---- Several callers


def test_threads_hammer_one_cache(cache):
    def work(number):
        generator = np.random.default_rng(number)
        mine = {}
        for _ in range(12):
            picked = np.unique(generator.integers(0, 400, 300)) * 16 + number
            values = generator.integers(0, 256, (len(picked), 64), np.uint8)
            keys = fixed(picked)
            assert cache.insert(column(keys), column(values)).ok
            mine.update(zip(map(bytes, keys), map(bytes, values), strict=True))
            asked = list(mine)
            assert cache.find(asked).to_pylist() == list(mine.values())
            gone = asked[:: int(generator.integers(2, 9))]
            assert cache.erase(gone).all()
            for key in gone:
                del mine[key]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))  # raises what a thread raised


def test_who_waits_for_a_buffer_keeps_nobody_waiting(cache):
    """Callers get through while one waits for others' buffers: those others may need the lock to give them back."""
    keys, values = column(fixed(np.arange(5000))), column(fixed(np.arange(5000), 64))
    cache.insert(keys, values)
    buffers, found = cache._table.pipeline.staging._buffers, []
    held = [buffers.get() for _ in range(staging.BUFFERS)]
    waiting = threading.Thread(target=lambda: found.append(cache.find(keys, device=True)))
    waiting.start()
    time.sleep(0.1)
    reading = threading.Thread(target=lambda: found.append(cache.dbsize()))
    reading.start()
    reading.join(5)
    assert found == [5000] and waiting.is_alive()
    for buffer in held:
        buffers.put(buffer)
    waiting.join(5)
    assert len(found) == 2 and len(found[1]) == 5000


def test_readers_see_whole_values_while_a_writer_writes(cache):
    """Values of 64 bytes or of 48, all bytes alike; no reader sees a mixture, or a key missing."""
    keys, stop, errors = column(fixed(np.arange(1500))), threading.Event(), []
    cache.insert(keys, np.zeros((1500, 64), np.uint8))

    def read():
        try:
            while not stop.is_set():
                for value in cache.find(keys).to_pylist():
                    assert value is not None and len(set(value)) == 1 and len(value) in (48, 64)
        except Exception as error:  # noqa: BLE001 - told by the main thread
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for turn in range(1, 25):
        width = 48 if turn % 3 else 64
        assert cache.insert(keys, np.full((1500, width), turn, np.uint8)).ok
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]


@pytest.mark.parametrize("values", [[b"y" * 1000], [b"y" * 1000, b"z" * 7]])
def test_longer_values_are_read_whole_before_the_writer_is_told(monkeypatch, values):
    """A caller that gets through while a writer waits may meet records that the table does not know of yet."""
    keys, seen = [b"%d" % i for i in range(len(values))], []
    with Predis("64MiB", backend="cuda", doorbell=False) as cache:
        cache.insert(keys, [b"x"] * len(keys))
        table = cache._table.table
        told = table.read_report

        def read_report(*arguments, **options):
            found = cache.find(keys, device=True)
            lengths = (found.offsets[1:] - found.offsets[:-1]).get().tolist()
            data = found.data.get()[: sum(lengths)].tobytes()
            seen.append(([cache.get(key) for key in keys], cache.mget(keys), lengths, data))
            return told(*arguments, **options)

        monkeypatch.setattr(table, "read_report", read_report)
        cache.insert(keys, values)
    assert seen == [(values, values, [len(value) for value in values], b"".join(values))]
