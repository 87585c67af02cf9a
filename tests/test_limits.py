"""Hardware limits and the GPU monitor: values that are finite, positive and in base units, or none at all."""

import math
import sys
import threading
import time
import types

import numpy as np
import pytest

from predis_lab.bench import limits, results
from predis_lab.bench.monitor import PERIOD_SECONDS, Monitor

SMALL = 1 << 22  # bytes
REPEATS = 3


@pytest.fixture(scope="module")
def host():
    return limits.host_limits(1 << 20, REPEATS)


def check(found):
    names = [limit.name for limit in found]
    assert len(set(names)) == len(names)
    for limit in found:
        assert len(limit.values) == REPEATS, limit
        assert all(math.isfinite(value) and value > 0 for value in limit.values), limit
        assert limit.unit in results.UNITS and limit.label, limit
        assert limit.theory is None or (math.isfinite(limit.theory) and limit.theory > 0), limit
        interval = limit.interval
        assert min(limit.values) <= interval.low <= interval.value <= interval.high, limit
        assert interval.high <= max(limit.values) and interval.n == REPEATS, limit


def test_the_host_has_limits(host):
    check(host)
    assert {limit.name: limit.unit for limit in host} == {
        "host_copy": "B/s",
        "host_gather_64": "1/s",
        "host_dict": "1/s",
        "host_pack": "1/s",
        "host_unpack": "1/s",
    }


def test_rates_are_work_over_time(monkeypatch):
    """With every call lasting a quarter of a second, a rate is four times the work."""
    monkeypatch.setattr(limits, "_seconds", lambda call, repeats: [0.25] * repeats)
    rates = {limit.name: set(limit.values) for limit in limits.host_limits(64 * 1000, 2)}
    assert rates == {
        "host_copy": {4 * 64_000.0},
        "host_gather_64": {4_000.0},
        "host_dict": {4_000.0},
        "host_pack": {4_000.0},
        "host_unpack": {4_000.0},
    }


def test_calls_are_timed_one_by_one_after_one_that_is_not():
    seen = []
    seconds = limits._seconds(lambda i: (seen.append(i), time.sleep(0.002)), 4)
    assert seen == [0, 1, 2, 3, 4]
    assert len(seconds) == 4 and all(second >= 0.002 for second in seconds)


def test_a_limit_is_recorded_as_samples_and_a_figure(tmp_path):
    run = results.Run.open(tmp_path, notebook="t")
    found = [
        limits.Limit("copy", "copying", [1.0, 5.0, 3.0], "B/s", 8.0),
        limits.Limit("wait", "waiting", [0.5, 0.25, 0.125], "s"),
    ]
    limits.record(run, found, {"nbytes": 64})
    run.save()
    figures = results.read_figures(tmp_path)
    assert set(figures) == {"copy", "wait"}
    assert (figures["copy"]["value"], figures["copy"]["unit"], figures["copy"]["n"]) == (
        3,
        "B/s",
        3,
    )
    assert 1.0 <= figures["copy"]["low"] <= 3.0 <= figures["copy"]["high"] <= 5.0
    assert figures["copy"]["ceiling"] == 8.0 and "ceiling" not in figures["wait"]
    frame = results.read_samples(tmp_path)
    assert set(frame.system) == {"machine"} and set(frame.metric) == {"limit"}
    assert set(frame.nbytes) == {64}
    copies = frame[frame.workload == "copy"].sort_values("block")
    assert copies.value.tolist() == [1.0, 5.0, 3.0] and set(copies.unit) == {"B/s"}


def test_what_the_host_gave_can_be_recorded(host, tmp_path):
    run = results.Run.open(tmp_path, notebook="t")
    limits.record(run, host, {"nbytes": 1 << 20})
    assert set(run.figures) == {limit.name for limit in host}
    assert len(run.frame()) == REPEATS * len(host)


def test_medians_of_parts():
    assert limits._medians([1.0, 2.0, 9.0, 4.0, 5.0, 6.0], 2) == [2.0, 5.0]


# ---- On a GPU


@pytest.mark.gpu
def test_the_device_has_limits():
    found = limits.device_limits(SMALL, 4096, REPEATS)
    check(found)
    assert {limit.name for limit in found} == set(limits.MEMORY)


