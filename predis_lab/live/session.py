"""What is shown: one load and its ticks, whoever looks on. Called by `page` (a view of it for each viewer), notebook 10, tests.

A session has one source of messages, the load process or a recording. Messages come from the source's thread, questions
from the page's; a lock keeps them apart. Everything kept has a largest size.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from . import tape, tour
from .headline import Headline, headline
from .history import History
from .scenes import SCENES, ControlError, Controls, as_dict, scene_of
from .ticks import Tick, tick_of

RECENT_S = 60.0
RECENT = 1200  # ticks at most
TAPE = 6000  # ticks that an export holds at most: the last 15 minutes
SHOWN_EVERY = 3  # ticks between two sets of numbers: the eye reads no faster
STALLED_S = 15.0  # without a message while something plays
RETRY_S = (1.0, 2.0, 5.0, 10.0)  # before a load process that died is started anew


@dataclass(frozen=True)
class Trouble:
    """Who went away, and what it said. since: wall clock, HH:MM:SS."""

    who: str
    said: str
    since: str


class Source(Protocol):
    """Where messages come from."""

    def send(self, command: dict[str, Any]) -> None:
        """Passes a command on."""

    def close(self) -> None:
        """Ends it."""


# Takes what becomes of its messages, and the backend to insist on once one is known.
Opener = Callable[[Callable[[dict[str, Any]], None], str], Source]


class Session:
    """One load, its controls and its ticks.

    open_source:  starts a load process, or begins a recording
    recorded:     what a recording is of, in words; "" where the load is live

    phase: "starting", "preparing", "playing", "stopped" or "trouble"
    """

    def __init__(
        self,
        open_source: Opener,
        *,
        recorded: str = "",
        clock: Callable[[], float] = time.monotonic,
    ):
        self.recorded = recorded
        self.lock = threading.RLock()
        self._clock, self._open_source = clock, open_source
        self._heard = clock()
        self.facts: dict[str, Any] = {}
        self.phase, self.trouble = "starting", None  # type: str, Trouble | None
        self.scene, self.controls = "", Controls()
        self.playing = False  # whether it should be
        self.closed = False
        self._tour_began: float | None = None
        self._retries, self._retry_at = 0, None  # type: int, float | None
        self._shown_key: tuple[int, int, int] | None = None
        self._shown: Headline | None = None
        self._forget()
        self._segment = 0
        self._source: Source | None = None
        self._generation = 0
        self._connect()

    # ---- What a viewer asks for

    def start(self) -> None:
        """Plays the scene that is set; the first one where none is. Ends a tour, as `stop` and `choose` do."""
        with self.lock:
            self._tour_began = None
            self._start()

    def stop(self) -> None:
        """Stops the load."""
        with self.lock:
            self._tour_began = None
            self._pause()

    def reset(self) -> None:
        """Forgets what was seen, and puts the scene's controls back to where they began."""
        with self.lock:
            self._forget()
            if self.scene and not self.recorded:
                self.controls = scene_of(self.scene).start
            if self.playing:
                self._play()

    def choose(self, name: str) -> None:
        """Another scene, played at once. Raises ControlError."""
        with self.lock:
            scene_of(name)
            self._go_to(name)
            self.start()

    def adjust(self, **changes: Any) -> None:
        """Sets controls of the scene; raises ControlError before anything has changed."""
        with self.lock:
            if self.recorded:
                raise ControlError("a recording can't be changed")
            self.controls = scene_of(self.scene).with_controls(self.controls, **changes)
            if self.playing:
                self._play()

    def begin_tour(self) -> None:
        """Begins the guided tour at its first scene."""
        with self.lock:
            self._tour_began = self._clock()
            self._on_tour()

    def close(self) -> None:
        """Ends the load."""
        with self.lock:
            self.closed, self._generation = True, self._generation + 1
            source, self._source = self._source, None
        if source is not None:
            source.close()

    # ---- What a view reads

    def since(self, number: int) -> list[Tick]:
        """Ticks of the last minute with that number or a later one."""
        with self.lock:
            return [tick for tick in self.recent if tick.number >= number]

    def segment(self) -> list[Tick]:
        """Those of the last minute that belong together with the last one."""
        with self.lock:
            return [t for t in self.recent if t.segment == self.recent[-1].segment]

    def shown(self) -> Headline | None:
        """The numbers of the moment, of the scene that is set; None where it has none yet. Worked out once for all viewers."""
        with self.lock:
            last = self.recent[-1] if self.recent else None
            if last is None or last.scene != self.scene:
                return None
            key = (self.epoch, last.segment, self.number // SHOWN_EVERY)
            if key != self._shown_key:
                self._shown_key, self._shown = key, headline(self.segment())
            return self._shown

    def tour_stop(self) -> tour.Stop | None:
        """Where the tour is; None where there is none."""
        with self.lock:
            began = self._tour_began
            return None if began is None else tour.stop_at(self._clock() - began)

    def poll(self) -> None:
        """Does what is due by the clock: the tour's next step, another load process, a look at one that says nothing."""
        with self.lock:
            if self.closed:
                return
            now = self._clock()
            if self._retry_at is not None and now >= self._retry_at:
                self._retry_at = None
                self._connect()
            busy = self.phase in ("playing", "preparing", "starting") and self._retry_at is None
            if busy and not self.recorded and now - self._heard > STALLED_S:
                self._lost("load process", f"said nothing for {STALLED_S:.0f} s")
            elif self._tour_began is not None:
                self._on_tour()

    def export(self, directory: Path) -> Path:
        """The last minutes as samples in that folder; raises TapeError where there are none."""
        with self.lock:
            ticks, facts = list(self.tape), self.facts
        return tape.save(ticks, facts, directory)

    # ---- Inside

    def _forget(self) -> None:
        self.recent: deque[Tick] = deque(maxlen=RECENT)
        self.tape: deque[Tick] = deque(maxlen=TAPE)
        self.history = History()
        self.number = 0  # of the next tick
        self._began = self._clock()
        self.epoch = getattr(self, "epoch", -1) + 1  # tells views that numbers begin anew

    def _start(self) -> None:
        self.playing = True
        self._play()

    def _play(self) -> None:
        if not self.scene:
            if not self.facts:
                return  # played once it is known what with
            self._go_to("batch" if self.facts["backend"] == "cuda" else "single")
        self._heard = self._clock()
        if self._source is not None:
            command = {"do": "play", "scene": self.scene, "controls": as_dict(self.controls)}
            self._source.send(command)

    def _pause(self) -> None:
        self.playing = False
        if self._source is not None:
            self._source.send({"do": "stop"})

    def _go_to(self, name: str) -> None:
        if name != self.scene:
            self.scene, self.controls = name, SCENES[name].start

    def _on_tour(self) -> None:
        stop = self.tour_stop()
        if stop is None:
            self._tour_began = None
            self._pause()
            return
        if stop.scene != self.scene or stop.playing != self.playing:
            self._go_to(stop.scene)
            if stop.playing:
                self.controls = SCENES[stop.scene].start
                self._start()
            else:
                self._pause()

    def _connect(self) -> None:
        self._generation += 1
        generation = self._generation

        def take(message: dict[str, Any]) -> None:
            with self.lock:
                if generation == self._generation:
                    self._take(message)

        self._heard = self._clock()
        self._source = self._open_source(take, self.facts.get("backend", "auto"))
        if self.playing:
            self._play()

    def _take(self, message: dict[str, Any]) -> None:
        self._heard, kind = self._clock(), message["kind"]
        if kind == "tick":
            self._take_tick(message)
        elif kind == "facts":
            self.facts = message
            if self.playing:  # what was wrong is over once something is played
                self._play()
            else:
                self._well()
                self.phase = "stopped"
        elif kind == "phase":
            self.phase = message["phase"] if self.trouble is None else "trouble"
        elif kind == "trouble":
            self._trouble(message["who"], message["said"])
        elif kind == "well":
            self.facts = self.facts | {"server": message["server"]}
            self._segment += 1
        elif kind == "end":
            self._lost("load process", f"ended with code {message['code']}")

    def _take_tick(self, message: dict[str, Any]) -> None:
        last = self.recent[-1] if self.recent else None
        if self.phase != "playing":
            self.phase = "playing"
            self._well()
        at = self._clock() - self._began
        tick = tick_of(message, number=self.number, at=at, segment=self._segment)
        if last and (last.scene, last.controls) != (tick.scene, tick.controls):
            self._segment += 1
            tick = replace(tick, segment=self._segment)
        if self.recorded:  # the recording says what is played
            self.scene, self.controls = tick.scene, tick.controls
        self.number += 1
        self.recent.append(tick)
        while self.recent[0].at < tick.at - RECENT_S:
            self.recent.popleft()
        self.tape.append(tick)
        self.history.add(tick)

    def _trouble(self, who: str, said: str) -> None:
        self.phase, self.trouble = "trouble", Trouble(who, said, f"{datetime.now():%H:%M:%S}")

    def _well(self) -> None:
        self.trouble, self._retries = None, 0

    def _lost(self, who: str, said: str) -> None:
        """The source is gone: it is opened anew after a while, later each time."""
        if self.trouble is None or self.phase != "trouble":
            self._trouble(who, said)
        self._generation += 1
        source, self._source = self._source, None
        if source is not None:
            threading.Thread(target=source.close, daemon=True).start()
        self._segment += 1
        self._retry_at = self._clock() + RETRY_S[min(self._retries, len(RETRY_S) - 1)]
        self._retries += 1
