"""GPU utilisation and memory, read from the driver while something runs. Called by notebooks."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

PERIOD_SECONDS = 0.1  # the driver itself averages utilisation over about as long


class Monitor:
    """A context in whose course the first GPU is read several times a second; nothing is read without one.

    utilisation:    share of time in which a kernel ran, one per reading
    memory_nbytes:  device memory in use by all processes, one per reading
    """

    def __init__(self) -> None:
        self.utilisation: list[float] = []
        self.memory_nbytes: list[int] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Monitor:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Monitor:
        """Begins to read; nothing happens without a GPU."""
        try:
            import pynvml

            pynvml.nvmlInit()
        except ImportError:
            return self
        except pynvml.NVMLError:
            return self
        self._thread = threading.Thread(target=self._read, args=(pynvml,), daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Ends reading."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _read(self, nvml: Any) -> None:
        with contextlib.suppress(nvml.NVMLError):  # a shared GPU may refuse to tell
            handle = nvml.nvmlDeviceGetHandleByIndex(0)
            while not self._stop.wait(PERIOD_SECONDS):
                self.utilisation.append(nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100)
                self.memory_nbytes.append(nvml.nvmlDeviceGetMemoryInfo(handle).used)
