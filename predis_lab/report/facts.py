"""What a run's store holds, read once and judged once: what the report and notebook 09 speak of. Called by both.

Predis is compared in three ways that never mix. Which one a comparison belongs to is read from the names of its systems:
a system that is reached through a socket is named with its transport ("redis mget unix").
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..bench.harness import noise_floor_of
from ..bench.results import read_environment, read_figures, read_samples
from ..bench.statistics import min_blocks
from . import claims, comparison
from .comparison import CELL

MISSING = "not measured in this run"
DICT = "dict"


@dataclass(frozen=True)
class Way:
    """One way of comparison. compared: judged and corrected by itself, see `comparison.against`."""

    name: str
    sides: str
    compared: pd.DataFrame

    @property
    def needed(self) -> int:
        """Blocks a side from which on a comparison among so many can be claimed at all."""
        return min_blocks(max(1, len(self.compared)))

    @property
    def undecidable(self) -> pd.DataFrame:
        """Comparisons with fewer."""
        return self.compared[self.compared[["n_candidate", "n_baseline"]].min(axis=1) < self.needed]

    @property
    def verdicts(self) -> str:
        """How many comparisons came out how."""
        counts = self.compared["verdict"].value_counts()
        said = ", ".join(f"{number} {verdict}" for verdict, number in counts.items())
        return f"{len(self.compared)} comparisons: {said}" if said else MISSING


@dataclass(frozen=True)
class Facts:
    """Samples, figures and environment of one run. cells: the samples of comparisons, servers at their better transport."""

    directory: Path
    samples: pd.DataFrame
    stored: dict[str, dict[str, Any]]
    environment: dict[str, Any]
    cells: pd.DataFrame

    @classmethod
    def of(cls, directory: str | Path) -> Facts:
        """What lies in a run's folder; all of it is empty where there is none."""
        samples = read_samples(directory)
        return cls(
            Path(directory).resolve(),
            samples,
            read_figures(directory),
            read_environment(directory),
            _cells(samples),
        )

    def __bool__(self) -> bool:
        return bool(len(self.samples) or self.stored)

    @cached_property
    def floor(self) -> float:
        """What two runs of one system differ by; 0 where that was not measured."""
        return noise_floor_of(self.samples)

    @cached_property
    def settled(self) -> list[claims.Settled]:
        """What became of each claim."""
        return claims.settle(self.samples)

    @cached_property
    def in_process(self) -> Way:
        """No socket on either side."""
        sides = "Predis and a Python dict, both in the caller's process. No socket on either side."
        return self._way("In process", sides, lambda mine, theirs: theirs == DICT)

    @cached_property
    def behind_a_socket(self) -> Way:
        """A socket on both sides, asked by the same client in the same words."""
        sides = "Predis and Redis, both behind a socket, asked by one client in one protocol."
        table = self._against(
            lambda mine, theirs: theirs.split(" ", 1) == ["redis", mine.partition(" ")[2]], True
        )
        return Way("Behind a socket", sides, table)

    @cached_property
    def at_depth(self) -> Way:
        """A socket on Redis's side only, which has as many keys under way as a call of Predis."""
        sides = (
            "Predis in the caller's process, Redis behind its better socket with as many keys under way: by one command "
            "for all of them, or by a pipeline as deep."
        )
        return self._way("Redis at the same depth", sides, lambda mine, theirs: theirs.startswith("redis "))  # fmt: skip

    @property
    def ways(self) -> tuple[Way, Way, Way]:
        """All three."""
        return self.in_process, self.behind_a_socket, self.at_depth

    @cached_property
    def at_best(self) -> pd.DataFrame:
        """Of `at_depth`, cell by cell, the way of asking Redis that served it best."""
        return comparison.at_redis_best(self.at_depth.compared)

    @cached_property
    def order(self) -> list[tuple[str, str]]:
        """Workloads and records as they were measured."""
        cells = self.cells[["workload", "records"]].drop_duplicates()
        return list(cells.itertuples(index=False, name=None))

    @cached_property
    def series(self) -> list[tuple[str, str]]:
        """Workloads and records that were measured at several numbers of keys a call; those of the claims before others."""
        keys = {
            cell: {number for by_keys in systems.values() for number in by_keys}
            for cell, systems in self._blocks.items()
        }
        found = [cell for cell in self.order if len(keys.get(cell, ())) > 1]
        return [cell for cell in found if cell[1] == claims.RECORDS] or found[:1]

    def rates(self, workload: str, records: str) -> dict[str, dict[int, np.ndarray]]:
        """Blocks of operations a second by system and keys a call, both ascending; where there are two blocks or more."""
        return self._blocks.get((workload, records), {})

    @cached_property
    def _blocks(self) -> dict[tuple[str, str], dict[str, dict[int, np.ndarray]]]:
        rates = self.cells[self.cells["metric"] == "throughput"]
        found: dict = {}
        for (workload, records, system, keys), rows in rates.groupby([*CELL[:2], "system", "keys"]):
            if len(rows) > 1:
                systems = found.setdefault((workload, records), {})
                systems.setdefault(system, {})[int(keys)] = rows["value"].to_numpy()
        return found

    def _way(self, name: str, sides: str, fits: Callable[[str, str], bool]) -> Way:
        return Way(name, sides, self._against(fits, False))

    def _against(self, fits: Callable[[str, str], bool], socket: bool) -> pd.DataFrame:
        """Each of Predis's faces, behind a socket or not, against the systems that fit it."""
        rates = self.cells[self.cells["metric"] == "throughput"]
        systems = rates.groupby("system", sort=True)["transport"].first()
        mine = [s for s, t in systems.items() if s.startswith("predis") and bool(t) == socket]
        theirs = [s for s in systems.index if not s.startswith("predis")]
        pairs = [(one, other) for one in mine for other in theirs if fits(one, other)]
        return comparison.against(rates, pairs, noise_floor=self.floor)


def _cells(samples: pd.DataFrame) -> pd.DataFrame:
    if not len(samples) or not set(CELL) <= set(samples.columns):
        return pd.DataFrame(columns=[*CELL, "system", "transport", "metric", "value", "block"])
    cells = samples[samples["keys"].notna() & samples["records"].notna()]
    beside = {params: _beside(params) for params in cells["params"].unique()}
    return comparison.best_transport(
        cells.assign(records=cells["records"] + cells["params"].map(beside))
    )


def _beside(params: str) -> str:
    """What else a cell was measured under, such as a number of threads: blocks of different cells are never mixed."""
    rest = {k: v for k, v in json.loads(params).items() if k not in (*CELL, "value_nbytes")}
    return "".join(f", {name.replace('_', ' ')} {value}" for name, value in rest.items())
