"""What the machine does while something is measured: GPU, servers, this process, and who else takes the CPU.

A thread reads every `interval_s`; who measures may have a reading at once (`look`), and asks for what lay between two
moments. Readings are sums and states, rates are made from two of them. What can't be read here is None. Called by
`harness`, `clients`, notebooks and the dashboard.

    gpu_utilisation          share of time in which a kernel ran, as the driver averages it (a sixth of a second to one)
    gpu_memory, gpu_power    bytes in use by all processes, watts
    gpu_clock                of the multiprocessors, Hz
    process_cpu              cores that this process and those it named keep busy; process_memory: resident bytes of them
    <server>_cpu             cores that a server keeps busy; <server>_memory: bytes its allocator has given out (INFO)
    other_cpu, stolen_cpu    cores that all other processes keep busy, and that the host gave to other machines
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import redis

from .servers import Server

INTERVAL_S = 0.1
KEPT = 10_000  # readings: a quarter of an hour
# The kernel counts the time of all processes in ticks of 10 ms: who else is at work shows in many of them only.
TICKS_S = 0.2
# Shares of all cores from which on a measurement counts as disturbed.
MOST_STOLEN, MOST_OTHER = 0.02, 0.25
_STAT = Path("/proc/stat")
_REASON = "nvmlClocksThrottleReason"
_GAUGES = {"gpu_utilisation": "1", "gpu_memory": "B", "gpu_power": "W", "gpu_clock": "Hz"}
# Reasons for a lower clock that are no choice of the user's.
THROTTLES = (
    "SwPowerCap",
    "HwSlowdown",
    "SwThermalSlowdown",
    "HwThermalSlowdown",
    "HwPowerBrakeSlowdown",
)


def unit_of(metric: str) -> str:
    """The base unit of one of the metrics above.

    >>> unit_of("gpu_power"), unit_of("redis_memory"), unit_of("other_cpu")
    ('W', 'B', '1')
    """
    return _GAUGES.get(metric, "B" if metric.endswith("_memory") else "1")


class NothingReadError(ValueError):
    """No reading lies between two moments."""


@dataclass(frozen=True)
class Reading:
    """The state at one moment.

    at:         s, of time.perf_counter
    states:     by metric, None where it can't be read
    spent:      CPU seconds so far: "process", "machine" (of all processes), "stolen", and each server by name
    throttled:  why the GPU's clock is held down, of `THROTTLES`
    """

    at: float
    states: dict[str, float | None]
    spent: dict[str, float]
    throttled: tuple[str, ...] = ()


@dataclass(frozen=True)
class Window:
    """What lay between two moments.

    values:     by metric: means of states, and cores; only what could be read
    disturbed:  why a measurement in it should be made again; empty where nothing speaks against it
    """

    values: dict[str, float]
    disturbed: tuple[str, ...] = ()


class Telemetry:
    """A context in whose course the machine is read.

    >>> with Telemetry(interval_s=0.05) as telemetry:
    ...     began = telemetry.look().at
    ...     window = telemetry.between(began, telemetry.look().at)
    >>> window.values["process_memory"] > 0, telemetry.latest()["process_memory"] > 0
    (True, True)

    servers:    whose memory and CPU are read too; those of ours count as no others'
    processes:  ids of further processes that belong to the measurement, such as clients
    """

    def __init__(
        self,
        servers: Sequence[Server] = (),
        *,
        processes: Iterable[int] = (),
        interval_s: float = INTERVAL_S,
    ):
        if not interval_s > 0:
            raise ValueError(f"interval_s is a positive number of seconds, not {interval_s!r}")
        self._servers, self._interval_s = servers, interval_s
        self._self, self._others = psutil.Process(), [psutil.Process(one) for one in processes]
        self._ours = [server.name for server in servers if server.ours]
        self._clients: dict[str, redis.Redis] = {}
        self._readings: deque[Reading] = deque(maxlen=KEPT)
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._sample, name="telemetry", daemon=True)
        self._cost_s = self._began = self._ended = 0.0

    def __enter__(self) -> Telemetry:
        self._clients = {server.name: server.client() for server in self._servers}
        self._began = time.perf_counter()
        self.look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._ended = time.perf_counter()
        for client in self._clients.values():
            client.close()

    @property
    def cost_cpu(self) -> float:
        """Cores that reading itself has kept busy."""
        return self._cost_s / ((self._ended or time.perf_counter()) - self._began)

    def look(self) -> Reading:
        """A reading at once, by the calling thread."""
        with self._lock:
            began = time.thread_time()
            states, throttled = _gpu_states()
            reading = Reading(time.perf_counter(), states, self._spent(states), throttled)
            self._readings.append(reading)
            self._cost_s += time.thread_time() - began
        return reading

    def latest(self) -> dict[str, float | None]:
        """Every metric as of the last reading; None where it can't be read."""
        last = self._before(time.perf_counter())
        cores = dict.fromkeys(f"{name}_cpu" for name in ("other", *last.spent) if name != "machine")
        earlier = self._before(last.at - max(self._interval_s, TICKS_S))
        return last.states | cores | _cores(earlier, last, self._ours)

    def between(self, began: float, ended: float) -> Window:
        """What lay between two moments (s, of time.perf_counter); raises NothingReadError where no reading did."""
        inside = [one for one in self._since(began) if one.at <= ended]
        if not inside:
            raise NothingReadError("nothing was read in that time")
        values = {}
        for metric in inside[-1].states:
            known = [value for one in inside if (value := one.states[metric]) is not None]
            if known:
                values[metric] = sum(known) / len(known)
        values |= _cores(inside[0], inside[-1], self._ours)
        longer = self._before(min(began, ended - TICKS_S))
        return Window(values, _disturbances(inside, longer, self._ours))

    # ---- Inside

    def _sample(self) -> None:
        while not self._stop.wait(self._interval_s):
            self.look()

    def _since(self, moment: float) -> list[Reading]:
        with self._lock:
            readings = list(self._readings)
        return [one for one in readings if one.at >= moment]

    def _before(self, moment: float) -> Reading:
        """The last reading up to a moment, or the first there is."""
        with self._lock:
            return next(
                (one for one in reversed(self._readings) if one.at <= moment), self._readings[0]
            )

    def _spent(self, states: dict[str, float | None]) -> dict[str, float]:
        """CPU seconds so far. Memory goes to the states: it is told together with them."""
        spent = {"process": time.process_time()} | _machine_spent()
        resident = self._self.memory_info().rss
        for process in self._others:
            with contextlib.suppress(psutil.NoSuchProcess):  # what it spent is missing from then on
                times = process.cpu_times()
                spent["process"] += times.user + times.system
                resident += process.memory_info().rss
        states["process_memory"] = float(resident)
        for name, client in self._clients.items():
            told = _told(client)
            states[f"{name}_memory"] = float(told["used_memory"]) if told else None
            if told:
                spent[name] = told["used_cpu_user"] + told["used_cpu_sys"]
        return spent


