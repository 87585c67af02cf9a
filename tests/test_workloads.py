"""Workloads: the records that caches are filled with, and the keys that are asked for."""

import json
import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predis_lab.bench import workloads
from predis_lab.bench.workloads import Records


def lengths(column):
    return np.array([len(row) for row in column.to_pylist()])


def variable(n):
    """n records of variable length, without the data set."""
    keys = [b"key-%d" % (7**i) for i in range(n)]
    return Records("variable", pa.array(keys, pa.binary()), pa.array(keys[::-1], pa.binary()))


@pytest.fixture(scope="module")
def airports():
    return workloads.airports()


# ---- fixed


@settings(deadline=None, max_examples=30)
@given(
    n=st.integers(1, 3000),
    key_nbytes=st.integers(8, 40),
    value_nbytes=st.integers(1, 100),
    seed=st.integers(0, 2**32),
)
def test_fixed_records_have_the_sizes_asked_for(n, key_nbytes, value_nbytes, seed):
    records = workloads.fixed(n, key_nbytes, value_nbytes, seed=seed)
    assert len(records) == len(records.keys) == len(records.values) == n
    assert records.keys.type == pa.binary(key_nbytes)
    assert records.values.type == pa.binary(value_nbytes)
    assert records.keys.null_count == records.values.null_count == 0
    assert len(set(records.keys.to_pylist())) == n


def test_keys_differ_in_their_first_eight_bytes_already():
    keys = workloads.fixed(50_000, 24).keys.to_pylist()
    assert len({key[:8] for key in keys}) == 50_000


def test_a_seed_tells_the_records():
    one, same, other = (workloads.fixed(500, 16, 64, seed=seed) for seed in (1, 1, 2))
    assert one.keys.equals(same.keys) and one.values.equals(same.values)
    assert not set(one.keys.to_pylist()) & set(other.keys.to_pylist())
    assert not set(one.values.to_pylist()) & set(other.values.to_pylist())


def test_values_are_incompressible():
    import zlib

    raw = b"".join(workloads.fixed(2000, 16, 64).values.to_pylist())
    assert len(zlib.compress(raw, 9)) > 0.99 * len(raw)


@pytest.mark.parametrize("key_nbytes", [0, 1, 7])
def test_a_key_too_short_for_its_number_is_refused(key_nbytes):
    with pytest.raises(ValueError, match=f"a key of {key_nbytes} bytes .* 8 or more"):
        workloads.fixed(10, key_nbytes)


# ---- Real records, and more of them than there are


def test_airports_are_real_records(airports):
    assert len(airports) > 20_000
    keys = airports.keys.to_pylist()
    assert len(set(keys)) == len(keys)
    for key, value in zip(keys, airports.values.to_pylist(), strict=True):
        # The data set writes local codes, of airports that ICAO gave none, with an underscore.
        assert re.fullmatch(rb"[A-Z0-9_][A-Z0-9]{3}", key), key
        facts = json.loads(value)
        assert facts["icao"].encode() == key and facts["name"]
    assert len(np.unique(lengths(airports.values))) > 50


@pytest.mark.parametrize("n", [1, 6, 7, 8, 13, 14, 15, 100])
@pytest.mark.parametrize("source", [variable(7), workloads.fixed(7)], ids=["variable", "fixed"])
def test_repeated_records_are_the_real_ones_under_distinct_keys(source, n):
    many = workloads.repeated(source, n)
    keys, values = many.keys.to_pylist(), many.values.to_pylist()
    assert len(many) == len(values) == len(set(keys)) == n
    own = source.keys.to_pylist()
    for row, (key, value) in enumerate(zip(keys, values, strict=True)):
        assert key.endswith(own[row % 7])
        assert value == source.values[row % 7].as_py()


def test_airports_beyond_the_data_set(airports):
    n = 2 * len(airports) + 11
    many = workloads.repeated(airports, n)
    assert len(many) == len(set(many.keys.to_pylist())) == n
    assert many.keys[n - 1].as_py() == b"2:" + airports.keys[10].as_py()
    assert many.name != airports.name
    assert set(lengths(many.keys)) == {6}


# ---- Keys to ask for


@pytest.mark.parametrize("hit_ratio", [0.0, 0.001, 0.25, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("size", [1, 10, 999])
@pytest.mark.parametrize("records", [variable(50), workloads.fixed(50)], ids=["variable", "fixed"])
def test_a_share_of_the_keys_hits(records, size, hit_ratio):
    keys = workloads.pick(records, size, hit_ratio=hit_ratio, seed=4).to_pylist()
    known = set(records.keys.to_pylist())
    assert len(keys) == size
    assert sum(key in known for key in keys) == round(size * hit_ratio)


def test_hits_and_misses_are_mixed():
    records = workloads.fixed(1000)
    known = set(records.keys.to_pylist())
    hit = np.array(
        [key in known for key in workloads.pick(records, 1000, hit_ratio=0.5).to_pylist()]
    )
    assert 400 < np.count_nonzero(hit[1:] != hit[:-1]) < 600
    assert 200 < hit[:500].sum() < 300


def test_hits_are_drawn_from_all_records():
    records = workloads.fixed(20)
    counts = np.unique(workloads.pick(records, 4000, seed=1).to_pylist(), return_counts=True)[1]
    assert len(counts) == 20 and counts.min() > 100 and counts.max() < 300


def test_a_seed_tells_the_keys(airports):
    for records in (workloads.fixed(1000), airports):
        one, same, other = (
            workloads.pick(records, 100, hit_ratio=0.5, seed=seed) for seed in (1, 1, 2)
        )
        assert one.equals(same) and not one.equals(other)


@pytest.mark.parametrize("size", [0, 1, 5000])
def test_absent_keys_are_in_no_data_set(airports, size):
    for records in (workloads.fixed(5000, seed=3), airports, workloads.repeated(airports, 60_000)):
        keys = workloads.absent(records, size, seed=1)
        assert len(keys) == len(set(keys.to_pylist())) == size
        assert keys.type == records.keys.type
        assert not set(keys.to_pylist()) & set(records.keys.to_pylist())


def test_absent_keys_differ_where_records_do_from_their_first_bytes_on():
    taken = {key[:8] for key in workloads.fixed(50_000).keys.to_pylist()}
    assert not {key[:8] for key in workloads.absent(workloads.fixed(1), 50_000).to_pylist()} & taken


# ---- describe


@given(st.lists(st.tuples(st.binary(max_size=50), st.binary(max_size=50)), min_size=1, max_size=40))
def test_a_description_is_what_numpy_counts(rows):
    columns = [pa.array(column, pa.binary()) for column in zip(*rows, strict=True)]
    facts = Records("drawn", *columns).describe()
    assert facts["records"] == len(rows)
    for side, column in zip(("key", "value"), columns, strict=True):
        counted = lengths(column)
        assert facts[f"{side}_nbytes_mean"] == pytest.approx(counted.mean())
        assert facts[f"{side}_nbytes_min"] == counted.min()
        assert facts[f"{side}_nbytes_max"] == counted.max()
    json.dumps(facts)


def test_a_description_of_records_of_one_size():
    facts = workloads.fixed(10, 12, 34).describe()
    sizes = {name: facts[name] for name in facts if name != "records"}
    assert sizes == {
        f"{side}_nbytes_{which}": nbytes
        for side, nbytes in (("key", 12), ("value", 34))
        for which in ("mean", "min", "max")
    }
