"""Each workload against its own description: mix, skew, sizes, times, and what is peculiar to it."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy import stats

from predis_lab.bench import operations, scenarios
from predis_lab.bench.operations import Verb
from predis_lab.bench.scenarios import SCENARIOS

UNLIKELY = 1e-6  # tests are seeded: a p below this is a fault, not bad luck
N = 100_000
TIMED = ("trading", "gaming", *(name for name in SCENARIOS if name.startswith("production")))


def has_share(counted, n, share):
    return stats.binomtest(int(counted), int(n), share).pvalue > UNLIKELY


def follows(start_s, curve, duration_s):
    """Kolmogorov and Smirnov's test of times against a curve of relative rates."""
    cumulated = np.concatenate([[0], np.cumsum(curve)]) / curve.sum()
    edges = np.linspace(0, duration_s, len(curve) + 1)
    return stats.kstest(start_s, lambda s: np.interp(s, edges, cumulated)).pvalue > UNLIKELY


def follows_zipf(record, records, alpha):
    """Whether the most popular numbers, which scrambling tells, come as often as Zipf says."""
    counts = np.bincount(record, minlength=records)
    popular = counts[operations.scrambled(np.arange(50), records)]
    weights = np.arange(1, records + 1) ** -alpha
    shares = weights / weights.sum() * counts.sum()
    observed = [*popular, counts.sum() - popular.sum()]
    expected = [*shares[:50], shares[50:].sum()]
    return stats.chisquare(observed, expected).pvalue > UNLIKELY


# ---- All of them


@pytest.fixture(scope="module", params=SCENARIOS)
def scenario(request):
    return SCENARIOS[request.param](10_000)


def test_a_scenario_goes_by_its_name():
    for name, build in SCENARIOS.items():
        assert build().name == build().data.name == name


def test_columns_are_of_one_length_and_their_types(scenario):
    made = scenario.operations(1234, seed=3)
    dtypes = {"verb": np.uint8, "record": np.int64, "value_nbytes": np.int32}
    if made.start_s is not None:
        dtypes["start_s"] = np.float64
    if made.ttl_s is not None:
        dtypes["ttl_s"] = np.int32
    for name, dtype in dtypes.items():
        assert getattr(made, name).dtype == dtype and len(getattr(made, name)) == 1234
    assert (made.start_s is not None) == (scenario.name in TIMED)
    assert made.record.min() >= 0


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_operations_are_operations_too(scenario, n):
    assert len(scenario.operations(n)) == n
    assert len(list(scenario.operations(n).batches(scenario.data, 2))) == min(n, 1)


def test_a_seed_tells_the_operations(scenario):
    one, same, other = (scenario.operations(2000, seed=seed) for seed in (1, 1, 2))
    for name in ("verb", "record", "value_nbytes", "start_s", "ttl_s"):
        assert np.array_equal(getattr(one, name), getattr(same, name))
    assert not np.array_equal(one.record, other.record)


def test_starts_ascend(scenario):
    start_s = scenario.operations(5000, seed=1).start_s
    if start_s is not None:
        assert start_s[0] >= 0 and np.all(np.diff(start_s) >= 0)


def test_records_have_distinct_keys_and_the_sizes_announced(scenario):
    numbers = np.arange(scenario.data.count)
    records = scenario.data.records(numbers)
    assert pc.count_distinct(records.keys).as_py() == len(records) == scenario.data.count
    announced = scenario.data.value_nbytes(numbers)
    assert np.array_equal(pc.binary_length(records.values).to_numpy(), announced)
    assert announced.dtype == np.int32


def test_reads_find_what_was_filled_in_and_writes_store_the_same(scenario):
    filled = scenario.data.records(np.arange(scenario.data.count))
    stored = dict(zip(filled.keys.to_pylist(), filled.values.to_pylist(), strict=True))
    made = scenario.operations(3000, seed=2)
    known = made.record < scenario.data.count
    for batch in made.batches(scenario.data, 1000):
        pairs = zip(batch.write_keys.to_pylist(), batch.write_values.to_pylist(), strict=True)
        assert all(stored.setdefault(key, value) == value for key, value in pairs)
    asked = scenario.data.keys(made.record[known]).to_pylist()
    assert len(asked) and set(asked) <= set(stored)


# ---- Trading


@pytest.fixture(scope="module")
def trades():
    return SCENARIOS["trading"]().operations(N, seed=4)


def test_trading_reads_nine_times_of_ten(trades):
    assert has_share((trades.verb == Verb.READ).sum(), N, 0.9)
    assert set(trades.mix()) == {Verb.READ, Verb.WRITE}


