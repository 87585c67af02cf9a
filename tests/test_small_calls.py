"""Calls of a few launches: every number of rows that fills a block, a warp or a byte of bits, in memory that a call has to itself."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from chunked import column, fixed, some

from predis_lab import DeviceFailed, DeviceTimeout, Predis, Tuning

try:
    import cupy
    from test_pipeline_failures import stuck

    from predis_lab.gpu import kernels, launched, launching, mapped, modules, table
except ImportError:  # every test here then skips with this as its reason, see conftest
    cupy = None

pytestmark = pytest.mark.gpu


@pytest.fixture
def cache():
    with Predis("64MiB", backend="cuda", doorbell=False, timeout_s=20, tuning=Tuning(small_nbytes=2**26)) as cache:  # fmt: skip
        yield cache


def around(*numbers):
    """These, and one row fewer and more."""
    return sorted({n + by for n in numbers for by in (-1, 0, 1)} - {0})


@pytest.mark.parametrize("key_nbytes", [16, 23])
@pytest.mark.parametrize("sizes", [(64, 64), (1024, 1024), (0, 300), (1000, 1000)])
def test_every_number_of_rows(cache, key_nbytes, sizes):
    # As many as warps have, and as all blocks have together: as few a warp as there may be, more, and as many.
    spread = modules.multiprocessors()
    counts, chance = around(1, 8, 16, 32, 75, 128, *(spread * n for n in (8, 16, 32))), np.random.default_rng(1)  # fmt: skip
    numbers = np.arange(counts[-1])
    grid, values = fixed(numbers, key_nbytes), some(counts[-1], *sizes)
    absent = fixed(numbers + counts[-1], key_nbytes)
    for n in counts:
        keys = column(grid[:n])
        assert cache.insert(keys, values[:n]).counts()["stored"] == n
        assert cache.find(keys).to_pylist() == values[:n]
        there = chance.random(n) < 0.6
        mixed = column(np.where(there[:, None], grid[:n], absent[:n]))
        found = cache.find(mixed)
        found.validate(full=True)
        expected = [value if known else None for value, known in zip(values, there, strict=False)]
        assert found.to_pylist() == expected and found.null_count == n - there.sum()
        assert cache.contains(mixed).tolist() == there.tolist()
        if sizes[0] == sizes[1] and sizes[0] % 2 == 0:
            rows, known = cache.find(mixed, dtype="u2", shape=(sizes[0] // 2,), device=True)
            told = [row.tobytes() if is_there else None for row, is_there in zip(rows.get(), known.get(), strict=True)]  # fmt: skip
            assert told == expected
        assert cache.insert(keys, values[:n]).counts()["updated"] == n
        assert cache.erase(keys).all() and len(cache) == 0


def test_answers_outlive_what_is_asked_next(cache):
    keys, values = column(fixed(np.arange(300))), some(300, 0, 900)
    cache.insert(keys, values)
    answers = [cache.find(keys[at : at + 100]) for at in range(0, 200, 7)]
    for _ in range(50):
        cache.find(keys[::-1]), cache.insert(keys, values)
    cache.close()
    for at, answer in zip(range(0, 200, 7), answers, strict=True):
        assert answer.to_pylist() == values[at : at + 100]


def test_scans_go_on_when_epochs_begin_anew(cache):
    """Whose states are those of launches long ago: of more blocks, of fewer, of the same epoch."""
    table, keys, values = cache._table.table, column(fixed(np.arange(2000))), some(2000, 0, 100)
    cache.insert(keys, values)
    assert launching.packing(300)[1] > 1
    table._epoch = kernels.LAST_EPOCH - 3
    for n in (300, 2000, 301, 1500, 2000, 300, 2000):
        assert cache.find(keys[:n]).to_pylist() == values[:n]
    assert 0 < table._epoch < 7
    table._epoch = 0  # what is there now is of these
    table._states.fill(0)
    assert cache.find(keys).to_pylist() == values
    assert sorted(cache.scan_iter()) == sorted(keys.to_pylist())


def test_a_batch_of_which_the_index_takes_a_part_at_a_time(cache):
    """So that its columns are cut, wherever they lie."""
    table, total = cache._table.table, 0
    for n in (200, 3000, 20_000):
        numbers = np.arange(total, total + n)
        keys, values = column(fixed(numbers, 23)), some(n, 0, 40)
        assert cache.insert(keys, values).counts()["stored"] == n
        assert cache.find(keys).to_pylist() == values
        total += n
    assert table.epoch > 1 and len(cache) == total


def test_columns_in_a_block():
    rows = pa.array([b"ab", b"", b"cde", b"f" * 40], pa.binary())[1:]
    source = mapped.Column.of(rows)
    (copy,) = mapped.Block.of(source)
    assert copy.to_arrow().equals(rows.cast(pa.binary())) and copy.block.used == mapped.mapped_nbytes(source)  # fmt: skip
    assert copy[:] is copy and not copy.on_device and len(copy) == 3
    assert copy[1:].to_arrow().to_pylist() == rows[1:].to_pylist()
    data, offsets, stride = copy.arguments
    copy.read_at(copy.block.at + 4096)
    assert copy.arguments == (data + 4096, offsets + 4096, stride)
    with pytest.raises(AttributeError):
        copy.nothing  # noqa: B018
    keys, values = (mapped.Column.of(fixed(np.arange(9), width)) for width in (16, 48))
    pair = mapped.Block.of(keys, values)
    assert [one.to_arrow() for one in pair] == [keys.to_arrow(), values.to_arrow()]
    assert pair[0].arguments[1:] == (0, 16) and pair[0].block is pair[1].block


@pytest.mark.parametrize("width", [16, None])
def test_an_answer_that_is_prepared_before_it_is_there(width):
    call = mapped.Lookup(mapped.Column.of(fixed(np.arange(10))), 160, width)
    view = call._block.view
    view[: len(view)] = b"\xff" * len(view)
    call.prepare()
    values, offsets, bits, total = (place - call._block.at for place in call.places)
    view[bits : bits + 2], view[total : total + 8] = b"\x55\x01", (160).to_bytes(8, "little")
    view[values : values + 160] = bytes(range(160))
    if width is None:
        view[offsets : offsets + 44] = np.arange(0, 161, 16, np.int32).tobytes()
    found = call.array()
    found.validate(full=True)
    assert found.null_count == 5 and call.total == 160 and call.value() == bytes(range(160))
    expected = [None if i % 2 else bytes(range(16 * i, 16 * i + 16)) for i in range(10)]
    assert found.to_pylist() == expected


@pytest.mark.parametrize(("module", "name"), [("launched", "copy_async"), ("kernels", "launch")])
def test_long_columns_that_do_not_get_to_the_device(cache, monkeypatch, module, name):
    """What the driver refuses leaves everything as it was."""
    keys, values, later = column(fixed(np.arange(500))), some(500, 300, 300), some(500, 301, 301)
    assert cache.insert(keys, values).ok
    calls = itertools.count()

    def refuse(*_, **__):
        next(calls)
        raise cupy.cuda.runtime.CUDARuntimeError(2)

    with monkeypatch.context() as patch:
        patch.setattr({"launched": launched, "kernels": kernels}[module], name, refuse)
        with pytest.raises(DeviceFailed):
            cache.insert(keys, later)
    assert next(calls) > 0
    assert cache.find(keys).to_pylist() == values
    assert cache.insert(keys, later).counts()["updated"] == 500
    assert cache.find(keys).to_pylist() == later


@pytest.mark.parametrize("way", ["find", "insert"])
@pytest.mark.parametrize("other", [64, 5])
def test_while_many_keys_are_copied_others_are_served(cache, monkeypatch, way, other):
    """What they store meanwhile may have another length than all values so far had."""
    for module in (mapped, table, launched):
        monkeypatch.setattr(module, "ALONE_NBYTES", 1000)
    monkeypatch.setattr(mapped, "WAKING_NBYTES", 100)
    keys, values = column(fixed(np.arange(301))), some(301, 64, 64)
    cache.insert(keys, values)
    last = keys[300].as_py()
    plain, copying, go_on = mapped.copy_together, threading.Event(), threading.Event()

    def copy(*copied):
        copying.set()
        assert go_on.wait(5)
        plain(*copied)

    monkeypatch.setattr(mapped, "copy_together", copy)
    with ThreadPoolExecutor(1) as pool:
        newer = values[::-1]
        asked = pool.submit(cache.find if way == "find" else lambda k: cache.insert(k, newer), keys)
        assert copying.wait(5)
        assert cache.get(last) == values[300]
        if way == "find":
            cache.set(last, b"v" * other)
        go_on.set()
        answer = asked.result()
    if way == "find":
        assert answer.to_pylist() == [*values[:300], b"v" * other]
    else:
        assert answer.ok and cache.find(keys).to_pylist() == newer


@pytest.mark.parametrize("n", [20, 800, 4000])
def test_records_are_read_where_there_is_room_for_them(cache, monkeypatch, n):
    """A few across the link, more on the device, and those that its buffers do not hold across the link again."""
    room, sent = cache._table.pipeline.records.memory, []
    plain = launched.copy_async
    monkeypatch.setattr(launched, "copy_async", lambda *a, **k: (sent.append(a[2]), plain(*a, **k)))
    keys, values = column(fixed(np.arange(n), 23)), some(n, 0, 900)
    nbytes = sum(len(value) for value in values)
    assert cache.insert(keys, values).ok and cache.find(keys).to_pylist() == values
    assert bool(sent) == (launched.NEAR_NBYTES < nbytes < room.size) == (n == 800)
    assert cache.insert(keys[::-1], values[::-1]).counts()["updated"] == n
    assert cache.find(keys).to_pylist() == values


@pytest.mark.parametrize("way", ["find", "insert", "contains", "erase"])
def test_what_a_stream_that_never_ends_may_use_is_kept(way):
    with Predis("64MiB", backend="cuda", doorbell=False, timeout_s=0.5, tuning=Tuning(small_nbytes=2**26)) as cache:  # fmt: skip
        keys, values = column(fixed(np.arange(500))), some(500, 300, 300)
        call = {"insert": lambda: cache.insert(keys, values)}.get(
            way, lambda: getattr(cache, way)(keys)
        )
        cache.insert(keys, values), call(), cache.insert(keys, values)
        health = cache._table.health
        with stuck(cache._table._stream):
            with pytest.raises(DeviceTimeout):
                call()
            assert health.kept
        assert cache.find(keys).null_count in (0, 500) and not health.kept
