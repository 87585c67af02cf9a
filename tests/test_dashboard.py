"""A viewer's page without a browser: what it shows of a session, what its widgets do, and what it exports."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
from lives import FACTS, Clock, Script, message

pytest.importorskip("panel", reason="the dashboard is a part of the extra lab")

import panel as pn
from bokeh.document import Document
from panel.io.state import set_curdoc

from predis_lab.bench import results
from predis_lab.live import page, serve, shared
from predis_lab.live.charts import DARK, LIGHT, PREDIS_COLOUR, REDIS_COLOUR
from predis_lab.live.scenes import SCENES
from predis_lab.live.session import RECENT, Session


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def script():
    return Script()


@pytest.fixture
def session(script, clock):
    one = Session(script, clock=clock)
    script.last.say(FACTS)
    one.choose("batch")
    yield one
    one.close()


@pytest.fixture
def view(session):
    return page.View(session)


def measured(script, clock, count, **changes):
    for _ in range(count):
        clock.now += 0.15
        script.last.say(message(**changes))


def refreshed(view):
    for _ in range(page.PAST_EVERY):
        view.refresh()
    return view


def column(view, name):
    return np.asarray(view._charts._now.data[name], float)


def test_nothing_is_added_to_a_page_that_the_browser_does_not_have_yet(script, clock, monkeypatch):
    """What the first facts brought was unknown there at times, and every update after it failed."""
    updates, views, made = [], [], page.View.__init__
    monkeypatch.setattr(pn.state, "add_periodic_callback", lambda act, period: updates.append(act))
    monkeypatch.setattr(
        page.View, "__init__", lambda one, *a, **k: views.append(one) or made(one, *a, **k)
    )
    served = Document()
    served._session_context = lambda: SimpleNamespace(request=SimpleNamespace(arguments={}))
    with set_curdoc(served):
        page.view(Session(script, clock=clock))
        script.last.say(FACTS)
        updates[0]()
        assert views[0]._charts is None
        pn.state._schedule_on_load(served, None)  # as when the browser says so
        updates[0]()
        assert views[0]._charts is not None


def test_a_page_before_anything_is_known_is_a_page(script, clock):
    view = page.View(Session(script, clock=clock))
    assert "STARTING" in view._panes["header"].object and view._charts is None
    assert "nothing has been measured yet" in view._panes["hero"].object


def test_charts_hold_every_tick_once(view, script, clock):
    measured(script, clock, 10)
    refreshed(view)
    measured(script, clock, 5, rates=(300.0, 150.0))
    refreshed(view)
    assert column(view, "predis_rate").tolist() == [200.0] * 10 + [300.0] * 5
    assert column(view, "redis_rate").tolist() == [100.0] * 10 + [150.0] * 5
    assert np.diff(column(view, "at")) == pytest.approx(0.15)
    assert np.isnan(column(view, "gpu_utilisation")).all()
    assert "2.00x" in view._panes["hero"].object


def test_charts_are_bounded_and_show_no_line_across_a_pause(view, script, clock):
    measured(script, clock, 3)
    refreshed(view)
    clock.now += 5
    measured(script, clock, 2)
    refreshed(view)
    assert np.isnan(column(view, "predis_rate")).tolist() == [False] * 3 + [True] + [False] * 2
    for _ in range(8):
        measured(script, clock, 200)
        refreshed(view)
    assert len(column(view, "at")) <= RECENT
    pauses = 1
    assert len(view._charts._then.data["at"]) == len(view.session.history.parts) + pauses


def test_another_scene_begins_on_a_scale_of_its_own_and_reset_begins_anew(
    view, session, script, clock
):
    measured(script, clock, 5)
    refreshed(view)
    session.choose("mixed")
    measured(script, clock, 2, scene="mixed")
    refreshed(view)
    assert len(column(view, "at")) == 2
    session.reset()
    assert len(column(refreshed(view), "at")) == 0
    measured(script, clock, 1, scene="mixed")
    assert column(refreshed(view), "at") == pytest.approx([0.15])


def test_numbers_of_the_scene_before_are_not_shown_as_those_of_the_next(
    view, session, script, clock
):
    measured(script, clock, 5)
    session.choose("mixed")
    assert "nothing has been measured yet" in refreshed(view)._panes["hero"].object


def test_widgets_act_on_the_session(view, session, script):
    view._sliders["threads"].value = 4
    assert session.controls.threads == 4 and script.last.sent[-1]["controls"]["threads"] == 4
    for name in SCENES:
        view._scene.value = name
        assert session.scene == name
        shown = {control: slider.value for control, slider in view._sliders.items()}
        assert shown == vars(session.controls)
    view._stop.clicks += 1
    assert not session.playing
    view._start.clicks += 1
    assert session.playing
    view._tour.clicks += 1
    assert session.tour_stop() is not None


def test_widgets_follow_other_viewers_without_acting(view, session, script):
    other = page.View(session)
    session.choose("trading")
    session.adjust(rate=1000)
    sent = list(script.last.sent)
    for one in (view, other):
        refreshed(one)
        assert one._scene.value == "trading" and one._sliders["rate"].value == 1000
        fixed = {name for name, slider in one._sliders.items() if slider.disabled}
        assert fixed == set(SCENES["trading"].fixed)
    assert script.last.sent == sent


def test_trouble_marks_what_is_left_on_the_page(view, script, clock):
    measured(script, clock, 5)
    refreshed(view)
    script.last.say({"kind": "trouble", "who": "Redis", "said": "<gone>"})
    refreshed(view)
    assert "Redis went away" in view._panes["banner"].object
    assert "&lt;gone&gt;" in view._panes["banner"].object
    assert all(
        mark.visible and mark.text.startswith("RECORDED until") for mark in view._charts._marks
    )
    assert len(column(view, "at")) == 5 and "2.00x" in view._panes["hero"].object
    measured(script, clock, 1)
    refreshed(view)
    assert view._panes["banner"].object == "" and not any(
        mark.visible for mark in view._charts._marks
    )


def test_presenter_and_dark_are_each_viewer_s_own(view, session):
    refreshed(view)
    other = page.View(session, dark=True, presenter=True)
    assert (
        other.layout.css_classes == ["dashboard", "dark", "presenter"] and not other._side.visible
    )
    assert view.layout.css_classes == ["dashboard"] and view._side.visible
    for one, look in ((view, LIGHT), (other, DARK)):
        chart = one._charts.live["rate"]
        assert chart.figure.background_fill_color == look.card
        assert [line.colour for line in chart.lines] == [PREDIS_COLOUR, REDIS_COLOUR]


def test_a_gpu_has_its_own_lines(script, clock):
    one = Session(script, clock=clock)
    one.start()
    script.last.say(FACTS | {"backend": "cuda", "device": "NVIDIA H200"})
    measured(script, clock, 3)
    view = refreshed(page.View(one))
    assert "Predis on NVIDIA H200" in view._panes["header"].object
    assert view._charts.live["busy"].lines[0].label == "GPU"
    assert "no GPU here" not in view._panes["tiles"].object


def test_an_export_is_a_report(view, session, script, clock, monkeypatch, tmp_path):
    monkeypatch.setattr(page, "OUTPUTS", tmp_path)
    view._export_report()
    deadline = time.monotonic() + 20
    while (
        "xport" in view._message
        and not view._message.startswith("Not")
        and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    assert "nothing has been measured" in view._message
    measured(script, clock, 5)
    view._export_report()
    while not view._message.startswith("Exported: ") and time.monotonic() < deadline:
        time.sleep(0.02)
    (index,) = tmp_path.glob("live-*/index.html")
    assert str(index) in view._message
    samples = results.read_samples(index.parent)
    assert sorted(samples.loc[samples["metric"] == "throughput", "value"].unique()) == [
        100.0,
        200.0,
    ]


def test_a_port_that_is_taken_is_told(monkeypatch, session):
    import socket

    monkeypatch.setattr(shared, "session", lambda *_, **__: session)
    monkeypatch.setattr("os.nice", lambda _: 0)
    with socket.socket() as taken:
        taken.bind((serve.ADDRESS, 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            serve.serve(taken.getsockname()[1])
    assert session.closed


def test_nothing_is_fetched_from_elsewhere():
    assert not pn.config.js_files and not pn.config.css_files
