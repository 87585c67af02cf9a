"""Launch settings of the dense kernels, and the occupancy that follows from them: without a GPU, from the compiler alone.

For notebook 02; `occupancy_rates` measures the same settings on a GPU.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..gpu import source
from ..gpu.ladder import RUNGS
from ..gpu.occupancy import MULTIPROCESSORS, Multiprocessor, Occupancy, occupancy
from .results import Run

# Kernel -> its module, and the definition that caps its registers. An insert is the last two, one after the other.
KERNELS = {
    "find_dense": ("find", "FIND_BLOCKS"),
    "publish": ("insert", "INSERT_BLOCKS"),
    "write_dense": ("insert", "FIND_BLOCKS"),
}


@dataclass(frozen=True)
class Setting:
    """What a dense kernel is compiled for.

    threads:   per block
    resident:  share of a multiprocessor's threads that its registers must leave room for at least
    pieces:    of 16 bytes under way per lane, of records
    rounds:    of eight buckets under way per warp
    """

    threads: int
    resident: float
    pieces: int
    rounds: int

    def defines(self, kernel: str, multiprocessor: Multiprocessor) -> tuple[str, ...]:
        """As compile options."""
        shares = {**source.RESIDENT_SHARE, KERNELS[kernel][1]: self.resident}
        most = multiprocessor.max_threads / self.threads
        return (
            f"TILE={self.threads}",
            *(f"{family}={max(1, int(share * most))}" for family, share in shares.items()),
            f"PIECES_AT_ONCE={self.pieces}",
            f"ROUNDS_AT_ONCE={self.rounds}",
        )


@dataclass(frozen=True)
class Prediction:
    """What the compiler and the occupancy calculator say of one kernel."""

    kernel: str
    arch: int
    setting: Setting
    registers: int
    spill_nbytes: int
    occupancy: Occupancy


def usual(kernel: str, multiprocessor: Multiprocessor) -> Setting:
    """What serves the cache."""
    module, family = KERNELS[kernel]
    pieces, rounds = (
        int(re.search(rf"#define {name} (\d+)", source.read_source(module))[1])  # type: ignore[index]
        for name in ("PIECES_AT_ONCE", "ROUNDS_AT_ONCE")
    )
    threads = source.block_size(multiprocessor)
    return Setting(threads, source.RESIDENT_SHARE[family], pieces, rounds)


def blocks_by_registers(
    around: Setting, threads: Iterable[int], resident: Sequence[float]
) -> list[Setting]:
    """Every block size with every cap on the registers."""
    return [replace(around, threads=t, resident=r) for t in threads for r in resident]


def in_flight(
    around: Setting, pieces: Iterable[int], rounds: Iterable[int], resident: Sequence[float]
) -> list[Setting]:
    """Every number of pieces with every cap on the registers, and every number of rounds at the usual one."""
    several = [replace(around, pieces=p, resident=r) for p in pieces for r in resident]
    return several + [replace(around, rounds=r) for r in rounds]


def parameters(setting: Setting) -> dict[str, Any]:
    """As parameters of a sample."""
    return asdict(setting)


def why_no_compiler() -> str | None:
    """Why nothing can be predicted here, or None."""
    missing = [name for name in ("cuda.bindings", "nvidia") if not _is_there(name)]
    if missing:
        return f"{' and '.join(missing)} can't be imported: `pip install cuda-bindings nvidia-cuda-nvrtc`"
    return None


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def predict(kernel: str, arch: int, setting: Setting | None = None) -> Prediction:
    """Registers and occupancy on sm_<arch>; without a setting, of what serves the cache there."""
    multiprocessor = MULTIPROCESSORS[arch]
    setting = setting or usual(kernel, multiprocessor)
    module = KERNELS[kernel][0]
    _, found = source.compile_offline(module, arch, setting.defines(kernel, multiprocessor))
    (needs,) = [one for one in found if one.kernel == kernel]
    resides = occupancy(multiprocessor, needs.registers, needs.shared_nbytes, setting.threads)
    return Prediction(kernel, arch, setting, needs.registers, needs.spill_nbytes, resides)


def predictions(
    architectures: Sequence[int], progress: Callable[[float], object] = lambda _: None
) -> list[Prediction]:
    """Every kernel on each architecture. progress: called after each."""
    found = []
    for arch in architectures:
        for kernel in KERNELS:
            found.append(predict(kernel, arch))
            progress(1)
    return found


def caps(
    arch: int, resident: Iterable[float], progress: Callable[[float], object] = lambda _: None
) -> list[Prediction]:
    """Every kernel with each cap on their registers, all else as usual. progress: called after each."""
    found = []
    for kernel in KERNELS:
        around = usual(kernel, MULTIPROCESSORS[arch])
        for share in resident:
            found.append(predict(kernel, arch, replace(around, resident=share)))
            progress(1)
    return found


def record(run: Run, found: Iterable[Prediction]) -> None:
    """Adds each predicted occupancy to the run, as occupancy_find_dense_sm_90_predicted."""
    for one in found:
        name = f"occupancy_{one.kernel}_sm_{one.arch}_predicted"
        run.add_figure(name, one.occupancy.share, "1")


@dataclass(frozen=True)
class RungNeeds:
    """What a rung's kernel needs on one architecture."""

    rung: str
    registers: int
    shared_nbytes: int
    occupancy: Occupancy


def rung_needs(
    rungs: Sequence[str], operation: str, arch: int, progress: Callable[[float], object]
) -> list[RungNeeds]:
    """Of each rung that changes the operation. progress: called after each."""
    multiprocessor, found = MULTIPROCESSORS[arch], []
    for name in (name for name in rungs if operation in RUNGS[name].operations):
        defines = RUNGS[name].defines(operation)
        _, (needs,) = source.compile_offline(f"ladder_{operation}", arch, defines)
        threads = source.block_size(multiprocessor)
        resides = occupancy(multiprocessor, needs.registers, needs.shared_nbytes, threads)
        found.append(RungNeeds(name, needs.registers, needs.shared_nbytes, resides))
        progress(1)
    return found