@pytest.mark.gpu
def test_the_link_has_limits():
    found = limits.link_limits(SMALL, REPEATS)
    check(found)
    units = {limit.name: limit.unit for limit in found}
    assert set(units) == {*limits.LINK, *limits.LAUNCH}
    assert units["limit_launch"] == units["limit_graph_launch"] == "s"
    assert units["limit_h2d_pinned"] == units["limit_d2h_pinned"] == "B/s"
    theory = {limit.name: limit.theory for limit in found}
    if theory["limit_h2d_pinned"]:
        assert theory["limit_both_pinned"] == 2 * theory["limit_h2d_pinned"]


@pytest.mark.gpu
def test_the_table_has_rates():
    from predis_lab.bench import table_rates as rates

    check(rates.table_rates(4000, 700, REPEATS))
    check(rates.size_rates(3000, [64, 256, 1024], 400, REPEATS, 2_000_000))
    check(rates.load_rates(2000, 500, REPEATS))
    check(rates.batch_rates(2000, [1000, 100], REPEATS))
    check(rates.real_rates(2000, 300, REPEATS))


@pytest.mark.gpu
def test_random_reads_see_the_records_they_name():
    import cupy

    from predis_lab.gpu import limits as launch

    records = np.random.default_rng(0).integers(0, 256, (1000, 48), np.uint8)
    places = np.random.default_rng(1).integers(0, 1000, 333).astype(np.uint32)
    out = cupy.zeros(333 * 48, cupy.uint8)
    launch.gather(cupy.asarray(records.reshape(-1)), 48, cupy.asarray(places), out)
    assert (out.get().reshape(333, 48) == records[places]).all()


# ---- Monitor


class FakeNvmlError(Exception):
    pass


def fake_nvml(**functions):
    """A management library whose functions answer as told, and raise where nothing is told."""

    def refuse(*_):
        raise FakeNvmlError

    names = ("Init", "Shutdown", "DeviceGetCount", "DeviceGetHandleByIndex")
    names += ("DeviceGetUtilizationRates", "DeviceGetMemoryInfo")
    library = types.ModuleType("pynvml")
    library.NVMLError = FakeNvmlError
    for name in names:
        setattr(library, f"nvml{name}", functions.get(name, refuse))
    return library


def watch():
    with Monitor() as monitor:
        time.sleep(2.5 * PERIOD_SECONDS)
    return monitor


@pytest.mark.parametrize(
    "library",
    [
        pytest.param(None, id="no library"),
        pytest.param(fake_nvml(), id="no driver"),
        pytest.param(
            fake_nvml(Init=lambda: None),
            id="no GPU",
        ),
    ],
)
# An exception in the reading thread is a warning to pytest, and here a failure.
@pytest.mark.filterwarnings("error")
def test_nothing_is_read_where_there_is_nothing(monkeypatch, library):
    monkeypatch.setitem(sys.modules, "pynvml", library)
    threads = threading.active_count()
    monitor = watch()
    assert monitor.utilisation == [] and monitor.memory_nbytes == []
    assert threading.active_count() == threads


def test_readings_are_shares_and_bytes(monkeypatch):
    library = fake_nvml(
        Init=lambda: None,
        DeviceGetHandleByIndex=lambda index: index,
        DeviceGetUtilizationRates=lambda _: types.SimpleNamespace(gpu=73, memory=1),
        DeviceGetMemoryInfo=lambda _: types.SimpleNamespace(used=5 << 30),
    )
    monkeypatch.setitem(sys.modules, "pynvml", library)
    monitor = watch()
    assert monitor.utilisation and set(monitor.utilisation) == {0.73}
    assert set(monitor.memory_nbytes) == {5 << 30}
    readings = len(monitor.utilisation)
    time.sleep(2 * PERIOD_SECONDS)
    assert len(monitor.utilisation) == readings == len(monitor.memory_nbytes)


@pytest.mark.gpu
def test_the_gpu_is_watched_while_it_works():
    import cupy

    held = cupy.ones(1 << 24, cupy.float32)
    with Monitor() as monitor:
        until = time.monotonic() + 6 * PERIOD_SECONDS
        while time.monotonic() < until:
            held *= 1.0
            cupy.cuda.runtime.deviceSynchronize()
    assert monitor.utilisation and all(0 <= share <= 1 for share in monitor.utilisation)
    assert all(nbytes >= held.nbytes for nbytes in monitor.memory_nbytes)
