"""The whole session in memory of one size: the longer it lasts, the wider the parts it is shown in. Called by `session`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .ticks import Tick

PARTS = 480  # at most; then two become one
FIRST_S = 1.0  # width of a part in the beginning


@dataclass
class Part:
    """Sums over some seconds: rates of both systems, and latencies where there were any.

    >>> part = Part(0.0)
    >>> part.add((2.0, 4.0), (None, 0.5)); part.add((4.0, 4.0), (None, 1.5))
    >>> part.rates(), part.latencies()
    ((3.0, 4.0), (None, 1.0))
    """

    start: float
    ticks: int = 0
    rate_sums: tuple[float, float] = (0.0, 0.0)
    latency_sums: tuple[float, float] = (0.0, 0.0)
    latency_ticks: tuple[int, int] = (0, 0)

    def add(self, rates: Sequence[float], p50s: Sequence[float | None]) -> None:
        """One tick."""
        self.ticks += 1
        self.rate_sums = _plus(self.rate_sums, rates)
        self.latency_sums = _plus(self.latency_sums, [p50 or 0.0 for p50 in p50s])
        self.latency_ticks = _plus(self.latency_ticks, [p50 is not None for p50 in p50s])

    def join(self, other: Part) -> None:
        """Takes a later part in."""
        self.ticks += other.ticks
        self.rate_sums = _plus(self.rate_sums, other.rate_sums)
        self.latency_sums = _plus(self.latency_sums, other.latency_sums)
        self.latency_ticks = _plus(self.latency_ticks, other.latency_ticks)

    def rates(self) -> tuple[float, float]:
        """Mean operations a second of each system."""
        return self.rate_sums[0] / self.ticks, self.rate_sums[1] / self.ticks

    def latencies(self) -> tuple[float | None, float | None]:
        """Mean of the medians, in seconds; None where there was none."""
        first, second = (
            total / ticks if ticks else None
            for total, ticks in zip(self.latency_sums, self.latency_ticks, strict=True)
        )
        return first, second


class History:
    """Parts of equal width since the session began; those without a tick are left out."""

    def __init__(self) -> None:
        self.width_s = FIRST_S
        self.parts: list[Part] = []

    def add(self, tick: Tick) -> None:
        """Counts a tick where it belongs; ticks come in the order of time."""
        start = tick.at // self.width_s * self.width_s
        if not self.parts or self.parts[-1].start < start:
            self.parts.append(Part(start))
        rates, p50s = zip(*((side.rate, side.p50) for side in tick.sides), strict=True)
        self.parts[-1].add(rates, p50s)
        if len(self.parts) > PARTS:
            self._widen()

    def _widen(self) -> None:
        self.width_s *= 2
        joined: list[Part] = []
        for part in self.parts:
            part.start = part.start // self.width_s * self.width_s
            if joined and joined[-1].start == part.start:
                joined[-1].join(part)
            else:
                joined.append(part)
        self.parts = joined


def _plus(one: Sequence, other: Sequence) -> tuple:
    return one[0] + other[0], one[1] + other[1]
