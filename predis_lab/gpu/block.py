"""A block that stays on the device for some milliseconds, and the mailboxes it looks at. Called by `doorbell`.

It is started when it is asked for something and leaves by itself, answers or not (kernels/doorbell.cu): whatever waits for the
device to be idle (a driver that frees memory, another process, the end of this one) waits no longer than that. Whether it still
lives is asked where an answer is late.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import cupy
import numpy as np

from . import kernels, mailbox
from .guard import named
from .health import pause
from .launching import address
from .mailbox import ANSWERED, GONE  # looked at again and again
from .modules import function
from .pinned import pinned
from .sizing import NBYTES, ROWS

if TYPE_CHECKING:
    from .table import DeviceTable

THREADS = 512
DEFINES = (f"TILE={THREADS}", "ROWS_PER_THREAD=1")

STAY_NS = 5_000_000  # of the block, once started
# Looks at the answer's number, of some ten nanoseconds each, before others get the interpreter.
_SPINS = range(2000)
_SUSPECT_S = 1e-3  # after which it is asked whether the block still lives


class NotServedError(Exception):
    """Another way has to be gone; nothing has changed."""


class Block:
    """Mailboxes in mapped pinned memory, and the block that answers. Whoever asks it holds the table's lock.

    dead:  whether a block ended without a word: none is asked again
    """

    def __init__(self, table: DeviceTable):
        self.table, self.health = table, table.health
        self._memory = pinned(mailbox.BROUGHT + NBYTES, np.uint8)
        self._memory[: mailbox.SENT] = 0
        self._at = self._memory.ctypes.data
        self._to = self._at + mailbox.BROUGHT  # where the block answers
        self._view = self._memory.data  # slices of which cost the least
        self._words = self._view[: mailbox.SENT].cast("Q")
        self._copied = table.scratch.take(NBYTES, np.uint8)
        self._places = table.scratch.take(ROWS, np.uint64)
        self._from = self._copied.data.ptr - mailbox.SENT  # what is sent lies there for kernels
        self._kernel = function("doorbell", "serve", DEFINES)
        # The device's first choice where its multiprocessors are all taken.
        self._stream = cupy.cuda.Stream(non_blocking=True, priority=-5)
        # Nobody else gets these before the block has left.
        memory = self._memory, self._copied, self._places
        self._leave = weakref.finalize(self, mailbox.until_gone, memory, self._stream)
        self._asked = self._started = 0
        self.dead = False
        self._own = (
            self._at,
            self._at + mailbox.SENT,
            self._to,
            NBYTES,
            self._copied.data.ptr,
            address(table.counters, "u8", kernels.COUNTERS),
            address(table.report, "u8", kernels.REPORT_WORDS),
            address(self._places, "u8", ROWS),
        )
        self._seen = -1  # launches of the table that are known to be over

    def _be_answered(self, number: int, meanwhile: Callable[[], Any] | None = None) -> Any:
        """Returns what was made meanwhile, once there is an answer."""
        words = self._words
        if words[GONE] == self._started:
            self._start()
        try:
            made = meanwhile and meanwhile()
            for _ in _SPINS:
                if words[ANSWERED] >= number:
                    return made
            self._wait(number)
        except (KeyboardInterrupt, MemoryError):
            self._seen = -1
            self._wait(number)  # nothing may be launched beside it
            raise
        return made

    @named
    def _start(self) -> None:
        self._started += 1
        with self._stream:
            self._kernel((1,), (THREADS,), (*self._own, self._started, STAY_NS))

    @named
    def _wait(self, number: int) -> None:
        words, began = self._words, time.perf_counter()
        while words[ANSWERED] < number:
            waited = time.perf_counter() - began
            if words[GONE] == self._started:
                if words[ANSWERED] < number:  # it left just before it was asked
                    self._start()
            elif waited > _SUSPECT_S and self._stream.done:
                if words[ANSWERED] < number and words[GONE] != self._started:
                    self.dead, self._seen = True, -1
                    raise NotServedError
            elif waited > self.health.timeout_s:
                self._seen = -1
                self.health.give_up(self._stream, "a small call")
            pause(waited)
