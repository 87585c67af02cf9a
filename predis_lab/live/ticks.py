"""What the load process tells several times a second. Made by `session` from messages, by `tape` from samples; read by all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .scenes import Controls

PREDIS, REDIS = 0, 1
SIDES = ("Predis", "Redis")


@dataclass(frozen=True)
class Side:
    """One slice of one system.

    system:    its name in samples, such as "redis mget unix"
    rate:      operations a second
    unsent:    operations that were offered and given up
    p50, p99:  seconds a call over the last seconds; None where the calls were too few to tell
    """

    system: str
    rate: float
    unsent: int
    p50: float | None
    p99: float | None


@dataclass(frozen=True)
class Tick:
    """A slice of each, one after the other.

    number:    of the tick, from 0, without gaps
    at:        seconds since the session began
    segment:   changes whenever scene, controls or systems do: numbers of two segments are never put together
    readings:  by name, in base units; None where something could not be read
    renewed:   whether they were read for this tick, or are those of the tick before
    """

    number: int
    at: float
    segment: int
    scene: str
    controls: Controls
    sides: tuple[Side, Side]
    readings: dict[str, float | None] = field(default_factory=dict)
    renewed: bool = True


def tick_of(message: dict[str, Any], *, number: int, at: float, segment: int) -> Tick:
    """A load process's message as a tick of the session."""
    predis, redis = (Side(**side) for side in message["sides"])
    controls = Controls(**message["controls"])
    told = (predis, redis), message["readings"], message["renewed"]
    return Tick(number, at, segment, message["scene"], controls, *told)
