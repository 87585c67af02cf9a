"""Random numbers of the stand-in."""

from __future__ import annotations

from typing import Any

import numpy as np


def randint(low: int, high: int, size: int, dtype: Any = int) -> Any:
    """A device array of integers."""
    from . import asarray

    return asarray(np.random.default_rng(0).integers(low, high, size, dtype))


class RandomState:
    """NumPy's own, with device arrays for answers."""

    def __init__(self, seed: int):
        self._host = np.random.RandomState(seed)

    def permutation(self, n: int) -> Any:
        from . import asarray

        return asarray(self._host.permutation(n))

    def randint(self, low: int, high: int, size: int) -> Any:
        from . import asarray

        return asarray(self._host.randint(low, high, size))
