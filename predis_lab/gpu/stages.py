"""How long a call takes by each way through: plain arithmetic on its shape and on a few constants of a machine.

The model behind `tuning.choose`, without CUDA. A batch's chunks pass one stage after another, and neighbours overlap: the
whole takes as long as the busiest stage, what comes before it for the first chunk, and what comes after it for the last.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from .sizing import (
    ALONE_NBYTES,
    BUFFER_NBYTES,
    DEPTH,
    FIRST_SHARE,
    KEYS_SHARE,
    MIN_CHUNK_NBYTES,
    MOST_DEPTH,
    NBYTES,
    ROWS,
)

DOORBELL, LAUNCH, PIPELINE = WAYS = "doorbell", "launch", "pipeline"
FIND, INSERT, PEEK = "find", "insert", "peek"  # values out, values in, one byte out
PACK, HOST, UPLOAD, KERNEL, DOWNLOAD = "pack", "host", "upload", "kernel", "download"
_FIXED = "start"
OFFSET_NBYTES = 4.125  # of an answer beside its value: its offset, and a bit
DEPTHS = (DEPTH, 2, 3, MOST_DEPTH)
ACROSS = 3  # times as long as a copy: records that are read across the link, where a ring does not hold them
LEAST_ROWS, MOST_CHUNKS = 8, 256  # of a chunk, of a batch
# A fuller index has lookups probe further: by a fifth at 0.95 (notebook 00, `find_64v_load95`), by next to nothing at half.
_PROBED_POWER, _PROBED_SHARE = 8, 1 / 3


@dataclass(frozen=True)
class Machine:
    """What one machine takes: seconds, and bytes per second."""

    launch_s: float  # a call of one launch, its wait included
    bulk_s: float  # a call through the pipeline, whatever it carries
    chunk_s: float  # each chunk of it, on the host
    copy_s: float  # each copy across the link, beyond its bytes
    up: float  # pinned copies to the device
    down: float  # and back
    pack: float  # host copies by one core
    pack_most: float  # by `packers` of them
    wake_s: float  # each core that packs, per packing
    row_s: float  # the device, per key
    memory: float  # its memory
    packers: int  # cores that may pack
    bell_s: float | None = None  # a key asked at the doorbell and answered, where there is one
    bell_row_s: float | None = None  # each further one

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is None and name.startswith("bell_"):
                continue
            if type(value) not in (int, float) or not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is a positive number, not {value!r}")

    @classmethod
    def from_json(cls, told: Any) -> Machine:
        """What `asdict` made; raises ValueError where that is something else."""
        if not isinstance(told, Mapping) or told.keys() != {one.name for one in fields(cls)}:
            raise ValueError("these are not the constants of a machine")
        return cls(**told)


@dataclass(frozen=True)
class Setting:
    """How a batch goes through the pipeline; see `tuning.Tuning`."""

    chunk_nbytes: int
    depth: int
    packers: int


@dataclass(frozen=True)
class Shape:
    """One call.

    up, down:     bytes of a row on the way to the device, and back
    load:         share of the index's slots in use
    room_nbytes:  of a ring, which all chunks under way share
    bell:         keys that the doorbell takes at once; 0 where there is none
    """

    verb: str
    rows: int
    up: float
    down: float
    load: float = 0.5
    room_nbytes: int = DEPTH * 2**25
    bell: int = 0

    @classmethod
    def of(cls, verb: str, rows: int, key_nbytes: float, value_nbytes: float, **more: Any) -> Shape:
        """For keys and values of these lengths. verb: FIND, INSERT, or PEEK for what answers with a byte a key"""
        up = key_nbytes + (value_nbytes if verb == INSERT else 0)
        return cls(verb, rows, up, value_nbytes + OFFSET_NBYTES if verb == FIND else 1, **more)

    @property
    def traffic(self) -> float:
        """Bytes both ways."""
        return self.rows * (self.up + self.down)


@dataclass(frozen=True)
class Estimate:
    """Seconds of a call, and of each stage of it; where stages overlap they add up to more."""

    seconds: float
    stages: dict[str, float]

    @property
    def binding(self) -> str:
        """The stage that takes longest."""
        return max(self.stages, key=lambda stage: self.stages[stage])


def fits_doorbell(shape: Shape) -> bool:
    """Whether the doorbell takes such a call at all."""
    most = NBYTES - 24 * ROWS  # beside offsets
    return shape.rows <= shape.bell and shape.rows * max(shape.up, shape.down) <= most


def by_doorbell(machine: Machine, shape: Shape) -> Estimate:
    """One block reads and writes host memory across the link. The machine's doorbell has been measured."""
    assert machine.bell_s is not None and machine.bell_row_s is not None
    stages = {
        _FIXED: machine.bell_s,
        KERNEL: (shape.rows - 1) * machine.bell_row_s,
        **_mapped(machine, shape),
    }
    return Estimate(sum(stages.values()), stages)


def by_launch(machine: Machine, shape: Shape) -> Estimate:
    """Keys are copied into mapped memory, and one kernel reads and writes across the link."""
    up = shape.rows * shape.up
    stages = {
        _FIXED: machine.launch_s,
        PACK: pack_s(machine, up, machine.packers),
        KERNEL: shape.rows * _kernel_row_s(machine, shape),
        **_mapped(machine, shape),
    }
    if shape.verb == INSERT and up > shape.room_nbytes:
        stages[UPLOAD] *= ACROSS
    return Estimate(sum(stages.values()), stages)


