"""CallLock: a table's lock as callers take it, for a call each. Used by `calls`, `table` and `gpu.health`."""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from threading import get_ident

# How long one thread may make one call after the other while others wait, and while a call that was begun waits to go on.
TURN_S, SHORT_TURN_S = 2e-3, 1e-4
# Asleep between two attempts: at first as long as waking takes, then longer; and for this long after a turn should be over.
_NAP_S, _LONGEST_NAP_S, _LATE_S = 1e-5, 1e-4, 5e-4


class CallLock:
    """A lock for calls of a few microseconds each, which would cost less than waking a thread at the end of every one.

    So who makes one call after the other has a turn. When it is over, the first of those who wait is woken, and who had the turn
    waits behind the others before anything else is done: two threads that want the interpreter cost a call more, wherever
    it lets go of that, than the call itself takes. For the same reason those who wait sleep as long as the turn lasts, and but
    for the first as long as all turns before theirs. Who makes one call only wakes the first at its end.

    inner:    what is locked, by the same thread as often as it likes; who waits for this itself is woken as ever
    take:     with False: whether it is held now
    give:     lets go of it; then `step_aside`, where anybody is `waiting` or `away`
    waiting:  who wants it, in order; each sleeps until its lock is released
    away:     calls that have left the lock to wait for a device and will want it again
    """

    __slots__ = (
        "_aside", "_calls", "_holder", "_since", "away", "give", "inner", "take", "waiting",
    )  # fmt: skip

    def __init__(self) -> None:
        self.inner = threading.RLock()
        self.take, self.give = self.inner.acquire, self.inner.release
        self.waiting: deque[threading.Lock] = deque()
        self.away: set[object] = set()
        self._aside = 0.0  # when calls away were last let in
        self._begin_turn(0, 0)

    def _begin_turn(self, holder: int, calls: int) -> None:
        # What is told of a turn may be of another for a moment: it decides who sleeps how long, not who has the lock.
        self._since, self._holder, self._calls = time.perf_counter(), holder, calls

    def wait(self, *, returning: bool = False) -> None:
        """Returns with the lock; one's turn begins. returning: from a turn that is over: whoever was woken then comes first"""
        woken, nap = _signal(), _NAP_S
        self.waiting.append(woken)
        try:
            if returning:
                woken.acquire(True, TURN_S * (len(self.waiting) - 1) + _LATE_S)
            while not self.take(False):
                left = self._since + TURN_S - time.perf_counter()
                first = self.waiting[0] is woken
                if first and (self._calls <= 1 or left <= 0):
                    woken.acquire(True, nap)
                    nap = min(2 * nap, _LONGEST_NAP_S)
                else:  # of many that look again and again, each would have the interpreter in the others' way
                    others = 0 if first else len(self.waiting) - 1
                    woken.acquire(True, max(left, 0) + TURN_S * others + _LATE_S)
        finally:
            self.waiting.remove(woken)
        self._begin_turn(get_ident(), 2 if returning else 0)

    def wake(self) -> None:
        """Has the first of those who wait look whether the lock is free."""
        with suppress(IndexError, RuntimeError):  # nobody waits, or it is awake already
            self.waiting[0].release()

    def step_aside(self) -> None:
        """Lets others have the lock and the interpreter, if one's turn is over or may have been a single call."""
        if self.waiting:
            own = get_ident()
            if own != self._holder:
                self._begin_turn(own, 0)
            elif time.perf_counter() - self._since > TURN_S:
                self.wake()
                self.wait(returning=True)
                self.give()
                return
            self._calls += 1
            if self._calls == 1:
                self.wake()
        if self.away and time.perf_counter() - self._aside > SHORT_TURN_S:
            time.sleep(_NAP_S)
            self._aside = time.perf_counter()

    def __enter__(self) -> None:
        if not self.take(False):
            self.wait()

    def __exit__(self, *_: object) -> None:
        self.give()
        if self.waiting or self.away:
            self.step_aside()


def _signal() -> threading.Lock:
    """A lock that is held until somebody signals."""
    lock = threading.Lock()
    lock.acquire()
    return lock
