"""Scenes watched without a browser: for notebook 10 as executed, and for `predis-lab dashboard --record`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..report import units
from . import shared, words
from .headline import Headline, headline
from .scenes import SCENES
from .session import Session
from .tape import NOTEBOOK, TapeError
from .ticks import Tick

PATIENCE_S = 60.0  # for a scene to begin
STEP_S = 0.2


@dataclass(frozen=True)
class Watched:
    """A scene that was played for a while."""

    scene: str
    shown: Headline
    story: list[str]
    ticks: list[Tick] = field(repr=False)

    def row(self) -> tuple[str, ...]:
        """For a table with COLUMNS."""
        keys = ("predis_p50", "redis_p50", "predis_p99", "redis_p99")
        rates = [units.format_quantity(rate, "1/s") for rate in self.shown.rates]
        lead, what = words.lead(self.shown)
        return (SCENES[self.scene].title, f"{lead} {what}", *rates, *(self.shown.number(key).text for key in keys))  # fmt: skip


COLUMNS = ("scene", "Predis over Redis", "Predis", "Redis", "Predis, median", "Redis, median", "Predis, p99", "Redis, p99")  # fmt: skip


def watch(
    session: Session,
    scenes: Sequence[str],
    seconds: float,
    progress: Callable[[float], object] = lambda _: None,
) -> list[Watched]:
    """Plays each scene for so many seconds from its first slice on, then stops. Raises TapeError where one does not begin.

    progress: called with shares of a scene
    """
    found = []
    for scene in scenes:
        first = session.number
        session.choose(scene)
        began = time.monotonic()
        while not (ticks := _of_scene(session, scene, first)):
            if time.monotonic() - began > PATIENCE_S:
                raise TapeError(f"{scene} has not begun: {words.status(session)[1]}")
            time.sleep(0.02)
        while (left := ticks[0].at + seconds - ticks[-1].at) > 0:
            if time.monotonic() - began > PATIENCE_S + 2 * seconds:
                raise TapeError(f"{scene} does not go on: {words.status(session)[1]}")
            time.sleep(min(STEP_S, left))
            progress(min(STEP_S, left) / seconds)
            with session.lock:
                ticks = [tick for tick in session.tape if tick.number >= ticks[0].number]
        shown = headline(ticks)
        assert shown is not None
        controls = ticks[-1].controls
        found.append(
            Watched(scene, shown, words.narrative(scene, controls, shown, session.facts), ticks)
        )
    session.stop()
    return found


def record(seconds: float, directory: Path, capacity: str = shared.CAPACITY) -> int:
    """Plays all scenes for so many seconds in all, and leaves a recording that `--replay` shows; the exit code."""
    session = shared.session(capacity)
    try:
        for watched in watch(session, list(SCENES), seconds / len(SCENES)):
            print(f"{watched.scene}: {' '.join(words.lead(watched.shown))}", flush=True)
        session.export(directory)
    finally:
        session.close()
    print(f"Recorded: {directory / f'samples.{NOTEBOOK}.parquet'}")
    return 0


def _of_scene(session: Session, scene: str, first: int) -> list[Tick]:
    with session.lock:
        return [tick for tick in session.tape if tick.number >= first and tick.scene == scene]
