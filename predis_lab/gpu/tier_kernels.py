"""Typed launches of the kernels that bring records from host memory back to the device (`kernels/tiers.cu`), for `tiers`."""

from __future__ import annotations

from typing import Any

from ..columns import Column
from . import kernels
from .launching import address, column_arguments, index_arguments, launch

# Words of a tally: `DEVICE_HITS` and so on in kernels/tiers.cu; the first ones are reported.
DEVICE_HITS, HOST_HITS, PROMOTED_NBYTES, TAIL = range(4)
TALLY_REPORTED = 4
TALLY_WORDS = 6
MIN_RECORD_NBYTES = kernels.record_nbytes(1, 0)


def touch(keys: Column, index: Any, at_once: bool, tally: Any, wanted: Any) -> None:
    """Notes that n keys were read, and lists the slots of records that are to come back in `wanted`, for `promote`.

    at_once: list all of them that lie on the host, and count nothing. tally: uint64 (TALLY_WORDS,). wanted: uint64; what
    exceeds its length is not listed.
    """
    n = len(keys)
    launch(
        "tiers",
        "touch",
        n,
        *column_arguments(keys),
        n,
        *index_arguments(index),
        int(at_once),
        address(tally, "u8", TALLY_WORDS),
        address(wanted, "u8", 0),
        len(wanted),
    )


def promote(
    wanted: Any,
    now_ms: int,
    log: int,
    room: int,
    longest: int,
    counters: Any,
    tally: Any,
    report: Any,
) -> None:
    """Moves what `touch` listed to `room` bytes of the log at the address `log`, from tally's TAIL on.

    longest: bytes of a record that may move. report: pinned uint64 (TALLY_REPORTED,), valid after the stream is synchronised.
    """
    n = len(wanted)
    launch(
        "tiers",
        "promote",
        n,
        address(wanted, "u8", n),
        n,
        now_ms,
        log,
        room,
        longest,
        address(counters, "u8", kernels.COUNTERS),
        address(tally, "u8", TALLY_WORDS),
        address(report, "u8", TALLY_REPORTED),
        resident=True,
    )


def forget(slots: Any) -> None:
    """Takes the notes of what was read from n slots (uint64)."""
    n = len(slots)
    launch("tiers", "forget", n, address(slots, "u8", n), n)
