"""Memory, streams and events of the stand-in: everything is done when a call returns."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from . import compiler, driver, memory, nvrtc, runtime

_ALIGNMENT = 512  # the driver's
_local = threading.local()


class Memory:
    """An allocation of its own, its first part filled with something that is not zero: most of a log is never used."""

    def __init__(self, nbytes: int):
        buffer = np.empty(nbytes + _ALIGNMENT, np.uint8)
        buffer[: 2**20] = 0xAB
        start = -buffer.ctypes.data % _ALIGNMENT
        self.host = buffer[start : start + nbytes]


class MemoryPointer:
    """A place in an allocation."""

    def __init__(self, memory: Memory, offset: int):
        self.memory = memory
        self.ptr = memory.host.ctypes.data + offset


def alloc_pinned_memory(nbytes: int) -> memoryview:
    """Host memory; as CuPy's, it may be larger than asked for."""
    return np.full(max(nbytes, 512), 0xEF, np.uint8).data


class PinnedMemory:
    """Host memory of its own; what becomes of a request can be decided by a test."""

    def __init__(self, size: int, flags: int = 0):
        self.host = Memory(size).host
        self.ptr, self.size = self.host.ctypes.data, size


def PinnedMemoryPointer(memory: PinnedMemory, offset: int) -> memoryview:  # noqa: N802 - CuPy's own name
    return memory.host[offset:].data


class Event:
    """Happens with its stream, which has always done its work unless a test says otherwise."""

    def __init__(self, **_: Any):
        pass

    @property
    def done(self) -> bool:
        return getattr(self, "stream", _null).done

    def record(self, stream: Any = None) -> None:
        self.at, self.stream = time.perf_counter(), stream or _null

    def synchronize(self) -> None:
        pass


def get_elapsed_time(began: Event, ended: Event) -> float:
    """Milliseconds, on the host's clock: of no meaning, but there."""
    return (ended.at - began.at) * 1e3


class Stream:
    """Has always done its work; which one is current is kept per thread."""

    _count = 0
    done = True

    def __init__(self, null: bool = False, non_blocking: bool = False):
        Stream._count += 1
        self.ptr = 0 if null else Stream._count
        self._before: list[Stream] = []
        self.captured: list[Callable[[], None]] | None = None

    def __enter__(self) -> Stream:
        self._before.append(get_current_stream())
        _local.stream = self
        return self

    def __exit__(self, *_: object) -> None:
        _local.stream = self._before.pop()

    def synchronize(self) -> None:
        pass

    def record(self, event: Any = None) -> Event:
        return Event()

    def wait_event(self, event: Event) -> None:
        pass

    def begin_capture(self) -> None:
        self.captured = []

    def end_capture(self) -> Graph:
        graph, self.captured = Graph(self.captured or []), None
        return graph


class Graph:
    """Launches to be made over and over."""

    def __init__(self, launches: list[Callable[[], None]]):
        self._launches = launches

    def launch(self, stream: Any = None) -> None:
        for launch in self._launches:
            launch()


_null = Stream(null=True)


def get_current_stream() -> Stream:
    return getattr(_local, "stream", _null)


class _Pool:
    def total_bytes(self) -> int:
        return 0

    def free_all_blocks(self) -> None:
        pass


def memory_pool() -> _Pool:
    return _Pool()


__all__ = ["compiler", "driver", "memory", "nvrtc", "runtime"]
