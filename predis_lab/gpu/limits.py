"""Typed launches of the kernels that show what the hardware can do (`kernels/limits.cu`). Called by `bench.limits`."""

from __future__ import annotations

from typing import Any

from . import launching, modules

ACCESSES_PER_THREAD = 4  # touch and two_hops do any number; this many fill the device well
LANES_PER_HOP = 4
UNLIKELY = 0x9E3779B9  # what the exclusive-or of 16 bytes read must not be; of zeros it is 0


def empty() -> None:
    """A launch of nothing."""
    modules.function("limits", "empty")((1,), (32,), ())


def gather(records: Any, record_nbytes: int, places: Any, out: Any) -> None:
    """Copies record places[i] (uint32) to row i of out, uint8. record_nbytes: a multiple of 16."""
    n, pieces = len(places), _pieces(record_nbytes)
    source = launching.address(records, "u1", record_nbytes)
    arguments = (
        source,
        pieces,
        launching.address(places, "u4", n),
        n,
        launching.address(out, "u1", n * record_nbytes),
    )
    launching.launch("limits", "gather", n * pieces, *arguments)


def touch(records: Any, record_nbytes: int, places: Any, sink: Any) -> None:
    """Reads record places[i] for every i and writes nothing. sink: uint32 (1,)."""
    n, pieces = len(places), _pieces(record_nbytes)
    launching.launch(
        "limits",
        "touch",
        -(-n * pieces // ACCESSES_PER_THREAD),
        launching.address(records, "u1", record_nbytes),
        pieces,
        launching.address(places, "u4", n),
        n,
        UNLIKELY,
        launching.address(sink, "u4", 1),
    )


def two_hops(buckets: Any, records: Any, places: Any, sink: Any) -> None:
    """Reads bucket places[i] (32 bytes, uint32 (m * 8,)), then the 64-byte record whose number it begins with."""
    n = len(places)
    launching.launch(
        "limits",
        "two_hops",
        -(-n * LANES_PER_HOP // ACCESSES_PER_THREAD),
        launching.address(buckets, "u4", 8),
        launching.address(records, "u1", 64),
        launching.address(places, "u4", n),
        n,
        UNLIKELY,
        launching.address(sink, "u4", 1),
    )


def swap(slots: Any, places: Any) -> None:
    """One compare-and-swap on slot places[i] (uint64) for every i."""
    n = len(places)
    arguments = (launching.address(slots, "u8", 1), launching.address(places, "u4", n), n)
    launching.launch("limits", "swap", n, *arguments)


def _pieces(record_nbytes: int) -> int:
    if record_nbytes % 16 or record_nbytes <= 0:
        raise ValueError(f"a record of {record_nbytes} bytes is no multiple of 16")
    return record_nbytes // 16
