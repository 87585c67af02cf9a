"""How each system is asked by one client thread: single keys, or batches made beforehand that rotate. Called by `worker`.

Both systems get the same operations. Predis is asked by columns where a call carries many keys, Redis by MGET and MSET over
a unix socket: the way that serves it best in most cells of notebook 06.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ..bench.contestants import SINGLES, WrongAnswerError, backend_of, mapping_of, stored_of
from ..bench.operations import Batch, Operations, Verb, hinted
from ..bench.scenarios import Scenario
from ..client import Predis

BATCHES = 32  # that rotate, unless
POOL_NBYTES = 2**26  # they would take more than this, of all threads together
Call = Callable[[Any], Any]
Single = tuple[bytes, bytes | None]  # key, and value where it is written


@dataclass(frozen=True)
class Sent:
    """One call's operations, as columns and as lists of bytes.

    written:  what is stored; of equal keys the last
    coming:   the keys that the next call reads, where they are announced
    """

    reads: pa.Array
    write_keys: pa.Array
    write_values: pa.Array
    read_list: list[bytes]
    written: dict[bytes, bytes]
    coming: pa.Array | None

    @classmethod
    def of(cls, batch: Batch, coming: pa.Array | None) -> Sent:
        """In both forms."""
        keys, values = batch.write_keys, batch.write_values
        written = mapping_of(keys, values)
        return cls(batch.read_keys, keys, values, batch.read_keys.to_pylist(), written, coming)


@dataclass
class Part:
    """One client's share of a system's load. `work` never ends."""

    call: Call
    work: Iterator[Any]

    def play(self) -> None:
        """The next call."""
        self.call(next(self.work))


def system_names(cache: Predis, batch: int, transport: str) -> tuple[str, str]:
    """What samples call the two sides."""
    face, command = ("lists", "get") if batch == 1 else ("columns", "mget")
    return f"predis-{backend_of(cache)} {face}", f"redis {command} {transport}"


def work_of(scenario: Scenario, batch: int, *, threads: int, hints: bool, seed: int) -> list[list]:
    """For each thread what it sends, call by call: singles, or batches."""
    if batch == 1:
        operations = scenario.operations(SINGLES * threads, seed=seed)
        return [singles_of(scenario, operations[i::threads]) for i in range(threads)]
    batches = _batches_at_most(scenario, batch * threads)
    operations = scenario.operations(batches * batch * threads, seed=seed)
    return [
        _sent(operations[i::threads].batches(scenario.data, batch), hints) for i in range(threads)
    ]


def singles_of(scenario: Scenario, operations: Operations) -> list[Single]:
    """Each operation as key and, where it writes, value."""
    keys = scenario.data.keys(operations.record).to_pylist()
    values = scenario.data.values(operations.record, operations.value_nbytes).to_pylist()
    writes = operations.verb != Verb.READ
    return [(k, v if w else None) for k, v, w in zip(keys, values, writes, strict=True)]


def parts_of(work: list[list], calls: list[Call]) -> list[Part]:
    """One part a thread, each beginning at its first batch."""
    return [Part(call, itertools.cycle(own)) for call, own in zip(calls, work, strict=True)]


def single(store: Any) -> Call:
    """GET or SET of anything that has redis-py's verbs; the value read, or None."""
    get, put = store.get, store.set

    def play(operation: Single) -> Any:
        key, value = operation
        return get(key) if value is None else put(key, value) and None

    return play


def columns(cache: Predis) -> Call:
    """Predis by columns: what comes next is announced, then reads, then writes; the values read."""

    def play(sent: Sent) -> pa.Array:
        if sent.coming is not None:
            cache.prefetch(sent.coming)
        answer = cache.find(sent.reads)
        if sent.written:
            cache.insert(sent.write_keys, sent.write_values).raise_for_status()
        return answer

    return play


def commands(client: Any) -> Call:
    """Redis by one MGET and one MSET; the values read."""

    def play(sent: Sent) -> list:
        answer = client.mget(sent.read_list) if sent.read_list else []
        if sent.written:
            client.mset(sent.written)
        return answer

    return play


def check(system: str, call: Call, scenario: Scenario, batch: int, seed: int) -> None:
    """Plays one call and raises WrongAnswerError where what it read is not what was stored.

    Holds at any time: what a record holds depends on nothing but its number.
    """
    operations = scenario.operations(max(batch, SINGLES if batch == 1 else 1), seed=seed)[:batch]
    stored = stored_of(scenario.data, operations.record)
    if batch == 1:
        (operation,) = singles_of(scenario, operations)
        keys, answer = ([operation[0]] if operation[1] is None else []), [call(operation)]
    else:
        (sent,) = _sent(operations.batches(scenario.data, batch), hints=False)
        keys, told = sent.read_list, call(sent)
        answer = told.to_pylist() if isinstance(told, pa.Array) else told
    if answer[: len(keys)] != [stored.get(key) for key in keys]:
        raise WrongAnswerError(f"{system} answers something else than what was stored")


def _sent(batches: Iterator[Batch], hints: bool) -> list[Sent]:
    pairs = hinted(batches) if hints else ((batch, None) for batch in batches)
    return [Sent.of(batch, coming) for batch, coming in pairs]


def _batches_at_most(scenario: Scenario, operations: int) -> int:
    """How many batches rotate, where a batch of all threads together has so many operations."""
    value_nbytes = int(scenario.data.value_nbytes(np.zeros(1, np.int64))[0])
    return int(np.clip(POOL_NBYTES // (operations * (value_nbytes + 100)), 4, BATCHES))
