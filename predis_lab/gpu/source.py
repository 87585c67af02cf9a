"""The kernels' source text, the options they are compiled with, and their compilation without a GPU.

The CUDA files lie in `kernels/` of the checkout, or in `predis_lab/kernels/` of an installed package. Nothing
here needs a driver: `compile_offline` asks NVRTC for any architecture and reads what the compiler says.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

from .occupancy import MULTIPROCESSORS, Multiprocessor

MODULES = (
    "find",
    "insert",
    "erase",
    "maintain",
    "stretches",
    "columns",
    "doorbell",
    "checksum",
    "tiers",
    "limits",
    "replay",
    "ladder_find",
    "ladder_insert",
    "ladder_erase",
)
TILE = 128  # threads per block, at least; what fills a multiprocessor of every architecture so far
ROWS_PER_THREAD = 2  # at most, in the kernels that pack rows
# The least share of a multiprocessor's threads that the registers of each family of kernels must leave room for: with
# more registers a thread has more loads in flight, with more threads there are more threads that have.
RESIDENT_SHARE = {
    "FIND_BLOCKS": 0.5625,
    "INSERT_BLOCKS": 0.45,
    "MIN_BLOCKS": 0.5,
}
ARCHITECTURES = tuple(MULTIPROCESSORS)

_PACKAGE = Path(__file__).resolve().parent.parent
_INCLUDE = re.compile(r'^#include "([\w.]+)"$', re.MULTILINE)


@functools.cache
def kernels_directory() -> Path:
    """Where the CUDA sources lie."""
    for directory in (_PACKAGE / "kernels", _PACKAGE.parent / "kernels"):
        if (directory / "common.cuh").is_file():
            return directory
    raise FileNotFoundError(f"no kernels beside {_PACKAGE}: the installation is incomplete")


@functools.cache
def read_source(module: str) -> str:
    """One module's source with its own headers in place of the include lines.

    NVRTC would find the headers too, but a cache of compiled modules is keyed by this text alone, and must
    notice when a header changes.
    """
    seen: set[str] = set()

    def expand(name: str) -> str:
        if name in seen:
            return ""
        seen.add(name)
        text = (kernels_directory() / name).read_text()
        return _INCLUDE.sub(lambda line: expand(line.group(1)), text)

    return expand(f"{module}.cu")


def block_size(multiprocessor: Multiprocessor) -> int:
    """Threads per block: as few as fill the multiprocessor, TILE at least; a power of two."""
    needed = -(-multiprocessor.max_threads // multiprocessor.max_blocks)
    return max(TILE, 1 << (needed - 1).bit_length())


def options_for(multiprocessor: Multiprocessor, defines: tuple[str, ...] = ()) -> tuple[str, ...]:
    """What the kernels are compiled with for a device of such multiprocessors, but for its architecture.

    defines: ("NAME=VALUE", ...), in place of those of the same name here
    """
    tile = block_size(multiprocessor)
    macros = {"TILE": str(tile), "ROWS_PER_THREAD": str(ROWS_PER_THREAD)}
    for name, share in RESIDENT_SHARE.items():
        macros[name] = str(max(1, int(share * multiprocessor.max_threads / tile)))
    for define in defines:
        name, _, value = define.partition("=")
        macros[name] = value
    return ("-std=c++17", *(f"-D{name}={value}" for name, value in macros.items()))


@dataclass(frozen=True)
class Resources:
    """What one kernel needs, as the assembler reports it."""

    module: str
    kernel: str
    arch: int
    registers: int  # per thread
    shared_nbytes: int  # per block
    stack_nbytes: int  # per thread
    spill_nbytes: int  # per thread, stores and loads


class CompilationError(RuntimeError):
    """NVRTC refused a kernel; the text is its log."""


def compile_offline(
    module: str, arch: int, defines: tuple[str, ...] = ()
) -> tuple[bytes, list[Resources]]:
    """Machine code of one module for sm_<arch>, and the resources of its kernels. Needs cuda-bindings and NVRTC.

    defines: as of `options_for`
    """
    from cuda.bindings import nvrtc

    options = [
        *options_for(MULTIPROCESSORS[arch], defines),
        f"--gpu-architecture=sm_{arch}",
        "--ptxas-options=-v",
        "--no-cache",  # beside a driver NVRTC keeps what it compiled, and of that the assembler says nothing
    ]
    _, program = nvrtc.nvrtcCreateProgram(
        read_source(module).encode(), f"{module}.cu".encode(), 0, [], []
    )
    (failed,) = nvrtc.nvrtcCompileProgram(
        program, len(options), [option.encode() for option in options]
    )
    log = (
        _fetch(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
        .decode()
        .strip("\0\n")
    )
    if failed:
        raise CompilationError(f"{module}.cu for sm_{arch}:\n{log}")
    cubin = _fetch(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
    nvrtc.nvrtcDestroyProgram(program)
    return cubin, parse_resources(module, arch, log)


def _fetch(size_of, read, program) -> bytes:
    _, size = size_of(program)
    buffer = b" " * size
    read(program, buffer)
    return buffer


def parse_resources(module: str, arch: int, log: str) -> list[Resources]:
    """The assembler's `-v` lines as one entry per kernel."""
    found = []
    for part in re.split(r"Compiling entry function '", log)[1:]:
        numbers = {
            name: sum(map(int, re.findall(pattern, part)))
            for name, pattern in {
                "registers": r"Used (\d+) registers",
                "shared_nbytes": r"(\d+) bytes smem",
                "stack_nbytes": r"(\d+) bytes stack frame",
                "spill_nbytes": r"(\d+) bytes spill",
            }.items()
        }
        found.append(Resources(module, part.split("'")[0], arch, **numbers))
    return found
