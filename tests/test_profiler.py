"""Hardware counters from what ncu prints, or why there are none; and calls timed on a device."""

import textwrap
import time

import numpy as np
import pytest

from predis_lab.gpu import counters
from predis_lab.gpu.counters import CountersError, collect, counters_table, parse, why_unavailable

STALL = "smsp__average_warps_issue_stalled_{}_per_issue_active.ratio"
UNITS = {
    "dram__bytes_read.sum": "byte",
    "dram__bytes_write.sum": "Mbyte",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": "%",
    "gpu__time_duration.sum": "ns",
    "l1tex__t_requests_pipe_lsu_mem_global_op_ld.sum": "request",
    "l1tex__t_requests_pipe_lsu_mem_global_op_st.sum": "request",
    "l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum": "sector",
    "l1tex__t_sectors_pipe_lsu_mem_global_op_st.sum": "sector",
    "l1tex__t_sectors_pipe_lsu_mem_local_op_ld.sum": "sector",
    "l1tex__t_sectors_pipe_lsu_mem_local_op_st.sum": "sector",
    "launch__registers_per_thread": "register/thread",
    "lts__t_requests_srcunit_tex.sum": "request",
    "lts__t_sector_hit_rate.pct": "%",
    "lts__t_sectors_op_read.sum": "sector",
    "lts__t_sectors_op_write.sum": "sector",
    "lts__t_sectors_srcunit_tex.sum": "sector",
    "lts__throughput.avg.pct_of_peak_sustained_elapsed": "%",
    "sm__maximum_warps_per_active_cycle_pct": "%",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "%",
    STALL.format("barrier"): "inst",
    STALL.format("long_scoreboard"): "inst",
    STALL.format("wait"): "inst",
    "smsp__thread_inst_executed_per_inst_executed.ratio": "",
}
FIND = [
    "10,737,418,240", "268.435456", "81.25", "4,096,000",
    "1,000", "0", "16,000", "0", "0", "0", "40",
    "2,000", "12.50", "335,544,320", "8,388,608", "7,000", "45.10", "75", "70.31", "0", "24.75", "1.99", "28.50",
]  # fmt: skip
INSERT = [
    "4,096", "n/a", "0.02", "3,008",
    "4", "2", "16", "8", "10", "6", "64",
    "8", "nan", "128", "16", "28", "0.11", "50", "49.99", "3.5", "3.25", "n/a", "32",
]  # fmt: skip


def line(*entries):
    return ",".join(f'"{entry}"' for entry in entries)


def printed(units=UNITS, launches=(("find_dense", FIND), ("insert(const u8 *, u64)", INSERT))):
    """What ncu --csv --page raw prints, for launches as (name, values)."""
    first = ("ID", "Process ID", "Process Name", "Host Name", "Kernel Name", "Context", "Stream", "Block Size", "Grid Size",
             "Device", "CC")  # fmt: skip
    lines = [
        "==PROF== Connected to process 4711 (/usr/bin/python3.11)",
        '==PROF== Profiling "find_dense" - 0: 0%....50%....100% - 9 passes',
        '"what the script itself prints"',
        '==PROF== Profiling "insert" - 1: 0%....50%....100% - 9 passes',
        "==PROF== Disconnected from process 4711",
        line(*first, *units),
        line(*[""] * len(first), *units.values()),
    ]
    for number, (name, values) in enumerate(launches):
        where = (
            number, 4711, "python3.11", "127.0.0.1", name, 1, 13, "(128, 1, 1)", "(65536, 1, 1)" if number else "(1000, 2, 1)",
            0, "9.0",
        )  # fmt: skip
        lines.append(line(*where, *values))
    return "\n".join([*lines, "==WARNING== something at the end", ""])


# ---- What ncu prints


def test_launches_are_read_in_base_units():
    find, insert = parse(printed())
    assert (find.kernel, find.blocks, find.threads) == ("find_dense", 2000, 128)
    assert find.seconds == pytest.approx(4.096e-3)
    assert find.registers == 40
    assert find.theoretical_occupancy == pytest.approx(0.75)
    assert find.achieved_occupancy == pytest.approx(0.7031)
    assert find.dram_share == pytest.approx(0.8125)
    assert find.dram_read_nbytes == 10 * 2**30
    assert find.dram_written_nbytes == 2**28
    assert find.l2_share == pytest.approx(0.451)
    assert find.l2_hit_ratio == pytest.approx(0.125)
    assert find.l2_read_nbytes == 10 * 2**30
    assert find.l2_written_nbytes == 2**28
    assert find.l2_sectors_per_request == 3.5
    assert find.load_sectors_per_request == 16
    assert find.threads_per_instruction == 28.5
    assert find.spilled_nbytes == 0
    assert find.stalls == {"barrier": 0, "long_scoreboard": 24.75, "wait": 1.99}
    assert find.main_stall == "long_scoreboard"
    assert (insert.kernel, insert.blocks) == ("insert", 65536)
    assert insert.spilled_nbytes == 16 * 32
    assert insert.store_sectors_per_request == 4
    assert insert.main_stall == "barrier"


