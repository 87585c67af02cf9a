"""What the client itself answers for: arguments, a closed cache, counters, patterns, threads."""

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from conftest import BACKENDS, device_missing
from hypothesis import given, settings
from hypothesis import strategies as st

from predis_lab import (
    CacheClosed,
    DeviceUnavailable,
    InvalidArgument,
    InvalidKey,
    Predis,
    Status,
    UnsupportedType,
)
from predis_lab.arguments import parse_capacity
from predis_lab.glob import compile_glob

CALLS = {
    "find": lambda cache: cache.find([b"a"]),
    "prefetch": lambda cache: cache.prefetch([b"a"]),
    "insert": lambda cache: cache.insert([b"a"], [b"1"]),
    "erase": lambda cache: cache.erase([b"a"]),
    "contains": lambda cache: cache.contains([b"a"]),
    "get": lambda cache: cache.get("a"),
    "set": lambda cache: cache.set("a", 1),
    "mget": lambda cache: cache.mget("a"),
    "mset": lambda cache: cache.mset({"a": 1}),
    "delete": lambda cache: cache.delete("a"),
    "exists": lambda cache: cache.exists("a"),
    "expire": lambda cache: cache.expire("a", 1),
    "pexpire": lambda cache: cache.pexpire("a", 1),
    "persist": lambda cache: cache.persist("a"),
    "ttl": lambda cache: cache.ttl("a"),
    "pttl": lambda cache: cache.pttl("a"),
    "dbsize": lambda cache: cache.dbsize(),
    "compact": lambda cache: cache.compact(),
    "flushdb": lambda cache: cache.flushdb(),
    "scan_iter": lambda cache: list(cache.scan_iter()),
    "info": lambda cache: cache.info(),
    "verify": lambda cache: cache.verify(),
    "tuning": lambda cache: cache.tuning,
}


@pytest.fixture
def filled(cache):
    cache.mset({"a": "before", "b": "other"})
    yield cache
    assert cache.mget("a", "b") == [b"before", b"other"] and cache.dbsize() == 2


# ---- Opening and closing


def test_calls_name_every_verb():
    public = {name for name in dir(Predis) if not name.startswith("_")}
    assert public - {"close"} == set(CALLS)


def test_a_closed_cache_refuses_every_verb(cache):
    cache.mset({"a": 1, "b": 2})
    scan = cache.scan_iter(count=1)
    assert next(scan) in (b"a", b"b")
    cache.close()
    cache.close()
    for call in [*CALLS.values(), len, lambda cache: "a" in cache, lambda _: list(scan)]:
        with pytest.raises(CacheClosed, match="has been closed"):
            call(cache)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_context_manager_closes(backend):
    with Predis("64MiB", backend=backend) as cache:
        cache.set("a", 1)
    with pytest.raises(CacheClosed):
        cache.get("a")
    with pytest.raises(KeyError), Predis("64MiB", backend=backend) as cache:
        raise KeyError
    with pytest.raises(CacheClosed):
        cache.get("a")


@pytest.mark.parametrize("n", [3, 40_000])
@pytest.mark.parametrize("uniform", [True, False])
def test_arrays_outlive_changes_and_the_cache(cache, n, uniform):
    keys = [b"key:%d" % i for i in range(n)]
    values = [b"v%015d" % i if uniform else b"v%d" % i for i in range(n)]
    cache.insert(keys, values)
    found = cache.find([*keys, b"absent"])
    there, erased = cache.contains(keys), cache.erase(keys[:1])
    cache.flushdb()
    cache.insert(keys, [b"other value" for _ in keys])
    cache.find(keys)
    cache.close()
    gc.collect()
    assert found.to_pylist() == [*values, None]
    assert there.all() and erased.tolist() == [True]


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        (1, 1), ("65536", 65536), ("1k", 1000), ("1KB", 1000), ("1KiB", 1024), ("1.5KiB", 1536),
        ("500MB", 500_000_000), ("8GiB", 2**33), (" 2 TiB ", 2**41), ("10b", 10), ("3gi", 3 * 2**30),
    ],
)  # fmt: skip
def test_capacities(text, nbytes):
    assert parse_capacity(text) == nbytes
    assert type(parse_capacity(text)) is int


