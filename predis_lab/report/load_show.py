"""What notebooks 07 and 08 say of load beside their figures: tables, and sentences written from the data."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
from IPython.display import HTML, Markdown

from ..bench.harness import ALL_BLOCKS
from ..bench.open_loop import limits
from ..bench.statistics import median_interval, ratio_interval
from . import comparison, units
from .claims import named
from .load_figures import look_of
from .show import table


def singles(samples: pd.DataFrame, compared: pd.DataFrame) -> Markdown:
    """How often Predis answers beside Redis, one operation at a time. compared: of `comparison.against`"""
    lines = []
    for row in compared[compared["workload"] == "single"].itertuples():
        p99 = [
            _pooled(samples, row.records, system, "p99") for system in (row.candidate, row.baseline)
        ]
        said = f"- {named(row.records)}, **{look_of(row.candidate)[2]}**: "
        said += f"{comparison.ratio_text(row)} Redis's rate ({row.verdict})"
        if all(p99):
            said += f"; p99 {p99[0]} against {p99[1]}"
        lines.append(said + ".")
    return Markdown("\n".join(lines) or "Not measured.")


def limits_reached(samples: pd.DataFrame) -> HTML:
    """How far each system kept up with what was offered."""
    rows = []
    cells = samples[samples["workload"] == "open"]
    for (records, keys), cell in cells.groupby(["records", "keys"], sort=False):
        for limit in limits(cell):
            served = "" if limit.reached is None else units.format_figure(vars(limit.reached) | {"unit": "1/s"})  # fmt: skip
            whose = "not reached" if limit.reached is None else "its own"
            rows.append(
                (
                    named(records),
                    f"{int(keys):,}",
                    look_of(limit.system)[2],
                    units.format_quantity(limit.kept, "1/s") if limit.kept else "none",
                    served,
                    "perhaps the sender's" if limit.by_sender else whose,
                )
            )
    columns = ["scenario", "keys", "who", "kept up with", "served of the next rate", "limit"]
    return table(rows, columns)


def open_answer(samples: pd.DataFrame, records: str, keys: int) -> Markdown:
    """At the highest rate that all systems kept up with: how long calls wait for their answers."""
    cell = samples[(samples["workload"] == "open") & (samples["records"] == records)]
    cell = cell[cell["keys"] == keys]
    common = min((limit.kept for limit in limits(cell)), default=0.0)
    if not common:
        return Markdown("No rate was kept up with by all: the lowest that is offered is too high.")
    rows = cell[cell["rate"] == common]
    said = [
        f"{look_of(system)[2]} {_interval(group, 's')}"
        for system, group in rows[rows["metric"] == "latency_p50"].groupby("system", sort=False)
    ]
    rate = units.format_quantity(common, "1/s")
    return Markdown(f"At {rate} all keep up. Median latency there: {'; '.join(said)}.")


def training(samples: pd.DataFrame) -> HTML:
    """Samples a second until they are tensors, and the share of a training step that waits for them."""
    chosen = samples[samples["workload"].isin(["delivery", "training"])]
    chosen = comparison.best_transport(chosen) if len(chosen) else chosen
    rows = []
    for (records, system), group in chosen.groupby(["records", "system"], sort=False):
        delivered = group[(group["workload"] == "delivery") & (group["metric"] == "throughput")]
        waits = group[group["metric"] == "waiting_share"]
        rows.append(
            (named(records), look_of(system)[2], _interval(delivered, "1/s"), _percent(waits))
        )
    return table(rows, ["samples", "who", "delivered", "of a step spent waiting"])


def busy(samples: pd.DataFrame) -> HTML | Markdown:
    """What telemetry read while columns were found and stored without a pause, those of the host and those on the GPU."""
    rows = samples[samples["workload"] == "busy"]
    on_device = rows["system"].str.endswith(" on device")
    names = {
        "throughput": ("keys found and stored", "1/s"),
        "gpu_utilisation": ("GPU utilisation", ""),
        "gpu_memory": ("GPU memory", "B"),
        "gpu_power": ("power", "W"),
        "gpu_clock": ("clock of the multiprocessors", "Hz"),
        "process_cpu": ("cores kept busy by this process", "1"),
        "process_memory": ("its resident memory", "B"),
    }

    def told(blocks: pd.DataFrame, unit: str) -> str:
        if not len(blocks):
            return "not measured: no GPU tells it here"
        return _interval(blocks, unit) if unit else _percent(blocks)

    sides = [rows[~on_device], rows[on_device]] if on_device.any() else [rows]
    lines = [
        (label, *(told(side[side["metric"] == metric], unit) for side in sides))
        for metric, (label, unit) in names.items()
    ]
    windows = [str((side["metric"] == "throughput").sum()) for side in sides]
    titles = ["columns of the host", "columns on the GPU"][: len(sides)]
    return table([*lines, ("windows", *windows)], ["median [95 % interval]", *titles])


def watched(samples: pd.DataFrame) -> Markdown:
    """What became of blocks that were disturbed, what watching cost, and how many operations failed."""
    blocks = samples[samples["metric"] == "disturbed"]
    reruns = samples.loc[samples["metric"] == "reruns", "value"].sum()
    costs = samples[(samples["metric"] == "telemetry_cpu") & (samples["block"] == ALL_BLOCKS)]
    failed = samples[samples["metric"] == "error_rate"]
    said = (
        f"Of {len(blocks):,} blocks {int(blocks['value'].sum()):,} were kept although something disturbed them (the GPU held "
        f"down, or others at work on this machine), after {int(reruns):,} blocks had been made again. "
    )
    if len(costs):
        said += f"Watching kept {costs['value'].median():.1%} of a core busy. "
    bad = int((failed["value"] > 0).sum())
    said += f"Errors were counted in {len(failed):,} blocks: "
    said += f"{bad:,} of them had any." if bad else "none had any."
    return Markdown(said + _servers(samples))


def _servers(samples: pd.DataFrame) -> str:
    """What each server held and how busy it was, in the blocks in which it was asked."""
    said = ""
    for name in ("redis", "valkey"):
        asked = samples[samples["system"].str.startswith(name)]
        found = asked.groupby("metric")["value"].median()
        if f"{name}_memory" in found and f"{name}_cpu" in found:
            memory = units.format_quantity(found[f"{name}_memory"], "B")
            cores = units.digits(found[f"{name}_cpu"])
            said += f" While it was asked, {name.capitalize()} held {memory} and kept {cores} cores busy (medians of blocks)."
    return said


def clients(samples: pd.DataFrame) -> HTML:
    """Every number of clients: rate of all, latency of a call, errors by kind."""
    rows = []
    chosen = samples[samples["workload"] == "clients"]
    for (batch, system, kind, count), group in chosen.groupby(["batch", "system", "as", "clients"]):
        value = _of(group)
        errors = group[group["metric"].str.startswith("errors_")].groupby("metric")["value"].sum()
        said = ", ".join(
            f"{int(n):,} {name.removeprefix('errors_')}" for name, n in errors.items() if n
        )
        rows.append(
            (
                f"{int(batch):,}", look_of(system)[2], kind, f"{int(count):,}", value("throughput", "1/s"),
                value("latency_p50", "s"), value("latency_p99", "s"), said or "none",
            )
        )  # fmt: skip
    return table(rows, ["keys a call", "who", "clients as", "clients", "all together", "p50", "p99", "errors"])  # fmt: skip


def scaling(samples: pd.DataFrame, batch: int) -> Markdown:
    """What the largest number of clients reaches beside one of the same kind."""
    rows = samples[(samples["workload"] == "clients") & (samples["metric"] == "throughput")]
    rows = rows[rows["batch"] == batch]
    most, lines = rows["clients"].max(), []
    for (system, kind), group in rows.groupby(["system", "as"], sort=False):
        sides = [group.loc[group["clients"] == n, "value"].to_numpy() for n in (most, 1)]
        if min(map(len, sides)) < 2 or most == 1:
            continue
        ratio = ratio_interval(*sides)
        text = comparison.times_text(ratio.value, ratio.low, ratio.high)
        lines.append(
            f"- {look_of(str(system))[2]}, {kind}: {int(most)} reach {text} of what one does"
        )
    return Markdown("\n".join(lines) or "One client only: nothing to compare.")


def _of(group: pd.DataFrame) -> Callable[[str, str], str]:
    return lambda metric, unit: _interval(group[group["metric"] == metric], unit)


def _interval(rows: pd.DataFrame, unit: str) -> str:
    """The median of blocks with its interval; empty where there are no two."""
    if len(rows) < 2:
        return ""
    return units.format_figure(vars(median_interval(rows["value"].to_numpy())) | {"unit": unit})


def _percent(rows: pd.DataFrame) -> str:
    if len(rows) < 2:
        return ""
    one = median_interval(rows["value"].to_numpy())
    return f"{one.value:.1%} [{one.low:.1%}, {one.high:.1%}]"


def _pooled(samples: pd.DataFrame, records: str, system: str, percentile: str) -> str:
    """Of all calls of a system; empty where they were too few."""
    rows = comparison.best_transport(samples[samples["workload"] == "single"])
    rows = rows[(rows["records"] == records) & (rows["system"] == system)]
    rows = rows[rows["metric"] == f"pooled_latency_{percentile}"]
    return units.format_quantity(rows["value"].iloc[0], "s") if len(rows) else ""