def by_pipeline(machine: Machine, shape: Shape, setting: Setting) -> Estimate:
    """Chunks through rings of buffers."""
    most = max(rows_a_chunk(shape, setting.chunk_nbytes), 1)
    first = min(shape.rows, max(FIRST_SHARE * most, 1))
    rest = shape.rows - first
    chunks = math.ceil(rest / most)
    rows = rest / chunks if chunks else 0.0  # of each but the first
    down = shape.down / machine.down if shape.verb != INSERT else 0.0
    # What a chunk takes in each stage behind the packing: fixed, and per row.
    stages = {
        HOST: (machine.chunk_s, 0.0),
        UPLOAD: (machine.copy_s, shape.up / machine.up),
        KERNEL: (0.0, _kernel_row_s(machine, shape)),
        DOWNLOAD: (machine.copy_s, down),
    }
    firsts = {name: fixed + first * row_s for name, (fixed, row_s) in stages.items()}
    others = {name: fixed + rows * row_s for name, (fixed, row_s) in stages.items()}
    # Two buffers are enough for that: one is taken for two stages at most. But with two the host waits for each upload before it
    # sends the next, so that the link waits for the host as well. More of them make up for stages that falter.
    apart = [[HOST, UPLOAD]] if setting.depth == 2 else [[HOST], [UPLOAD]]
    apart += [[KERNEL], [DOWNLOAD]]
    first_turns, turns = (
        [sum(each[name] for name in names) for names in apart] for each in (firsts, others)
    )
    cycle = max(turns)
    through = sum(turns) - cycle  # of the last chunk, beside the busiest stage
    packing = pack_s(machine, first * shape.up, setting.packers)
    before, after = packing, sum(turns) if chunks else 0.0
    took = 0.0
    for first_turn, turn in zip(first_turns, turns, strict=True):  # each might be the busiest
        before += first_turn
        after -= turn if chunks else 0.0
        took = max(took, before + chunks * turn + after)
    for number, packed in _runs(machine, shape, setting, rows, chunks):
        took = max(took, packing + packed + (chunks - number) * cycle + through)
    told = {name: firsts[name] + chunks * others[name] for name in stages}
    packed = max((packed for _, packed in _runs(machine, shape, setting, rows, chunks)), default=0)
    told |= {_FIXED: machine.bulk_s, PACK: packing + packed}
    return Estimate(machine.bulk_s + took, told)


def _runs(
    machine: Machine, shape: Shape, setting: Setting, rows: float, chunks: int
) -> Iterator[tuple[int, float]]:
    """Chunks are packed one, two, four together, up to a buffer: how many before a run, and seconds until it is packed.

    Of the runs that fill a buffer the first and the last: what is between them lies between them in time too.
    """
    most = max(int(BUFFER_NBYTES / (rows * shape.up)), 1) if chunks else 1
    before, packed, run = 0, 0.0, 1
    while before < chunks:
        run = min(run, most, chunks - before)
        whole = (chunks - before) // run - 2 if run == most else 0
        packed += pack_s(machine, run * rows * shape.up, setting.packers)
        yield before, packed
        if whole > 0:
            packed += whole * pack_s(machine, run * rows * shape.up, setting.packers)
            before += whole * run
        before, run = before + run, 2 * run


def pack_s(machine: Machine, nbytes: float, packers: int) -> float:
    """Seconds of one packing."""
    if nbytes < ALONE_NBYTES:
        return nbytes / machine.pack
    return packers * machine.wake_s + nbytes / min(packers * machine.pack, machine.pack_most)


def rows_a_chunk(shape: Shape, chunk_nbytes: int) -> float:
    """Rows that a chunk holds: their records, or their keys and their answers."""
    if shape.verb == INSERT:
        return chunk_nbytes / shape.up
    return min(chunk_nbytes / (shape.down + 1), KEYS_SHARE * chunk_nbytes / shape.up)


def settings(machine: Machine, shape: Shape) -> Iterator[Setting]:
    """Ways to go through the pipeline that are worth a thought; today's own comes first.

    Every number of buffers, with chunks that halve from as much as the ring then holds on; but of those that hold the whole
    batch one will do, and as many chunks as MOST_CHUNKS never pay. Numbers of cores double.
    """
    most = machine.packers
    packers = [most, *(p for p in (1, 2, 4, 8, 16, 32) if p < most)]
    for depth in DEPTHS:
        chunk = shape.room_nbytes // depth // 256 * 256
        least = min(MIN_CHUNK_NBYTES, chunk)
        while chunk >= least:
            rows = rows_a_chunk(shape, chunk)
            if rows * MOST_CHUNKS < shape.rows and chunk < shape.room_nbytes // MOST_DEPTH:
                break
            if rows < 4 * shape.rows or depth == DEPTHS[0] == shape.room_nbytes // chunk:
                yield from (Setting(chunk, depth, count) for count in packers)
            if rows < LEAST_ROWS:
                break
            chunk = chunk // 2 // 256 * 256


def neighbours(machine: Machine, shape: Shape, setting: Setting) -> Iterator[Setting]:
    """Half-way between a setting and the next of `settings`."""
    most = shape.room_nbytes // setting.depth
    for chunk in (setting.chunk_nbytes, 0.7 * setting.chunk_nbytes, 1.4 * setting.chunk_nbytes):
        for packers in (1.0, 0.75, 1.5):
            count = min(max(round(packers * setting.packers), 1), machine.packers)
            if MIN_CHUNK_NBYTES <= chunk <= most:
                yield Setting(int(chunk) // 256 * 256, setting.depth, count)


def _mapped(machine: Machine, shape: Shape) -> dict[str, float]:
    return {
        UPLOAD: shape.rows * shape.up / machine.up,
        DOWNLOAD: shape.rows * shape.down / machine.down,
    }


def _kernel_row_s(machine: Machine, shape: Shape) -> float:
    probed = 1 + _PROBED_SHARE * shape.load**_PROBED_POWER
    return machine.row_s * probed + 2 * (shape.up + shape.down) / machine.memory
