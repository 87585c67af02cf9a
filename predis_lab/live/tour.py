"""The guided tour: every scene for a while, with a pause before each. Plain arithmetic on time. Called by `session`."""

from __future__ import annotations

from dataclasses import dataclass

from .scenes import SCENES

PAUSE_S = 4.0  # before a scene, to say what comes
SCENE_S = 20.0


@dataclass(frozen=True)
class Stop:
    """Where a tour is. playing: False in the pause before the scene."""

    number: int
    scene: str
    playing: bool
    left_s: float


def stop_at(since_s: float, pause_s: float = PAUSE_S, scene_s: float = SCENE_S) -> Stop | None:
    """Where a tour is so many seconds after it began; None where it is over.

    >>> stop_at(1.0)
    Stop(number=0, scene='single', playing=False, left_s=3.0)
    >>> stop_at(29.0).scene, stop_at(29.0).playing, stop_at(1e3)
    ('batch', True, None)
    """
    number, inside = divmod(since_s, pause_s + scene_s)
    if number >= len(SCENES):
        return None
    playing = inside >= pause_s
    left_s = (pause_s + scene_s if playing else pause_s) - inside
    return Stop(int(number), list(SCENES)[int(number)], playing, left_s)


def duration_s(pause_s: float = PAUSE_S, scene_s: float = SCENE_S) -> float:
    """Of a whole tour."""
    return len(SCENES) * (pause_s + scene_s)
