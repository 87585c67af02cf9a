"""The block behind the doorbell: it comes and goes, dies, hangs and is interrupted, and the cache goes on."""

import subprocess
import sys
import threading
import time
import types
import weakref

import numpy as np
import pytest
from ringing import Stuck, doorbell_module, rung

from predis_lab import DeviceFailed, DeviceTimeout, Predis
from predis_lab.gpu import mailbox

pytestmark = pytest.mark.gpu


@pytest.fixture
def cache(written_cache):
    return written_cache


def is_gone(bell):
    return bell._words[mailbox.GONE] == bell._started


def test_memory_is_given_back_once_the_block_has_left(monkeypatch):
    """It says that it is gone before it looks for a request, or writes an answer, one last time."""
    taken = []
    monkeypatch.setattr(mailbox, "_abandoned", taken)
    ends = iter([False, False, True])

    class Stream:
        done = property(lambda self: next(ends))

    mailbox.until_gone("memory", Stream())
    assert next(ends, None) is None and not taken
    mailbox.until_gone("memory", types.SimpleNamespace(done=False))
    assert taken == ["memory"]


def test_the_block_leaves_by_itself_and_is_started_again(cache):
    bell = cache._table.doorbell
    for number in range(3):
        cache.set("a", number)
        assert cache.get("a") == b"%d" % number
        deadline = time.monotonic() + 5
        while not is_gone(bell):
            assert time.monotonic() < deadline
            time.sleep(1e-3)
        assert bell._started >= number + 1


def test_closing_waits_for_the_block(cache):
    bell = cache._table.doorbell
    cache.set("a", 1)
    assert cache.get("a") == b"1"
    cache.close()
    assert is_gone(bell)


def test_a_block_that_died_is_noticed_and_not_asked_again(cache):
    cache.mset({"a": 1, "b": 2})
    bell = cache._table.doorbell
    while not cache._table.table.is_idle():
        time.sleep(1e-3)
    bell.close()
    bell._kernel = lambda *_: None  # it ends, and has said nothing
    assert cache.get("a") == b"1" and bell.dead
    before = rung(cache)
    assert cache.mget("a", "b") == [b"1", b"2"] and cache.set("c", 3) and cache.get("c") == b"3"
    assert rung(cache) == before


@pytest.mark.parametrize("call", ["get", "set", "delete", "exists", "mget"])
def test_a_block_that_the_driver_refuses_to_start_is_an_error_and_the_cache_goes_on(cache, call):
    import cupy

    cache.mset({"a": 1, "b": 2})
    bell = cache._table.doorbell
    bell.close()
    kernel = bell._kernel

    def refuse(*_):
        raise cupy.cuda.memory.OutOfMemoryError(1, 2)

    bell._kernel = refuse
    with pytest.raises(DeviceFailed, match="the device refused"):
        getattr(cache, call)("a", *{"set": ["3"], "mget": ["b"]}.get(call, []))
    bell._kernel = kernel
    assert cache.mget("a", "b") == [b"1", b"2"] and cache.get("a") == b"1"
    assert cache.set("a", 4) and cache.get("a") == b"4" and cache.dbsize() == 2


def test_a_write_whose_block_died_is_an_error_and_the_cache_goes_on(cache):
    cache.set("a", 1)
    bell = cache._table.doorbell
    bell.close()
    bell._kernel = lambda *_: None
    assert cache.set("a", 2)  # it lies in the mailbox
    with pytest.raises(DeviceFailed, match="stopped answering"):
        cache.get("a")
    assert cache.get("a") == b"1"
    assert cache.set("a", 3) and cache.get("a") == b"3" and cache.dbsize() == 1


def test_a_block_that_does_not_answer_is_given_up(cache):
    cache.set("a", 1)
    bell = cache._table.doorbell
    bell.close()
    kernel, stream, bell._stream = bell._kernel, bell._stream, Stuck()
    started = []
    bell._kernel = lambda *launch: started.append(launch)
    cache._table.health.timeout_s = 0.3
    assert cache.set("a", 2)
    with pytest.raises(DeviceTimeout, match=r"a small call within 0\.3 s"):
        cache.get("a")
    with pytest.raises(DeviceTimeout, match="still busy with a small call"):
        cache.set("a", 3)
    assert len(started) == 1
    stuck, bell._stream, bell._kernel = bell._stream, stream, kernel
    with stream:
        kernel(*started[0])  # late, but it comes
    deadline = time.monotonic() + 5
    while not is_gone(bell):
        assert time.monotonic() < deadline
        time.sleep(1e-3)
    stuck.done = True
    assert cache.get("a") == b"2" and cache.dbsize() == 1 and not bell.dead


class Interrupted:
    """Words of a mailbox at which Ctrl-C is pressed while the answer is waited for."""

    def __init__(self, bell):
        self.bell, self.words, self.asked = bell, bell._words, bell._asked

    def __getitem__(self, word):
        if word == mailbox.ANSWERED and self.bell._asked > self.asked:
            self.asked = self.bell._asked
            raise KeyboardInterrupt
        return self.words[word]

    def __setitem__(self, word, value):
        self.words[word] = value


