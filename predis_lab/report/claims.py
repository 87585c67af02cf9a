"""What is claimed of Predis on a GPU: declared here with how much it takes, settled by a run's samples and nothing else.

Called by `html` and by notebooks. A claim says at least how many times Redis's rate, or at least what level is read while
work is done; it is tested against that, not against 1. All claims of a table are corrected together (Holm), the A/A noise
floor gates those that compare, and those that fail stay in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from ..bench.busy import WORKLOAD
from ..bench.harness import noise_floor_of
from ..bench.results import Run
from ..bench.statistics import ALPHA, Interval, cliffs_delta, holm, median_interval, ratio_interval
from . import comparison

RECORDS = "fixed 16+64 B"
HOLDS, FAILS, OPEN, UNMEASURED = "holds", "fails", "open", "not measured"


def named(scenario: str) -> str:
    """A scenario's name as a sentence begins with it.

    >>> named("trading"), named("ml_training_float16"), named("ycsb_c")
    ('Trading', 'ML training float16', 'YCSB C')
    """
    first, _, rest = scenario.replace("_", " ").partition(" ")
    if first == "ycsb":
        return f"YCSB {rest.upper()}"
    first = first.upper() if first == "ml" else first.capitalize()
    return f"{first} {rest}".strip()


@dataclass(frozen=True)
class Claim:
    """That a face of Predis serves calls of `keys` keys at `least` times the rate at which Redis does.

    face:     "columns" or "lists"; "lists hot" with the hot tier, "columns tensors" as tensors on the device
    way:      how Redis is asked: by one "command" a call, by a "pipeline" as deep as the call has keys, or, cell by cell, at
              its "best"
    records:  name of the records, or of the scenario
    figure:   name of what is measured, among a run's figures
    """

    workload: str
    keys: int
    face: str
    way: str
    least: float
    records: str = RECORDS
    figure: str = "ratio"

    @property
    def says(self) -> str:
        """In words."""
        if self.records != RECORDS:
            return self._says_of_scenario()
        called = "1 key" if self.keys == 1 else f"{self.keys:,} keys"
        return f"{self.workload.upper()}, {called} a call: {self.face} over Redis's {self.way}"

    def _says_of_scenario(self) -> str:
        name = named(self.records)
        how = "one operation at a time" if self.keys == 1 else f"batches of {self.keys:,}"
        redis = "Redis at its best" if self.way == "best" else "Redis"
        if self.workload == "delivery":
            return f"{name}: {how} as device tensors over {redis}, decoded and uploaded"
        face = {"lists hot": "the hot tier"}.get(self.face, self.face)
        return f"{name}, {how}: {face} over {redis}"

    def text(self, value: float) -> str:
        """A ratio as it is read."""
        return f"{value:g}x"

    def interval(self, ratio: Interval) -> str:
        """A measured ratio as it is read."""
        return comparison.times_text(ratio.value, ratio.low, ratio.high)


@dataclass(frozen=True)
class Level:
    """That a metric lies above a level while columns are found and stored without a pause; nothing is compared.

    place:  "", where columns lie on the host; " on device"
    """

    metric: str
    least: float
    place: str = ""

    @property
    def figure(self) -> str:
        """Name of what is measured, among a run's figures."""
        return self.metric + self.place.replace(" ", "_")

    @property
    def says(self) -> str:
        """In words."""
        what = self.metric.replace("_", " ").replace("gpu", "GPU")
        where = "on the GPU" if self.place else "of the host"
        return f"{what} while columns {where} are found and stored"

    def text(self, value: float) -> str:
        """A share as it is read."""
        return f"{value:.0%}"

    def interval(self, level: Interval) -> str:
        """A measured share as it is read."""
        return f"{level.value:.1%} [{level.low:.1%}, {level.high:.1%}]"


def _claims(
    figure: str, workload: str, face: str, way: str, least: dict[int, float]
) -> list[Claim]:
    return [
        Claim(workload, keys, face, way, number, figure=f"{figure}_{keys}")
        for keys, number in least.items()
    ]


# The goals of the project, as far as notebook 06 measures them.
CLAIMS: tuple[Claim | Level, ...] = (
    Claim("get", 1, "lists", "command", 6, figure="single_get_ratio"),
    *_claims(
        "mget_columns",
        "get",
        "columns",
        "command",
        {10: 1.5, 100: 8, 1000: 30, 10_000: 100, 1_000_000: 300},
    ),
    *_claims(
        "mset_columns",
        "set",
        "columns",
        "command",
        {10: 1, 100: 5, 1000: 20, 10_000: 60, 1_000_000: 150},
    ),
    *_claims("pipelined_get_columns", "get", "columns", "pipeline", {1000: 25, 10_000: 25}),
    *_claims("mget_lists", "get", "lists", "pipeline", {1000: 25, 10_000: 25}),
    # As far as notebook 07 does.
    Claim("single", 1, "lists hot", "command", 50, "hot reads", "single_get_hot_ratio"),
    Claim("single", 1, "lists hot", "command", 10, "trading", "single_trading"),
    Claim("played", 100, "columns", "best", 10, "gaming", "gaming_100"),
    Claim("played", 1000, "columns", "best", 30, "ycsb_c", "ycsb_c_1000"),
    Claim(
        "delivery", 1000, "columns tensors", "best", 100, "ml_training_float16", "training_tensors"
    ),
    Level("gpu_utilisation", 0.75),
    Level("gpu_utilisation", 0.75, " on device"),
)


