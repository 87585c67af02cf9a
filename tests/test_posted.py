"""Records that `set` has left in a mailbox: whoever comes next finds them stored, or is told that they are not."""

import contextlib
import time

import numpy as np
import pytest
from ringing import rung

from predis_lab import DeviceTimeout
from predis_lab.gpu import mailbox

pytestmark = pytest.mark.gpu


@pytest.fixture
def cache(written_cache):
    return written_cache


class Late:
    """The stream of a block that begins when it is looked at for the third time, or, unless it `comes`, when it is told to."""

    def __init__(self, bell, comes):
        self.bell, self.comes, self.looks = bell, comes, 0
        self.launches, self.kernel, self.stream = [], bell._kernel, bell._stream
        bell._kernel, bell._stream = lambda *launch: self.launches.append(launch), self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    @property
    def done(self):
        self.looks += 1
        if self.comes and self.looks == 3:
            self.begin()
        return False

    def begin(self):
        if self.bell._stream is self:
            self.bell._kernel, self.bell._stream = self.kernel, self.stream
            with self.stream:
                for launch in self.launches:
                    self.kernel(*launch)


@contextlib.contextmanager
def a_block_that_is_late(cache, comes=True):
    bell = cache._table.doorbell
    bell._leave()
    while not bell._stream.done:
        time.sleep(1e-3)
    late = Late(bell, comes)
    try:
        yield late
    finally:
        late.begin()


def ids(n):
    return [b"%04d" % number for number in range(n)]


CALLS = {
    "get": lambda cache: [cache.get(key) for key in ids(6)],
    "mget": lambda cache: cache.mget(ids(6)),
    "many": lambda cache: cache.mget(ids(3000))[:6],
    "device": lambda cache: [
        bytes(row) for row in cache.find(ids(6), dtype=np.uint8, shape=(3,), device=True)[0].get()
    ],
    "exists": lambda cache: cache.exists(*ids(6)) == 6 and cache.mget(ids(6)),
    "dbsize": lambda cache: cache.dbsize() == 6 and cache.mget(ids(6)),
    "scan": lambda cache: sorted(cache.scan_iter()) == ids(6) and cache.mget(ids(6)),
    "memory": lambda cache: cache.info("memory")["records_memory"] == 6 * 32 and cache.mget(ids(6)),
    "compact": lambda cache: cache.compact() is not None and cache.mget(ids(6)),
}


@pytest.mark.parametrize("call", CALLS)
def test_whoever_comes_next_finds_them(cache, call):
    values = [b"v%02d" % number for number in range(6)]
    with a_block_that_is_late(cache) as late:
        for key, value in zip(ids(6), values, strict=True):
            assert cache.set(key, value)
        assert (
            len(late.launches) == 1 and rung(cache) > cache._table.doorbell._words[mailbox.ANSWERED]
        )
        assert CALLS[call](cache) == values


@pytest.mark.parametrize("way", ["doorbell", "launch", "pipeline"])
def test_what_is_written_next_is_written_later(cache, way):
    n = {"doorbell": 6, "launch": 1500, "pipeline": 200_000}[way]
    keys = np.array(ids(6) + [b"%09d" % number for number in range(n - 6)])
    with a_block_that_is_late(cache):
        for key in ids(6):
            cache.set(key, b"early")
        status = cache.insert(keys, np.full(n, b"later")).status
        assert cache.mget(ids(6)) == [b"later"] * 6
    assert status[:6].tolist() == [1] * 6 and cache.dbsize() == n


@pytest.mark.parametrize("call", ["delete", "flushdb", "expire"])
def test_what_is_taken_out_next_is_gone(cache, call):
    with a_block_that_is_late(cache):
        for key in ids(6):
            cache.set(key, b"posted")
        if call == "delete":
            assert cache.delete(*ids(3)) == 3
        elif call == "expire":
            assert [cache.expire(key, -1) for key in ids(3)] == [True] * 3
        else:
            cache.flushdb()
    left = [] if call == "flushdb" else ids(6)[3:]
    assert cache.mget(ids(6)) == [b"posted" if key in left else None for key in ids(6)]
    assert cache.dbsize() == len(left)


def test_values_of_another_length_are_expected_before_they_are_stored(cache):
    """A lookup that takes all values to have one length would miss them."""
    cache.flushdb()
    keys, values = np.arange(60, dtype="u8").view("V16"), np.arange(120, dtype="u8").view("V32")
    cache.insert(keys, values)
    with a_block_that_is_late(cache):
        cache.set(keys[1].tobytes(), b"short")
        cache.set(keys[2].tobytes(), b"v" * 120)
        found = cache.find(keys).to_pylist()
    assert found == [values[0].tobytes(), b"short", b"v" * 120, *values[3:].tolist()]


def test_a_cache_that_is_filled_one_by_one_knows_that_all_values_have_one_length(cache):
    cache.flushdb()
    values = [b"%016d" % number for number in range(40)]
    for value in values:
        cache.set(value, value)
    assert cache.find(np.array(values, "V16")).to_pylist() == values
    assert cache._table.table.uniform_nbytes == 16
    cache.set(values[0], b"short")
    assert cache.find(np.array(values, "V16")).to_pylist() == [b"short", *values[1:]]
    assert cache._table.table.uniform_nbytes is None


def test_no_more_are_posted_than_there_are_mailboxes(cache):
    """Who has one more waits; what has been posted is stored all the same once the block comes."""
    boxes, table = mailbox.BOXES, cache._table.table
    cache._table.health.timeout_s = 0.2
    with a_block_that_is_late(cache, comes=False) as late:
        for key in ids(boxes - 1):
            assert cache.set(key, key)
        with pytest.raises(DeviceTimeout, match="a small call within"):
            cache.set("one", "more")
        with pytest.raises(DeviceTimeout, match="still busy"):
            cache.mget(ids(boxes))
        assert cache._table.health.stuck[0] is late
        assert cache._table.memory()["records"] == 0  # as far as is known: nothing is waited for
    stream = cache._table.doorbell._stream
    cache._table.health.stuck = stream, "a small call"
    while not stream.done:
        time.sleep(1e-3)
    assert cache.mget(ids(boxes)) == [*ids(boxes - 1), None]
    assert cache.get("one") is None and cache.dbsize() == boxes - 1
    assert table.posted is None and table.unreported == 0


def test_a_block_leaves_when_its_time_is_up_though_there_is_always_more(cache):
    bell, known = cache._table.doorbell, {}
    before = bell._started
    for number in range(5000):
        key = b"%d" % (number % 777)
        known[key] = b"%d" % number
        cache.set(key, known[key])
        if number % 1000 == 0:
            assert cache.get(key) == known[key]
    assert bell._started > before + 1
    assert cache.dbsize() == len(known)
    assert dict(zip(known, cache.mget(list(known)), strict=True)) == known


def test_records_that_come_and_go_leave_an_index_that_is_known_to_be_stale(cache):
    """Each is erased once, whenever the counters of those posted before are taken over."""
    table = cache._table.table
    erased = table.erased
    for number in range(50):
        cache.set(b"new %d" % number, b"value")
        assert cache.delete(b"new %d" % number) == 1
    assert table.erased == erased + 50 and cache.dbsize() == 0
