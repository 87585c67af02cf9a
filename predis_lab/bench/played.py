"""Scenarios played against Predis, real servers and a plain dict: one batch of operations a call. Called by notebook 07.

Each system is asked in its own best way, from batches made beforehand that rotate. A batch's writes are sent before its
reads where reads ask for what it inserts, and after them where it modifies what it read. What is read is compared with what
the scenario says was stored, for each system before anything is timed, and after each block for its last batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from ..client import Predis
from .contestants import (
    WrongAnswerError,
    backend_of,
    by_transport,
    load,
    mapping_of,
    rotating,
    stored_of,
)
from .harness import Contestant, measure
from .operations import Batch, Data, Verb
from .results import Run
from .scenarios import Scenario
from .servers import ERRORS, Server

BATCHES = 32  # that rotate
INSERTS_FIRST = ("ycsb_d",)  # whose reads ask for what the same batch inserts
CHECKED = 200  # reads of a batch whose answers are looked at


@dataclass(frozen=True)
class Turn:
    """One batch, as columns and as lists of bytes.

    writes:    keys, values and time to live (s, None for no end), by the latter
    expected:  what the first `CHECKED` reads have to answer; None where nothing was stored before
    mortal:    whether what was stored may have expired
    """

    reads: pa.Array
    writes: list[tuple[pa.Array, pa.Array, int | None]]
    read_list: list[bytes]
    write_lists: list[tuple[dict[bytes, bytes], int | None]]
    expected: list[bytes | None]
    mortal: bool

    @classmethod
    def of(cls, batch: Batch, data: Data, record: np.ndarray) -> Turn:
        """In both forms; of equal keys that are written with one time to live the last stays. record: of the batch"""
        writes = []
        if len(batch.write_keys):
            ttl = batch.write_ttl_s
            for seconds in [0] if ttl is None else np.unique(ttl):
                rows = slice(None) if ttl is None else pa.array(np.flatnonzero(ttl == seconds))
                sides = [
                    side if ttl is None else side.take(rows)
                    for side in (batch.write_keys, batch.write_values)
                ]
                writes.append((*sides, int(seconds) or None))
        lists = [(mapping_of(keys, values), ttl) for keys, values, ttl in writes]
        stored = stored_of(data, record)
        reads = batch.read_keys.to_pylist()
        expected = [stored.get(key) for key in reads[:CHECKED]]
        return cls(batch.read_keys, writes, reads, lists, expected, batch.write_ttl_s is not None)

    def wrong(self, answer: Any, *, missing: bool) -> int:
        """How many of the reads that are looked at were not answered with what was stored. missing: whether None will do"""
        told = answer[: len(self.expected)]
        told = told.to_pylist() if isinstance(told, pa.Array) else told
        return sum(
            value != expected and not (missing and value is None)
            for value, expected in zip(told, self.expected, strict=True)
            if expected is not None
        )


@dataclass
class Heard:
    """What a system answered since `begin`: calls, those that were refused, and the last batch with its answer."""

    calls: int = 0
    refused: int = 0
    last: tuple[Turn, Any] | None = None

    def begin(self) -> None:
        """Forgets what was heard so far."""
        self.calls, self.refused, self.last = 0, 0, None

    def tell(self) -> dict[str, tuple[float, str]]:
        """Refused calls as a share of all, and of the others the share that is wrong among the last one's reads."""
        refused = self.refused / max(1, self.calls)
        wrong = 0.0
        if self.last is not None:
            turn, answer = self.last
            wrong = turn.wrong(answer, missing=turn.mortal) / max(1, len(turn.expected))
        return {"error_rate": (refused + (1 - refused) * wrong, "1")}


def measure_scenario(
    run: Run,
    cache: Predis,
    servers: Sequence[Server],
    scenario: Scenario,
    sizes: Sequence[int],
    *,
    seed: int,
    **options: Any,
) -> None:
    """Fills every system with the scenario's records and plays it in batches of each size.

    options: blocks, block_seconds, progress; see `harness.measure`
    """
    filled = scenario.data.filled()
    value_nbytes = round(filled.describe()["value_nbytes_mean"])
    for size in sizes:
        # Anew, since what was written with a time to live is gone after it.
        load(cache, servers, filled)
        contestants = playing(cache, servers, scenario, size, seed=seed)
        params = {"records": scenario.name, "keys": size, "value_nbytes": value_nbytes}
        measure(contestants, run=run, workload="played", params=params, seed=seed, **options)