@pytest.mark.parametrize(
    "capacity",
    [
        "", "GiB", "8 gigs", "1e9", "-1", "1ib", "0x10", "1.KiB", "1,5GB", "nan", "0", "0.5",
        0, -1, 1.5, True, None, b"8GiB", [1],
    ],
    ids=repr,
)  # fmt: skip
def test_capacities_refused(capacity):
    with pytest.raises(InvalidArgument) as error:
        Predis(capacity, backend="host")
    assert repr(capacity) in str(error.value)


def test_backends_refused():
    with pytest.raises(InvalidArgument, match="'gpu'"):
        Predis(backend="gpu")
    if device_missing():
        with pytest.raises(DeviceUnavailable):
            Predis(backend="cuda")
        assert Predis("1MiB").info()["backend"] == "host"


# ---- Arguments

TTL_OPTIONS = [
    {"ex": 0}, {"px": -1}, {"ex": True}, {"px": False}, {"ex": 1.5}, {"px": float("nan")}, {"ex": ""},
    {"ex": "1.5"}, {"ex": b"1"}, {"px": [1]}, {"ex": timedelta(0)}, {"px": timedelta(microseconds=900)},
    {"ex": 1, "px": 1}, {"ex": 2**48}, {"px": 2**48},
]  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        *TTL_OPTIONS, {"exat": 0}, {"pxat": -1}, {"exat": True}, {"pxat": 2**48}, {"exat": 1, "pxat": 1},
        {"ex": 1, "exat": 2**31}, {"pxat": 2**41, "keepttl": True}, {"px": 1, "keepttl": True},
        {"nx": True, "xx": True}, {"nx": True, "xx": True, "get": True},
    ],
    ids=str,
)  # fmt: skip
def test_options_of_set_refused(filled, options):
    with pytest.raises(InvalidArgument):
        filled.set("a", "after", **options)
    with pytest.raises(InvalidArgument):
        filled.set("new", "after", **options)


@pytest.mark.parametrize("options", TTL_OPTIONS, ids=str)
def test_options_of_insert_refused(filled, options):
    with pytest.raises(InvalidArgument):
        filled.insert(["a", "new"], ["after", "after"], **options)


@pytest.mark.parametrize("ttl", [True, 1.5, "soon", "", None, b"1", [1], 2**60], ids=repr)
def test_times_refused_by_expire(filled, ttl):
    for verb in (filled.expire, filled.pexpire):
        with pytest.raises(InvalidArgument):
            verb("a", ttl)
    assert filled.ttl("a") == -1


@pytest.mark.parametrize("pair", [("nx", "xx"), ("nx", "gt"), ("nx", "lt"), ("gt", "lt")])
def test_conditions_of_expire_refused(filled, pair):
    for verb in (filled.expire, filled.pexpire):
        with pytest.raises(InvalidArgument, match="exclude"):
            verb("a", 10, **dict.fromkeys(pair, True))
    assert filled.ttl("a") == -1


NAMED = [
    lambda cache, name: cache.get(name),
    lambda cache, name: cache.set(name, 1),
    lambda cache, name: cache.mget("a", name),
    lambda cache, name: cache.mset({"a": "after", name: 1}),
    lambda cache, name: cache.delete("a", name),
    lambda cache, name: cache.exists("a", name),
    lambda cache, name: cache.expire(name, 0),
    lambda cache, name: cache.pexpire(name, 0),
    lambda cache, name: cache.persist(name),
    lambda cache, name: cache.ttl(name),
    lambda cache, name: cache.pttl(name),
    lambda cache, name: name in cache,
]


@pytest.mark.parametrize("name", ["", b"", "k" * 65536, "ü" * 32768], ids=lambda name: len(name))
def test_names_of_a_wrong_length(filled, name):
    given_nbytes = len(name if isinstance(name, bytes) else name.encode())
    for call in NAMED:
        with pytest.raises(InvalidKey, match=f"key of {given_nbytes} bytes .* 1 to 65535 bytes"):
            call(filled, name)


