"""Workloads by description: trading, training, gaming, YCSB, production clusters. Called by notebooks and the dashboard.

    scenario = SCENARIOS["ycsb_a"]()
    for batch in scenario.operations(1_000_000, seed=1).batches(scenario.data, 1000): ...

Clients side by side share one stream, each a slice of it: streams of two seeds would insert the same records. Times are
those of the day that is described; `Operations.paced` brings them to another rate.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from .operations import (
    Data,
    Operations,
    Verb,
    arrivals,
    drawn,
    hotspot,
    latest,
    numbered_keys,
    of_one_size,
    scrambled,
    stamped,
    written,
    zipf,
)
from .workloads import fixed_array

HOUR_S = 3600.0


@dataclass(frozen=True)
class Scenario:
    """A workload: the records a cache is filled with, and what is then done to them.

    make:  number of operations, seed -> operations
    """

    name: str
    data: Data
    make: Callable[[int, int], Operations]

    def operations(self, n: int, *, seed: int = 0) -> Operations:
        """n operations; the seed tells which."""
        return self.make(n, seed)


# ---- Trading

TRADING_READS = 0.9
HOT_SHARE = 0.8  # of reads, to the hot tenth
TRADING_DAY_S = 6.5 * HOUR_S


def market_day() -> np.ndarray:
    """Relative rates over a trading day, minute by minute: seven times as many at the open, six at the close as at noon.

    A U, as volume has it (Jain, Joh: The dependence between hourly prices and trading volume, 1988); the heights are ours.
    """
    since_open = (np.arange(390) + 0.5) / 390
    return 1 + 6 * np.exp(-since_open / 0.05) + 5 * np.exp((since_open - 1) / 0.05)


def trading(records: int = 1000) -> Scenario:
    """Quotes by symbol: 90 % reads of all symbols, most of the hot tenth; all writes go to the hot tenth, which tick.

    records:  10 or more
    """
    data = of_one_size("trading", records, 16, 64)
    hot = records // 10

    def make(n: int, seed: int) -> Operations:
        generator = np.random.default_rng((seed, 10))
        verb = _verbs(generator, {Verb.READ: TRADING_READS, Verb.WRITE: 1 - TRADING_READS}, n)
        rank = hotspot(generator, records, hot, HOT_SHARE, n)
        writes = verb == Verb.WRITE
        rank[writes] = generator.integers(0, hot, np.count_nonzero(writes))
        start_s = arrivals(generator, market_day(), TRADING_DAY_S, n)
        return written(data, verb, scrambled(rank, records), start_s=start_s)

    return Scenario(data.name, data, make)


# ---- Training

SAMPLES = 1000  # a batch
DIMENSIONS = 512
_DIGIT = 2048  # numbers up to here are exact in float16


def vectors(records: int, dtype: type[np.floating]) -> Data:
    """Samples of a training set: vectors of one type. The first four elements are the record's number, base 2,048."""
    width = DIMENSIONS * np.dtype(dtype).itemsize
    shared = np.random.default_rng(0).standard_normal(DIMENSIONS).astype(dtype)

    def values(numbers: np.ndarray, sizes: np.ndarray) -> pa.Array:
        grid = np.empty((len(numbers), DIMENSIONS), dtype)
        grid[:] = shared
        for place in range(4):
            grid[:, place] = numbers // _DIGIT**place % _DIGIT
        return fixed_array(grid.reshape(-1).view(np.uint8), width, len(numbers))

    return Data(
        f"ml_training_{np.dtype(dtype).name}",
        records,
        keys=lambda numbers: numbered_keys(numbers, 16),
        value_nbytes=lambda numbers: np.full(len(numbers), width, np.int32),
        values=values,
    )


