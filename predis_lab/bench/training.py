"""Training: batches of samples found as tensors that feed a matrix product. Called by notebook 07.

Two workloads, both in calls of one batch whose records are `scenarios.ml_training`'s:

    delivery    until the samples are a tensor where the product is computed
    training    the whole step: delivery, the product, and the next batch's keys announced in between; the share of the
                step that was spent waiting for the data is a metric of its own (waiting_share)

Where Predis's records lie on a GPU that is where the tensors are: Predis finds them as rows on the device ("tensors"), or
as bytes that are decoded and uploaded as Redis's answers have to be. Elsewhere both are arrays of the host, and NumPy does
the product; no figure of those is one of a GPU.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from ..client import Predis
from .contestants import WrongAnswerError, backend_of, by_transport, load, mapping_of
from .harness import Contestant, measure
from .operations import Batch, hinted
from .results import Run
from .scenarios import DIMENSIONS, SAMPLES, Scenario
from .servers import Server

BATCHES = 16  # that rotate

Fetch = Callable[["Turn"], Any]  # a batch's samples as a tensor


@dataclass(frozen=True)
class Turn:
    """A batch: its keys in both forms, the next one's, and what its samples are (n, DIMENSIONS)."""

    keys: pa.Array
    key_list: list[bytes]
    announced: pa.Array
    expected: np.ndarray


@dataclass
class Place:
    """Where tensors lie and products are computed: a GPU with CuPy, or the host with NumPy. wait: until all is done there"""

    xp: Any
    wait: Callable[[], object]

    @classmethod
    def of(cls, cache: Predis) -> Place:
        """The cache's own."""
        if backend_of(cache) != "cuda":
            return cls(np, lambda: None)
        import cupy

        return cls(cupy, lambda: cupy.cuda.get_current_stream().synchronize())

    @property
    def on_device(self) -> bool:
        """Whether it is a GPU."""
        return self.xp is not np

    def tensor(self, data: bytes | np.ndarray, dtype: np.dtype) -> Any:
        """Rows of samples from their bytes; uploaded where the place is a GPU."""
        return self.xp.asarray(np.frombuffer(data, dtype).reshape(-1, DIMENSIONS))

    def product(self, samples: Any, weights: Any) -> Any:
        """samples @ weights: on tensor cores in half precision; the host has none, and multiplies in float32."""
        return samples @ weights if self.on_device else samples.astype("f4") @ weights

    def host(self, tensor: Any) -> np.ndarray:
        """A copy on the host."""
        return self.xp.asnumpy(tensor) if self.on_device else tensor


@dataclass
class Trainer:
    """One way to fetch samples, over and over. data_s, step_s: time for data, and for all, since `begin`"""

    place: Place
    fetch: Fetch
    announce: Callable[[pa.Array], object]
    turns: Sequence[Turn]
    weights: Any
    data_s: float = 0.0
    step_s: float = 0.0
    last: tuple[Turn, Any] | None = None
    queue: Any = field(init=False)

    def __post_init__(self) -> None:
        self.queue = itertools.cycle(self.turns)

    def begin(self) -> None:
        """Forgets what was measured so far."""
        self.data_s = self.step_s = 0.0
        self.last = None

    def deliver(self) -> None:
        """The next batch, until it is there."""
        turn = next(self.queue)
        samples = self.fetch(turn)
        self.place.wait()
        self.last = turn, samples

    def step(self) -> None:
        """The next batch, and what is done with it."""
        began = time.perf_counter()
        self.deliver()
        there = time.perf_counter()
        turn, samples = self.last  # type: ignore[misc]
        self.announce(turn.announced)
        self.place.product(samples, self.weights)
        self.place.wait()
        self.data_s += there - began
        self.step_s += time.perf_counter() - began

    def tell(self) -> dict[str, tuple[float, str]]:
        """Share of the last batch's samples that were wrong, and of the steps' time that was waiting."""
        metrics = {"error_rate": (self.wrong(), "1")}
        if self.step_s:
            metrics["waiting_share"] = (self.data_s / self.step_s, "1")
        return metrics

    def wrong(self) -> float:
        """Share of the last batch's samples that are not what was stored."""
        assert self.last is not None
        turn, samples = self.last
        told = self.place.host(samples)
        if told.shape != turn.expected.shape:
            return 1.0
        return float((told != turn.expected).any(axis=1).mean())


