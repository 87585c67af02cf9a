"""What a machine can do at best, measured: the scale on which the cache's figures are read. For notebook 00.

Every limit is timed several times over, with fresh random places where places are random, and set beside its
theoretical figure where the device tells one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from .results import Run
from .statistics import Interval, median_interval

RECORD_SIZES = (64, 128, 256, 1024, 4096)
TOUCH_SIZES = (32, 64)

# What each limit is, by name, in the order they are shown in.
HOST = {
    "host_copy": "copy, one core",
    "host_gather_64": "random gather of 64 B, one core",
    "host_dict": "lookups in a Python dict",
    "host_pack": "list of 16 B keys to an Arrow column",
    "host_unpack": "Arrow column to a list",
}
MEMORY = {
    "limit_copy": "copy, read + write",
    **{f"limit_gather_{size}": f"random gather of {size} B records" for size in RECORD_SIZES},
    **{f"limit_touch_{size}": f"random read of {size} B" for size in TOUCH_SIZES},
    "limit_two_hops": "two dependent hops: 32 B, then 64 B",
    "limit_swap": "random 64-bit compare-and-swap",
}
LINK = {
    "limit_h2d_pinned": "upload from pinned memory",
    "limit_d2h_pinned": "download to pinned memory",
    "limit_both_pinned": "both at once, summed",
    "limit_h2d_pageable": "upload from pageable memory",
    "limit_d2h_pageable": "download to pageable memory",
    "limit_zero_copy_64": "random reads of 64 B in host memory",
}
LAUNCH = {
    "limit_launch": "launch of nothing, and waiting for it",
    "limit_graph_launch": "the same as a captured graph",
}
# Not limits, but read against them: the device table's own rates, from `table_rates`.
TABLE = {
    "find_64v": "find, 64 B values",
    "find_256v": "find, 256 B values",
    "find_1024v": "find, 1 KiB values",
    "find_4096v": "find, 4 KiB values",
    "find_miss": "find, none there",
    "find_64v_load95": "find at load factor 0.95",
    "find_64v_1e6": "find, 1,000,000 keys a launch",
    "find_64v_1e5": "find, 100,000 keys a launch",
    "find_64v_1e4": "find, 10,000 keys a launch",
    "find_real": "find, real records",
    "contains": "contains, all there",
    "insert_64v": "insert of new keys, 64 B values",
    "insert_256v": "insert of new keys, 256 B values",
    "update_64v": "insert over existing keys, 64 B",
    "erase": "erase",
}


@dataclass(frozen=True)
class Limit:
    """One limit. values: one per repeat, in `unit`; theory: what the hardware's own numbers promise."""

    name: str
    label: str
    values: list[float]
    unit: str
    theory: float | None = None

    @property
    def interval(self) -> Interval:
        """The median with its interval."""
        return median_interval(self.values)


def _limit(name: str, values: list[float], unit: str, theory: float | None = None) -> Limit:
    return Limit(name, (HOST | MEMORY | LINK | LAUNCH)[name], values, unit, theory)


def record(run: Run, limits: list[Limit], params: dict) -> None:
    """Adds the limits to a run, each value a sample and each median a figure."""
    for limit in limits:
        for repeat, value in enumerate(limit.values):
            run.add_sample("machine", limit.name, params, repeat, "limit", value, limit.unit)
        run.add_interval(limit.name, limit.interval, limit.unit, ceiling=limit.theory)


