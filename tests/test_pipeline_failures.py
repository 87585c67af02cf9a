"""Bulk calls that go wrong: failures at every stage, what of a batch is stored then, and waits with an end."""

import time
import warnings
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pytest
from chunked import column, fixed, some

from predis_lab import DeviceFailed, DeviceTimeout, Predis, Status, Tuning
from predis_lab.errors import PinnedMemoryUnavailable

try:
    import cupy
    from cupy.cuda.memory import OutOfMemoryError
    from cupy.cuda.runtime import CUDARuntimeError

    from predis_lab.gpu import (
        answer,
        batch,
        column_kernels,
        engine,
        kernels,
        launched,
        pinned,
        pipeline,
        staging,
    )
except ImportError:  # every test here then skips with this as its reason, see conftest
    cupy = None

pytestmark = pytest.mark.gpu

MANY = 10**9  # calls: no test makes as many


@pytest.fixture
def cache(chunked_cache):
    return chunked_cache


def stage_calls(stage):
    """Where a stage's calls are made from."""
    if stage == "launch":
        return [(module, "launch") for module in (kernels, column_kernels)]
    return [(module, "copy_async") for module in (staging, pipeline, answer, launched)]


@contextmanager
def refused(monkeypatch, stage, which):
    """What a stage's calls of these numbers meet, each module's counted from 0."""
    with monkeypatch.context() as patch:
        for module, name in stage_calls(stage):
            plain, calls = getattr(module, name), iter(range(MANY))

            def call(*arguments, plain=plain, calls=calls, **options):
                if next(calls) in which:
                    raise CUDARuntimeError(2)
                return plain(*arguments, **options)

            patch.setattr(module, name, call)
        yield


@pytest.mark.parametrize("stage", ["copy", "launch"])
@pytest.mark.parametrize("at", [0, 1, 2, 5, 11, 20])
def test_whatever_fails_records_are_whole(cache, monkeypatch, stage, at):
    keys = column(fixed(np.arange(2000)))
    old, new = (column(fixed(np.arange(2000) + by, 64)) for by in (0, 10**6))
    cache.insert(keys, old)
    with refused(monkeypatch, stage, range(at, at + 1)):
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
    with refused(monkeypatch, stage, range(at, at + 1)):
        try:
            assert cache.find(keys).to_pylist() == found
        except DeviceFailed:
            failed = True
    assert failed
    assert cache.find(keys).to_pylist() == found
    assert cache.insert(keys, new).ok and cache.find(keys).equals(new.cast(pa.binary()))
    assert len(cache) == 2000


def test_mset_tells_what_of_a_batch_was_stored(cache, monkeypatch):
    records = {b"%d" % i: b"value of %d" % i for i in range(2000)}
    with refused(monkeypatch, "launch", range(9, MANY)), pytest.raises(DeviceFailed) as told:
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
    monkeypatch.setattr(batch, "MAX_VALUE_NBYTES", 100)
    keys = [b"%d" % (i // 2 * 2) for i in range(2000)]  # pairs
    values = [b"v" * (101 if i % 10 == 4 else 1 + i % 100) for i in range(2000)]
    with refused(monkeypatch, "launch", range(12, MANY)):
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
    monkeypatch.setattr(launched, "CHUNK_ROWS", 64)
    keys, values = fixed(np.arange(1000)), fixed(np.arange(1000), 64)
    with refused(monkeypatch, "launch", range(5, MANY)):
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


@contextmanager
def impatient(cache):
    """Waits end soon. Elsewhere they may take long: a busy machine is no stream that never ends."""
    health = cache._table.health
    patient, health.timeout_s = health.timeout_s, 0.5
    try:
        yield
    finally:
        health.timeout_s = patient


@pytest.mark.parametrize("way", ["find", "insert", "contains", "get"])
def test_a_stream_that_never_ends_is_noticed(cache, way):
    keys, values = column(fixed(np.arange(500))), column(fixed(np.arange(500), 64))
    cache.insert(keys, values)
    later = column(fixed(np.arange(500) + 1, 64))
    # The driver loads a kernel when it is first launched, and for that waits for all that runs.
    cache.find(keys), cache.contains(keys), cache.get(b"?"), cache.insert(keys, values)
    with impatient(cache), stuck(cache._table._stream):
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
    with impatient(cache), stuck(cache._table._stream), pytest.raises(DeviceTimeout):
        cache.insert(keys, values)
    assert cache.dbsize() == cache.contains(keys).sum()
    assert cache.insert(keys, values).ok and cache.dbsize() == 500
    assert cache.find(keys).to_pylist() == values


def test_closing_does_not_wait_for_what_never_ends(small_chunks):
    cache = Predis("64MiB", backend="cuda", doorbell=False, timeout_s=0.3)
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


@pytest.mark.parametrize("fails", [True, False])
def test_after_a_call_that_never_ends_nobody_writes_where_its_uploads_go(cache, monkeypatch, fails):
    engine_, keys, values = cache._table, column(fixed(np.arange(400))), some(400, 400, 400)
    cache.insert(keys, values), cache.flushdb()
    if fails:
        with impatient(cache), stuck(engine_._stream), pytest.raises(DeviceTimeout):
            cache.insert(keys, values)
    ring, drained = engine_.pipeline.records, []
    monkeypatch.setattr(ring, "memory", launched.device_bytes(2**20))  # with room for all of them
    plain = ring.drain
    monkeypatch.setattr(ring, "drain", lambda health: (drained.append(health), plain(health)))
    cache.tuning._tuner.pin(Tuning(small_nbytes=2**22))
    for _ in range(2):
        assert cache.insert(keys, values).ok and cache.find(keys).to_pylist() == values
    assert len(drained) == fails