def ml_training(records: int = 100_000, *, dtype: type[np.floating]) -> Scenario:
    """Epochs over a training set, each a new permutation: every record is read once an epoch, batches have `SAMPLES`.

    What comes next is known: `operations.hinted` gives each batch together with the keys of the next one.
    """
    data = vectors(records, dtype)

    def make(n: int, seed: int) -> Operations:
        generator = np.random.default_rng((seed, 11))
        epochs = [generator.permutation(records) for _ in range(-(-n // records))]
        record = np.concatenate([*epochs, np.empty(0, np.int64)])[:n]
        return written(data, np.full(n, Verb.READ, np.uint8), record)

    return Scenario(data.name, data, make)


# ---- Gaming

GAMING_READS = 0.7
SESSION = 20  # operations on average
PAUSE_S = 30.0  # between two of a session, on average
GAMING_DAY_S = 24 * HOUR_S
_STATES = 1024


def login_day() -> np.ndarray:
    """Relative rates of logins over a day, minute by minute: a peak at 20:30, a lower one at 12:30, few at night."""
    hour = (np.arange(1440) + 0.5) / 60
    return 0.2 + 2 * np.exp(-(((hour - 20.5) / 2) ** 2)) + 0.8 * np.exp(-((hour - 12.5) ** 2))


@functools.cache
def player_states() -> pa.Array:
    """States of players as JSON, 0.5 to 3.6 kB: inventory and quests grow with the level. All begin alike."""
    generator = np.random.default_rng(0)
    states = []
    for level in generator.integers(1, 61, _STATES).tolist():
        throws = iter(generator.integers(1, 1_000_000, 400).tolist())
        state = {
            "player": "0" * 12,
            "level": level,
            "experience": level * 10_000 + next(throws) % 10_000,
            "gold": next(throws),
            "position": {axis: next(throws) / 100 for axis in "xyz"},
            "stats": {name: next(throws) % 100 for name in ("strength", "agility", "wit", "luck")},
            "inventory": [
                {"item": next(throws), "count": next(throws) % 99 + 1, "worn": next(throws) % 101}
                for _ in range(5 + level)
            ],
            "quests": {f"quest-{next(throws)}": next(throws) % 5 for _ in range(2 + level)},
        }
        states.append(json.dumps(state, separators=(",", ":")))
    return pa.array(states, pa.binary())


def players(records: int) -> Data:
    """Players' states; each names its player, the rest is one of a pool's."""
    states = player_states()
    sizes = np.diff(np.frombuffer(states.buffers()[1], np.int32)[: _STATES + 1])
    at = len('{"player":"')
    places = 10 ** np.arange(11, -1, -1)

    def values(numbers: np.ndarray, nbytes: np.ndarray) -> pa.Array:
        digits = numbers[:, None] // places % 10 + ord("0")
        return stamped(states.take(pa.array(numbers % _STATES)), at, digits.astype(np.uint8))

    return Data(
        "gaming",
        records,
        keys=lambda numbers: numbered_keys(numbers, 16),
        value_nbytes=lambda numbers: sizes[numbers % _STATES],
        values=values,
    )


def gaming(records: int = 100_000) -> Scenario:
    """Sessions of players: a login reads the player's state, then it is read and updated now and then; 70 % reads in all.

    Logins follow `login_day`; a session has `SESSION` operations on average (geometric), `PAUSE_S` between two
    (exponential), and one that begins late goes on after midnight. Players are drawn uniformly.
    """
    data = players(records)

    def make(n: int, seed: int) -> Operations:
        generator = np.random.default_rng((seed, 12))
        length = generator.geometric(1 / SESSION, -(-n // SESSION) * 2 + 100)
        ends = np.cumsum(length)
        sessions = int(np.searchsorted(ends, n)) + 1 if n else 0
        first = np.concatenate([[0], ends])[:sessions]
        length = np.diff(first, append=n)
        # The rest of a session has so many reads that, with the one of the login, the share of all is as described.
        rest = (GAMING_READS * SESSION - 1) / (SESSION - 1)
        verb = _verbs(generator, {Verb.READ: rest, Verb.WRITE: 1 - rest}, n)
        verb[first] = Verb.READ
        pauses = generator.exponential(PAUSE_S, n)
        since = np.cumsum(pauses)
        login = arrivals(generator, login_day(), GAMING_DAY_S, sessions)
        start_s = np.repeat(login - since[first], length) + since
        record = np.repeat(generator.integers(0, records, sessions), length)
        order = np.argsort(start_s, kind="stable")
        return written(data, verb[order], record[order], start_s=start_s[order])

    return Scenario(data.name, data, make)


# ---- YCSB

YCSB_ALPHA = 0.99
# Cooper et al.: Benchmarking cloud serving systems with YCSB, SoCC 2010; the files workloada to workloadf of its release.
YCSB_MIX = {
    "a": {Verb.READ: 0.5, Verb.WRITE: 0.5},
    "b": {Verb.READ: 0.95, Verb.WRITE: 0.05},
    "c": {Verb.READ: 1.0},
    "d": {Verb.READ: 0.95, Verb.WRITE: 0.05},
    "f": {Verb.READ: 0.5, Verb.READ_MODIFY_WRITE: 0.5},
}


def ycsb(records: int = 1_000_000, *, letter: str) -> Scenario:
    """YCSB's core workloads on records of 1,000 bytes (ten fields of 100): Zipf with 0.99 over scrambled records.

    In D writes are inserts, and reads ask for what was inserted last; an insert counts as done at once, so of a batch the
    writes are sent first. E is absent: it scans key ranges, and a hash table has no order. YCSB's update writes one
    field; here, as in any cache of whole values, it writes the record. Keys have 23 bytes, as "user" and 19 digits have.
    """
    data = of_one_size(f"ycsb_{letter}", records, 23, 1000)
    mix = YCSB_MIX[letter]

    def make(n: int, seed: int) -> Operations:
        generator = np.random.default_rng((seed, 13))
        verb = _verbs(generator, mix, n)
        if letter == "d":
            record = latest(generator, verb == Verb.WRITE, records, YCSB_ALPHA)
        else:
            record = scrambled(zipf(generator, records, YCSB_ALPHA, n), records)
        return written(data, verb, record)

    return Scenario(data.name, data, make)


# ---- Production


@dataclass(frozen=True)
class Cluster:
    """A production cache cluster in figures.

    rate:             requests a second
    mean_frequency:   requests of a record on average
    one_hit_wonders:  share of the records that are asked for or written only once
    alpha:            Zipf exponent of the records' popularity
    reads, writes:    shares of the requests; verbs under 1 % are not given, so the two may not add up to 1
    ttl_s:            seconds -> share of the writes; shares may not add up to 1 either
    """

    key_nbytes: int
    value_nbytes: int
    rate: float
    mean_frequency: float
    one_hit_wonders: float
    alpha: float
    reads: float
    writes: float
    ttl_s: dict[int, float]


# Twemcache clusters by their number in the data set, March 2020. Figures from Yang, Yue, Rashmi: A large scale analysis of
# hundreds of in-memory cache clusters at Twitter, OSDI 2020; data set CC BY 4.0. One each of: reads that often miss,
# writes of what is never asked for again, small values, reads only, many writes of mid-sized and of large values.
CLUSTERS = {
    4: Cluster(
        67, 2439, 5260, 26.5, 0.2933, 1.1004, 0.93, 0.07,
        {60: 0.39, 300: 0.24, 3600: 0.13, 600: 0.12, 14_400: 0.09, 86_400: 0.03},
    ),
    12: Cluster(44, 1030, 4360, 1.3, 0.8143, 0.3048, 0.2, 0.8, {300: 0.98, 299: 0.02}),
    19: Cluster(
        42, 101, 3310, 4.7, 0.0746, 0.735, 0.75, 0.25,
        {27_000: 0.08, 26_640: 0.07, 23_760: 0.07, 25_920: 0.07, 24_120: 0.07, 25_200: 0.07,
         25_560: 0.07, 24_480: 0.07, 24_840: 0.07, 26_280: 0.06},
    ),
    24: Cluster(
        32, 699, 5290, 134.8, 0.0565, 1.3726, 0.99, 0.0,
        {1_209_600: 0.71, 60: 0.19, 2_592_000: 0.03, 86_400: 0.02, 3600: 0.02},
    ),
    29: Cluster(36, 799, 10_730, 22.5, 0.2304, 1.2323, 0.86, 0.13, {3600: 0.67, 7200: 0.33}),
    37: Cluster(
        72, 20_134, 4150, 3.8, 0.1488, 0.4251, 0.63, 0.37,
        {20: 0.91, 300: 0.06, 7200: 0.02, 600: 0.01},
    ),
}  # fmt: skip


def production(records: int = 100_000, *, number: int) -> Scenario:
    """A production cluster restated: its sizes, mix, skew, times to live and rate, on as many records as one likes.

    One-hit wonders are records beyond those that the cache was filled with, one for each operation that has one: their
    share of the operations is their share of the records over the mean frequency. The others are asked for by Zipf, so
    that at the tail a few more come only once. Arrivals are a Poisson process. A read that misses stays a miss.
    """
    cluster = CLUSTERS[number]
    data = of_one_size(f"production_{number}", records, cluster.key_nbytes, cluster.value_nbytes)
    lifetimes = np.array(list(cluster.ttl_s), np.int32)
    shares = list(cluster.ttl_s.values())

    def make(n: int, seed: int) -> Operations:
        generator = np.random.default_rng((seed, 14))
        verb = _verbs(generator, {Verb.READ: cluster.reads, Verb.WRITE: cluster.writes}, n)
        record = scrambled(zipf(generator, records, cluster.alpha, n), records)
        once = np.flatnonzero(
            generator.random(n, np.float32) < cluster.one_hit_wonders / cluster.mean_frequency
        )
        record[once] = np.arange(records, records + len(once))
        start_s = np.cumsum(generator.standard_exponential(n)) / cluster.rate
        ttl_s = drawn(generator, lifetimes, shares, n)
        return written(data, verb, record, start_s=start_s, ttl_s=ttl_s)

    return Scenario(data.name, data, make)


def _verbs(generator: np.random.Generator, mix: dict[Verb, float], size: int) -> np.ndarray:
    return drawn(generator, np.array(list(mix), np.uint8), list(mix.values()), size)


# Each takes the number of records, and has one of its own.
SCENARIOS: dict[str, Callable[..., Scenario]] = {
    "trading": trading,
    "ml_training_float16": partial(ml_training, dtype=np.float16),
    "ml_training_float32": partial(ml_training, dtype=np.float32),
    "gaming": gaming,
    **{f"ycsb_{letter}": partial(ycsb, letter=letter) for letter in YCSB_MIX},
    **{f"production_{number}": partial(production, number=number) for number in CLUSTERS},
}
