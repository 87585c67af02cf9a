"""What the dashboard plays: five scenes, what of each can be changed, and what a viewer is told beforehand.

Called by `worker`, which plays them, and by `session` and `page`, which show them. Nothing here measures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ..bench.operations import (
    Operations,
    Verb,
    arrivals,
    drawn,
    of_one_size,
    scrambled,
    written,
    zipf,
)
from ..bench.scenarios import Scenario, market_day, ml_training, trading

BATCHES = (1, 10, 100, 1000, 10_000)
VALUES = (16, 64, 256, 1024, 2048, 4096)  # bytes
THREADS = (1, 2, 4, 8)
READS = (0.0, 0.5, 0.7, 0.9, 0.95, 1.0)
# Operations a second; 0: as fast as each answers.
RATES = (0, 1000, 5000, 20_000, 50_000, 200_000, 1_000_000)
FOUND = 0.95  # of reads, where a scene reads records that are not there too
SKEW = 0.99
SLICE_S = (
    0.06  # of load on one system: long enough to time, short enough for several pairs a second
)
PERIOD_S = 0.15  # from pair to pair: both slices, and time to sum up
DAY_S = 6.0  # of load that a trading day takes here


class ControlError(ValueError):
    """A scene that there is not, or a control set to what it can't have."""


@dataclass(frozen=True)
class Controls:
    """What a viewer can set. rate: operations a second that are offered to each system; 0: as fast as it answers."""

    batch: int = 1000
    value_nbytes: int = 64
    threads: int = 1
    reads: float = 0.9
    rate: int = 0

    def params(self, scene: str) -> dict[str, Any]:
        """As a sample's parameters, under the names that comparisons know."""
        named = {"records": scene, "keys": self.batch, "value_nbytes": self.value_nbytes}
        return named | {"threads": self.threads, "reads": self.reads, "rate": self.rate}

    @classmethod
    def of_params(cls, params: dict[str, Any]) -> Controls:
        """The way back."""
        batch, value_nbytes, threads = (
            int(params[name]) for name in ("keys", "value_nbytes", "threads")
        )
        return cls(batch, value_nbytes, threads, float(params["reads"]), int(params["rate"]))


CHOICES: dict[str, tuple] = {
    "batch": BATCHES,
    "value_nbytes": VALUES,
    "threads": THREADS,
    "reads": READS,
    "rate": RATES,
}


@dataclass(frozen=True)
class Scene:
    """One thing to watch.

    says:    what happens, before any number is known
    look_at: what to look at
    start:   controls it begins with
    fixed:   controls that its description leaves no choice of
    records: that both systems are filled with
    curve:   relative rates of arrival over DAY_S, where operations come in bursts
    hints:   whether each batch's successor is announced to Predis
    capacities: of Predis on the device and on the host, where it is not to have all the room there is
    """

    title: str
    says: str
    look_at: str
    start: Controls
    make: Callable[[str, Controls, int], Scenario]
    fixed: tuple[str, ...] = ()
    records: int = 20_000
    curve: np.ndarray | None = None
    hints: bool = False
    capacities: tuple[str, str] | None = None

    def with_controls(self, before: Controls, **changes: Any) -> Controls:
        """The controls after a change; raises ControlError before anything has changed."""
        for name, value in changes.items():
            if name not in CHOICES:
                raise ControlError(f"there is no control {name!r}, but {', '.join(CHOICES)}")
            if name in self.fixed:
                raise ControlError(f"{self.title}: {name} can't be changed here")
            if value not in CHOICES[name]:
                raise ControlError(f"{name} is one of {CHOICES[name]}, not {value!r}")
        return replace(before, **changes)

    def scenario(self, name: str, controls: Controls) -> Scenario:
        """The workload with these controls."""
        return self.make(name, controls, self.records)


def offered(scene: Scene, controls: Controls, seed: int) -> np.ndarray | None:
    """When calls are meant to start, over DAY_S, ascending; None where each starts when the one before has ended."""
    if not controls.rate:
        return None
    curve = np.ones(1) if scene.curve is None else scene.curve
    calls = max(1, round(controls.rate * DAY_S / controls.batch))
    return arrivals(np.random.default_rng((seed, 20)), curve, DAY_S, calls)


def _drawn_records(name: str, controls: Controls, records: int, *, skew: float) -> Scenario:
    """Reads and writes of records drawn by popularity; some reads ask for records that are not there."""
    data = of_one_size(name, records, 16, controls.value_nbytes)

    def make(n: int, seed: int) -> Operations:
        generator = np.random.default_rng((seed, 21))
        shares = [controls.reads, 1 - controls.reads]
        verb = drawn(generator, np.array([Verb.READ, Verb.WRITE], np.uint8), shares, n)
        record = scrambled(zipf(generator, records, skew, n), records)
        absent = (generator.random(n) >= FOUND) & (verb == Verb.READ)
        record[absent] += records
        return written(data, verb, record)

    return Scenario(name, data, make)


def _training(name: str, controls: Controls, records: int) -> Scenario:
    return replace(ml_training(records, dtype=np.float32), name=name)


def _quotes(name: str, controls: Controls, records: int) -> Scenario:
    made = trading(records)
    # Values of another size: the operations say which record, and what it holds is a function of that.
    return replace(made, name=name, data=of_one_size(name, records, 16, controls.value_nbytes))


SCENES: dict[str, Scene] = {
    "single": Scene(
        "Single operations",
        "One key a call, as most programs use a cache: GET or SET, and the answer before the next one.",
        "No batch hides the way there and back: what counts is how long one call takes.",
        Controls(batch=1),
        partial(_drawn_records, skew=0.0),
        fixed=("batch",),
    ),
    "batch": Scene(
        "Batches",
        "Many keys a call. Predis takes and gives columns, Redis is asked by MGET and MSET.",
        "The cost of a call is shared by all of its keys. Move the batch size and watch the ratio.",
        Controls(batch=1000),
        partial(_drawn_records, skew=0.0),
    ),
    "training": Scene(
        "ML training with prefetch",
        "Epochs over a training set, each in a new order: batches of vectors of 512 float32. The next batch is announced "
        "to Predis.",
        "Large values: bytes have to move, not only calls be answered.",
        Controls(batch=1000, value_nbytes=2048, reads=1.0),
        _training,
        fixed=("value_nbytes", "reads"),
        records=10_000,
        hints=True,
        capacities=("16MiB", "64MiB"),  # of a set of 20 MB: some of it always lies on the host
    ),
    "trading": Scene(
        "Trading bursts",
        f"A trading day every {DAY_S / SLICE_S * PERIOD_S:.0f} seconds: a rush at the open, a lull at noon, a rush at the close. Both systems are "
        "offered the same orders at the same moments.",
        "Latency counts from the moment at which a call was meant to start: who falls behind in a rush shows it.",
        Controls(batch=10, reads=0.9, rate=50_000),
        _quotes,
        fixed=("reads",),
        records=1000,
        curve=market_day(),
    ),
    "mixed": Scene(
        "Mixed, concurrent",
        "Several threads read and write at once; few records are popular, most are not.",
        "Threads of one Python process share one interpreter: add some and see who gains.",
        Controls(batch=100, threads=4, reads=0.7),
        partial(_drawn_records, skew=SKEW),
    ),
}


def scene_of(name: str) -> Scene:
    """A scene by name; raises ControlError."""
    if name not in SCENES:
        raise ControlError(f"there is no scene {name!r}, but {', '.join(SCENES)}")
    return SCENES[name]


def as_dict(controls: Controls) -> dict[str, Any]:
    """For a message."""
    return asdict(controls)
