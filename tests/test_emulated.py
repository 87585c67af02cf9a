"""The kernels' logic on a machine without a GPU: the GPU tests again, their CUDA sources compiled for the CPU.

What this can't show is left to a GPU: races between blocks, memory ordering, sizes beyond a few million bytes, speed.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SEARCHED = os.pathsep.join(filter(None, (str(HERE / "emulated"), os.environ.get("PYTHONPATH"))))
# Each in a process of its own, the longest first.
MODULES = (
    ("tiers",),
    ("conformance", "client", "hot", "device_table", "modules", "pinned", "staging"),
    ("checksums", "ladder", "kernel_samples", "counted", "bulk", "state_machine"),
    ("pipeline", "pipeline_failures", "pipeline_rates", "capacity", "column_kernels", "memory"),
    (
        "announced",
        "tier_room",
        "doorbell",
        "doorbell_block",
        "posted",
        "launched_verbs",
        "small_calls",
        "long_values",
        "tuning",
    ),
)
# Whose GPU tests are of what only a device has: its memory, limits, clocks and counters, callers side by side, a training loop.
NOT_PLAYED = {"concurrent", "limits", "occupancy", "profiler", "training"}
TOO_MUCH = (
    *("million", "many_records", "64_mib", "callers_stream", "get_through", "are_timed"),
    "dlpack",  # nobody to hand anything to
    "several_processes",  # eight of them, and no device that takes turns between them
    # Long ones, whose like are played: other seeds and kinds, more turns.
    *("0-fixed", "1-fixed", "1-variable", "zipf_load", "written_over_again"),
)  # for one thread at a time
LATER = (  # what goes through one stream only is played in the other way
    *("never", "closing", "differ_much", "stays_below", "large_value", "compaction_keeps"),
    *("give_their_room", "longest_keys", "log_goes_on", "every_number_of_rows"),
)


needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="needs g++ to compile the kernels for the CPU"
)
needs_x86 = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="fibers are written for x86-64"
)


def test_every_module_with_gpu_tests_is_played_or_known_not_to_be():
    played = {name for modules in MODULES for name in modules}
    marked = re.compile("mark[.]gpu|BACKENDS")
    found = {
        path.stem.removeprefix("test_")
        for path in HERE.glob("test_*.py")
        if path != Path(__file__) and marked.search(path.read_text())
    }
    assert found - played == NOT_PLAYED


@needs_compiler
@needs_x86
@pytest.mark.parametrize("modules", MODULES, ids="-".join)
def test_the_gpu_tests_pass_on_the_cpu(modules, tmp_path):
    said = run_emulated(modules, tmp_path)
    passed = re.search(r"(\d+) passed", said)
    assert passed and int(passed[1]) > 15 and "skipped" not in said, said[-2000:]


@needs_compiler
@needs_x86
@pytest.mark.parametrize(
    "modules",
    [
        ("pipeline", "pipeline_failures", "staging"),
        ("device_table", "column_kernels", "long_values"),
        ("doorbell", "doorbell_block", "posted", "small_calls"),
    ],
    ids="-".join,
)
def test_host_code_keeps_in_order_what_the_device_does_later(modules, tmp_path):
    """The same with streams that fall behind, each in its own time: for what goes through several of them."""
    run_emulated(modules, tmp_path, LATER, {"PREDIS_EMULATED_ASYNC": "1"})


def run_emulated(modules, folder, without=(), environment=None):
    """What pytest says of the GPU tests of these modules, none of which fails."""
    chosen = " and ".join(f"not {name}" for name in (*TOO_MUCH, *without))
    paths = [str(HERE / f"test_{module}.py") for module in modules]
    options = ["-q", "-x", "-p", "no:cacheprovider", "-m", "gpu", "-k", chosen]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *paths],
        cwd=HERE.parent,
        env={
            **os.environ,
            "PREDIS_EMULATED": "1",
            "PYTHONPATH": SEARCHED,
            "HYPOTHESIS_STORAGE_DIRECTORY": str(folder),
            **(environment or {}),
        },
        capture_output=True,
        text=True,
    )
    said = result.stdout + result.stderr
    assert result.returncode == 0, said[-5000:]
    return said


@needs_compiler
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
