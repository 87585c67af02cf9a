"""Parts of columns in memory that copies start from, and the pieces that calls are cut into."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predis_lab.columns import Column

try:
    import cupy

    from predis_lab.gpu import ring, staging
    from predis_lab.gpu.health import Health
except ImportError:  # every test here then skips with this as its reason, see conftest
    cupy = None

pytestmark = pytest.mark.gpu

BUFFER = 4096


@pytest.fixture
def stage(monkeypatch):
    monkeypatch.setattr(staging, "BUFFER_NBYTES", BUFFER)
    made = staging.Staging(Health(5))
    yield made
    made.close()


def fixed(n, width, seed=0):
    data = np.random.default_rng(seed).integers(0, 256, n * width, np.uint8)
    return Column(data, None, width, n)


def varied(n, longest, seed=0):
    """Rows of 0 to `longest` bytes that begin somewhere within their data."""
    generator = np.random.default_rng(seed)
    offsets = 7 + np.concatenate([[0], np.cumsum(generator.integers(0, longest + 1, n))])
    data = generator.integers(0, 256, int(offsets[-1]) + 5, np.uint8)
    return Column(data, offsets.astype(np.int32), 0, n)


def rows_of(column, base=0):
    """The rows as bytes, of a column whose data begins at `base` of its offsets."""
    if column.offsets is None:
        data = column.data[: len(column) * column.width].reshape(len(column), column.width)
        return [row.tobytes() for row in data]
    ends = (column.offsets - base).tolist()
    return [column.data[a:b].tobytes() for a, b in itertools.pairwise(ends)]


def parts_of(stage, columns, nbytes, step=1):
    """Rows of each column as the parts have them, and the parts' pieces; every part is copied on a stream."""
    stream = cupy.cuda.Stream(non_blocking=True)
    found, pieces, targets = [[] for _ in columns], [], []
    cut = ring.pieces(columns, nbytes, step)
    for part in stage.parts(columns, cut, stream):
        assert part.first == sum(len(column) for at, column, *_ in targets if at == 0)
        for at, (column, base) in enumerate(zip(part.columns, part.bases, strict=True)):
            copies = [column.data] + ([] if column.offsets is None else [column.offsets])
            on_device = [cupy.empty(copy.nbytes, np.uint8) for copy in copies]
            for source, target in zip(copies, on_device, strict=True):
                address = target.data.ptr
                staging.copy_async(address, source.ctypes.data, source.nbytes, stream)
            targets.append((at, column, base, on_device))
        pieces.append(list(part.pieces))
    stream.synchronize()
    for at, column, base, (data, *offsets) in targets:
        offsets = offsets[0].get().view(column.offsets.dtype) if offsets else None
        found[at] += rows_of(Column(data.get(), offsets, column.width, len(column)), base)
    return found, pieces


COLUMNS = {
    "one": lambda n: [fixed(n, 16)],
    "two": lambda n: [fixed(n, 16), fixed(n, 64, 1)],
    "odd": lambda n: [fixed(n, 13), fixed(n, 33, 1)],
    "varied": lambda n: [varied(n, 20), varied(n, 200, 1)],
    "mixed": lambda n: [fixed(n, 16), varied(n, 90, 1)],
    "empty": lambda n: [fixed(n, 16), fixed(n, 0, 1)],
}