def test_trading_writes_to_hot_symbols_and_mostly_reads_them(trades):
    hot = operations.scrambled(np.arange(100), 1000)
    reads = trades.record[trades.verb == Verb.READ]
    writes = trades.record[trades.verb == Verb.WRITE]
    assert set(writes) == set(hot)
    assert set(reads) == set(range(1000))
    assert has_share(np.isin(reads, hot).sum(), len(reads), 0.8)
    assert stats.chisquare(np.unique(writes, return_counts=True)[1]).pvalue > UNLIKELY


def test_trading_peaks_at_open_and_close(trades):
    day = 6.5 * 3600
    assert follows(trades.start_s, scenarios.market_day(), day)
    counts = np.bincount((trades.start_s / day * 13).astype(int))  # half-hours
    assert len(counts) == 13
    assert counts.argmax() == 0 and counts[1:].argmax() == 11
    assert counts[0] > 3 * counts[6] and counts[12] > 2.5 * counts[6]


# ---- Training


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_an_epoch_is_a_permutation_and_no_other_is_the_same(dtype):
    made = SCENARIOS[f"ml_training_{dtype}"](5000).operations(17_500)
    assert made.mix() == {Verb.READ: 1}
    epochs = [made.record[row : row + 5000] for row in range(0, 17_500, 5000)]
    for epoch in epochs[:3]:
        assert np.array_equal(np.sort(epoch), np.arange(5000))
        assert np.count_nonzero(epoch == np.arange(5000)) < 20
    assert len(np.unique(epochs[3])) == 2500
    assert not np.array_equal(epochs[0], epochs[1])


def test_hints_are_the_next_batch_over_the_end_of_an_epoch():
    training = SCENARIOS["ml_training_float32"](2000)
    made = training.operations(5000)
    hinted = list(operations.hinted(made.batches(training.data, scenarios.SAMPLES)))
    assert [len(batch.read_keys) for batch, _ in hinted] == [1000] * 5
    for number, (_, hint) in enumerate(hinted[:-1], 1):
        samples = made.record[1000 * number : 1000 * (number + 1)]
        assert hint.equals(training.data.keys(samples))
    assert hinted[-1][1] is None


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_samples_are_vectors_that_tell_their_record(dtype):
    data = SCENARIOS[f"ml_training_{dtype}"]().data
    numbers = np.array([0, 1, 2047, 2048, 99_999, 2**40 + 12_345])
    values = data.records(numbers).values
    assert values.type == pa.binary(512 * np.dtype(dtype).itemsize)
    grid = np.stack([np.frombuffer(value, dtype) for value in values.to_pylist()])
    assert np.isfinite(grid).all() and grid.shape == (6, 512)
    assert np.array_equal(grid[:, :4].astype(np.int64) @ 2048 ** np.arange(4), numbers)
    assert stats.kstest(grid[0, 4:].astype(float), "norm").pvalue > UNLIKELY


# ---- Gaming


@pytest.fixture(scope="module")
def play():
    # So many players that one hardly plays twice: a player is a session.
    return SCENARIOS["gaming"](2**31).operations(N, seed=5)


def test_gaming_reads_seven_times_of_ten(play):
    assert has_share((play.verb == Verb.READ).sum(), N, 0.7)
    assert set(play.mix()) == {Verb.READ, Verb.WRITE}


def test_a_session_is_one_players_and_begins_with_a_read(play):
    _, first, lengths = np.unique(play.record, return_index=True, return_counts=True)
    assert set(play.verb[first]) == {Verb.READ}
    # Geometric: mean, and share of the shortest. A player that plays twice is rare.
    assert lengths.mean() == pytest.approx(20, rel=0.05)
    assert has_share((lengths == 1).sum(), len(lengths), 1 / 20)
    order = np.lexsort((play.start_s, play.record))
    pauses = np.diff(play.start_s[order])[np.diff(play.record[order]) == 0]
    assert stats.kstest(pauses[pauses < 900] / 30, "expon").pvalue > UNLIKELY


