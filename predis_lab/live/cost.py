"""What it costs to look: processor time of the page's process, and updates a second. Called by `page`."""

from __future__ import annotations

import time
from collections import deque

import psutil

KEPT = 40  # updates that the rate is taken over
EVERY_S = 2.0


class Cost:
    """Of this process, for all its viewers together."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent()  # from here on
        self._next, self._busy, self._nbytes = time.monotonic() + EVERY_S, 0.0, 0
        self.viewers = 0

    def read(self) -> tuple[float, int]:
        """Share of a core since the last reading, and bytes resident; renewed now and then."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + EVERY_S
            self._busy = self._process.cpu_percent() / 100
            self._nbytes = self._process.memory_info().rss
        return self._busy, self._nbytes


class Rate:
    """Updates a second of one viewer."""

    def __init__(self) -> None:
        self._moments: deque[float] = deque(maxlen=KEPT)

    def count(self) -> None:
        """One more, now."""
        self._moments.append(time.monotonic())

    def value(self) -> float:
        """Over the last of them; 0 before there are two."""
        if len(self._moments) < 2:
            return 0.0
        return (len(self._moments) - 1) / (self._moments[-1] - self._moments[0])
