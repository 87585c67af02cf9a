"""Copies of hot records: never older than the record, whoever writes and when; bounded; counted."""

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import pytest
from conftest import BACKENDS
from test_state_machine import CacheMachine, run

from predis_lab import CacheClosed, InvalidArgument, Predis
from predis_lab import hot as hot_module
from predis_lab.hot import HotTier
from predis_lab.table import NEVER

NOW_MS = 1_700_000_000_000


@pytest.fixture(params=BACKENDS)
def cache(request):
    with Predis("64MiB", backend=request.param, hot_bytes="1MiB") as made:
        yield made


def hits(cache):
    return cache.info("stats")["hot_hits"]


def test_what_was_read_is_read_again_without_the_table(cache):
    cache.insert([b"a"], [b"1"])
    assert cache.get(b"a") == b"1" and hits(cache) == 0
    for name in (b"a", "a", bytearray(b"a")):
        assert cache.get(name) == b"1"
    assert hits(cache) == 3
    cache.set(b"b", b"2")  # what was written as well
    assert cache.get(b"b") == b"2" and hits(cache) == 4
    assert cache.get(b"none") is None and cache.get(b"none") is None
    told = cache.info()
    assert told["hot_hit_ratio"] == pytest.approx(4 / 7) and told["hot_memory"] > 0
    assert told["keyspace_hits"] == 5 and told["keyspace_misses"] == 2
    assert told["total_commands_processed"] >= 9


WRITES = {
    "set": lambda cache: cache.set(b"k", b"new"),
    "set xx": lambda cache: cache.set(b"k", b"new", xx=True),
    "mset": lambda cache: cache.mset({b"k": b"new", b"other": b"x"}),
    "insert": lambda cache: cache.insert([b"other", b"k"], [b"x", b"new"]),
    "a long batch": lambda cache: cache.insert(
        [b"%d" % i for i in range(hot_module.NAMED)] + [b"k"], [b"new"] * (hot_module.NAMED + 1)
    ),
    "erase": lambda cache: cache.erase([b"k"]),
    "delete": lambda cache: cache.delete("k"),
    "expire at once": lambda cache: cache.expire(b"k", 0),
    "flushdb": lambda cache: cache.flushdb(),
}


@pytest.mark.parametrize("write", WRITES)
def test_no_write_is_missed(cache, write):
    cache.set(b"k", b"old")
    assert cache.get(b"k") == b"old"
    WRITES[write](cache)
    left = cache.find([b"k"]).to_pylist()[0]
    assert left in (b"new", None)
    assert cache.get(b"k") == left and cache.get(b"k") == left


@pytest.mark.gpu
def test_columns_on_the_device_are_written_too():
    import cupy

    with Predis("64MiB", backend="cuda", hot_bytes="1MiB") as cache:
        keys = np.frombuffer(b"0123456789abcdef", np.uint8).reshape(1, 16)
        cache.insert(keys, [b"old"])
        assert cache.get(keys.tobytes()) == b"old"
        cache.insert(cupy.asarray(keys), cupy.full((1, 3), ord("n"), np.uint8))
        assert cache.get(keys.tobytes()) == b"nnn"
        cache.erase(cupy.asarray(keys))
        assert cache.get(keys.tobytes()) is None


def test_copies_expire_with_their_records(cache, monkeypatch):
    moment = [NOW_MS]
    for module in ("client", "verbs", "hot"):
        monkeypatch.setattr(f"predis_lab.{module}.now_ms", lambda: moment[0])
    cache.set(b"set", b"1", px=100)
    cache.insert([b"read"], [b"2"], px=100)
    cache.set(b"later", b"3")
    cache.get(b"read"), cache.get(b"later")
    cache.expire(b"later", 1)
    assert [cache.get(name) for name in (b"set", b"read", b"later")] == [b"1", b"2", b"3"]
    moment[0] += 99
    before = hits(cache)
    assert [cache.get(name) for name in (b"set", b"read")] == [b"1", b"2"]
    assert hits(cache) == before + 2
    moment[0] += 1
    assert cache.get(b"set") is None and cache.get(b"read") is None
    cache.persist(b"later")
    moment[0] += 10_000
    assert cache.get(b"later") == b"3" and cache.get(b"later") == b"3"


