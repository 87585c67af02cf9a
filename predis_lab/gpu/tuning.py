"""What the engine chooses by, and what a model of the machine makes it choose. Called by `tuner` and, to pin it, by `client`.

Plain arithmetic, without CUDA: see `stages` for the model, `measuring` for where its constants come from, `tuner` for how
a choice follows what calls really take.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace

from ..errors import InvalidArgument
from . import stages
from .sizing import (
    CHUNK_NBYTES,
    DEPTH,
    MOST_DEPTH,
    PACKERS,
    ROWS,
    SMALL_NBYTES,
)
from .stages import DOORBELL, LAUNCH, PIPELINE, Estimate, Machine, Setting, Shape

# In a single launch nothing overlaps, and all that it carries is pinned at once: not thought of for more than this.
MOST_SMALL_NBYTES = 2**27
LEAST_CHUNK_NBYTES = 256  # what chunks are cut by
PREFERRED = 0.01  # of the time: settings that gain less are not taken instead of today's own


@dataclass(frozen=True)
class Tuning:
    """Thresholds between the ways through, and how the pipeline goes.

    >>> from predis_lab import Predis, Tuning
    >>> cache = Predis("64MiB", tuning=Tuning(small_nbytes=2**20, depth=2))

    doorbell_rows:  keys that are asked at the doorbell at once, where there is one; 0: none
    small_nbytes:   a call with less traffic than this, both ways together, is one launch on mapped memory; bytes
    chunk_nbytes:   of records or answers, that go through the pipeline at once; at most what the cache's rings hold
    depth:          chunks under way at once, in as many buffers
    packers:        cores that copy pageable columns together
    raises:         InvalidArgument for what is out of range; what is more than a cache has is cut to what it has
    """

    doorbell_rows: int = ROWS
    small_nbytes: int = SMALL_NBYTES
    chunk_nbytes: int = CHUNK_NBYTES
    depth: int = DEPTH
    packers: int = PACKERS

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise InvalidArgument(
                    f"{name} is a whole number from {least:,} to {most:,}, not {value!r}"
                )

    @property
    def setting(self) -> Setting:
        """What the pipeline needs of it."""
        return Setting(self.chunk_nbytes, self.depth, self.packers)

    def fitted(self, bell: int, room_nbytes: int) -> Tuning:
        """What a cache with this doorbell and these rings can do of it."""
        most = max(
            room_nbytes // self.depth // LEAST_CHUNK_NBYTES * LEAST_CHUNK_NBYTES, LEAST_CHUNK_NBYTES
        )
        chunk, rows = min(self.chunk_nbytes, most), min(self.doorbell_rows, bell)
        return replace(self, doorbell_rows=rows, chunk_nbytes=chunk)

    def going(self, way: str, shape: Shape, setting: Setting) -> Tuning:
        """The same with this setting, and thresholds that send such a call that way: they are one number for many shapes."""
        bell, small, traffic = self.doorbell_rows, self.small_nbytes, math.ceil(shape.traffic)
        if way == DOORBELL:
            bell = max(bell, shape.rows)
        elif shape.rows <= bell:
            bell = shape.rows - 1
        if way == LAUNCH:
            small = max(small, traffic)
        elif way == PIPELINE:
            small = min(small, traffic - 1)
        return Tuning(bell, small, *asdict(setting).values())

    def way(self, rows: int, traffic: float) -> str:
        """The way of a call by these thresholds; where the doorbell does not serve it, that of none of its rows."""
        if 0 < rows <= self.doorbell_rows:
            return DOORBELL
        return LAUNCH if traffic <= self.small_nbytes else PIPELINE


_RANGES = {
    "doorbell_rows": (0, ROWS),
    "small_nbytes": (0, 2**30),
    "chunk_nbytes": (LEAST_CHUNK_NBYTES, 2**30),
    "depth": (2, MOST_DEPTH),
    "packers": (1, 64),
}


@dataclass(frozen=True)
class Choice:
    """What a model chooses for one shape of call, and what it expects of each way.

    tuning:     whose thresholds send such a call this way
    estimates:  by way, of those that are open to it
    """

    shape: Shape
    way: str
    tuning: Tuning
    estimates: dict[str, Estimate]

    @property
    def seconds(self) -> float:
        """Expected of the call."""
        return self.estimates[self.way].seconds


def choose(machine: Machine, shape: Shape) -> Choice:
    """The way and the setting that take least time, of all that `estimates_of` knows; see there."""
    setting = best_setting(machine, shape)
    estimates = estimates_of(machine, shape, setting)
    way = min(estimates, key=lambda one: estimates[one].seconds)
    bell, small = _crossings(machine, shape, setting)
    tuning = Tuning(bell, small, *asdict(setting).values()).going(way, shape, setting)
    return Choice(shape, way, tuning, estimates)


def estimates_of(machine: Machine, shape: Shape, setting: Setting) -> dict[str, Estimate]:
    """By each way that is open to such a call; the first that takes least time is the one to go."""
    found = {}
    if machine.bell_s is not None and stages.fits_doorbell(shape):
        found[DOORBELL] = stages.by_doorbell(machine, shape)
    if shape.traffic <= MOST_SMALL_NBYTES:
        found[LAUNCH] = stages.by_launch(machine, shape)
    return found | {PIPELINE: stages.by_pipeline(machine, shape, setting)}


def ranked_settings(machine: Machine, shape: Shape) -> list[tuple[float, Setting]]:
    """Every setting with what a call takes, the best first, but today's own before those that gain less than PREFERRED.

    Those of `stages.settings`, and what lies half-way between the best of them and the next ones.
    """

    def timed(those: Iterable[Setting]) -> list[tuple[float, Setting]]:
        return [(stages.by_pipeline(machine, shape, one).seconds, one) for one in those]

    found = timed(stages.settings(machine, shape))
    found += timed(stages.neighbours(machine, shape, min(found, key=lambda one: one[0])[1]))
    best = min(seconds for seconds, _ in found)
    return sorted(found, key=lambda one: max(one[0], best * (1 + PREFERRED)))


def best_setting(machine: Machine, shape: Shape) -> Setting:
    """The first of `ranked_settings`."""
    return ranked_settings(machine, shape)[0][1]


def _crossings(machine: Machine, shape: Shape, setting: Setting) -> tuple[int, int]:
    """Up to how many rows of such calls the doorbell is best, and up to which traffic a launch beats the pipeline."""

    def beats(one: str, other: str) -> Callable[[int], bool]:
        def faster(rows: int) -> bool:
            found = estimates_of(machine, replace(shape, rows=rows), setting)
            return one in found and found[one].seconds <= found[other].seconds

        return faster

    per_row = shape.up + shape.down
    small = _last(beats(LAUNCH, PIPELINE), int(MOST_SMALL_NBYTES / per_row))
    return _last(beats(DOORBELL, LAUNCH), shape.bell), int(small * per_row)


def _last(holds: Callable[[int], bool], most: int) -> int:
    """The largest number up to `most` that something holds for, which does so for all smaller ones or for none."""
    return bisect.bisect_left(range(1, most + 1), True, key=lambda number: not holds(number))
