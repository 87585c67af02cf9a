"""Where the level of a series changed: E-divisive means, for a history of runs. Called by `regressions`.

Matteson and James, A Nonparametric Approach for Multiple Change Point Analysis of Multivariate Data (2014): the split whose
two sides are furthest apart in energy distance is a change point if few shuffled series have one as far apart; then each side
is searched for more. Values are compared by their logarithms, since noise and changes of speed are proportions.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .statistics import min_blocks

LEVEL = 0.01  # how often a series without a change is said to have one, at most
SHUFFLES = 999
FEWEST = 2  # values on either side
# Of fewer values, no split into halves is rare enough by chance.
NEEDED = 2 * min_blocks(1, LEVEL)


@dataclass(frozen=True)
class ChangePoint:
    """A new level begins with the value at `index`; it is `ratio` times the level before."""

    index: int
    ratio: float
    p: float


def change_points(values: Sequence[float] | np.ndarray, *, least: float) -> list[ChangePoint]:
    """The change points of a series of positive values, in order; none where it is shorter than NEEDED.

    least: what a change has to come to, as a share of the medians' ratio

    >>> [point.index for point in change_points([10, 10.1, 9.9, 10, 10.2, 10.1, 8, 8.1, 7.9, 8, 8.2], least=0.05)]
    [6]
    """
    logs = np.log(np.asarray(values, np.float64))
    found = _search(logs, 0, least, np.random.default_rng(0))
    edges = [0, *(index for index, _ in found), len(logs)]
    levels = [np.median(logs[a:b]) for a, b in itertools.pairwise(edges)]
    return [
        ChangePoint(index, float(np.exp(levels[i + 1] - levels[i])), p)
        for i, (index, p) in enumerate(found)
    ]


def _search(
    logs: np.ndarray, first: int, least: float, generator: np.random.Generator
) -> list[tuple[int, float]]:
    if len(logs) < NEEDED:
        return []
    distances = np.abs(logs[:, None] - logs)
    split, energy = _furthest(distances)
    if abs(np.median(logs[:split]) - np.median(logs[split:])) < np.log1p(least):
        return []
    orders = (generator.permutation(len(logs)) for _ in range(SHUFFLES))
    # Rounding must not make the same split under another order any less far apart.
    as_far = sum(_furthest(distances[np.ix_(o, o)])[1] >= energy * (1 - 1e-9) for o in orders)
    p = (1 + as_far) / (1 + SHUFFLES)
    if p > LEVEL:
        return []
    before = _search(logs[:split], first, least, generator)
    return [*before, (first + split, p), *_search(logs[split:], first + split, least, generator)]


def _furthest(distances: np.ndarray) -> tuple[int, float]:
    """The split with the largest energy distance between its sides, and that distance."""
    a = np.arange(FEWEST, len(distances) - FEWEST + 1)  # how many values lie before it
    b = len(distances) - a
    sums = distances.cumsum(0).cumsum(1)
    left, across = sums[a - 1, a - 1], sums[a - 1, -1] - sums[a - 1, a - 1]
    right = sums[-1, -1] - left - 2 * across
    apart = 2 * across / (a * b) - left / (a * (a - 1)) - right / (b * (b - 1))
    energies = a * b / (a + b) * apart
    return int(a[energies.argmax()]), float(energies.max())
