"""Tables and sentences of notebooks 01 and 02, written from samples, figures and predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Sized
from typing import Any

import pandas as pd
from IPython.display import HTML, Markdown

from ..bench import counted, kernel_samples
from ..bench.kernel_samples import CEILING, SWEEP_COLUMNS, WINNER, WORKLOADS
from ..bench.launch_settings import Prediction, RungNeeds
from ..bench.statistics import Interval, median_interval
from ..gpu.ladder import OPERATIONS, RUNGS
from . import units
from .kernel_figures import WANTED
from .show import table

NOTHING = "Not measured here, and no recorded run holds it."
CLOSE = 0.02  # settings that are slower by less count as equally fast
K2 = 0.9  # of the accesses alone
_RATE = "keys a second [95 % interval]"


def shown(draw: Callable[..., Any], data: Sized, *arguments: Any) -> Any:
    """What `draw` makes of data and arguments, or a line that says that there is nothing to draw."""
    return draw(data, *arguments) if len(data) else Markdown(NOTHING)


def among(figures: dict[str, dict[str, Any]], names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The figures of these names, as far as they are there."""
    return {name: figures[name] for name in names if name in figures}


# ---- The ladder


def ideas(rungs: Sequence[str], key_nbytes: int, value_nbytes: int) -> HTML:
    """What each rung changes, why, and what it must move per key, counted by hand."""
    rows = [
        (
            name,
            RUNGS[name].title,
            RUNGS[name].reason,
            *(RUNGS[name].bytes_moved(kernel, key_nbytes, value_nbytes) for kernel in ("find", "insert", "erase")),
        )
        for name in rungs
    ]  # fmt: skip
    return table(rows, ["", "idea", "why", "find, B", "insert, B", "erase, B"])


def ladder(samples: pd.DataFrame, workload: str) -> HTML:
    """Every rung at the largest batch of the smallest values: rate, gain over the rung it builds on, share of the ceiling."""
    cell = kernel_samples.main_cell(samples, workload)
    ceiling = kernel_samples.rates(samples, CEILING, workload, cell)
    rows = []
    for name in [*kernel_samples.rungs_of(samples, workload), WINNER]:
        found = kernel_samples.rates(samples, name, workload, cell)
        parent = RUNGS[name].parent if name in RUNGS else "v1"
        gain = kernel_samples.over(samples, name, parent, workload, cell) if parent else None
        share = pd.Series(found).median() / pd.Series(ceiling).median()
        counted_by_hand = name in RUNGS and workload in OPERATIONS  # an update's are not
        moved = RUNGS[name].bytes_moved(workload, 16, cell[0]) if counted_by_hand else ""
        title = RUNGS[name].title if name in RUNGS else "serves the cache, against v1"
        rows.append((name, title, moved, _rate(found), _times(gain), f"{share:.0%}"))
    return table(
        rows, ["", "idea", "bytes by hand", _RATE, "over what it builds on", "of the ceiling"]
    )


def ladder_verdict(samples: pd.DataFrame, workload: str) -> Markdown:
    """Which steps paid, which did not, what stands beside the last one, and how near the ceiling all that comes."""
    cell = kernel_samples.main_cell(samples, workload)
    gains = {
        name: gain
        for name in kernel_samples.rungs_of(samples, workload)
        if (parent := RUNGS[name].parent)
        and (gain := kernel_samples.over(samples, name, parent, workload, cell))
    }
    climb = {name: gain for name, gain in gains.items() if kernel_samples.is_climb(name)}
    beside = {name: gain for name, gain in gains.items() if name not in climb}
    paid = sorted(
        (name for name in climb if climb[name].low > 1), key=lambda name: -climb[name].value
    )
    share = _over_median(samples, WINNER, CEILING, workload, cell)
    whole = kernel_samples.over(samples, WINNER, "v1", workload, cell)
    lines = [
        f"- **{workload.capitalize()}**, {cell[1]:,} keys a launch, values of {cell[0]} B: what serves the cache reaches **{_rate(kernel_samples.rates(samples, WINNER, workload, cell))}**, "
        f"{share} of its accesses alone" + (f" and {_times(whole)} the rate of v1." if whole else "."),
        _said("Steps that paid, the largest first", paid, climb),
        _said("Steps that did not, or not by more than the noise", [n for n in climb if n not in paid], climb),
        _said("Beside the last step, faster", [n for n in beside if beside[n].low > 1], beside),
        _said("Beside the last step, no faster", [n for n in beside if beside[n].low <= 1], beside),
    ]  # fmt: skip
    return Markdown("\n".join(line for line in lines if line))


