"""What is claimed of Predis on a GPU: declared here with how much it takes, settled by a run's samples and nothing else.

Called by `html` and by notebooks. A claim says at least how many times Redis's rate; it is tested against that, not against
1. All claims of a table are corrected together (Holm), the A/A noise floor gates them, and those that fail stay in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from ..bench.harness import noise_floor_of
from ..bench.statistics import ALPHA, Interval, cliffs_delta, holm, ratio_interval
from . import comparison

RECORDS = "fixed 16+64 B"
HOLDS, FAILS, OPEN, UNMEASURED = "holds", "fails", "open", "not measured"


@dataclass(frozen=True)
class Claim:
    """That a face of Predis serves calls of `keys` keys at `least` times the rate at which Redis does.

    face:  "columns" or "lists"
    way:   how Redis is asked: by one "command" a call, or by a "pipeline" as deep as the call has keys
    """

    workload: str
    keys: int
    face: str
    way: str
    least: float

    @property
    def says(self) -> str:
        """In words."""
        called = "1 key" if self.keys == 1 else f"{self.keys:,} keys"
        return f"{self.workload.upper()}, {called} a call: {self.face} over Redis's {self.way}"


def _claims(workload: str, face: str, way: str, least: dict[int, float]) -> list[Claim]:
    return [Claim(workload, keys, face, way, number) for keys, number in least.items()]


# The goals of the project, as far as notebook 06 measures them.
CLAIMS = (
    *_claims("get", "lists", "command", {1: 6}),
    *_claims("get", "columns", "command", {10: 1.5, 100: 8, 1000: 30, 10_000: 100, 1_000_000: 300}),
    *_claims("set", "columns", "command", {10: 1, 100: 5, 1000: 20, 10_000: 60, 1_000_000: 150}),
    *_claims("get", "columns", "pipeline", {1000: 25, 10_000: 25}),
    *_claims("get", "lists", "pipeline", {1000: 25, 10_000: 25}),
)


@dataclass(frozen=True)
class Settled:
    """A claim and what became of it.

    ratio:       of the medians, with its bootstrap interval; None where it was not measured, as all that follows
    p_adjusted:  one-sided, that blocks of `least` times Redis's rate are not exceeded; corrected
    delta:       Cliff's, against Redis as it is
    verdict:     "holds": p below ALPHA, and the whole interval above `least` and beyond the noise of 1; "fails": the whole
                 interval below `least`; "open": neither
    """

    claim: Claim
    ratio: Interval | None = None
    p_adjusted: float | None = None
    delta: float | None = None
    verdict: str = UNMEASURED


def settle(samples: pd.DataFrame, claims: Iterable[Claim] = CLAIMS) -> list[Settled]:
    """Each claim, in order; Redis at the better of its transports, cell by cell."""
    floor, rates = noise_floor_of(samples), _rates(samples)
    sides = [(claim, _sides(rates, claim)) for claim in claims]
    tests = [_p(*found, claim.least) for claim, found in sides if found]
    corrected = iter(holm(tests))
    return [
        _settled(claim, *found, float(next(corrected)), floor) if found else Settled(claim)
        for claim, found in sides
    ]


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
            "least": f"{one.claim.least:g}x",
            "ratio": "" if one.ratio is None else _times(one.ratio),
            "n": "" if one.ratio is None else str(one.ratio.n),
            "delta": "" if one.delta is None else f"{one.delta:+.2f}",
            "p": "" if one.p_adjusted is None else f"{one.p_adjusted:.1e}",
            "verdict": one.verdict,
        }
        for one in settled
    ]


def _times(ratio: Interval) -> str:
    return comparison.times_text(ratio.value, ratio.low, ratio.high)


def _rates(samples: pd.DataFrame) -> pd.DataFrame:
    if not len(samples) or not set(comparison.CELL) <= set(samples.columns):
        return pd.DataFrame(columns=[*comparison.CELL, "system", "value"])
    cells = samples[(samples["records"] == RECORDS) & samples["keys"].notna()]
    cells = comparison.best_transport(cells) if len(cells) else cells
    return cells[cells["metric"] == "throughput"]


def _sides(rates: pd.DataFrame, claim: Claim) -> tuple[np.ndarray, np.ndarray] | None:
    """Blocks of Predis and of Redis; None where either has less than two."""
    cell = rates[(rates["workload"] == claim.workload) & (rates["keys"] == claim.keys)]
    is_redis = cell["system"].str.startswith("redis ")
    asked = cell["system"].map(comparison.way) == claim.way
    found = (
        cell.loc[cell["system"] == f"predis-cuda {claim.face}", "value"].to_numpy(),
        cell.loc[is_redis & asked, "value"].to_numpy(),
    )
    return found if min(map(len, found)) >= 2 else None


def _p(candidate: np.ndarray, baseline: np.ndarray, least: float) -> float:
    needed = least * baseline
    exact = len(np.unique(np.concatenate([candidate, needed]))) == len(candidate) + len(needed)
    method = "exact" if exact else "asymptotic"
    test = stats.mannwhitneyu(candidate, needed, alternative="greater", method=method)
    return float(test.pvalue)


def _settled(claim: Claim, candidate: np.ndarray, baseline: np.ndarray, p: float, floor: float) -> Settled:  # fmt: skip
    ratio = ratio_interval(candidate, baseline)
    settled = Settled(claim, ratio, p, cliffs_delta(candidate, baseline), OPEN)
    if p < ALPHA and ratio.low > max(claim.least, 1 + floor):
        return replace(settled, verdict=HOLDS)
    return replace(settled, verdict=FAILS) if ratio.high < claim.least else settled
