"""Tables and sentences of notebook 04, written from samples and figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import HTML, Markdown

from ..bench import pipeline_samples as measured
from ..bench.host_transfers import ARROW_NAMES, RANDOM, REAL
from ..bench.results import read_environment, reference_directory
from ..bench.statistics import median_interval
from . import units
from .kernel_show import NOTHING
from .pipeline_figures import nbytes_text
from .show import table

PAYS = 1.05  # times what crosses without compression, at least: less would drown in what is not counted
CLOSE = 0.95  # of the best bandwidth
# By the last word of what the cache counts.
_KINDS = {"bytes": "B", "seconds": "s", "bandwidth": "B/s"}
_PERCENTILES = ("p50", "p95", "p99", "p99.9", "max")


def origin(figures: dict[str, dict[str, Any]], source: Markdown) -> Markdown:
    """Where the figures come from, or that neither this machine nor the recorded run has any of this notebook."""
    if any(name in figures for name in (*measured.LABELS, *measured.LINK)):
        return source
    recorded = reference_directory()
    held = f" (`outputs/reference/{recorded.name}`)" if recorded else ""
    return Markdown(
        "> **Not measured here, and not recorded.** No GPU answers, and the recorded run"
        f"{held} does not hold this notebook yet: what follows shows what needs no GPU, and says so where something is missing."
    )


# ---- The link


def link_facts(
    directory: Path, on_gpu: bool, figures: dict[str, dict[str, Any]]
) -> HTML | Markdown:
    """What the driver says of the link, here or where the recorded run was made, and the bandwidth that follows.

    directory: of this run. figures: whose ceilings hold the bandwidth
    """
    recorded = reference_directory()
    whose = directory if on_gpu else recorded
    gpu = read_environment(whose).get("gpu") if whose else None
    if not gpu:
        return Markdown(NOTHING)
    rate = next(
        (
            figures[name]["ceiling"]
            for name in ("link_h2d_pinned", "limit_h2d_pinned")
            if figures.get(name, {}).get("ceiling")
        ),
        None,
    )
    rows = [
        ("GPU", gpu["name"]),
        ("PCI Express generation", gpu["link_generation"] or "not told"),
        ("Lanes", gpu["link_width"] or "not told"),
        ("Line rate less line code, each way", units.format_quantity(rate, "B/s") if rate else "not told"),
    ]  # fmt: skip
    return table(
        [(label, str(value)) for label, value in rows],
        ["", "the driver says" if on_gpu else "the driver of the recorded run said"],
    )


def link_origin(figures: dict[str, dict[str, Any]]) -> Markdown:
    """Whose bandwidth the next sections speak of, where this notebook has measured none."""
    link = measured.link_of(figures)
    if "link_h2d_pinned" in figures or not link:
        return Markdown("" if link else NOTHING)
    up, down = (units.format_quantity(link[direction], "B/s") for direction in ("up", "down"))
    return Markdown(
        f"> The link is that of the recorded run of notebook 00: {up} up, {down} down. Cores and codecs are this machine's."
    )


def sizes_verdict(samples: pd.DataFrame) -> Markdown:
    """For each kind and direction the best bandwidth, and from which size on half of it is reached."""
    lines = []
    medians = samples.groupby(["system", "direction", "nbytes"])["value"].median()
    for kind, direction in medians.index.droplevel("nbytes").unique():
        by_size = medians[kind, direction]
        best = by_size.max()
        half = by_size.index[by_size >= best / 2].min()
        lines.append(
            f"- {kind}, {direction}: at best **{units.format_quantity(best, 'B/s')}**, half of it from {nbytes_text(half)} on."
        )
    smallest = samples["nbytes"].min()
    up = {kind: medians.get((kind, "up", smallest)) for kind in ("pinned", "zero-copy")}
    if all(up.values()):
        faster, slower = sorted(up, key=lambda kind: -up[kind])
        lines.append(
            f"- Of {nbytes_text(smallest)} going up, {faster} carries {units.digits(up[faster] / up[slower])} times as much "
            f"a second as {slower}."
        )
    return Markdown("\n".join(lines) or NOTHING)


def chunks_verdict(samples: pd.DataFrame) -> Markdown:
    """For each way to cross the best setting, and the smallest chunk and fewest streams that come close to it."""
    lines = []
    for (kind, direction), rows in samples.groupby(["system", "direction"]):
        medians = rows.groupby(["streams", "chunk_nbytes"])["value"].median()
        streams, chunk = medians.idxmax()
        close = medians[medians >= CLOSE * medians.max()].reset_index()
        few = close[close["streams"] == close["streams"].min()].sort_values("chunk_nbytes").iloc[0]
        lines.append(
            f"- {kind}, {direction}: at best **{units.format_quantity(medians.max(), 'B/s')}** ({_setting(streams, chunk)}); "
            f"{CLOSE:.0%} of it already with {_setting(few['streams'], few['chunk_nbytes'])}."
        )
    return Markdown("\n".join(lines) or NOTHING)


def _setting(streams: float, chunk: float) -> str:
    return f"{int(streams)} stream{'s' if streams > 1 else ''}, chunks of {nbytes_text(chunk)}"


def turns(samples: pd.DataFrame) -> HTML:
    """How long a short copy took, and how many of the chunks that went the same way would cross in that time."""
    medians = {
        way: median_interval(rows["value"].to_numpy())
        for way, rows in samples.groupby("system", sort=False)
    }
    rows = [
        (way, units.format_figure({**vars(found), "unit": "s"})) for way, found in medians.items()
    ]
    return table(rows, ["a short copy", "done after, median [95 % interval]"])


def turns_verdict(samples: pd.DataFrame) -> Markdown:
    """Whether a stream of its own lets a short copy pass the chunks that wait on another."""
    medians = samples.groupby("system")["value"].median()
    own, same = medians[measured.OWN_STREAM], medians[measured.SAME_STREAM]
    queued, before = (int(samples[name].iloc[0]) for name in ("queued", "before"))
    chunk = nbytes_text(samples["chunk_nbytes"].iloc[0])
    said = (
        f"Of {queued} chunks of {chunk} {before} were ahead of the short copy on their own stream. "
    )
    if own > same:
        said += (
            f"On another stream it took **{units.digits(own / same)} times as long**: the copy engine went on with the "
            "chunks' stream. So all uploads of a cache share one stream, and all downloads another."
        )
    else:
        said += (
            f"On another stream it took {units.digits(own / same)} of that: there it passes them."
        )
    return Markdown(said)


# ---- Stages


def stages(samples: pd.DataFrame) -> HTML:
    """Of each traced call: how long it took, and how long each stage was at work in it."""
    rows = []
    for call in dict.fromkeys(samples["call"]):
        found = measured.timeline_of(samples, call)
        wall = float(found.loc[found["stage"] == measured.WHOLE, "stop"].iloc[0])
        shares = [f"{_covered(found, (stage,), wall) / wall:.0%}" for stage in measured.STAGES]
        chunks = found.loc[found["chunk"] >= 0, "chunk"].nunique()
        name = measured.LABELS.get(call, call)
        rows.append((name, units.format_quantity(wall, "s"), str(chunks), *shares))
    return table(rows, ["", "call", "chunks", *(f"{stage}, of it" for stage in measured.STAGES)])


def _covered(found: pd.DataFrame, stages: tuple[str, ...], wall: float) -> float:
    chosen = found[found["stage"].isin(stages)]
    return measured.covered_seconds(zip(chosen["start"], chosen["stop"], strict=True), 0.0, wall)


def overhead_verdict(figures: dict[str, dict[str, Any]]) -> Markdown:
    """Of each traced call the share in which neither link nor kernel was at work, and what that is held against."""
    lines = [
        f"- {measured.OVERHEADS[name]}: **{_percent(figures[name])}** of the call; "
        f"the goal, below {measured.GOALS[name].most:.0%}, is {measured.GOALS[name].verdict(figures[name])}."
        for name in measured.OVERHEADS
        if name in figures
    ]
    return Markdown("\n".join(lines) or NOTHING)


def transfers(told: dict[str, Any]) -> HTML | Markdown:
    """What the cache itself counted of its transfers."""
    rows = []
    for name, value in told.items():
        what, _, kind = name.rpartition("_")
        unit = _KINDS.get(kind)
        shown = units.format_quantity(value, unit) if unit else f"{value:,.3g}" if isinstance(value, float) else f"{value:,}"  # fmt: skip
        rows.append((what if unit in ("B", "s") else name, shown))
    rows = [(name.replace("_", " "), shown) for name, shown in rows]
    return table(rows, ["", "the cache says"]) if rows else Markdown(NOTHING)


def _percent(entry: dict[str, Any]) -> str:
    text = f"{entry['value']:.1%}"
    return text if entry["low"] is None else f"{text} [{entry['low']:.1%}, {entry['high']:.1%}]"


# ---- Goals


def goals(figures: dict[str, dict[str, Any]], names: dict[str, str]) -> HTML | Markdown:
    """Figures by id -> label: value, ceiling, goal, and what came of it."""
    rows = []
    for name in (name for name in names if name in figures):
        entry = figures[name]
        row, goal = units.figure_row(name, entry), measured.GOALS.get(name)
        verdict = goal.verdict(entry) if goal else ""
        said = _goal_text(goal, entry["unit"]) if goal else ""
        rows.append((names[name], row["value"], row["n"], row["ceiling"], row["share"], said, verdict))  # fmt: skip
    columns = ["", "median [95 % interval]", "n", "ceiling", "of it", "goal", "verdict"]
    return table(rows, columns) if rows else Markdown(NOTHING)


def _goal_text(goal: measured.Goal, unit: str) -> str:
    if goal.share is not None:
        return f"at least {goal.share:.0%} of the ceiling"
    side, value = ("at least", goal.least) if goal.most is None else ("below", goal.most)
    return f"{side} {f'{value:.0%}' if unit == '1' else units.format_quantity(value or 0, unit)}"


def goals_verdict(figures: dict[str, dict[str, Any]], names: dict[str, str]) -> Markdown:
    """Which goals are met, interval included, which are missed, and which the intervals leave open."""
    said: dict[str, list[str]] = {"met": [], "missed": [], "open": []}
    for name in (name for name in names if name in figures and name in measured.GOALS):
        entry, goal = figures[name], measured.GOALS[name]
        bound, value = goal.bound(entry.get("ceiling")), entry["value"]
        ratio = f" ({value / bound:.2f} of the goal)" if bound else ""
        said[goal.verdict(entry)].append(f"{names[name]}{ratio}")
    lines = [f"- {verdict.capitalize()}: {'; '.join(found)}." for verdict, found in said.items() if found]  # fmt: skip
    return Markdown("\n".join(lines) or NOTHING)


# ---- Fewer bytes


def codecs(samples: pd.DataFrame) -> HTML:
    """Ratio and speed per core of each codec, on real values and on random bytes."""
    rows = []
    for codec in ARROW_NAMES:
        for data in (REAL, RANDOM):
            chosen = samples[(samples["system"] == codec) & (samples["data"] == data)]
            cells = [
                units.format_figure({**vars(median_interval(group.to_numpy())), "unit": unit})
                for metric, unit in (("ratio", "1"), ("compress", "B/s"), ("decompress", "B/s"))
                if len(group := chosen.loc[chosen["metric"] == metric, "value"]) > 1
            ]
            rows.append((codec, data, *cells))
    return table(rows, ["", "data", "ratio", "compress, one core", "decompress, one core"])


def compression_verdict(samples: pd.DataFrame, link: dict[str, float], cores: int) -> Markdown:
    """For each direction: with which codec more would cross than without, on how many cores, and by how much at most."""
    if not {"up", "down"} <= link.keys():
        return Markdown(f"No bandwidth to hold this against: {NOTHING[0].lower()}{NOTHING[1:]}")
    lines = []
    for direction, work in (("up", "compress"), ("down", "decompress")):
        bandwidth, best = link[direction], {}
        for codec in ARROW_NAMES:
            crossing = [
                measured.compressed_bandwidth(samples, codec, data, work, bandwidth, cores)
                for data in (REAL, RANDOM)
            ]
            best[codec] = [one / bandwidth for one in crossing]
        speed = {c: measured.codec_medians(samples, c, REAL)[work] for c in ARROW_NAMES}
        said = "; ".join(
            f"{codec} {units.digits(real)}x (random bytes {units.digits(noise)}x, "
            f"{math.ceil(bandwidth / speed[codec])} cores to keep up with the link)"
            for codec, (real, noise) in best.items()
        )
        pays = [codec for codec, (real, _) in best.items() if real >= PAYS]
        lines.append(
            f"- **{direction.capitalize()}load** ({units.format_quantity(bandwidth, 'B/s')}), with all {cores} cores and a device that takes no time: {said}. "
            + (f"It could pay with {', '.join(pays)}." if pays else "**It does not pay.**")
        )
    return Markdown("\n".join(lines))


def offsets_verdict(samples: pd.DataFrame, link: dict[str, float]) -> Markdown:
    """What leaving offsets out saves on the link, and what it costs the host."""
    if "down" not in link or not len(samples):
        return Markdown(NOTHING)
    lines = []
    for (data, bits), rows in samples.groupby(["data", "bits"], sort=False):
        saved = rows.loc[rows["metric"] == "saved", "value"].median()
        rebuild = rows.loc[rows["metric"] == "rebuild", "value"].median()
        gained = saved / link["down"]
        cores = math.ceil(rebuild / gained)
        lines.append(
            f"- {data}: {int(bits)} bits a row instead of 32 save {saved:.2f} B, **{units.format_quantity(gained, 's')}** of the link; "
            f"one core takes **{units.format_quantity(rebuild, 's')}** a row to have the offsets all the same: "
            + ("less than that: it pays." if cores <= 1 else f"{cores} cores' work for a draw.")
        )
    return Markdown("\n".join(lines))


# ---- Load


def load(samples: pd.DataFrame) -> HTML:
    """Of each load: operations, errors, and latency by percentile over all batches."""
    rows = []
    for name in measured.SUSTAINED:
        chosen = samples[samples["workload"] == name]
        if not len(chosen):
            continue
        told = chosen[chosen["block"] < 0].set_index("metric")["value"]
        threads, seconds = int(chosen["threads"].iloc[0]), chosen["seconds"].iloc[0]
        latencies = [
            units.format_quantity(told[f"pooled_latency_{name}"], "s") for name in _PERCENTILES
        ]
        rows.append((str(threads), f"{seconds:.0f} s", f"{told['operations']:,.0f}", f"{told['errors']:,.0f}", *latencies))  # fmt: skip
    return table(rows, ["threads", "for", "operations", "errors", *_PERCENTILES])


def load_verdict(figures: dict[str, dict[str, Any]]) -> Markdown:
    """The goals of the load, and whether there were errors."""
    verdict = goals_verdict(figures, measured.LOAD)
    errors = [figures[f"{name}_errors"]["value"] for name in measured.SUSTAINED if f"{name}_errors" in figures]  # fmt: skip
    if not errors:
        return verdict
    said = "No operation failed." if not sum(errors) else f"**{sum(errors):,.0f} operations failed.**"  # fmt: skip
    return Markdown(f"{verdict.data}\n- {said}")


def summary(verdicts: Sequence[Markdown]) -> Markdown:
    """All of them together; those with nothing to say share one line."""
    said = [verdict.data for verdict in verdicts if verdict.data != NOTHING]
    missing = (
        [f"Of the rest: {NOTHING[0].lower()}{NOTHING[1:]}"] if len(said) < len(verdicts) else []
    )
    return Markdown("\n\n".join([*said, *missing]))
