# ruff: noqa: N802 - the library names its functions so
"""NVIDIA's management library, played: what a test says is what it tells. Called by tests of the telemetry."""

from types import SimpleNamespace

import pytest

from predis_lab.bench import telemetry


class NVMLError(Exception):
    """What the real one raises."""


class FakeNvml:
    """One GPU. `states` may be changed while it is read; a state that is None refuses to be told."""

    NVMLError = NVMLError
    NVML_CLOCK_SM = 1

    def __init__(self):
        self.utilisation, self.used, self.milliwatts, self.megahertz = 91, 7_000_000, 612_000, 1980
        self.reasons = 0
        for bit, name in enumerate(telemetry.THROTTLES):
            setattr(self, f"nvmlClocksThrottleReason{name}", 1 << (bit + 4))
        self.idle = 1  # a reason that is none of ours

    def nvmlInit(self):
        pass

    def nvmlDeviceGetHandleByIndex(self, index):
        return ("gpu", index)

    def told(self, gpu, value):
        assert gpu == ("gpu", 0)
        if value is None:
            raise NVMLError("not supported")
        return value

    def nvmlDeviceGetUtilizationRates(self, gpu):
        return SimpleNamespace(gpu=self.told(gpu, self.utilisation))

    def nvmlDeviceGetMemoryInfo(self, gpu):
        return SimpleNamespace(used=self.told(gpu, self.used))

    def nvmlDeviceGetPowerUsage(self, gpu):
        return self.told(gpu, self.milliwatts)

    def nvmlDeviceGetClockInfo(self, gpu, which):
        assert which == self.NVML_CLOCK_SM
        return self.told(gpu, self.megahertz)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, gpu):
        return self.told(gpu, self.reasons)


@pytest.fixture
def nvml(monkeypatch):
    """A GPU that tells what the test says."""
    fake = FakeNvml()
    monkeypatch.setitem(__import__("sys").modules, "pynvml", fake)
    telemetry._gpu.cache_clear()
    yield fake
    telemetry._gpu.cache_clear()
