"""Pinned host memory: what the device reads and writes at the same address, at the link's full bandwidth.

Page-locking costs more than copying: blocks are taken once and kept for the next call. Called by everything in `gpu` that
moves bytes across the link.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cupy
import numpy as np
from cupy.cuda import runtime

from ..errors import PinnedMemoryUnavailable
from .device import nearby_cores

SMALL_NBYTES = 2**20  # below it CuPy's pool serves, from here on blocks of our own
_POINTER_TO_PINNED = 1  # cudaMemoryTypeHost
# Of the machine's memory, that may lie page-locked and unused, waiting for the next call.
_KEPT_SHARE = 1 / 8


class PinnedArray(np.ndarray):
    """A NumPy array over pinned host memory: the device reads and writes it at the same address."""

    @property
    def ptr(self) -> int:
        """That address."""
        return self.ctypes.data


def pinned(n: int, dtype: Any) -> PinnedArray:
    """An uninitialised pinned array of shape (n,). The memory returns to a pool when the last view is gone.

    raises: PinnedMemoryUnavailable
    """
    dtype = np.dtype(dtype)
    return np.frombuffer(pinned_memory(n * dtype.itemsize), dtype, n).view(PinnedArray)


def pinned_memory(nbytes: int) -> Any:
    """The same, in bytes: a buffer with its address as `ptr`, which may be longer than asked for."""
    if nbytes >= SMALL_NBYTES:
        return np.asarray(_Block(pool.take(nbytes))).view(PinnedArray)
    try:
        # Few sizes, lest a pool that never joins blocks grows with every new one.
        return cupy.cuda.alloc_pinned_memory(1 << max(nbytes - 1, 0).bit_length())
    except runtime.CUDARuntimeError as error:
        raise PinnedMemoryUnavailable(f"no {nbytes:,} bytes to be pinned: {error}") from error


def host_array(n: int, dtype: Any) -> np.ndarray:
    """The same, or a pageable array where none is to be had; one warning says so, and `pool.refused` counts.

    For what is only copied to or from: no kernel reaches a pageable array.
    """
    try:
        return pinned(n, dtype)
    except PinnedMemoryUnavailable as error:
        pool.refused += 1
        if pool.refused == 1:
            warnings.warn(f"{error}; transfers go on, slower", RuntimeWarning, stacklevel=2)
        return np.empty(n, dtype)


def is_pinned(array: np.ndarray) -> bool:
    """Whether the driver knows the array's memory as page-locked, whoever allocated it."""
    return runtime.pointerGetAttributes(array.ctypes.data).type == _POINTER_TO_PINNED


class _Block:
    """A block in use: NumPy arrays over it keep it, and with the last of them it goes back."""

    def __init__(self, memory: Any):
        self._memory = memory
        self.__array_interface__ = {
            "data": (memory.ptr, False),
            "shape": (memory.size,),
            "typestr": "|u1",
            "version": 3,
        }

    def __del__(self) -> None:
        pool.give_back(self._memory)


class Pool:
    """Blocks that wait to be used again, the least recently used given up first."""

    def __init__(self, kept_nbytes: int):
        self.kept_nbytes = kept_nbytes
        self.free_nbytes = self.used_nbytes = self.refused = 0
        # Re-entrant: a collection of garbage may give a block back in the middle of anything.
        self._lock = threading.RLock()
        self._free: dict[int, list[Any]] = defaultdict(list)
        self._order: OrderedDict[int, Any] = OrderedDict()  # by address, oldest first

    def take(self, nbytes: int) -> Any:
        """A block of at least nbytes; raises PinnedMemoryUnavailable."""
        size = _size_class(nbytes)
        with self._lock:
            waiting = self._free[size]
            if waiting:
                memory = waiting.pop()
                del self._order[memory.ptr]
                self.free_nbytes -= size
                self.used_nbytes += size
                return memory
        memory = self._new(size)
        with self._lock:
            self.used_nbytes += size
        return memory

    def give_back(self, memory: Any) -> None:
        """Keeps a block for the next call."""
        with self._lock:
            self.used_nbytes -= memory.size
            self.free_nbytes += memory.size
            self._free[memory.size].append(memory)
            self._order[memory.ptr] = memory
            self._shrink(self.kept_nbytes)

    def trim(self) -> None:
        """Gives up all blocks that wait."""
        with self._lock:
            self._shrink(0)

    def _shrink(self, nbytes: int) -> None:
        while self.free_nbytes > nbytes:
            _, memory = self._order.popitem(last=False)
            self._free[memory.size].remove(memory)
            self.free_nbytes -= memory.size

    def _new(self, size: int) -> Any:
        with near_device():
            try:
                return cupy.cuda.PinnedMemory(size)
            except runtime.CUDARuntimeError:
                self.trim()  # other sizes may be what is in the way
            try:
                return cupy.cuda.PinnedMemory(size)
            except runtime.CUDARuntimeError as error:
                raise PinnedMemoryUnavailable(f"no {size:,} bytes to be pinned: {error}") from error


def _size_class(nbytes: int) -> int:
    """The next size of four within each power of two: a quarter is wasted at most, and blocks fit again."""
    step = 1 << max(0, (nbytes - 1).bit_length() - 3)
    return -(-nbytes // step) * step


def _memory_nbytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@contextmanager
def near_device() -> Iterator[None]:
    """Runs this thread beside the GPU where the machine has several NUMA nodes: memory lies where it is first touched."""
    cores = nearby_cores()
    before = os.sched_getaffinity(0) if cores else None
    if cores and before is not None and cores & before:
        os.sched_setaffinity(0, cores & before)
    try:
        yield
    finally:
        if before is not None:
            os.sched_setaffinity(0, before)


pool = Pool(int(_KEPT_SHARE * _memory_nbytes()))
