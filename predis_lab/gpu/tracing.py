"""When each stage of each chunk began and ended: what the timeline in notebook 04 is drawn from. Called by `pipeline`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cupy


@dataclass(frozen=True)
class Interval:
    """One stage of one chunk, in seconds since the trace began."""

    stage: str  # "pack", "upload", "kernel" or "download"
    chunk: int
    start_s: float
    stop_s: float


class Trace:
    """Marks stages by the device's events, packing by the host's clock. Both clocks start together, to some 10 us."""

    def __init__(self) -> None:
        self._zero = cupy.cuda.Event()
        self._zero.record(cupy.cuda.get_current_stream())
        self._zero.synchronize()
        self._began = time.perf_counter()
        self._marks: list[tuple[str, int, Any, Any]] = []
        self._packed: list[tuple[int, float, float]] = []

    @contextmanager
    def span(self, stage: str, chunk: int, stream: Any) -> Iterator[None]:
        """What is enqueued on the stream inside."""
        start, stop = cupy.cuda.Event(), cupy.cuda.Event()
        start.record(stream)
        yield
        stop.record(stream)
        self._marks.append((stage, chunk, start, stop))

    def packed(self, chunk: int, start: float, stop: float) -> None:
        """One copy into a pinned buffer, in seconds of the host's clock."""
        self._packed.append((chunk, start - self._began, stop - self._began))

    def intervals(self) -> list[Interval]:
        """All of them; waits for the device."""
        found = [Interval("pack", *one) for one in self._packed]
        for stage, chunk, start, stop in self._marks:
            stop.synchronize()
            times = (cupy.cuda.get_elapsed_time(self._zero, one) / 1e3 for one in (start, stop))
            found.append(Interval(stage, chunk, *times))
        return found