def _said(what: str, names: Sequence[str], gains: dict[str, Interval]) -> str:
    named = "; ".join(f"{name} *{RUNGS[name].title}* {_times(gains[name])}" for name in names)
    return f"- {what}: {named}." if named else ""


def _over_median(samples: pd.DataFrame, system: str, baseline: str, workload: str, cell) -> str:
    share = kernel_samples.over(samples, system, baseline, workload, cell)
    return f"{share.value:.0%} [{share.low:.0%}, {share.high:.0%}]" if share else "no known share"


def _rate(values: Any) -> str:
    if len(values) < 2:
        return ""
    found = median_interval(values)
    return units.format_figure({**vars(found), "unit": "1/s"})


def _times(ratio: Interval | None) -> str:
    if ratio is None:
        return ""
    return f"{units.digits(ratio.value)}x [{units.digits(ratio.low)}, {units.digits(ratio.high)}]"


# ---- The goals


def roofline_verdict(figures: dict[str, dict[str, Any]], names: dict[str, str]) -> Markdown:
    """K2: which operations reach nine tenths of their accesses alone, and which do not."""
    shares = {
        label: figures[name]["value"] / figures[name]["ceiling"]
        for name, label in names.items()
        if "ceiling" in figures.get(name, {})
    }
    if not shares:
        return Markdown(NOTHING)
    ordered = sorted(shares.items(), key=lambda pair: -pair[1])
    above = ", ".join(f"{label} {share:.0%}" for label, share in ordered if share > K2)
    below = ", ".join(f"{label} {share:.0%}" for label, share in ordered if share <= K2)
    return Markdown(
        f"- Above {K2:.0%} of the same accesses alone: {above or 'none'}.\n- Not above: {below or 'none'}."
    )


def winner_verdict(figures: dict[str, dict[str, Any]]) -> Markdown:
    """K4: how many times v1's rate, per operation."""
    rows = {verb: figures[f"k4_{verb}"] for verb in WORKLOADS if f"k4_{verb}" in figures}
    if not rows:
        return Markdown(NOTHING)
    said = "; ".join(f"{verb} {_times(_interval(entry))}" for verb, entry in rows.items())
    double = [verb for verb, entry in rows.items() if entry["low"] >= 2]
    return Markdown(
        f"What serves the cache over v1: **{said}**. At least twice as fast, interval included: {', '.join(double) or 'none'}."
    )


def _interval(entry: dict[str, Any]) -> Interval:
    return Interval(entry["value"], entry["low"], entry["high"], entry["n"])


# ---- Counters


def bytes_verdict(figures: dict[str, dict[str, Any]]) -> Markdown:
    """How far memory's own count is from the count by hand."""
    ratios = {
        label: figures[f"dram_nbytes_{case}"]["value"] / counted.by_hand(case)
        for case, label in counted.LABELS.items()
        if case != "real" and f"dram_nbytes_{case}" in figures
    }
    if not ratios:
        return Markdown(NOTHING)
    said = "; ".join(f"{label} {ratio:.2f}" for label, ratio in ratios.items())
    return Markdown(f"Bytes that DRAM moved, over bytes counted by hand: {said}.")


