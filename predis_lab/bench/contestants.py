"""One adapter per system: the same keys asked of Predis, Redis and Valkey, each in its own best way.

Every function gives the contestants for one cell of a comparison: reading, writing or deleting `n` keys a call.
Batches are made beforehand in the form each system takes them, and rotate, so that no call repeats the one before.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from ..client import Predis
from .harness import ALL_BLOCKS, Contestant, measure
from .operations import Data
from .results import Run
from .servers import Server
from .statistics import noise_floor
from .workloads import Records

BATCHES = 16  # that rotate
SINGLES = 1024  # keys that rotate where a call carries one
POOL_ROWS = 4_000_000  # in all batches of a cell together
PIPELINE_MAX = 10_000  # keys: redis-py's pipeline holds every command and answer in memory
LOAD_KEYS = 10_000  # per MSET while a server is filled
REHASHING = "mem_overhead_db_hashtable_rehashing"  # bytes of the table that is being left


class WrongAnswerError(AssertionError):
    """A system's answer differs from the records it was filled with."""


def backend_of(cache: Predis) -> str:
    """ "cuda" or "host": what a figure of this cache is a figure of."""
    return cache.info("server")["backend"]


def load(cache: Predis, servers: Sequence[Server], records: Records) -> None:
    """Empties every system and fills it with the records. A server that is not ours is never emptied."""
    cache.flushdb()
    cache.insert(records.keys, records.values).raise_for_status()
    if servers:
        # Side by side: most of the time it is they who are at work.
        with ThreadPoolExecutor(len(servers)) as pool:
            list(pool.map(partial(_fill, records), servers))


def _fill(records: Records, server: Server) -> None:
    with contextlib.closing(server.client()) as client:
        if server.ours:
            # In the background, memory would be given back while others are timed.
            client.execute_command("FLUSHDB", "SYNC")
        for start in range(0, len(records), LOAD_KEYS):
            piece = slice(start, start + LOAD_KEYS)
            store(client, records.keys[piece], records.values[piece])
        # Redis moves its table into a larger one bit by bit, and would be slower meanwhile; each lookup moves a bit.
        while server.ours and client.info("memory").get(REHASHING):
            client.exists(*[b""] * LOAD_KEYS)


def store(client: Any, keys: pa.Array, values: pa.Array) -> None:
    """One MSET. Columns of fixed width become the protocol's text at once: a server is filled in half the time."""
    columns = keys, values
    if not all(pa.types.is_fixed_size_binary(column.type) for column in columns):
        client.mset(mapping_of(*columns))
        return
    arguments = [_arguments(column) for column in columns]
    command = b"*%d\r\n$4\r\nMSET\r\n" % (1 + 2 * len(keys))
    connection = client.connection_pool.get_connection()
    try:
        connection.send_packed_command([command, np.hstack(arguments).tobytes()])
        connection.read_response()
    finally:
        client.connection_pool.release(connection)


def _arguments(column: pa.Array) -> np.ndarray:
    """Length, bytes and end of each row as a command has them: uint8 (n, any)."""
    width, n = column.type.byte_width, len(column)
    data = np.frombuffer(column.buffers()[1], np.uint8)[column.offset * width :]
    length, end = (np.frombuffer(text, np.uint8) for text in (b"$%d\r\n" % width, b"\r\n"))
    sides = [np.broadcast_to(side, (n, len(side))) for side in (length, end)]
    return np.hstack([sides[0], data[: n * width].reshape(n, width), sides[1]])


def measure_records(
    run: Run,
    cache: Predis,
    servers: Sequence[Server],
    records: Records,
    workloads: Sequence[str],
    keys: Sequence[int],
    *,
    seed: int,
    fill: bool = True,
    **options: Any,
) -> None:
    """Measures each workload at each number of keys a call; every system holds the records before and after.

    workloads:  of "get", "set", "delete"
    fill:       whether they are filled with the records first; what else they held is gone then
    options:    blocks, block_seconds, progress; see `harness.measure`
    """
    if fill:
        load(cache, servers, records)
    value_nbytes = round(records.describe()["value_nbytes_mean"])
    for workload in workloads:
        for n in keys:
            contestants = WORKLOADS[workload](cache, servers, records, n, seed=seed)
            params = {"records": records.name, "keys": n, "value_nbytes": value_nbytes}
            measure(contestants, run=run, workload=workload, params=params, seed=seed, **options)
            for contestant in contestants:
                contestant.prepare()  # what the last block has deleted


