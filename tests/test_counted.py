"""The launches that the profiler watches: exactly those of the cases, in their order; and what is recorded of them."""

import dataclasses
import re

import pytest

from predis_lab.bench import counted, results
from predis_lab.gpu.counters import Counters


def counters_of(**known):
    fields = dict.fromkeys(field.name for field in dataclasses.fields(Counters))
    return Counters(**{**fields, "kernel": "k", "blocks": 1, "threads": 128, "stalls": {}, **known})


def test_bytes_are_counted_as_the_kernels_headers_count_them():
    assert counted.by_hand("hits") == 16 + 64 + (16 + 16 + 64) + 64 + 4 + 1 / 8
    assert counted.by_hand("misses") < counted.by_hand("mixed") < counted.by_hand("hits")
    assert counted.by_hand("insert") == 16 + 64 + 8
    assert counted.by_hand("update") - counted.by_hand("insert") == 33
    assert counted.by_hand("erase", 16, 1024) == counted.by_hand("erase", 16, 64)


def test_every_case_is_named_by_its_place(monkeypatch):
    asked = {}

    def collect(arguments, kernels, **options):
        asked.update(options, arguments=arguments, kernels=kernels)
        return [counters_of(kernel=kernel) for kernel, _ in counted.CASES.values()]

    monkeypatch.setattr(counted, "collect", collect)
    found = counted.count(4096, 128)
    assert {case: one.kernel for case, one in found.items()} == {
        case: kernel for case, (kernel, _) in counted.CASES.items()
    }
    assert asked["launch_count"] == len(counted.CASES) and asked["marked"]
    assert asked["kernels"] == "erase|find|find_dense|publish|write_dense"
    assert asked["arguments"] == [
        "-m",
        "predis_lab.bench.counted",
        "--records",
        "4096",
        "--batch",
        "128",
    ]


def test_what_a_chip_does_not_tell_is_not_recorded(tmp_path):
    run = results.Run.open(tmp_path, notebook="t")
    told = dict.fromkeys(counted.CASES, counters_of())
    told["hits"] = counters_of(
        dram_read_nbytes=2000.0,
        dram_written_nbytes=500.0,
        achieved_occupancy=0.7,
        theoretical_occupancy=0.75,
    )
    counted.record(run, told, batch=10)
    assert set(run.figures) == {"dram_nbytes_hits", "occupancy_hits_achieved", "occupancy_find"}
    assert run.figures["dram_nbytes_hits"]["value"] == 250
    assert run.figures["occupancy_find"] | {"n": 1} == {
        "value": 0.7, "low": None, "high": None, "ceiling": 0.75, "unit": "1", "n": 1,
    }  # fmt: skip


# ---- On a GPU


@pytest.mark.gpu
def test_the_watched_kernels_are_launched_once_a_case(monkeypatch):
    import cupy

    from predis_lab.gpu import kernels

    launched = []

    def watch(launch):
        def watched(module, name, *arguments, **options):
            launched.append(name)
            launch(module, name, *arguments, **options)

        return watched

    monkeypatch.setattr(kernels, "launch", watch(kernels.launch))
    monkeypatch.setattr(cupy.cuda.runtime, "profilerStart", launched.clear)
    monkeypatch.setattr(cupy.cuda.runtime, "profilerStop", lambda: launched.append("stop"))
    counted.main(["--records", "3000", "--batch", "500"])
    launched = launched[: launched.index("stop")]
    assert len(launched) == len(counted.CASES)
    for name, (pattern, _) in zip(launched, counted.CASES.values(), strict=True):
        assert re.fullmatch(pattern, name)
