"""CallLock: a table's lock as callers take it, for a call each. Used by `calls`, `table` and `gpu.health`."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

# How long one thread may make one call after the other while others wait, and while a call that was begun waits to go on.
TURN_S, SHORT_TURN_S = 1e-3, 1e-4
# Asleep between two attempts: at first as long as waking takes, then longer.
_NAP_S, _LONGEST_NAP_S = 1e-5, 4e-4


class CallLock:
    """A lock for calls of a few microseconds each, which would cost less than waking a thread at the end of every one.

    So who makes one call after the other keeps it for a turn, and wakes one of those who wait when that is over: lock and
    interpreter would both be taken again before anybody is awake, and so it steps aside. Whoever makes one call only wakes
    nobody: the first of those who wait looks again after a nap. The others sleep until they are the first: everybody who
    wakes takes the interpreter from the call under way, wherever that lets go of it.

    inner:    what is locked, by the same thread as often as it likes; who waits for this itself is woken as ever
    take:     with False: whether it is held now
    give:     lets go of it; then `step_aside`, where anybody is `waiting` or `away`
    waiting:  threads that want it
    away:     calls that have left the lock to wait for a device and will want it again
    """

    __slots__ = ("_first", "_over", "_since", "away", "give", "inner", "take", "waiting")

    def __init__(self) -> None:
        self.inner = threading.RLock()
        self.take, self.give = self.inner.acquire, self.inner.release
        self.waiting: set[object] = set()
        self.away: set[object] = set()
        self._first, self._over = threading.Lock(), threading.Lock()
        self._over.acquire()  # but when a turn is over
        self._since = 0.0

    def wait(self) -> None:
        """Returns with the lock; one's turn begins."""
        own, nap = object(), _NAP_S
        self.waiting.add(own)
        try:
            with self._first:
                while not self.take(False):
                    self._over.acquire(True, nap)
                    nap = min(2 * nap, _LONGEST_NAP_S)
                self._since = time.perf_counter()
        finally:
            self.waiting.discard(own)

    def step_aside(self) -> None:
        """Lets others have the lock and the interpreter, if one's turn is over."""
        turn = SHORT_TURN_S if self.away else TURN_S
        if time.perf_counter() - self._since > turn:
            with suppress(RuntimeError):  # it is over already
                self._over.release()
            time.sleep(_NAP_S)
            self._since = time.perf_counter()

    def __enter__(self) -> None:
        if not self.take(False):
            self.wait()

    def __exit__(self, *_: object) -> None:
        self.give()
        if self.waiting or self.away:
            self.step_aside()
