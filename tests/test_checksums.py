"""Checksums: a sound cache verifies, whatever has been done to it; one changed bit is found, and never returned."""

import random

import numpy as np
import pytest
from conftest import BACKENDS
from hypothesis.stateful import invariant
from test_device_table import on_device
from test_state_machine import CacheMachine, run
from tiered import addresses_of, keys_of

from predis_lab import CorruptRecord, InvalidArgument, Predis

try:
    import cupy

    from predis_lab.gpu import launched
    from predis_lab.gpu.maintenance import compact
except ImportError:  # what needs it then skips, see conftest
    cupy = launched = None

SIZES = [0, 1, 15, 16, 17, 64, 600, 70_000]


@pytest.fixture(params=BACKENDS)
def make(request):
    """Makes caches with checksums on each backend."""
    opened = []

    def make(capacity="64MiB", checksums=True):
        opened.append(Predis(capacity, backend=request.param, checksums=checksums))
        return opened[-1]

    yield make
    for cache in opened:
        cache.close()


def noise(nbytes, seed):
    return random.Random(seed).randbytes(nbytes)


class Stored:
    """One record as it lies in its table, to be changed behind the cache's back."""

    def __init__(self, cache, key):
        self.key, table = key, cache._table
        self.on_host = cache.info()["backend"] == "host"
        if self.on_host:
            self.records = table._records
            return
        addresses = addresses_of(cupy.asnumpy(table.table.index))
        segments = table.table.arena.segments
        for address in filter(None, addresses.tolist()):
            self.segment = next(s for s in segments if s.address <= address < s.end)
            self.at = address - self.segment.address
            header = self.bytes_at(0, 16)
            self.key_nbytes = int.from_bytes(header[14:16], "little")
            self.value_nbytes = int.from_bytes(header[0:4], "little")
            if self.bytes_at(16, self.key_nbytes) == key:
                return
        raise KeyError(key)

    def bytes_at(self, first, n):
        return cupy.asnumpy(self.segment.array[self.at + first : self.at + first + n]).tobytes()

    def flip(self, byte, bit):
        place = self.at + byte
        self.segment.array[place] = self.bytes_at(byte, 1)[0] ^ (1 << bit)
        cupy.cuda.get_current_stream().synchronize()  # the cache works on another one

    def change(self, part, seed):
        """Flips one bit of "key", "value", "key length" or "value length"."""
        chance = random.Random(seed)
        bit = chance.randrange(8)
        if self.on_host:
            self._change_on_host(part, chance, bit)
        elif part == "key":
            self.flip(16 + chance.randrange(self.key_nbytes), bit)
        elif part == "value":
            self.flip(16 + self.key_nbytes + chance.randrange(self.value_nbytes), bit)
        else:
            self.flip(chance.randrange(4) if part == "value length" else 14 + bit % 2, bit)

    def _change_on_host(self, part, chance, bit):
        value, moment = self.records[self.key]
        if part == "value":
            changed = bytearray(value)
            changed[chance.randrange(len(value))] ^= 1 << bit
            self.records[self.key] = (bytes(changed), moment)
        elif part == "value length":
            self.records[self.key] = (value[:-1] if value and bit % 2 else value + b"\0", moment)
        else:
            changed = bytearray(self.key + b"\0" * (part == "key length"))
            changed[chance.randrange(len(changed))] ^= 1 << bit
            del self.records[self.key]
            self.records[bytes(changed)] = (value, moment)


def refuses(read, key, rows=1):
    with pytest.raises(CorruptRecord, match="does not match its checksum") as caught:
        read()
    assert (caught.value.key, caught.value.rows) == (key, rows)


# ---- Sound caches


def test_only_with_the_option(make):
    cache = make(checksums=False)
    cache.set("a", "1")
    with pytest.raises(InvalidArgument, match="checksums=True"):
        cache.verify()
    assert make().verify() == 0