def playing(
    cache: Predis, servers: Sequence[Server], scenario: Scenario, size: int, *, seed: int
) -> list[Contestant]:
    """Columns and lists of Predis, MGET and MSET or pipelines of each server, and a dict; all hold the records already."""
    operations = scenario.operations(BATCHES * size, seed=seed)
    turns = [
        Turn.of(batch, scenario.data, operations.record[number * size : (number + 1) * size])
        for number, batch in enumerate(operations.batches(scenario.data, size))
    ]
    inserts_first = scenario.name in INSERTS_FIRST
    predis, found = f"predis-{backend_of(cache)}", []

    def enter(system: str, read: Callable[[Turn], Any], write: Callable[[Turn], Any]) -> None:
        heard = Heard()

        def ask(turn: Turn) -> Any:
            if inserts_first:
                write(turn)
            answer = read(turn)
            if not inserts_first:
                write(turn)
            return answer

        def play(turn: Turn) -> None:
            heard.calls += 1
            try:
                heard.last = turn, ask(turn)
            except ERRORS:
                heard.refused += 1

        def check() -> None:
            if turns[0].wrong(ask(turns[0]), missing=False):
                raise WrongAnswerError(f"{system} answers something else than what was stored")

        call = rotating(play, turns)
        found.append(Contestant(system, call, size, check, heard.begin, tell=heard.tell))

    def insert(turn: Turn) -> None:
        for keys, values, ttl in turn.writes:
            cache.insert(keys, values, ex=ttl).raise_for_status()

    def mset(turn: Turn) -> None:
        for records, ttl in turn.write_lists:
            if ttl is None:
                cache.mset(records)
            else:
                cache.insert(list(records), list(records.values()), ex=ttl).raise_for_status()

    enter(f"{predis} columns", lambda turn: cache.find(turn.reads), insert)
    enter(f"{predis} lists", lambda turn: cache.mget(turn.read_list), mset)
    modifies = Verb.READ_MODIFY_WRITE in operations.mix()
    for server, transport, client in by_transport(servers):
        enter(f"{server.name} mget {transport}", partial(_mget, client), partial(_mset, client))
        if server.name == "redis":
            piped = f"redis pipeline {transport}"
            if modifies:  # what was read is wanted before anything is written
                enter(
                    piped,
                    partial(_piped, client, writes=False),
                    partial(_piped, client, reads=False),
                )
            else:
                enter(piped, partial(_piped, client, inserts_first=inserts_first), lambda _: None)
    filled = scenario.data.filled()
    table = mapping_of(filled.keys, filled.values)

    def update(turn: Turn) -> None:
        for records, _ in turn.write_lists:
            table.update(records)

    enter("dict", lambda turn: [table.get(key) for key in turn.read_list], update)
    return found


def _mget(client: Any, turn: Turn) -> list:
    return client.mget(turn.read_list) if turn.read_list else []


def _mset(client: Any, turn: Turn) -> None:
    """One MSET; what has a time to live, which MSET knows nothing of, in a pipeline."""
    if any(ttl for _, ttl in turn.write_lists):
        _piped(client, turn, reads=False)
    else:
        for records, _ in turn.write_lists:
            client.mset(records)


def _piped(
    client: Any, turn: Turn, *, reads: bool = True, writes: bool = True, inserts_first: bool = False
) -> list:
    """The batch in one pipeline; what was read."""
    pipeline, answers = client.pipeline(transaction=False), slice(None)

    def write() -> None:
        for records, ttl in turn.write_lists if writes else ():
            for key, value in records.items():
                pipeline.set(key, value, ex=ttl)

    if inserts_first:
        write()
    if reads:
        answers = slice(len(pipeline), len(pipeline) + len(turn.read_list))
        for key in turn.read_list:
            pipeline.get(key)
    if not inserts_first:
        write()
    return pipeline.execute()[answers]
