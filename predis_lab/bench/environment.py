"""What a run ran on: enough to judge its figures, and to set the like up again. Called by `results`."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from ..errors import DeviceUnavailable

PACKAGES = (
    "cupy-cuda12x",
    "cupy-cuda13x",
    "hiredis",
    "numpy",
    "pandas",
    "papermill",
    "pyarrow",
    "redis",
    "scipy",
)


def describe_machine() -> dict[str, Any]:
    """Time, machine, software, GPU and commit; null where something is absent. No names of hosts or people."""
    from .. import __version__

    return {
        "recorded_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "predis_lab": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {package: _version(package) for package in PACKAGES},
        "kernel": platform.release(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_nbytes": psutil.virtual_memory().total,
        "gpu": describe_gpu(),
    }


def device_answers() -> bool:
    """Whether there is a CUDA device that this Python can use."""
    try:
        from ..gpu.engine import check_device

        check_device()
    except (ImportError, DeviceUnavailable):
        return False
    return True


def describe_gpu() -> dict[str, Any] | None:
    """The first GPU as the management library tells it, or None."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    except pynvml.NVMLError:
        return None

    def ask(question: Any, *arguments: Any) -> Any:
        with contextlib.suppress(pynvml.NVMLError):
            return question(*arguments)
        return None

    facts = {
        "name": ask(pynvml.nvmlDeviceGetName, handle),
        "memory_nbytes": ask(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle).total),
        "driver": ask(pynvml.nvmlSystemGetDriverVersion),
        "cuda": ask(pynvml.nvmlSystemGetCudaDriverVersion),
        "sm_clock_mhz": ask(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM),
        "sm_clock_max_mhz": ask(pynvml.nvmlDeviceGetMaxClockInfo, handle, pynvml.NVML_CLOCK_SM),
        "memory_clock_mhz": ask(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_MEM),
        "power_limit_w": ask(lambda: pynvml.nvmlDeviceGetPowerManagementLimit(handle) / 1000),
        "link_generation": ask(pynvml.nvmlDeviceGetMaxPcieLinkGeneration, handle),
        "link_width": ask(pynvml.nvmlDeviceGetMaxPcieLinkWidth, handle),
        "ecc": ask(lambda: bool(pynvml.nvmlDeviceGetEccMode(handle)[0])),
    }
    pynvml.nvmlShutdown()
    return facts


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def _commit() -> str | None:
    """The commit of this checkout, with "+" where files differ from it; None outside of one."""
    root = Path(__file__).resolve().parents[2]
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("PREDIS_COMMIT")


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, check=True, text=True
    ).stdout.strip()
