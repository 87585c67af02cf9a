"""What only a GPU can show: readers beside a writer, columns of more than 2^31 bytes, memory that is not there."""

import threading

import numpy as np
import pytest

from predis_lab import Column, InvalidArgument, Predis

try:
    import cupy

    from predis_lab.bench import device_records
    from predis_lab.bench.table_rates import NOW_MS, Answer, erase, expect, insert
    from predis_lab.gpu import kernels
    from predis_lab.gpu.memory import device_bytes
    from predis_lab.gpu.packed import Packed
    from predis_lab.gpu.table import DeviceTable
    from predis_lab.table import Status
except ImportError:  # every test here then skips with this as its reason, see conftest
    cupy = None

pytestmark = pytest.mark.gpu

RECORDS, VERSIONS = 20_000, 60


def telling_values(numbers, version, words):
    """Values that give themselves away: each 32-bit word is the same number times another odd one."""
    first = np.uint32(version << 16) + numbers.astype(np.uint32)
    odd = np.uint32(2) * cupy.arange(words, dtype=np.uint32) + np.uint32(1)
    data = (first[:, None] * odd[None, :]).reshape(-1).view(np.uint8)
    return Column(data, None, 4 * words, len(numbers))


def check_whole(data, numbers, words):
    """That each value is one version's, whole, of its own key."""
    rows = data.get().view(np.uint32).reshape(-1, words)
    assert ((rows[:, 0] & np.uint32(0xFFFF)) == numbers).all(), "the value of another key"
    odd = np.uint32(2) * np.arange(words, dtype=np.uint32) + np.uint32(1)
    assert (rows == rows[:, :1] * odd[None, :]).all(), "parts of two versions"
    return rows[:, 0] >> np.uint32(16)


def found_dense(table, keys, numbers, words):
    answer = Answer(len(numbers), 4 * words)
    answer.find(table, keys)
    assert (answer.validity[: len(numbers) // 32] == 2**32 - 1).all()
    return answer.values


def found_packed(table, keys, numbers, words):
    n = len(numbers)
    packed = Packed.empty(n, 4 * words * n, device_bytes)
    work = cupy.zeros(kernels.WORK_WORDS, np.uint64)
    states = cupy.zeros(n, np.uint64)
    output = kernels.packed_output(n, *packed.arrays, work, states, 1)
    kernels.find(keys, table.index, NOW_MS, output)
    assert packed.total == 4 * words * n
    return packed.data


@pytest.mark.parametrize(("words", "found"), [(16, "dense"), (15, "packed")])
def test_readers_on_other_streams_see_whole_records(words, found):
    """Kernels on another stream, which waits for nothing, read while all records are written again and again."""
    find = {"dense": found_dense, "packed": found_packed}[found]
    numbers = np.arange(RECORDS, dtype=np.uint64)
    keys = device_records.keys(cupy.asarray(numbers))
    table = DeviceTable(VERSIONS * RECORDS * 128 + 2**24)
    expect(insert(table, keys, telling_values(cupy.asarray(numbers), 0, words)), Status.STORED)
    cupy.cuda.get_current_stream().synchronize()
    failures, seen, done = [], set(), threading.Event()

    def read():
        try:
            with cupy.cuda.Stream(non_blocking=True):
                while not done.is_set() or not seen:
                    order = np.random.default_rng(len(seen)).permutation(numbers)
                    asked = device_records.keys(cupy.asarray(order))
                    versions = check_whole(find(table, asked, order, words), order, words)
                    seen.update(versions.tolist())
        except BaseException as failure:  # noqa: BLE001 - a thread must not take its failure along
            failures.append(failure)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for version in range(1, VERSIONS):
            written = telling_values(cupy.asarray(numbers), version, words)
            expect(insert(table, keys, written), Status.UPDATED)
    finally:
        done.set()
        reader.join()
    assert not failures, failures[0]
    assert (check_whole(find(table, keys, numbers, words), numbers, words) == VERSIONS - 1).all()
    table.close()


def test_keys_values_and_log_of_more_than_two_gigabytes():
    n, key_nbytes, value_nbytes = 2**25 + 1000, 64, 80
    free = cupy.cuda.runtime.memGetInfo()[0]
    if free < 40 * 10**9:
        pytest.skip(f"needs 40 GB of device memory, and {free:,} bytes are free")
    assert n * key_nbytes > 2**31 and n * value_nbytes > 2**31
    numbers = cupy.arange(n, dtype=np.uint64)
    keys = device_records.values(numbers * np.uint64(0x9E3779B97F4A7C15), key_nbytes)
    values = device_records.values(numbers, value_nbytes)
    table = DeviceTable(12 * 10**9)
    expect(insert(table, keys, values), Status.STORED)
    assert table.entries == n and table.arena.used > 2**31
    packed = table.find(keys, NOW_MS, new=device_bytes, capacity=n * value_nbytes)
    data, offsets, validity, _ = packed.arrays
    assert offsets.dtype == np.int64 and int(offsets[n]) == n * value_nbytes
    assert (validity[: n // 32] == 2**32 - 1).all()
    assert bool((data.view(np.uint64) == values.data.view(np.uint64)).all())
    starts = cupy.arange(n + 1, dtype=np.int64) * key_nbytes
    wide = Column(keys.data, starts, 0, n)  # the same keys as a packed column: 64-bit offsets in
    assert bool(erase(table, wide).all()) and table.entries == 0
    table.close()


@pytest.mark.quiet
def test_a_capacity_that_the_device_lacks_is_refused():
    free, total = cupy.cuda.runtime.memGetInfo()
    with pytest.raises(InvalidArgument, match="bytes for index and log are not to be had"):
        Predis(2 * total)  # not "auto" for the host either
    assert cupy.cuda.runtime.memGetInfo()[0] > free - 2**30  # what had been taken is given back
    with Predis("64MiB", backend="cuda") as cache:
        cache.set("key", b"value")
        assert cache.get("key") == b"value"
