"""Announced keys: they come up in the background, whatever else goes on."""

import threading
import time
from typing import ClassVar

import numpy as np
import pytest
from tiered import check_memory, fill, keys_of, moved, prefetch, rows, stats, values_of

from predis_lab import CacheClosed, Predis
from predis_lab.errors import DeviceFailed

try:
    import cupy

    from predis_lab.gpu import announced
except ImportError:  # every test here then skips with this as its reason, see conftest
    cupy = announced = None

pytestmark = pytest.mark.gpu


@pytest.fixture
def cache():
    with Predis("1MiB", host_capacity="16MiB", backend="cuda") as predis:
        fill(predis, 10_000)
        yield predis


@pytest.fixture
def gate(cache, monkeypatch):
    """Nothing is brought up before it opens; the parts that came to it."""

    class Gate:
        parts: ClassVar = []
        open = threading.Event()

    plain = cache._table._announced._bring

    def bring(keys, now_ms, segments):
        Gate.parts.append(len(keys))
        assert Gate.open.wait(30)
        return plain(keys, now_ms, segments)

    monkeypatch.setattr(cache._table._announced, "_bring", bring)
    yield Gate
    Gate.open.set()


def waits(condition):
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < 30
        time.sleep(1e-3)


def test_the_caller_goes_on_at_once(cache, gate):
    before, keys = stats(cache), keys_of(np.arange(500))
    cache.prefetch(keys)
    keys[:] = 0  # the caller's again
    assert stats(cache)["prefetch_pending_keys"] == 500
    assert cache.find(keys_of(np.arange(20))).to_pylist() == rows(values_of(np.arange(20)))
    assert moved(cache, before)[2] == 0
    gate.open.set()
    waits(lambda: not stats(cache)["prefetch_pending_keys"])
    assert moved(cache, before)[2] >= 480 * 288 and stats(cache)["prefetch_failed_keys"] == 0
    check_memory(cache)


def test_keys_on_the_device_are_the_callers_again_too(cache, gate):
    before, keys = stats(cache), cupy.asarray(keys_of(np.arange(500)))
    cache.prefetch(keys)
    keys[:] = 0
    gate.open.set()
    waits(lambda: not stats(cache)["prefetch_pending_keys"])
    assert moved(cache, before)[2] == 500 * 288


def test_writers_come_between_two_parts(cache, monkeypatch):
    monkeypatch.setattr(announced, "PART_ROWS", 10)
    written = []

    def write():
        for number in range(50):
            assert cache.set(b"of another thread %d" % number, b"x")
            written.append(stats(cache)["prefetch_pending_keys"])

    cache.prefetch(keys_of(np.arange(2000)))
    write()
    waits(lambda: not stats(cache)["prefetch_pending_keys"])
    assert (
        any(written) and cache.mget(b"of another thread 0", b"of another thread 49") == [b"x"] * 2
    )
    check_memory(cache)


def test_what_was_announced_first_is_let_go_of(cache, gate, monkeypatch):
    monkeypatch.setattr(announced, "MOST_ROWS", 1000)
    cache.prefetch(keys_of(np.arange(400)))
    waits(lambda: gate.parts == [400])
    for first in (1000, 2000, 3000):
        cache.prefetch(keys_of(np.arange(first, first + 300)))
    assert stats(cache)["prefetch_pending_keys"] == 1000
    before = stats(cache)
    gate.open.set()
    waits(lambda: not stats(cache)["prefetch_pending_keys"])
    assert gate.parts == [400, 300, 300]
    assert moved(cache, before)[2] == 1000 * 288
    before = stats(cache)
    cache.find(cupy.asarray(keys_of(np.arange(1000, 1300))))
    assert moved(cache, before)[:2] == (0, 300)


def test_flushing_lets_go_of_all(cache, gate):
    cache.prefetch(keys_of(np.arange(100)))
    waits(lambda: gate.parts == [100])
    cache.prefetch(keys_of(np.arange(100, 300)))
    flushing = threading.Thread(target=cache.flushdb)
    flushing.start()
    waits(lambda: cache._table._announced.pending == 100)
    gate.open.set()
    flushing.join()
    waits(lambda: not stats(cache)["prefetch_pending_keys"])
    assert gate.parts == [100] and cache.dbsize() == 0


def test_an_error_is_counted_and_nobodys(cache, monkeypatch):
    def refuse(*_):
        raise DeviceFailed("the device refused: on purpose")

    monkeypatch.setattr(cache._table._announced, "_bring", refuse)
    prefetch(cache, keys_of(np.arange(100)))
    assert stats(cache)["prefetch_failed_keys"] == 100
    monkeypatch.undo()
    before = stats(cache)
    prefetch(cache, keys_of(np.arange(100)))
    assert moved(cache, before)[2] == 100 * 288 and stats(cache)["prefetch_failed_keys"] == 100


def test_closing_lets_go_of_all(gate, cache):
    before = threading.active_count()
    for first in range(0, 5000, 100):
        cache.prefetch(keys_of(np.arange(first, first + 100)))
    threading.Timer(0.2, gate.open.set).start()
    cache.close()
    assert len(gate.parts) <= 2 and threading.active_count() < before + 2
    with pytest.raises(CacheClosed):
        cache.prefetch(keys_of(np.arange(3)))
