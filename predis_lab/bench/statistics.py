"""From blocks to verdicts: intervals, tests, corrections. Called by `harness`, notebooks and reports.

Everything works on one number per block. The block is the unit of replication: ten thousand latencies of one
loop are one measurement. Figures' intervals are 95 % percentile bootstrap intervals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

Values = Sequence[float] | np.ndarray  # one per block

ALPHA = 0.001  # what a claimed win has to stay under, after correction
LEVEL = 0.95
RESAMPLES = 4000
EQUIVALENCE = 0.05  # differences up to here are called the same, if the noise is not larger


@dataclass(frozen=True)
class Interval:
    """A value and the interval it lies in; n values went into it."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Comparison:
    """Candidate against baseline. `ratio` above 1 means that the candidate is better."""

    ratio: float
    low: float
    high: float
    p: float
    p_adjusted: float
    delta: float  # Cliff's: 1 where every block of the candidate is better
    n_candidate: int
    n_baseline: int
    noise_floor: float
    verdict: str  # "faster", "slower", "same" or "ambiguous"


def speedup(candidate: Any, baseline: Any, *, better: str = "higher") -> Any:
    """How many times better the candidate is; numbers, or arrays of them.

    better: "higher" for rates (candidate / baseline), "lower" for times (baseline / candidate)

    >>> speedup(20.0, 10.0), speedup(20.0, 10.0, better="lower")
    (2.0, 0.5)
    """
    if better not in ("higher", "lower"):
        raise ValueError(f'better is "higher" or "lower", not {better!r}')
    return candidate / baseline if better == "higher" else baseline / candidate


def median_interval(values: Values, *, seed: int = 0) -> Interval:
    """The median with its bootstrap interval."""
    sample = _sample(values)
    medians = _resampled_medians(sample, np.random.default_rng(seed))
    return Interval(float(np.median(sample)), *_percentiles(medians), len(sample))


def ratio_interval(
    candidate: Values, baseline: Values, *, better: str = "higher", seed: int = 0
) -> Interval:
    """`speedup` of the medians with its bootstrap interval; both sides are resampled independently."""
    a, b = _sample(candidate), _sample(baseline)
    generator = np.random.default_rng(seed)
    resampled = _resampled_medians(a, generator), _resampled_medians(b, generator)
    ratios = np.asarray(speedup(*resampled, better=better))
    value = float(speedup(np.median(a), np.median(b), better=better))
    return Interval(value, *_percentiles(ratios), min(len(a), len(b)))


def cliffs_delta(candidate: Values, baseline: Values) -> float:
    """Share of pairs in which the candidate's value is larger, minus the share in which it is smaller.

    >>> cliffs_delta([2, 3], [1, 1])
    1.0
    """
    a, b = _sample(candidate), np.sort(_sample(baseline))
    smaller = np.searchsorted(b, a, side="left").sum()
    larger = (len(b) - np.searchsorted(b, a, side="right")).sum()
    return float(smaller - larger) / (len(a) * len(b))


def holm(p_values: Values) -> np.ndarray:
    """p-values corrected for being many (Holm, 1979), in the same order.

    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    scaled = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(scaled, 1.0)
    return adjusted


def min_blocks(tests: int, alpha: float = ALPHA) -> int:
    """Blocks a side from which on the rank test can fall below alpha at all, after correction for `tests`.

    >>> min_blocks(1), min_blocks(50)
    (7, 10)
    """
    n = 1
    while 2 / math.comb(2 * n, n) >= alpha / tests:
        n += 1
    return n


def compare(
    candidate: Values,
    baseline: Values,
    *,
    better: str = "higher",
    noise_floor: float = 0.0,
) -> Comparison:
    """One comparison, judged by itself; `judge` corrects a table of them."""
    a, b = _sample(candidate), _sample(baseline)
    interval = ratio_interval(a, b, better=better)
    exact = len(np.unique(np.concatenate([a, b]))) == len(a) + len(b)  # no ties
    p = float(stats.mannwhitneyu(a, b, method="exact" if exact else "asymptotic").pvalue)
    delta = cliffs_delta(a, b) * (1 if better == "higher" else -1)
    return _judged(
        Comparison(
            interval.value,
            interval.low,
            interval.high,
            p,
            p,
            delta,
            len(a),
            len(b),
            noise_floor,
            "",
        )
    )


def judge(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons with p corrected for their number, and verdicts to match."""
    adjusted = holm([comparison.p for comparison in comparisons])
    return [
        _judged(replace(comparison, p_adjusted=float(p)))
        for comparison, p in zip(comparisons, adjusted, strict=True)
    ]


def noise_floor(first: Values, second: Values) -> float:
    """What two runs of one and the same system differ by: the ratio of their medians, less 1, the larger way round.

    Nothing smaller is ever claimed as a difference. How far such a ratio scatters is no part of it: a comparison's
    own interval says that, and has to lie beyond the floor as a whole.
    """
    a, b = np.median(_sample(first)), np.median(_sample(second))
    return float(max(a / b, b / a)) - 1


def _judged(comparison: Comparison) -> Comparison:
    """Faster or slower: p below ALPHA, and the whole interval further from 1 than the noise floor. Same: the whole
    interval within EQUIVALENCE (or the noise floor, if larger) of 1. Ambiguous: neither.

    Two samples of one system are called faster or slower in at most ALPHA of all cases. With 30 blocks a side
    that vary by 3 % (one standard deviation) they are called the same in at least 95 %.
    """
    beyond = 1 + comparison.noise_floor
    within = 1 + max(EQUIVALENCE, comparison.noise_floor)
    verdict = "ambiguous"
    if comparison.p_adjusted < ALPHA and comparison.low > beyond:
        verdict = "faster"
    elif comparison.p_adjusted < ALPHA and comparison.high < 1 / beyond:
        verdict = "slower"
    elif 1 / within <= comparison.low and comparison.high <= within:
        verdict = "same"
    return replace(comparison, verdict=verdict)


def _sample(values: Values) -> np.ndarray:
    sample = np.asarray(values, np.float64)
    if sample.ndim != 1 or len(sample) < 2 or not np.isfinite(sample).all():
        raise ValueError("two or more finite values are needed, one per block")
    return sample


def _resampled_medians(sample: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    rows = generator.integers(0, len(sample), (RESAMPLES, len(sample)))
    return np.median(sample[rows], axis=1)


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
