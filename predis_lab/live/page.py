"""The page: controls, headline, charts, story; one view for each viewer of the session. Called by notebook 10 and `serve`.

A view asks the session what is new, several times a second, and holds no state of the load itself.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import panel as pn

from ..bench.results import OUTPUTS, new_run_id
from ..report import units
from . import tiles, words
from .charts import DARK, LIGHT, Chart, Charts
from .cost import Cost, Rate
from .headline import Headline
from .scenes import CHOICES, SCENES, ControlError, scene_of
from .session import Session

UPDATE_MS = 150
TEXT_EVERY = 3  # updates between two of the numbers
PAST_EVERY = 14  # and of the session's charts
SPANS = (3, 3, 2, 2, 2, 3, 3)  # of six columns, chart by chart
TITLE = "Predis Lab, live"
LABELS = {
    "batch": "keys a call",
    "value_nbytes": "bytes a value",
    "threads": "client threads",
    "reads": "share of reads",
    "rate": "operations a second, offered",
}
_cost = Cost()


@functools.cache
def _css(name: str) -> str:
    return Path(__file__).with_name(name).read_text()


class View:
    """What one viewer sees. `layout` is the page; `refresh` brings it up to date."""

    def __init__(self, session: Session, *, dark: bool = False, presenter: bool = False):
        self.session = session
        self._next, self._epoch, self._count = 0, -1, 0
        self._following = False  # widgets are being set to what the session says
        self._rate = Rate()
        self._charts: Charts | None = None
        self._shown: Headline | None = None
        self._drawn = ""  # scene of the charts of the last minute
        self._message = ""
        self._panes = {name: self._pane() for name in ("header", "banner", "hero", "tiles", "note")}
        self._make_widgets(dark, presenter)
        self._chart_area = pn.Column(sizing_mode="stretch_width", margin=0)
        self._side = self._new_side()
        self.layout = pn.Column(
            self._row([self._panes["header"], pn.Spacer(), self._dark, self._presenter], "header"),
            self._in("banner", self._panes["banner"]),
            self._in("hero", self._panes["hero"]),
            self._side,
            self._in("rest", pn.Column(self._panes["tiles"], self._chart_area, self._panes["note"], margin=0, sizing_mode="stretch_width")),
            sizing_mode="stretch_width",
            margin=0,
            stylesheets=[_css("style.css")],
        )  # fmt: skip
        self._dress()
        self.refresh()

    # ---- Made once

    def _pane(self) -> Any:
        css = [_css("parts.css")]
        return pn.pane.HTML("", stylesheets=css, sizing_mode="stretch_width", margin=0)

    def _button(self, label: str, act: Callable[[], object], *, main: bool = False) -> Any:
        button = pn.widgets.Button(label=label, stylesheets=[_css("widgets.css")], margin=0,
                                   sizing_mode="stretch_width", css_classes=["main"] if main else [])  # fmt: skip
        button.on_click(lambda _: act())
        return button

    def _make_widgets(self, dark: bool, presenter: bool) -> None:
        css = {"stylesheets": [_css("widgets.css")], "margin": 0}
        session = self.session
        # Two buttons: one that changed its name would lose the keyboard's focus.
        self._start = self._button("Start", lambda: self._act(session.start), main=True)
        self._stop = self._button("Stop", lambda: self._act(session.stop))
        self._reset = self._button("Reset", lambda: self._act(session.reset))
        self._tour = self._button("Guided tour", lambda: self._act(session.begin_tour))
        self._export = self._button("Export a report", self._export_report)
        titles = {scene.title: name for name, scene in SCENES.items()}
        self._scene = pn.widgets.RadioButtonGroup(
            options=titles, orientation="vertical", sizing_mode="stretch_width", **css
        )
        self._scene.param.watch(lambda event: self._set(session.choose, event.new), "value")
        self._sliders = {}
        for name, choices in CHOICES.items():
            options = {_choice_text(name, value): value for value in choices}
            slider = pn.widgets.DiscreteSlider(
                label=LABELS[name], options=options, sizing_mode="stretch_width", **css
            )
            slider.param.watch(functools.partial(self._slid, name), "value")
            self._sliders[name] = slider
        self._dark = pn.widgets.Toggle(label="Dark", value=dark, css_classes=["toggle"], **css)
        self._presenter = pn.widgets.Toggle(
            label="Present", value=presenter, css_classes=["toggle"], **css
        )
        for toggle in (self._dark, self._presenter):
            toggle.param.watch(lambda _: self._dress(), "value")

    def _new_side(self) -> Any:
        rows = [self._row([self._start, self._stop]), self._row([self._reset, self._tour])]
        buttons = pn.Column(*rows, margin=0, sizing_mode="stretch_width", styles={"gap": "0.4em"})
        parts = [buttons, self._scene, *self._sliders.values(), self._export]
        column = pn.Column(*parts, sizing_mode="stretch_width", margin=0)
        column.styles = {"gap": "0.8em", "grid-area": "side"}
        return column

    def _row(self, parts: list, area: str = "") -> Any:
        row = pn.Row(*parts, sizing_mode="stretch_width", margin=0)
        row.styles = {"gap": "0.4em", "align-items": "center"} | (
            {"grid-area": area} if area else {}
        )
        return row

    def _in(self, area: str, part: Any) -> Any:
        part.styles = {"grid-area": area, "min-width": "0"}
        return part

    def _new_charts(self) -> None:
        has_gpu = self.session.facts["backend"] == "cuda"
        self._charts = Charts(has_gpu)
        charts = (*self._charts.live.values(), *self._charts.past.values())
        self._chart_area.stylesheets = [_css("charts.css")]
        self._chart_area.objects = [
            self._card(chart, span) for chart, span in zip(charts, SPANS, strict=True)
        ]
        self._dress()

    def _card(self, chart: Chart, span: int) -> Any:
        head, drawn = (
            self._pane(),
            pn.pane.Bokeh(chart.figure, sizing_mode="stretch_width", margin=0),
        )
        head.object = tiles.chart_head(chart.title, chart.lines)
        return pn.Column(
            head, drawn, margin=0, sizing_mode="stretch_width", css_classes=["chart", f"span{span}"],
            stylesheets=[":host { background: var(--card); border: 1px solid var(--line); border-radius: 12px; overflow: hidden; }"],
        )  # fmt: skip

    # ---- What a viewer does

    def _act(self, act: Callable[[], object]) -> None:
        try:
            act()
            self._message = ""
        except ControlError as error:
            self._message = str(error)
        self._text()

    def _set(self, act: Callable[..., object], *arguments: Any, **named: Any) -> None:
        if not self._following:
            self._act(functools.partial(act, *arguments, **named))

    def _slid(self, name: str, event: Any) -> None:
        self._set(self.session.adjust, **{name: event.new})

    def _export_report(self) -> None:
        """In a thread of its own: other viewers don't wait for it."""
        from ..report.runner import publish

        def export() -> None:
            try:
                directory = self.session.export(OUTPUTS / f"live-{new_run_id()}")
                self._message = f"Exported: {publish(directory, [])}"
            except Exception as error:  # noqa: BLE001 - whatever it is, the viewer is to read it
                self._message = f"Not exported: {error}"

        self._message = "Exporting …"
        threading.Thread(target=export, daemon=True).start()

    # ---- Brought up to date

    def refresh(self) -> None:
        """What is new since the last time."""
        session = self.session
        if session.facts and self._charts is None:
            self._new_charts()
        self._count += 1
        with session.lock:
            begun_anew = self._epoch != session.epoch
            if begun_anew:
                self._epoch, self._next = session.epoch, 0
            ticks = session.since(self._next)
        if self._charts is not None:
            if begun_anew or (ticks and ticks[-1].scene != self._drawn):
                self._charts.clear()
            if ticks:
                self._drawn = ticks[-1].scene
                ticks = [tick for tick in ticks if tick.scene == self._drawn]
                self._next = ticks[-1].number + 1
                self._charts.stream(ticks)
                self._rate.count()
            if self._count % PAST_EVERY == 1:
                with session.lock:
                    self._charts.draw_past(session.history)
        if self._count % TEXT_EVERY == 1:
            self._text()

    def _text(self) -> None:
        session = self.session
        with session.lock:
            self._shown = shown = session.shown()
            state, said = words.status(session)
            scene, controls, facts = session.scene, session.controls, session.facts
            stop = session.tour_stop()
        tell = words.seen if self._presenter.value else words.narrative
        story = tell(scene, controls, shown, facts) if scene else []
        title = scene_of(scene).title if scene else "Starting"
        self._put("header", tiles.header(state, words.where(facts)))
        told = (words.tour_says(stop) if stop else "", self._message)
        self._put("banner", tiles.banner(said, " ".join(text for text in told if text)))
        self._put("hero", tiles.hero(shown, story, title, words.asked(controls)))
        has_gpu = facts.get("backend") == "cuda"
        self._put("tiles", tiles.tiles(shown, has_gpu, self._cost_text()))
        self._put("note", tiles.note(words.method(controls)))
        if self._charts is not None:
            self._charts.mark(words.mark(session))
        self._follow(scene, controls)

    def _put(self, name: str, html: str) -> None:
        if self._panes[name].object != html:
            self._panes[name].object = html

    def _cost_text(self) -> str:
        busy, nbytes = _cost.read()
        beside = ""
        if self._shown and self._shown.number("other_cpu").value is not None:
            load, others = (self._shown.number(f"{who}_cpu").text for who in ("load", "other"))
            beside = f" Cores: load {load}, all others {others}."
        return (
            f"{self._rate.value():.1f} updates/s, {_cost.viewers} viewer(s). Page: {busy:.0%} of a core, "
            f"{units.format_quantity(nbytes, 'B')}.{beside}"
        )

    def _follow(self, scene: str, controls: Any) -> None:
        """Sets the widgets to what the session says: another viewer, or the tour, may have changed it."""
        self._following = True
        session = self.session
        try:
            if scene and self._scene.value != scene:
                self._scene.value = scene
            fixed = scene_of(scene).fixed if scene else tuple(CHOICES)
            for name, slider in self._sliders.items():
                value = getattr(controls, name)
                if value in CHOICES[name] and slider.value != value:
                    slider.value = value
                slider.disabled = name in fixed or bool(session.recorded)
        finally:
            self._following = False

    def _dress(self) -> None:
        dark, presenter = self._dark.value, self._presenter.value
        classes = ["dashboard", *(["dark"] if dark else []), *(["presenter"] if presenter else [])]
        self.layout.css_classes = classes
        self._side.visible = not presenter
        if self._charts is not None:
            self._charts.paint(DARK if dark else LIGHT, "16px" if presenter else "12px")


def view(session: Session) -> Any:
    """The page for one viewer, kept up to date until the viewer goes. `?theme=dark` and `?present=1` where it is served."""
    asked = {name: value[0].decode() for name, value in pn.state.session_args.items()}
    one = View(session, dark=asked.get("theme") == "dark", presenter=asked.get("present") == "1")
    _cost.viewers += 1

    def update() -> None:
        # What is added while the browser fetches the page is unknown there, and so is every update that names it.
        if pn.state.loaded:
            with pn.io.hold():
                one.refresh()
        if session.closed:
            callback.stop()

    callback = pn.state.add_periodic_callback(update, period=UPDATE_MS)

    def gone(_: Any) -> None:
        _cost.viewers -= 1
        callback.stop()

    if pn.state.served or pn.state.curdoc:
        pn.state.on_session_destroyed(gone)
    return one.layout


def _choice_text(name: str, value: float) -> str:
    if name == "reads":
        return f"{value:.0%}"
    if name == "rate":
        return f"{value:,}" if value else "as fast as each answers"
    return f"{value:,}"
