"""Tables and sentences of notebook 05, written from stored figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from IPython.display import HTML, Markdown

from ..bench.memory_samples import GATHER, HOLDERS, PERCENTILES, READERS, TIERS
from ..bench.results import Run
from ..gpu import sizing
from . import units
from .kernel_show import NOTHING
from .memory_figures import GOAL_CAPACITY, GOAL_OVERHEAD, GOAL_UTILISATION, binary, capacity_names
from .show import measured_or_recorded, table

Figures = dict[str, dict[str, Any]]


def measured(run: Run, on_gpu: bool) -> tuple[Figures, Markdown]:
    """The figures to speak of and where they come from; says so where a recorded run has none of this notebook's."""
    found, source = measured_or_recorded(run, on_gpu)
    holds = any(name.startswith(("capacity_taken_", "record_overhead")) for name in found)
    return (found, source) if holds else ({}, Markdown(f"> **{NOTHING}**"))


def arithmetic(capacities: Sequence[int]) -> HTML:
    """What a cache of each capacity consists of while it is empty, counted in the driver's pages."""
    rows = []
    for capacity in capacities:
        index = sizing.rounded(sizing.MIN_INDEX, sizing.granule(capacity))
        segment = sizing.segment_nbytes(capacity)
        count = (capacity - index) // segment
        share = (index + count * segment) / capacity
        rows.append((binary(capacity), f"{count}", binary(segment), binary(index), f"{share:.2%}"))
    return table(rows, ["capacity", "segments", "of", "index, at first", "taken"])


def capacity_verdict(stored: Figures) -> Markdown:
    """Whether every capacity is kept within two percent, and the one furthest off."""
    shares = {
        label: stored[name]["value"] / stored[name]["ceiling"]
        for name, label in capacity_names(stored).items()
    }
    if not shares:
        return Markdown(NOTHING)
    label, share = max(shares.items(), key=lambda pair: abs(pair[1] - 1))
    kept = all(abs(share - 1) <= GOAL_CAPACITY for share in shares.values())
    return Markdown(
        f"The driver counts between {min(shares.values()):.1%} and {max(shares.values()):.1%} of what was asked for; "
        f"furthest off is {label} with {share:.1%}. Within {GOAL_CAPACITY:.0%}: **{'yes' if kept else 'no'}**."
    )


def record_verdict(stored: Figures) -> Markdown:
    """What a record of 80 bytes costs beyond them, and of what that consists."""
    if "record_overhead" not in stored:
        return Markdown(NOTHING)
    cost, capacity = stored["record_overhead"], stored["record_overhead_capacity"]["value"]
    index = stored["record_part_index"]["value"]
    said = "within" if cost["value"] <= GOAL_OVERHEAD else "beyond"
    return Markdown(
        f"A cache of {binary(capacity)} takes {cost['n']:,} records of 16 B + 64 B. Each costs "
        f"**{units.digits(cost['value'])} B** beyond its own 80, {said} the goal of {GOAL_OVERHEAD} B: "
        f"{units.digits(stored['record_part_header']['value'])} B are its header and {units.digits(index)} B its share of the "
        f"index, which is {sizing.SLOT_NBYTES / index:.0%} full."
    )


def churn_table(stored: Figures) -> HTML | Markdown:
    """By holder: held over live, how long an allocation takes, and how many were refused."""
    rows = []
    for holder, label in HOLDERS.items():
        held = stored.get(f"churn_{holder}_held")
        if held is None:
            continue
        waits = [
            units.format_quantity(stored[f"churn_{holder}_latency_{name}"]["value"], "s")
            for name in PERCENTILES
        ]
        rows.append((label, units.format_figure(held), *waits, f"{_failures(stored, holder):,}"))
    columns = ["", "held / live, median [least, most]", *PERCENTILES, "refused"]
    return table(rows, columns) if rows else Markdown(NOTHING)


def churn_verdict(stored: Figures) -> Markdown:
    """Who holds least for the same bytes, and who waits longest."""
    held = {
        holder: stored[f"churn_{holder}_held"]["value"]
        for holder in HOLDERS
        if f"churn_{holder}_held" in stored
    }
    if not held:
        return Markdown(NOTHING)
    said = "; ".join(
        f"{HOLDERS[holder]} {ratio:.2f} times what is live, at most {stored[f'churn_{holder}_held']['high']:.2f}, "
        f"{_failures(stored, holder):,} refused, longest wait "
        f"{units.format_quantity(stored[f'churn_{holder}_latency_max']['value'], 's')}"
        for holder, ratio in sorted(held.items(), key=lambda pair: pair[1])
    )
    return Markdown(f"Held, from least to most: {said}.")


