"""The charts of one viewer: Bokeh figures over two sources of bounded length. Called by `page`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bokeh.models import ColumnDataSource, CustomJSTickFormatter, Label, LogTicker, Range1d
from bokeh.plotting import figure

from ..report.figures import look
from .history import History
from .session import RECENT, RECENT_S
from .ticks import PREDIS, REDIS, Tick

PREDIS_COLOUR, REDIS_COLOUR = look("predis columns")[0], look("redis mget")[0]
GPU_COLOUR = "#CC79A7"  # Okabe and Ito's; neither system's
NEUTRAL = "#8592a3"
GAP_S = 1.0  # between two ticks: no line is drawn across a longer one
NAN = float("nan")
HEIGHT = 205
READINGS = (
    "gpu_utilisation",
    "load_cpu",
    "redis_cpu",
    "predis_memory",
    "redis_memory",
    "gpu_memory",
    "chunk_nbytes",
)
LIVE = ("at", "predis_rate", "redis_rate", "predis_p50", "redis_p50", "predis_p99", "redis_p99", "batch_nbytes", *READINGS)  # fmt: skip
PAST = ("at", "predis_rate", "redis_rate", "predis_p50", "redis_p50")

_CLOCK = "const s = Math.round(tick); const m = Math.floor(s / 60); return m + ':' + String(s - 60 * m).padStart(2, '0')"
_QUANTITY = """
const steps = [[1e12, 'T'], [1e9, 'G'], [1e6, 'M'], [1e3, 'k'], [1, ''], [1e-3, 'm'], [1e-6, 'µ'], [1e-9, 'n']]
if (tick == 0) return '0'
const [factor, prefix] = steps.find(([f, _]) => Math.abs(tick) >= 0.9995 * f) ?? [1, '']
return Number((tick / factor).toPrecision(3)) + ' ' + prefix + unit
"""


@dataclass(frozen=True)
class Look:
    """Colours of paper and ink; those of the systems are the same in every look."""

    card: str
    ink: str
    soft: str
    line: str


LIGHT = Look("#ffffff", "#1b2330", "#5a6676", "#dde2e9")
DARK = Look("#161c26", "#eef2f7", "#a3afbf", "#303a48")


@dataclass(frozen=True)
class Line:
    """A column of a source, drawn."""

    column: str
    label: str
    colour: str
    dash: str = "solid"
    step: bool = False


_PREDIS_RATE = Line("predis_rate", "Predis", PREDIS_COLOUR)
_REDIS_RATE = Line("redis_rate", "Redis", REDIS_COLOUR)
_PREDIS_P50 = Line("predis_p50", "Predis", PREDIS_COLOUR)
_REDIS_P50 = Line("redis_p50", "Redis", REDIS_COLOUR)


@dataclass(frozen=True)
class Chart:
    """A figure with its title and the lines in it, which the page writes above it."""

    title: str
    lines: Sequence[Line]
    figure: Any


class Charts:
    """All charts of a viewer; `live` are those of the last minute, `past` those of the whole session."""

    def __init__(self, has_gpu: bool):
        self._now = ColumnDataSource({name: [] for name in LIVE})
        self._then = ColumnDataSource({name: [] for name in PAST})
        self._span = Range1d(0, RECENT_S)
        self._marks: list[Label] = []
        self._last = 0.0  # moment of the last tick
        gpu = [Line("gpu_utilisation", "GPU", GPU_COLOUR)] if has_gpu else []
        busy = "Busy" if has_gpu else "Busy (no GPU here)"
        cpu = [
            Line("load_cpu", "load", NEUTRAL),
            Line("redis_cpu", "Redis", REDIS_COLOUR),
        ]
        memory = [
            Line("predis_memory", "Predis", PREDIS_COLOUR),
            Line("redis_memory", "Redis", REDIS_COLOUR),
            *([Line("gpu_memory", "GPU", GPU_COLOUR, "dashed")] if has_gpu else []),
        ]
        latencies = [
            _PREDIS_P50,
            Line("predis_p99", "p99", PREDIS_COLOUR, "dashed"),
            _REDIS_P50,
            Line("redis_p99", "p99", REDIS_COLOUR, "dashed"),
        ]
        tuned = [Line("chunk_nbytes", "a chunk, by the tuner", PREDIS_COLOUR, step=True)]
        batch = [Line("batch_nbytes", "a call", NEUTRAL, step=True), *(tuned if has_gpu else [])]
        self.live = {
            "rate": self._new("Operations a second", [_PREDIS_RATE, _REDIS_RATE], "/s"),
            "latency": self._new("Latency of a call, median (log)", latencies, "s", log=True),
            "busy": self._new(busy, [*gpu, *cpu], "", share=True),
            "memory": self._new("Memory", memory, "B"),
            "batch": self._new("Values of a call (log)", batch, "B", log=True),
        }  # fmt: skip
        self.past = {
            "rates": self._new("Session: operations a second (log)", [_PREDIS_RATE, _REDIS_RATE], "/s", log=True, past=True),
            "latencies": self._new("Session: median latency (log)", [_PREDIS_P50, _REDIS_P50], "s", log=True, past=True),
        }  # fmt: skip

    def stream(self, ticks: Sequence[Tick]) -> None:
        """Adds ticks that came since; the oldest leave."""
        if ticks:
            columns = _columns(ticks)
            if self._last and ticks[0].at - self._last > GAP_S:
                columns = {
                    name: [self._last if name == "at" else NAN, *values]
                    for name, values in columns.items()
                }
            self._last = ticks[-1].at
            self._now.stream(columns, rollover=RECENT)
            end = max(ticks[-1].at, RECENT_S)
            self._span.update(start=end - RECENT_S, end=end)

    def clear(self) -> None:
        """Begins the last minute anew, on scales of its own."""
        self._last = 0.0
        self._now.data = {name: [] for name in LIVE}

    def draw_past(self, history: History) -> None:
        """The whole session anew."""
        rows: list[tuple] = []
        for part in history.parts:
            if rows and part.start - rows[-1][0] > 3 * history.width_s:
                rows.append((part.start, NAN, NAN, NAN, NAN))
            rows.append((part.start, *part.rates(), *part.latencies()))
        columns = zip(*rows, strict=True) if rows else [()] * len(PAST)
        self._then.data = {
            name: [_number(value) for value in values]
            for name, values in zip(PAST, columns, strict=True)
        }

    def mark(self, text: str) -> None:
        """Writes over every chart that it is not of now; nothing for ""."""
        for mark in self._marks:
            mark.update(text=text, visible=bool(text))

    def paint(self, look: Look, size: str) -> None:
        """Paper and ink, and the size of type, such as "12px"."""
        for one in (*self.live.values(), *self.past.values()):
            one.figure.update(background_fill_color=look.card, border_fill_color=look.card)
            one.figure.grid.grid_line_color = look.line
            for axis in one.figure.axis:
                axis.update(
                    major_label_text_color=look.soft,
                    major_label_text_font_size=size,
                    axis_line_color=look.line,
                )

    def _new(self, title: str, lines: Sequence[Line], unit: str, *, log: bool = False, past: bool = False, share: bool = False) -> Chart:  # fmt: skip
        one = figure(
            height=HEIGHT,
            sizing_mode="stretch_width",
            tools="",
            toolbar_location=None,
            y_axis_type="log" if log else "linear",
            outline_line_color=None,
            min_border_left=58,
            min_border_right=12,
            **({} if past else {"x_range": self._span}),
        )
        for line in lines:
            style = {
                "source": self._then if past else self._now,
                "color": line.colour,
                "line_dash": line.dash,
                "line_width": 2.6 if line.dash == "solid" else 1.8,
            }
            (one.step if line.step else one.line)("at", line.column, **style)
        if not log:
            one.y_range.start = 0
        _dress(one, unit, share)
        mark = Label(x=12, y=8, x_units="screen", y_units="screen", text="", visible=False,
                     text_color="#8a5300", background_fill_color="#fff3d6", text_font_size="14px",
                     text_font_style="bold", padding=4)  # fmt: skip
        one.add_layout(mark)
        self._marks.append(mark)
        return Chart(title, lines, one)


def _dress(one: Any, unit: str, share: bool) -> None:
    one.xaxis.formatter = CustomJSTickFormatter(code=_CLOCK)
    code = "return Math.round(100 * tick) + ' %'" if share else _QUANTITY
    one.yaxis.formatter = CustomJSTickFormatter(code=code, args={"unit": unit})
    for axis in one.axis:
        axis.update(minor_tick_line_color=None, major_tick_line_color=None)
    if isinstance(one.yaxis[0].ticker, LogTicker):
        one.yaxis.ticker = LogTicker(mantissas=[1, 2, 5], desired_num_ticks=5)
        one.ygrid.ticker = one.yaxis[0].ticker
    one.xgrid.visible = False


def _columns(ticks: Sequence[Tick]) -> dict[str, list[float]]:
    columns: dict[str, list[float]] = {"at": [tick.at for tick in ticks]}
    for who, side in (("predis", PREDIS), ("redis", REDIS)):
        for name in ("rate", "p50", "p99"):
            told = [getattr(tick.sides[side], name) for tick in ticks]
            columns[f"{who}_{name}"] = [_number(value) for value in told]
    columns["batch_nbytes"] = [float(t.controls.batch * t.controls.value_nbytes) for t in ticks]
    for name in READINGS:
        columns[name] = [_number(tick.readings.get(name)) for tick in ticks]
    return columns


def _number(value: float | None) -> float:
    return NAN if value is None else value