@pytest.mark.parametrize("size", SIZES)
def test_sizes(make, size):
    cache = make()
    keys = [b"k" * n for n in (1, 15, 16, 17, 100)]
    values = [noise(size, seed) for seed in range(len(keys))]
    for key, value in zip(keys, values, strict=True):
        cache.set(key, value)
    assert cache.verify() == 0 and cache.mget(keys) == values
    assert cache.insert(keys, values).ok and cache.verify() == 0
    assert [cache.get(key) for key in keys] == values
    assert cache.mget([*keys, b"absent", keys[0]]) == [*values, None, values[0]]
    assert cache.find([]).to_pylist() == []


@pytest.mark.parametrize("chunk_rows", [7, 10**6])
def test_whatever_is_done(make, clock, monkeypatch, chunk_rows):
    """Updates, duplicates, erased and expired records, batches of many pieces, a growing index, compaction."""
    if launched is not None:
        monkeypatch.setattr(launched, "CHUNK_ROWS", chunk_rows)
    cache, chance = make("4MiB"), random.Random(chunk_rows)
    records = {}
    for turn in range(12):
        keys = [b"key:%d" % chance.randrange(400) for _ in range(chance.choice([1, 40, 300]))]
        values = [noise(chance.choice(SIZES[:-1]), turn) for _ in keys]
        assert cache.insert(keys, values, px=None if turn % 3 else 1000).ok
        records |= dict(zip(keys, values, strict=True))
        if turn % 4 == 0:
            gone = chance.sample(sorted(records), len(records) // 5)
            cache.delete(*gone)
            records = {key: value for key, value in records.items() if key not in gone}
        for key in chance.sample(sorted(records), len(records) // 5):
            assert cache.persist(key) or cache.expire(key, 100)
        assert cache.verify() == 0
        assert cache.mget(list(records)) == list(records.values())
    clock.now += 50_000
    left = {key: value for key in records if (value := cache.get(key)) is not None}
    assert 0 < len(left) < len(records) and left.items() <= records.items()
    assert cache.verify() == 0
    cache.flushdb()
    assert cache.verify() == 0


def test_against_a_dict(request, make):
    backend = make().info()["backend"]

    class Sound(CacheMachine):
        options = {"checksums": True}  # noqa: RUF012

        @invariant()
        def sound(self):
            assert self.cache.verify() == 0

    run(backend, examples=20, steps=30, machine=Sound)


@pytest.mark.gpu
def test_the_index_grows_and_the_log_is_compacted():
    with Predis("2MiB", backend="cuda", checksums=True) as cache:
        table, numbers = cache._table.table, np.arange(9000)
        epoch = table.epoch
        for part in np.split(numbers, 3):
            assert cache.insert(keys_of(part), keys_of(part, 48)).ok
        assert table.epoch > epoch and cache.verify() == 0
        assert cache.erase(keys_of(numbers[::2])).all()
        assert compact(table, 0) > 0 and cache.verify() == 0
        left = numbers[1::2]
        assert b"".join(cache.find(keys_of(left)).to_pylist()) == keys_of(left, 48).tobytes()


# ---- Changed bits

PARTS = ["value", "value length", "key", "key length"]
CHANGES = [(part, size) for part in PARTS for size in SIZES if part != "value" or size]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("part", "size"), CHANGES)
def test_a_changed_bit(make, part, size, seed):
    cache = make()
    keys = [noise(12 + i % 9, i) for i in range(40)]
    values = [noise(size if i < 4 else 20, i) for i in range(40)]
    cache.insert(keys, values)
    key = keys[seed]
    stored = Stored(cache, key)
    stored.change(part, seed)
    assert cache.verify() == 1
    others, theirs = keys[:seed] + keys[seed + 1 :], values[:seed] + values[seed + 1 :]
    assert cache.mget(others) == theirs
    if stored.on_host and part.startswith("key"):
        # What a dict holds under another key is missing, and refused under that one.
        (found,) = set(stored.records) - set(keys)
        assert cache.get(key) is None
        refuses(lambda: cache.get(found), found)
        return
    refuses(lambda: cache.get(key), key)
    refuses(lambda: cache.find(keys), key)
    refuses(lambda: cache.mget([b"absent", key, *others, key]), key, rows=2)
    if not stored.on_host:
        refuses(lambda: cache.find(on_device([*keys, key])), key, rows=2)


def test_several_changed_records(make):
    cache = make()
    keys = keys_of(np.arange(500))
    cache.insert(keys, keys_of(np.arange(500), 64))
    for row in (3, 77, 499):
        Stored(cache, keys[row].tobytes()).change("value", row)
    assert cache.verify() == 3
    refuses(lambda: cache.find(keys[::-1].copy()), keys[499].tobytes(), rows=3)
    refuses(lambda: cache.find(keys[10:]), keys[77].tobytes(), rows=2)
    assert len(cache.find(keys[4:77])) == 73


def test_written_anew_it_is_whole_again(make):
    cache = make()
    cache.mset({"a": "before", "b": "other"})
    Stored(cache, b"a").change("value", 0)
    assert cache.contains([b"a"]).all() and cache.ttl("a") == -1  # what returns no value
    cache.expire("a", 100)
    assert cache.verify() == 1
    cache.set("a", "after")
    assert cache.verify() == 0 and cache.mget("a", "b") == [b"after", b"other"]
    Stored(cache, b"a").change("value", 0)
    assert cache.delete("a") == 1 and cache.verify() == 0


@pytest.mark.parametrize("chunk_rows", [7, 10**6])
def test_a_batch_hides_no_change_of_before(make, monkeypatch, chunk_rows):
    """It gives checksums to what it wrote itself, though it names the changed record and is refused it."""
    if launched is not None:
        monkeypatch.setattr(launched, "CHUNK_ROWS", chunk_rows)
    cache = make("1MiB")
    cache.mset({"a": "value", "b": "other"})
    Stored(cache, b"a").change("value", 0)
    keys = [*(b"new:%d" % i for i in range(50)), b"a"]
    report = cache.insert(keys, [*[b"small"] * 50, bytes(2**21)])
    assert report.counts() == {"stored": 50, "no_space": 1}
    assert cache.verify() == 1 and cache.mget(keys[:50]) == [b"small"] * 50
    refuses(lambda: cache.get("a"), b"a")


def test_what_has_expired_is_absent(make, clock):
    cache = make()
    cache.set("a", "value", px=10)
    Stored(cache, b"a").change("value", 0)
    clock.now += 10
    assert cache.get("a") is None and cache.mget("a") == [None]


@pytest.mark.gpu
@pytest.mark.parametrize("size", [0, 1, 14, 600])
def test_padding_does_not_count(size):
    with Predis("64MiB", backend="cuda", checksums=True) as cache:
        cache.mset({"a": noise(size, 1), "b": "other"})
        record = Stored(cache, b"a")
        used, padded = 17 + size, (17 + size + 15) // 16 * 16
        for byte in range(used, padded):
            record.flip(byte, byte % 8)
        assert padded > used
        assert cache.verify() == 0 and cache.get("a") == noise(size, 1)


@pytest.mark.gpu
def test_every_bit_counts():
    with Predis("64MiB", backend="cuda", checksums=True) as cache:
        cache.set("key", "a value")
        record = Stored(cache, b"key")
        covered = [*range(4), 14, 15, *range(16, 16 + 3 + 7)]
        for byte in range(32):
            for bit in range(8):
                record.flip(byte, bit)
                # Bytes 4 to 7 are the checksum itself, 8 to 13 the expiry.
                assert cache.verify() == (byte in covered or 4 <= byte < 8), (byte, bit)
                record.flip(byte, bit)
        assert cache.verify() == 0