def counted_bytes(figures: dict[str, dict[str, Any]]) -> HTML:
    """Bytes per key by hand beside what DRAM moved, by case."""
    rows = []
    for case, label in counted.LABELS.items():
        entry = figures.get(f"dram_nbytes_{case}")
        if case == "real" or entry is None:
            continue
        hand = counted.by_hand(case)
        rows.append(
            (label, f"{hand:.0f} B", f"{entry['value']:.0f} B", f"{entry['value'] / hand:.2f}")
        )
    return table(rows, ["", "by hand", "DRAM, read and written", "of it"])


def by_hand() -> HTML:
    """Bytes per key counted by hand, where no counter can be read."""
    cases = [case for case in counted.LABELS if case != "real"]
    return table(
        [(counted.LABELS[case], f"{counted.by_hand(case):.0f} B") for case in cases],
        ["", "by hand"],
    )


def divergence(figures: dict[str, dict[str, Any]]) -> HTML | Markdown:
    """Threads per instruction, sectors per load and achieved occupancy, by case."""
    if not any(f"threads_per_instruction_{case}" in figures for case in counted.CASES):
        return Markdown(NOTHING)
    layouts = {
        "threads_per_instruction_{}": "{:.1f}",
        "load_sectors_{}": "{:.1f}",
        "occupancy_{}_achieved": "{:.0%}",
    }
    rows = [
        (label, *(_told(figures.get(name.format(case)), layout) for name, layout in layouts.items()))
        for case, label in counted.LABELS.items()
    ]  # fmt: skip
    columns = ["", "threads per instruction, of 32", "sectors per load", "occupancy, achieved"]
    return table(rows, columns)


def _told(entry: dict[str, Any] | None, layout: str) -> str:
    return layout.format(entry["value"]) if entry else ""


def occupancy_verdict(figures: dict[str, dict[str, Any]]) -> Markdown:
    """K1: achieved beside predicted occupancy of lookups and inserts."""
    said = []
    for verb in ("find", "insert"):
        entry = figures.get(f"occupancy_{verb}")
        if entry:
            predicted = f", predicted {entry['ceiling']:.0%}" if "ceiling" in entry else ""
            reached = "above" if entry["value"] > WANTED else "not above"
            said.append(
                f"- {verb}: achieved {entry['value']:.0%}{predicted}; {reached} {WANTED:.0%}."
            )
    return Markdown("\n".join(said) or NOTHING)


# ---- Compilation and occupancy


def compile_times(reports: Iterable[Any]) -> Markdown:
    """What compiling took, apart from every rate."""
    fresh = [report.seconds for report in reports if not report.cached]
    stored = sum(1 for report in reports if report.cached)
    if not fresh:
        return Markdown(f"No module had to be compiled: {stored} came from the cache on disk.")
    return Markdown(
        f"{len(fresh)} modules were compiled in {sum(fresh):.1f} s of one core (median {pd.Series(fresh).median():.2f} s, "
        f"at most {max(fresh):.2f} s), several at a time; {stored} came from the cache on disk. No rate includes it."
    )


def rung_needs(found: Sequence[RungNeeds]) -> HTML:
    """Registers, shared memory and predicted occupancy of each rung."""
    rows = [
        (one.rung, RUNGS[one.rung].title, one.registers, one.shared_nbytes, f"{one.occupancy.share:.0%}",
         ", ".join(one.occupancy.limited_by))
        for one in found
    ]  # fmt: skip
    return table(
        rows, ["", "idea", "registers", "shared memory, B a block", "occupancy", "limited by"]
    )


def needs_verdict(found: Sequence[RungNeeds], arch: int) -> Markdown:
    """The extremes."""
    registers = [one.registers for one in found]
    fullest, emptiest = (f(found, key=lambda one: one.occupancy.share) for f in (max, min))
    return Markdown(
        f"On sm_{arch}, from {min(registers)} to {max(registers)} registers a thread: room for "
        f"{emptiest.occupancy.share:.0%} of the warps ({emptiest.rung}) to {fullest.occupancy.share:.0%} ({fullest.rung}). "
        "Room is no aim in itself: a thread that needs few registers may have little under way."
    )


