"""How large a table's parts are: segments so that they fill a capacity, an index so that the log beside it fills too.

Also what calls are cut by unless something else is tuned. Plain arithmetic on bytes, without CUDA. Called by `table`, `memory`,
`ring`, `doorbell` and `tuning`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import pyarrow as pa

SLOTS = 8  # per bucket
SLOT_NBYTES = 8
BUCKET_NBYTES = SLOTS * SLOT_NBYTES
MAX_LOAD = 0.8  # a fuller index grows before the next insert, if that pays
HARD_LOAD = 0.95  # an insert may fill it up to here

# The driver hands out memory in pages of this; smaller pieces share one, the rest of a last page is lost.
PAGE_NBYTES = 2**21
PAGED_CAPACITY = 2**25  # for index and log; from here on everything is counted in whole pages
ALIGNMENT = 512  # of whatever the driver gives, below that
MIN_INDEX = 2**16  # bytes of an empty table's
# Few enough bytes that some segments always fit, enough that a batch needs few launches.
MIN_SEGMENT, MAX_SEGMENT, SEGMENTS = 2**16, 2**30, 64

# A launch over as many rows takes a few microseconds.
BRIEF_ROWS = 2**14
# As in kernels/stretches.cuh: a long value, at least; of it at once, at least; of these, at most, and their list.
LONG_NBYTES, STRETCH_NBYTES, MOST_STRETCHES = 2**14, 2**12, 2**12
LIST_WORDS = 2 + 3 * MOST_STRETCHES
MANY_ROWS = 64  # of long values of one length: warps enough without a list
# Of a call at the doorbell at most: keys, and bytes that it sends or brings.
ROWS, NBYTES = 1024, 2**17
# What a table keeps for its calls, beside the rings of buffers: where a batch's records lie, what the doorbell is asked and where
# that lies, long values, and some counters. Of its own where the capacity is not so many times as much.
SCRATCH_NBYTES = 8 * BRIEF_ROWS + NBYTES + 8 * ROWS + 8 * LIST_WORDS + 2**12
SCRATCH_SHARE = 1 / 32
# A call with less traffic than this, both ways together, goes through mapped memory. On an H200 host the pipeline takes longer at
# 8 MB where records are to be stored, and at 80 still where values are to be found (notebook 03, the best of each).
SMALL_NBYTES = 2**24
# Buffers of a ring: one that is filled, two whose chunks wait, one that is emptied; shorter chunks may be more.
DEPTH, MOST_DEPTH = 4, 8
# Uploads under way while one is looked up, at most; always two less than there are buffers.
UPLOADS_AHEAD = 2
CHUNK_NBYTES = 32 * 2**20  # of answers or records
MIN_CHUNK_NBYTES = 2**12
FIRST_SHARE = 1 / 2  # of a chunk: the first one; shorter ones take the host as long as the link
KEYS_SHARE = 1 / 2  # of a chunk: of keys to look up
# Waking the cores that copy takes as long as copying megabytes: as much as this at once, of several chunks where these are
# short.
BUFFER_NBYTES = 48 * 2**20
ALONE_NBYTES = 2**20  # one core copies up to here
# One core manages some 6 to 10 GB/s, the link five times as much.
PACKERS = max(1, min(14, pa.cpu_count() - 2))


def granule(capacity: int) -> int:
    """Bytes that allocations are counted in, so that a large capacity is kept as the driver counts."""
    return PAGE_NBYTES if capacity >= PAGED_CAPACITY else ALIGNMENT


def rounded(nbytes: int, granule_nbytes: int) -> int:
    """The next multiple.

    >>> rounded(513, 512)
    1024
    """
    return -(-nbytes // granule_nbytes) * granule_nbytes


def segment_nbytes(capacity: int, host_capacity: int = 0) -> int:
    """Bytes of a segment: a SEGMENTS-th of the capacity or less, such that whole ones leave little beside a first index.

    host_capacity: of which they are not to be more than a SEGMENTS-th either, as far as the smallest allows, if there is any

    >>> segment_nbytes(8 * 2**30) // 2**20  # 65 of them, and 2 MiB for the index
    126
    """
    step = granule(capacity)
    left = capacity - rounded(MIN_INDEX, step)
    share = min(capacity, host_capacity or capacity) // SEGMENTS
    largest = min(max(share, MIN_SEGMENT, step), MAX_SEGMENT) // step * step
    smallest = max(largest // 2, min(MIN_SEGMENT, largest), step)
    sizes: Iterable[int] = range(largest, rounded(smallest, step) - 1, -step)
    if step < PAGE_NBYTES:  # several share a page, and fill it
        most, fewest = PAGE_NBYTES // smallest, -(-PAGE_NBYTES // largest)
        sizes = (PAGE_NBYTES // number // step * step for number in range(fewest, most + 1))
    lost = {nbytes: left % nbytes for nbytes in sizes}
    # Few large ones are worth a little that stays unused.
    allowed = min(lost.values()) + capacity // (2 * SEGMENTS)
    return max(nbytes for nbytes, unused in lost.items() if unused <= allowed)


def records_at_most(capacity: int, record_nbytes: float) -> float:
    """Records of a mean size that a capacity holds beside an index at MAX_LOAD."""
    return capacity / (record_nbytes + SLOT_NBYTES / MAX_LOAD)


def index_buckets(buckets: int, records: int, most: float) -> int:
    """Buckets that the index of a table of `records` should have; as many as it has unless it has to grow.

    buckets:  that it has
    most:     records that the table is going to hold at most, as far as one can tell

    It doubles, lest small batches rehash it again and again; but not beyond what the last record that still finds room
    needs at MAX_LOAD. Where that stays below HARD_LOAD as it is, it is left alone.

    >>> index_buckets(1024, 6554, 1e6), index_buckets(1024, 6554, 10_000), index_buckets(1024, 6554, 7000)
    (2048, 1563, 1024)
    """
    slots = buckets * SLOTS
    if records <= MAX_LOAD * slots or max(records, most) <= HARD_LOAD * slots:
        return buckets
    needed, last = (math.ceil(n / (MAX_LOAD * SLOTS)) for n in (records, min(most, 2.0**50)))
    return max(needed, min(2 * buckets, last))
