"""Latencies of the last seconds in memory of one size: the buckets of an HDR histogram, as arrays. Called by `worker`."""

from __future__ import annotations

from collections import deque

import numpy as np

from ..bench.harness import PERCENTILES

_BITS = 7  # after the leading one: a bucket is at most 1/128 of its values wide
BUCKETS = (64 - _BITS) << _BITS
_ENOUGH = dict(PERCENTILES.values())  # calls that a percentile needs


def counted(latencies_ns: np.ndarray) -> np.ndarray:
    """How many latencies fall into each bucket; int64, BUCKETS.

    latencies_ns: int64, 1 or more each
    """
    exponent = np.frexp(latencies_ns.astype(np.float64))[1] - 1 - _BITS
    shift = np.maximum(exponent, 0)
    return np.bincount((shift << _BITS) + (latencies_ns >> shift), minlength=BUCKETS)


def value_ns(bucket: int) -> int:
    """The middle of a bucket.

    >>> latencies = np.array([1, 255, 1_000_000])
    >>> [value_ns(int(bucket)) for bucket in np.flatnonzero(counted(latencies))]
    [1, 255, 1001472]
    """
    shift = max(0, (bucket >> _BITS) - 1)
    low = (bucket - (shift << _BITS)) << shift
    return low + (1 << shift >> 1)


class Window:
    """The slices of the last `span_s` seconds together.

    >>> window = Window(5.0)
    >>> window.add(np.arange(1, 101) * 1000, at_s=0.0)
    >>> round(window.percentile(50.0), 9), window.percentile(99.0)
    (5.0048e-05, None)
    """

    def __init__(self, span_s: float):
        self._span_s = span_s
        self._slices: deque[tuple[float, np.ndarray]] = deque()
        self._sum = np.zeros(BUCKETS, np.int64)

    def add(self, latencies_ns: np.ndarray, at_s: float) -> None:
        """A slice that ended at that moment; those that are too old leave."""
        counts = counted(latencies_ns)
        self._slices.append((at_s, counts.astype(np.int32)))
        self._sum += counts
        while self._slices[0][0] < at_s - self._span_s:
            self._sum -= self._slices.popleft()[1]

    def clear(self) -> None:
        """Forgets all."""
        self._slices.clear()
        self._sum[:] = 0

    def percentile(self, percentile: float) -> float | None:
        """Seconds that this share of the calls took at most; None where they are too few to tell."""
        total = int(self._sum.sum())
        if total < _ENOUGH[percentile]:
            return None
        rank = max(1, int(np.ceil(total * percentile / 100)))
        return value_ns(int(np.searchsorted(np.cumsum(self._sum), rank))) * 1e-9
