"""Streams and events that fall behind: what is enqueued is done later, in the order of each stream and in no order between
streams. In place of the others where PREDIS_EMULATED_ASYNC is set; see `tests/test_emulated.py`.

It finds what a GPU rarely shows: memory that is used again before a copy or a kernel is done with it, and answers that are
read too early. Arrays' own operators wait for the current stream first.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from cupy import cuda

MOST_DELAY_S = 3e-4
kept: list[Any] = []  # device memory is never used again: what is enqueued knows addresses only
_changed = threading.Condition()
_streams: list[Stream] = []
_shared: list[Stream] = []  # those that one thread works for
_random = random.Random(0)


def _work(streams: list[Stream]) -> None:
    while True:
        with _changed:
            while not (ready := [s for s in streams if s.queue and s.queue[0][0]()]):
                _changed.wait(0.002)
            stream = _random.choice(ready)
        if _random.random() < 0.5:
            time.sleep(MOST_DELAY_S * _random.random())
        stream.queue[0][1]()
        with _changed:
            stream.queue.popleft()


class Event:
    """Has happened once its stream has come to where it was last recorded."""

    ptr = 0

    def __init__(self, **_: Any):
        self.asked = self.happened = 0
        self.at = time.perf_counter()

    @property
    def done(self) -> bool:
        return self.happened >= self.asked

    def record(self, stream: Any = None) -> None:
        self.asked += 1
        number = self.asked

        def happen() -> None:
            self.happened, self.at = number, time.perf_counter()

        (stream or cuda.get_current_stream()).submit(happen)

    def synchronize(self) -> None:
        while not self.done:
            time.sleep(1e-5)


def synchronize() -> None:
    """Returns when all streams have come to their ends."""
    for stream in list(_streams):
        stream.synchronize()


class Stream(cuda.Stream):
    """A queue of calls. One with a priority has a thread of its own: what stays on the device doesn't keep the others waiting."""

    def __init__(self, null: bool = False, non_blocking: bool = False, priority: int = 0):
        super().__init__(null, non_blocking, priority)
        self.queue: deque[tuple[Callable[[], bool], Callable[[], None]]] = deque()
        _streams.append(self)
        if priority:
            threading.Thread(target=_work, args=([self],), daemon=True).start()
        else:
            _shared.append(self)

    @property
    def done(self) -> bool:
        return not self.queue

    def submit(self, call: Callable[[], None], when: Callable[[], bool] = lambda: True) -> None:
        with _changed:
            self.queue.append((when, call))
            _changed.notify_all()

    def synchronize(self) -> None:
        while not self.done:
            time.sleep(1e-5)

    def record(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        number = event.asked
        self.submit(lambda: None, lambda: event.happened >= number)


threading.Thread(target=_work, args=(_shared,), daemon=True).start()


def stream_at(pointer: int) -> Stream:
    """The stream that runtime functions call by a number."""
    return next(stream for stream in _streams if stream.ptr == pointer)