@pytest.mark.parametrize("n", [1, 2, 9, 100, 1000, 5003])
@pytest.mark.parametrize("shape", COLUMNS)
def test_parts_hold_every_row_once_and_in_order(stage, shape, n):
    columns = COLUMNS[shape](n)
    found, pieces = parts_of(stage, columns, BUFFER // 2)
    assert found == [rows_of(column) for column in columns]
    flat = [piece for part in pieces for piece in part]
    assert flat[0][0] == 0 and flat[-1][1] == n
    assert all(before[1] == after[0] for before, after in itertools.pairwise(flat))
    assert n < 1000 or 3 < len(pieces) < len(flat)  # several pieces are packed at once


def test_a_row_longer_than_a_buffer(stage):
    rows = [3, 3 * BUFFER, 5, 2 * BUFFER, 1]
    offsets = np.concatenate([[0], np.cumsum(rows)]).astype(np.int64)
    data = np.random.default_rng(0).integers(0, 256, int(offsets[-1]), np.uint8)
    column = Column(data, offsets, 0, len(rows))
    for _ in range(2):
        assert parts_of(stage, [column], BUFFER)[0] == [rows_of(column)]


def test_pinned_columns_are_sent_from_where_they_are(stage, monkeypatch):
    monkeypatch.setattr(staging, "is_pinned", lambda _: True)
    columns = [fixed(100, 16)]
    (part,) = stage.parts(columns, iter([(0, 60), (60, 100)]), None)
    assert part.columns is columns and list(part.pieces) == [(0, 60), (60, 100)]


@pytest.mark.parametrize("at", [0, 1, 2, 5, 9])
def test_a_failure_while_packing_is_the_callers(stage, monkeypatch, at):
    columns = [fixed(3000, 16)]
    plain, calls = staging.copy_together, iter(range(10**9))

    def copy(*copied):
        if next(calls) == at:
            raise MemoryError("no more")
        plain(*copied)

    with monkeypatch.context() as patch:
        patch.setattr(staging, "copy_together", copy)
        with pytest.raises(MemoryError, match="no more"):
            parts_of(stage, columns, BUFFER // 4)
    assert stage._buffers.qsize() == staging.BUFFERS
    assert parts_of(stage, columns, BUFFER // 4)[0] == [rows_of(columns[0])]


def test_who_stops_early_leaves_nothing_under_way(stage, monkeypatch):
    plain, packing, columns = staging.copy_together, threading.Semaphore(0), [fixed(3000, 16)]

    def copy(*copied):
        packing.release()
        plain(*copied)

    monkeypatch.setattr(staging, "copy_together", copy)
    stream = cupy.cuda.Stream(non_blocking=True)
    with closing(stage.parts(columns, ring.pieces(columns, 512, 1), stream)) as parts:
        next(parts), next(parts)
        packing.acquire(timeout=5)
    columns[0].data[:] = 0  # nobody reads it any more
    assert stage._buffers.qsize() == staging.BUFFERS


@pytest.mark.parametrize("n", [0, 1, 4095, 10_000])
def test_bytes_that_are_not_cut_into_chunks(stage, monkeypatch, n):
    monkeypatch.setattr(staging, "PIECE_NBYTES", 1000)
    source, stream = fixed(n, 1).data, cupy.cuda.Stream(non_blocking=True)
    target = cupy.zeros(n + 1, np.uint8)
    cupy.cuda.get_current_stream().synchronize()
    stage.upload(source, target.data.ptr, stream)
    stream.synchronize()
    assert target.get()[:n].tobytes() == source.tobytes() and target.get()[n] == 0


def test_threads_share_the_buffers(stage):
    def work(seed):
        columns = [fixed(2000, 16, seed), varied(2000, 50, seed)]
        for _ in range(5):
            found, _ = parts_of(stage, columns, BUFFER // 2)
            assert found == [rows_of(column) for column in columns]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))  # raises what a thread raised


# ---- Pieces


@given(st.integers(1, 10_000), st.floats(0, 20_000))
def test_even_rows_are_even(left, most):
    rows, pieces = left, []
    while rows:
        pieces.append(ring.even_rows(rows, most))
        rows -= pieces[-1]
    limit = max(most, ring.BITMAP_ROWS)
    assert all(0 < piece <= limit for piece in pieces)
    assert all(piece % ring.BITMAP_ROWS == 0 for piece in pieces[:-1])
    assert len(pieces) == -(-left // (int(limit) // ring.BITMAP_ROWS * ring.BITMAP_ROWS))


@given(
    st.integers(0, 3000), st.sampled_from([64, 500, 4096]), st.sampled_from([1, 8]), st.booleans()
)
def test_pieces_fit_where_they_can(n, nbytes, step, long):
    columns = [fixed(n, 16), varied(n, 2000 if long else 20)]
    first = 0
    for number, (start, stop) in enumerate(ring.pieces(columns, nbytes, step)):
        assert start == first and start < stop <= n and (stop == n or stop % step == 0)
        taken = ring.upload_nbytes(columns, start, stop)
        assert taken <= nbytes * ring.share_of(number) or stop - start <= step
        first = stop
    assert first == n
