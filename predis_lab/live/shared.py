"""The one session of this process, which every viewer and notebook cell gets. Called by notebook 10 and `serve`."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import tape
from .remote import Remote
from .replay import Replay
from .session import Session

CAPACITY = "1GiB"
POLL_S = 0.25

_lock = threading.Lock()
_session: Session | None = None


def session(capacity: str = CAPACITY, *, backend: str = "auto", replay: str = "") -> Session:
    """The session of this process, opened where there is none or the last one was closed.

    capacity, backend: of Predis, see `predis_lab.Predis`
    replay:            folder of a recording to show instead of load; "" for load

    Raises TapeError where the folder holds no recording.
    """
    global _session
    with _lock:
        if _session is None or _session.closed:
            _session = _recording(Path(replay)) if replay else _live(capacity, backend)
            threading.Thread(target=_poll, args=(_session,), daemon=True).start()
            atexit.register(_session.close)
        return _session


def _live(capacity: str, backend: str) -> Session:
    def open_source(take: Callable[[dict[str, Any]], None], known: str) -> Remote:
        # Once it is known what there is, a load process insists on it: no change of backend goes unnoticed.
        return Remote(backend if known == "auto" else known, capacity, take)

    return Session(open_source)


def _recording(directory: Path) -> Session:
    ticks, facts = tape.load(directory)
    return Session(lambda take, _: Replay(ticks, facts, take), recorded=tape.said_of(facts))


def _poll(session: Session) -> None:
    waiting = threading.Event()
    while not session.closed:
        session.poll()
        waiting.wait(POLL_S)
