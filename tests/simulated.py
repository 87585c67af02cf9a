"""Machines that never were, and what calls take on them: the oracle of the tuner's model. Nothing of it is shown to anybody.

The model adds up; here each chunk passes each stage when that is free, its buffers are, and what came before it is done. The
host sends one chunk after the other, and waits for those sent before as `pipeline` does.
"""

import math
from dataclasses import replace
from functools import cache

from predis_lab.gpu import stages
from predis_lab.gpu.sizing import BUFFER_NBYTES, DEPTH, FIRST_SHARE, UPLOADS_AHEAD
from predis_lab.gpu.stages import DOORBELL, FIND, INSERT, LAUNCH, PIPELINE, Machine, Setting
from predis_lab.gpu.tuning import MOST_SMALL_NBYTES

USUAL = Machine(
    launch_s=2e-5, bulk_s=1.5e-4, chunk_s=4e-5, copy_s=8e-6, up=55e9, down=55e9,
    pack=9e9, pack_most=45e9, wake_s=3e-6, row_s=5e-11, memory=3.5e12,
    packers=14, bell_s=2e-6, bell_row_s=3e-8,
)  # fmt: skip
MACHINES = {
    "usual": USUAL,
    "fast link": replace(USUAL, up=4e11, down=4e11, copy_s=2e-6),
    "slow link": replace(USUAL, up=6e9, down=5e9, copy_s=2e-5),
    "slow cores": replace(USUAL, pack=1e9, pack_most=2e9, packers=2, chunk_s=3e-4, bulk_s=1e-3, launch_s=1e-4),
    "slow device": replace(USUAL, row_s=5e-9, memory=1e11),
    "no doorbell": replace(USUAL, bell_s=None, bell_row_s=None),
}  # fmt: skip
ROOM = DEPTH * 2**25
LITTLE_ROOM = DEPTH * 2**14
MOST_PIECES = 250  # more never pay, and take long to play


def play(machine, shape, way, setting):
    """Seconds of one call."""
    if way == DOORBELL:
        return stages.by_doorbell(machine, shape).seconds
    if way == LAUNCH:
        return stages.by_launch(machine, shape).seconds
    return machine.bulk_s + _play_pipeline(machine, shape, setting)


def _play_pipeline(machine, shape, setting):
    most = max(stages.rows_a_chunk(shape, setting.chunk_nbytes), 1)
    pieces = [min(shape.rows, max(most * FIRST_SHARE, 1))]
    rest = shape.rows - pieces[0]
    if rest > 0:
        chunks = math.ceil(rest / most)
        pieces += [rest / chunks] * chunks
    packed = _packed(machine, pieces, shape.up, setting.packers)
    row = stages._kernel_row_s(machine, shape)
    brings = shape.verb != INSERT
    # Uploads that may be under way when the host waits for one of them.
    ahead = min(UPLOADS_AHEAD, setting.depth - 2) if brings else setting.depth - 2
    host = up = kernel = down = 0.0
    uploaded: list[float] = []
    uploaded_free, answered_free = [0.0] * setting.depth, [0.0] * setting.depth
    for number, rows in enumerate(pieces):
        buffer = number % setting.depth
        host = max(host, packed[number], uploaded_free[buffer]) + machine.chunk_s
        up = max(up, host) + machine.copy_s + rows * shape.up / machine.up
        uploaded.append(up)
        if number >= ahead:
            host = max(host, uploaded[number - ahead])
        kernel = max(kernel, up, answered_free[buffer] if brings else 0) + rows * row
        uploaded_free[buffer] = kernel
        down = (
            max(down, kernel) + machine.copy_s + rows * (shape.down if brings else 0) / machine.down
        )
        answered_free[buffer] = down
    return down


def _packed(machine, pieces, nbytes, packers):
    """When each piece is packed: the first alone, then about twice as many together each time."""
    done, now, at, most = [], 0.0, 0, 0.0
    while at < len(pieces):
        stop, total = at + 1, pieces[at] * nbytes
        while stop < len(pieces) and total + pieces[stop] * nbytes <= most * (1 + 1e-9):
            total += pieces[stop] * nbytes
            stop += 1
        now += stages.pack_s(machine, total, packers)
        done += [now] * (stop - at)
        most, at = min(BUFFER_NBYTES, 2 * total), stop
    return done


@cache
def sweep(machine, shape):
    """The least seconds of every way and every setting there is."""
    ways = [play(machine, shape, LAUNCH, None)] if shape.traffic <= MOST_SMALL_NBYTES else []
    if machine.bell_s is not None and stages.fits_doorbell(shape):
        ways.append(play(machine, shape, DOORBELL, None))
    packers = {1, machine.packers, *(p for p in (3, 6) if p < machine.packers)}
    for depth in (2, 3, 4, 8):
        chunk = shape.room_nbytes // depth
        while chunk >= 256 and stages.rows_a_chunk(shape, chunk) * MOST_PIECES > shape.rows:
            for count in packers:
                ways.append(play(machine, shape, PIPELINE, Setting(chunk, depth, count)))
            if stages.rows_a_chunk(shape, chunk) > 2 * shape.rows:  # one chunk is one chunk
                chunk = int(chunk * 1.5 * shape.rows / stages.rows_a_chunk(shape, chunk))
            chunk = int(chunk / 1.6)
        ways.append(play(machine, shape, PIPELINE, Setting(shape.room_nbytes // depth, depth, 1)))
    return min(ways)


def shapes(room_nbytes=ROOM, bell=1024, rows=(10, 1000, 30_000, 1_000_000)):
    """A grid of calls."""
    for verb in (FIND, INSERT):
        for value_nbytes in (16, 64, 1024, 8192):
            for n in rows:
                yield stages.Shape.of(verb, n, 16, value_nbytes, room_nbytes=room_nbytes, bell=bell)
