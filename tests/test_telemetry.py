"""Telemetry: what is read is what there is, what is not there is None, and a disturbed block is made again."""

import time

import pytest
from fake_nvml import nvml  # noqa: F401

from predis_lab.bench import harness, results, telemetry
from predis_lab.bench.telemetry import Reading, Telemetry

GPU = ("gpu_utilisation", "gpu_memory", "gpu_power", "gpu_clock")


@pytest.fixture
def quiet(monkeypatch):
    """Nobody else is at work, whatever this machine does."""
    monkeypatch.setattr(telemetry, "MOST_OTHER", 1e9)
    monkeypatch.setattr(telemetry, "MOST_STOLEN", 1e9)


def watched(seconds=0.0):
    with Telemetry(interval_s=0.01) as one:
        began = one.look().at
        time.sleep(seconds)
        return one.between(began, one.look().at), one.latest()


def test_a_gpu_is_read_in_base_units(nvml, quiet):  # noqa: F811
    window, latest = watched()
    assert [window.values[name] for name in GPU] == [0.91, 7e6, 612.0, 1.98e9]
    assert [telemetry.unit_of(name) for name in GPU] == ["1", "B", "W", "Hz"]
    assert [latest[name] for name in GPU] == [0.91, 7e6, 612.0, 1.98e9]
    assert window.disturbed == ()


def test_what_a_gpu_refuses_to_tell_is_none(nvml, quiet):  # noqa: F811
    nvml.milliwatts = nvml.reasons = None
    window, latest = watched()
    assert latest["gpu_power"] is None and "gpu_power" not in window.values
    assert latest["gpu_memory"] == window.values["gpu_memory"] == 7e6
    assert window.disturbed == ()


def test_states_are_averaged_over_the_window_alone(nvml):  # noqa: F811
    with Telemetry(interval_s=60) as one:
        nvml.utilisation = 20
        began = one.look().at
        nvml.utilisation = 60
        ended = one.look().at
        nvml.utilisation = 100
        one.look()
        assert one.between(began, ended).values["gpu_utilisation"] == pytest.approx(0.4)
        with pytest.raises(ValueError, match="nothing was read"):
            one.between(ended + 1000, ended + 2000)


@pytest.mark.parametrize("name", telemetry.THROTTLES)
def test_a_clock_that_is_held_down_disturbs(nvml, quiet, name):  # noqa: F811
    nvml.reasons = nvml.idle
    assert watched()[0].disturbed == ()
    nvml.reasons |= getattr(nvml, f"nvmlClocksThrottleReason{name}")
    assert watched()[0].disturbed == (f"GPU: {name}",)


def test_our_own_work_is_counted_as_ours():
    with Telemetry(interval_s=0.02) as one:
        began, until = one.look().at, time.process_time() + 0.2
        while time.process_time() < until:
            pass
        window = one.between(began, one.look().at)
    seconds = time.perf_counter() - began
    assert 0.2 / seconds * 0.9 < window.values["process_cpu"] < 1.5
    assert 1e6 < window.values["process_memory"] < 1e12
    assert 0 < one.cost_cpu < 0.5


def test_readings_come_by_themselves():
    with Telemetry(interval_s=0.005) as one:
        deadline = time.monotonic() + 10
        while len(one._readings) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
    count = len(one._readings)
    assert count >= 5
    time.sleep(0.05)
    assert len(one._readings) == count  # stopped
    with pytest.raises(ValueError, match="positive"):
        Telemetry(interval_s=0)


@pytest.mark.redis
def test_a_server_is_read(server):
    with Telemetry([server]) as one:
        before = one.look()
        client = server.client()
        client.set("telemetry", b"x" * 2**22)
        for _ in range(300):
            client.get("telemetry")
        window = one.between(before.at, one.look().at)
        client.delete("telemetry")
    assert before.states["redis_memory"] + 2**21 < window.values["redis_memory"] * 2
    assert window.values["redis_cpu"] > 0
    assert telemetry.unit_of("redis_memory") == "B" and telemetry.unit_of("redis_cpu") == "1"


def reading(at, **spent):
    return Reading(at, {}, {"process": 0.0, "machine": 0.0, "stolen": 0.0} | spent)


def test_who_takes_the_cpu(monkeypatch):
    monkeypatch.setattr(telemetry.os, "cpu_count", lambda: 4)
    first = reading(10.0, redis=1.0)

    def reasons(seconds, **spent):
        last = reading(10.0 + seconds, **({"redis": 1.0} | spent))
        return telemetry._disturbances([first, last], first, ["redis"])

    assert reasons(1, machine=3.8, process=2.0, redis=1.9) == ()  # 0.9 of 4 cores are others'
    assert reasons(1, machine=3.0, process=1.0, redis=1.5) == ("other_cpu",)  # 1.5 of 4
    assert reasons(1, stolen=0.2) == ("stolen_cpu",)
    assert reasons(0.1, stolen=0.2) == ()  # too short to tell
    foreign = telemetry._disturbances(
        [first, reading(11.0, machine=2.0, redis=2.9)], first, []
    )  # a server elsewhere took none of our cores
    assert foreign == ("other_cpu",)


def measured(tmp_path, blocks=6, **options):
    run, made = results.Run.open(tmp_path, notebook="t"), []
    one = harness.Contestant("a", lambda: None, prepare=lambda: made.append(1), max_calls=50)
    harness.measure([one], run=run, workload="w", params={}, blocks=blocks, block_seconds=1e-6)
    frame = run.frame()
    kept = frame[frame.block >= 0].pivot_table(index="block", columns="metric", values="value")
    return kept, len(made), frame


def test_a_disturbed_block_is_made_again_a_few_times(tmp_path, nvml, quiet):  # noqa: F811
    kept, calm, frame = measured(tmp_path)
    assert (kept["reruns"] == 0).all() and (kept["disturbed"] == 0).all()
    assert (kept["gpu_power"] == 612).all()
    assert frame[frame.metric == "telemetry_cpu"].system.tolist() == ["machine"]
    nvml.reasons = nvml.nvmlClocksThrottleReasonHwSlowdown
    kept, made, _ = measured(tmp_path)
    assert kept["reruns"].sum() == harness.MOST_RERUNS and (kept["disturbed"] == 1).all()
    assert made == calm + harness.MOST_RERUNS and len(kept) == 6
    kept, _, _ = measured(tmp_path, blocks=40)
    assert kept["reruns"].sum() == 4 and kept["reruns"].max() == harness.MOST_RERUNS


def test_what_was_disturbed_is_not_kept_where_it_can_be_made_again():
    disturbed = iter([("GPU: HwSlowdown",), (), ()])

    class Machine:
        at = 0.0

        def look(self):
            return self

        def between(self, began, ended):
            return telemetry.Window({}, next(disturbed))

    results = iter("ab")
    kept = harness.undisturbed(lambda: next(results), Machine(), 2)
    assert kept.result == "b" and kept.reruns == 1 and kept.window.disturbed == ()


def test_a_contestant_tells_more_of_its_block(tmp_path):
    run = results.Run.open(tmp_path, notebook="t")
    one = harness.Contestant("a", lambda: None, tell=lambda: {"error_rate": (0.25, "1")})
    harness.measure([one], run=run, workload="w", params={}, blocks=3, block_seconds=1e-6)
    frame = run.frame()
    assert frame[frame.metric == "error_rate"].value.tolist() == [0.25] * 3
