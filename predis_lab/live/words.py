"""What is being seen, in sentences with the numbers of the moment. Pure. Called by `page` and notebook 10."""

from __future__ import annotations

from typing import Any

from ..bench.statistics import EQUIVALENCE, Interval
from ..report import units
from . import tour
from .headline import Headline, times
from .scenes import SCENES, Controls, Scene
from .session import Session
from .ticks import PREDIS, REDIS, SIDES

PHASES = {
    "starting": "Starting a Redis and a cache.",
    "preparing": "Both systems are filled with the same records.",
}


def where(facts: dict[str, Any]) -> str:
    """What the two systems are, for the header."""
    if not facts:
        return "Starting a Redis and a cache …"
    server = facts["server"]
    redis = f"Redis {server['version']} over {(server.get('transports') or ['a socket'])[0]}"
    if facts["backend"] == "cuda":
        return f"Predis on {facts['device']} · {redis}"
    return f"No GPU here: Predis on its host table · {redis}"


def lead(shown: Headline) -> tuple[str, str]:
    """The largest number on the page, and what it is."""
    if shown.offered is None and shown.speedup is not None:
        low, high = units.digits(shown.speedup.low), units.digits(shown.speedup.high)
        return times(shown.speedup.value), f"Redis's rate · 95 % interval {low} to {high}"
    if shown.tail_ratio is not None:
        return times(shown.tail_ratio), "Redis's p99 latency over Predis's, last 5 s"
    if shown.latency_ratio is not None:
        return times(shown.latency_ratio), "Redis's median latency over Predis's, last 5 s"
    return "…", "calls are too few yet to tell"


def narrative(
    scene: str, controls: Controls, shown: Headline | None, facts: dict[str, Any]
) -> list[str]:
    """What happens, what the numbers are, what to look at."""
    playing = SCENES[scene]
    return [playing.says, *seen(scene, controls, shown, facts), playing.look_at]


def seen(
    scene: str, controls: Controls, shown: Headline | None, facts: dict[str, Any]
) -> list[str]:
    """What the numbers are, and no more: what a presenter does not say anyway."""
    said = []
    if shown is not None:
        said += _rates(shown) if shown.offered is None else _offered(shown)
        said += _latencies(shown) + _scene_s_own(SCENES[scene], controls, shown)
    if facts.get("backend") == "host":
        if scene and SCENES[scene].hints:
            said.append("On the host table there is nothing to bring up ahead.")
        said.append(
            "Predis answers from its host table, a Python dict in the caller's process: its numbers are none of a GPU's."
        )
    return said


def method(controls: Controls) -> str:
    """How it is measured, below the charts."""
    load = (
        f"{controls.rate:,} operations a second are offered to each"
        if controls.rate
        else "each is asked as fast as it answers"
    )
    return (
        f"One system at a time: 60 ms of one, 60 ms of the other, in random order; {load}, from {controls.threads} "
        "thread(s) of one Python process. Rates are medians of the slices of the last 6 s, the interval is a bootstrap of "
        "them; percentiles are of all calls of the last 5 s, and left out where calls are too few. Predis lives in the "
        "caller's process, Redis behind a unix socket, with redis-py and hiredis: the way there and back is part of it."
    )


def asked(controls: Controls) -> str:
    """How the two are asked."""
    if controls.batch == 1:
        return "Both by GET and SET: Predis in the caller's process, Redis by redis-py and hiredis."
    return "Predis by find and insert on columns, in the caller's process; Redis by MGET and MSET, by redis-py and hiredis."


def tour_says(stop: tour.Stop) -> str:
    """Where the tour is."""
    title = SCENES[stop.scene].title
    place = f"Tour, {stop.number + 1} of {len(SCENES)}"
    if stop.playing:
        return f"{place}: {title}. {stop.left_s:.0f} s left."
    return f"{place}. Next: {title}, in {stop.left_s:.0f} s."


def status(session: Session) -> tuple[str, str]:
    """The state of the session in one word, and what is to be said about it; "" where nothing is."""
    if session.trouble is not None:
        gone = session.trouble
        return "recorded", (
            f"{gone.who} went away at {gone.since}: {gone.said.rstrip('.')}. The charts show what was measured before; "
            "they go on as soon as it is back."
        )
    if session.recorded:
        return "recorded", f"A recording, not measured here: {session.recorded}."
    if session.phase == "playing":
        return "live", ""
    return session.phase, PHASES.get(session.phase, "")


def mark(session: Session) -> str:
    """What is written over charts that don't show this moment; "" where they do."""
    if session.recorded:
        return "RECORDED"
    if session.trouble is not None:
        return f"RECORDED until {session.trouble.since}"
    return "" if session.phase in ("playing", "preparing", "starting") else "STOPPED"


def _rates(shown: Headline) -> list[str]:
    rates = [units.format_quantity(rate, "1/s") for rate in shown.rates]
    said = f"Predis answers {rates[PREDIS]}, Redis {rates[REDIS]}"
    return [f"{said}: {_compared(shown.speedup)}." if shown.speedup else f"{said}."]


def _compared(ratio: Interval) -> str:
    if max(ratio.high, 1 / ratio.low) <= 1 + EQUIVALENCE:
        return "about the same"
    if ratio.low <= 1 <= ratio.high:
        return "no difference can be told"
    if ratio.value >= 1:
        return f"{times(ratio.value)} Redis's rate"
    return f"Redis is ahead, {times(1 / ratio.value)} Predis's rate"


def _offered(shown: Headline) -> list[str]:
    rates = [units.format_quantity(rate, "1/s") for rate in (shown.offered or 0, *shown.rates)]
    said = [
        f"Offered are {rates[0]} on average; just now Predis answers {rates[1]}, Redis {rates[2]}."
    ]
    for side, unsent in zip(SIDES, shown.unsent, strict=True):
        if unsent:
            said.append(
                f"{side} fell so far behind that {unsent:,} operations of the last 6 s were given up."
            )
    return said


def _latencies(shown: Headline) -> list[str]:
    p50s = [shown.number(f"{who}_p50") for who in ("predis", "redis")]
    if shown.latency_ratio is None:
        return []
    said = f"Half of the calls take at most {p50s[0].text} and {p50s[1].text}"
    p99s = [shown.number(f"{who}_p99") for who in ("predis", "redis")]
    if all(number.value is not None for number in p99s):
        said += f"; one in a hundred takes longer than {p99s[0].text} and {p99s[1].text}"
    return [f"{said}."]


def _scene_s_own(scene: Scene, controls: Controls, shown: Headline) -> list[str]:
    said = []
    if controls.batch > 1 and shown.offered is None:
        nbytes = [rate * controls.value_nbytes * controls.reads for rate in shown.rates]
        moved = [units.format_quantity(value, "B/s") for value in nbytes]
        said.append(
            f"A call carries {controls.batch:,} keys: up to {moved[0]} and {moved[1]} of values read."
        )
    if chunk := shown.number("chunk_nbytes").value:
        text = units.format_quantity(chunk, "B")
        said.append(f"Where such calls are cut, the tuner cuts them into chunks of {text}.")
    promoted = shown.number("promoted_rate").value
    if scene.hints and promoted is not None:
        text = units.format_quantity(promoted, "B/s")
        said.append(f"Ahead of their lookups {text} came back from the host to the GPU.")
    return said
