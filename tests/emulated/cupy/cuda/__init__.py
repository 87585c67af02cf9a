"""Memory, streams and events of the stand-in: everything is done when a call returns."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from . import runtime

_ALIGNMENT = 512  # the driver's
_local = threading.local()


class Memory:
    """An allocation of its own, filled with something that is not zero."""

    def __init__(self, nbytes: int):
        buffer = np.full(nbytes + _ALIGNMENT, 0xAB, np.uint8)
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


class Event:
    """Has always happened."""

    def __init__(self, **_: Any):
        pass

    def record(self, stream: Any = None) -> None:
        pass

    def synchronize(self) -> None:
        pass


class Stream:
    """Has always done its work; which one is current is kept per thread."""

    _count = 0

    def __init__(self, null: bool = False, non_blocking: bool = False):
        Stream._count += 1
        self.ptr = 0 if null else Stream._count
        self._before: list[Stream] = []

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


__all__ = ["runtime"]
