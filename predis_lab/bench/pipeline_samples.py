"""What notebook 04 measures, by name, what it is held against, and how it is read from samples: without CUDA.

Written by `pipeline_rates`, `transfer_rates`, `host_transfers` and `sustained`, read by `report.pipeline_figures` and
`report.pipeline_show`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import pandas as pd

from .limits import LINK as LIMITS

KEY_NBYTES = 16
OFFSET_NBYTES = 4  # of a column of binary keys or values that the caller hands in
STATUS_NBYTES = 1  # what an insert answers per record
RATE, BANDWIDTH, LATENCY = "throughput", "bandwidth", "latency"
UP, DOWN, BOTH = "up", "down", "both"
# Stages of a bulk call that keep the link or the device at work; the host packs beside them.
PACK, UPLOAD, KERNEL, DOWNLOAD = "pack", "upload", "kernel", "download"
BUSY = (UPLOAD, KERNEL, DOWNLOAD)
STAGES = (PACK, *BUSY)
WHOLE = "call"  # in samples: the call itself, beside its stages
# Workloads of samples.
SIZES, CHUNKS, TURNS = "transfer", "chunks", "turns"
TIMELINE, CODECS, OFFSETS = "timeline", "codec", "offsets"
# Where a short copy goes while many chunks wait.
ALONE, SAME_STREAM, OWN_STREAM = "by itself", "on the chunks' stream", "on a stream of its own"
SUSTAINED = ("sustained", "sustained_threads")

# The limits of the link as measured in the same run; under names of their own, for notebook 00 keeps its.
LINK = {name.replace("limit_", "link_", 1): label for name, label in LIMITS.items()}


@dataclass(frozen=True)
class Call:
    """One bulk verb, host columns in and host columns out.

    name:      of its figure
    pinned:    whether the columns handed in lie in pinned memory
    binary:    whether they are `pa.binary()` instead of fixed-size
    overhead:  name of the figure that says how long neither link nor kernel was at work; "" where none does
    """

    name: str
    label: str
    verb: str
    value_nbytes: int
    pinned: bool = False
    binary: bool = False
    overhead: str = ""

    def upload_nbytes(self) -> int:
        """Bytes of one row on the way to the device."""
        offsets = OFFSET_NBYTES * self.binary
        value = self.value_nbytes + offsets if self.verb == "insert" else 0
        return KEY_NBYTES + offsets + value

    def download_nbytes(self, offset_nbytes: int = OFFSET_NBYTES) -> float:
        """Bytes of one row's answer: value, offset and a bit of validity, or a status."""
        if self.verb == "insert":
            return STATUS_NBYTES
        return self.value_nbytes + offset_nbytes + 1 / 8

    def ceiling(self, up: float, down: float, offset_nbytes: int = OFFSET_NBYTES) -> float:
        """Rows per second that a link of `up` and `down` bytes per second, both at once, could move."""
        return min(up / self.upload_nbytes(), down / self.download_nbytes(offset_nbytes))


CALLS = (
    Call("pipeline_find_64v", "find, 64 B values", "find", 64, overhead="pipeline_overhead"),
    Call("pipeline_find_64v_pinned", "find, 64 B values, pinned keys", "find", 64, pinned=True,
         overhead="pipeline_overhead_find_pinned"),
    Call("pipeline_find_64v_binary", "find, 64 B values, binary keys", "find", 64, binary=True),
    Call("pipeline_insert_64v_pageable", "insert, 64 B values, pageable", "insert", 64,
         overhead="pipeline_overhead_insert_pageable"),
    Call("pipeline_insert_64v_pinned", "insert, 64 B values, pinned", "insert", 64, pinned=True,
         overhead="pipeline_overhead_insert_pinned"),
    Call("pipeline_insert_64v_binary", "insert, 64 B values, binary", "insert", 64, binary=True),
    Call("pipeline_find_1024v", "find, 1 KiB values", "find", 1024, overhead="pipeline_overhead_find_1024v"),
    Call("pipeline_insert_1024v_pageable", "insert, 1 KiB values, pageable", "insert", 1024),
    Call("pipeline_insert_1024v_pinned", "insert, 1 KiB values, pinned", "insert", 1024, pinned=True),
)  # fmt: skip
BOTH_WAYS = {64: "pipeline_bidirectional_64v", 1024: "pipeline_bidirectional"}
LISTS = "pipeline_find_lists"

