"""Hardware counters of kernels, by NVIDIA's Nsight Compute (`ncu`), which runs a whole process and watches its launches.

It plays each launch again and again, memory put back in between, until it has read all counters; its own times are no
benchmark. Caches are empty before each time, as `ncu` has it by default. Without CUDA: where there is no `ncu`, or no
permission, `CountersError` says so. Called by notebooks.
"""

from __future__ import annotations

import csv
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

SECTOR = 32  # bytes: what caches and memory move at least

# Reasons for which a warp can't issue its next instruction, in the words of ncu's Warp State section.
STALLS = (
    "barrier", "branch_resolving", "dispatch_stall", "drain", "imc_miss", "lg_throttle", "long_scoreboard",
    "math_pipe_throttle", "membar", "mio_throttle", "no_instruction", "not_selected", "short_scoreboard", "sleeping",
    "tex_throttle", "wait",
)  # fmt: skip
_DURATION = "gpu__time_duration.sum"
_LOCAL = "l1tex__t_sectors_pipe_lsu_mem_local_op_{}.sum"
_GLOBAL = "l1tex__t_{}_pipe_lsu_mem_global_op_{}.sum"
_STALL = "smsp__average_warps_issue_stalled_{}_per_issue_active.ratio"
METRICS = (
    _DURATION,
    "launch__registers_per_thread",
    "sm__maximum_warps_per_active_cycle_pct",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
    "smsp__thread_inst_executed_per_inst_executed.ratio",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "dram__bytes_read.sum",
    "dram__bytes_write.sum",
    "lts__throughput.avg.pct_of_peak_sustained_elapsed",
    "lts__t_sector_hit_rate.pct",
    "lts__t_sectors_op_read.sum",
    "lts__t_sectors_op_write.sum",
    "lts__t_sectors_srcunit_tex.sum",
    "lts__t_requests_srcunit_tex.sum",
    *(_GLOBAL.format(what, way) for what in ("sectors", "requests") for way in ("ld", "st")),
    *(_LOCAL.format(way) for way in ("ld", "st")),
    *(_STALL.format(reason) for reason in STALLS),
)
# What a metric is called on other chips: the name above is not known to sm_120.
RENAMED = {
    "dram__bytes_read.sum": "dram__bytes_op_read.sum",
    "dram__bytes_write.sum": "dram__bytes_op_write.sum",
}
_PLACES = (  # where installers put it, beside the PATH
    "/usr/local/cuda/bin/ncu",
    "/opt/nvidia/nsight-compute/*/ncu",
    "/usr/local/cuda-*/bin/ncu",
)
_SCALES = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_REFUSED_METRIC = re.compile(r"Failed to find metric (?:regex:\^)?(\w+)")
_PROBE = "from predis_lab.gpu import limits; limits.empty()"


class CountersError(RuntimeError):
    """There are no hardware counters to be had; the text says why."""


@dataclass(frozen=True)
class Counters:
    """What one launch did. Shares are of 1; None is what this chip or this ncu does not tell.

    seconds:                    under the profiler, caches empty
    registers:                  per thread
    theoretical_occupancy, achieved_occupancy:  warps, of the most that a multiprocessor holds
    dram_share, l2_share:       throughput, of what memory and second-level cache can do at most
    l2_hit_ratio:               sectors found there, of those asked for
    l2_sectors_per_request, load_sectors_per_request, store_sectors_per_request:  32-byte sectors that one request moves, of
                                the first-level cache to the second, and of a warp to global memory
    threads_per_instruction:    threads that take part in an instruction, of the 32 of a warp
    spilled_nbytes:             read from and written to local memory, by all threads together
    stalls:                     warps that wait per instruction issued, by reason
    """

    kernel: str
    blocks: int
    threads: int  # per block
    seconds: float | None
    registers: float | None
    theoretical_occupancy: float | None
    achieved_occupancy: float | None
    dram_share: float | None
    dram_read_nbytes: float | None
    dram_written_nbytes: float | None
    l2_share: float | None
    l2_hit_ratio: float | None
    l2_read_nbytes: float | None
    l2_written_nbytes: float | None
    l2_sectors_per_request: float | None
    load_sectors_per_request: float | None
    store_sectors_per_request: float | None
    threads_per_instruction: float | None
    spilled_nbytes: float | None
    stalls: dict[str, float]

    @property
    def main_stall(self) -> str | None:
        """The reason for which most warps wait."""
        return max(self.stalls, key=self.stalls.__getitem__, default=None)


