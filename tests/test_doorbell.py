"""A few keys asked of a block that stays on the device: the same answers as by a launch."""

import random
import time

import numpy as np
import pytest
from ringing import Stuck, doorbell_module, rung

from predis_lab import Predis

pytestmark = pytest.mark.gpu


@pytest.fixture
def cache(written_cache):
    return written_cache


@pytest.mark.parametrize("seed", range(3))
def test_any_mix_of_calls_against_a_dict(cache, seed):
    chance, known = random.Random(seed), {}
    for _ in range(400):
        keys = [
            b"key %d" % chance.randrange(300) * chance.choice([1, 1, 4, 20])
            for _ in range(chance.choice([1, 1, 2, 33, 300, 900, 1500]))
        ]
        match chance.randrange(7):
            case 0:
                assert cache.mget(keys) == [known.get(key) for key in keys]
            case 1:
                size = chance.choice([0, 1, 15, 16, 64, 100])
                records = {key: chance.randbytes(size) for key in keys}
                cache.mset(records)
                known |= records
            case 2:
                assert cache.delete(*keys) == len(set(keys) & known.keys())
                for key in keys:
                    known.pop(key, None)
            case 3:
                assert cache.exists(*keys) == sum(key in known for key in keys)
            case 4:
                assert cache.get(keys[0]) == known.get(keys[0])
            case 5:
                known[keys[0]] = chance.randbytes(chance.choice([0, 7, 64, 5000]))
                assert cache.set(keys[0], known[keys[0]])
            case 6:
                values = [chance.randbytes(chance.choice([0, 9, 64])) for _ in keys]
                cache.insert(keys, values)  # of equal keys the last wins
                known |= dict(zip(keys, values, strict=True))
        assert cache.dbsize() == len(known)
    assert rung(cache) > 200
    assert dict(zip(known, cache.mget(list(known)), strict=True)) == known


