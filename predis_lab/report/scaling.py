"""How rates grow with the keys of a call, and where that ends. Called by the report's figures and sentences.

Growth over a step is an exponent: 1 where the rate grows as the keys do, 0 where more keys gain nothing, below 0 where they
cost. Its interval is that of the ratio of both rates, so that a bend is claimed only where the samples show one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..bench.statistics import Interval, ratio_interval

LINEAR = 0.9  # growth from which on a rate is called proportional to the keys
LEVEL = 0.1  # growth up to which nothing is gained any more


@dataclass(frozen=True)
class Step:
    """From `fewer` keys a call to `more`."""

    fewer: int
    more: int
    growth: Interval

    @property
    def said(self) -> str:
        """In one word what the whole interval says; "unclear" where it says nothing."""
        if self.growth.low >= LINEAR:
            return "linear"
        if self.growth.high <= LEVEL:
            return "level" if self.growth.high >= -LEVEL else "falling"
        return "bending" if self.growth.high < LINEAR else "unclear"


@dataclass(frozen=True)
class Cost:
    """What the first and the last number of keys tell of a call, were it a fixed part and a part for each key.

    call_s:    seconds of a call of the fewest keys
    key_s:     seconds a key of a call of the most
    balance:   keys at which both parts would be equal: no rate stays proportional beyond
    """

    fewest: int
    most: int
    call_s: float
    key_s: float

    @property
    def balance(self) -> float:
        return self.call_s / self.key_s


def steps(rates: Mapping[int, np.ndarray]) -> list[Step]:
    """Each step of one system, from blocks of operations a second by keys a call, ascending."""
    return [Step(fewer, more, _growth(rates[fewer], rates[more], more / fewer)) for fewer, more in pairwise(rates)]  # fmt: skip


def bend(found: Sequence[Step]) -> Step | None:
    """The first step over which the rate grew by less than the keys did, beyond doubt; None where the samples show none."""
    return next((step for step in found if step.growth.high < LINEAR), None)


def cost(rates: Mapping[int, np.ndarray]) -> Cost:
    """From the medians at both ends."""
    fewest, most = min(rates), max(rates)
    return Cost(
        fewest,
        most,
        fewest / float(np.median(rates[fewest])),
        1 / float(np.median(rates[most])),
    )


def _growth(before: np.ndarray, after: np.ndarray, keys: float) -> Interval:
    ratio = ratio_interval(after, before)
    value, low, high = (
        math.log(end) / math.log(keys) for end in (ratio.value, ratio.low, ratio.high)
    )
    return Interval(value, low, high, ratio.n)
