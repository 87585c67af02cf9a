"""The ladder: every rung against a dict, and against the table that serves the cache; what each compiles to.

On the device, or, with `tests/emulated` in place of CuPy, thread by thread on the CPU.
"""

import importlib.util
import re
from collections import Counter

import numpy as np
import pytest

from predis_lab import Predis, UnsupportedType
from predis_lab.gpu import source
from predis_lab.gpu.ladder import LAST, OPERATIONS, RUNGS

try:
    import cupy

    from predis_lab.gpu.ladder_table import NO_SPACE, STORED, SUPERSEDED, LadderTable
except ImportError:  # every test that needs it then skips with this as its reason, see conftest
    cupy = LadderTable = None

each_rung = pytest.mark.parametrize("rung", RUNGS)
needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("cuda") is None, reason="cuda-bindings is not installed"
)
SHAPES = [  # rows of a batch, bytes of a key, bytes of a value
    (1, 1, 0),
    (31, 8, 16),
    (33, 40, 4096),
    (200, 1, 1),
    (1000, 24, 100),
    (1000, 8, 0),
    (4097, 16, 64),
]


class Oracle:
    """A table and a dict that are told the same things."""

    def __init__(self, table):
        self.table, self.records = table, {}

    def insert(self, keys, values):
        status = self.table.insert(cupy.asarray(keys), cupy.asarray(values)).get()
        last = {key.tobytes(): row for row, key in enumerate(keys)}
        wins = np.array([last[key.tobytes()] == row for row, key in enumerate(keys)])
        assert np.array_equal(status, np.where(wins, STORED, SUPERSEDED))
        self.records.update({key: values[row].tobytes() for key, row in last.items()})

    def find(self, keys):
        values, found = (array.get() for array in self.table.find(cupy.asarray(keys)))
        expected = [self.records.get(key.tobytes()) for key in keys]
        assert found.tolist() == [value is not None for value in expected]
        absent = bytes(self.table.value_nbytes)
        assert values.tobytes() == b"".join(absent if v is None else v for v in expected)

    def erase(self, keys):
        erased = self.table.erase(cupy.asarray(keys)).get()
        times = Counter()
        for key, taken in zip(keys, erased.tolist(), strict=True):
            times[key.tobytes()] += taken
        for key, taken in times.items():
            assert taken == (self.records.pop(key, None) is not None)


def distinct_keys(n, nbytes, generator):
    """(n, nbytes) uint8, shuffled: numbers that differ in their last bytes, behind a common start."""
    numbers = generator.permutation(256 if nbytes == 1 else max(n, 256))[:n].astype(">u4")
    keys = np.full((n, max(nbytes, 4)), ord("k"), np.uint8)
    keys[:, -4:] = numbers.view(np.uint8).reshape(n, 4)
    return np.ascontiguousarray(keys[:, -nbytes:])


def noise(n, nbytes, generator):
    return generator.integers(0, 256, (n, nbytes), np.uint8)


# ---- What the rungs say of themselves


@each_rung
def test_a_rung_changes_what_it_says(rung):
    """Definitions that the kernels have, and other code exactly for the operations that are named."""
    rung, names = RUNGS[rung], list(RUNGS)
    knobs = set(re.findall(r"#ifndef (\w+)", source.read_source("ladder_find")))
    assert set(rung.changes) <= knobs and rung.title and rung.reason
    if rung.parent:
        parent = RUNGS[rung.parent]
        assert names.index(parent.name) < names.index(rung.name)
        for operation in OPERATIONS:
            changed = rung.defines(operation) != parent.defines(operation)
            assert changed == (operation in rung.operations)


def test_the_last_rung_is_what_the_sources_are_by_default():
    text = source.read_source("ladder_find")
    defaults = dict(re.findall(r"#ifndef (\w+)\n#define \w+ (\w+)", text))
    settings = RUNGS[LAST].settings("find")
    assert {name: str(value) for name, value in settings.items()} == {
        name: defaults[name] for name in settings
    }


@needs_compiler
@each_rung
def test_a_rung_compiles_and_keeps_its_registers(rung):
    for operation in RUNGS[rung].operations:
        module = f"ladder_{operation}"
        _, (kernel,) = source.compile_offline(module, 90, RUNGS[rung].defines(operation))
        print(f"{module:<14} {rung:<10} {kernel.registers} registers, {kernel.shared_nbytes} B")
        assert kernel.spill_nbytes == 0


@needs_compiler
@pytest.mark.parametrize("arch", [75, 80, 120])
@pytest.mark.parametrize("rung", ["v1", "v6", "compact", "cuckoo", "keep_index", "staged"])
def test_a_rung_compiles_for_others(rung, arch):
    for operation in RUNGS[rung].operations:
        assert source.compile_offline(f"ladder_{operation}", arch, RUNGS[rung].defines(operation))


# ---- Against a dict