def _told(client: redis.Redis) -> dict[str, Any] | None:
    """A server's memory and CPU, or None where it does not answer."""
    try:
        pipeline = client.pipeline(transaction=False)
        pipeline.info("memory")
        pipeline.info("cpu")
        memory, cpu = pipeline.execute()
    except redis.RedisError:
        return None
    return memory | cpu


def _machine_spent() -> dict[str, float]:
    """CPU seconds of all processes, and those that the host gave to other machines; empty where nobody tells."""
    try:
        with _STAT.open() as file:
            ticks = [int(word) for word in file.readline().split()[1:]]
    except (OSError, ValueError):
        return {}
    user, nice, system, _idle, _waiting, interrupts, soft, stolen = ticks[:8]
    second = os.sysconf("SC_CLK_TCK")
    return {
        "machine": (user + nice + system + interrupts + soft) / second,
        "stolen": stolen / second,
    }


def _cores(first: Reading, last: Reading, ours: Sequence[str]) -> dict[str, float]:
    """Cores that were kept busy between two readings, by metric; none where there is no time between them."""
    seconds = last.at - first.at
    if seconds <= 0:
        return {}
    spent = {
        name: last.spent[name] - first.spent[name] for name in last.spent if name in first.spent
    }
    cores = {f"{name}_cpu": number / seconds for name, number in spent.items() if name != "machine"}
    if "machine" in spent:
        others = spent["machine"] - spent["process"] - sum(spent.get(name, 0.0) for name in ours)
        cores["other_cpu"] = max(0.0, others / seconds)
    return cores


def _disturbances(
    inside: Sequence[Reading], before: Reading, ours: Sequence[str]
) -> tuple[str, ...]:
    """Why what was measured should be measured again. CPU is judged from `before` on, which may lie before it began."""
    reasons = {f"GPU: {reason}" for one in inside for reason in one.throttled}
    if inside[-1].at - before.at >= TICKS_S:
        cores, all_cores = _cores(before, inside[-1], ours), os.cpu_count() or 1
        for metric, most in (("stolen_cpu", MOST_STOLEN), ("other_cpu", MOST_OTHER)):
            if cores.get(metric, 0.0) > most * all_cores:
                reasons.add(metric)
    return tuple(sorted(reasons))


# ---- The GPU


@functools.cache
def _gpu() -> tuple[Any, Any] | None:
    """The management library and its handle of the first GPU; None without one."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return pynvml, pynvml.nvmlDeviceGetHandleByIndex(0)
    except ImportError:
        return None
    except pynvml.NVMLError:
        return None


def _gpu_states() -> tuple[dict[str, float | None], tuple[str, ...]]:
    """What the GPU tells of itself, and why its clock is held down."""
    states: dict[str, float | None] = dict.fromkeys(_GAUGES)
    found = _gpu()
    if found is None:
        return states, ()
    nvml, gpu = found
    questions: dict[str, Callable[[], float]] = {
        "gpu_utilisation": lambda: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
        "gpu_memory": lambda: nvml.nvmlDeviceGetMemoryInfo(gpu).used,
        "gpu_power": lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3,  # told in mW
        "gpu_clock": lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM) * 1e6,
    }
    for metric, ask in questions.items():
        with contextlib.suppress(nvml.NVMLError):  # a shared GPU may refuse to tell
            states[metric] = float(ask())
    reasons = 0
    with contextlib.suppress(nvml.NVMLError):
        reasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)
    held = [name for name in THROTTLES if reasons & getattr(nvml, _REASON + name)]
    return states, tuple(held)
