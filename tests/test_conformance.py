"""One suite for Redis through redis-py, HostTable and the GPU table: the same calls, the same answers."""

import time
from datetime import UTC, datetime, timedelta

import pytest
import redis

from predis_lab import PredisError

AWKWARD = [b"a", b"\0", b"\0\0\0", b"\xff" * 16, b"with space", "schlüssel".encode(), b"k" * 65535]
REFUSED = (PredisError, redis.RedisError)


@pytest.mark.parametrize("key", AWKWARD, ids=lambda key: f"{len(key)}B")
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 4095, 4096, 65535, 1 << 20])
def test_what_is_set_is_got(store, key, size):
    cache = store()
    value = bytes(i * 7 % 256 for i in range(min(size, 997))) * (size // 997 + 1)
    value = value[:size]
    assert cache.set(key, value) is True
    assert cache.get(key) == value
    assert cache.mget([key, b"absent"]) == [value, None]


def test_kinds_of_keys_and_values(store):
    cache = store()
    cache.mset({"text": "ünïcode", b"bytes": b"\0\1", "int": 42, "float": 1.5})
    assert cache.mget("text", "bytes", "int", "float") == [
        "ünïcode".encode(),
        b"\0\1",
        b"42",
        b"1.5",
    ]
    assert cache.mget(["text"], "int") == ["ünïcode".encode(), b"42"]
    assert cache.set(7, memoryview(b"seven")) and cache.get("7") == b"seven"
    assert cache.mget([]) == []


def test_decode_responses(store):
    cache = store(decode_responses=True)
    cache.set("a", "ä")
    assert cache.get("a") == "ä"
    assert cache.mget("a", "b") == ["ä", None]
    assert list(cache.scan_iter()) == ["a"]
    assert cache.set("a", "b", get=True) == "ä"


@pytest.mark.parametrize("thing", [None, True, [1], {}, object()])
def test_what_is_no_value_is_refused(store, thing):
    cache = store()
    with pytest.raises(REFUSED):
        cache.set("a", thing)
    with pytest.raises(REFUSED):
        cache.get(thing)
    assert cache.dbsize() == 0


def test_set_conditions(store):
    cache = store()
    assert cache.set("a", "1", xx=True) is None
    assert cache.set("a", "1", nx=True) is True
    assert cache.set("a", "2", nx=True) is None
    assert cache.get("a") == b"1"
    assert cache.set("a", "2", xx=True) is True
    assert cache.set("a", "3", get=True) == b"2"
    assert cache.set("b", "1", get=True) is None
    assert cache.set("c", "1", nx=True, get=True) is None
    assert cache.set("c", "2", nx=True, get=True) == b"1"
    assert cache.set("d", "1", xx=True, get=True) is None
    assert cache.mget("a", "b", "c", "d") == [b"3", b"1", b"1", None]


@pytest.mark.parametrize(
    "options",
    [
        {"ex": 0},
        {"ex": -1},
        {"px": 0},
        {"ex": 1, "px": 1},
        {"ex": 1, "keepttl": True},
        {"nx": True, "xx": True},
        {"exat": 0},
        {"ex": "soon"},
        {"ex": 1.5},
    ],
    ids=str,
)
def test_set_refuses(store, options):
    cache = store()
    cache.set("a", "before")
    with pytest.raises(REFUSED):
        cache.set("a", "after", **options)
    assert cache.get("a") == b"before"


def test_delete_and_exists_count(store):
    cache = store()
    cache.mset({"a": 1, "b": 2, "c": 3})
    assert cache.exists("a", "a", "x") == 2
    assert cache.delete("a", "a", "b", "x") == 2
    assert cache.exists("a") == 0
    assert "c" in cache and "a" not in cache
    assert cache.dbsize() == 1
    assert cache.delete("a") == 0
    assert cache.flushdb() is True
    assert cache.dbsize() == 0 and cache.get("c") is None


def test_times_to_live(store):
    cache = store()
    cache.set("a", 1, ex=100)
    cache.set("b", 1, px=timedelta(seconds=100))
    cache.set("c", 1)
    cache.set("d", 1, exat=datetime.now(UTC) + timedelta(seconds=100))
    for name in "abd":
        assert 98 <= cache.ttl(name) <= 100
        assert 98_000 < cache.pttl(name) <= 100_000
    assert (cache.ttl("c"), cache.pttl("c")) == (-1, -1)
    assert (cache.ttl("x"), cache.pttl("x")) == (-2, -2)
    assert cache.persist("a") is True and cache.ttl("a") == -1
    assert cache.persist("a") is False and cache.persist("x") is False
    assert cache.expire("a", 50) is True and 48 <= cache.ttl("a") <= 50
    assert cache.pexpire("a", 70_500) is True and 69_000 <= cache.pttl("a") <= 70_500
    assert cache.expire("x", 50) is False
    cache.set("b", 2, keepttl=True)
    assert cache.get("b") == b"2" and cache.ttl("b") > 0
    cache.set("b", 3)
    assert cache.ttl("b") == -1
    cache.set("new", 1, keepttl=True)
    assert cache.ttl("new") == -1


@pytest.mark.parametrize("seconds", [0, -5])
def test_expiry_in_the_past_deletes(store, seconds):
    cache = store()
    cache.set("a", 1)
    assert cache.expire("a", seconds) is True
    assert cache.get("a") is None and cache.exists("a") == 0 and cache.dbsize() == 0


def test_expire_conditions(store):
    cache = store()
    cache.set("never", 1)
    cache.set("soon", 1, ex=100)
    assert cache.expire("never", 50, xx=True) is False
    assert cache.expire("never", 50, gt=True) is False
    assert cache.expire("soon", 50, nx=True) is False
    assert cache.expire("soon", 50, gt=True) is False
    assert cache.expire("soon", 200, lt=True) is False
    assert cache.expire("soon", 200, gt=True) is True and cache.ttl("soon") > 150
    assert cache.expire("soon", 50, lt=True) is True and cache.ttl("soon") <= 50
    assert cache.expire("never", 50, lt=True) is True
    assert cache.expire("soon", 60, xx=True) is True
    cache.persist("soon")
    assert cache.expire("soon", 60, nx=True) is True
    with pytest.raises(REFUSED):
        cache.expire("soon", 60, nx=True, gt=True)
    with pytest.raises(REFUSED):
        cache.expire("soon", 60, lt=True, gt=True)


def test_records_expire(store):
    cache, began = store(), time.monotonic()
    cache.set("short", "x", px=30)
    cache.set("long", "y", ex=100)
    value = cache.get("short")
    # On a busy machine any call may take long.
    assert value == b"x" or time.monotonic() - began >= 0.03
    time.sleep(0.05)
    assert cache.get("short") is None
    assert cache.mget("short", "long") == [None, b"y"]
    assert cache.exists("short") == 0 and cache.ttl("short") == -2
    assert list(cache.scan_iter()) == [b"long"]
    assert cache.set("short", "again", nx=True) is True
    assert cache.ttl("short") == -1


def test_scan_finds_every_key(store):
    cache = store()
    keys = {b"user:%d" % i for i in range(3000)} | {b"item:%d" % i for i in range(100)}
    cache.mset(dict.fromkeys(keys, b"v"))
    assert set(cache.scan_iter()) == keys
    assert set(cache.scan_iter(count=7)) == keys
    assert set(cache.scan_iter(match="item:*")) == {key for key in keys if key.startswith(b"item")}
    assert set(cache.scan_iter(match="user:1?")) == {b"user:%d" % i for i in range(10, 20)}


@pytest.mark.parametrize(
    "pattern",
    [
        "*",
        "a*",
        "?b",
        "[ab]c",
        "[^ab]c",
        "[a-c]*",
        "[c-a]*",
        r"\*",
        r"a\?",
        "[",
        "[a",
        "[]",
        "a[",
        "**c",
        "",
        r"[\]]",
        "\\",
    ],
)
def test_patterns(store, pattern):
    cache = store()
    keys = [
        b"a",
        b"b",
        b"c",
        b"ab",
        b"bb",
        b"ac",
        b"bc",
        b"cc",
        b"*",
        b"a?",
        b"a[",
        b"[",
        b"]",
        b"\\",
        b"abc",
        b"\n",
    ]
    cache.mset(dict.fromkeys(keys, b""))
    with_redis = {
        "*": set(keys),
        "a*": {b"a", b"ab", b"ac", b"a?", b"a[", b"abc"},
        "?b": {b"ab", b"bb"},
        "[ab]c": {b"ac", b"bc"},
        "[^ab]c": {b"cc"},
        "[a-c]*": {b"a", b"b", b"c", b"ab", b"bb", b"ac", b"bc", b"cc", b"a?", b"a[", b"abc"},
        "[c-a]*": {b"a", b"b", b"c", b"ab", b"bb", b"ac", b"bc", b"cc", b"a?", b"a[", b"abc"},
        r"\*": {b"*"},
        r"a\?": {b"a?"},
        "[": set(),
        "[a": {b"a"},
        "[]": set(),
        "a[": set(),
        "**c": {b"c", b"ac", b"bc", b"cc", b"abc"},
        "": set(),
        r"[\]]": {b"]"},
        "\\": {b"\\"},
    }[pattern]
    assert set(cache.scan_iter(match=pattern)) == with_redis