@pytest.mark.parametrize("call", ["get", "set", "delete", "exists"])
def test_an_interrupted_call_spoils_nothing(cache, call):
    cache.mset({"a": 1, "b": 2})
    bell = cache._table.doorbell
    bell._words = Interrupted(bell)

    def go_on():
        getattr(cache, call)("a", *["3"] * (call == "set"))
        cache.dbsize()  # who sets a record does not wait, if there is a block

    with pytest.raises(KeyboardInterrupt):
        go_on()
    bell._words = bell._words.words
    expected = {"set": b"3", "delete": None}.get(call, b"1")
    for _ in range(2):
        assert cache.get("b") == b"2" and cache.get("a") == expected
        assert cache.dbsize() == 1 + (expected is not None)
    assert cache.set("c", 4) and cache.mget("a", "b", "c") == [expected, b"2", b"4"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_answer_that_is_not_made_spoils_nothing(cache, monkeypatch, error):
    """While it is made the block is answering: whoever calls next must not meet it."""
    cache.flushdb()
    keys, values = np.arange(60, dtype="u8").view("V16"), np.arange(120, dtype="u8").view("V32")
    cache.insert(keys, values)

    def refuse(*_):
        raise error

    before = rung(cache)
    with monkeypatch.context() as patched:
        patched.setattr(doorbell_module(), "pa", types.SimpleNamespace(py_buffer=refuse))
        with pytest.raises(error):
            cache.find(keys)
        words = cache._table.doorbell._words
        assert rung(cache) == before + 1 == words[mailbox.ANSWERED]
    assert cache.find(keys).to_pylist() == values.tolist()
    assert cache.delete(keys[0].tobytes()) == 1 and cache.dbsize() == 29
    assert cache.find(keys).to_pylist() == [None, *values[1:].tolist()]


def test_threads_share_it_beside_bulk_writes(cache):
    failed, stop = [], threading.Event()
    keys = np.arange(20_000, dtype="u8").view("V8")

    def write_in_bulk():
        for _ in range(6):
            cache.insert(keys, keys)
        stop.set()

    def ask(number):
        name, count = b"own %d" % number, 0
        while not stop.is_set() or count < 50:
            cache.set(name, b"%d" % count)
            if cache.get(name) != b"%d" % count or cache.get(b"nobody's") is not None:
                failed.append((number, count))
            count += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    threads.append(threading.Thread(target=write_in_bulk))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failed and cache.dbsize() == 20_004


@pytest.mark.parametrize("ending", ["", "raise SystemExit(3)", "1 / 0", "del cache"])
def test_a_process_ends_while_a_block_stays(ending):
    code = (
        "from predis_lab import Predis\n"
        "cache = Predis('64MiB', backend='cuda')\n"
        "cache.set('a', 1); cache.set('a', 2)\n"
        "assert cache.get('a') == b'2'\n"
        "cache.set('a', 3); cache.set('b', 4)\n" + ending  # nobody waits for these
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == {"raise SystemExit(3)": 3, "1 / 0": 1}.get(ending, 0), done.stderr
    assert time.monotonic() - began < 50


def test_blocks_of_several_processes_answer_what_they_were_asked():
    """On a device that takes turns between them a block may be stopped in the middle of a look, or between two."""
    code = (
        "import random, sys, time\n"
        "from predis_lab import Predis\n"
        "cache, chance, known = Predis('64MiB', backend='cuda'), random.Random(sys.argv[1]), {}\n"
        "keys = [chance.randbytes(chance.choice([5, 12, 16, 24])) for _ in range(300)]\n"
        "cache.set('a', 1)\n"
        "end, wrong = time.monotonic() + 6, 0\n"
        "while time.monotonic() < end:\n"
        "    key, other = chance.sample(keys, 2)\n"
        "    known[key] = chance.randbytes(chance.choice([0, 8, 64, 100]))\n"
        "    cache.set(key, known[key])\n"
        "    wrong += cache.get(other) != known.get(other)\n"
        "    wrong += cache.exists(other) != (other in known)\n"
        "    if chance.random() < 0.2:\n"
        "        wrong += cache.delete(other) != (known.pop(other, None) is not None)\n"
        "    wrong += cache.get(key) != known[key]\n"
        "sys.exit(wrong > 0)\n"
    )
    command = [sys.executable, "-c", code]
    beside = [subprocess.Popen([*command, str(n)], stderr=subprocess.PIPE) for n in range(8)]
    assert [one.communicate(timeout=60)[1] for one in beside] == [b""] * 8
    assert [one.returncode for one in beside] == [0] * 8


def test_a_segment_that_the_log_gives_back_is_the_drivers(cache):
    """It stayed taken, and the cache was larger than its capacity, until somebody rang again."""
    arena = cache._table.table.arena
    cache.set("a", 1)
    cache.set("b", 2)
    used = weakref.ref(arena.segments[-1])
    cache.flushdb()
    assert arena.make_left(arena.capacity - arena.reserved)  # as for an index that grows
    assert used() is None and arena.fill()
    cache.set("a", 3)
    assert cache.get("a") == b"3"


def test_a_host_that_may_reorder_what_it_writes_has_none(make, monkeypatch):
    monkeypatch.setattr(mailbox.platform, "machine", lambda: "aarch64")
    cache = make("64MiB")
    assert cache._table.doorbell is None
    assert cache.set("a", 1) and cache.get("a") == b"1" and cache.mget("a", "b") == [b"1", None]


def test_a_cache_without_one_has_none():
    with Predis("64MiB", backend="cuda", doorbell=False) as cache:
        assert cache._table.doorbell is None
