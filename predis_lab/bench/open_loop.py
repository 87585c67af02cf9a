"""Open loop: calls arrive at a fixed rate, whether or not the one before has been answered. Called by notebook 07.

A call has an intended start, and its latency counts from there: a system that is late is late for all that wait, which a
closed loop never sees (coordinated omission; Tene: How NOT to measure latency, 2013). Arrivals are a Poisson process given
its number of events, the same for every system. One client sends; when it is behind it sends at once.

The sender itself is measured in the same way, with nobody to ask ("nobody"): where it falls behind, so do all others.
"""

from __future__ import annotations

import gc
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from .harness import (
    ALL_BLOCKS,
    MOST_RERUNS,
    RERUN_SHARE,
    Contestant,
    histogram_of,
    observed,
    percentiles_of,
    tidy,
    undisturbed,
)
from .results import Run
from .servers import running
from .statistics import Interval, Values, median_interval
from .telemetry import Telemetry

NOBODY = "nobody"
# A system that serves less than all but this share, in block after block, has reached its limit. A pause of the whole machine
# costs as much now and then, but not each time.
SLACK = 0.05
# Sleeping ends late by some 0.1 ms; the rest of a wait is spent looking at the clock.
SLEEP_NS, SPIN_NS = 500_000, 300_000
LEAD_NS = 1_000_000  # before the first arrival


@dataclass(frozen=True)
class Played:
    """One block: calls in order of their arrival, times in ns since the block began.

    due:           intended starts of all calls
    began, ended:  of those that were made before the block's time was over
    length:        of the block, or until the last of them was answered where that was later
    """

    due: np.ndarray
    began: np.ndarray
    ended: np.ndarray
    length: int

    @property
    def achieved(self) -> float:
        """Share of the calls that were made, over the times the block's time that it took to begin them."""
        late = max(1.0, self.began[-1] / max(1, self.due[-1]))
        return float(len(self.ended) / len(self.due) / late)

    @property
    def backlog(self) -> int:
        """The largest number of calls that waited at one moment, besides the one that was made."""
        arrived = np.searchsorted(self.due, self.began, side="right")
        waiting = arrived - np.arange(1, len(self.began) + 1)
        return int(max(waiting.max(initial=0), len(self.due) - len(self.ended)))

    @property
    def latencies_ns(self) -> np.ndarray:
        """From intended start to answer; of calls that were not made any more, how long they had waited by then."""
        unmade = self.due[len(self.ended) :]
        return np.concatenate([self.ended - self.due[: len(self.ended)], self.length - unmade])


def arrivals(calls: int, seconds: float, generator: np.random.Generator) -> np.ndarray:
    """Intended starts (ns, ascending), the last of them when the time is over."""
    due = np.sort(generator.random(calls))
    return (due / due[-1] * seconds * 1e9).astype(np.int64)


def play(call: Callable[[], object], due: np.ndarray) -> Played:
    """Makes each call when it is due, or as soon as the one before is done; none once the last one's time is over."""
    began: list[int] = []
    ended: list[int] = []
    clock, begin, end = time.perf_counter_ns, began.append, ended.append
    collecting = gc.isenabled()
    gc.disable()
    moments = due.tolist()
    try:
        origin = clock() + LEAD_NS
        over = origin + moments[-1]
        for moment in moments:
            moment += origin
            now = clock()
            if now < moment:
                now = _wait_until(moment)
            elif now > over and began:
                break
            begin(now)
            call()
            end(clock())
    finally:
        if collecting:
            gc.enable()
    length = max(int(due[-1]), ended[-1] - origin)
    return Played(
        due, np.array(began, np.int64) - origin, np.array(ended, np.int64) - origin, length
    )


def _wait_until(moment: int) -> int:
    """Sleeps most of the way and spins the rest; the time when it is over."""
    while (now := time.perf_counter_ns()) < moment:
        left = moment - now
        if left > SLEEP_NS:
            time.sleep((left - SPIN_NS) * 1e-9)
        elif left > SPIN_NS // 10:
            os.sched_yield()  # other threads of this process may have the interpreter meanwhile
    return now


