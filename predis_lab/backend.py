"""The table behind a cache: on a GPU, or in host memory. Called by `client`."""

from __future__ import annotations

from .errors import DeviceUnavailable, InvalidArgument
from .gpu.health import TIMEOUT_S
from .gpu.tuning import Tuning
from .host_table import CheckedHostTable, HostTable
from .table import Table


def make_table(
    capacity_nbytes: int,
    backend: str,
    host_capacity_nbytes: int = 0,
    checksums: bool = False,
    timeout_s: float = TIMEOUT_S,
    doorbell: bool = True,
    tuning: Tuning | None = None,
) -> Table:
    """The table for a backend, "auto", "host" or "cuda"."""
    if backend not in ("auto", "host", "cuda"):
        raise InvalidArgument(f'backend is "auto", "host" or "cuda", not {backend!r}')
    if backend != "host":
        try:
            from .gpu.engine import DeviceEngine

            return DeviceEngine(
                capacity_nbytes, host_capacity_nbytes, checksums, timeout_s, doorbell, tuning
            )
        except ImportError as error:
            if backend == "cuda":
                raise DeviceUnavailable(f"CuPy is not installed here: {error}") from error
        except DeviceUnavailable:
            if backend == "cuda":
                raise
    whole = capacity_nbytes + host_capacity_nbytes
    return CheckedHostTable(whole) if checksums else HostTable(whole)