def test_players_log_in_at_noon_and_in_the_evening(play):
    login = play.start_s[np.unique(play.record, return_index=True)[1]]
    assert follows(login, scenarios.login_day(), 24 * 3600)
    hours = np.bincount((login // 3600).astype(int), minlength=24)
    assert hours.argmax() in (19, 20, 21)
    assert hours[9:16].argmax() + 9 in (12, 13)
    assert hours[20] > 4 * hours[4] and hours[12] > 2 * hours[4]


def test_players_are_drawn_alike():
    record = SCENARIOS["gaming"](100).operations(N).record
    counts = np.bincount(record, minlength=100) / 20  # a session's operations are one draw
    assert len(counts) == 100 and stats.variation(counts) < 0.35


def test_states_are_json_that_names_its_player():
    data = SCENARIOS["gaming"]().data
    numbers = np.array([0, 1, 1023, 1024, 99_999])
    for number, value in zip(numbers, data.records(numbers).values.to_pylist(), strict=True):
        state = json.loads(value)
        assert int(state["player"]) == number and 1 <= state["level"] <= 60
        assert len(state["inventory"]) == state["level"] + 5
    sizes = data.value_nbytes(np.arange(5000))
    assert 400 < sizes.min() < 600 and 3000 < sizes.max() < 5000
    assert 1500 < np.median(sizes) < 2500


# ---- YCSB

PUBLISHED = {  # reads, writes, read-modify-writes
    "a": (0.5, 0.5, 0),
    "b": (0.95, 0.05, 0),
    "c": (1, 0, 0),
    "d": (0.95, 0.05, 0),
    "f": (0.5, 0, 0.5),
}


@pytest.mark.parametrize("letter", PUBLISHED)
def test_ycsb_has_the_published_mix(letter):
    made = SCENARIOS[f"ycsb_{letter}"](10_000).operations(N, seed=6)
    counts = np.bincount(made.verb, minlength=4)
    for counted, share in zip(counts, (*PUBLISHED[letter], 0), strict=True):
        assert has_share(counted, N, share) if 0 < share < 1 else counted == N * share


@pytest.mark.parametrize("letter", ["a", "b", "c", "f"])
def test_ycsb_asks_by_zipf_whatever_the_verb(letter):
    made = SCENARIOS[f"ycsb_{letter}"](10_000).operations(N, seed=7)
    for verb in made.mix():
        assert follows_zipf(made.record[made.verb == verb], 10_000, 0.99)


def test_ycsb_d_reads_what_was_inserted_last():
    made = SCENARIOS["ycsb_d"](10_000).operations(N, seed=8)
    inserts = made.verb == Verb.WRITE
    assert np.array_equal(made.record[inserts], np.arange(10_000, 10_000 + inserts.sum()))
    age = (9999 + np.cumsum(inserts) - made.record)[~inserts]
    assert age.min() == 0  # never one that is yet to come
    total = (1 / np.arange(1, 10_001) ** 0.99).sum()
    for late in (1, 10, 1000):
        share = (1 / np.arange(1, late + 1) ** 0.99).sum() / total
        assert has_share((age < late).sum(), len(age), share)


def test_ycsb_records_have_the_published_size():
    facts = SCENARIOS["ycsb_a"]().data.records(np.arange(10)).describe()
    assert facts["key_nbytes_min"] == facts["key_nbytes_max"] == 23
    assert facts["value_nbytes_min"] == facts["value_nbytes_max"] == 1000


# ---- Production

numbers_of_clusters = pytest.mark.parametrize("number", scenarios.CLUSTERS)


@numbers_of_clusters
def test_production_has_its_clusters_figures(number):
    cluster = scenarios.CLUSTERS[number]
    production = SCENARIOS[f"production_{number}"](20_000)
    made = production.operations(N, seed=9)
    reads = cluster.reads / (cluster.reads + cluster.writes)
    writes = made.verb == Verb.WRITE
    assert has_share(N - writes.sum(), N, reads) if reads < 1 else not writes.any()
    records = production.data.records(np.arange(3))
    assert records.keys.type == pa.binary(cluster.key_nbytes)
    assert records.values.type == pa.binary(cluster.value_nbytes)
    assert set(made.value_nbytes[writes]) <= {cluster.value_nbytes}
    once = made.record >= 20_000
    assert follows_zipf(made.record[~once], 20_000, cluster.alpha)
    gaps = np.diff(made.start_s) * cluster.rate
    assert stats.kstest(gaps, "expon").pvalue > UNLIKELY


@numbers_of_clusters
def test_one_hit_wonders_come_once_and_as_often_as_given(number):
    cluster = scenarios.CLUSTERS[number]
    made = SCENARIOS[f"production_{number}"](20_000).operations(N, seed=10)
    once = made.record[made.record >= 20_000]
    assert len(np.unique(once)) == len(once)
    # Of as many records as the requests are of at the mean frequency.
    wonders = N / cluster.mean_frequency * cluster.one_hit_wonders
    assert len(once) == pytest.approx(wonders, abs=6 * wonders**0.5)


@numbers_of_clusters
def test_times_to_live_are_drawn_by_share(number):
    cluster = scenarios.CLUSTERS[number]
    made = SCENARIOS[f"production_{number}"](20_000).operations(N, seed=11)
    writes = made.verb == Verb.WRITE
    assert not made.ttl_s[~writes].any()
    lifetimes, counts = np.unique(made.ttl_s[writes], return_counts=True)
    if writes.any():
        shares = np.array([cluster.ttl_s[seconds] for seconds in lifetimes.tolist()])
        assert len(lifetimes) == len(cluster.ttl_s)
        expected = shares / shares.sum() * writes.sum()
        assert stats.chisquare(counts, expected).pvalue > UNLIKELY
