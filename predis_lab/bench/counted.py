"""One launch of each kernel for NVIDIA's profiler to watch, and what its counters say. For notebooks 01 and 02.

`count` starts this file as a process of its own under `ncu`: python -m predis_lab.bench.counted --records 16777216 ...
It marks the part of the process in which each case is launched once, so that their order names them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..gpu.counters import Counters, CountersError, collect
from .results import Run

KEY_NBYTES, VALUE_NBYTES = 16, 64
# Case -> the kernel that answers it, and what to call it; launched in this order.
CASES = {
    "hits": ("find_dense", "find, all there"),
    "misses": ("find_dense", "find, none there"),
    "mixed": ("find_dense", "find, every other there"),
    "real": ("find", "find, real records of any length"),
    "erase": ("erase", "erase"),
    "write": ("write_dense", "insert, records written"),
    "insert": ("publish", "insert, new keys published"),
    "write_again": ("write_dense", "the same once more"),
    "update": ("publish", "insert over existing keys, published"),
}
LABELS = {case: label for case, (_, label) in CASES.items()}


def count(records: int, batch: int, *, timeout_s: float = 600) -> dict[str, Counters]:
    """The counters of each case, batch keys in one launch.

    raises: CountersError where there are none to be had
    """
    options = ["--records", str(records), "--batch", str(batch)]
    kernels = "|".join(sorted({kernel for kernel, _ in CASES.values()}))
    found = collect(
        ["-m", "predis_lab.bench.counted", *options],
        kernels,
        launch_count=len(CASES),
        marked=True,
        timeout_s=timeout_s,
    )
    return dict(zip(CASES, found, strict=True))


def count_into(run: Run, on_gpu: bool, records: int, batch: int) -> str | None:
    """Adds the counters of every case to the run; why there are none, or None where all went well."""
    if not on_gpu:
        return "there is no GPU here"
    try:
        record(run, count(records, batch), batch)
    except CountersError as error:
        return str(error)
    return None


def by_hand(case: str, key_nbytes: int = KEY_NBYTES, value_nbytes: int = VALUE_NBYTES) -> float:
    """Bytes per key that must be read and written: as the kernels' headers count them, in one bucket.

    >>> by_hand("hits"), by_hand("misses")
    (244.125, 148.125)
    """
    k, v, header, bucket, slot = key_nbytes, value_nbytes, 16, 64, 8
    answer = v + 4 + 1 / 8  # value, offset and a bit
    hit, miss = k + bucket + header + k + v + answer, k + bucket + answer
    write, publish, head = k + v + header + k + v + 1, k + bucket + slot, header + 16  # 1: status
    return {
        "hits": hit,
        "misses": miss,
        "mixed": (hit + miss) / 2,
        "erase": k + bucket + head + slot + 1,
        "write": write,
        "insert": publish,
        "write_again": write,
        "update": publish + head + 1,
    }[case]


def record(run: Run, counted: dict[str, Counters], batch: int) -> None:
    """Adds what the counters say of each case to the run, as far as this chip tells it."""
    for case, counters in counted.items():
        moved = counters.dram_read_nbytes, counters.dram_written_nbytes
        if None not in moved:
            run.add_figure(f"dram_nbytes_{case}", sum(moved) / batch, "B")  # type: ignore[arg-type]
        for name, value in {
            f"threads_per_instruction_{case}": counters.threads_per_instruction,
            f"load_sectors_{case}": counters.load_sectors_per_request,
            f"dram_share_{case}": counters.dram_share,
            f"occupancy_{case}_achieved": counters.achieved_occupancy,
        }.items():
            if value is not None:
                run.add_figure(name, value, "1")
    for name, case in (("find", "hits"), ("insert", "insert")):
        achieved, predicted = counted[case].achieved_occupancy, counted[case].theoretical_occupancy
        if achieved is not None:
            run.add_figure(f"occupancy_{name}", achieved, "1", ceiling=predicted)


def main(arguments: Sequence[str] | None = None) -> None:
    """Launches every case once."""
    parser = argparse.ArgumentParser(prog="counted", description="launches for ncu to watch")
    parser.add_argument("--records", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    chosen = parser.parse_args(arguments)
    # The process that waits for this one may have no CuPy.
    from .counted_launches import launch_all

    launch_all(chosen.records, chosen.batch)


if __name__ == "__main__":
    main()
