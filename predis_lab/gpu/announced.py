"""Keys that somebody has announced: a thread of their own brings the records up while nobody writes. Called by `engine`."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import cupy

from ..columns import Column
from ..errors import PredisError
from .health import Turns
from .moving import rebase, uploaded

PART_ROWS = 2**16  # at once; between two parts others write
# That wait; beyond, those announced first are let go: it is they who are looked up by now.
MOST_ROWS = 2**24
NAP_S = 1e-3  # while somebody writes, and between two parts: others get the lock then

# Brings up one part, from a column in any memory, as far as a number of segments hold it; how many of those are left.
Bring = Callable[[Column, int, int], int]


class Announced:
    """Announcements under way, in order.

    failed:  keys that could not be brought up: nobody waits for an error
    """

    def __init__(self, bring: Bring, writing: Turns):
        self._bring, self._writing = bring, writing
        self._worker = ThreadPoolExecutor(1, "predis-prefetch", cupy.cuda.Device().use)
        self._waiting = deque[tuple[Future[None], int]]()
        self._closing = threading.Event()
        self.failed = 0

    @property
    def pending(self) -> int:
        """Keys of announcements that are not done."""
        while self._waiting and self._waiting[0][0].done():
            self._waiting.popleft()
        return sum(rows for one, rows in self._waiting if not one.done())

    def add(self, keys: Column, now_ms: int, segments: int) -> None:
        """Announces keys in any memory, which is the caller's again at once; on the device, on the current stream.

        segments: that the records may fill together
        """
        held, ready = _copied(keys)
        job = self._worker.submit(self._work, held, ready, now_ms, segments)
        self._waiting.append((job, len(keys)))
        while len(self._waiting) > 1 and self.pending > MOST_ROWS and self._let_go():
            pass

    def forget(self) -> None:
        """Lets go of all that waits."""
        while self._let_go():
            pass

    def close(self, is_stuck: Callable[[], bool]) -> None:
        """Ends the thread; where the device is stuck, it is left to itself."""
        self._closing.set()
        self.forget()
        while not is_stuck() and self.pending:
            time.sleep(NAP_S)
        self._worker.shutdown(wait=not is_stuck())

    def _let_go(self) -> bool:
        """Of the first announcement that has not begun; False where there is none."""
        return any(one.cancel() for one, _ in self._waiting if not one.cancelled())

    def _work(self, keys: Column, ready: Any, now_ms: int, segments: int) -> None:
        while ready is not None and not ready.done:
            if self._closing.is_set():
                return
            time.sleep(NAP_S)
        for row in range(0, len(keys), PART_ROWS):
            part = keys[row : row + PART_ROWS]
            while self._writing.waiting or not self._writing.acquire(blocking=False):
                time.sleep(NAP_S)
            try:
                if self._closing.is_set():
                    return
                segments = self._bring(part, now_ms, segments)
            except PredisError:
                self.failed += len(part)
            finally:
                self._writing.release()
            if not segments:
                return
            time.sleep(NAP_S)


def _copied(keys: Column) -> tuple[Column, Any]:
    """A copy, and on the device the event that tells when it is there."""
    copy, start = uploaded(keys, lambda source: source.copy())
    rebase(copy, start)
    if not keys.on_device:
        return copy, None
    event = cupy.cuda.Event(disable_timing=True)
    event.record(cupy.cuda.get_current_stream())
    return copy, event