@pytest.mark.parametrize(
    "name", [None, True, (1,), object(), 1j], ids=lambda name: type(name).__name__
)
def test_names_of_a_wrong_type(filled, name):
    for call in NAMED:
        with pytest.raises(UnsupportedType, match=type(name).__name__):
            call(filled, name)


def test_other_things_refused(filled):
    with pytest.raises(InvalidArgument, match="at least one"):
        filled.mset({})
    for no_mapping in (None, "ab", [("a", 1)]):
        with pytest.raises(UnsupportedType, match="mapping"):
            filled.mset(no_mapping)
    with pytest.raises(UnsupportedType, match="UTF-8"):
        filled.set("\ud800", 1)
    for value in (None, [b"x"], False):
        with pytest.raises(UnsupportedType):
            filled.mset({"a": 1, "c": value})
    with pytest.raises(UnsupportedType, match="a pattern"):
        list(filled.scan_iter(match=["*"]))


def test_scan_counts_below_one_are_refused(filled):
    for count in (-1, 0, "3", 1.5, True):
        with pytest.raises(InvalidArgument, match="count"):
            list(filled.scan_iter(count=count))


def test_an_error_leaves_the_lock_open(cache):
    with pytest.raises(InvalidArgument):
        cache.set("a", 1, ex=0)
    cache.set("a", 1)
    other = threading.Thread(target=cache.delete, args=("a",), daemon=True)
    other.start()
    other.join(30)
    assert not other.is_alive() and cache.get("a") is None


# ---- Counters, text, patterns, time


def test_counters(cache):
    def facts():
        info = cache.info()
        return np.array([info[name] for name in ("keyspace_hits", "keyspace_misses")])

    start = cache.info("stats")["total_commands_processed"]
    cache.set("a", 1)
    cache.mset({"b": 2, "c": 3})
    cache.get("a"), cache.get("x")
    cache.mget("a", "b", "x", "a")
    cache.find([b"c", b"y"])
    assert facts().tolist() == [5, 3]
    assert cache.info("stats")["total_commands_processed"] == start + 8
    info = cache.info()
    assert info["db0"] == {"keys": 3} and info["maxmemory"] == 256 * 2**20
    assert info["records_memory"] >= 6 and 0 < info["used_memory"] <= info["maxmemory"]
    assert info["uptime_in_seconds"] >= 0 and info["backend"] in ("host", "cuda")
    assert cache.info("Keyspace") == {"db0": {"keys": 3}} and cache.info("nothing") == {}
    flat = {}
    for section in ("server", "memory", "stats", "transfers", "keyspace"):
        flat |= cache.info(section)
    assert set(flat) == set(info)
    cache.flushdb()
    assert cache.info()["records_memory"] == 0 and cache.info("keyspace") == {}


@pytest.mark.parametrize("backend", BACKENDS)
def test_decode_responses(backend):
    with Predis("64MiB", backend=backend, decode_responses=True) as cache:
        cache.mset({"ä": "ö", "raw": b"\xff"})
        assert cache.get("ä") == "ö" and cache.mget("ä", "x") == ["ö", None]
        assert cache.set("ä", "ü", get=True) == "ö" and cache.set("new", "", get=True) is None
        assert set(cache.scan_iter("[^r]*")) == {"ä", "new"}
        assert cache.find(["ä"]).to_pylist() == ["ü".encode()]
        with pytest.raises(UnicodeDecodeError):
            cache.get("raw")
        assert cache.set("raw", "good") is True and cache.get("raw") == "good"


def test_mapping_style(cache):
    assert len(cache) == 0 and "a" not in cache
    cache.mset({"a": 1, 7: 2})
    assert len(cache) == 2 and "a" in cache and b"7" in cache and 7 in cache
    assert cache and cache.delete() == 0 and cache.exists() == 0


