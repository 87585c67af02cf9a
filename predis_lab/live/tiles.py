"""The page's text as HTML: header, headline, tiles, story. Pure; everything that comes from outside is escaped. For `page`."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from . import words
from .charts import Line
from .headline import STEADY, Headline, Number
from .ticks import SIDES

PAIRS = {
    "p99": "p99 of a call",
    "hits": "hit ratio, reads",
    "memory": "memory",
}


def header(state: str, where: str) -> str:
    """Title, state, and what the systems are."""
    marks = {"live": "● LIVE", "recorded": "◼ RECORDED", "stopped": "❚❚ STOPPED"}
    mark = marks.get(state, f"… {state.upper()}")
    return (
        f'<div class="title"><h1>Predis Lab</h1><span class="pill {escape(state)}" role="status">{escape(mark)}</span>'
        f"<p>{escape(where)}</p></div>"
    )


def banner(warning: str, told: str) -> str:
    """What has to be said before anything else; nothing where nothing has."""
    parts = [("warning", "alert", warning), ("told", "status", told)]
    return "".join(
        f'<div class="banner {css}" role="{role}">{escape(text)}</div>'
        for css, role, text in parts
        if text
    )


def hero(shown: Headline | None, story: Sequence[str], title: str, asked: str) -> str:
    """The largest number, both rates as bars, and the story."""
    big, what = words.lead(shown) if shown else ("…", "nothing has been measured yet")
    second = runners = ""
    if shown:
        second = (
            f'<div class="second">{escape(shown.number("latency_ratio").text)}</div>'
            "<div class=\"what\">Redis's median latency over Predis's</div>"
        )
        runners = (
            f"<h2>Operations a second: longer is better</h2>{_runners(shown, 'rate')}"
            f"<h2>Median latency of a call: shorter is better</h2>{_runners(shown, 'p50')}{note(asked)}"
        )
    said = "".join(f'<p class="says">{escape(sentence)}</p>' for sentence in story)
    return (
        '<div class="hero">'
        f'<section class="card lead"><h2>Predis over Redis</h2><div class="big" id="ratio">{escape(big)}</div>'
        f'<div class="what">{escape(what)}</div>{second}</section>'
        f'<section class="card">{runners}</section>'
        f'<section class="card story"><h2>{escape(title)}</h2>{said}</section></div>'
    )


def tiles(shown: Headline | None, has_gpu: bool, cost: str) -> str:
    """The other headline numbers, each with unit and trend."""
    if shown is None:
        return ""
    found = []
    for key, label in PAIRS.items():
        rows = [_row(shown.number(f"{who.lower()}_{key}"), who) for who in SIDES]
        found.append(_tile(label, rows))
    absent = "" if has_gpu else "no GPU here"
    gpu = [_row(shown.number(key), absent=absent) for key in ("gpu_utilisation", "gpu_memory")]
    found.append(_tile("GPU busy, memory in use", gpu))
    found.append(_tile("Redis connections", [_row(shown.number("connections"))]))
    found.append(_tile("what it costs to look", [f'<div class="note">{escape(cost)}</div>']))
    return f'<div class="tiles">{"".join(found)}</div>'


def note(text: str) -> str:
    """Small print."""
    return f'<p class="note">{escape(text)}</p>'


def chart_head(title: str, lines: Sequence[Line]) -> str:
    """A chart's title, and which line is whose."""
    keys = "".join(
        f'<span class="key"><i class="{line.dash}" style="border-color:{line.colour}"></i>{escape(line.label)}</span>'
        for line in lines
    )
    return f'<div class="head"><h2>{escape(title)}</h2>{keys}</div>'


def sparkline(values: Sequence[float | None], css: str = "") -> str:
    """A line through the values, as high as they reach; nothing for less than two of them."""
    told = [value for value in values if value is not None]
    if len(told) < 2:
        return ""
    low, high = min(told), max(told)
    spread = (high - low) or 1.0
    points = " ".join(
        f"{100 * i / (len(values) - 1):.1f},{22 - 20 * (value - low) / spread:.1f}"
        for i, value in enumerate(values)
        if value is not None
    )
    return (
        f'<svg class="{css}" viewBox="0 0 100 24" preserveAspectRatio="none" aria-hidden="true"><polyline points="'
        f'{points}" fill="none" stroke="currentColor" stroke-width="2" vector-effect="non-scaling-stroke"/></svg>'
    )


def trend_text(trend: float | None) -> str:
    """A change as an arrow and a share.

    >>> trend_text(0.12), trend_text(-0.5), trend_text(0.01), trend_text(None)
    ('▲ 12 %', '▼ 50 %', '→', '')
    """
    if trend is None:
        return ""
    if abs(trend) <= STEADY:
        return "→"
    return f"{'▲' if trend > 0 else '▼'} {abs(trend):.0%}".replace("%", " %")


def _runners(shown: Headline, what: str) -> str:
    """A bar for each system, as long as its number is beside the larger one."""
    numbers = [shown.number(f"{who.lower()}_{what}") for who in SIDES]
    most = max(number.value or 0.0 for number in numbers) or 1.0
    found = []
    for name, number in zip(SIDES, numbers, strict=True):
        css, width = name.lower(), 100 * (number.value or 0.0) / most
        found.append(
            f'<div class="runner"><div class="who"><span class="name"><span class="dot {css}"></span>{name}</span>'
            f'<span class="trend">{trend_text(number.trend)}</span>'
            f'<span class="rate" id="{css}-{what}">{escape(number.text)}</span></div>'
            f'<div class="track"><div class="bar {css}" style="width:{width:.2f}%"></div></div></div>'
        )
    return "".join(found)


def _tile(label: str, rows: Sequence[str]) -> str:
    return f'<section class="card tile"><h2>{escape(label)}</h2>{"".join(rows)}</section>'


def _row(number: Number, who: str = "", *, absent: str = "") -> str:
    css = who.lower()
    dot = f'<span class="dot {css}" title="{who}"></span>' if who else ""
    if number.value is None:
        text = f'<span class="none">{escape(absent or "too few calls" if number.unit == "s" else absent or "not told")}</span>'
        return f'<div class="row"><span>{dot}{text}</span></div>'
    trend = f'<span class="trend">{trend_text(number.trend)}</span>'
    return (
        f'<div class="row"><span class="value">{dot}{escape(number.text)} {trend}</span>'
        f"{sparkline(number.spark, css)}</div>"
    )
