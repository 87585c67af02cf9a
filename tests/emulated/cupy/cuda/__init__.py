"""Memory, streams and events of the stand-in: everything is done when a call returns, unless `asynchronous` takes over."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from . import compiler, driver, memory, nvrtc, runtime

_ALIGNMENT = 512  # the driver's
_PAGE = 2**21  # as well
_local = threading.local()


def _give_back(nbytes: int) -> None:
    runtime.taken -= nbytes


class Memory:
    """An allocation of its own, its first part filled with something that is not zero: most of a log is never used."""

    def __init__(self, nbytes: int):
        buffer = np.empty(nbytes + _ALIGNMENT, np.uint8)
        buffer[: 2**20] = 0xAB
        start = -buffer.ctypes.data % _ALIGNMENT
        self.host = keep(buffer[start : start + nbytes])
        # Arrays outlive what they came from here; the bytes are taken as long as one of them lives.
        pages = -(-nbytes // _PAGE) * _PAGE if nbytes > _PAGE // 2 else nbytes
        runtime.taken += pages
        weakref.finalize(buffer, _give_back, pages)


class MemoryPointer:
    """A place in an allocation."""

    def __init__(self, memory: Memory, offset: int):
        self.memory, self.offset = memory, offset
        self.ptr = memory.host.ctypes.data + offset

    def __add__(self, nbytes: int) -> MemoryPointer:
        return MemoryPointer(self.memory, self.offset + nbytes)


def alloc(nbytes: int) -> MemoryPointer:
    """Device memory from the pool that CuPy's arrays come from."""
    return MemoryPointer(Memory(nbytes), 0)


class _Pinned(np.ndarray):
    """Bytes with an address, as CuPy's pointers are."""

    @property
    def ptr(self) -> int:
        return self.ctypes.data


def alloc_pinned_memory(nbytes: int) -> _Pinned:
    """Host memory; as CuPy's, it may be larger than asked for, and lies at a multiple of 512."""
    buffer = np.full(max(nbytes, 512) + _ALIGNMENT, 0xEF, np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    return buffer[start : start + max(nbytes, 512)].view(_Pinned)


class PinnedMemory:
    """Host memory of its own; what becomes of a request can be decided by a test."""

    def __init__(self, size: int, flags: int = 0):
        buffer = np.full(size + _ALIGNMENT, 0xEF, np.uint8)
        start = -buffer.ctypes.data % _ALIGNMENT
        self.host = buffer[start : start + size]
        self.ptr, self.size = self.host.ctypes.data, size


def PinnedMemoryPointer(memory: PinnedMemory, offset: int) -> memoryview:  # noqa: N802 - CuPy's own name
    return memory.host[offset:].data


class Event:
    """Has happened, unless a test says that its stream is stuck, and did when it was recorded."""

    ptr = 0
    happened = True

    def __init__(self, **_: Any):
        pass

    @property
    def done(self) -> bool:
        self.happened = self.happened or self.stream.done
        return self.happened

    def record(self, stream: Any = None) -> None:
        self.at, self.stream = time.perf_counter(), stream or _null
        self.happened = self.stream.done

    def synchronize(self) -> None:
        pass


def get_elapsed_time(began: Event, ended: Event) -> float:
    """Milliseconds, on the host's clock: of no meaning, but there."""
    return (ended.at - began.at) * 1e3


class Device:
    """The only one."""

    def use(self) -> None:
        pass


class Stream:
    """Has always done its work; which one is current is kept per thread."""

    _count = 0
    done = True

    def __init__(self, null: bool = False, non_blocking: bool = False, priority: int = 0):
        Stream._count += 1
        self.ptr = 0 if null else Stream._count
        self.priority = priority
        self.captured: list[Callable[[], None]] | None = None

    def __enter__(self) -> Stream:
        _local.before = [*getattr(_local, "before", ()), get_current_stream()]
        _local.stream = self
        return self

    def __exit__(self, *_: object) -> None:
        _local.stream = _local.before.pop()

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


_behind = bool(os.environ.get("PREDIS_EMULATED_ASYNC"))

if _behind:
    from . import asynchronous
    from .asynchronous import Event, Stream

_null = Stream(null=True)


def get_current_stream() -> Stream:
    return getattr(_local, "stream", _null)


def settle() -> None:
    """Before an array's operator runs on the host: what the current stream has before it."""
    get_current_stream().synchronize()


def synchronize() -> None:
    """Returns when the device has done all that it was given."""
    if _behind:
        asynchronous.synchronize()


def keep(memory: Any) -> Any:
    """Device memory that may still be used by what is enqueued."""
    if _behind:
        asynchronous.kept.append(memory)
    return memory


def enqueue(stream: Any, call: Callable[[], None]) -> None:
    """Now, or in the stream's own time. stream: or its number."""
    if _behind:
        (asynchronous.stream_at(stream) if isinstance(stream, int) else stream).submit(call)
    else:
        call()


class MemoryPool:
    """Hands out memory of its own, and keeps nothing of what comes back."""

    def __init__(self) -> None:
        self._used, self._limit = 0, 0

    def malloc(self, nbytes: int) -> MemoryPointer:
        rounded = -(-nbytes // _ALIGNMENT) * _ALIGNMENT
        if self._limit and self._used + rounded > self._limit:
            raise memory.OutOfMemoryError(f"{nbytes} bytes")
        pointer = MemoryPointer(Memory(rounded), 0)
        self._used += rounded
        weakref.finalize(pointer, self._give_back, rounded)
        return pointer

    def _give_back(self, nbytes: int) -> None:
        self._used -= nbytes

    def used_bytes(self) -> int:
        return self._used

    total_bytes = used_bytes

    def n_free_blocks(self) -> int:
        return 0

    def set_limit(self, size: int = 0) -> None:
        self._limit = size

    def free_all_blocks(self) -> None:
        pass


class MemoryAsyncPool(MemoryPool):
    """The same here; on a device it is the driver's."""


_device_pool, _host_pool = MemoryPool(), MemoryPool()


def memory_pool() -> MemoryPool:
    return _device_pool


def pinned_memory_pool() -> MemoryPool:
    return _host_pool


__all__ = ["compiler", "driver", "memory", "nvrtc", "runtime"]