def test_what_is_not_told_is_none():
    find, insert = parse(printed())
    assert find.store_sectors_per_request is None  # nothing was stored
    assert insert.dram_written_nbytes is None and insert.l2_hit_ratio is None
    assert "wait" not in insert.stalls
    (bare,) = parse(printed({"gpu__time_duration.sum": "usecond"}, [("find", ["1,234.5"])]))
    assert bare.seconds == pytest.approx(1.2345e-3)
    assert bare.registers is None and bare.spilled_nbytes is None
    assert bare.stalls == {} and bare.main_stall is None


def test_a_metric_under_its_other_name():
    units = {"dram__bytes_op_read.sum": "Kbyte"}
    (found,) = parse(printed(units, [("find", ["2"])]))
    assert found.dram_read_nbytes == 2000


def test_nothing_is_read_from_nothing():
    assert parse("") == []
    assert parse("==WARNING== No kernels were profiled.\n") == []
    assert parse(printed(launches=[])) == []
    assert len(parse(printed() + '"3","4711","cut o')) == 2


def test_a_table_of_text():
    rows = counters_table(parse(printed()))
    assert [len(row) for row in rows] == [len(counters.COLUMNS)] * 2
    find = dict(zip(counters.COLUMNS, rows[0], strict=True))
    assert find["time"] == "4,096.0 µs"
    assert find["occupancy, theory"] == "75%"
    assert find["DRAM bytes"] == "11,005.9 MB"
    assert find["per store"] == ""
    assert find["waits mostly for"] == "long scoreboard"


# ---- Running ncu


@pytest.fixture
def ncu(tmp_path, monkeypatch):
    """Puts a shell script of these lines on the PATH as ncu; what it is called with is in `arguments`."""
    monkeypatch.setattr(counters, "_PLACES", ())
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def install(script):
        file = tmp_path / "ncu"
        file.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/arguments\n{textwrap.dedent(script)}'
        )
        file.chmod(0o755)
        return tmp_path / "arguments"

    (tmp_path / "printed").write_text(printed())
    return install


def test_a_process_is_profiled(ncu, tmp_path):
    arguments = ncu(f"cat {tmp_path}/printed")
    found = collect(["-m", "some.module", "7"], "find|insert", launch_skip=2, launch_count=5)
    assert [one.kernel for one in found] == ["find_dense", "insert"]
    given = arguments.read_text().splitlines()
    assert given[-3:] == ["-m", "some.module", "7"]
    assert given[given.index("--kernel-name") + 1] == "regex:^(find|insert)$"
    assert given[given.index("--launch-skip") + 1] == "2"
    assert given[given.index("--launch-count") + 1] == "5"
    assert set(given[given.index("--metrics") + 1].split(",")) == set(counters.METRICS)
    assert why_unavailable() is None


def test_not_permitted(ncu):
    ncu("""
        echo "==PROF== Connected to process 1 (/usr/bin/python3)"
        echo "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance Counters"
        echo "==WARNING== No kernels were profiled."
    """)
    with pytest.raises(CountersError, match="NVreg_RestrictProfilingToAdminUsers=0"):
        collect(["-c", ""], "find")
    assert "ERR_NVGPUCTRPERM" in why_unavailable()


def test_not_installed(ncu):
    assert "not installed" in why_unavailable()
    with pytest.raises(CountersError, match="not installed"):
        collect(["-c", ""], "find")


def test_found_beside_the_path(ncu, tmp_path, monkeypatch):
    ncu(f"cat {tmp_path}/printed")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(counters, "_PLACES", (str(tmp_path / "*cu"),))
    assert why_unavailable() is None


def test_a_failure_shows_what_ncu_said(ncu):
    ncu("""
        echo "==PROF== Connected to process 1"
        echo "==ERROR== Profiling failed because a driver resource was unavailable."
        echo "==PROF== Disconnected"
        exit 9
    """)
    with pytest.raises(CountersError, match=r"status 9: ==ERROR== Profiling failed because a dr"):
        collect(["-c", ""], "find")
    ncu("echo ModuleNotFoundError: no cupy; exit 1")
    assert why_unavailable() == "ncu failed with status 1: ModuleNotFoundError: no cupy"


