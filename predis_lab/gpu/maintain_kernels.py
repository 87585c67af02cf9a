"""Typed launches of the kernels that go over the whole index (`kernels/maintain.cu`), for `maintenance`, `tiers` and `table`."""

from __future__ import annotations

from typing import Any

from . import kernels
from .launching import address, index_arguments, launch


def scan_keys(slots: Any, now_ms: int, output: kernels.Output) -> None:
    """The keys that n slots (uint64) hold as a packed column of n rows, null where a slot holds none."""
    n = len(slots)
    launch(
        "maintain",
        "scan_keys",
        n,
        address(slots, "u8", n),
        n,
        now_ms,
        *output,
        rows=output[6],
    )


def count_alive(slots: Any, now_ms: int, count: Any) -> None:
    """Adds to count, uint64 (1,), the records in n slots that have not expired."""
    n = len(slots)
    launch(
        "maintain", "count_alive", n, address(slots, "u8", n), n, now_ms, address(count, "u8", 1)
    )


def rehash(slots: Any, now_ms: int, index: Any, counters: Any, report: Any, work: Any) -> None:
    """Puts the live records of `slots` into an empty index with room for all of them."""
    n = len(slots)
    launch(
        "maintain",
        "rehash",
        n,
        address(slots, "u8", n),
        n,
        now_ms,
        *index_arguments(index),
        *kernels.counter_arguments(counters, report),
        address(work, "u8", kernels.WORK_WORDS),
    )


def census(slots: Any, now_ms: int, on_host: bool, starts: Any, live_nbytes: Any) -> None:
    """Adds up the live bytes in each segment on one side. starts: uint64, ascending addresses; live_nbytes: uint64, zeroed."""
    n, segments = len(slots), len(starts)
    launch(
        "maintain",
        "census",
        n,
        address(slots, "u8", n),
        n,
        now_ms,
        on_host * kernels.ON_HOST,
        address(starts, "u8", segments),
        segments,
        address(live_nbytes, "u8", segments),
        resident=True,
    )


def relocate(
    slots: Any,
    now_ms: int,
    on_host: bool,
    starts: Any,
    chosen: Any,
    log: int,
    room: int,
    to_host: bool,
    counters: Any,
    report: Any,
    work: Any,
    spill: int = 0,
    spilled: Any = None,
) -> None:
    """Moves the live records of the chosen segments (uint8 (segments,)) on one side to `room` bytes at the address `log`.

    spill: where what finds no room there goes, an address with room for all of it, or 0: it stays. The report says how much
    asked for room either way. spilled: uint64 (1,), zeroed; bytes that went to spill.
    """
    n, segments = len(slots), len(starts)
    launch(
        "maintain",
        "relocate",
        n,
        address(slots, "u8", n),
        n,
        now_ms,
        on_host * kernels.ON_HOST,
        address(starts, "u8", segments),
        segments,
        address(chosen, "b1 u1", segments),
        log,
        room,
        to_host * kernels.ON_HOST,
        spill,
        address(spilled, "u8", 1) if spill else 0,
        *kernels.counter_arguments(counters, report),
        address(work, "u8", kernels.WORK_WORDS),
        resident=True,
    )
