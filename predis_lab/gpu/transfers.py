"""What bulk calls have moved across the link. Used by `pipeline`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass


@dataclass
class Moved:
    """Bytes that one call has sent up, and brought down."""

    sent: int = 0
    brought: int = 0


@dataclass
class Transfers:
    """What has crossed the link in bulk calls; times in seconds of the host's clock."""

    calls: int = 0
    uploaded_nbytes: int = 0
    downloaded_nbytes: int = 0
    busy_s: float = 0.0
    peak_bandwidth: float = 0.0  # bytes per second, both ways together, of the best call


@contextmanager
def measured(transfers: Transfers, lock: AbstractContextManager) -> Iterator[Moved]:
    """Counts a call, and what it moves as far as it tells; with the lock held."""
    moved, began = Moved(), time.perf_counter()
    yield moved
    seconds, nbytes = time.perf_counter() - began, moved.sent + moved.brought
    with lock:
        transfers.calls += 1
        transfers.uploaded_nbytes += moved.sent
        transfers.downloaded_nbytes += moved.brought
        transfers.busy_s += seconds
        transfers.peak_bandwidth = max(transfers.peak_bandwidth, nbytes / seconds)
