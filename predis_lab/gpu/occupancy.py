"""How many blocks of a kernel one multiprocessor holds, by the rules of NVIDIA's occupancy calculator.

Plain arithmetic, without CUDA: `modules` asks it about the device at hand, tests and predictions about any
architecture of `MULTIPROCESSORS`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WARP = 32  # threads
MAX_REGISTERS = 255  # per thread
MAX_THREADS = 1024  # per block
# Registers are handed out to whole warps in pieces of this many, and a multiprocessor's four schedulers own a
# quarter of them each (`cuda_occupancy.h` of the CUDA toolkit; so for every architecture from sm_75).
REGISTER_UNIT = 256
SCHEDULERS = 4


@dataclass(frozen=True)
class Multiprocessor:
    """What one multiprocessor has to give to the blocks that reside on it."""

    max_threads: int
    max_blocks: int
    registers: int  # of 32 bits
    shared_nbytes: int
    max_shared_nbytes_per_block: int
    reserved_shared_nbytes: int  # taken by the driver from every block
    shared_unit_nbytes: int  # shared memory is handed out in pieces of this size

    @classmethod
    def from_device(cls, properties: Mapping[str, Any]) -> Multiprocessor:
        """That of a device, from what `cupy.cuda.runtime.getDeviceProperties` says."""
        return cls(
            max_threads=properties["maxThreadsPerMultiProcessor"],
            max_blocks=properties["maxBlocksPerMultiProcessor"],
            registers=properties["regsPerMultiprocessor"],
            shared_nbytes=properties["sharedMemPerMultiprocessor"],
            max_shared_nbytes_per_block=properties["sharedMemPerBlockOptin"],
            reserved_shared_nbytes=properties["reservedSharedMemPerBlock"],
            shared_unit_nbytes=_shared_unit(properties["major"]),
        )


def _shared_unit(major: int) -> int:
    # No property tells (`cuda_occupancy.h`).
    return 128 if major >= 8 else 256


def _of_architecture(arch: int, max_threads: int, max_blocks: int, shared: int) -> Multiprocessor:
    # From sm_80 on, 1 KiB of each block's shared memory is the driver's.
    reserved = 1024 if arch >= 80 else 0
    return Multiprocessor(
        max_threads,
        max_blocks,
        65536,
        shared * 1024,
        shared * 1024 - reserved,
        reserved,
        _shared_unit(arch // 10),
    )


# For predictions without a device. Threads, blocks and KiB of shared memory per multiprocessor: CUDA C++ Programming
# Guide, "Technical Specifications per Compute Capability".
MULTIPROCESSORS = {
    arch: _of_architecture(arch, *specification)
    for arch, specification in {
        75: (1024, 16, 64),
        80: (2048, 32, 164),
        86: (1536, 16, 100),
        89: (1536, 24, 100),
        90: (2048, 32, 228),
        100: (2048, 32, 228),
        120: (1536, 24, 100),
        121: (1536, 24, 100),
    }.items()
}


@dataclass(frozen=True)
class Occupancy:
    """What of a kernel resides on one multiprocessor at once."""

    blocks: int
    warps: int
    share: float  # of the warps that the multiprocessor holds at most
    limited_by: tuple[str, ...]  # of "threads", "blocks", "registers", "shared memory"


def occupancy(
    multiprocessor: Multiprocessor,
    registers: int,
    shared_nbytes_per_block: int,
    threads_per_block: int,
) -> Occupancy:
    """The occupancy of a kernel; none at all (0 blocks) where a single block is too much.

    >>> occupancy(MULTIPROCESSORS[90], registers=40, shared_nbytes_per_block=0, threads_per_block=128)
    Occupancy(blocks=12, warps=48, share=0.75, limited_by=('registers',))

    registers: per thread. shared_nbytes_per_block: static and dynamic, without what the driver reserves.
    raises: ValueError where no multiprocessor takes so many threads a block
    """
    if not 0 < threads_per_block <= MAX_THREADS:
        raise ValueError(f"a block of {threads_per_block} threads")
    warps = -(-threads_per_block // WARP)
    limits = {
        "threads": multiprocessor.max_threads // (warps * WARP),
        "blocks": multiprocessor.max_blocks,
        "registers": _blocks_by_registers(multiprocessor, registers, warps),
        "shared memory": _blocks_by_shared_memory(multiprocessor, shared_nbytes_per_block),
    }
    blocks = min(limits.values())
    return Occupancy(
        blocks,
        blocks * warps,
        blocks * warps * WARP / multiprocessor.max_threads,
        tuple(name for name, limit in limits.items() if limit == blocks),
    )


def _blocks_by_registers(multiprocessor: Multiprocessor, registers: int, warps: int) -> int:
    per_warp = _whole(max(registers, 1) * WARP, REGISTER_UNIT)
    # A launch is let through only if every scheduler could take its share of the block.
    if registers > MAX_REGISTERS or per_warp * _whole(warps, SCHEDULERS) > multiprocessor.registers:
        return 0
    per_scheduler = multiprocessor.registers // SCHEDULERS // per_warp
    return per_scheduler * SCHEDULERS // warps


def _blocks_by_shared_memory(multiprocessor: Multiprocessor, nbytes: int) -> int:
    if nbytes > multiprocessor.max_shared_nbytes_per_block:
        return 0
    reserved, unit = multiprocessor.reserved_shared_nbytes, multiprocessor.shared_unit_nbytes
    taken = _whole(nbytes + reserved, unit)
    return multiprocessor.shared_nbytes // taken if taken else sys.maxsize


def _whole(n: int, unit: int) -> int:
    return -(-n // unit) * unit
