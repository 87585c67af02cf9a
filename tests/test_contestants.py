"""Contestants: every system asked the same, its answers checked, and nobody's server emptied."""

import contextlib
import itertools

import pytest
import redis

from predis_lab import Column
from predis_lab.bench import contestants, harness, results, servers, workloads
from predis_lab.bench.contestants import WrongAnswerError, deleting, load, reading, writing

pytestmark = pytest.mark.redis

VERBS = {"reading": reading, "writing": writing, "deleting": deleting}
each_verb = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
RECORDS = workloads.fixed(50, 12, 20)


@pytest.fixture(scope="module")
def valkey():
    with servers.valkey_server() as running:
        yield running


@pytest.fixture
def predis(cache):
    """The cache and what its contestants are called by."""
    cache.label = f"predis-{contestants.backend_of(cache)}"
    return cache


def systems(found):
    names = [contestant.system for contestant in found]
    assert len(set(names)) == len(names)
    return set(names)


def refused(found):
    """The systems whose check finds their answers wrong."""
    wrong = {}
    for contestant in found:
        try:
            contestant.check()
        except WrongAnswerError as error:
            wrong[contestant.system] = str(error)
    assert all(system in said for system, said in wrong.items())
    return set(wrong)


def rows(records):
    return dict(zip(records.keys.to_pylist(), records.values.to_pylist(), strict=True))


def held(client):
    """Everything in a store."""
    keys = list(client.scan_iter())
    return dict(zip(keys, client.mget(keys), strict=True)) if keys else {}


# ---- Names


def test_systems_are_named_by_who_and_how(predis, server, valkey):
    who = predis.label
    ours = {f"{who} lists", f"{who} columns"}
    both = [server, valkey]

    def redis_by(*ways):
        return {f"redis {way} {transport}" for way in ways for transport in ("unix", "tcp")}

    assert systems(reading(predis, both, RECORDS, 1, seed=0)) == (
        ours | redis_by("get") | {"valkey get unix"}
    )
    assert systems(reading(predis, both, RECORDS, 7, seed=0)) == (
        ours | redis_by("mget", "pipeline") | {"valkey mget unix"}
    )
    assert systems(writing(predis, both, RECORDS, 1, seed=0)) == (
        ours | redis_by("set") | {"valkey set unix"}
    )
    assert systems(writing(predis, both, RECORDS, 7, seed=0)) == (
        ours | redis_by("mset", "pipeline") | {"valkey mset unix"}
    )
    assert systems(deleting(predis, both, RECORDS, 7, seed=0)) == (
        ours | redis_by("del") | {"valkey del unix"}
    )


def test_what_is_known_of_the_backend(cache, request):
    assert contestants.backend_of(cache) == request.node.callspec.params["cache"]


@pytest.mark.parametrize("verb", [reading, writing])
def test_pipelines_end_where_memory_would(predis, server, monkeypatch, verb):
    monkeypatch.setattr(contestants, "PIPELINE_MAX", 7)
    for n, expected in ((7, 2), (8, 0)):
        names = systems(verb(predis, [server], RECORDS, n, seed=0))
        assert sum("pipeline" in name for name in names) == expected


# ---- Filling


def parts_of(records):
    """Three parts, none of which begins where memory does but the first."""
    return [(records.keys[i : i + 20], records.values[i : i + 20]) for i in range(0, len(records), 20)]  # fmt: skip


@pytest.mark.parametrize(
    "records", [RECORDS, workloads.airports().first(50)], ids=["one width", "any width"]
)
def test_what_is_stored_is_what_the_columns_say(server, records):
    client = server.client()
    client.flushdb()
    for keys, values in parts_of(records):
        contestants.store(client, keys, values)
    assert held(client) == rows(records)


def test_a_store_that_is_refused_says_so_and_goes_on(server):
    with contextlib.closing(server.client()) as client:
        client.config_set("maxmemory", 1)
        try:
            with pytest.raises(redis.ResponseError, match="maxmemory"):
                contestants.store(client, RECORDS.keys, RECORDS.values)
        finally:
            client.config_set("maxmemory", 0)
        contestants.store(client, RECORDS.keys, RECORDS.values)
        assert rows(RECORDS).items() <= held(client).items()


def test_a_server_that_was_filled_asks_one_table(server):
    # More than 2^14: it has just begun to leave the smaller one.
    contestants._fill(workloads.fixed(17_000), server)
    assert not server.client().info("memory")[contestants.REHASHING]


