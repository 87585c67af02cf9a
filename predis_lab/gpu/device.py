"""What this GPU and its link are, as the driver tells it. Nothing here is a constant of one model."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import cupy

_SYSTEM = Path("/sys")

# Transfer rate of one PCI Express lane by generation, and the share of it that its line code leaves for data
# (PCI Express base specifications 1.0 to 6.0).
_GIGATRANSFERS = {1: 2.5, 2: 5.0, 3: 8.0, 4: 16.0, 5: 32.0, 6: 64.0}
_LINE_CODE = {1: 8 / 10, 2: 8 / 10, 3: 128 / 130, 4: 128 / 130, 5: 128 / 130, 6: 242 / 256}


@dataclass(frozen=True)
class Device:
    """One GPU. Bandwidths are theoretical, in bytes per second and one direction; None where nothing tells."""

    name: str
    arch: int  # 90 for compute capability 9.0
    multiprocessors: int
    threads_per_multiprocessor: int
    l2_nbytes: int
    memory_nbytes: int
    memory_bandwidth: float | None
    link_generation: int | None
    link_width: int | None
    link_bandwidth: float | None
    driver: str | None

    @classmethod
    def current(cls) -> Device:
        """The device CuPy uses now."""
        return _device(cupy.cuda.runtime.getDevice())


@functools.cache  # the management library takes some ten milliseconds to start
def _device(number: int) -> Device:
    properties = cupy.cuda.runtime.getDeviceProperties(number)
    generation, width, driver = _link(cupy.cuda.runtime.deviceGetPCIBusId(number))
    return Device(
        name=properties["name"].decode(),
        arch=properties["major"] * 10 + properties["minor"],
        multiprocessors=properties["multiProcessorCount"],
        threads_per_multiprocessor=properties["maxThreadsPerMultiProcessor"],
        l2_nbytes=properties["l2CacheSize"],
        memory_nbytes=properties["totalGlobalMem"],
        memory_bandwidth=_memory_bandwidth(number),
        link_generation=generation,
        link_width=width,
        link_bandwidth=link_bandwidth(generation, width) if generation and width else None,
        driver=driver,
    )


def link_bandwidth(generation: int, width: int) -> float:
    """Bytes per second in one direction that a PCI Express link carries, line code taken off, packets not.

    >>> round(link_bandwidth(5, 16) / 1e9, 1)
    63.0
    """
    return _GIGATRANSFERS[generation] * 1e9 / 8 * width * _LINE_CODE[generation]


@functools.cache
def nearby_cores() -> frozenset[int]:
    """Cores of the NUMA node that the device CuPy uses now hangs on; none where all memory is equally near."""
    bus_id = cupy.cuda.runtime.deviceGetPCIBusId(cupy.cuda.runtime.getDevice())
    nodes = _SYSTEM / "devices/system/node"
    try:
        node = int((_SYSTEM / "bus/pci/devices" / bus_id.lower() / "numa_node").read_text())
        if node < 0 or len(list(nodes.glob("node[0-9]*"))) < 2:
            return frozenset()
        return parse_cores((nodes / f"node{node}/cpulist").read_text())
    except (OSError, ValueError):
        return frozenset()


def parse_cores(text: str) -> frozenset[int]:
    """The kernel's list of cores.

    >>> sorted(parse_cores("0-2,8"))
    [0, 1, 2, 8]
    """
    spans = [part.split("-") for part in text.strip().split(",") if part]
    return frozenset(c for span in spans for c in range(int(span[0]), int(span[-1]) + 1))


def _memory_bandwidth(number: int) -> float | None:
    runtime = cupy.cuda.runtime
    clock_khz = runtime.deviceGetAttribute(runtime.cudaDevAttrMemoryClockRate, number)
    width_bits = runtime.deviceGetAttribute(runtime.cudaDevAttrGlobalMemoryBusWidth, number)
    # Two transfers a clock: every memory type CUDA devices use is double data rate.
    return 2 * clock_khz * 1e3 * width_bits / 8 or None


def _link(bus_id: str) -> tuple[int | None, int | None, str | None]:
    try:
        import pynvml
    except ImportError:  # no telling without the management library; a cache works all the same
        return None, None, None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None, None, None
    try:
        handle = pynvml.nvmlDeviceGetHandleByPciBusId(bus_id)
        return (
            # The current generation falls while the device idles: the highest that both ends support is meant.
            pynvml.nvmlDeviceGetMaxPcieLinkGeneration(handle),
            pynvml.nvmlDeviceGetMaxPcieLinkWidth(handle),
            pynvml.nvmlSystemGetDriverVersion(),
        )
    except pynvml.NVMLError:
        return None, None, None
    finally:
        pynvml.nvmlShutdown()