def measure_noise(
    run: Run, contestants: Sequence[Contestant], *, seed: int, **options: Any
) -> float:
    """The noise floor: each contestant against itself, under two names; the largest difference, added to the run."""
    twins = [replace(c, system=f"{side}: {c.system}") for c in contestants for side in "AB"]
    measure(twins, run=run, workload="a/a", params={}, seed=seed, **options)
    samples = run.frame()
    rates = samples[(samples["workload"] == "a/a") & (samples["metric"] == "throughput")]
    sides = {system: group["value"].to_numpy() for system, group in rates.groupby("system")}
    floor = max(noise_floor(sides[f"A: {c.system}"], sides[f"B: {c.system}"]) for c in contestants)
    run.add_sample("machine", "a/a", {}, ALL_BLOCKS, "noise_floor", floor, "1")
    return floor


def record_costs(
    run: Run, cache: Predis, servers: Sequence[Server], records: Records
) -> dict[str, float]:
    """Fills every system; bytes a record takes where it holds these and nothing else, added to the run as figures.

    A server's are its allocator's, less what it had given out when empty; Predis's are all it has taken for log and
    index. The host table is left out: Python does not tell what its objects take.
    """
    load(cache, servers, records.first(0))
    empty = [server.memory_nbytes() for server in servers]
    load(cache, servers, records)
    costs = {
        server.name: (server.memory_nbytes() - before) / len(records)
        for server, before in zip(servers, empty, strict=True)
        if server.ours
    }
    if backend_of(cache) == "cuda":
        costs["predis"] = cache.info("memory")["used_memory"] / len(records)
    for system, cost in costs.items():
        run.add_sample(system, "cost", {"records": records.name}, 0, "record_nbytes", cost, "B")
        run.add_figure(f"record_nbytes_{system}", cost, "B")
    return costs


def reading(
    cache: Predis, servers: Sequence[Server], records: Records, n: int, *, seed: int
) -> list[Contestant]:
    """n keys a call, all present: GET or MGET, pipelined GETs, lists and columns of Predis."""
    batches = _row_batches(len(records), n, seed)
    columns = [records.keys.take(rows) for rows in batches]
    lists = [column.to_pylist() for column in columns]
    expected = records.values.take(batches[0]).to_pylist()
    predis = f"predis-{backend_of(cache)}"
    found: list[Contestant] = []

    def enter(system: str, ask: Callable[[Any], Any], batches: list) -> None:
        check = _expecting(system, lambda: _as_list(ask(batches[0])), expected)
        found.append(Contestant(system, rotating(ask, batches), n, check))

    if n == 1:
        singles = [batch[0] for batch in lists]
        enter(f"{predis} lists", cache.get, singles)
    else:
        enter(f"{predis} lists", cache.mget, lists)
    enter(f"{predis} columns", cache.find, columns)
    for server, transport, client in by_transport(servers):
        name = server.name
        if n == 1:
            enter(f"{name} get {transport}", client.get, singles)
            continue
        enter(f"{name} mget {transport}", client.mget, lists)
        if n <= PIPELINE_MAX and name == "redis":
            enter(
                f"{name} pipeline {transport}",
                _pipelined(client, "get"),
                [[(key,) for key in b] for b in lists],
            )
    return found


def writing(
    cache: Predis, servers: Sequence[Server], records: Records, n: int, *, seed: int
) -> list[Contestant]:
    """n records a call, keys present: SET or MSET, pipelined SETs, lists and columns of Predis."""
    batches = _row_batches(len(records), n, seed)
    columns = [(records.keys.take(rows), records.values.take(rows)) for rows in batches]
    mappings = [mapping_of(*column) for column in columns]
    predis = f"predis-{backend_of(cache)}"
    found: list[Contestant] = []

    def enter(system: str, put: Callable[[Any], Any], batches: list, store: Any) -> None:
        asked = list(mappings[0])

        def wrote() -> list:
            store.delete(*asked)  # or a write that does nothing would look well done
            put(batches[0])
            return store.mget(asked)

        check = _expecting(system, wrote, list(mappings[0].values()))
        found.append(Contestant(system, rotating(put, batches), n, check))

    def put_columns(column: tuple[pa.Array, pa.Array]) -> None:
        cache.insert(*column)

    singles = [next(iter(mapping.items())) for mapping in mappings]
    if n == 1:
        enter(f"{predis} lists", _single_set(cache), singles, cache)
    else:
        enter(f"{predis} lists", cache.mset, mappings, cache)
    enter(f"{predis} columns", put_columns, columns, cache)
    for server, transport, client in by_transport(servers):
        name = server.name
        if n == 1:
            enter(f"{name} set {transport}", _single_set(client), singles, client)
            continue
        enter(f"{name} mset {transport}", client.mset, mappings, client)
        if n <= PIPELINE_MAX and name == "redis":
            items = [list(mapping.items()) for mapping in mappings]
            enter(f"{name} pipeline {transport}", _pipelined(client, "set"), items, client)
    return found