def why_unavailable() -> str | None:
    """Why no counters can be read here, or None where they can: a trial on an empty kernel, some seconds."""
    try:
        _profile(["-c", _PROBE], "empty", [_DURATION], 0, 1, timeout_s=120)
    except CountersError as error:
        return str(error)
    return None


def collect(
    arguments: Sequence[str],
    kernels: str,
    *,
    launch_skip: int = 0,
    launch_count: int = 1,
    marked: bool = False,
    timeout_s: float = 300,
) -> list[Counters]:
    """Counters of launches in a process of its own, in the order of the launches.

    >>> collect(["-c", "from predis_lab.gpu import limits; limits.empty()"], "empty")  # doctest: +SKIP

    arguments: what Python is run with. kernels: a regular expression that matches the whole name of a kernel.
    launch_skip, launch_count: of the launches of such kernels. marked: only of those between `cudaProfilerStart` and
    `cudaProfilerStop` in that process.
    raises: CountersError where ncu is missing, not permitted, failed, took longer, or saw no such launch
    """
    metrics = list(METRICS)
    while True:
        try:
            return _profile(
                arguments, kernels, metrics, launch_skip, launch_count, timeout_s, marked
            )
        except _MetricError as refusal:
            left = [_instead(name, refusal.name) for name in metrics]
            if left == metrics:
                raise
            metrics = [name for name in left if name]


class _MetricError(CountersError):
    """This chip has no metric of that name."""

    def __init__(self, name: str):
        super().__init__(f"ncu knows no metric {name} of this chip")
        self.name = name


def _instead(name: str, refused: str) -> str:
    """What to ask for where a metric is refused: the same under its other name, or nothing at all."""
    return RENAMED.get(name, "") if name.partition(".")[0] == refused else name


def _profile(
    arguments: Sequence[str],
    kernels: str,
    metrics: Sequence[str],
    launch_skip: int,
    launch_count: int,
    timeout_s: float,
    marked: bool = False,
) -> list[Counters]:
    command = [
        _ncu(), "--csv", "--page", "raw", "--print-units", "base", "--clock-control", "none",
        "--profile-from-start", "off" if marked else "on", "--kernel-name", f"regex:^({kernels})$", "--launch-skip", str(launch_skip),
        "--launch-count", str(launch_count), "--metrics", ",".join(metrics), sys.executable, *arguments,
    ]  # fmt: skip
    status, said = _run(command, timeout_s)
    if "ERR_NVGPUCTRPERM" in said:
        raise CountersError(
            "ncu may not read this GPU's counters (ERR_NVGPUCTRPERM): the driver leaves them to administrators unless it is "
            "loaded with NVreg_RestrictProfilingToAdminUsers=0; a container needs CAP_SYS_ADMIN besides"
        )
    if refused := _REFUSED_METRIC.search(said):
        raise _MetricError(refused[1])
    found = parse(said)
    if status or not found:
        raise CountersError(_failure(status, said, kernels))
    return found


def _ncu() -> str:
    found = shutil.which("ncu")
    for pattern in _PLACES:
        # The newest by name, for lack of better.
        found = found or max(map(str, Path("/").glob(pattern.lstrip("/"))), default=None)
    if not found:
        raise CountersError(
            "ncu (NVIDIA Nsight Compute) is not installed: it is neither on the PATH nor where CUDA's installers put it"
        )
    return found


def _run(command: Sequence[str], timeout_s: float) -> tuple[int, str]:
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            # ncu is a script that starts a profiler that starts Python: all of them hold the pipe.
            os.killpg(process.pid, signal.SIGKILL)
            raise CountersError(f"ncu took longer than {timeout_s:g} s") from None
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, said


def _failure(status: int, said: str, kernels: str) -> str:
    if not status:
        return f"ncu saw no launch of a kernel named {kernels}"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("==ERROR==")]
    return f"ncu failed with status {status}: {' '.join((errors or lines)[-3:])}"


def parse(said: str) -> list[Counters]:
    """Launches in what `ncu --csv --page raw` printed, whatever else was printed before, between and after.

    A header, a line of units, then one line per launch; thousands are set off by commas.
    """
    lines = iter(said.splitlines())
    header = next((line for line in lines if line.startswith('"ID",')), None)
    if header is None:
        return []
    names, *rows = csv.reader([header, *(line for line in lines if line.startswith('"'))])
    rows = [row for row in rows if len(row) == len(names)]
    units = dict(zip(names, rows[0], strict=True)) if rows and not rows[0][0] else {}
    return [
        _counters(dict(zip(names, row, strict=True)), units) for row in rows if row[0].isdecimal()
    ]


