"""What the report says of a run, written from its samples: summary, headline numbers, losses. Called by `html` and notebook 09."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ..bench import limits, pipeline_samples
from . import claims, comparison, units
from .facts import MISSING, Facts
from .figures import look
from .tails import tails

VERBS = ("get", "set", "delete")
HOST = "its host table, a Python dict in the caller's process"
Headline = tuple[str, str, str]  # the number, its interval or what it stands beside, and what it is


def summary(facts: Facts) -> tuple[str, str, str]:
    """Three sentences: where Predis gains, where it does not, and what that proves."""
    return _gains(facts), _does_not_gain(facts), _proves(facts)


def headline(facts: Facts) -> list[Headline]:
    """The numbers to remember, those of them that were measured."""
    found = [_largest(facts), _from_where(facts), _waits(facts), _settled(facts), _sustained(facts)]
    return [one for one in found if one]


def losses(facts: Facts) -> list[tuple[str, list[str]]]:
    """What speaks against Predis and against this run, by heading; every heading has a line."""
    redis, process = facts.at_best, facts.in_process.compared
    return [
        ("Claims that fail", _failed(facts)),
        ("Where Redis is faster", by_cell(_are(redis, "slower")) or [_none(redis, "Redis", "faster")]),
        ("Where a Python dict is faster", _ranges(process) or [_none(process, "a dict", "faster")]),
        ("Ambiguous", _unclear(facts)),
        ("What was not measured", missing(facts)),
        ("What it was measured on", _measured_on(facts)),
    ]  # fmt: skip


def missing(facts: Facts) -> list[str]:
    """What a full run has and this one has not."""
    metrics, stored = set(facts.samples["metric"]), facts.stored.keys()
    wanted = {
        "the noise floor: one system against itself": "noise_floor" in metrics,
        **{f"{way.name}: {way.sides}": bool(len(way.compared)) for way in facts.ways},
        "the table alone, keys and values in GPU memory": not stored.isdisjoint(limits.TABLE),
        "the slowest of a thousand calls (p99.9)": "pooled_latency_p99.9" in metrics,
        "load sustained over time": "sustained" in stored,
        "several clients at once": bool(len(of_work(facts, "clients"))),
        "calls that arrive at a fixed rate, whether or not the last was answered": bool(
            len(of_work(facts, "open"))
        ),
        "errors, counted": any(metric.startswith("error") for metric in metrics),
        "bytes a record takes in Redis": "record_nbytes_redis" in stored,
        "bytes a record takes in Predis on a GPU": "record_nbytes_predis" in stored,
        "GPU utilisation and memory while systems were measured": {"gpu_utilisation", "gpu_memory"}
        <= metrics,
    }
    lines = [f"{what[0].upper()}{what[1:]}" for what, there in wanted.items() if not there]
    return lines or ["Everything that this report asks for was measured."]


def nothing(directory: Path) -> str:
    """What to do where a folder holds no run."""
    return (
        f"Nothing was measured in `{directory}` yet. Run other notebooks with the same `run_dir` first: 06 compares with Redis, 07 "
        "plays workloads, 00 to 05 measure the parts. `make report` runs them all and leaves the report."
    )


def work_name(workload: str, records: str) -> str:
    """What is done, in words.

    >>> work_name("get", "fixed 16+64 B"), work_name("played", "ycsb_a"), work_name("single", "trading")
    ('GET, fixed 16+64 B', 'ycsb_a', 'trading, one by one')
    """
    if workload in VERBS:
        return f"{workload.upper()}, {records}"
    return {"played": records, "single": f"{records}, one by one"}.get(workload, f"{workload}, {records}")  # fmt: skip


def cell_name(workload: str, records: str, keys: float) -> str:
    """A cell in words.

    >>> cell_name("get", "fixed 16+64 B", 1), cell_name("played", "ycsb_a", 100)
    ('GET, fixed 16+64 B, 1 key a call', 'ycsb_a, batches of 100')
    """
    calls = {"played": f", batches of {int(keys):,}", "single": ""}
    return work_name(workload, records) + calls.get(workload, f", {keys_text(keys)} a call")


def keys_text(keys: float) -> str:
    """How many keys.

    >>> keys_text(1), keys_text(1000.0)
    ('1 key', '1,000 keys')
    """
    return "1 key" if keys == 1 else f"{int(keys):,} keys"


def named(system: str) -> str:
    """A system as figures call it, and what it has beside that.

    >>> named("predis-cuda columns"), named("predis-cuda lists hot"), named("predis-cuda tensors"), named("nobody")
    ('Predis, columns', 'Predis, lists with the hot tier', 'Predis, tensors', 'nobody')
    """
    who, _, how = system.partition(" ")
    if is_drawable(system):
        return look(system)[2]
    how = how.replace(" hot", " with the hot tier").replace(" tensors", " as tensors")
    return f"{who.partition('-')[0].capitalize()}, {how}" if how else system


def is_drawable(system: str) -> bool:
    """Whether figures have a look for just this system: two that share one would be drawn as one."""
    try:
        look(system)
    except KeyError:
        return False
    return system.count(" ") <= 1


def face(system: str) -> str:
    """How Predis was asked."""
    return named(system).removeprefix("Predis, ")


def of_work(facts: Facts, workload: str) -> pd.DataFrame:
    """The samples of one workload, those of all its blocks."""
    samples = facts.samples
    return samples[(samples["workload"] == workload) & (samples["block"] >= 0)]


def is_reading(metric: str) -> bool:
    """Whether a metric tells of the machine or of failures, not of what a system reached.

    >>> is_reading("gpu_memory"), is_reading("redis_cpu"), is_reading("errors"), is_reading("throughput")
    (True, True, True, False)
    """
    return (
        metric.startswith(("gpu_", "error"))
        or metric in ("reruns", "disturbed")
        or metric.endswith(("_cpu", "_memory"))
    )


def crossing(rows: pd.DataFrame) -> int | None:
    """Keys a call from which on Predis is faster, all the way up; None where it is not at the most keys. rows: of one face."""
    found = None
    for row in rows.sort_values("keys", ascending=False).itertuples():
        if row.verdict != "faster":
            break
        found = int(row.keys)
    return found


def by_cell(rows: pd.DataFrame) -> list[str]:
    """One line for each workload, face and opponent, with the ratio at each number of keys."""
    lines = []
    told = rows.assign(other=rows["baseline"].map(named))
    for (workload, records, candidate, other), found in told.groupby(
        ["workload", "records", "candidate", "other"], sort=False
    ):
        ratios = "; ".join(
            f"{comparison.ratio_text(row)} at {keys_text(row.keys)}"
            for row in found.sort_values("keys").itertuples()
        )
        lines.append(f"{work_name(workload, records)}: {face(candidate)} over {other}: {ratios}.")
    return lines


# ---- The summary


def _gains(facts: Facts) -> str:
    rows = facts.at_best
    if not len(rows):
        notebooks = len(facts.environment.get("notebooks", {}))
        return (
            f"This run holds {len(facts.samples):,} samples and {len(facts.stored):,} figures of {notebooks} "
            f"notebook{'s' * (notebooks != 1)}, and no comparison of Predis with Redis."
        )
    faster = _are(rows, "faster")
    who = "Predis" if facts.environment.get("gpu") else f"Predis on {HOST},"
    if not len(faster):
        return f"In none of {len(rows)} comparisons is {who} faster than Redis at its best."
    most = faster.loc[faster["ratio"].idxmax()]
    return (
        f"{who} is faster than Redis at its best in {len(faster)} of {len(rows)} comparisons, most of all at "
        f"{cell_name(most.workload, most.records, most['keys'])}: {comparison.ratio_text(most)} through "
        f"{face(most.candidate)} (p = {most.p_adjusted:.1e}, {min(most.n_candidate, most.n_baseline)} blocks a side)."
    )


def _does_not_gain(facts: Facts) -> str:
    rows = facts.at_best
    if not len(rows):
        bound = [
            one["value"] / one["ceiling"] for one in facts.stored.values() if one.get("ceiling")
        ]
        if not bound:
            return "None of its figures has a ceiling to be read against."
        return f"{len(bound)} of its figures have a ceiling and reach between {min(bound):.0%} and {max(bound):.0%} of it."
    slower, unclear = _are(rows, "slower"), len(_are(rows, "ambiguous"))
    rest = f"{unclear} {'is' if unclear == 1 else 'are'} ambiguous"
    if undecidable := len(facts.at_depth.undecidable):
        rest += f" (with {facts.at_depth.needed} blocks a side needed for a verdict, {undecidable} of all {len(facts.at_depth.compared)} had too few)"
    if not len(slower):
        return f"Redis at its best is faster in none of them, and {rest}."
    least = slower.loc[slower["ratio"].idxmin()]
    return (
        f"Redis is faster in {len(slower)}, most of all at {cell_name(least.workload, least.records, least['keys'])}, where "
        f"{face(least.candidate)} reach {comparison.ratio_text(least)} of its rate, and {rest}."
    )


def _proves(facts: Facts) -> str:
    floor = (
        f"differences within {facts.floor:.1%}, by which two runs of one system differed, are not claimed"
        if facts.floor
        else "what two runs of one system differ by was not measured"
    )
    tally = claims.tally(facts.settled).rstrip(".")
    if tally:
        return f"{tally}, each tested against the least that it promises; {floor}."
    if facts.environment.get("gpu"):
        return f"None of the {len(facts.settled)} claims was measured in this run; {floor}."
    return f"Nothing is claimed of a GPU, because none answered; {floor}."


# ---- Headline numbers


def _largest(facts: Facts) -> Headline | None:
    faster = _are(facts.at_best, "faster")
    if not len(faster):
        return None
    most = faster.loc[faster["ratio"].idxmax()]
    where = cell_name(most.workload, most.records, most["keys"])
    low, high = units.digits(most.low), units.digits(most.high)
    return f"{units.digits(most.ratio)}x", f"[{low}, {high}]", f"Redis at its best: {where}, {face(most.candidate)}"  # fmt: skip


def _from_where(facts: Facts) -> Headline | None:
    for workload, records in facts.series:
        rows = facts.at_best
        rows = rows[(rows["workload"] == workload) & (rows["records"] == records)]
        found = {one: crossing(group) for one, group in rows.groupby("candidate")}
        first = {one: keys for one, keys in found.items() if keys is not None}
        if first:
            best = min(first, key=lambda one: first[one])
            return (
                f"{first[best]:,}",
                "",
                f"keys a call, from which on {face(best)} are faster: {work_name(workload, records)}",
            )
    return None


def _waits(facts: Facts) -> Headline | None:
    for workload, records in facts.series:
        found = tails(facts, workload, records)
        found = found[(found["percentile"] == "p99") & (found["keys"] == found["keys"].min())]
        mine = found[found["system"].str.startswith("predis")].nsmallest(1, "value")
        theirs = found[found["system"].str.startswith("redis")].nsmallest(1, "value")
        if len(mine) and len(theirs):
            (one,), (other,) = mine.itertuples(), theirs.itertuples()
            times = [units.format_quantity(row.value, "s") for row in (one, other)]
            where = cell_name(workload, records, one.keys)
            return times[0], f"Redis: {times[1]}", f"p99 of {where}, {face(one.system)}"
    return None


def _settled(facts: Facts) -> Headline | None:
    measured = [one for one in facts.settled if one.verdict != claims.UNMEASURED]
    hold = sum(one.verdict == claims.HOLDS for one in measured)
    return (
        (f"{hold} of {len(measured)}", "", "claims that were measured hold") if measured else None
    )


def _sustained(facts: Facts) -> Headline | None:
    one = facts.stored.get("sustained")
    if one is None:
        return None
    value, _, rest = units.format_figure(one).partition(" [")
    interval, _, unit = rest.partition("]")
    return f"{value}{unit}", f"[{interval}]", pipeline_samples.LABELS["sustained"]


# ---- What was lost


def _failed(facts: Facts) -> list[str]:
    lines = [
        f"{one.claim.says}: {one.claim.interval(one.ratio)}, where at least {one.claim.text(one.claim.least)} is claimed."
        for one in facts.settled
        if one.verdict == claims.FAILS and one.ratio is not None
    ]
    unmeasured = sum(one.verdict == claims.UNMEASURED for one in facts.settled)
    if unmeasured:
        lines.append(f"{unmeasured} of {len(facts.settled)} claims were not measured in this run.")
    return lines or ["None of those that were measured."]


def _ranges(rows: pd.DataFrame) -> list[str]:
    """For each face how often it is slower than a dict, and how much of its rate is left."""
    lines = []
    for candidate, found in rows.groupby("candidate"):
        slower = _are(found, "slower")
        if len(slower):
            least, most = (slower.loc[slower["ratio"].agg(end)] for end in ("idxmin", "idxmax"))
            lines.append(
                f"{face(str(candidate)).capitalize()}: in {len(slower)} of {len(found)} cells, with between "
                f"{comparison.ratio_text(least)} of its rate ({cell_name(least.workload, least.records, least['keys'])}) and "
                f"{comparison.ratio_text(most)} ({cell_name(most.workload, most.records, most['keys'])})."
            )
    return lines


def _unclear(facts: Facts) -> list[str]:
    """What had blocks enough for a verdict and came to none, and how many had too few."""
    lines = []
    for way in facts.ways:
        unclear = _are(way.compared, "ambiguous")
        few = unclear.index.intersection(way.undecidable.index)
        lines += by_cell(unclear.drop(few))
        if len(few):
            lines.append(
                f"{way.name}: {len(few)} of {len(way.compared)} comparisons had fewer than the {way.needed} blocks a side from which "
                "on a verdict among so many is possible at all."
            )
    judged = sum(len(way.compared) for way in facts.ways)
    return lines or [
        f"None of {judged} comparisons." if judged else f"{MISSING[0].upper()}{MISSING[1:]}."
    ]


def _measured_on(facts: Facts) -> list[str]:
    environment = facts.environment
    if not environment:
        return ["The run does not say."]
    lines = []
    if not environment.get("gpu"):
        lines.append(
            f"No GPU answered. Predis ran on {HOST}, and every one of its figures here is that table's."
        )
    ours = [one["name"].capitalize() for one in environment.get("servers", {}).values() if one.get("source") != "url"]  # fmt: skip
    if ours:
        lines.append(
            f"{', '.join(['Predis', 'its caller', *ours[:-1]])} and {ours[-1]} shared one machine and its {environment['cores']} cores: no call "
            "crossed a network, which would have added its round trip to the servers' calls only."
        )
    commits = {one["commit"] for one in environment.get("notebooks", {}).values()}
    if len(commits) > 1:
        lines.append(
            f"The notebooks of this run were executed at {len(commits)} commits; the environment lists them."
        )
    return lines


def _are(rows: pd.DataFrame, verdict: str) -> pd.DataFrame:
    return rows[rows["verdict"] == verdict]


def _none(rows: pd.DataFrame, who: str, verdict: str) -> str:
    if not len(rows):
        return f"{MISSING[0].upper()}{MISSING[1:]}."
    return f"In none of {len(rows)} comparisons is {who} {verdict}."
