"""Long values are copied by all warps of the device: what they hold stays what it was, wherever they are cut."""

import numpy as np
import pyarrow as pa
import pytest
from conftest import BACKENDS
from held import check_invariants

from predis_lab import Predis, Tuning
from predis_lab.gpu.sizing import LONG_NBYTES, MANY_ROWS, MOST_STRETCHES, STRETCH_NBYTES

EDGES = sorted(
    {
        at + by
        for at in (0, LONG_NBYTES, *range(0, 5 * STRETCH_NBYTES, STRETCH_NBYTES))
        for by in (-1, 0, 1, 15)
    }
    - {-1}
)


def column(rows):
    return pa.array(rows, pa.large_binary())


def made(generator, nbytes):
    return generator.integers(0, 256, nbytes, np.uint8).tobytes()


def check(cache, records):
    names = [*records, b"nobody's"]
    assert cache.find(column(names)).to_pylist() == [records.get(name) for name in names]


def listed(cache):
    """Stretches that the last launch that lists has asked for, those that found no room included."""
    return int(cache._table.table._listed[0])


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


@pytest.fixture
def cache(backend):
    with Predis("64MiB", backend=backend) as cache:
        yield cache


def test_values_of_every_length_about_the_edges(cache):
    """Beside one another, so that they lie at other distances from multiples of 16 in the column, the log and the answer."""
    generator = np.random.default_rng(1)
    records = {b"%d" % nbytes: made(generator, nbytes) for nbytes in EDGES}
    assert cache.insert(column(list(records)), column(list(records.values()))).ok
    check(cache, records)
    for name, value in records.items():
        assert cache.get(name) == value
        assert cache.set(name, value[::-1]) and cache.get(name) == value[::-1]


def test_long_and_short_ones_come_and_go(cache):
    generator, records = np.random.default_rng(2), {}
    for _ in range(6):
        names = [b"name %d" % number for number in generator.permutation(60)[:20]]
        sizes = np.exp(generator.uniform(0, np.log(300_000), len(names))).astype(int)
        batch = {name: made(generator, size) for name, size in zip(names, sizes, strict=True)}
        assert cache.insert(column(list(batch)), column(list(batch.values()))).ok
        records |= batch
        check(cache, records)
        for name in list(records)[::3]:
            assert cache.delete(name) == 1
            del records[name]
        cache.compact()
        check(cache, records)


@pytest.mark.parametrize("width", [LONG_NBYTES - 16, LONG_NBYTES, 2 * LONG_NBYTES])
def test_values_of_one_length(cache, width):
    keys = np.arange(80, dtype="u8").view("V16")
    values = np.random.default_rng(width).integers(0, 256, (40, width), np.uint8)
    assert cache.insert(keys, values).ok
    assert b"".join(cache.find(keys[::-1]).to_pylist()) == values[::-1].tobytes()
    asked = np.concatenate([keys[:3], np.full(2, 99, "u8").view("V16"), keys[3:]])
    rows, found = cache.find(asked, dtype=np.uint8, shape=(width,))
    assert found.tolist() == [True] * 3 + [False] + [True] * 37
    assert np.array_equal(rows[found], values) and not rows[~found].any()
    if cache.info("server")["backend"] != "host":
        rows, found = (
            array.get() for array in cache.find(asked, dtype=np.uint8, shape=(width,), device=True)
        )
        assert np.array_equal(rows[found], values) and not rows[~found].any()


@pytest.mark.parametrize("n", [MANY_ROWS - 1, MANY_ROWS, 3 * MANY_ROWS + 5])
def test_many_of_one_length_are_not_listed(backend, n):
    """Nor are they in a chunk of many; what is left for the last one may be few."""
    keys = np.arange(2 * n + 2, dtype="u8").view("V16")
    values = np.random.default_rng(n).integers(0, 256, (len(keys), LONG_NBYTES), np.uint8)
    with Predis("512MiB", backend=backend, tuning=Tuning(small_nbytes=0)) as cache:
        assert cache.insert(keys[1:], values[1:]).ok
        found = cache.find(keys)
        assert found[0].as_py() is None and found.null_count == 1
        assert b"".join(found[1:].to_pylist()) == values[1:].tobytes()


def test_more_than_can_be_listed(cache):
    """What finds no room in the list is copied with its tile; of few values each has its share of that room."""
    generator = np.random.default_rng(3)
    records = {b"%d" % number: made(generator, LONG_NBYTES + number % 7) for number in range(500)}
    assert cache.insert(column(list(records)), column(list(records.values()))).ok
    check(cache, records)
    names = list(records) * 10
    assert len(names) > MOST_STRETCHES
    assert cache.find(column(names)).to_pylist() == [*records.values()] * 10
    if cache.info("server")["backend"] != "host":  # in one launch
        found, whole = cache.find(column(names), device=True), b"".join([*records.values()] * 10)
        assert found.data.get().tobytes()[: len(whole)] == whole
        assert listed(cache) > MOST_STRETCHES


@pytest.mark.parametrize("rows", [2, 3, 100])
def test_longer_values_are_cut_into_longer_stretches(cache, rows):
    """So that those of any batch of so few find room together."""
    generator = np.random.default_rng(rows)
    size = min(3 * STRETCH_NBYTES * MOST_STRETCHES // rows, 10_000_000)
    records = {b"%d" % number: made(generator, size - number) for number in range(rows)}
    assert cache.insert(column(list(records)), column(list(records.values()))).ok
    check(cache, records)
    if cache.info("server")["backend"] != "host":
        assert 0 < listed(cache) <= MOST_STRETCHES


def test_a_value_of_many_stretches(cache):
    """Longer ones are cut into longer stretches."""
    value = made(np.random.default_rng(4), 20_000_001)
    assert cache.set("long", value) and cache.get("long") == value
    assert cache.insert([b"longer"], [value[:-1]]).ok
    check(cache, {b"long": value, b"longer": value[:-1]})
    if cache.info("server")["backend"] != "host":
        check_invariants(cache)


@pytest.mark.gpu
def test_a_lookup_gets_in_while_a_batch_waits_for_its_report(monkeypatch):
    """On another stream, with the list that the batch's next values go into as well."""
    import cupy

    generator, stream, answers = np.random.default_rng(5), cupy.cuda.Stream(non_blocking=True), []
    old = {b"old %d" % number: made(generator, 50_000 + number) for number in range(200)}
    new = {b"new %d" % number: made(generator, 200_000 + number) for number in range(120)}
    with Predis("64MiB", backend="cuda", tuning=Tuning(small_nbytes=2**30)) as cache:
        assert cache.insert(column(list(old)), column(list(old.values()))).ok
        health = cache._table.health
        wait = health.wait

        def leave(awaited, stage, **how):
            wait(awaited, stage, **how)
            if stage == "a write":
                with stream:
                    answers.append(cache.find(column(list(old)), device=True))

        monkeypatch.setattr(health, "wait", leave)
        assert cache.insert(column(list(new)), column(list(new.values()))).ok
        assert len(answers) > 1  # one between two pieces
        monkeypatch.undo()
        check(cache, new | old)
    whole = b"".join(old.values())
    for answer in answers:
        assert answer.data.get().tobytes()[: len(whole)] == whole
