"""Bulk calls between host memory and the device: chunks and their edges, failures at every stage, waits with an end."""

import os
import threading
import time
import warnings
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pytest

from predis_lab import DeviceFailed, DeviceTimeout, InvalidArgument, Predis, Status
from predis_lab.errors import PinnedMemoryUnavailable

try:
    import cupy
    from cupy.cuda.memory import OutOfMemoryError
    from cupy.cuda.runtime import CUDARuntimeError

    from predis_lab.gpu import answer, engine, kernels, pinned, pipeline, ring, staging
except ImportError:  # every test here then skips with this as its reason, see conftest
    cupy = None

pytestmark = pytest.mark.gpu

MIB = 2**20
CHUNK = 4096  # bytes, in these tests


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of a few dozen rows, and no way around them."""
    monkeypatch.setattr(ring, "CHUNK_NBYTES", CHUNK)
    monkeypatch.setattr(ring, "MIN_CHUNK_NBYTES", CHUNK)
    monkeypatch.setattr(engine, "SMALL_NBYTES", 0)
    monkeypatch.setattr(staging, "BUFFER_NBYTES", 3 * CHUNK)
    monkeypatch.setattr(staging, "PIECE_NBYTES", 1000)


@pytest.fixture
def cache(small_chunks):
    with Predis("64MiB", backend="cuda", timeout_s=0.5) as predis:
        yield predis


def fixed(numbers, width=16):
    rows = np.zeros((len(numbers), width), np.uint8)
    rows[:, :8] = np.ascontiguousarray(numbers, "<u8").view(np.uint8).reshape(-1, 8)
    return rows


def column(rows):
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(rows.shape[1]), len(rows), [None, pa.py_buffer(np.ascontiguousarray(rows))]
    )


def some(n, low, high, seed=0):
    """n byte strings of `low` to `high` bytes."""
    generator = np.random.default_rng(seed)
    return [generator.bytes(int(size)) for size in generator.integers(low, high + 1, n)]


def pinned_column(rows):
    array = pinned.pinned(rows.size, np.uint8)
    array[:] = rows.reshape(-1)
    return column(array.reshape(rows.shape))


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
    assert cache.find(mixed).to_pylist() == [known.get(key) for key in mixed.to_pylist()]
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
    assert cache.find(keys).to_pylist() == values


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
    monkeypatch.setattr(answer, "INT32_MAX", limit)
    answer._uniform.clear()
    keys, values = column(fixed(np.arange(3000))), column(fixed(np.arange(3000), 64))
    cache.insert(keys, values)
    found = cache.find(keys)
    assert found.type == (pa.binary() if limit > 3000 * 64 else pa.large_binary())
    assert found.to_pylist() == values.to_pylist()
    less = cache.find(keys[:1000])
    assert less.type == pa.binary() and less.to_pylist() == values.to_pylist()[:1000]
    assert answer.uniform_offsets(1000, 64).flags.writeable == (
        limit == 100_000
    )  # where it is a copy
    assert answer.uniform_offsets(5, 3).tolist() == [0, 3, 6, 9, 12, 15]


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


# ---- What goes wrong


def failing(function, at, error):
    """The function, which fails at its call number `at`."""
    calls = iter(range(10**9))

    def call(*arguments, **options):
        if next(calls) == at:
            raise error
        return function(*arguments, **options)

    return call


def stage_calls(stage):
    """Where a stage's calls are made from."""
    if stage == "launch":
        return [(kernels, "launch")]
    return [(module, "copy_async") for module in (staging, pipeline, answer)]


@pytest.mark.parametrize("stage", ["copy", "launch"])
@pytest.mark.parametrize("at", [0, 1, 2, 5, 11, 20])
def test_whatever_fails_records_are_whole(cache, monkeypatch, stage, at):
    keys = column(fixed(np.arange(2000)))
    old, new = (column(fixed(np.arange(2000) + by, 64)) for by in (0, 10**6))
    cache.insert(keys, old)
    refusal = CUDARuntimeError(2)
    with monkeypatch.context() as patch:
        for module, name in stage_calls(stage):
            patch.setattr(module, name, failing(getattr(module, name), at, refusal))
        try:
            report = cache.insert(keys, new)
        except DeviceFailed as error:
            failed, fates = error.status is None, [None] * 2000
        else:
            failed, fates = not report.ok, report.status.tolist()
        assert failed or at > 8
    found = cache.find(keys).to_pylist()
    for was, now, there, fate in zip(old.to_pylist(), new.to_pylist(), found, fates, strict=True):
        told = {Status.UPDATED: (now,), Status.FAILED: (was,), None: (was, now)}
        assert there in told[fate]
    with monkeypatch.context() as patch:
        for module, name in stage_calls(stage):
            patch.setattr(module, name, failing(getattr(module, name), at, refusal))
        try:
            assert cache.find(keys).to_pylist() == found
        except DeviceFailed:
            failed = True
    assert failed
    assert cache.find(keys).to_pylist() == found
    assert cache.insert(keys, new).ok and cache.find(keys).equals(new.cast(pa.binary()))
    assert len(cache) == 2000


