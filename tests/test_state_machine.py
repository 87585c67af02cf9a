"""Every verb in random order against a dict, under a clock that only the test moves (Hypothesis)."""

import os
import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from predis_lab import Predis, PredisError, Status
from predis_lab.table import ABSENT, NEVER

NOW_MS = 1_700_000_000_000
SIZES = [1, 15, 16, 17, 4095, 4096, 65535]


def key_of(nbytes: int, seed: int) -> bytes:
    """Keys of one length differ in their last byte alone."""
    return b"k" * (nbytes - 1) + bytes([65 + seed])


def value_of(nbytes: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(251) * (nbytes // 251) + bytes([seed]) * (nbytes % 251)


FEW = st.builds(key_of, st.sampled_from(SIZES), st.integers(0, 1))
KEYS = st.one_of(
    FEW, FEW.map(bytes), st.sampled_from([b"A", b"B"]), st.binary(min_size=1, max_size=3)
)
VALUES = st.one_of(
    st.binary(max_size=40),
    st.builds(value_of, st.sampled_from([0, *SIZES]), st.integers(0, 255)),
    st.builds(value_of, st.sampled_from([4096, 65535, 1 << 20]), st.integers(0, 255)),
)
BATCHES = st.lists(KEYS, max_size=12)
RECORDS = st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=8)
TTL_MS = st.sampled_from([1, 2, 999, 1000, 1001, 60_000, 3_600_000])
CONDITIONS = st.sampled_from([{}, {}, {"nx": True}, {"xx": True}])
EXPIRE_CONDITIONS = st.sampled_from(
    [{}, {}, {"nx": True}, {"xx": True}, {"gt": True}, {"lt": True}, {"xx": True, "gt": True}]
)
REFUSED = [
    lambda cache, key: cache.set(key, b"refused", nx=True, xx=True),
    lambda cache, key: cache.set(key, b"refused", ex=0),
    lambda cache, key: cache.mset({key: b"refused", b"": b"refused"}),
    lambda cache, key: cache.insert([key, b"new"], [b"refused"]),
    lambda cache, key: cache.insert([key, b"new"], [b"refused", None]),
    lambda cache, key: cache.insert([key], [b"refused"], ex=1, px=1),
    lambda cache, key: cache.erase([key, b""]),
    lambda cache, key: cache.delete(key, b""),
    lambda cache, key: cache.expire(key, 1, gt=True, lt=True),
    lambda cache, key: cache.expire(key, "0.5"),
]


class CacheMachine(RuleBasedStateMachine):
    """`records` is the oracle: key -> (value, moment of expiry in ms or NEVER), expired ones removed at once."""

    backend = "host"
    options: dict = {}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.now = NOW_MS
        self.records: dict[bytes, tuple[bytes, int]] = {}
        self.clock = pytest.MonkeyPatch()
        for module in ("client", "verbs", "hot"):
            self.clock.setattr(f"predis_lab.{module}.now_ms", lambda: self.now)
        self.cache = Predis("256MiB", backend=self.backend, **self.options)

    def teardown(self):
        try:
            assert self.cache.dbsize() == len(self.records)
        finally:
            self.cache.close()
            self.clock.undo()

    # ---- The oracle

    def value(self, key):
        return self.records[key][0] if key in self.records else None

    def moment(self, key):
        return self.records[key][1] if key in self.records else ABSENT

    def store(self, key, value, moment=NEVER):
        self.records[key] = (value, moment)
        self.purge()

    def purge(self):
        self.records = {
            key: record for key, record in self.records.items() if not 0 <= record[1] <= self.now
        }

    def some_keys(self, data, hits):
        if hits == "all":
            return data.draw(st.lists(st.sampled_from(sorted(self.records)), max_size=12))
        keys = data.draw(BATCHES)
        return [key for key in keys if key not in self.records] if hits == "none" else keys

    # ---- Time

    @rule(ms=st.sampled_from([1, 2, 500, 999, 1000, 60_000, 4_000_000]))
    def time_passes(self, ms):
        self.now += ms
        self.purge()

    def mortal(self):
        return sorted(key for key, (_, moment) in self.records.items() if moment >= 0)

    @precondition(mortal)
    @rule(early=st.booleans())
    def time_passes_to_the_next_expiry(self, early):
        self.now = min(self.moment(key) for key in self.mortal()) - early
        self.purge()

    @precondition(mortal)
    @rule(data=st.data(), value=VALUES, keep=st.booleans())
    def rewrite_what_expires(self, data, value, keep):
        key = data.draw(st.sampled_from(self.mortal()))
        assert self.cache.set(key, value, keepttl=keep) is True
        self.store(key, value, self.moment(key) if keep else NEVER)
        self.check_ttl(key)

    # ---- One key

    @initialize(records=RECORDS)
    def fill(self, records):
        assert self.cache.mset(dict(records)) is True
        for key, value in dict(records).items():
            self.store(key, value)

    @rule(key=KEYS)
    def get(self, key):
        assert self.cache.get(key) == self.value(key)

    @rule(
        key=KEYS,
        value=VALUES,
        conditions=CONDITIONS,
        get=st.booleans(),
        ttl=st.sampled_from(["none", "none", "keep", "px", "ex", "pxat", "exat", "past"]),
        ms=TTL_MS,
    )
    def set(self, key, value, conditions, get, ttl, ms):
        seconds = -(-ms // 1000)
        options, moment = {
            "none": ({}, NEVER),
            "keep": ({"keepttl": True}, max(NEVER, self.moment(key))),
            "px": ({"px": ms}, self.now + ms),
            "ex": ({"ex": seconds}, self.now + seconds * 1000),
            "pxat": ({"pxat": self.now + ms}, self.now + ms),
            "exat": ({"exat": self.now // 1000 + seconds}, (self.now // 1000 + seconds) * 1000),
            "past": ({"pxat": self.now}, self.now),
        }[ttl]
        old = self.value(key)
        stored = not (
            ("nx" in conditions and old is not None) or ("xx" in conditions and old is None)
        )
        answer = self.cache.set(key, value, get=get, **conditions, **options)
        assert answer == (old if get else True if stored else None)
        if stored:
            self.store(key, value, moment)
        self.check_ttl(key)

    @rule(key=KEYS, ms=TTL_MS, sign=st.sampled_from([1, 1, 1, 0, -1]), conditions=EXPIRE_CONDITIONS)
    def pexpire(self, key, ms, sign, conditions):
        self.expect_expire(
            key, sign * ms, conditions, self.cache.pexpire(key, sign * ms, **conditions)
        )

    @rule(key=KEYS, seconds=st.sampled_from([-1, 0, 1, 2, 60, 3600]), conditions=EXPIRE_CONDITIONS)
    def expire(self, key, seconds, conditions):
        answer = self.cache.expire(key, seconds, **conditions)
        self.expect_expire(key, seconds * 1000, conditions, answer)

    def expect_expire(self, key, ms, conditions, answer):
        old, new = self.moment(key), self.now + ms
        later = float("inf") if old == NEVER else old
        holds = {"nx": old == NEVER, "xx": old != NEVER, "gt": new > later, "lt": new < later}
        applies = key in self.records and all(holds[name] for name in conditions)
        assert answer is applies
        if applies:
            self.store(key, self.value(key), new)
        self.check_ttl(key)

    @rule(key=KEYS)
    def persist(self, key):
        assert self.cache.persist(key) is (self.moment(key) >= 0)
        if key in self.records:
            self.store(key, self.value(key))

    @rule(key=KEYS)
    def ttl_and_pttl(self, key):
        self.check_ttl(key)

    def check_ttl(self, key):
        moment = self.moment(key)
        left = moment if moment < 0 else moment - self.now
        assert self.cache.pttl(key) == left
        assert self.cache.ttl(key) == (left if left < 0 else (left + 500) // 1000)

    @rule(key=KEYS, call=st.sampled_from(REFUSED))
    def refused(self, key, call):
        with pytest.raises(PredisError):
            call(self.cache, key)

    # ---- Many keys

    @rule(records=RECORDS)
    def mset(self, records):
        assert self.cache.mset(dict(records)) is True
        for key, value in records:
            self.store(key, value)

    @rule(records=RECORDS, repeats=st.integers(1, 3), ttl=st.none() | TTL_MS)
    def insert(self, records, repeats, ttl):
        records = [(key, value + b"!" * turn) for turn in range(repeats) for key, value in records]
        keys, values = map(list, zip(*records, strict=True))
        last = {key: row for row, key in enumerate(keys)}
        fate = {key: Status.UPDATED if key in self.records else Status.STORED for key in keys}
        report = self.cache.insert(keys, values, px=ttl)
        assert report.status.tolist() == [
            fate[key] if row == last[key] else Status.SUPERSEDED for row, key in enumerate(keys)
        ]
        for key, value in records:
            self.store(key, value, NEVER if ttl is None else self.now + ttl)

    def check_reads(self, keys):
        values = [self.value(key) for key in keys]
        assert self.cache.mget(keys) == values
        assert self.cache.find(keys).to_pylist() == values
        there = [value is not None for value in values]
        assert self.cache.contains(keys).tolist() == there
        assert self.cache.exists(*keys) == sum(there)

    @rule(data=st.data(), hits=st.sampled_from(["none", "some"]))
    def read(self, data, hits):
        self.check_reads(self.some_keys(data, hits))

    @precondition(lambda self: self.records)
    @rule(data=st.data())
    def read_hits(self, data):
        self.check_reads(self.some_keys(data, "all"))

    @rule(keys=BATCHES)
    def erase(self, keys):
        told = self.cache.erase(keys).tolist()
        for key in set(keys):
            removed = sum(there for name, there in zip(keys, told, strict=True) if name == key)
            assert removed == (key in self.records)
            self.records.pop(key, None)

    @rule(keys=BATCHES)
    def delete(self, keys):
        assert self.cache.delete(*keys) == len(set(keys) & set(self.records))
        for key in keys:
            self.records.pop(key, None)

    @precondition(lambda self: self.records)
    @rule(data=st.data(), rewrite=st.booleans())
    def delete_hits(self, data, rewrite):
        keys = set(self.some_keys(data, "all"))
        assert self.cache.delete(*keys) == len(keys)
        for key in keys:
            del self.records[key]
        if rewrite and keys:
            assert self.cache.insert(sorted(keys), [b""] * len(keys)).counts() == {
                "stored": len(keys)
            }
            self.records |= dict.fromkeys(keys, (b"", NEVER))

    # ---- All keys

    @rule(
        count=st.sampled_from([None, 1, 3, 1000]),
        prefix=st.sampled_from([b"k", b"kkkk", b"a", b""]),
    )
    def scan(self, count, prefix):
        expected = {key for key in self.records if key.startswith(prefix)}
        assert set(self.cache.scan_iter(match=prefix + b"*", count=count)) == expected

    @precondition(lambda self: len(self.records) > 8)
    @rule()
    def flushdb(self):
        assert self.cache.flushdb() is True
        self.records = {}

    # No invariant: a table may take the occasion to remove what has expired, and hide that others do not.
    @rule()
    def dbsize(self):
        assert self.cache.dbsize() == len(self.cache) == len(self.records)

    @invariant()
    def keys_agree(self):
        assert set(self.cache.scan_iter()) == set(self.records)


def run(backend: str, examples: int, steps: int, machine: type = CacheMachine) -> None:
    machine = type("Machine", (machine,), {"backend": backend})
    if backend == "cuda" and os.environ.get(
        "PREDIS_EMULATED"
    ):  # where each takes a hundred times as long
        examples = max(4, examples // 5)
    options = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=options)


def test_host_against_a_dict():
    run("host", examples=200, steps=40)


@pytest.mark.gpu
def test_cuda_against_a_dict():
    run("cuda", examples=80, steps=50)
