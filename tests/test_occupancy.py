"""The occupancy calculator, against NVIDIA's known answers and against what must always hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predis_lab.gpu.occupancy import MULTIPROCESSORS, Multiprocessor, occupancy

KIB = 1024

# Architecture, registers, shared bytes, threads -> blocks, share, what limits: as the CUDA Occupancy Calculator says.
KNOWN = [
    (90, 32, 0, 128, 16, 1.0, ("threads", "registers")),
    (90, 33, 0, 128, 12, 0.75, ("registers",)),
    (90, 40, 0, 128, 12, 0.75, ("registers",)),
    (90, 64, 0, 128, 8, 0.5, ("registers",)),
    (90, 255, 0, 128, 2, 0.125, ("registers",)),
    (90, 168, 0, 96, 4, 0.1875, ("registers",)),
    (90, 32, 0, 32, 32, 0.5, ("blocks",)),
    (90, 64, 0, 1024, 1, 0.5, ("registers",)),
    (90, 65, 0, 1024, 0, 0.0, ("registers",)),
    (90, 16, 48 * KIB, 256, 4, 0.5, ("shared memory",)),
    (90, 16, 227 * KIB, 1024, 1, 0.5, ("shared memory",)),
    (90, 16, 227 * KIB + 1, 1024, 0, 0.0, ("shared memory",)),
    (80, 80, 0, 256, 3, 0.375, ("registers",)),
    (80, 16, 48 * KIB, 256, 3, 0.375, ("shared memory",)),
    (75, 64, 0, 128, 8, 1.0, ("threads", "registers")),
    (75, 32, 0, 32, 16, 0.5, ("blocks",)),
    (75, 32, 32 * KIB, 256, 2, 0.5, ("shared memory",)),
    (75, 32, 1, 64, 16, 1.0, ("threads", "blocks")),
    (86, 40, 0, 128, 12, 1.0, ("threads", "registers")),
    (86, 16, 0, 64, 16, 2 / 3, ("blocks",)),
    (89, 16, 0, 64, 24, 1.0, ("threads", "blocks")),
    (120, 48, 24 * KIB, 128, 4, 1 / 3, ("shared memory",)),
]


@pytest.mark.parametrize(
    ("arch", "registers", "shared", "threads", "blocks", "share", "limits"), KNOWN
)
def test_known_answers(arch, registers, shared, threads, blocks, share, limits):
    found = occupancy(MULTIPROCESSORS[arch], registers, shared, threads)
    assert (found.blocks, found.share, found.limited_by) == (blocks, pytest.approx(share), limits)
    assert found.warps == blocks * -(-threads // 32)


def test_blocks_that_no_multiprocessor_takes():
    for threads in (0, -1, 1025):
        with pytest.raises(ValueError, match="threads"):
            occupancy(MULTIPROCESSORS[90], 32, 0, threads)
    assert occupancy(MULTIPROCESSORS[90], 256, 0, 32).blocks == 0


kernels = {
    "multiprocessor": st.sampled_from(list(MULTIPROCESSORS.values())),
    "registers": st.integers(1, 255),
    "shared": st.integers(0, 228 * KIB),
    "threads": st.integers(1, 1024),
}


@given(**kernels)
def test_what_resides_fits(multiprocessor, registers, shared, threads):
    found = occupancy(multiprocessor, registers, shared, threads)
    assert found.blocks * threads <= multiprocessor.max_threads
    assert found.blocks <= multiprocessor.max_blocks
    assert found.warps * 32 * registers <= multiprocessor.registers
    assert found.blocks * (shared + multiprocessor.reserved_shared_nbytes) <= (
        multiprocessor.shared_nbytes
    )
    assert 0 <= found.share <= 1
    assert found.limited_by


@given(**kernels, more=st.integers(0, 64 * KIB))
def test_who_takes_more_resides_less(multiprocessor, registers, shared, threads, more):
    found = occupancy(multiprocessor, registers, shared, threads)
    greedier = occupancy(multiprocessor, registers + more % 200, shared, threads)
    larger = occupancy(multiprocessor, registers, shared + more, threads)
    assert greedier.blocks <= found.blocks
    assert larger.blocks <= found.blocks


def test_a_device_is_read_from_its_properties():
    h100 = {
        "major": 9,
        "minor": 0,
        "warpSize": 32,
        "maxThreadsPerMultiProcessor": 2048,
        "maxBlocksPerMultiProcessor": 32,
        "regsPerMultiprocessor": 65536,
        "sharedMemPerMultiprocessor": 233472,
        "sharedMemPerBlockOptin": 232448,
        "reservedSharedMemPerBlock": 1024,
    }
    assert Multiprocessor.from_device(h100) == MULTIPROCESSORS[90]


@pytest.mark.gpu
def test_the_table_is_right_about_this_device():
    from predis_lab.gpu import modules
    from predis_lab.gpu.device import Device

    arch = Device.current().arch
    assert modules.multiprocessor() == MULTIPROCESSORS.get(arch, modules.multiprocessor())