@contextmanager
def refused(monkeypatch, stage, at):
    """What a stage's calls number `at` and later meet."""
    with monkeypatch.context() as patch:
        for module, name in stage_calls(stage):
            plain, calls = getattr(module, name), iter(range(10**9))

            def call(*arguments, plain=plain, calls=calls, **options):
                if next(calls) >= at:
                    raise CUDARuntimeError(2)
                return plain(*arguments, **options)

            patch.setattr(module, name, call)
        yield


def test_mset_tells_what_of_a_batch_was_stored(cache, monkeypatch):
    records = {b"%d" % i: b"value of %d" % i for i in range(2000)}
    with refused(monkeypatch, "launch", 9), pytest.raises(DeviceFailed) as told:
        cache.mset(records)
    status = told.value.status
    stored = (status == Status.STORED).sum()
    assert 0 < stored < 2000 and (status[stored:] == Status.FAILED).all()
    assert str(told.value).endswith(f"{stored} stored, {2000 - stored} failed of 2000 records")
    found = cache.mget(list(records))
    assert found == list(records.values())[:stored] + [None] * (2000 - stored)
    assert cache.dbsize() == stored and cache.mset(records) and cache.dbsize() == 2000


def test_every_record_of_a_batch_has_its_own_fate(cache, monkeypatch):
    """Some too long, some superseded, and the device that refuses to go on."""
    monkeypatch.setattr(engine, "MAX_VALUE_NBYTES", 100)
    keys = [b"%d" % (i // 2 * 2) for i in range(2000)]  # pairs
    values = [b"v" * (101 if i % 10 == 4 else 1 + i % 100) for i in range(2000)]
    with refused(monkeypatch, "launch", 12):
        report = cache.insert(keys, values)
    with pytest.raises(DeviceFailed) as told:
        report.raise_for_status()
    assert told.value.status is report.status and "the device refused" in report.failure
    long = np.array([len(value) > 100 for value in values])
    assert ((report.status == Status.TOO_LARGE) == long).all()
    fates, first = report.status[~long], int((report.status == Status.FAILED).argmax())
    assert 0 < first < 2000 and (report.status[first:][~long[first:]] == Status.FAILED).all()
    assert (np.isin(fates[: int((~long[:first]).sum())], (Status.STORED, Status.SUPERSEDED))).all()
    expected = {}
    for key, value, fate in zip(keys, values, report.status.tolist(), strict=True):
        if fate == Status.STORED:
            expected[key] = value
    assert cache.dbsize() == len(expected)
    assert cache.find(keys).to_pylist() == [expected.get(key) for key in keys]


def test_columns_on_the_device_are_stored_in_part(cache, monkeypatch):
    monkeypatch.setattr(engine, "CHUNK_ROWS", 64)
    keys, values = fixed(np.arange(1000)), fixed(np.arange(1000), 64)
    with refused(monkeypatch, "launch", 5):
        report = cache.insert(cupy.asarray(keys), cupy.asarray(values))
    stored = (report.status == Status.STORED).sum()
    assert 0 < stored < 1000 and (report.status[stored:] == Status.FAILED).all()
    assert cache.contains(column(keys)).tolist() == [i < stored for i in range(1000)]
    assert cache.dbsize() == stored and cache.insert(column(keys), column(values)).ok


def test_an_allocation_that_fails_leaves_everything_as_it_was(cache, monkeypatch):
    keys, values = column(fixed(np.arange(2000))), column(fixed(np.arange(2000), 64))
    cache.insert(keys, values)

    def refuse(*_):
        raise OutOfMemoryError(1, 2)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "on_device", refuse)
        with pytest.raises(DeviceFailed):
            cache.insert(keys, values)
    assert cache.find(keys).to_pylist() == values.to_pylist() and len(cache) == 2000


def test_without_pinned_memory_it_is_slower_and_says_so(cache, monkeypatch):
    keys, values = column(fixed(np.arange(2000))), some(2000, 0, 100)
    cache.insert(keys, values)

    def refuse(*_):
        raise PinnedMemoryUnavailable("none left")

    monkeypatch.setattr(pinned, "pinned", refuse)
    monkeypatch.setattr(pinned.pool, "refused", 0)
    with pytest.warns(RuntimeWarning, match="none left"):
        assert cache.find(keys).to_pylist() == values
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is said once
        assert cache.find(keys).to_pylist() == values
    assert cache.info("transfers")["pageable_buffers"] > 1


@contextmanager
def stuck(stream):
    """Work on a stream that does not end before the block does."""
    if cupy.cuda.runtime.getDeviceProperties(0)["name"].startswith(b"emulated"):
        stream.done = False
        yield
        del stream.done
        return
    flag = pinned.pinned(1, np.uint32)
    flag[0] = 0
    with stream:  # some ten seconds, should nobody come to set the flag
        cupy.RawKernel(
            """extern "C" __global__ void wait(volatile unsigned* flag) {
                for (long long began = clock64(); !*flag && clock64() - began < 15000000000;) {}
            }""",
            "wait",
        )((1,), (1,), (flag.ctypes.data,))
    try:
        yield
    finally:
        flag[0] = 1
        stream.synchronize()


@pytest.mark.parametrize("way", ["find", "insert", "contains", "get"])
def test_a_stream_that_never_ends_is_noticed(cache, way):
    keys, values = column(fixed(np.arange(500))), column(fixed(np.arange(500), 64))
    cache.insert(keys, values)
    later = column(fixed(np.arange(500) + 1, 64))
    # The driver loads a kernel when it is first launched, and for that waits for all that runs.
    cache.find(keys), cache.contains(keys), cache.get(b"?"), cache.insert(keys, values)
    with stuck(cache._table._stream):
        began = time.monotonic()
        with pytest.raises(DeviceTimeout, match=r"has not finished a .* within 0\.5 s"):
            {
                "find": lambda: cache.find(keys),
                "insert": lambda: cache.insert(keys, later),
                "contains": lambda: cache.contains(keys),
                "get": lambda: cache.get(bytes(keys[3].as_py())),
            }[way]()
        assert 0.4 < time.monotonic() - began < 10
        for call in (lambda: cache.find(keys), lambda: cache.insert(keys, values), cache.dbsize):
            with pytest.raises(DeviceTimeout, match="still busy"):
                call()
    found = cache.find(keys).to_pylist()
    for was, now, there in zip(values.to_pylist(), later.to_pylist(), found, strict=True):
        assert there in ((was, now) if way == "insert" else (was,))
    assert cache.insert(keys, later).ok and len(cache) == 500
    assert cache.find(keys).to_pylist() == later.to_pylist()


@pytest.mark.parametrize("sizes", [(64, 64), (0, 100)])
def test_a_write_that_never_ends_for_its_caller_is_counted_when_it_has(cache, sizes):
    cache.insert(column(fixed(np.arange(100))), some(100, *sizes))
    keys, values = column(fixed(np.arange(50, 550))), some(500, *sizes)
    cache.insert(keys, values), cache.flushdb()
    with stuck(cache._table._stream), pytest.raises(DeviceTimeout):
        cache.insert(keys, values)
    assert cache.dbsize() == cache.contains(keys).sum()
    assert cache.insert(keys, values).ok and cache.dbsize() == 500
    assert cache.find(keys).to_pylist() == values


def test_closing_does_not_wait_for_what_never_ends(small_chunks):
    cache = Predis("64MiB", backend="cuda", timeout_s=0.3)
    keys = column(fixed(np.arange(500)))
    cache.insert(keys, keys)
    cache.find(keys)
    with stuck(cache._table._stream):
        with pytest.raises(DeviceTimeout):
            cache.find(keys)
        began = time.monotonic()
        cache.close()
        assert time.monotonic() - began < 5
    engine._abandoned.clear()


# ---- Several callers


def test_threads_hammer_one_cache(cache):
    errors = []

    def work(number):
        generator = np.random.default_rng(number)
        mine = {}
        try:
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
        except Exception as error:  # noqa: BLE001 - told by the main thread
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]


def test_who_waits_for_a_buffer_keeps_nobody_waiting(cache):
    """Callers get through while one waits for others' buffers: those others may need the lock to give them back."""
    keys, values = column(fixed(np.arange(100))), column(fixed(np.arange(100), 64))
    cache.insert(keys, values)
    buffers, found = cache._table.pipeline._staging._buffers, []
    held = [buffers.get() for _ in range(staging.BUFFERS)]
    waiting = threading.Thread(target=lambda: found.append(cache.find(keys, device=True)))
    waiting.start()
    time.sleep(0.1)
    reading = threading.Thread(target=lambda: found.append(cache.dbsize()))
    reading.start()
    reading.join(5)
    assert found == [100] and waiting.is_alive()
    for buffer in held:
        buffers.put(buffer)
    waiting.join(5)
    assert len(found) == 2 and len(found[1]) == 100


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
    with Predis("64MiB", backend="cuda") as cache:
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