def test_a_script_that_fails_gives_no_counters(ncu, tmp_path):
    ncu(f"cat {tmp_path}/printed; exit 3")
    with pytest.raises(CountersError, match="status 3"):
        collect(["-c", ""], "find")


def test_no_such_launch(ncu):
    ncu("echo '==WARNING== No kernels were profiled.'")
    with pytest.raises(CountersError, match="no launch of a kernel named absent"):
        collect(["-c", ""], "absent")


def test_a_process_without_an_end(ncu):
    ncu(
        "sleep 60\necho late"
    )  # the shell waits for it: killing the shell alone would leave the pipe open
    began = time.monotonic()
    with pytest.raises(CountersError, match=r"longer than 0\.3 s"):
        collect(["-c", ""], "find", timeout_s=0.3)
    assert time.monotonic() - began < 10


def test_metrics_that_a_chip_lacks_are_left_out(ncu, tmp_path):
    arguments = ncu(f"""
        for name in dram__bytes_read dram__bytes_op_write dram__bytes_write lts__t_sector_hit_rate; do
            case "$*" in *$name*)
                echo "==ERROR== Failed to find metric regex:^$name\\.(sum|avg)$"
                exit 1
            esac
        done
        cat {tmp_path}/printed
    """)
    assert len(collect(["-c", ""], "find")) == 2
    asked = arguments.read_text()
    assert "dram__bytes_op_read.sum" in asked
    assert "dram__bytes_op_write" not in asked
    assert "lts__t_sector_hit_rate" not in asked


def test_a_metric_that_was_never_asked_for(ncu):
    ncu("echo '==ERROR== Failed to find metric other__metric.sum'; exit 1")
    with pytest.raises(CountersError, match="other__metric"):
        collect(["-c", ""], "find")


# ---- On a device


@pytest.fixture
def copying():
    """A call that moves 2 * nbytes on the device, and nbytes."""
    import cupy

    from predis_lab.gpu import limits

    n = 2**14
    records, places = cupy.zeros(n * 64, cupy.uint8), cupy.asarray(np.arange(n, dtype=np.uint32))
    out = cupy.zeros(n * 64, cupy.uint8)
    return lambda: limits.gather(records, 64, places, out), n * 64


@pytest.mark.gpu
def test_calls_are_timed(copying):
    from predis_lab.gpu.profiler import Profiler

    call, nbytes = copying
    prepared, called = [], []
    profiler = Profiler()
    found = profiler.profile(
        "gather",
        lambda: (call(), called.append(len(prepared))),
        nbytes=2 * nbytes,
        repeats=3,
        prepare=lambda: prepared.append(None),
        kernel=("limits", "gather"),
    )
    assert called == [1, 2, 3, 4]  # once to warm up
    assert len(found.seconds) == 3 and min(found.seconds) > 0
    assert found.bandwidth == 2 * nbytes / found.median_seconds
    assert found.share is None or found.share > 0
    assert 0 < found.occupancy.share <= 1
    assert profiler.profiles == [found]
    assert [len(row) for row in profiler.table()] == [len(profiler.columns)]
    with pytest.raises(ValueError, match="0 repeats"):
        profiler.profile("never", call, nbytes=1, repeats=0)


@pytest.mark.gpu
def test_the_profiler_counts_what_was_predicted():
    from predis_lab.gpu import modules

    reason = why_unavailable()
    if reason:
        pytest.skip(reason)
    code = (
        "import cupy\n"
        "from predis_lab.gpu import limits\n"
        "n = 2**20\n"
        "records, out = cupy.zeros(n * 64, cupy.uint8), cupy.zeros(n * 64, cupy.uint8)\n"
        "limits.gather(records, 64, cupy.arange(n, dtype='u4'), out)\n"
    )
    (found,) = collect(["-c", code], "gather")
    kernel = modules.function("limits", "gather")
    assert found.kernel == "gather" and found.blocks == 2**22 // modules.block_threads()
    assert found.registers >= kernel.num_regs
    assert found.theoretical_occupancy == pytest.approx(
        modules.occupancy_of(kernel).share, abs=0.01
    )
    assert 0 < found.achieved_occupancy <= 1
    assert found.load_sectors_per_request > 0 and found.spilled_nbytes == 0
    assert found.dram_read_nbytes > 2**20 * 64 / 2