def _counters(row: dict[str, str], units: dict[str, str]) -> Counters:
    def value(name: str) -> float | None:
        here = name if name in row else RENAMED.get(name, name)
        return _number(row.get(here, ""), units.get(here, ""))

    def over(name: str, other: str) -> float | None:
        dividend, divisor = value(name), value(other)
        return dividend / divisor if dividend is not None and divisor else None

    def sectors(*names: str) -> float | None:
        found = [value(name) for name in names]
        known = [number for number in found if number is not None]
        return SECTOR * sum(known) if len(known) == len(names) else None

    stalls = {reason: value(_STALL.format(reason)) for reason in STALLS}
    return Counters(
        kernel=row["Kernel Name"].partition("(")[0],
        blocks=_product(row["Grid Size"]),
        threads=_product(row["Block Size"]),
        seconds=value(_DURATION),
        registers=value("launch__registers_per_thread"),
        theoretical_occupancy=value("sm__maximum_warps_per_active_cycle_pct"),
        achieved_occupancy=value("sm__warps_active.avg.pct_of_peak_sustained_active"),
        dram_share=value("dram__throughput.avg.pct_of_peak_sustained_elapsed"),
        dram_read_nbytes=value("dram__bytes_read.sum"),
        dram_written_nbytes=value("dram__bytes_write.sum"),
        l2_share=value("lts__throughput.avg.pct_of_peak_sustained_elapsed"),
        l2_hit_ratio=value("lts__t_sector_hit_rate.pct"),
        l2_read_nbytes=sectors("lts__t_sectors_op_read.sum"),
        l2_written_nbytes=sectors("lts__t_sectors_op_write.sum"),
        l2_sectors_per_request=over(
            "lts__t_sectors_srcunit_tex.sum", "lts__t_requests_srcunit_tex.sum"
        ),
        load_sectors_per_request=over(
            _GLOBAL.format("sectors", "ld"), _GLOBAL.format("requests", "ld")
        ),
        store_sectors_per_request=over(
            _GLOBAL.format("sectors", "st"), _GLOBAL.format("requests", "st")
        ),
        threads_per_instruction=value("smsp__thread_inst_executed_per_inst_executed.ratio"),
        spilled_nbytes=sectors(_LOCAL.format("ld"), _LOCAL.format("st")),
        stalls={reason: number for reason, number in stalls.items() if number is not None},
    )


def _number(text: str, unit: str) -> float | None:
    """In base units: shares of 1, seconds, bytes; None for what is no number, such as n/a and nan."""
    try:
        number = float(text.replace(",", ""))
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    if unit == "%":
        return number / 100
    # Times and bytes may come with a prefix, in spite of --print-units: "nsecond", "us", "Kbyte".
    scaled = re.fullmatch(r"([numKMGT]?)(?:s|second|byte)", unit)
    return number * (_SCALES[scaled[1]] if scaled else 1)


def _product(size: str) -> int:
    """Of the numbers in "(8, 1, 1)"."""
    product = 1
    for number in re.findall(r"\d+", size):
        product *= int(number)
    return product


COLUMNS = (
    "kernel", "blocks", "time", "registers", "spilled", "occupancy, theory", "occupancy, achieved", "DRAM", "DRAM bytes",
    "L2", "L2 hits", "sectors per load", "per store", "threads per instruction", "waits mostly for",
)  # fmt: skip


def counters_table(counters: Iterable[Counters]) -> list[list[str]]:
    """Rows of text under COLUMNS, one per launch; empty where a counter is not known."""

    def shown(value: float | None, layout: str, scale: float = 1) -> str:
        return "" if value is None else layout.format(value * scale)

    rows = []
    for one in counters:
        moved = (one.dram_read_nbytes, one.dram_written_nbytes)
        known = [nbytes for nbytes in moved if nbytes is not None]
        rows.append(
            [
                one.kernel,
                f"{one.blocks:,}",
                shown(one.seconds, "{:,.1f} µs", 1e6),
                shown(one.registers, "{:.0f}"),
                shown(one.spilled_nbytes, "{:,.0f} B"),
                shown(one.theoretical_occupancy, "{:.0%}"),
                shown(one.achieved_occupancy, "{:.0%}"),
                shown(one.dram_share, "{:.0%}"),
                shown(sum(known) if known else None, "{:,.1f} MB", 1e-6),
                shown(one.l2_share, "{:.0%}"),
                shown(one.l2_hit_ratio, "{:.0%}"),
                shown(one.load_sectors_per_request, "{:.1f}"),
                shown(one.store_sectors_per_request, "{:.1f}"),
                shown(one.threads_per_instruction, "{:.1f}"),
                (one.main_stall or "").replace("_", " "),
            ]
        )
    return rows
