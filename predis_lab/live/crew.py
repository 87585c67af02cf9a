"""Client threads that play slices: for a set time, as fast as they are answered or at set moments. Called by `worker`.

The threads live as long as the crew does and wait at a barrier between slices, so that a slice costs no start of a thread.
Garbage is collected between slices, not within one.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass

import numpy as np

from .plays import Part

MOST_CALLS = 100_000  # of a thread in a slice: as many latencies as it has room for
PATIENCE = 3.0  # slices of overtime before what is still to be sent is given up
_NAP_S = 1e-3  # left before a set moment: of less, nobody sleeps, since waking up takes its time


@dataclass(frozen=True)
class Played:
    """What a slice came to. unsent: calls that were offered and given up, as those before them took too long."""

    calls: int
    seconds: float
    latencies_ns: np.ndarray
    unsent: int = 0


class Crew:
    """So many client threads; `play` gives each of them its part of a slice."""

    def __init__(self, threads: int):
        self._gate = threading.Barrier(threads + 1)
        self._parts: list[Part] = []
        self._due: list[np.ndarray] | None = None
        self._ending = False
        self._failure: BaseException | None = None
        self._deadline = self._began = self._give_up = 0
        self._stamps = [np.empty(MOST_CALLS, np.int64) for _ in range(threads)]
        self._told: list[tuple[int, int]] = [(0, 0)] * threads  # calls, end
        self._threads = [
            threading.Thread(target=self._serve, args=(i,), daemon=True) for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def play(self, parts: list[Part], slice_s: float, due_s: np.ndarray | None = None) -> Played:
        """One slice; raises what a call raised, once all threads have stopped.

        parts:  one a thread
        due_s:  when calls are meant to start, since the slice began; dealt out to the threads. None: one after the other
        """
        threads = len(self._threads)
        self._parts, self._failure = parts, None
        self._due = None if due_s is None else [_ns(due_s[i::threads]) for i in range(threads)]
        self._began = time.perf_counter_ns()
        self._deadline = self._began + int(slice_s * 1e9)
        self._give_up = self._began + int((1 + PATIENCE) * slice_s * 1e9)
        self._gate.wait()
        self._gate.wait()
        if self._failure is not None:
            raise self._failure
        calls = sum(count for count, _ in self._told)
        ended = max(end for _, end in self._told)
        if due_s is not None:  # the slice is over when its time is, whoever was ready before
            ended = max(ended, self._deadline)
        latencies = [
            stamps[:count] for stamps, (count, _) in zip(self._stamps, self._told, strict=True)
        ]
        unsent = 0 if due_s is None else len(due_s) - calls
        return Played(calls, (ended - self._began) * 1e-9, np.concatenate(latencies), unsent)

    def close(self) -> None:
        """Ends the threads."""
        self._ending = True
        self._gate.wait()
        for thread in self._threads:
            thread.join()

    def _serve(self, number: int) -> None:
        while True:
            self._gate.wait()
            if self._ending:
                return
            self._told[number] = (0, self._began)
            try:
                if self._due is None:
                    self._told[number] = self._at_once(number)
                else:
                    self._told[number] = self._at_moments(number, self._due[number])
            except BaseException as error:  # noqa: BLE001 - for whoever called `play`
                self._failure = error
            self._gate.wait()

    def _at_once(self, number: int) -> tuple[int, int]:
        play, stamps, clock = self._parts[number].play, self._stamps[number], time.perf_counter_ns
        deadline, count, before = self._deadline, 0, clock()
        while before < deadline and count < MOST_CALLS:
            play()
            after = clock()
            stamps[count] = after - before
            count, before = count + 1, after
        return count, before

    def _at_moments(self, number: int, due_ns: np.ndarray) -> tuple[int, int]:
        play, stamps, clock = self._parts[number].play, self._stamps[number], time.perf_counter_ns
        began, give_up, count, after = self._began, self._give_up, 0, self._began
        others = len(self._threads) > 1  # alone, nothing is as punctual as not to sleep
        for moment in due_ns[:MOST_CALLS]:
            meant = began + int(moment)
            now = clock()
            if now > give_up:
                break
            if (left := (meant - now) * 1e-9) > _NAP_S:
                time.sleep(left - _NAP_S / 2)
            while clock() < meant:
                if others:  # they wait for the interpreter; no sleep is shorter than 50 us
                    os.sched_yield()
            play()
            after = clock()
            stamps[count] = after - meant
            count += 1
        return count, after


def _ns(seconds: np.ndarray) -> np.ndarray:
    return (seconds * 1e9).astype(np.int64)