def host_limits(nbytes: int, repeats: int) -> list[Limit]:
    """One core of the host: copying, random gathers, a dict, and Python's own conversions.

    nbytes: size of the array that is copied and gathered from; several times the last cache to be of use
    """
    generator = np.random.default_rng(0)
    source = np.frombuffer(generator.bytes(nbytes), np.uint8)
    target = np.empty_like(source)
    rows, n = source.reshape(-1, 64), min(nbytes // 64, 200_000)
    gathered = np.empty((n, 64), np.uint8)
    places = [generator.integers(0, len(rows), n) for _ in range(3)]
    keys = [bytes(row[:16]) for row in rows[:100_000]]
    table = dict.fromkeys(keys, b"v" * 64)
    column = pa.array(keys, pa.binary())
    wanted = [keys[i] for i in generator.integers(0, len(keys), len(keys))]
    copy = _seconds(lambda _: np.copyto(target, source), repeats)
    gather = _seconds(lambda i: np.take(rows, places[i % 3], axis=0, out=gathered), repeats)
    lookups = _seconds(lambda _: [table[key] for key in wanted], repeats)
    pack = _seconds(lambda _: pa.array(keys, pa.binary()), repeats)
    unpack = _seconds(lambda _: column.to_pylist(), repeats)
    return [
        _limit("host_copy", [nbytes / s for s in copy], "B/s"),
        _limit("host_gather_64", [n / s for s in gather], "1/s"),
        _limit("host_dict", [len(wanted) / s for s in lookups], "1/s"),
        _limit(
            "host_pack",
            [len(keys) / s for s in pack],
            "1/s",
        ),
        _limit("host_unpack", [len(keys) / s for s in unpack], "1/s"),
    ]


def device_limits(nbytes: int, rows: int, repeats: int) -> list[Limit]:
    """The GPU's memory. nbytes: footprint of random accesses; rows: accesses per launch."""
    import cupy

    from ..gpu.device import Device

    memory = Device.current().memory_bandwidth
    source = cupy.zeros(nbytes, np.uint8)
    return [
        _copy(source, repeats, memory),
        *(_gather(source, size, rows, repeats, memory) for size in RECORD_SIZES),
        *(_touch(source, size, rows, repeats, memory) for size in TOUCH_SIZES),
        _two_hops(source, rows, repeats, memory),
        _swap(source, rows, repeats),
    ]


def _copy(source: Any, repeats: int, memory: float | None) -> Limit:
    import cupy

    half = source[: len(source) // 2]
    target = cupy.empty_like(half)
    seconds = _device_seconds(lambda _: cupy.copyto(target, half), repeats)
    values = [2 * half.nbytes / s for s in seconds]
    return _limit("limit_copy", values, "B/s", memory)


def _gather(source: Any, size: int, rows: int, repeats: int, memory: float | None) -> Limit:
    import cupy

    from ..gpu import limits as launch

    n = min(rows, len(source) // 4 // size)
    places, out = _places(len(source) // size, n), cupy.empty(n * size, np.uint8)
    seconds = _device_seconds(lambda i: launch.gather(source, size, places[i % 3], out), repeats)
    theory = memory and memory / (2 * size + 4)  # read, written, and the place
    return _limit(f"limit_gather_{size}", [n / s for s in seconds], "1/s", theory)


def _touch(source: Any, size: int, rows: int, repeats: int, memory: float | None) -> Limit:
    import cupy

    from ..gpu import limits as launch

    places, sink = _places(len(source) // size, rows), cupy.zeros(1, np.uint32)
    seconds = _device_seconds(lambda i: launch.touch(source, size, places[i % 3], sink), repeats)
    theory = memory and memory / (size + 4)
    return _limit(f"limit_touch_{size}", [rows / s for s in seconds], "1/s", theory)


def _two_hops(source: Any, rows: int, repeats: int, memory: float | None) -> Limit:
    import cupy

    from ..gpu import limits as launch

    buckets, sink = len(source) // 8 // 32, cupy.zeros(1, np.uint32)
    index = cupy.random.randint(0, len(source) // 64, buckets * 8, dtype=np.uint32)
    places = _places(buckets, rows)
    seconds = _device_seconds(
        lambda i: launch.two_hops(index, source, places[i % 3], sink), repeats
    )
    theory = memory and memory / (32 + 64 + 4)
    return _limit("limit_two_hops", [rows / s for s in seconds], "1/s", theory)


def _swap(source: Any, rows: int, repeats: int) -> Limit:
    from ..gpu import limits as launch

    slots = source[: len(source) // 8 * 8].view(np.uint64)
    places = _places(len(slots), rows)
    seconds = _device_seconds(lambda i: launch.swap(slots, places[i % 3]), repeats)
    return _limit("limit_swap", [rows / s for s in seconds], "1/s")


def link_limits(nbytes: int, repeats: int) -> list[Limit]:
    """The link between host and GPU, and what a launch costs. nbytes: of one copy."""
    import cupy

    from ..gpu import limits as launch
    from ..gpu.copies import copy_async
    from ..gpu.device import Device
    from ..gpu.pinned import pinned

    theory = Device.current().link_bandwidth
    up, down = pinned(nbytes, np.uint8), pinned(nbytes, np.uint8)
    up[:], down[:] = 1, 1
    pageable = np.ones(nbytes, np.uint8)
    first, second = cupy.empty(nbytes, np.uint8), cupy.empty(nbytes, np.uint8)
    one, two = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True)

    def upload() -> None:
        copy_async(first.data.ptr, up.ctypes.data, nbytes, one)

    def download() -> None:
        copy_async(down.ctypes.data, second.data.ptr, nbytes, two, down=True)

    def timed(*copies: Callable[[], None]) -> list[float]:
        def call(_: int) -> None:
            for copy in copies:
                copy()
            one.synchronize()
            two.synchronize()

        return [len(copies) * nbytes / s for s in _seconds(call, repeats)]

    n, size = nbytes // 16 // 64, 64
    places, out = _places(nbytes // size, n), cupy.empty(n * size, np.uint8)
    zero_copy = _device_seconds(lambda i: launch.gather(up, size, places[i % 3], out), repeats)
    paged_up = _seconds(lambda _: first.set(pageable), repeats)
    paged_down = _seconds(lambda _: second.get(out=pageable), repeats)
    return [
        _limit("limit_h2d_pinned", timed(upload), "B/s", theory),
        _limit("limit_d2h_pinned", timed(download), "B/s", theory),
        _limit(
            "limit_both_pinned",
            timed(upload, download),
            "B/s",
            theory and 2 * theory,
        ),
        _limit(
            "limit_h2d_pageable",
            [nbytes / s for s in paged_up],
            "B/s",
            theory,
        ),
        _limit(
            "limit_d2h_pageable",
            [nbytes / s for s in paged_down],
            "B/s",
            theory,
        ),
        _limit(
            "limit_zero_copy_64",
            [n / s for s in zero_copy],
            "1/s",
            theory and theory / size,
        ),
        *_latencies(launch.empty, repeats),
    ]


def _latencies(empty: Callable[[], None], repeats: int) -> list[Limit]:
    import cupy

    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        empty()
        stream.begin_capture()
        empty()
        graph = stream.end_capture()

        def launch_and_wait(_: int) -> None:
            empty()
            stream.synchronize()

        def replay_and_wait(_: int) -> None:
            graph.launch(stream)
            stream.synchronize()

        alone = _seconds(launch_and_wait, 200 * repeats)
        replayed = _seconds(replay_and_wait, 200 * repeats)
    # Single calls are no replicates; the median of each two hundred is one.
    return [
        _limit("limit_launch", _medians(alone, repeats), "s"),
        _limit("limit_graph_launch", _medians(replayed, repeats), "s"),
    ]


def _medians(seconds: list[float], parts: int) -> list[float]:
    return [float(np.median(part)) for part in np.array_split(seconds, parts)]


def _places(records: int, n: int) -> list:
    """Three sets of n random record numbers, so that no launch repeats the one before."""
    import cupy

    return [cupy.random.randint(0, records, n, dtype=np.uint32) for _ in range(3)]


def _seconds(call: Callable[[int], object], repeats: int) -> list[float]:
    call(0)
    found = []
    for repeat in range(repeats):
        began = time.perf_counter()
        call(repeat + 1)
        found.append(time.perf_counter() - began)
    return found


def _device_seconds(call: Callable[[int], object], repeats: int) -> list[float]:
    call(0)
    return [event_seconds(call, repeat + 1)[1] for repeat in range(repeats)]


def event_seconds(call: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What the call returns, and its seconds by the device's own clock."""
    import cupy

    began, ended = cupy.cuda.Event(), cupy.cuda.Event()
    began.record()
    answer = call(*arguments)
    ended.record()
    ended.synchronize()
    return answer, cupy.cuda.get_elapsed_time(began, ended) * 1e-3
