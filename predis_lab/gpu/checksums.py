"""Checksums of a table's records: given once a batch is published, compared when asked for. See kernels/checksum.cu.

Called by `appending` and `engine`, and only where the option is on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import cupy
import numpy as np

from ..columns import Column
from .launching import address, column_arguments, index_arguments, launch

if TYPE_CHECKING:
    from .batch import Batch
    from .table import DeviceTable


def seal(table: DeviceTable, batch: Batch) -> None:
    """Gives the records of a batch their checksums. None of it may be left to be published: that reads their rows."""
    wrote = zip(batch.begins, batch.segments, strict=True)
    edges = _edges((begin, segment.address + segment.used) for begin, segment in wrote)
    if batch.only is not None:
        seal_keys(batch.only, table.index, edges)
    elif len(edges):
        seal_slots(table.index, edges)


def verify(table: DeviceTable) -> int:
    """How many of the table's records, expired ones included, no longer match their checksums."""
    table.enter()
    count = cupy.zeros(1, np.uint64)
    verify_slots(table.index, _log(table), count)
    return int(count[0])


def check(table: DeviceTable, keys: Column, now_ms: int, corrupt: Any) -> None:
    """Fills `corrupt` (bool, (n,)): whether the key's record no longer matches its checksum.

    A record whose very key has changed is told by its fingerprint, unless another one on its way has the same.
    """
    table.enter()
    verify_keys(keys, table.index, now_ms, _log(table), corrupt)


def _log(table: DeviceTable) -> Any:
    segments = table.arena.segments + table.tiers.host.segments
    return _edges((segment.address, segment.address + segment.used) for segment in segments)


def _edges(stretches: Iterable[tuple[int, int]]) -> Any:
    """Begin and end of each stretch that is not empty, uint64 on the device, ascending."""
    ordered = sorted((begin, end) for begin, end in stretches if begin < end)
    return cupy.array([edge for stretch in ordered for edge in stretch], np.uint64)


# ---- Launches. edges: uint64, begin and end of each stretch of the log in question, ascending


def seal_keys(keys: Column, index: Any, edges: Any) -> None:
    """Writes the checksums of the records of n keys, of those that lie in the stretches."""
    n, where = len(keys), _stretches(edges)
    launch("checksum", "seal_keys", n, *column_arguments(keys), n, *index_arguments(index), *where)


def seal_slots(slots: Any, edges: Any) -> None:
    """Writes the checksums of the records in n slots, of those that lie in the stretches."""
    n = len(slots)
    launch("checksum", "seal_slots", n, address(slots, "u8", n), n, *_stretches(edges))


def verify_keys(keys: Column, index: Any, now_ms: int, edges: Any, corrupt: Any) -> None:
    """Whether the records of n keys don't match. edges: of the whole log. corrupt: uint8 or bool (n,)."""
    n = len(keys)
    launch(
        "checksum",
        "verify_keys",
        n,
        *column_arguments(keys),
        n,
        *index_arguments(index),
        now_ms,
        *_stretches(edges),
        address(corrupt, "b1 u1", n),
    )


def verify_slots(slots: Any, edges: Any, count: Any) -> None:
    """Adds to count, uint64 (1,), the records in n slots that don't match. edges: of the whole log."""
    n = len(slots)
    where, total = _stretches(edges), address(count, "u8", 1)
    launch("checksum", "verify_slots", n, address(slots, "u8", n), n, *where, total)


def _stretches(edges: Any) -> tuple[int, int]:
    return address(edges, "u8", 0), len(edges)