# Everything that has the link, or Python's own lists, for a ceiling; in the order it is shown in.
PIPELINE = {
    **{call.name: call.label for call in CALLS},
    "pipeline_bidirectional": "find and insert at once, 1 KiB values",
    "pipeline_bidirectional_64v": "find and insert at once, 64 B values",
    LISTS: "mget, lists in and out",
}
OVERHEADS = {call.overhead: f"{call.label}: neither link nor kernel" for call in CALLS if call.overhead}  # fmt: skip
LOAD = {
    "sustained": "operations a second, one thread",
    "sustained_latency_mean": "latency of a batch, mean, one thread",
    "sustained_latency_p99": "latency of a batch, p99, one thread",
    "sustained_threads": "operations a second, all threads",
    "sustained_threads_latency_mean": "latency of a batch, mean, all threads",
    "sustained_threads_latency_p99": "latency of a batch, p99, all threads",
}
LABELS = {**PIPELINE, **OVERHEADS, **LOAD}


@dataclass(frozen=True)
class Goal:
    """What a figure is held against: at least a share of its ceiling, at least a value, or at most one; in its unit."""

    share: float | None = None
    least: float | None = None
    most: float | None = None

    def bound(self, ceiling: float | None) -> float | None:
        """The goal in the figure's unit; None where it takes a ceiling that is not known."""
        if self.share is not None:
            return self.share * ceiling if ceiling else None
        return self.least if self.most is None else self.most

    def verdict(self, figure: dict[str, Any]) -> str:
        """ "met" or "missed" where the whole interval says so, else "open".

        >>> Goal(share=0.9).verdict({"value": 95, "low": 94, "high": 96, "ceiling": 100})
        'met'
        """
        bound = self.bound(figure.get("ceiling"))
        if bound is None:
            return "open"
        low, high = (
            figure["value"] if figure.get(side) is None else figure[side]
            for side in ("low", "high")
        )
        met = (low >= bound, high >= bound) if self.most is None else (high < bound, low < bound)
        return "met" if met[0] else "open" if met[1] else "missed"


GOALS = {
    "pipeline_find_64v": Goal(least=650e6),
    "pipeline_find_1024v": Goal(share=0.9),
    "pipeline_insert_64v_pageable": Goal(least=300e6),
    "pipeline_insert_64v_pinned": Goal(least=450e6),
    "pipeline_insert_1024v_pageable": Goal(share=0.6),
    "pipeline_insert_1024v_pinned": Goal(share=0.85),
    "pipeline_bidirectional": Goal(least=80e9),
    LISTS: Goal(share=0.8),
    **dict.fromkeys(OVERHEADS, Goal(most=0.05)),
    "sustained": Goal(least=2e6),
    "sustained_latency_mean": Goal(most=1e-3),
    "sustained_latency_p99": Goal(most=5e-3),
    "sustained_threads": Goal(least=1e6),
}


# ---- Stages on a timeline


class StageInterval(Protocol):
    """When a stage worked on a chunk: seconds since the tracing began. As `gpu.tracing.Interval`."""

    @property
    def stage(self) -> str: ...
    @property
    def chunk(self) -> int: ...
    @property
    def start_s(self) -> float: ...
    @property
    def stop_s(self) -> float: ...


class Traceable(Protocol):
    """What tells when its stages worked: the list is complete once the block is left."""

    def traced(self) -> AbstractContextManager[Sequence[StageInterval]]: ...


Span = tuple[float, float]


