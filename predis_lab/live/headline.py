"""The numbers of the moment, from ticks that belong together: medians, ratios with intervals, trends. Called by `page`, notebook 10.

Pure: the same ticks give the same numbers. Ratios come from `bench.statistics`, where they are defined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..bench.statistics import Interval, ratio_interval, speedup
from ..report import units
from .ticks import PREDIS, REDIS, Tick

NOW_S = 6.0  # that a median is taken over
TREND_S = 10.0  # of which the later half is compared with the earlier one
STEADY = 0.03  # changes up to here are none
SPARK = 40  # points of a sparkline
Read = Callable[[Tick], float | None]


@dataclass(frozen=True)
class Number:
    """One headline number. value: in base units, None where nothing tells it.

    trend: share by which the last seconds are above those before; None where that can't be told
    spark: the last minute, thinned out
    side:  "predis", "redis" or "" for neither
    """

    key: str
    label: str
    value: float | None
    unit: str
    side: str = ""
    trend: float | None = None
    spark: tuple[float | None, ...] = ()

    @property
    def text(self) -> str:
        """For a person, unit included."""
        if self.value is None:
            return "…"
        if self.unit == "x":
            return times(self.value)
        if self.unit == "cores":
            return f"{self.value:.1f}"
        if self.unit == "%":
            return f"{self.value:.1%}".replace("100.0%", "100%")
        return (
            f"{self.value:.0f}"
            if self.unit == "1"
            else units.format_quantity(self.value, self.unit)
        )


@dataclass(frozen=True)
class Headline:
    """What stands at the top. speedup: Predis over Redis in operations a second, over the slices of the last seconds.

    latency_ratio: Redis over Predis, medians of calls; tail_ratio: the same of p99; None where calls were too few
    offered:       operations a second that both were offered, None where each was asked as fast as it answers
    """

    speedup: Interval | None
    latency_ratio: float | None
    tail_ratio: float | None
    rates: tuple[float, float]
    offered: int | None
    unsent: tuple[int, int]
    numbers: tuple[Number, ...]

    def number(self, key: str) -> Number:
        """One of them by its key."""
        return next(number for number in self.numbers if number.key == key)


def times(ratio: float) -> str:
    """A ratio for a person.

    >>> times(27.83), times(0.978), times(212.4)
    ('27.8x', '0.978x', '212x')
    """
    return f"{units.digits(ratio)}x"


def headline(ticks: Sequence[Tick]) -> Headline | None:
    """From the ticks of one segment, oldest first; None where there is none."""
    if not ticks:
        return None
    now = [tick for tick in ticks if tick.at > ticks[-1].at - NOW_S]
    rates = [[tick.sides[side].rate for tick in now] for side in (PREDIS, REDIS)]
    enough = len(now) >= 2 and min(map(min, rates)) > 0
    offered = now[-1].controls.rate or None
    return Headline(
        ratio_interval(*rates) if enough else None,
        _latency_ratio(now[-1], "p50"),
        _latency_ratio(now[-1], "p99"),
        (float(np.median(rates[PREDIS])), float(np.median(rates[REDIS]))),
        offered,
        (sum(t.sides[PREDIS].unsent for t in now), sum(t.sides[REDIS].unsent for t in now)),
        tuple(_numbers(ticks, now)),
    )


def trend(ticks: Sequence[Tick], read: Read) -> float | None:
    """Share by which the mean of the last TREND_S / 2 is above that of as many seconds before."""
    end = ticks[-1].at
    if end - ticks[0].at < 0.9 * TREND_S:
        return None
    later, earlier = (
        [v for t in ticks if low < end - t.at <= high and (v := read(t)) is not None]
        for low, high in ((-1.0, TREND_S / 2), (TREND_S / 2, TREND_S))
    )
    if not later or not earlier or not np.mean(earlier):
        return None
    return float(np.mean(later) / np.mean(earlier)) - 1


def _latency_ratio(tick: Tick, percentile: str) -> float | None:
    predis, redis = (getattr(side, percentile) for side in tick.sides)
    return float(speedup(predis, redis, better="lower")) if predis and redis else None


def _numbers(ticks: Sequence[Tick], now: Sequence[Tick]) -> list[Number]:
    step = -(-len(ticks) // SPARK)

    def number(key: str, label: str, unit: str, read: Read, side: str = "") -> Number:
        told = [value for tick in now if (value := read(tick)) is not None]
        value = float(np.median(told)) if told else None
        spark = tuple(read(tick) for tick in ticks[::step])
        return Number(key, label, value, unit, side, trend(ticks, read), spark)

    def of(side: int, name: str) -> Read:
        return lambda tick: getattr(tick.sides[side], name)

    def reading(name: str) -> Read:
        return lambda tick: tick.readings.get(name)

    return [
        number("latency_ratio", "latency, Redis / Predis", "x", lambda t: _latency_ratio(t, "p50")),
        number("predis_rate", "operations", "1/s", of(PREDIS, "rate"), "predis"),
        number("redis_rate", "operations", "1/s", of(REDIS, "rate"), "redis"),
        number("predis_p50", "median of a call", "s", of(PREDIS, "p50"), "predis"),
        number("redis_p50", "median of a call", "s", of(REDIS, "p50"), "redis"),
        number("predis_p99", "p99 of a call", "s", of(PREDIS, "p99"), "predis"),
        number("redis_p99", "p99 of a call", "s", of(REDIS, "p99"), "redis"),
        number("predis_hits", "hit ratio", "%", reading("predis_hits"), "predis"),
        number("redis_hits", "hit ratio", "%", reading("redis_hits"), "redis"),
        number("gpu_utilisation", "GPU busy", "%", reading("gpu_utilisation")),
        number("gpu_memory", "GPU memory in use", "B", reading("gpu_memory")),
        number("predis_memory", "memory", "B", reading("predis_memory"), "predis"),
        number("redis_memory", "memory", "B", reading("redis_memory"), "redis"),
        number("connections", "connections", "1", reading("connections"), "redis"),
        number("chunk_nbytes", "a chunk, by the tuner", "B", reading("chunk_nbytes")),
        number("promoted_rate", "brought up", "B/s", reading("promoted_rate")),
        number("load_cpu", "cores of the load process", "cores", reading("load_cpu")),
        number("other_cpu", "cores of all others", "cores", reading("other_cpu")),
    ]