def _failures(stored: Figures, holder: str) -> int:
    return int(stored[f"churn_{holder}_failures"]["value"])


def compaction_verdict(stored: Figures) -> Markdown:
    """How fast records move, what that frees, and how long one step takes, by live share."""
    shares = sorted(
        int(name.removeprefix("compaction_moved_"))
        for name in stored
        if name.startswith("compaction_moved_")
    )
    lines = [
        f"- {share} % live: moved at {_told(stored, f'compaction_moved_{share}')}, made free at "
        f"{_told(stored, f'compaction_freed_{share}')}; a step takes {_told(stored, f'compaction_step_{share}')}."
        for share in shares
    ]
    return Markdown("\n".join(lines) or NOTHING)


def reader_verdict(stored: Figures) -> Markdown:
    """What compaction does to a reader on another thread."""
    if not all(f"reader_{reader}_max" in stored for reader in READERS):
        return Markdown(NOTHING)
    said = {
        name: [stored[f"reader_{reader}_{name}"]["value"] for reader in READERS]
        for name in PERCENTILES
    }
    parts = ", ".join(
        f"{name} {units.format_quantity(alone, 's')} → {units.format_quantity(beside, 's')}"
        for name, (alone, beside) in said.items()
    )
    n = stored["reader_compacting_max"]["n"]
    return Markdown(
        f"Alone → beside compaction: {parts}; {n:,} lookups each. A reader waits for one step at most, never for all of them."
    )


def soak_verdict(stored: Figures) -> Markdown:
    """Growth, failures, wrong answers and what was live at the end, each against what it should be."""
    names = ("seconds", "written", "failures", "wrong", "growth", "utilisation", "full")
    if not all(f"soak_{name}" in stored for name in names):
        return Markdown(NOTHING)
    seen = {name: stored[f"soak_{name}"]["value"] for name in names}
    passed = (
        seen["full"] >= 0.5
        and seen["failures"] == seen["wrong"] == seen["growth"] == 0
        and seen["utilisation"] >= GOAL_UTILISATION
    )
    return Markdown(
        f"In {seen['seconds']:,.0f} s, {seen['full']:.0%} of them full, "
        f"{units.format_quantity(seen['written'], 'B')} of records were written. "
        f"Refused: {seen['failures']:,.0f}. Wrong answers: {seen['wrong']:,.0f} of {stored['soak_wrong']['n']:,}. "
        f"Growth of device memory: {binary(seen['growth'])}. After compaction {seen['utilisation']:.1%} of the log's "
        f"segments were live records; the goal is {GOAL_UTILISATION:.0%}. **{'Passed' if passed else 'Not passed'}.**"
    )


GOAL_LINK, GOAL_ZIPF = 0.85, 0.6  # of an upload's bandwidth; of all hits


def tiers_verdict(stored: Figures) -> Markdown:
    """What is left of the link where half of the records lie on the host, and what the device serves where few are hot."""
    if not all(name in stored for name in TIERS):
        return Markdown(NOTHING)
    lines = []
    for name in ("tier_uniform_bandwidth", "tier_uniform_promoting"):
        share = stored[name]["value"] / stored[name]["ceiling"]
        aim = "reached" if share >= GOAL_LINK else "not reached"
        lines.append(
            f"- {TIERS[name]}: **{_told(stored, name)}**, {share:.0%} of an upload from pinned memory; "
            f"{GOAL_LINK:.0%} is the aim, {aim}."
        )
    if GATHER in stored:
        most, share = stored[GATHER]["value"], stored[GATHER]["value"] / stored[GATHER]["ceiling"]
        of_it = stored["tier_uniform_bandwidth"]["value"] / most
        lines.append(
            f"- A kernel that reads records of that length in host memory, at random, and does nothing else: "
            f"**{_told(stored, GATHER)}**, {share:.0%} of the upload; the lookup reaches {of_it:.0%} of that."
        )
    share = stored["tier_zipf_share"]["value"]
    aim = "reached" if share >= GOAL_ZIPF else "not reached"
    lines.append(
        f"- {TIERS['tier_zipf_share']}: **{share:.0%}**; {GOAL_ZIPF:.0%} is the aim, {aim}."
    )
    return Markdown("\n".join(lines))


def _told(stored: Figures, name: str) -> str:
    return units.format_figure(stored[name])