def test_answers_are_decoded():
    with Predis("64MiB", backend="host", hot_bytes="64KiB", decode_responses=True) as cache:
        cache.set("a", "é")
        assert cache.get("a") == "é" and cache.get("a") == "é" and hits(cache) == 2


def test_a_closed_cache_says_so():
    cache = Predis("64MiB", backend="host", hot_bytes="64KiB")
    cache.set(b"a", b"1")
    cache.close()
    with pytest.raises(CacheClosed):
        cache.get(b"a")


@pytest.mark.parametrize("wrong", [-1, "much", 1.5, None])
def test_no_number_of_bytes(wrong):
    with pytest.raises(InvalidArgument):
        Predis("64MiB", backend="host", hot_bytes=wrong)


@pytest.mark.parametrize("backend", BACKENDS)
def test_against_a_dict(backend):
    class Hot(CacheMachine):
        options = {"hot_bytes": 2**13}  # noqa: RUF012 - a few dozen records, so that many go

    run(backend, 40 if backend == "host" else 15, 60, Hot)


# ---- The tier by itself


def test_it_is_bounded_and_what_is_read_stays():
    tier = HotTier(2**16)
    tier.keep(b"hot", (b"v", NEVER), tier.version)
    for number in range(5000):
        tier.keep(b"%d" % number, (b"v" * 50, NEVER), tier.version)
        assert tier.nbytes <= tier.capacity_nbytes
        if number % 50 == 0:
            assert tier.get(b"hot") == b"v"
    assert tier.get(b"0") is None and tier.get(b"4999") == b"v" * 50
    assert tier.nbytes > tier.capacity_nbytes / 3
    tier.begin(None)
    assert tier.nbytes == 0 and tier.get(b"4999") is None


def test_what_is_large_is_not_taken():
    tier = HotTier(2**16)
    assert tier.takes(b"k", b"v" * 4096) and not tier.takes(b"k", b"v" * 4097)
    assert not tier.takes(b"k" * 2**15, b"v") and not HotTier(100).takes(b"k", b"v")
    tier.end(tier.begin(None), b"k", (b"v" * 5000, NEVER))
    assert tier.get(b"k") is None


def test_a_copy_from_before_a_write_is_not_kept():
    tier = HotTier(2**16)
    old = (b"old", NEVER)
    version = tier.version  # a read begins, and is still on its way
    begun = tier.begin(None)
    tier.keep(b"k", old, version)
    tier.keep(b"k", old, tier.version)  # one that began after the write, but before it was done
    assert tier.get(b"k") is None
    version = tier.version
    tier.end(begun)
    tier.keep(b"k", old, version)
    assert tier.get(b"k") is None
    tier.keep(b"k", (b"new", NEVER), tier.version)
    assert tier.get(b"k") == b"new"


def test_of_writes_at_once_none_is_kept():
    tier = HotTier(2**16)
    first, second = tier.begin(None), tier.begin(None)
    tier.end(second, b"k", (b"second", NEVER))
    tier.end(first, b"k", (b"first", NEVER))
    assert tier.get(b"k") is None
    tier.end(tier.begin(None), b"k", (b"alone", NEVER))
    assert tier.get(b"k") == b"alone"


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_never_see_time_go_back(backend):
    """Writers count keys up; whoever reads sees no less than was written before, and no less than it saw."""
    keys, written, stop = [b"%d" % i for i in range(4)], [0] * 4, threading.Event()
    with Predis("64MiB", backend=backend, hot_bytes="64KiB") as cache:
        cache.mset(dict.fromkeys(keys, b"0"))

        def read():
            seen = [0] * len(keys)
            while not stop.is_set():
                for at, key in enumerate(keys):
                    least = max(seen[at], written[at])
                    seen[at] = int(cache.get(key))
                    assert seen[at] >= least, (key, seen[at], least)

        def write(at):
            for number in range(1, 200):
                if number % 3:
                    cache.set(keys[at], str(number))
                else:
                    cache.insert([keys[at], b"x"], [b"%d" % number, b""])
                written[at] = number

        with ThreadPoolExecutor(7) as pool:
            readers = [pool.submit(read) for _ in range(3)]
            writers = [pool.submit(write, at) for at in range(4)]
            wait(writers)
            stop.set()
            for one in (*readers, *writers):
                one.result()
        assert [cache.get(key) for key in keys] == [b"199"] * 4
