"""Scenarios played operation by operation: get and set, each answered before the next is asked. Called by notebook 07.

Redis's client, Predis with and without its hot tier, and a dict do the same operations in the same order. Every answer is
kept while the clock runs, and looked at when it has stopped: what is wrong, missing or refused makes the error rate.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..client import Predis
from .contestants import WrongAnswerError, backend_of, by_transport, load, mapping_of
from .harness import Contestant, measure
from .operations import Operations, Verb, of_one_size, written
from .results import Run
from .scenarios import Scenario
from .servers import ERRORS, Server
from .statistics import median_interval

STEPS = 20_000  # operations that rotate

REFUSED = object()  # the answer to what raised an error
CHECKED = 100  # operations that have to be right before anything is timed

Get = Callable[[bytes], Any]
Put = Callable[..., Any]


@dataclass(frozen=True)
class Steps:
    """Operations as Python objects.

    asked:     key, value to be written or None, time to live (s, 0 for no end), whether the key is read
    expected:  what a read has to answer; missing: whether None will do as well
    """

    asked: list[tuple[bytes, bytes | None, int, bool]]
    expected: list[bytes]
    missing: list[bool]

    @classmethod
    def of(cls, scenario: Scenario, operations: Operations) -> Steps:
        """Deletes are left out: no scenario has any."""
        data, record = scenario.data, operations.record
        stored = data.records(record)
        keys, values = stored.keys.to_pylist(), stored.values.to_pylist()
        writes = np.isin(operations.verb, (Verb.WRITE, Verb.READ_MODIFY_WRITE))
        reads = (operations.verb != Verb.WRITE).tolist()
        ttl = np.zeros(len(record), int) if operations.ttl_s is None else operations.ttl_s
        put = [value if write else None for value, write in zip(values, writes, strict=True)]
        asked = list(zip(keys, put, ttl.tolist(), reads, strict=True))
        missing = np.full(len(record), operations.ttl_s is not None) | (record >= data.count)
        return cls(asked, values, missing.tolist())

    def wrong(self, start: int, answers: Sequence[Any]) -> int:
        """How many of the answers, of which the first is that of step `start`, are refusals or not what was stored."""
        steps = itertools.islice(itertools.cycle(range(len(self.asked))), start, None)
        return sum(
            not self._right(step, answer) for answer, step in zip(answers, steps, strict=False)
        )

    def _right(self, step: int, answer: Any) -> bool:
        if not self.asked[step][3]:
            return answer is None
        return answer == self.expected[step] or (answer is None and self.missing[step])


class Player:
    """Plays steps on one system, over and over; `turn` does the next one."""

    def __init__(self, steps: Steps, get: Get, put: Put):
        self._steps = steps
        self._answers: list[Any] = []
        self._start = 0
        self.turn = self._playing(get, put).__next__

    def _playing(self, get: Get, put: Put) -> Iterator[None]:
        # A generator, whose next step costs less than a call: what is to be measured may be as fast as a dict.
        keep = self._answers.append
        for key, value, ttl, reads in itertools.cycle(self._steps.asked):
            answer = None
            try:
                if reads:
                    answer = get(key)
                if value is not None:
                    put(key, value, ttl) if ttl else put(key, value)
            except ERRORS:
                answer = REFUSED
            keep(answer)
            yield

    def begin(self) -> None:
        """What was played so far is no part of the next block."""
        self._start = (self._start + len(self._answers)) % len(self._steps.asked)
        self._answers.clear()

    def tell(self) -> dict[str, tuple[float, str]]:
        """The error rate since `begin`."""
        wrong = self._steps.wrong(self._start, self._answers)
        return {"error_rate": (wrong / max(1, len(self._answers)), "1")}


def hot_reads(records: int = 1000) -> Scenario:
    """Reads alone, of few small records: as hot as they can be."""
    data = of_one_size("hot reads", records, 16, 64)

    def make(n: int, seed: int) -> Operations:
        generator = np.random.default_rng((seed, 15))
        return written(data, np.full(n, Verb.READ, np.uint8), generator.integers(0, records, n))

    return Scenario(data.name, data, make)


def measure_single(
    run: Run,
    cache: Predis,
    hot: Predis,
    servers: Sequence[Server],
    scenario: Scenario,
    *,
    seed: int,
    **options: Any,
) -> None:
    """Fills every system with the scenario's records and plays it one operation at a time.

    hot:      a cache with a hot tier
    options:  blocks, block_seconds, progress; see `harness.measure`
    """
    filled = scenario.data.filled()
    load(cache, servers, filled)
    load(hot, [], filled)
    value_nbytes = round(filled.describe()["value_nbytes_mean"])
    params = {"records": scenario.name, "keys": 1, "value_nbytes": value_nbytes}
    contestants = singles(cache, hot, servers, scenario, seed=seed)
    measure(contestants, run=run, workload="single", params=params, seed=seed, **options)


def singles(
    cache: Predis, hot: Predis, servers: Sequence[Server], scenario: Scenario, *, seed: int
) -> list[Contestant]:
    """Predis without and with its hot tier, GET and SET of each server, and a dict; all hold the records already."""
    steps = Steps.of(scenario, scenario.operations(STEPS, seed=seed))
    return [
        contestant(name, Player(steps, *asked), steps)
        for name, asked in stores(cache, hot, servers, scenario)
    ]


def stores(
    cache: Predis, hot: Predis, servers: Sequence[Server], scenario: Scenario
) -> Iterator[tuple[str, tuple[Get, Put]]]:
    """How each system is asked for one record, and told one, by the system's name."""
    predis = f"predis-{backend_of(cache)} lists"
    yield predis, (cache.get, cache.set)
    yield f"{predis} hot", (hot.get, hot.set)
    for server, transport, client in by_transport(servers):
        yield f"{server.name} single {transport}", (client.get, client.set)
    filled = scenario.data.filled()
    yield "dict", of_dict(mapping_of(filled.keys, filled.values))


def of_dict(table: dict[bytes, bytes]) -> tuple[Get, Put]:
    """A dict's reads and writes; it knows no time to live."""

    def put(key: bytes, value: bytes, ttl_s: int = 0) -> None:
        table[key] = value

    return table.get, put


def contestant(system: str, player: Player, steps: Steps) -> Contestant:
    """A player as a contestant, who has to answer as many steps as there are keys in a batch before it is timed."""

    def check() -> None:
        player.begin()
        for _ in range(min(CHECKED, len(steps.asked))):
            player.turn()
        if player.tell()["error_rate"][0]:
            raise WrongAnswerError(f"{system} answers something else than what was stored")

    return Contestant(system, player.turn, check=check, prepare=player.begin, tell=player.tell)


def measure_generator(run: Run, scenario: Scenario, *, seed: int, **options: Any) -> float:
    """Operations a second when nobody is asked: what the measuring itself can do. Added to the run as a figure."""
    steps = Steps.of(scenario, scenario.operations(STEPS, seed=seed))
    player = Player(steps, lambda _: None, lambda *_: None)
    nobody = Contestant("nobody", player.turn, prepare=player.begin)
    measure([nobody], run=run, workload="generator", params={}, seed=seed, **options)
    samples = run.frame()
    rates = samples[(samples["system"] == "nobody") & (samples["metric"] == "throughput")]
    run.add_interval("generator", median_interval(rates["value"].to_numpy()), "1/s")
    return float(rates["value"].median())