def deleting(
    cache: Predis, servers: Sequence[Server], records: Records, n: int, *, seed: int
) -> list[Contestant]:
    """n keys a call, present once: DEL, lists and columns of Predis. They are put back before each block."""
    _enough(len(records), n)
    most = min(len(records) // n, max(16, 20_000 // n))
    generator = np.random.default_rng((seed, n))
    taken = pa.array(generator.choice(len(records), most * n, replace=False))
    keys, values = records.keys.take(taken), records.values.take(taken)
    columns = [keys[i * n : (i + 1) * n] for i in range(most)]
    lists = [column.to_pylist() for column in columns]
    predis = f"predis-{backend_of(cache)}"
    found: list[Contestant] = []

    def enter(
        system: str, remove: Callable[[Any], Any], batches: list, put_back: Callable[[], Any]
    ) -> None:
        turn: Iterator = iter(())

        def prepare() -> None:
            nonlocal turn
            put_back()
            turn = iter(batches)

        def check() -> None:
            prepare()
            if [int(np.sum(remove(batches[0]))), int(np.sum(remove(batches[0])))] != [n, 0]:
                raise WrongAnswerError(f"{system} did not delete {n} keys once")

        found.append(Contestant(system, lambda: remove(next(turn)), n, check, prepare, most))

    def in_one_command(delete: Callable) -> Callable[[list], int]:
        return lambda batch: delete(*batch)

    enter(
        f"{predis} lists", in_one_command(cache.delete), lists, lambda: cache.insert(keys, values)
    )
    enter(f"{predis} columns", cache.erase, columns, lambda: cache.insert(keys, values))
    for server, transport, client in by_transport(servers):
        put_back = partial(store, client, keys, values)
        enter(f"{server.name} del {transport}", in_one_command(client.delete), lists, put_back)
    return found


WORKLOADS = {"get": reading, "set": writing, "delete": deleting}


def _enough(records: int, n: int) -> None:
    if n > records:
        raise ValueError(f"a batch of {n} distinct keys needs as many records, not {records}")


def _row_batches(records: int, n: int, seed: int) -> list[pa.Array]:
    """Batches of n row numbers, distinct within a batch, in another order in each."""
    _enough(records, n)
    generator = np.random.default_rng((seed, n))
    count = min(SINGLES, records) if n == 1 else max(2, min(BATCHES, POOL_ROWS // n))
    if count * n <= records:
        rows = generator.choice(records, (count, n), replace=False)
    else:
        rows = np.stack([generator.permutation(records)[:n] for _ in range(count)])
    return [pa.array(batch) for batch in rows]


def by_transport(servers: Sequence[Server]) -> Iterator[tuple[Server, str, Any]]:
    """A client for each way to reach each server."""
    for server in servers:
        # The second peer is measured over one transport: enough to see whether it changes the picture.
        for transport in server.transports if server.name == "redis" else server.transports[:1]:
            yield server, transport, server.client(transport)


def rotating(call: Callable[[Any], Any], batches: list) -> Callable[[], Any]:
    """Calls with one batch after the other, from the first again after the last."""
    turn = itertools.cycle(batches).__next__
    return lambda: call(turn())


def _single_set(store: Any) -> Callable[[tuple[bytes, bytes]], Any]:
    return lambda record: store.set(*record)


def _pipelined(client: Any, command: str) -> Callable[[list[tuple]], list]:
    def send(arguments: list[tuple]) -> list:
        pipeline = client.pipeline(transaction=False)
        queue = getattr(pipeline, command)
        for argument in arguments:
            queue(*argument)
        return pipeline.execute()

    return send


def mapping_of(keys: pa.Array, values: pa.Array) -> dict[bytes, bytes]:
    """Two columns as Redis's verbs take them; of equal keys the last stays."""
    return dict(zip(keys.to_pylist(), values.to_pylist(), strict=True))


def stored_of(data: Data, record: np.ndarray) -> dict[bytes, bytes]:
    """What those of some records hold that systems are filled with. record: numbers, as operations have them"""
    known = data.records(np.unique(record[record < data.count]))
    return mapping_of(known.keys, known.values)


def _as_list(answer: Any) -> list:
    if isinstance(answer, pa.Array):
        return answer.to_pylist()
    return answer if isinstance(answer, list) else [answer]


def _expecting(system: str, ask: Callable[[], list], expected: list) -> Callable[[], None]:
    def check() -> None:
        if ask() != expected:
            raise WrongAnswerError(
                f"{system} answers something else than the records it was filled with"
            )

    return check