@pytest.mark.gpu
@each_rung
@pytest.mark.parametrize(("n", "key_nbytes", "value_nbytes"), SHAPES)
def test_against_a_dict(rung, n, key_nbytes, value_nbytes):
    """Duplicates in a batch, updates, hits, misses, both mixed; erase, and insert again."""
    generator = np.random.default_rng(n)
    keys = distinct_keys(min(2 * n, 256) if key_nbytes == 1 else 2 * n, key_nbytes, generator)
    present, absent = np.split(keys, 2)
    some = present[generator.integers(0, len(present), n)]
    oracle = Oracle(LadderTable(rung, 3 * n, key_nbytes, value_nbytes))
    oracle.find(keys)
    oracle.erase(keys)
    oracle.insert(some, noise(n, value_nbytes, generator))
    oracle.find(present)
    oracle.find(absent)
    oracle.insert(generator.permutation(some), noise(n, value_nbytes, generator))
    oracle.find(keys)
    oracle.erase(some[: n // 2 + 1])
    oracle.find(generator.permutation(keys))
    oracle.insert(keys[generator.integers(0, len(keys), n)], noise(n, value_nbytes, generator))
    oracle.find(keys)
    oracle.erase(keys)
    assert not oracle.records and not oracle.table.find(cupy.asarray(keys))[1].any()


@pytest.mark.gpu
@each_rung
def test_the_last_of_many_duplicates_wins(rung):
    """Some hundred rows for each key, new keys and known ones."""
    generator = np.random.default_rng(2)
    keys = distinct_keys(40, 16, generator)
    oracle = Oracle(LadderTable(rung, 3 * 4097, 16, 64))
    for known in (0, 20, 40):
        rows = generator.integers(0, max(20, known), 4097)
        oracle.insert(keys[rows], noise(4097, 64, generator))
        oracle.find(keys)
    oracle.erase(keys[rows])


@pytest.mark.gpu
@each_rung
@pytest.mark.parametrize("load", [0.5, 0.8])
def test_a_table_as_full_as_it_may_be(rung, load):
    generator = np.random.default_rng(3)
    keys = distinct_keys(4000, 8, generator)
    oracle = Oracle(LadderTable(rung, 2000, 8, 16, load))
    for part in np.split(keys[:2000], 4):
        oracle.insert(part, noise(500, 16, generator))
    oracle.find(keys)
    more = oracle.table.insert(cupy.asarray(keys[:3]), cupy.asarray(noise(3, 16, generator)))
    assert more.get().tolist() == [NO_SPACE] * 3
    oracle.find(keys)
    oracle.table.clear()
    assert not oracle.table.find(cupy.asarray(keys))[1].any()


@pytest.mark.gpu
def test_keys_that_move_are_not_lost():
    """At a load that two buckets do not always bear: what is refused is not there, all else is."""
    generator = np.random.default_rng(4)
    keys, values = distinct_keys(20_000, 16, generator), noise(20_000, 16, generator)
    table = LadderTable("cuckoo", len(keys), 16, 16, 0.95)
    status = table.insert(cupy.asarray(keys), cupy.asarray(values)).get()
    found, there = (array.get() for array in table.find(cupy.asarray(keys)))
    assert 0 < (status == NO_SPACE).sum() < 200
    assert np.array_equal(there, status == STORED)
    assert np.array_equal(found[there], values[there])


# ---- Against the table that serves the cache


@pytest.mark.gpu
@each_rung
def test_against_the_cache(rung):
    generator = np.random.default_rng(5)
    keys = distinct_keys(2000, 16, generator)
    rows, values = keys[generator.integers(0, 1000, 1500)], noise(1500, 64, generator)
    table = LadderTable(rung, 1500, 16, 64)
    with Predis("64MiB", backend="cuda") as cache:
        cache.insert(cupy.asarray(rows), cupy.asarray(values))
        table.insert(cupy.asarray(rows), cupy.asarray(values))
        assert np.array_equal(
            table.erase(cupy.asarray(keys[500:700])).get(), cache.erase(keys[500:700])
        )
        expected = cache.find(keys).to_pylist()
    found, there = (array.get() for array in table.find(cupy.asarray(keys)))
    assert there.tolist() == [value is not None for value in expected]
    assert found.tobytes() == b"".join(value or bytes(64) for value in expected)


# ---- The table


@pytest.mark.gpu
def test_what_a_table_refuses():
    with pytest.raises(ValueError, match="4096 bytes"):
        LadderTable("v1", 10, 16, 4097)
    for arguments in [(0, 16, 16), (10, 0, 16), (10, 16, -1), (10, 16, 16, 1.0)]:
        with pytest.raises(ValueError, match="are needed"):
            LadderTable("v2", *arguments)
    table = LadderTable(LAST, 10, 16, 64)
    keys, values = cupy.zeros((3, 16), cupy.uint8), cupy.zeros((3, 64), cupy.uint8)
    for wrong in [
        lambda: table.find(values),
        lambda: table.find(keys.get()),
        lambda: table.insert(keys, values[:2]),
        lambda: table.insert(keys, values, cupy.zeros(2, cupy.uint8)),
        lambda: table.erase(keys[:, :8]),
    ]:
        with pytest.raises(UnsupportedType):
            wrong()


@pytest.mark.gpu
def test_bytes_moved_are_counted():
    def counted(rung):
        return [LadderTable(rung, 10, 16, 64).bytes_moved(operation) for operation in OPERATIONS]

    assert counted("v1") == [177, 197, 53]
    assert counted("v4") == [185, 193, 65]
    assert counted(LAST) == [241, 249, 121]
    assert counted("bucket32") == [209, 217, 89]
    assert counted("compact") == [233, 241, 113]
