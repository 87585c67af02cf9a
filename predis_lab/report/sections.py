"""The report from claims to appendix: what stands in it, in which order. Called by `html`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..bench.harness import PERCENTILES
from ..bench.statistics import ALPHA, EQUIVALENCE, LEVEL, RESAMPLES
from . import claims, machine, report_figures, scaling, sentences, tables
from .facts import MISSING, Facts
from .raw import JSON, PARQUET
from .report_figures import Shown
from .tables import Table, plain

_CLAIM_COLUMNS = {"least": "at least", "ratio": "measured", "n": "blocks", "delta": "Cliff's delta"}
NOT_MEASURED = f"{MISSING[0].upper()}{MISSING[1:]}."


@dataclass(frozen=True)
class Section:
    """One section, in the order of its fields. What is empty is left out.

    cards:   heading, text and a note each, side by side
    tables:  a caption and a table each; a table without rows is left out with its caption
    lists:   a heading and lines each
    """

    heading: str
    lead: str = ""
    cards: list[tuple[str, str, str]] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)
    tables: list[tuple[str, Table]] = field(default_factory=list)
    lists: list[tuple[str, list[str]]] = field(default_factory=list)
    new_page: bool = False

    @property
    def id(self) -> str:
        """Its name in links."""
        return self.heading.lower().replace(" ", "-").replace(",", "")


def sections(facts: Facts) -> Iterator[Section]:
    """One after the other: some take a second."""
    yield _claims(facts)
    yield from _measured(facts)
    yield _scaling(facts)
    yield _three_ways(facts)
    yield _changes(facts)
    yield _method(facts)
    yield _environment(facts)
    yield Section("Limits and losses", lists=sentences.losses(facts))
    yield _appendix(facts)


def loads(facts: Facts) -> list[tuple[str, Table]]:
    """What systems reach under load: sustained, from several clients, and of calls that do not wait for each other."""
    return [
        ("Under sustained load", tables.sustained(facts)),
        ("Keys a second, by clients at once", tables.by_load(facts, "clients", "throughput", "clients")),
        ("Open loop: operations a second served, by how many were offered", tables.by_load(facts, "open", "achieved", "rate")),
        ("Open loop: p99 from the intended start, by operations a second offered", tables.by_load(facts, "open", "latency_p99", "rate")),
    ]  # fmt: skip


def claims_table(settled: list[claims.Settled]) -> Table:
    """Each claim and what became of it."""
    rows = claims.rows(settled)
    columns = [_CLAIM_COLUMNS.get(name, name) for name in rows[0]] if rows else []
    return plain(columns, [tuple(row.values()) for row in rows])


def _claims(facts: Facts) -> Section:
    tally = claims.tally(facts.settled)
    if not tally:
        return Section("Claims", f"{len(facts.settled)} claims are made of Predis on a GPU. None of them was {MISSING.removeprefix('not ')}.")  # fmt: skip
    lead = (
        f"{tally} Each says at least how many times Redis's rate, or how much of the GPU; p is one-sided against just that, "
        f"corrected for the number of claims (Holm). A claim holds where p < {ALPHA:g} and the whole interval lies above, and fails where the whole interval "
        "lies below. Those that fail stay here."
    )
    return Section("Claims", lead, tables=[("", claims_table(facts.settled))])


def _measured(facts: Facts) -> Iterator[Section]:
    yield _shown("Throughput", report_figures.throughput(facts), loads(facts))
    yield _shown("Speed-up", report_figures.speedup(facts))
    yield _shown("Latency, p95 and p99", report_figures.latency(facts))
    readings = [
        ("The machine while it was measured, and what failed", tables.machine_summary(facts))
    ]
    yield _shown("Memory", report_figures.memory(facts), readings)


def _shown(
    heading: str, shown: list[Shown], found: list[tuple[str, Table]] | None = None
) -> Section:
    anything = shown or any(len(table) for _, table in found or ())
    return Section(heading, "" if anything else NOT_MEASURED, shown=shown, tables=found or [])


def _scaling(facts: Facts) -> Section:
    shown = report_figures.scaling_figures(facts)
    lead = (
        "Growth is an exponent: 1 where twice the keys a call mean twice the rate, 0 where they mean no more. A rate is called linear "
        f"where the whole interval lies above {scaling.LINEAR:g}, and bends where it lies below. Were a call's time a fixed part and "
        "a part for each key, no rate could grow as the keys do beyond the number at which both are equal: each line below says "
        "how many keys that is."
    )
    return Section(
        "Scaling by batch size",
        lead if shown else NOT_MEASURED,
        shown=shown,
        tables=[
            ("Growth of the rate from each number of keys a call to the next", tables.growth(facts))
        ],
    )


def _three_ways(facts: Facts) -> Section:
    lead = (
        "A cache in the caller's process against a server behind a socket is not one comparison but two effects. So there are three, "
        "each judged by itself and corrected for its own number of comparisons (Holm); no ratio below mixes them."
    )
    cards = [(way.name, way.sides, f"{way.verdicts}.".capitalize()) for way in facts.ways]
    side_by_side = [
        (
            f"Times the other side's rate, with 95 % interval and verdict; {tables.NONE}: {MISSING}",
            tables.side_by_side(facts),
        )
    ]
    return Section(
        "Three ways of comparison", lead, cards=cards, tables=side_by_side, new_page=True
    )


def _changes(facts: Facts) -> Section:
    sentence, table = tables.changes(facts)
    found = [("Ratios above 1 are better than before", table)] if table else []
    return Section("Since the recorded run", sentence, tables=found)


def _method(facts: Facts) -> Section:
    cells = [way.compared for way in facts.ways if len(way.compared)]
    blocks = [int(n) for found in cells for n in found[["n_candidate", "n_baseline"]].to_numpy().ravel()]  # fmt: skip
    span = " to ".join(str(n) for n in sorted({min(blocks), max(blocks)})) if blocks else "No"
    replicated = f"{span} blocks a side stand behind each comparison here."
    floor = f"Here it is {facts.floor:.1%}." if facts.floor else f"It was {MISSING}."
    needed = ", ".join(f"{calls:,} for {name}" for name, (_, calls) in PERCENTILES.items())
    lines = [
        "Blocks. All systems work in one process in turn, block by block in random order, with the same keys. The block is the unit of "
        f"replication, not the call: ten thousand calls of one loop are one measurement. {replicated}",
        f"Intervals. {LEVEL:.0%} percentile bootstrap of medians over blocks, {RESAMPLES:,} resamples; for a ratio both sides are "
        "resampled independently. Speed-up is Predis over the other side in operations a second.",
        "Tests. Mann-Whitney on blocks; claims one-sided against the least they promise, comparisons two-sided; p corrected for all "
        "tests of a table (Holm); effect size is Cliff's delta.",
        f"Verdicts. Faster or slower: p < {ALPHA:g} and the whole interval further from 1 than the noise floor. Same: the whole interval "
        f"within {EQUIVALENCE:.0%} of 1, or within the noise floor where that is wider. Ambiguous: neither.",
        f"Noise floor. One system is measured against itself under two names; smaller differences are not claimed. {floor}",
        f"Percentiles. Of calls, not of operations, from HDR histograms; each takes so many calls in a block: {needed}.",
        "What is timed. Predis: the Python call, packing keys, the link both ways, answers as Python bytes or Arrow. A server: the Python "
        "call, encoding, the socket both ways, answers as Python bytes. Each answer is checked once before anything is timed.",
        "Opponents. A server is asked through unix socket and TCP, and the better one counts, cell by cell.",
    ]
    opponents = machine.opponents(facts.environment)
    told = [("The opponents, as they described themselves", plain(("", ""), opponents))]
    return Section("Method and disclosure", lists=[("", lines)], tables=told, new_page=True)


def _environment(facts: Facts) -> Section:
    rows = machine.machine_rows(facts.environment) + machine.details(facts.environment)
    return Section("Environment", "" if facts.environment else NOT_MEASURED, tables=[("", plain(("", ""), rows))])  # fmt: skip


def _appendix(facts: Facts) -> Section:
    return Section(
        "Appendix",
        f"Every sample behind this report lies beside it: {len(facts.samples):,} rows in {PARQUET} and in {JSON}.",
        tables=[
            ("Every comparison", tables.comparisons(facts)),
            ("Percentiles of a call. *: over all blocks together, because one had too few calls for an interval", tables.latencies(facts)),
            ("The machine while each system was measured", tables.readings(facts)),
            ("Every figure that a notebook recorded", tables.stored_figures(facts)),
        ],
        new_page=True,
    )  # fmt: skip