def measure_open(
    run: Run,
    contestants: Sequence[Contestant],
    rates: Sequence[float],
    *,
    params: dict,
    blocks: int,
    block_seconds: float,
    seed: int,
    progress: Callable[[float], object] = lambda _: None,
) -> None:
    """Offers each rate (operations a second) to every contestant, from the lowest on until it has reached its limit.

    Metrics per block: offered and achieved (1/s, operations), latency_<percentile> (s, per call, from its intended start),
    service_mean (s, per call), backlog (calls), and those of `harness.measure`.
    params:    the offered rate is added to them as "rate"
    progress:  called with shares of a rate
    """
    if not rates or min(rates) <= 0:
        raise ValueError(f"rates are positive numbers of operations a second, not {list(rates)}")
    climbing = [*contestants, Contestant(NOBODY, lambda: None, contestants[0].operations)]
    share = 1 / (blocks * len(climbing))
    generator = np.random.default_rng(seed)
    spare = max(MOST_RERUNS, int(RERUN_SHARE * blocks * len(climbing) * len(rates)))
    for contestant in contestants:
        if contestant.check is not None:
            contestant.check()
    with Telemetry(running()) as telemetry, tidy():
        for rate in sorted(rates):
            reached: dict[str, list[float]] = {one.system: [] for one in climbing}
            for block in range(blocks):
                gc.collect()
                calls = max(2, round(rate * block_seconds / climbing[0].operations))
                due = arrivals(calls, block_seconds, generator)
                for i in generator.permutation(len(climbing)):
                    one, most = climbing[i], min(MOST_RERUNS, spare)
                    done = undisturbed(partial(play, one.call, due), telemetry, most, one.prepare)
                    spare -= done.reruns
                    reached[one.system].append(done.result.achieved)
                    metrics = _metrics(done.result, one) | one.tell() | observed(done)
                    for metric, (value, unit) in metrics.items():
                        run.add_sample(one.system, "open", params | {"rate": rate}, block, metric, value, unit)  # fmt: skip
                    progress(share)
            gone = {name for name, found in reached.items() if falls_behind(found)}
            climbing = [one for one in climbing if one.system not in gone]
            if all(one.system == NOBODY for one in climbing):
                break
    cost = telemetry.cost_cpu
    run.add_sample("machine", "open", params, ALL_BLOCKS, "telemetry_cpu", cost, "1")


def falls_behind(achieved: Values) -> bool:
    """Whether blocks' shares of the offered rate say that a system has reached its limit."""
    return bool(np.max(achieved) < 1 - SLACK)


@dataclass(frozen=True)
class Limit:
    """How far a system kept up.

    kept:       operations a second, the highest that was offered and served; 0 where it was none
    reached:    what it served of the rate at which it fell behind; None where it never did
    by_sender:  whether nobody at all fell behind at that rate too: the sender's limit, then, and not the system's
    """

    system: str
    kept: float
    reached: Interval | None
    by_sender: bool


def limits(samples: pd.DataFrame) -> list[Limit]:
    """Each system's limit in the samples of one `measure_open`, as the samples say."""
    wide = samples[samples["metric"].isin(["offered", "achieved"])].pivot(
        index=["system", "rate", "block"], columns="metric", values="value"
    )
    behind = {
        key: falls_behind(rows["achieved"] / rows["offered"])
        for key, rows in wide.groupby(level=["system", "rate"])
    }
    found = []
    for system in dict.fromkeys(wide.index.get_level_values("system")):
        rates = sorted(rate for name, rate in behind if name == system)
        kept = [rate for rate in rates if not behind[system, rate]]
        lost = next((rate for rate in rates if behind[system, rate]), None)
        reached = None if lost is None else median_interval(wide.loc[system, lost]["achieved"])
        by_sender = lost is not None and behind.get((NOBODY, lost), True)
        found.append(Limit(system, max(kept, default=0.0), reached, by_sender))
    return found


def record_limits(run: Run, samples: pd.DataFrame) -> None:
    """Adds the limits that are the systems' own to the run, as figures such as open_trading_1_redis_single_unix."""
    for (records, keys), cell in samples.groupby(["records", "keys"]):
        for limit in limits(cell):
            if limit.reached is not None and not limit.by_sender:
                name = re.sub(r"[^a-z0-9]+", "_", f"open {records} {int(keys)} {limit.system}")
                run.add_interval(name, limit.reached, "1/s")


def _metrics(played: Played, contestant: Contestant) -> dict[str, tuple[float, str]]:
    offered = len(played.due) * contestant.operations / (int(played.due[-1]) * 1e-9)
    histogram = histogram_of(played.latencies_ns)
    service = float(np.mean(played.ended - played.began)) * 1e-9
    return {
        "offered": (offered, "1/s"),
        "achieved": (offered * played.achieved, "1/s"),
        "service_mean": (service, "s"),
        "backlog": (played.backlog, "1"),
        **{f"latency_{name}": (value, "s") for name, value in percentiles_of(histogram)},
    }
