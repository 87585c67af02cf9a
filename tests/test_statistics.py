"""Statistics against SciPy, against brute force, and against simulated data whose truth is known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from predis_lab.bench import statistics

SAMPLES = st.lists(st.floats(0.1, 1e6), min_size=2, max_size=40)


def blocks(generator, n, centre=100.0, noise=0.03):
    return generator.normal(centre, centre * noise, n)


def test_speedup_has_one_direction():
    assert statistics.speedup(30.0, 10.0) == 3.0
    assert statistics.speedup(0.1, 0.3, better="lower") == pytest.approx(3.0)
    with pytest.raises(ValueError, match="better"):
        statistics.speedup(1.0, 1.0, better="faster")


def test_intervals_agree_with_scipy():
    generator = np.random.default_rng(1)
    a, b = blocks(generator, 40, 120), blocks(generator, 40, 100)
    ours = statistics.ratio_interval(a, b)
    theirs = stats.bootstrap(
        (a, b),
        lambda x, y, axis: np.median(x, axis=axis) / np.median(y, axis=axis),
        method="percentile",
        n_resamples=4000,
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, rel=0.005)
    assert ours.high == pytest.approx(theirs.high, rel=0.005)
    assert ours.low < 1.2 < ours.high


def test_the_interval_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(300):
        interval = statistics.ratio_interval(blocks(generator, 20, 150), blocks(generator, 20, 100))
        covered += interval.low <= 1.5 <= interval.high
    assert 0.91 <= covered / 300 <= 0.995


@given(SAMPLES, SAMPLES)
def test_cliffs_delta_is_its_definition(a, b):
    pairs = [(x > y) - (x < y) for x in a for y in b]
    assert statistics.cliffs_delta(a, b) == pytest.approx(sum(pairs) / len(pairs))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_is_its_definition(p):
    order = sorted(range(len(p)), key=lambda i: p[i])
    expected, highest = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
        expected[i] = highest
    assert statistics.holm(p) == pytest.approx(expected)


def test_p_is_scipys():
    generator = np.random.default_rng(4)
    a, b = blocks(generator, 12, 102), blocks(generator, 15, 100)
    expected = stats.mannwhitneyu(a, b, method="exact").pvalue
    assert statistics.compare(a, b).p == pytest.approx(expected)


@pytest.mark.parametrize("tests", [1, 10, 200])
def test_min_blocks_is_the_first_that_suffices(tests):
    n = statistics.min_blocks(tests)
    p = [2 / math.comb(2 * m, m) * tests for m in (n - 1, n)]
    assert p[0] >= statistics.ALPHA > p[1]
    a, b = np.arange(n) + 100.0, np.arange(n) + 1.0
    assert stats.mannwhitneyu(a, b, method="exact").pvalue * tests < statistics.ALPHA


def test_one_system_against_itself_comes_out_the_same():
    generator = np.random.default_rng(5)
    verdicts = [
        statistics.compare(blocks(generator, 30), blocks(generator, 30)).verdict for _ in range(400)
    ]
    assert verdicts.count("same") / 400 >= 0.95
    assert verdicts.count("faster") + verdicts.count("slower") <= 2


def test_a_table_of_nothing_has_no_winners():
    generator = np.random.default_rng(6)
    tables = [
        statistics.judge(
            [statistics.compare(blocks(generator, 12), blocks(generator, 12)) for _ in range(20)]
        )
        for _ in range(20)
    ]
    winners = [row for table in tables for row in table if row.verdict in ("faster", "slower")]
    assert not winners


@pytest.mark.parametrize(("centre", "verdict"), [(120.0, "faster"), (80.0, "slower")])
def test_a_real_effect_is_found(centre, verdict):
    generator = np.random.default_rng(7)
    verdicts = [
        statistics.compare(
            blocks(generator, 15, centre), blocks(generator, 15), noise_floor=0.03
        ).verdict
        for _ in range(100)
    ]
    assert verdicts.count(verdict) >= 99


def test_times_are_better_when_lower():
    generator = np.random.default_rng(8)
    row = statistics.compare(blocks(generator, 12, 50), blocks(generator, 12, 100), better="lower")
    assert row.verdict == "faster" and row.ratio == pytest.approx(2, rel=0.1) and row.delta == 1.0


def test_an_effect_below_the_noise_floor_is_not_claimed():
    generator = np.random.default_rng(9)
    a, b = blocks(generator, 40, 110, 0.01), blocks(generator, 40, 100, 0.01)
    assert statistics.compare(a, b, noise_floor=0.0).verdict == "faster"
    assert statistics.compare(a, b, noise_floor=0.2).verdict == "same"


def test_the_noise_floor_grows_with_noise():
    generator = np.random.default_rng(10)
    quiet = statistics.noise_floor(
        blocks(generator, 30, noise=0.01), blocks(generator, 30, noise=0.01)
    )
    loud = statistics.noise_floor(
        blocks(generator, 30, noise=0.2), blocks(generator, 30, noise=0.2)
    )
    assert 0 < quiet < 0.03 < loud


def test_too_little_to_judge_is_refused():
    for values in ([1.0], [], [1.0, math.nan]):
        with pytest.raises(ValueError, match="finite"):
            statistics.median_interval(values)
