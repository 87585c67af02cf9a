"""The runtime's functions of the stand-in. One device that has no properties to speak of."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

memcpyHostToDevice, memcpyDeviceToHost, memcpyDeviceToDevice = 1, 2, 3  # noqa: N816 - CuPy's own names
cudaMemPoolAttrReservedMemCurrent = cudaMemPoolAttrUsedMemCurrent = 0  # noqa: N816
cudaDevAttrMemoryClockRate = cudaDevAttrGlobalMemoryBusWidth = 0  # noqa: N816


class CUDARuntimeError(RuntimeError):
    """Never raised."""


def getDeviceCount() -> int:  # noqa: N802
    return 1


def driverGetVersion() -> int:  # noqa: N802
    return 0


def getDevice() -> int:  # noqa: N802
    return 0


def getDeviceProperties(number: int) -> dict[str, Any]:  # noqa: N802
    return {
        "name": b"emulated on the CPU",
        "major": 9,
        "minor": 0,
        "multiProcessorCount": 4,
        "maxThreadsPerMultiProcessor": 2048,
        "maxBlocksPerMultiProcessor": 32,
        "regsPerMultiprocessor": 65536,
        "sharedMemPerMultiprocessor": 228 * 1024,
        "sharedMemPerBlockOptin": 227 * 1024,
        "reservedSharedMemPerBlock": 1024,
        "l2CacheSize": 0,
        "totalGlobalMem": 0,
    }


def profilerStart() -> None:  # noqa: N802
    """Nobody watches."""


def profilerStop() -> None:  # noqa: N802
    """Nobody has watched."""


def deviceGetPCIBusId(number: int) -> str:  # noqa: N802
    return "0"


def deviceGetAttribute(attribute: int, number: int) -> int:  # noqa: N802
    return 0


def pointerGetAttributes(pointer: int) -> SimpleNamespace:  # noqa: N802
    return SimpleNamespace(type=0)


def deviceSynchronize() -> None:  # noqa: N802
    from . import synchronize

    synchronize()


def streamQuery(pointer: int) -> int:  # noqa: N802
    return 600


def eventQuery(pointer: int) -> int:  # noqa: N802
    return 600


def memcpyAsync(to: int, source: int, nbytes: int, kind: int, stream: int) -> None:  # noqa: N802
    from . import enqueue

    enqueue(stream, lambda: ctypes.memmove(to, source, nbytes))


taken = 0  # bytes of all allocations


def memGetInfo() -> tuple[int, int]:  # noqa: N802
    return 2**35 - taken, 2**36


def deviceGetDefaultMemPool(number: int) -> int:  # noqa: N802
    return 1


def memPoolGetAttribute(pool: int, attribute: int) -> int:  # noqa: N802
    return 0
