"""The kernels' logic on a machine without a GPU: the GPU tests again, their CUDA sources compiled for the CPU.

What this can't show is left to a GPU: races between blocks, memory ordering, sizes beyond a few million bytes, speed.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SEARCHED = os.pathsep.join(filter(None, (str(HERE / "emulated"), os.environ.get("PYTHONPATH"))))
# In two processes side by side, of about the same length.
MODULES = (
    (
        "test_conformance",
        "test_client",
        "test_hot",
        "test_device_table",
        "test_checksums",
        "test_ladder",
        "test_modules",
        "test_kernel_samples",
        "test_counted",
        "test_pipeline",
        "test_pipeline_failures",
        "test_pinned",
        "test_staging",
        "test_pipeline_rates",
        "test_bulk",
        "test_state_machine",
    ),
    (
        "test_announced",
        "test_tiers",
        "test_tier_room",
        "test_capacity",
        "test_memory",
    ),
)
TOO_MUCH = (
    *("million", "many_records", "64_mib", "callers_stream", "get_through", "are_timed"),
    "dlpack",  # nobody to hand anything to
)  # for one thread at a time


@pytest.mark.skipif(
    shutil.which("g++") is None, reason="needs g++ to compile the kernels for the CPU"
)
@pytest.mark.skipif(platform.machine() != "x86_64", reason="fibers are written for x86-64")
def test_the_gpu_tests_pass_on_the_cpu(tmp_path):
    with ThreadPoolExecutor(len(MODULES)) as pool:
        results = list(pool.map(lambda half: run_emulated(half, tmp_path), MODULES))
    for result in results:
        said = result.stdout + result.stderr
        assert result.returncode == 0, said[-5000:]
        passed = re.search(r"(\d+) passed", said)
        assert passed and int(passed[1]) > 50 and "skipped" not in said, said[-2000:]


@pytest.mark.skipif(
    shutil.which("g++") is None, reason="needs g++ to compile the kernels for the CPU"
)
@pytest.mark.skipif(platform.machine() != "x86_64", reason="fibers are written for x86-64")
def test_host_code_keeps_in_order_what_the_device_does_later(tmp_path):
    """The same with streams that fall behind, each in its own time: for what goes through several of them."""
    later = {"PREDIS_EMULATED_ASYNC": "1"}
    halves = ("test_pipeline", "test_pipeline_failures", "test_staging"), ("test_device_table",)
    with ThreadPoolExecutor(len(halves)) as pool:
        without = ("never", "closing")
        run = partial(run_emulated, folder=tmp_path, without=without, environment=later)
        results = list(pool.map(run, halves))
    for result in results:
        assert result.returncode == 0, (result.stdout + result.stderr)[-5000:]


def run_emulated(modules, folder, without=(), environment=None):
    chosen = " and ".join(f"not {name}" for name in (*TOO_MUCH, *without))
    paths = [str(HERE / f"{module}.py") for module in modules]
    options = ["-q", "-x", "-p", "no:cacheprovider", "-m", "gpu", "-k", chosen]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, *paths],
        cwd=HERE.parent,
        env={
            **os.environ,
            "PYTHONPATH": SEARCHED,
            "HYPOTHESIS_STORAGE_DIRECTORY": str(folder),
            **(environment or {}),
        },
        capture_output=True,
        text=True,
    )


@pytest.mark.skipif(
    shutil.which("g++") is None, reason="needs g++ to compile the kernels for the CPU"
)
@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("if (threadIdx.x < 16) __syncwarp();", "a lane of the mask has left"),
        ("if (threadIdx.x < 16) __syncthreads(); else __syncwarp();", "wait for one another"),
        ("if (threadIdx.x % 2) __syncwarp(); else __ballot_sync(~0u, 1);", "different operations"),
        ("__ballot_sync(1u, 1);", "not in its own mask"),
        ("__ldcg((const uint4*)(out + 8));", "misaligned"),
    ],
)
def test_what_a_gpu_leaves_undefined_is_refused(body, complaint):
    """The emulation is strict where it matters: each of these kernels ends the process that runs it."""
    code = (
        "import cupy\n"
        f"code = 'extern \"C\" __global__ void k(unsigned char* out) {{ {body} }}'\n"
        "out = cupy.zeros(64, cupy.uint8)\n"
        "cupy.RawModule(code=code, options=(), backend='nvrtc').get_function('k')((1,), (32,), (out.data.ptr,))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": SEARCHED},
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0 and complaint in result.stderr, result.stderr