def predictions(found: Sequence[Prediction]) -> HTML:
    """What the compiler says of each kernel on each architecture, and what follows."""
    rows = [
        (one.kernel, f"sm_{one.arch}", one.setting.threads, one.registers, one.spill_nbytes, one.occupancy.warps,
         f"{one.occupancy.share:.0%}", ", ".join(one.occupancy.limited_by))
        for one in found
    ]  # fmt: skip
    columns = [
        "kernel",
        "architecture",
        "threads a block",
        "registers",
        "spilled, B a thread",
        "warps",
        "occupancy",
        "limited by",
    ]
    return table(rows, columns)


def predictions_verdict(found: Sequence[Prediction]) -> Markdown:
    """Where the prediction allows three quarters of the warps, and where it does not."""
    lines = []
    for kernel in dict.fromkeys(one.kernel for one in found):
        mine = [one for one in found if one.kernel == kernel]
        enough = [f"sm_{one.arch}" for one in mine if one.occupancy.share >= WANTED]
        least, most = (f(one.occupancy.share for one in mine) for f in (min, max))
        lines.append(
            f"- `{kernel}`: {least:.0%} to {most:.0%}; {WANTED:.0%} or more on {', '.join(enough) or 'none'}."
        )
    return Markdown("\n".join(lines))


def settings_verdict(samples: pd.DataFrame, kernel: str, by: str) -> Markdown:
    """The fastest setting, from which occupancy on others keep up with it, and where the usual one stands.

    by: as of `kernel_samples.sweep_of`
    """
    chosen = kernel_samples.sweep_of(samples, kernel, by)
    medians = chosen.groupby([*SWEEP_COLUMNS])["value"].median().reset_index().sort_values("value")
    best, fullest = medians.iloc[-1], medians.loc[medians["occupancy"].idxmax()]
    close = medians[medians["value"] >= (1 - CLOSE) * best["value"]]
    enough, most = close["occupancy"].min(), medians["occupancy"].max()
    text = (
        f"`{kernel}`: fastest with {_setting(best)}: **{units.format_quantity(best['value'], '1/s')}**. "
        f"{len(close)} of {len(medians)} settings come within {CLOSE:.0%} of it; the emptiest of them has an occupancy of "
        f"{enough:.0%}"
        + (": beyond that, more does not help. " if enough < most else ", the highest there is. ")
        + f"The fullest setting, {_setting(fullest)}, gives {fullest['value'] / best['value']:.0%} of the fastest."
    )
    for served in medians[medians["usual"].astype(bool)].to_dict("records")[:1]:
        text += f" What serves the cache ({_setting(served)}) gives {served['value'] / best['value']:.0%}."
    return Markdown(text)


def lanes_verdict(samples: pd.DataFrame) -> Markdown:
    """Four lanes a bucket (v7) over one (v6), for each operation that was measured."""
    lines = []
    for workload in kernel_samples.WORKLOADS:
        if {"v6", "v7"} <= set(samples.loc[samples["workload"] == workload, "system"]):
            cell = kernel_samples.main_cell(samples, workload)
            one, four = (
                kernel_samples.rates(samples, name, workload, cell) for name in ("v6", "v7")
            )
            ratio = kernel_samples.over(samples, "v7", "v6", workload, cell)
            lines.append(
                f"- {workload}, {cell[1]:,} keys a launch: one lane a bucket {_rate(one)}, four lanes {_rate(four)}: {_times(ratio)}."
            )
    return Markdown("\n".join(lines) or NOTHING)


def _setting(row: Any) -> str:
    spilled = f" and {int(row['local_nbytes'])} B spilled" if row["local_nbytes"] else ""
    return (
        f"{int(row['threads'])} threads a block, {int(row['registers'])} registers{spilled}, {int(row['pieces'])} pieces and "
        f"{int(row['rounds'])} rounds under way, occupancy {row['occupancy']:.0%}"
    )
