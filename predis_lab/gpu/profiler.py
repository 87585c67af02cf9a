"""Kernels timed by the device's clock, beside what they move and what the device could: for notebooks.

What the hardware counts while they run comes from `counters`; what compiling took, from `modules.compile_reports`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import cupy

from . import modules
from .device import Device
from .occupancy import Occupancy


@dataclass(frozen=True)
class Profile:
    """One call, timed several times over."""

    name: str
    seconds: tuple[float, ...]  # per repeat
    nbytes: int  # moved per call, counted by hand
    peak_bandwidth: float | None  # of the device's memory, in theory, B/s
    occupancy: Occupancy | None  # theoretical, of the kernel that was named

    @property
    def median_seconds(self) -> float:
        return statistics.median(self.seconds)

    @property
    def bandwidth(self) -> float:
        """Achieved, B/s, by the median."""
        return self.nbytes / self.median_seconds

    @property
    def share(self) -> float | None:
        """Of the theoretical bandwidth; None where the device does not tell it."""
        return self.bandwidth / self.peak_bandwidth if self.peak_bandwidth else None


class Profiler:
    """Profiles calls on the current device; `profiles` keeps them in their order.

    >>> profiler = Profiler()  # doctest: +SKIP
    >>> profiler.profile("gather", call, nbytes=2 * n * 64, repeats=20, kernel=("limits", "gather"))  # doctest: +SKIP
    """

    columns = ("", "time", "bandwidth", "of the peak", "occupancy, theory", "limited by")

    def __init__(self) -> None:
        self._peak = Device.current().memory_bandwidth
        self.profiles: list[Profile] = []

    def profile(
        self,
        name: str,
        call: Callable[[], object],
        *,
        nbytes: int,
        repeats: int,
        prepare: Callable[[], object] = lambda: None,
        kernel: tuple[str, str] | tuple[str, str, tuple[str, ...]] | None = None,
    ) -> Profile:
        """Times a call that enqueues its work on the current stream; the first call is not counted.

        nbytes: read and written by one call. prepare: called before each call and not timed, e.g. to put back what it
        takes out. kernel: (module, kernel[, defines]) of which the occupancy is told.
        raises: ValueError without repeats
        """
        if repeats < 1:
            raise ValueError(f"{repeats} repeats")
        began, ended = cupy.cuda.Event(), cupy.cuda.Event()
        seconds = []
        for _ in range(1 + repeats):
            prepare()
            began.record()
            call()
            ended.record()
            ended.synchronize()
            seconds.append(cupy.cuda.get_elapsed_time(began, ended) * 1e-3)
        occupancy = modules.occupancy_of(modules.function(*kernel)) if kernel else None
        found = Profile(name, tuple(seconds[1:]), nbytes, self._peak, occupancy)
        self.profiles.append(found)
        return found

    def table(self) -> list[list[str]]:
        """Rows of text under `columns`, one per profile; empty where something is not known."""
        return [
            [
                one.name,
                f"{one.median_seconds * 1e6:,.1f} µs",
                f"{one.bandwidth / 1e9:,.1f} GB/s",
                "" if one.share is None else f"{one.share:.0%}",
                f"{one.occupancy.share:.0%}" if one.occupancy else "",
                ", ".join(one.occupancy.limited_by) if one.occupancy else "",
            ]
            for one in self.profiles
        ]