def test_all_hold_the_records_when_they_have_been_measured(predis, server, tmp_path):
    load(predis, [server], RECORDS)
    run = results.Run.open(tmp_path, notebook="t")
    contestants.measure_records(
        run, predis, [server], RECORDS, contestants.WORKLOADS, [7], seed=0, fill=False, blocks=2, block_seconds=1e-4
    )  # fmt: skip
    assert held(server.client()) == held(predis) == rows(RECORDS)
    assert {row[2] for row in run.rows} == set(contestants.WORKLOADS)


# ---- Answers


@each_verb
@pytest.mark.parametrize("n", [1, 7, 50])
def test_right_answers_pass(predis, server, valkey, verb, n):
    load(predis, [server, valkey], RECORDS)
    found = verb(predis, [server, valkey], RECORDS, n, seed=0)
    assert refused(found) == set()
    assert {contestant.operations for contestant in found} == {n}


def test_real_records_pass(predis, server):
    records = workloads.repeated(workloads.airports(), 3000)
    load(predis, [server], records)
    for verb in VERBS.values():
        load(predis, [server], records)
        assert refused(verb(predis, [server], records, 100, seed=0)) == set()


@pytest.mark.parametrize("n", [1, 7, 50])
@pytest.mark.parametrize("damage", ["another value", "no value", "a longer value"])
@pytest.mark.parametrize("side", ["predis", "redis"])
def test_one_wrong_value_is_found_when_reading(predis, server, n, damage, side):
    records = workloads.fixed(n)  # so that every batch holds the damaged record
    load(predis, [server], records)
    found = reading(predis, [server], records, n, seed=0)
    key, value = records.keys[n // 2].as_py(), records.values[n // 2].as_py()
    store = predis if side == "predis" else server.client()
    if damage == "no value":
        store.delete(key)
    else:
        store.set(key, b"wrong" if damage == "another value" else value + b"\0")
    assert refused(found) == {name for name in systems(found) if name.startswith(side)}
    store.set(key, value)
    assert refused(found) == set()


def shortened(pairs):
    """The last value loses a byte."""
    pairs = dict(pairs)
    key = next(reversed(pairs))
    return pairs | {key: pairs[key][:-1]}


@pytest.mark.parametrize(
    ("n", "method", "expected"),
    [
        (1, "set", {"redis set unix", "redis set tcp"}),
        (7, "mset", {"redis mset unix", "redis mset tcp"}),
        (7, "set", {"redis pipeline unix", "redis pipeline tcp"}),
    ],
)
def test_a_wrong_write_to_redis_is_found(predis, server, monkeypatch, n, method, expected):
    load(predis, [server], RECORDS)
    right = getattr(redis.Redis, method)
    wrong = {
        "set": lambda self, key, value: right(self, key, value[:-1]),
        "mset": lambda self, mapping: right(self, shortened(mapping)),
    }
    monkeypatch.setattr(redis.Redis, method, wrong[method])
    assert refused(writing(predis, [server], RECORDS, n, seed=0)) == expected


@pytest.mark.parametrize(
    ("n", "method", "expected"),
    [(1, "set", {"lists"}), (7, "mset", {"lists"}), (7, "insert", {"lists", "columns"})],
)
def test_a_wrong_write_to_predis_is_found(predis, server, monkeypatch, n, method, expected):
    load(predis, [server], RECORDS)
    right = getattr(predis, method)

    def insert(keys, values):
        return right(keys, [value[:-1] for value in Column.of(values).to_arrow().to_pylist()])

    wrong = {
        "set": lambda key, value: right(key, value[:-1]),
        "mset": lambda mapping: right(shortened(mapping)),
        "insert": insert,
    }
    monkeypatch.setattr(predis, method, wrong[method])
    found = writing(predis, [server], RECORDS, n, seed=0)
    assert refused(found) == {f"{predis.label} {way}" for way in expected}


def test_a_delete_that_deletes_nothing_is_found(predis, server, monkeypatch):
    load(predis, [server], RECORDS)
    monkeypatch.setattr(redis.Redis, "delete", lambda self, *names: len(names))
    monkeypatch.setattr(predis, "delete", lambda *names: len(names))
    expected = {f"{predis.label} lists", "redis del unix", "redis del tcp"}
    assert refused(deleting(predis, [server], RECORDS, 7, seed=0)) == expected


def test_a_delete_of_too_few_keys_is_found(predis, server, monkeypatch):
    load(predis, [server], RECORDS)
    right = predis._erase
    monkeypatch.setattr(predis, "_erase", lambda keys: right(keys[:-1]))
    expected = {f"{predis.label} lists", f"{predis.label} columns"}
    assert refused(deleting(predis, [server], RECORDS, 7, seed=0)) == expected


@each_verb
def test_more_keys_than_records_are_refused(predis, server, verb):
    with pytest.raises(ValueError, match="51"):
        verb(predis, [server], RECORDS, 51, seed=0)


# ---- Batches


@pytest.mark.parametrize("n", [1, 2, 7, 30, 49, 50])
def test_batches_rotate(predis, monkeypatch, n):
    load(predis, [], RECORDS)
    asked = []
    method = "get" if n == 1 else "mget"
    monkeypatch.setattr(predis, method, lambda keys: asked.append(keys))
    calls = 200
    ask = reading(predis, [], RECORDS, n, seed=0)[0].call
    for _ in range(calls):
        ask()
    batches = [(keys,) if n == 1 else tuple(keys) for keys in asked]
    assert all(one != other for one, other in itertools.pairwise(batches))
    known = rows(RECORDS)
    assert all(len(set(batch)) == n and set(batch) <= known.keys() for batch in batches)
    period = batches.index(batches[0], 1)
    assert period >= 7 and batches[period:] == batches[:-period]
    assert len(set(itertools.chain(*batches))) >= min(45, contestants.BATCHES * n)


def test_a_seed_tells_the_batches():
    def batches(seed, n):
        return [rows.to_pylist() for rows in contestants._row_batches(50, n, seed)]

    for n in (1, 7):
        assert batches(3, n) == batches(3, n) != batches(4, n)


def test_every_system_is_asked_the_same(predis, server, monkeypatch):
    load(predis, [server], RECORDS)
    asked = {"predis": [], "redis": []}
    monkeypatch.setattr(predis, "mget", lambda keys: asked["predis"].append(keys))
    monkeypatch.setattr(predis, "find", lambda keys: asked["predis"].append(keys.to_pylist()))
    monkeypatch.setattr(redis.Redis, "mget", lambda self, keys: asked["redis"].append(keys))
    found = {one.system: one for one in reading(predis, [server], RECORDS, 7, seed=0)}
    for _ in range(20):
        for system in (f"{predis.label} lists", f"{predis.label} columns", "redis mget unix"):
            found[system].call()
    assert asked["predis"][0::2] == asked["predis"][1::2] == asked["redis"]


@pytest.mark.parametrize("n", [1, 7, 50])
def test_deleting_puts_back(predis, server, n):
    load(predis, [server], RECORDS)
    for contestant in deleting(predis, [server], RECORDS, n, seed=0):
        store = predis if contestant.system.startswith("predis") else server.client()
        contestant.prepare()
        assert held(store) == rows(RECORDS)
        for _ in range(contestant.max_calls):
            contestant.call()
        assert len(held(store)) == 50 - n * contestant.max_calls < n
        with pytest.raises(StopIteration):
            contestant.call()
        contestant.prepare()
        assert held(store) == rows(RECORDS)


def test_all_of_them_can_be_measured(predis, server, tmp_path):
    run = results.Run.open(tmp_path, notebook="t")
    for name, verb in VERBS.items():
        load(predis, [server], RECORDS)
        found = verb(predis, [server], RECORDS, 7, seed=0)
        harness.measure(
            found, run=run, workload=name, params={"keys": 7}, blocks=2, block_seconds=0.001
        )
        frame = run.frame()
        rates = frame[(frame.workload == name) & (frame.metric == "throughput")]
        assert set(rates.system) == systems(found) and (rates.value > 0).all()


# ---- Filling


def test_filling_replaces_what_was_there(predis, server, monkeypatch):
    monkeypatch.setattr(contestants, "LOAD_KEYS", 20)  # so that the last piece is a short one
    for store in (predis, server.client()):
        store.set("stray", "x")
    load(predis, [server], RECORDS)
    assert held(predis) == held(server.client()) == rows(RECORDS)


def test_a_server_that_is_not_ours_is_never_emptied(predis, server, monkeypatch):
    for name in ("flushdb", "flushall"):
        monkeypatch.setattr(redis.Redis, name, lambda *_, name=name, **__: pytest.fail(name))
    with servers.redis_server(f"redis://127.0.0.1:{server.port}/0") as theirs:
        client = theirs.client()
        client.delete(*[*client.scan_iter(), "none"])
        client.set("kept", "yes")
        load(predis, [theirs], RECORDS)
        assert held(client) == rows(RECORDS) | {b"kept": b"yes"}
        for verb in VERBS.values():
            for contestant in verb(predis, [theirs], RECORDS, 7, seed=0):
                contestant.check()
                contestant.prepare()
                contestant.call()
        assert client.get("kept") == b"yes"
