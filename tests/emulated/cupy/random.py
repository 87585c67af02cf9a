"""Random numbers of the stand-in."""

from __future__ import annotations

from typing import Any

import numpy as np


class RandomState:
    """NumPy's own, with device arrays for answers."""

    def __init__(self, seed: int):
        self._host = np.random.RandomState(seed)

    def permutation(self, n: int) -> Any:
        from . import asarray

        return asarray(self._host.permutation(n))
