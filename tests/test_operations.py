"""Operations: their columns and batches, keys and values by number, and the distributions that everything is drawn from."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from predis_lab.bench import operations, workloads
from predis_lab.bench.operations import Operations, Verb

UNLIKELY = 1e-6  # tests are seeded: a p below this is a fault, not bad luck


def rng(seed=0):
    return np.random.default_rng(seed)


def zipf_shares(records, alpha):
    weights = np.arange(1, records + 1) ** -float(alpha)
    return weights / weights.sum()


def chi_square(counts, shares):
    """p of these counts, rare categories taken together."""
    expected = shares * counts.sum()
    first = np.flatnonzero(np.diff(np.cumsum(expected) // 20, prepend=-1.0))
    counts, expected = (np.add.reduceat(side, first) for side in (counts, expected))
    return stats.chisquare(counts, expected).pvalue


def some(n=1000, seed=0):
    """Operations of all verbs on records of one size, which have times and times to live."""
    generator = rng(seed)
    data = operations.of_one_size("some", 50, 12, 20)
    verb = generator.integers(0, len(Verb), n).astype(np.uint8)
    record = generator.integers(0, 50, n)
    start_s = np.sort(generator.random(n))
    ttl_s = generator.integers(1, 9, n).astype(np.int32)
    return data, operations.written(data, verb, record, start_s=start_s, ttl_s=ttl_s)


# ---- Operations and batches


def test_only_what_is_stored_has_a_size_and_a_time_to_live():
    _, some_operations = some()
    stores = np.isin(some_operations.verb, [Verb.WRITE, Verb.READ_MODIFY_WRITE])
    assert set(some_operations.value_nbytes[stores]) == {20}
    assert not some_operations.value_nbytes[~stores].any()
    assert some_operations.ttl_s[stores].all() and not some_operations.ttl_s[~stores].any()
    assert some_operations.value_nbytes.dtype == some_operations.ttl_s.dtype == np.int32


@pytest.mark.parametrize("part", [slice(10, 20), slice(3, None, 4), slice(0, 0)])
def test_a_part_is_that_part_of_every_column(part):
    _, whole = some(100)
    for name in ("verb", "record", "value_nbytes", "start_s", "ttl_s"):
        assert np.array_equal(getattr(whole[part], name), getattr(whole, name)[part])
    assert len(whole[part]) == len(range(100)[part])


def test_parts_of_operations_without_times_have_none():
    _, whole = some(10)
    part = Operations(whole.verb, whole.record, whole.value_nbytes)[2:5]
    assert len(part) == 3 and part.start_s is None and part.ttl_s is None


def test_a_mix_is_the_share_of_each_verb():
    verb = np.array([Verb.READ] * 6 + [Verb.WRITE] * 3 + [Verb.DELETE], np.uint8)
    mix = Operations(verb, np.zeros(10, np.int64), np.zeros(10, np.int32)).mix()
    assert mix == {Verb.READ: 0.6, Verb.WRITE: 0.3, Verb.DELETE: 0.1}


@pytest.mark.parametrize("size", [1, 7, 250, 1000, 5000])
def test_batches_hold_each_operation_once_and_in_order(size):
    data, whole = some(999)
    batches = list(whole.batches(data, size))
    assert len(batches) == -(-999 // size)
    columns = {
        "read_keys": [Verb.READ, Verb.READ_MODIFY_WRITE],
        "write_keys": [Verb.WRITE, Verb.READ_MODIFY_WRITE],
        "delete_keys": [Verb.DELETE],
    }
    for name, verbs in columns.items():
        meant = whole.record[np.isin(whole.verb, verbs)]
        sent = [key for batch in batches for key in getattr(batch, name).to_pylist()]
        assert sent == data.keys(meant).to_pylist()
    values = [value for batch in batches for value in batch.write_values.to_pylist()]
    stores = whole.record[np.isin(whole.verb, columns["write_keys"])]
    assert values == data.records(stores).values.to_pylist()
    assert np.array_equal(np.concatenate([batch.start_s for batch in batches]), whole.start_s)
    assert np.array_equal(
        np.concatenate([batch.write_ttl_s for batch in batches]), whole.ttl_s[whole.ttl_s > 0]
    )


def test_a_batch_is_told_what_the_next_one_reads():
    data, whole = some(1000)
    hinted = list(operations.hinted(whole.batches(data, 300)))
    assert len(hinted) == 4
    for (_, hint), (batch, _) in pairwise(hinted):
        assert hint.equals(batch.read_keys) and len(hint)
    assert hinted[-1][1] is None
    assert list(operations.hinted(whole[:0].batches(data, 300))) == []


def test_pacing_keeps_the_arrivals_and_changes_their_rate():
    _, whole = some(1001)
    paced = whole.paced(50)
    assert paced.start_s[0] == 0 and paced.start_s[-1] == pytest.approx(1000 / 50)
    assert np.corrcoef(paced.start_s, whole.start_s)[0, 1] == pytest.approx(1)
    assert np.array_equal(paced.record, whole.record)


def test_what_has_no_pace_is_not_paced():
    _, whole = some(10)
    columns = whole.verb, whole.record, whole.value_nbytes
    with pytest.raises(ValueError, match="without intended start times"):
        Operations(*columns).paced(5)
    with pytest.raises(ValueError, match="all start at once"):
        Operations(*columns, start_s=np.ones(10)).paced(5)


# ---- Records by number


@settings(deadline=None, max_examples=30)
@given(
    numbers=st.lists(st.integers(0, 2**62), min_size=1, max_size=50), key_nbytes=st.integers(8, 80)
)
def test_a_key_is_a_bijection_of_its_number(numbers, key_nbytes):
    keys = operations.numbered_keys(np.array(numbers), key_nbytes)
    assert keys.type == pa.binary(key_nbytes) and len(keys) == len(numbers)
    assert len({key[:8] for key in keys.to_pylist()}) == len(set(numbers))
    for number, key in zip(numbers, keys.to_pylist(), strict=True):
        assert operations.numbered_keys(np.array([number]), key_nbytes)[0].as_py() == key


def test_keys_begin_as_those_of_fixed_records_and_differ_in_every_word():
    keys = operations.numbered_keys(np.arange(20_000), 24).to_pylist()
    fixed = workloads.fixed(20_000, 24).keys.to_pylist()
    assert [key[:8] for key in keys] == [key[:8] for key in fixed]
    assert len({key[at : at + 8] for key in keys for at in (0, 8, 16)}) == 3 * 20_000


@pytest.mark.parametrize("key_nbytes", [0, 7])
def test_a_key_too_short_for_its_number_is_refused(key_nbytes):
    with pytest.raises(ValueError, match=f"a key of {key_nbytes} bytes .* 8 or more"):
        operations.numbered_keys(np.arange(3), key_nbytes)


@pytest.mark.parametrize("value_nbytes", [1, 8, 9, 1000, 70_000])
def test_values_of_one_size_tell_their_record(value_nbytes):
    data = operations.of_one_size("one", 100, 16, value_nbytes)
    records = data.records(np.arange(100))
    assert records.values.type == pa.binary(value_nbytes)
    for key, value in zip(records.keys.to_pylist(), records.values.to_pylist(), strict=True):
        assert value[:8] == key[:value_nbytes][:8]
    assert records.values.slice(5, 3).equals(data.records(np.arange(5, 8)).values)


@given(st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 300)), max_size=40))
def test_noise_has_the_sizes_asked_for_and_is_a_function_of_record_and_size(rows):
    numbers, sizes = np.array(rows, np.int64).reshape(-1, 2).T
    values = operations.noise(numbers, sizes).to_pylist()
    assert [len(value) for value in values] == sizes.tolist()
    stamps = [key[:8] for key in operations.numbered_keys(numbers, 8).to_pylist()]
    for (number, size), value, stamp in zip(rows, values, stamps, strict=True):
        assert value[:8] == stamp[:size]
        assert operations.noise(np.array([number]), np.array([size]))[0].as_py() == value


# ---- Which record


@pytest.mark.parametrize("records", [1, 2, 10, 1000, 50_000])
@pytest.mark.parametrize("alpha", [0, 0.3048, 0.99, 1, 1.000001, 1.3724, 2.1])
def test_zipf_has_the_probabilities_of_its_name(records, alpha):
    n = 200_000
    ranks = operations.zipf(rng(5), records, alpha, n)
    assert ranks.dtype == np.int64 and len(ranks) == n
    counts = np.bincount(ranks, minlength=records)
    assert len(counts) == records
    if records > 1:
        assert chi_square(counts, zipf_shares(records, alpha)) > UNLIKELY
    assert counts[0] == pytest.approx(zipf_shares(records, alpha)[0] * n, abs=6 * n**0.5)


@pytest.mark.parametrize("alpha", [0.5, 0.99, 2.1])
def test_zipf_is_exact_where_draws_are_refused(alpha):
    counts = np.bincount(operations.zipf(rng(7), 5, alpha, 4_000_000), minlength=5)
    assert chi_square(counts, zipf_shares(5, alpha)) > UNLIKELY


def test_zipf_over_very_many_records_stays_among_them():
    records = 2**31
    ranks = operations.zipf(rng(6), records, 0.5, 100_000)
    assert ranks.min() >= 0 and ranks.max() < records
    # For alpha 0.5 the share of the first k is near the root of k / records.
    assert stats.kstest(np.sqrt(ranks / records), "uniform").pvalue > UNLIKELY


@pytest.mark.parametrize("size", [0, 1, 2**15, 2**15 + 1])
def test_zipf_draws_as_many_as_asked_for(size):
    assert len(operations.zipf(rng(), 100, 0.99, size)) == size


@given(st.integers(1, 3000))
def test_scrambling_is_a_bijection(records):
    numbers = operations.scrambled(np.arange(records), records)
    assert np.array_equal(np.sort(numbers), np.arange(records))


@settings(deadline=None)
@given(st.integers(1000, 2**31))
def test_popular_records_lie_spread_out(records):
    popular = operations.scrambled(np.arange(100), records)
    assert popular.min() >= 0 and popular.max() < records
    tenths = np.bincount(popular * 10 // records, minlength=10)
    assert tenths.min() >= 5 and tenths.max() <= 15


def test_too_many_records_to_scramble_are_refused():
    with pytest.raises(ValueError, match="2147483649 records are too many"):
        operations.scrambled(np.arange(3), 2**31 + 1)


def test_a_hotspot_has_its_share():
    n = 100_000
    ranks = operations.hotspot(rng(), 1000, 100, 0.8, n)
    counts = np.bincount(ranks, minlength=1000)
    assert stats.binomtest(int(counts[:100].sum()), n, 0.8).pvalue > UNLIKELY
    assert stats.chisquare(counts[:100]).pvalue > UNLIKELY
    assert stats.chisquare(counts[100:]).pvalue > UNLIKELY


def test_latest_asks_for_what_was_inserted_last():
    records, n = 1000, 50_000
    inserts = rng(1).random(n) < 0.05
    numbers = operations.latest(rng(2), inserts, records, 0.99)
    assert np.array_equal(numbers[inserts], np.arange(records, records + inserts.sum()))
    newest = records - 1 + np.cumsum(inserts)
    age = (newest - numbers)[~inserts]
    assert age.min() == 0 and age.max() < records
    counts = np.bincount(age, minlength=records)
    assert chi_square(counts, zipf_shares(records, 0.99)) > UNLIKELY


def test_choices_are_drawn_by_share():
    n = 50_000
    counts = Counter(operations.drawn(rng(), np.array([7, 8, 9]), [0.2, 0.3, 0.3], n).tolist())
    assert stats.chisquare([counts[c] for c in (7, 8, 9)], [n / 4, n * 3 / 8, n * 3 / 8]).pvalue > (
        UNLIKELY
    )
    assert set(operations.drawn(rng(), np.array([7, 8]), [1, 0], 1000)) == {7}


# ---- When


def test_arrivals_follow_their_curve():
    curve = np.array([1.0, 5.0, 2.0, 8.0])
    start_s = operations.arrivals(rng(), curve, 40, 50_000)
    assert np.all(np.diff(start_s) >= 0) and start_s[0] >= 0 and start_s[-1] < 40
    counts = np.bincount((start_s // 10).astype(int))
    assert stats.chisquare(counts, curve / curve.sum() * 50_000).pvalue > UNLIKELY
    within = start_s[(start_s >= 30)] - 30
    assert stats.kstest(within / 10, "uniform").pvalue > UNLIKELY


def test_arrivals_are_as_irregular_as_those_of_a_poisson_process():
    start_s = operations.arrivals(rng(), np.ones(3), 1000, 50_000)
    counts = np.bincount(start_s.astype(int), minlength=1000)
    assert 0.8 < counts.var() / counts.mean() < 1.2
    gaps = np.diff(start_s)
    assert stats.kstest(gaps / gaps.mean(), "expon").pvalue > UNLIKELY
