"""Pinned blocks that are used again, and on which NUMA node they lie."""

import numpy as np
import pytest

try:
    import cupy

    from predis_lab.gpu import device, pinned
except ImportError:  # every test here then skips with this as its reason, see conftest
    cupy = None

pytestmark = pytest.mark.gpu

MIB = 2**20


def test_blocks_are_used_again():
    pool = pinned.Pool(kept_nbytes=10 * MIB)
    first = pool.take(3 * MIB)
    where = first.ptr
    pool.give_back(first)
    assert pool.free_nbytes == 3 * MIB and pool.used_nbytes == 0
    again = pool.take(3 * MIB - 5)
    assert again.ptr == where and pool.free_nbytes == 0 and pool.used_nbytes == 3 * MIB
    blocks = [again, *(pool.take(4 * MIB) for _ in range(4))]
    for block in blocks:
        pool.give_back(block)
    assert pool.free_nbytes <= 10 * MIB and pool.used_nbytes == 0
    pool.trim()
    assert pool.free_nbytes == 0


def test_sizes_fit_again_and_waste_little():
    for nbytes in (MIB, MIB + 1, 5 * MIB + 3, 640_000_000):
        size = pinned._size_class(nbytes)
        assert nbytes <= size <= 1.25 * nbytes and pinned._size_class(size) == size


def test_a_pinned_array_gives_its_block_back():
    before = pinned.pool.used_nbytes
    array = pinned.pinned(2 * MIB, np.uint8)
    view = array[100:]
    assert pinned.pool.used_nbytes == before + 2 * MIB
    del array
    assert pinned.pool.used_nbytes == before + 2 * MIB
    del view
    assert pinned.pool.used_nbytes == before


# ---- NUMA


@pytest.mark.parametrize(
    ("nodes", "near", "expected"),
    [(1, "0", set()), (2, "1", {2, 3, 6}), (2, "-1", set()), (2, "", set()), (2, None, set())],
)
def test_memory_lies_beside_the_device_where_there_is_a_choice(
    tmp_path, monkeypatch, nodes, near, expected
):
    bus_id = cupy.cuda.runtime.deviceGetPCIBusId(cupy.cuda.runtime.getDevice()).lower()
    for node in range(nodes):
        folder = tmp_path / f"devices/system/node/node{node}"
        folder.mkdir(parents=True)
        (folder / "cpulist").write_text("2-3,6\n" if node else "0-1,4-5\n")
    if near is not None:
        (tmp_path / "bus/pci/devices" / bus_id).mkdir(parents=True)
        (tmp_path / "bus/pci/devices" / bus_id / "numa_node").write_text(near)
    monkeypatch.setattr(device, "_SYSTEM", tmp_path)
    device.nearby_cores.cache_clear()
    try:
        assert device.nearby_cores() == expected
        with pinned.near_device():
            pass
    finally:
        device.nearby_cores.cache_clear()
