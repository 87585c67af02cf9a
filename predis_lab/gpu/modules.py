"""Compiled modules on the current device: compiled once, kept on disk, and how their kernels fill the device.

A compiled module lies in the cache directory under a name made of what went into it (source, options, architecture, version of
NVRTC) and of its own digest, so that a second process starts without compiling and a damaged file gives itself away. Without a
directory that can be written to, each process compiles for itself. Called by `kernels`, `limits` and `profiler`.
"""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cupy

from . import source
from .occupancy import Multiprocessor, Occupancy, occupancy


@dataclass(frozen=True)
class CompileReport:
    """What it took until kernels of a module could be launched; no part of any run time."""

    module: str
    defines: tuple[str, ...]
    arch: int
    seconds: float
    cached: bool  # read from disk, not compiled


_reports: list[CompileReport] = []


def compile_reports() -> list[CompileReport]:
    """One for each module that this process has loaded, in that order."""
    return list(_reports)


def module(name: str, defines: tuple[str, ...] = ()) -> Any:
    """The module (`cupy.RawModule`) kernels/<name>.cu on the current device, compiled if need be.

    defines: ("NAME=VALUE", ...), as of `source.options_for`
    raises: CuPy's CompileException where NVRTC refuses the source
    """
    return _module(name, defines, cupy.cuda.runtime.getDevice())


def prepare(
    wanted: Collection[tuple[str, tuple[str, ...]]],
    progress: Callable[[float], object] = lambda _: None,
) -> None:
    """Loads modules, each with its definitions, compiled where need be, as many at a time as there are cores.

    progress: called with each one's share of all
    """
    with ThreadPoolExecutor(os.cpu_count(), initializer=cupy.cuda.Device().use) as pool:
        for _ in pool.map(lambda one: module(*one), wanted):
            progress(1 / len(wanted))


def function(module: str, kernel: str, defines: tuple[str, ...] = ()) -> Any:
    """The kernel (`cupy.RawKernel`) on the current device, its module compiled if need be."""
    return _function(module, kernel, defines, cupy.cuda.runtime.getDevice())


def multiprocessor() -> Multiprocessor:
    """What each multiprocessor of the current device has to give."""
    return _multiprocessor(cupy.cuda.runtime.getDevice())


def multiprocessors() -> int:
    """How many the current device has."""
    return _properties(cupy.cuda.runtime.getDevice())["multiProcessorCount"]


def block_threads(defines: tuple[str, ...] = ()) -> int:
    """What the modules on the current device are compiled for, with these definitions."""
    chosen = [int(define[5:]) for define in defines if define.startswith("TILE=")]
    return chosen[-1] if chosen else _block_threads(cupy.cuda.runtime.getDevice())


def occupancy_of(kernel: Any) -> Occupancy:
    """Theoretical occupancy of a compiled kernel on the current device, in the blocks of its launch bounds."""
    return occupancy(
        multiprocessor(), kernel.num_regs, kernel.shared_size_bytes, kernel.max_threads_per_block
    )


@functools.cache  # a kernel belongs to one device
def resident_blocks(kernel: Any) -> int:
    """Blocks of a compiled kernel that the current device holds at once."""
    return occupancy_of(kernel).blocks * multiprocessors()


def cache_directory() -> Path:
    """Where compiled modules are kept: $PREDIS_CACHE_DIR, or `predis` in the user's directory for caches."""
    chosen = os.environ.get("PREDIS_CACHE_DIR")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "predis"


@functools.cache
def _function(module: str, kernel: str, defines: tuple[str, ...], device: int) -> Any:
    return _module(module, defines, device).get_function(kernel)


@functools.cache
def _properties(device: int) -> Mapping[str, Any]:
    return cupy.cuda.runtime.getDeviceProperties(device)


@functools.cache
def _multiprocessor(device: int) -> Multiprocessor:
    return Multiprocessor.from_device(_properties(device))


@functools.cache
def _block_threads(device: int) -> int:
    return source.block_size(_multiprocessor(device))


@functools.cache
def _module(name: str, defines: tuple[str, ...], device: int) -> Any:
    began = time.perf_counter()
    text, options = source.read_source(name), source.options_for(_multiprocessor(device), defines)
    arch = _properties(device)["major"] * 10 + _properties(device)["minor"]
    key = _digest(repr((text, options, arch, cupy.cuda.nvrtc.getVersion())).encode())
    directory = cache_directory()
    file = _stored(directory, key)
    cached = file is not None
    if file is None:
        cubin, _ = cupy.cuda.compiler.compile_using_nvrtc(text, options, filename=f"{name}.cu")
        file = _store(directory, key, cubin)
    if file is not None:
        loaded = _load(file)
    else:  # a cache that can't be written to is no error: CuPy takes files only, so for a moment there is one
        with tempfile.TemporaryDirectory() as passing:
            file = Path(passing) / f"{name}.cubin"
            file.write_bytes(cubin)
            loaded = _load(file)
    _reports.append(CompileReport(name, defines, arch, time.perf_counter() - began, cached))
    return loaded


def _load(file: Path) -> Any:
    loaded = cupy.RawModule(path=str(file))
    loaded.compile()  # loads it now: the time is accounted for, and the file may go
    return loaded


def _stored(directory: Path, key: str) -> Path | None:
    """The file with a module of this key, or None where there is none that is whole."""
    for file in directory.glob(f"{key}-*.cubin"):
        try:
            if file.stem == f"{key}-{_digest(file.read_bytes())}":
                return file
        except OSError:
            continue
    return None


def _store(directory: Path, key: str, cubin: bytes) -> Path | None:
    """Puts a module where `_stored` finds it; None where that can't be. Another process sees all of it or nothing."""
    file = directory / f"{key}-{_digest(cubin)}.cubin"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory) as passing:
            written = Path(passing) / "cubin"
            written.write_bytes(cubin)
            os.replace(written, file)
    except OSError:
        return None
    return file


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