@pytest.mark.parametrize("different", [1, 3, 20, 400])
def test_equal_keys_in_a_batch_are_told_apart(cache, different):
    """As a dict tells them: which was stored, which took another's place, and which was superseded by one that followed."""
    chance, plain = random.Random(different), Predis("64MiB", backend="host")
    for round in range(40):
        keys = [b"%d" % chance.randrange(different) * chance.choice([1, 30]) for _ in range(chance.randrange(1, 600))]  # fmt: skip
        values = [chance.randbytes(chance.randrange(60)) for _ in keys]
        asked = rung(cache)
        assert cache.insert(keys, values).status.tolist() == plain.insert(keys, values).status.tolist()  # fmt: skip
        assert rung(cache) > asked
        assert cache.find(keys).to_pylist() == plain.find(keys).to_pylist()
        if round % 5 == 0:
            once = list(dict.fromkeys(keys[::3]))
            assert cache.erase(once).tolist() == plain.erase(once).tolist()
    assert len(cache) == len(plain) and cache._table.table.live_nbytes == sum(
        -(-(16 + len(key) + len(plain.get(key))) // 16) * 16 for key in plain.scan_iter()
    )


def test_statuses_tell_equal_keys_apart(cache):
    before = rung(cache)
    cache.insert([b"b"], [b"0"])
    report = cache.insert([b"a", b"b", b"a", b"c", b"a"], [b"1", b"2", b"3", b"4", b"5"])
    assert report.status.tolist() == [2, 1, 2, 0, 0]
    assert cache.find([b"a", b"b", b"c"]).to_pylist() == [b"5", b"2", b"4"]
    assert rung(cache) == before + 3


def test_columns_of_any_layout(cache):
    fixed = np.array([[1, 2], [3, 4]], "u8")
    cache.insert(fixed, fixed)
    cache.insert(np.array(["ab", "abcdefgh"]), [b"x", b""])
    assert [len(value) for value in cache.find(fixed).to_pylist()] == [16, 16]
    assert cache.find(["ab", "abcdefgh", "a"]).to_pylist() == [b"x", b"", None]
    sliced = cache.find(np.array([b"--", b"ab", b"abcdefgh"])[1:])
    assert sliced.to_pylist() == [b"x", b""]


def fold(a, b):
    product = a * b
    return (product ^ product >> 64) & 2**64 - 1


def hashed(key):
    """As kernels/common.cuh does."""
    words = [int.from_bytes(key[at : at + 8], "little") for at in (0, 8, 16)]
    h = fold(words[0] ^ 0xA0761D6478BD642F, words[1] ^ 0xE7037ED1A0B428DB ^ len(key))
    if len(key) > 16:
        h = fold(words[2] ^ h ^ 0x8EBC6AF09C88C6E3, h)
    return fold(h ^ 0x589965CC75374CC3, 0x1D8E4E27C47D124F)


@pytest.mark.parametrize(
    ("key_width", "width"), [(16, 16), (32, 16), (32, 64), (32, 240), (48, 64), (64, 32)]
)
def test_values_that_all_have_one_length(cache, clock, key_width, width):
    cache.flushdb()
    chance = np.random.default_rng(1)
    keys = np.frombuffer(chance.bytes(key_width * 500), f"V{key_width}")
    values = chance.integers(0, 256, (500, width), "u1")
    cache.insert(keys, values)
    known = dict(zip(keys.tolist(), (value.tobytes() for value in values), strict=True))
    cache.insert(keys[:7], values[:7], px=50)
    clock.now += 50
    for key in keys[:7].tolist():
        del known[key]
    before = rung(cache)
    for n in (1, 7, 8, 31, 32, 33, 127, 128, 255, 256, 400, 511, 512, 1000):
        absent = np.frombuffer(chance.bytes(key_width), keys.dtype)
        asked = np.concatenate([keys[chance.integers(0, 500, n)], absent])
        expected = [known.get(key) for key in asked.tolist()]
        assert cache.find(asked).to_pylist() == expected
    assert rung(cache) == before + 14 - (width == 240)  # of which a thousand are too much for it
    cache.set("of another", "length")
    assert cache.find(keys).to_pylist() == [known.get(key) for key in keys.tolist()]


@pytest.mark.parametrize("prefix", [b"twelve bytes", b"and here are twenty "])
def test_keys_that_look_alike_in_the_index_are_told_apart(cache, prefix):
    """Of one bucket and one fingerprint."""
    cache.flushdb()
    cache.set("one", "to have an index")
    buckets, known, pairs = len(cache._table.table.index) // 8, {}, []
    for number in range(40_000):
        key = prefix + number.to_bytes(4, "little")
        h = hashed(key)
        twin = known.setdefault((h * buckets >> 64, h & 0xFFFF), key)
        if twin is not key:
            pairs.append((twin, key))
    assert pairs
    for one, other in pairs:
        before = rung(cache)
        cache.set(one, one)
        assert cache.get(one) == one and cache.get(other) is None
        assert cache.exists(other) == 0 and cache.pttl(other) == -2
        cache.set(other, other, px=10_000)
        assert cache.get(one) == one and cache.get(other) == other
        assert cache.find([one, other]).to_pylist() == [one, other]
        assert cache.pttl(one) == -1 and 0 < cache.pttl(other) <= 10_000
        assert cache.delete(one) == 1 and cache.get(one) is None and cache.get(other) == other
        assert rung(cache) >= before + 13


def test_one_key_of_any_length_with_a_value_of_any(cache):
    chance = random.Random(5)
    sizes = [0, 1, 7, 8, 24, 25, 64, 79, 80, 81, 95, 96, 97, 119, 120, 121, 600, 5000, 130_000]
    records = {
        chance.randbytes(n): chance.randbytes(chance.choice(sizes))
        for n in range(1, 41)
        for _ in sizes
    }
    for key, value in records.items():
        cache.set(key, value)
    for key, value in records.items():
        assert cache.get(key) == value and cache.exists(key) == 1 and cache.pttl(key) == -1
        assert cache.get(key + b"?") == records.get(key + b"?")


def test_expiry_goes_by_the_doorbell_too(cache, clock):
    before = rung(cache)
    cache.set("a", "1", px=50)
    cache.set("b", "2")
    assert (cache.pttl("a"), cache.pttl("b"), cache.pttl("c")) == (50, -1, -2)
    clock.now += 50
    assert cache.mget("a", "b") == [None, b"2"]
    assert cache.exists("a", "b") == 1 and cache.get("a") is None
    assert rung(cache) == before + 8


def test_what_is_too_much_for_it_is_answered_all_the_same(cache):
    records = {b"%d" % i: bytes([i % 251]) * 1000 for i in range(1000)}
    cache.mset(records)
    before = rung(cache)
    assert cache.mget(list(records)) == list(records.values())  # asked, and found to be too long
    assert rung(cache) == before + 1
    many = [b"%d" % i for i in range(2000)]
    assert cache.exists(*many) == 1000
    assert rung(cache) == before + 1


def test_it_follows_what_the_table_does(cache):
    """The index grows, the log goes on to other segments, everything is removed: by launches, in between."""
    keys = np.arange(40_000, dtype="u8").view("V8")
    for round_ in range(3):
        cache.insert(keys, keys)
        for key in (0, 1, 39_999):
            assert cache.get(keys[key].tobytes()) == keys[key].tobytes()
        assert cache.get(b"absent") is None
        cache.set(b"small", b"%d" % round_)
        assert cache.get(b"small") == b"%d" % round_ and cache.dbsize() == 40_001
        cache.flushdb()
        assert cache.get(keys[0].tobytes()) is None and cache.dbsize() == 0


def test_the_log_goes_on_where_a_segment_is_full(cache):
    for i in range(600):
        cache.set(b"%d" % i, b"%04d" % i * 1250)
    assert len(cache._table.table.arena.segments) > 1
    assert all(cache.get(b"%d" % i) == b"%04d" % i * 1250 for i in range(600))


def test_an_index_as_full_as_it_may_be_is_written_to(cache):
    from predis_lab.gpu.sizing import MAX_LOAD

    table = cache._table.table
    n, slots = int(MAX_LOAD * table.slots), table.slots
    keys = np.arange(n, dtype="u8").view("V8")
    cache.insert(keys, keys)
    assert cache.dbsize() == n and table.slots == slots
    while not table.is_idle():
        time.sleep(1e-3)
    before = table.launches
    cache.set(keys[3].tobytes(), b"another")
    assert cache.insert(keys[5:8], [b"others"] * 3).counts() == {"updated": 3}
    cache.set(b"new", b"one")
    assert table.launches == before  # the doorbell served all
    for i in range(100):  # now it is too full, and has to grow
        cache.set(b"further %d" % i, b"%d" % i)
    assert table.slots > slots and cache.dbsize() == n + 101
    assert cache.get(keys[3].tobytes()) == b"another" and cache.get(b"further 99") == b"99"
    assert cache.mget(keys[n - 3 :].tolist()) == [key.tobytes() for key in keys[n - 3 :]]


def test_nothing_is_asked_while_the_device_is_at_work(cache):
    table = cache._table.table
    before, stream = rung(cache), table._stream
    table.launches += 1
    table._idle, table._stream = False, Stuck()
    with pytest.raises(doorbell_module().NotServedError):
        cache._table.doorbell.get(b"a", 1)
    assert rung(cache) == before
    table._stream = stream
    while not stream.done:
        time.sleep(1e-3)
    assert cache._table.doorbell.get(b"a", 1) is None and rung(cache) == before + 1


def test_with_checksums_or_records_on_the_host_others_serve(make, tiered_cache):
    checked = make("64MiB", checksums=True)
    checked.mset({"a": 1, "b": 2})
    assert checked._table.doorbell is None and checked.mget("a", "b") == [b"1", b"2"]
    tiered = make(2**20, host_capacity=2**23)
    keys = [b"%06d" % i for i in range(20_000)]
    tiered.insert(keys, [key * 16 for key in keys])
    before = rung(tiered)
    assert tiered.get(keys[0]) == keys[0] * 16 and tiered.get(keys[-1]) == keys[-1] * 16
    assert rung(tiered) == before
