"""A recorded session as a source of messages: the same ticks, at the pace they were recorded at. Called by `shared`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from .scenes import as_dict
from .ticks import Tick

LONGEST_GAP_S = 1.0  # between two ticks: pauses of the recording are cut short

Message = dict[str, Any]


class Replay:
    """Plays ticks over and over; a scene that is asked for is gone to, where it was recorded.

    take: gets the messages, from a thread of this object
    """

    def __init__(self, ticks: list[Tick], facts: Message, take: Callable[[Message], None]):
        self._ticks, self._take = ticks, take
        self._place = 0
        self._playing, self._ending = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._play, args=(facts,), daemon=True)
        self._thread.start()

    def send(self, command: Message) -> None:
        """Plays on, at another scene where it is another one; or stops."""
        if command["do"] == "play":
            with self._lock:
                if self._ticks[self._place].scene != command["scene"]:
                    places = [i for i, t in enumerate(self._ticks) if t.scene == command["scene"]]
                    self._place = places[0] if places else self._place
            self._playing.set()
        else:
            self._playing.clear()
            self._take({"kind": "phase", "phase": "stopped"})

    def close(self) -> None:
        """Ends it."""
        self._ending.set()
        self._playing.set()
        self._thread.join()

    def _play(self, facts: Message) -> None:
        self._take({"kind": "facts"} | facts)
        while True:
            self._playing.wait()
            if self._ending.is_set():
                return
            with self._lock:
                tick, self._place = self._ticks[self._place], (self._place + 1) % len(self._ticks)
                gap = self._ticks[self._place].at - tick.at
            self._take(_message(tick))
            self._ending.wait(min(gap, LONGEST_GAP_S) if gap > 0 else LONGEST_GAP_S)


def _message(tick: Tick) -> Message:
    return {
        "kind": "tick",
        "at": tick.at,
        "scene": tick.scene,
        "controls": as_dict(tick.controls),
        "sides": [asdict(side) for side in tick.sides],
        "readings": tick.readings,
        "renewed": tick.renewed,
    }
