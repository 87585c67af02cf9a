"""CallLock: a table's lock as callers take it, for a call each. Used by `calls`, `table` and `gpu.health`."""

from __future__ import annotations

import threading
import time

# How long one thread may make one call after the other while others wait, and while a call that was begun waits to go on.
TURN_S, SHORT_TURN_S = 1e-3, 1e-4
# Asleep between two attempts: at first as long as waking takes, then longer.
_NAP_S, _LONGEST_NAP_S = 1e-5, 1e-4


class CallLock:
    """A lock for calls of a few microseconds each, which would cost less than waking a thread at the end of every one.

    So nobody is woken: who finds it taken looks again after a nap, and who makes one call after the other steps aside once its
    turn is over, for lock and interpreter would both be taken again before anybody else is awake.

    inner:    what is locked, by the same thread as often as it likes; who waits for this itself is woken as ever
    take:     with False: whether it is held now
    give:     lets go of it; then `step_aside`, where anybody is `waiting` or `away`
    waiting:  threads that nap
    away:     calls that have left the lock to wait for a device and will want it again
    """

    __slots__ = ("_since", "away", "give", "inner", "take", "waiting")

    def __init__(self) -> None:
        self.inner = threading.RLock()
        self.take, self.give = self.inner.acquire, self.inner.release
        self.waiting: set[object] = set()
        self.away: set[object] = set()
        self._since = 0.0

    def wait(self) -> None:
        """Returns with the lock; one's turn begins."""
        own, nap = object(), _NAP_S
        self.waiting.add(own)
        try:
            while not self.take(False):
                time.sleep(nap)
                nap = min(2 * nap, _LONGEST_NAP_S)
        finally:
            self.waiting.discard(own)
        self._since = time.perf_counter()

    def step_aside(self) -> None:
        """Lets others have the lock and the interpreter, if one's turn is over."""
        turn = SHORT_TURN_S if self.away else TURN_S
        if time.perf_counter() - self._since > turn:
            time.sleep(_NAP_S)
            self._since = time.perf_counter()

    def __enter__(self) -> None:
        if not self.take(False):
            self.wait()

    def __exit__(self, *_: object) -> None:
        self.give()
        if self.waiting or self.away:
            self.step_aside()
