"""Waiting for the device with an end: no call hangs in silence. Called by `table`, `pipeline`, `block` and `engine`."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from ..errors import DeviceTimeout
from ..turns import CallLock

TIMEOUT_S = 60.0  # of one step, unless said otherwise
# Queries of one or two microseconds each, with the interpreter kept: a small call's whole time.
_SPINS = 500
# Longer work is asked for again and again with the interpreter left to other callers in between; what then is not done is
# not worth a core. The shortest sleep, of no time, takes what the system lets timers be late by, as a rule 50 us: naps of
# as much take twice that.
_EAGER_S, _NAP_S = 3e-4, 5e-5


def pause(waited: float) -> None:
    """Between two looks at what has been waited for so long (s)."""
    if waited < _EAGER_S:
        os.sched_yield()
    else:
        time.sleep(_NAP_S)


class Turns:
    """A lock that tells how many wait for it: whoever is in no hurry lets them go first."""

    def __init__(self) -> None:
        self._lock, self._counting = threading.Lock(), threading.Lock()
        self.at_once = self._lock.acquire  # with False: whether it is held now
        self.release = self._lock.release
        self.waiting = 0

    def acquire(self, blocking: bool = True) -> bool:
        """Whether it is held now."""
        if self.at_once(False):
            return True
        if blocking:
            self._count(1)
            try:
                self._lock.acquire()
            finally:
                self._count(-1)
        return blocking

    def _count(self, by: int) -> None:
        with self._counting:
            self.waiting += by


class Health:
    """Whether the device answers, and the lock that a caller leaves while it waits.

    timeout_s:  how long one step may take
    check:      raises what the driver has to say of a stream or an event, beyond that it is not done
    calls:      the lock that callers take; other callers get through while one waits for the device
    lock:       what it locks
    stuck:      what has not been done in time, and which step that was; None while all is well
    kept:       what the device may still be reading or writing
    """

    def __init__(self, timeout_s: float, check: Callable[[Any], None] = lambda _: None):
        self.timeout_s = timeout_s
        self._check = check
        self.calls = CallLock()
        self.lock = self.calls.inner
        self.stuck: tuple[Any, str] | None = None
        self.kept: list[Any] = []
        self.waited_s = 0.0

    def wait(self, awaited: Any, stage: str, *, brief: bool = False) -> None:
        """Waits until a stream or an event is done; raises DeviceTimeout where that takes longer than timeout_s.

        brief: as a rule it takes some microseconds
        """
        for _ in range(_SPINS if brief else 1):
            if awaited.done:
                return
        began = time.perf_counter()
        with self.unlocked():
            while not awaited.done:
                waited = time.perf_counter() - began
                if waited > self.timeout_s:
                    self.give_up(awaited, stage)
                self._check(awaited)  # what has failed is never done
                pause(waited)
        self.waited_s += time.perf_counter() - began

    def give_up(self, awaited: Any, stage: str) -> NoReturn:
        """Raises DeviceTimeout, as every call does from now on until that is done."""
        self.stuck = awaited, stage
        raise DeviceTimeout(
            f"the device has not finished {stage} within {self.timeout_s:g} s; "
            "calls are refused until it has"
        )

    def check(self) -> None:
        """Raises DeviceTimeout while what was stuck still is."""
        if self.stuck is None:
            return
        awaited, stage = self.stuck
        if not awaited.done:
            raise DeviceTimeout(f"the device is still busy with {stage}, given up before")
        self.stuck = None
        self.kept.clear()

    @contextmanager
    def unlocked(self) -> Iterator[None]:
        """Leaves the lock to others for a while."""
        try:
            self.lock.release()
        except RuntimeError:  # called without it: by a test, or a benchmark
            yield
            return
        away, call = self.calls.away, object()
        away.add(call)
        if self.calls.waiting:
            self.calls.wake()
        try:
            yield
        finally:
            self.lock.acquire()
            away.discard(call)

    def holding(
        self, lock: threading.Lock | Turns, then: Callable[[], None] = lambda: None
    ) -> Holding:
        """Another lock, waited for without keeping this one. then: what comes first, once it is held"""
        return Holding(self, lock, then)


class Holding:
    """A lock held for a block of code; see `Health.holding`. One object serves all who hold that lock in turn."""

    __slots__ = ("_acquire", "_at_once", "_health", "_release", "_then")

    def __init__(self, health: Health, lock: threading.Lock | Turns, then: Callable[[], None]):
        self._health, self._acquire, self._release = health, lock.acquire, lock.release
        self._at_once = lock.at_once if isinstance(lock, Turns) else lock.acquire
        self._then = then

    def __enter__(self) -> None:
        if not self._at_once(False):  # by keyword it would take twice as long
            with self._health.unlocked():
                self._acquire()
        try:
            self._then()
        except BaseException:
            self._release()
            raise

    def __exit__(self, *_: object) -> None:
        self._release()