def measure_training(
    run: Run,
    cache: Predis,
    servers: Sequence[Server],
    scenario: Scenario,
    *,
    outputs: int,
    seed: int,
    **options: Any,
) -> None:
    """Fills every system with the samples and measures delivery and training.

    scenario:  of `ml_training`, with a batch of records or more
    outputs:   columns of the weights that samples are multiplied with
    options:   blocks, block_seconds, progress (two rounds a block); see `harness.measure`
    """
    load(cache, servers, scenario.data.filled())
    for workload in ("delivery", "training"):
        contestants = training(cache, servers, scenario, workload, outputs=outputs, seed=seed)
        params = {
            "records": scenario.name,
            "keys": SAMPLES,
            "value_nbytes": DIMENSIONS * dtype_of(scenario).itemsize,
        }
        measure(contestants, run=run, workload=workload, params=params, seed=seed, **options)


def dtype_of(scenario: Scenario) -> np.dtype:
    """Of a sample's numbers, which its name ends with."""
    return np.dtype(scenario.name.rpartition("_")[2])


def training(
    cache: Predis,
    servers: Sequence[Server],
    scenario: Scenario,
    workload: str,
    *,
    outputs: int,
    seed: int,
) -> list[Contestant]:
    """Tensors and bytes of Predis, MGET of each server, and a dict; all hold the samples already."""
    place, dtype = Place.of(cache), dtype_of(scenario)
    turns = turns_of(scenario, dtype, seed)
    generator = np.random.default_rng((seed, 16))
    weights = generator.standard_normal((DIMENSIONS, outputs)).astype(
        dtype if place.on_device else "f4"
    )
    weights = place.xp.asarray(weights)
    predis, found = f"predis-{backend_of(cache)} columns", []

    def enter(
        system: str, fetch: Fetch, announce: Callable[[pa.Array], object] = lambda _: None
    ) -> None:
        trainer = Trainer(place, fetch, announce, turns, weights)

        def check() -> None:
            trainer.step()
            if trainer.wrong():
                raise WrongAnswerError(
                    f"{system} answers something else than the samples it was filled with"
                )

        call = trainer.deliver if workload == "delivery" else trainer.step
        found.append(Contestant(system, call, SAMPLES, check, trainer.begin, tell=trainer.tell))

    def rows(turn: Turn) -> Any:
        return cache.find(turn.keys, dtype=dtype, shape=(DIMENSIONS,), device=place.on_device)[0]

    def decoded(turn: Turn) -> Any:
        return place.tensor(_bytes_of(cache.find(turn.keys)), dtype)

    def mget(client: Any, turn: Turn) -> Any:
        return place.tensor(b"".join(client.mget(turn.key_list)), dtype)

    enter(f"{predis} tensors", rows, cache.prefetch)
    enter(predis, decoded, cache.prefetch)
    for server, transport, client in by_transport(servers):
        enter(f"{server.name} mget {transport}", partial(mget, client))
    filled = scenario.data.filled()
    table = mapping_of(filled.keys, filled.values)
    enter("dict", lambda turn: place.tensor(b"".join([table[key] for key in turn.key_list]), dtype))
    return found


def turns_of(scenario: Scenario, dtype: np.dtype, seed: int) -> list[Turn]:
    """Batches of an epoch or several, each with the next one's keys."""
    data = scenario.data
    operations = scenario.operations(BATCHES * SAMPLES, seed=seed)
    batches = list(operations.batches(data, SAMPLES))
    parts = operations.record.reshape(BATCHES, SAMPLES)

    def turn(batch: Batch, announced: pa.Array | None, record: np.ndarray) -> Turn:
        values = b"".join(data.records(record).values.to_pylist())
        expected = np.frombuffer(values, dtype).reshape(-1, DIMENSIONS)
        follows = batches[0].read_keys if announced is None else announced  # they rotate
        return Turn(batch.read_keys, batch.read_keys.to_pylist(), follows, expected)

    return [turn(*pair, record) for pair, record in zip(hinted(iter(batches)), parts, strict=True)]


def _bytes_of(found: pa.Array) -> np.ndarray:
    """All values of an answer without misses, one after the other, without a copy."""
    offsets = np.frombuffer(found.buffers()[1], np.int32 if found.type == pa.binary() else np.int64)
    first, last = offsets[found.offset], offsets[found.offset + len(found)]
    return np.frombuffer(found.buffers()[2], np.uint8)[first:last]
