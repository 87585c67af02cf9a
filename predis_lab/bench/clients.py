"""Clients side by side: threads and processes, readers and writers mixed, every answer judged. Called by notebook 08.

Each client has a connection of its own and makes one call after the other; what it does is `client_work`'s. Servers are
asked by threads and by processes. A cache within a process, Predis's or a dict, is asked by that process's threads: several
processes that hold a Predis each hold several caches, which is another thing and compared with nothing here.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ..client import Predis
from .client_work import (
    Client,
    Face,
    Log,
    Plan,
    columns,
    judge,
    keys_of,
    lists,
    redis_face,
    serve,
    singles,
    values_of,
)
from .contestants import backend_of
from .harness import (
    ALL_BLOCKS,
    MOST_RERUNS,
    RERUN_SHARE,
    histogram_of,
    observed,
    percentiles_of,
    tidy,
    undisturbed,
)
from .results import Run
from .servers import Server, running
from .telemetry import Telemetry

WORKLOAD = "clients"
LEAD_S = {"threads": 0.005, "processes": 0.02}  # from the word for a block until its first call
PATIENCE_S = 60.0  # for a client process to be ready or done, beyond the block


class ClientError(RuntimeError):
    """A client process that did not start, answer or survive."""


@dataclass(frozen=True)
class System:
    """One system and how its clients run.

    name, kind:  who answers; "threads" or "processes"
    fill:        stores all records, as of the moment 0
    face:        for a client of its own, made for each; None where processes make their own
    """

    name: str
    kind: str
    fill: Callable[[], object]
    face: Callable[[], Face] | None = None
    server: Server | None = None


def systems(
    cache: Predis, hot: Predis, servers: Sequence[Server], records: int, batch: int
) -> list[System]:
    """Predis and a dict, asked by threads; each server by threads and by processes. Its hot tier answers single keys only.

    hot:  a cache with a hot tier
    """
    keys = keys_of(records).to_pylist()
    whole = dict(zip(keys, values_of(keys, 0), strict=True))
    table: dict[bytes, bytes] = {}
    predis, single = f"predis-{backend_of(cache)}", batch == 1

    def of(one: Predis) -> Face:
        return singles(one.get, one.set) if single else columns(one.find, partial(_insert, one))

    def of_dict() -> Face:
        return (
            singles(table.get, table.__setitem__)
            if single
            else lists(partial(_from, table), table.update)
        )

    found = [
        System(
            f"{predis} {'lists' if single else 'columns'}",
            "threads",
            partial(cache.mset, whole),
            partial(of, cache),
        )
    ]
    if single:
        found.append(
            System(f"{predis} lists hot", "threads", partial(hot.mset, whole), partial(of, hot))
        )
    found.append(System("dict", "threads", partial(table.update, whole), of_dict))
    for server in servers:
        name, fill = f"{server.name} {server.transports[0]}", partial(_fill, server, whole)
        found.append(System(name, "threads", fill, partial(_of_server, server, batch), server))
        found.append(System(name, "processes", fill, None, server))
    return found


def measure_clients(
    run: Run,
    cache: Predis,
    hot: Predis,
    servers: Sequence[Server],
    counts: Sequence[int],
    batches: Sequence[int],
    *,
    records: int,
    blocks: int,
    block_seconds: float,
    seed: int,
    progress: Callable[[float], object] = lambda _: None,
) -> None:
    """Every system asked by each number of clients, in calls of each number of keys; blocks interleaved.

    Metrics per block: throughput (1/s, keys of all clients), latency_<percentile> (s, per call of whichever client),
    error_rate, the number of each kind of error (see `client_work`), and what `harness.measure` observes.
    progress:  called with shares of a count
    """
    if not counts or min(counts) < 1 or min(batches) < 1:
        raise ValueError("counts and batches are numbers of at least 1")
    generator = np.random.default_rng(seed)
    with crews(servers, max(counts)) as crew:
        for batch in batches:
            asked = systems(cache, hot, servers, records, batch)
            for one in asked:
                one.fill()
            for count in counts:
                plans = [Plan.of(one, count, records, batch, seed=seed) for one in range(count)]
                teams = [Team(one, crew.get(one.name), plans, records, batch) for one in asked]
                params = {"clients": count, "batch": batch}
                _measure(run, teams, params, blocks, block_seconds, generator, progress)


def _measure(
    run: Run,
    teams: Sequence[Team],
    params: dict,
    blocks: int,
    seconds: float,
    generator: np.random.Generator,
    progress: Callable[[float], object],
) -> None:
    spare = max(MOST_RERUNS, int(RERUN_SHARE * blocks * len(teams)))
    processes = {pid for team in teams for pid in team.processes}
    for team in teams:
        team.block(seconds / 4)  # warms up connections and caches
        team.metrics()
    with Telemetry(running(), processes=processes) as telemetry, tidy():
        for block in range(blocks):
            gc.collect()
            for i in generator.permutation(len(teams)):
                team, most = teams[i], min(MOST_RERUNS, spare)
                done = undisturbed(partial(team.block, seconds), telemetry, most)
                spare -= done.reruns
                for metric, (value, unit) in (team.metrics() | observed(done)).items():
                    told = params | {"as": team.system.kind}
                    run.add_sample(team.system.name, WORKLOAD, told, block, metric, value, unit)
                progress(1 / (blocks * len(teams)))
    cost = telemetry.cost_cpu
    run.add_sample("machine", WORKLOAD, params, ALL_BLOCKS, "telemetry_cpu", cost, "1")


class Team:
    """The clients of one system, which has been filled."""

    def __init__(
        self, system: System, crew: Crew | None, plans: Sequence[Plan], records: int, batch: int
    ):
        self.system, self._crew, self._count = system, crew, len(plans)
        self._clients: list[Client] = []
        self._logs: list[Log] = []
        self._oldest = np.zeros(records, np.int64)
        if system.face is not None:
            keys = keys_of(records).to_pylist()
            self._crew = None
            self._clients = [Client(system.face(), plan, keys) for plan in plans]
        elif crew is not None:
            crew.plan(plans, batch, records)

    @property
    def processes(self) -> list[int]:
        """Ids of its clients, where they are processes."""
        return self._crew.ids if self._crew is not None else []

    def block(self, seconds: float) -> None:
        """All clients at once, for so long."""
        collecting = gc.isenabled()
        gc.disable()
        starts = time.perf_counter_ns() + int(LEAD_S[self.system.kind] * 1e9)
        try:
            if self._crew is not None:
                self._logs = self._crew.run(self._count, starts, seconds)
            else:
                self._run(starts, seconds)
        finally:
            if collecting:
                gc.enable()

    def metrics(self) -> dict[str, tuple[float, str]]:
        """What the last block came to; its answers are judged now, when nobody is at work any more."""
        logs = [client.log() for client in self._clients] or self._logs
        wrong = judge(logs, self._oldest)
        keys = sum(log.rows.size for log in logs)
        took = (max(log.ended[-1] for log in logs) - min(log.began[0] for log in logs)) * 1e-9
        latencies = histogram_of(np.concatenate([log.ended - log.began for log in logs]))
        return {
            "throughput": (keys / took, "1/s"),
            "error_rate": (sum(wrong.values()) / keys, "1"),
            **{f"errors_{kind}": (number, "1") for kind, number in wrong.items()},
            **{f"latency_{name}": (value, "s") for name, value in percentiles_of(latencies)},
        }

    def _run(self, starts_ns: int, seconds: float) -> None:
        with ThreadPoolExecutor(self._count) as pool:
            for done in [pool.submit(client.run, starts_ns, seconds) for client in self._clients]:
                done.result()


class Crew:
    """Processes that wait for plans, each with a connection of its own to one server."""

    def __init__(self, server: Server, count: int):
        context = multiprocessing.get_context("spawn")
        self.members = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            told = replace(server, _supervisor=None)  # which stays with us
            process = context.Process(target=serve, args=(theirs, told), daemon=True)
            process.start()
            theirs.close()
            self.members.append((process, ours))

    @property
    def ids(self) -> list[int]:
        """Of the processes."""
        return [process.pid for process, _ in self.members if process.pid is not None]

    def plan(self, plans: Sequence[Plan], batch: int, records: int) -> None:
        """Gives a plan to as many of them."""
        self._tell(len(plans), [(plan, batch, records) for plan in plans])
        self._hear(len(plans), 0.0)

    def run(self, count: int, starts_ns: int, seconds: float) -> list[Log]:
        """The first `count` of them at once."""
        self._tell(count, [(starts_ns, seconds)] * count)
        return self._hear(count, seconds)

    def close(self) -> None:
        """Ends them all."""
        for process, pipe in self.members:
            with contextlib.suppress(OSError):
                pipe.send(None)
            process.join(timeout=5)
            if process.is_alive():
                process.kill()
            pipe.close()

    def _tell(self, count: int, messages: Sequence[Any]) -> None:
        for (process, pipe), message in zip(self.members[:count], messages, strict=True):
            try:
                pipe.send(message)
            except OSError as error:
                raise ClientError(f"client process {process.pid} is gone") from error

    def _hear(self, count: int, seconds: float) -> list[Any]:
        heard = []
        for process, pipe in self.members[:count]:
            try:
                if not pipe.poll(seconds + PATIENCE_S):
                    raise ClientError(f"client process {process.pid} does not answer")
                heard.append(pipe.recv())
            except (EOFError, OSError) as error:
                raise ClientError(f"client process {process.pid} is gone") from error
        return heard


@contextlib.contextmanager
def crews(servers: Sequence[Server], count: int) -> Iterator[dict[str, Crew]]:
    """As many processes for each server, by the name that `systems` gives it."""
    made: dict[str, Crew] = {}
    try:
        for server in servers:
            made[f"{server.name} {server.transports[0]}"] = Crew(server, count)
        yield made
    finally:
        for crew in made.values():
            crew.close()


def _of_server(server: Server, batch: int) -> Face:
    return redis_face(server.client(server.transports[0]), batch)


def _fill(server: Server, records: dict[bytes, bytes]) -> None:
    with contextlib.closing(server.client()) as client:
        client.mset(records)


def _from(table: dict[bytes, bytes], keys: list[bytes]) -> list[bytes | None]:
    return [table.get(key) for key in keys]


def _insert(cache: Predis, keys: Any, values: Any) -> None:
    cache.insert(keys, values).raise_for_status()