@dataclass(frozen=True)
class Settled:
    """A claim and what became of it.

    ratio:       of the medians, or the median level, with its bootstrap interval; None where it was not measured, as all that
                 follows
    p_adjusted:  one-sided, that blocks of `least` times Redis's rate are not exceeded, or that levels above `least` are no
                 more than half of all; corrected
    delta:       Cliff's, against Redis as it is; of a level against `least`
    verdict:     "holds": p below ALPHA, and the whole interval above `least`, for a ratio beyond the noise of 1 too; "fails":
                 the whole interval below `least`; "open": neither
    """

    claim: Claim | Level
    ratio: Interval | None = None
    p_adjusted: float | None = None
    delta: float | None = None
    verdict: str = UNMEASURED


def settle(samples: pd.DataFrame, claims: Iterable[Claim | Level] = CLAIMS) -> list[Settled]:
    """Each claim, in order; Redis at the better of its transports, cell by cell."""
    floor, rates = noise_floor_of(samples), _rates(samples)
    found = [
        _compared(rates, claim, floor) if isinstance(claim, Claim) else _read(samples, claim)
        for claim in claims
    ]
    corrected = iter(holm([one.p_adjusted for one in found if one.p_adjusted is not None]))
    return [
        one
        if one.p_adjusted is None
        else _judged(replace(one, p_adjusted=float(next(corrected))), floor)
        for one in found
    ]


def record(run: Run, settled: Iterable[Settled]) -> None:
    """Adds what was measured of each to the run, as the figure that it names."""
    for one in settled:
        if one.ratio is not None:
            run.add_interval(one.claim.figure, one.ratio, "1")


def tally(settled: Sequence[Settled]) -> str:
    """One sentence on how many came out how; empty where none was measured."""
    counts = {verdict: sum(one.verdict == verdict for one in settled) for verdict in (HOLDS, FAILS, OPEN, UNMEASURED)}  # fmt: skip
    if counts[UNMEASURED] == len(settled):
        return ""
    words = {HOLDS: "hold", FAILS: "fail", OPEN: "are open", UNMEASURED: "were not measured"}
    one = {HOLDS: "holds", FAILS: "fails", OPEN: "is open", UNMEASURED: "was not measured"}
    said = ", ".join(
        f"{number} {one[verdict] if number == 1 else words[verdict]}"
        for verdict, number in counts.items()
        if number
    )
    return f"Of {len(settled)} claims {said}."


def rows(settled: Sequence[Settled]) -> list[dict[str, str]]:
    """Each as text for a table."""
    return [
        {
            "claim": one.claim.says,
            "least": one.claim.text(one.claim.least),
            "ratio": "" if one.ratio is None else one.claim.interval(one.ratio),
            "n": "" if one.ratio is None else str(one.ratio.n),
            "delta": "" if one.delta is None else f"{one.delta:+.2f}",
            "p": "" if one.p_adjusted is None else f"{one.p_adjusted:.1e}",
            "verdict": one.verdict,
        }
        for one in settled
    ]


def _rates(samples: pd.DataFrame) -> pd.DataFrame:
    if not len(samples) or not set(comparison.CELL) <= set(samples.columns):
        return pd.DataFrame(columns=[*comparison.CELL, "system", "value"])
    cells = samples[samples["records"].notna() & samples["keys"].notna()]
    cells = comparison.best_transport(cells) if len(cells) else cells
    return cells[cells["metric"] == "throughput"]


def _compared(rates: pd.DataFrame, claim: Claim, floor: float) -> Settled:
    sides = _sides(rates, claim)
    if sides is None:
        return Settled(claim)
    return Settled(claim, ratio_interval(*sides), _p(*sides, claim.least), cliffs_delta(*sides))


def _sides(rates: pd.DataFrame, claim: Claim) -> tuple[np.ndarray, np.ndarray] | None:
    """Blocks of Predis and of Redis; None where either has less than two."""
    cell = rates[(rates["workload"] == claim.workload) & (rates["keys"] == claim.keys)]
    cell = cell[cell["records"] == claim.records]
    candidate = cell.loc[cell["system"] == f"predis-cuda {claim.face}", "value"].to_numpy()
    asked = cell[cell["system"].str.startswith("redis ")]
    ways = [
        rows["value"].to_numpy()
        for way, rows in asked.groupby(asked["system"].map(comparison.way))
        if claim.way in (way, "best")
    ]
    if not ways:
        return None
    baseline = max(ways, key=np.median)
    return (candidate, baseline) if min(len(candidate), len(baseline)) >= 2 else None


def _read(samples: pd.DataFrame, level: Level) -> Settled:
    """What was read, window by window, on a GPU; unmeasured where there were less than two."""
    system = f"predis-cuda columns{level.place}"
    busy = (samples["workload"] == WORKLOAD) & (samples["system"] == system)
    values = samples.loc[busy & (samples["metric"] == level.metric), "value"].to_numpy()
    if len(values) < 2:
        return Settled(level)
    above = int((values > level.least).sum())
    p = stats.binomtest(above, len(values), 0.5, alternative="greater").pvalue
    bound = np.full(len(values), level.least)
    return Settled(level, median_interval(values), float(p), cliffs_delta(values, bound))


def _p(candidate: np.ndarray, baseline: np.ndarray, least: float) -> float:
    needed = least * baseline
    exact = len(np.unique(np.concatenate([candidate, needed]))) == len(candidate) + len(needed)
    method = "exact" if exact else "asymptotic"
    test = stats.mannwhitneyu(candidate, needed, alternative="greater", method=method)
    return float(test.pvalue)


def _judged(settled: Settled, floor: float) -> Settled:
    ratio, p, least = settled.ratio, settled.p_adjusted, settled.claim.least
    assert ratio is not None and p is not None
    beyond = max(least, 1 + floor) if isinstance(settled.claim, Claim) else least
    if p < ALPHA and ratio.low > beyond:
        return replace(settled, verdict=HOLDS)
    return replace(settled, verdict=FAILS if ratio.high < least else OPEN)