def covered_seconds(spans: Iterable[Span], began: float, ended: float) -> float:
    """Seconds between began and ended in which at least one of the spans was under way.

    >>> covered_seconds([(0.0, 2.0), (1.0, 3.0), (5.0, 9.0)], 0.0, 6.0)
    4.0
    """
    total, reached = 0.0, began
    for start, stop in sorted(spans):
        total += max(0.0, min(stop, ended) - max(start, reached))
        reached = max(reached, min(stop, ended))
    return total


def overhead(intervals: Iterable[StageInterval], wall_s: float) -> float:
    """Share of a call, from 0 to wall_s, in which neither a copy nor a kernel was under way."""
    spans = [(one.start_s, one.stop_s) for one in intervals if one.stage in BUSY]
    return 1 - covered_seconds(spans, 0.0, wall_s) / wall_s


@dataclass(frozen=True)
class Moved:
    """One call among several at once: when it ran, and the bytes that it sent over the link."""

    start_s: float
    stop_s: float
    nbytes: float


def nbytes_within(calls: Iterable[Moved], began: float, ended: float) -> float:
    """Bytes that the calls moved between two moments, each taken to move them evenly."""
    total = 0.0
    for call in calls:
        inside = min(call.stop_s, ended) - max(call.start_s, began)
        total += call.nbytes * max(0.0, inside) / (call.stop_s - call.start_s)
    return total


# ---- Reading samples


def kept(workloads: Sequence[str], *columns: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """What keeps the samples of some workloads that have these parameters; for `kernel_samples.samples_of`."""

    def keep(samples: pd.DataFrame) -> pd.DataFrame:
        if not len(samples) or not set(columns) <= set(samples.columns):
            return samples.iloc[:0]
        return samples[samples["workload"].isin(workloads)].dropna(subset=list(columns))

    return keep


size_samples = kept([SIZES], "direction", "nbytes")
turn_samples = kept([TURNS], "queued", "before")
chunk_samples = kept([CHUNKS], "direction", "chunk_nbytes", "streams")
timeline_samples = kept([TIMELINE], "call", "stage", "chunk", "interval")
codec_samples = kept([CODECS], "data")
offset_samples = kept([OFFSETS], "data", "bits")
window_samples = kept(SUSTAINED, "threads", "seconds")


def timeline_of(samples: pd.DataFrame, call: str) -> pd.DataFrame:
    """The intervals of one traced call, in order of their starts: stage, chunk, start, stop in seconds."""
    chosen = samples[samples["call"] == call]
    wide = chosen.pivot(index=["interval", "stage", "chunk"], columns="metric", values="value")
    return wide.reset_index().sort_values("start", ignore_index=True)


def link_of(figures: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Measured bandwidth of pinned copies, by direction; from notebook 00's limits where 04 has left none."""
    names = {UP: "h2d_pinned", DOWN: "d2h_pinned", BOTH: "both_pinned"}
    found = {}
    for direction, name in names.items():
        for prefix in ("link_", "limit_"):
            if prefix + name in figures:
                found[direction] = figures[prefix + name]["value"]
                break
    return found


def codec_medians(samples: pd.DataFrame, codec: str, data: str) -> dict[str, float]:
    """A codec's ratio, and bytes of plain data per second and core that it compresses and decompresses."""
    rows = samples[(samples["system"] == codec) & (samples["data"] == data)]
    return {
        str(metric): float(value)
        for metric, value in rows.groupby("metric")["value"].median().items()
    }


def compressed_bandwidth(
    samples: pd.DataFrame, codec: str, data: str, metric: str, link: float, cores: int
) -> float:
    """Plain bytes per second that would cross if `cores` did nothing but "compress" or "decompress".

    Whichever is slower: the cores together, as fast as one each, or the link, which carries `ratio` times as much.
    """
    told = codec_medians(samples, codec, data)
    return min(cores * told[metric], told["ratio"] * link)
