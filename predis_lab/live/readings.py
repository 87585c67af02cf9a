"""What is read beside the slices: hits, memory, connections, GPU, and what the load costs. Called by `worker`.

Between slices and at most twice a second, since asking a server is work for it too. What can't be read is None.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from typing import Any

from ..bench.servers import Server
from ..bench.telemetry import Telemetry
from ..client import Predis
from .scenes import Controls

EVERY_S = 0.5
# Telemetry's own thread is to read next to never: it would do so in the middle of a slice.
_SELDOM_S = 3600.0
_OF_TELEMETRY = {
    "redis_memory": "redis_memory",
    "redis_cpu": "redis_cpu",
    "process_cpu": "load_cpu",
    "other_cpu": "other_cpu",
    "gpu_utilisation": "gpu_utilisation",
    "gpu_memory": "gpu_memory",
}


class Readings:
    """The last readings, renewed when they are old. Ratios and rates are of the time between two of them."""

    def __init__(self) -> None:
        self._next = 0.0
        self._last: dict[str, float | None] = {}
        self._counts: dict[str, float] = {}
        self._server: Server | None = None
        self._telemetry: Telemetry | None = None
        self._open = ExitStack()
        self._looked = 0.0  # moment of telemetry's last look

    def read(
        self, cache: Predis, server: Server, controls: Controls
    ) -> tuple[dict[str, float | None], bool]:
        """By name, in base units; and whether they are new."""
        now = time.monotonic()
        due = now >= self._next
        if due:
            self._next = now + EVERY_S
            self._last = self._renewed(cache, server, controls)
        return self._last, due

    def close(self) -> None:
        """Ends reading."""
        self._open.close()
        self._telemetry = self._server = None

    def _renewed(
        self, cache: Predis, server: Server, controls: Controls
    ) -> dict[str, float | None]:
        values, seconds = self._looked_at(server)
        with closing(server.client(server.transports[0])) as client:
            told = client.info("everything")
        memory, stats = cache.info("memory"), cache.info("stats")
        promoted = self._grown("promoted", stats.get("promoted_bytes"))
        return {
            **{name: values.get(metric) for metric, name in _OF_TELEMETRY.items()},
            "predis_hits": self._hit_ratio("predis", stats),
            "redis_hits": self._hit_ratio("redis", told),
            "predis_memory": float(memory["used_memory"]),
            "connections": float(told["connected_clients"]) - 2,  # less those that ask here
            "promoted_rate": None if promoted is None else promoted / seconds,
            "chunk_nbytes": _chunk_nbytes(cache, controls),
        }

    def _looked_at(self, server: Server) -> tuple[dict[str, float], float]:
        """What telemetry tells of the time since it looked last, and how long that is; of a new server from now on."""
        if self._telemetry is None or self._server is not server:
            self.close()
            telemetry = Telemetry([server], interval_s=_SELDOM_S)
            self._telemetry, self._server = self._open.enter_context(telemetry), server
            self._looked = self._telemetry.look().at
        before, self._looked = self._looked, self._telemetry.look().at
        return self._telemetry.between(before, self._looked).values, self._looked - before

    def _hit_ratio(self, who: str, told: dict[str, Any]) -> float | None:
        """Hits over lookups since the last time; None where there were none."""
        hits = self._grown(f"{who} hits", told["keyspace_hits"])
        misses = self._grown(f"{who} misses", told["keyspace_misses"])
        return (
            hits / (hits + misses)
            if hits is not None and misses is not None and hits + misses
            else None
        )

    def _grown(self, name: str, count: float | None) -> float | None:
        """By how much a count has grown since the last time; None the first time, and where it began anew."""
        if count is None:
            return None
        before = self._counts.get(name)
        self._counts[name] = count
        return None if before is None or count < before else count - before


def _chunk_nbytes(cache: Predis, controls: Controls) -> float | None:
    """Into what the tuner cuts calls like these; None where there is nothing to tune."""
    tuning = cache.tuning
    if tuning is None:
        return None
    told = tuning.explain(controls.batch, controls.value_nbytes)
    return float(told.tuning.chunk_nbytes)