@pytest.mark.parametrize("count", [None, 1, 7, 999, 10**6])
def test_scan_counts_change_nothing(cache, count):
    keys = {b"k%d" % i for i in range(2500)}
    cache.mset(dict.fromkeys(keys, b""))
    assert set(cache.scan_iter(count=count)) == keys
    assert set(cache.scan_iter(b"k1*", count)) == {key for key in keys if key.startswith(b"k1")}


def test_scan_while_the_cache_grows(cache):
    keys = {b"stays:%d" % i for i in range(2000)}
    cache.mset(dict.fromkeys(keys, b""))
    seen = set()
    for turn, key in enumerate(cache.scan_iter(count=10)):
        seen.add(key)
        if turn in (3, 500):
            cache.mset({f"new:{turn}:{i}": "" for i in range(20_000)})
            cache.delete("new:3:1")
    assert keys <= seen


PATTERNS = st.text("ab*?[]^-\\", max_size=7)
KEYS = [
    "a",
    "b",
    "aa",
    "ab",
    "ba",
    "bb",
    "aba",
    "*",
    "?",
    "[",
    "]",
    "^",
    "-",
    "\\",
    "a-b",
    "[a]",
    "\n",
]


@pytest.mark.redis
def test_patterns_are_those_of_redis(server):
    redis = server.client("unix")
    redis.flushdb()
    redis.mset(dict.fromkeys(KEYS, ""))

    @settings(max_examples=400, deadline=None, database=None)
    @given(PATTERNS)
    def check(pattern):
        ours = {key for key in KEYS if compile_glob(pattern.encode()).fullmatch(key.encode())}
        assert ours == {key.decode() for key in redis.scan_iter(match=pattern, count=1000)}

    check()
    redis.close()


def test_expiry_to_the_millisecond(cache, clock):
    cache.set("a", 1, px=1499)
    cache.insert([b"b", b"c"], [b"2", b"3"], px=1500)
    cache.set("d", 4, exat=datetime.fromtimestamp(clock.now / 1000 + 2, UTC))
    assert [cache.ttl(name) for name in "abd"] == [1, 2, 2]
    clock.now += 1498
    assert cache.mget(*"abcd") == [b"1", b"2", b"3", b"4"] and cache.pttl("a") == 1
    clock.now += 1
    assert cache.mget(*"abcd") == [None, b"2", b"3", b"4"] and cache.pttl("a") == -2
    assert cache.exists("a") == 0 and cache.delete("a") == 0 and cache.dbsize() == 3
    clock.now += 1
    assert cache.contains(list("abcd")).tolist() == [False, False, False, True]
    assert cache.insert([b"b"], [b"new"]).status.tolist() == [Status.STORED]
    assert cache.ttl("b") == -1 and set(cache.scan_iter()) == {b"b", b"d"}


# ---- Threads


def test_threads_agree_on_what_is_there(cache):
    def work(number):
        generator, mine = np.random.default_rng(number), {}
        for turn in range(120):
            names = [b"%d:%d" % (number, i) for i in generator.integers(0, 60, 12)]
            value = b"%d" % turn * int(generator.integers(1, 40))
            match turn % 4:
                case 0:
                    cache.mset(dict.fromkeys(names, value))
                    mine |= dict.fromkeys(names, value)
                case 1:
                    there = set(names) & set(mine)
                    assert cache.delete(*names) == len(there)
                    mine = {name: mine[name] for name in mine if name not in there}
                case 2:
                    assert cache.insert(pa.array(names), pa.array([value] * 12)).ok
                    mine |= dict.fromkeys(names, value)
            assert cache.mget(names) == [mine.get(name) for name in names]
            cache.set("shared", b"%d:%d" % (number, turn))
            assert set(cache.scan_iter(f"{number}:*")) >= set(mine)
        return mine

    with ThreadPoolExecutor(8) as pool:
        expected = {key: value for mine in pool.map(work, range(8)) for key, value in mine.items()}
    assert cache.get("shared").endswith(b":119")
    assert cache.delete("shared") == 1
    assert cache.dbsize() == len(expected) and set(cache.scan_iter()) == set(expected)
    assert cache.mget(list(expected)) == list(expected.values())
