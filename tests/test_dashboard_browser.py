"""The dashboard in a real browser: Playwright drives the system's Chromium against a served notebook 10.

One server, one browser and one Redis for all; the Redis is the tests' own, so that it can be killed underneath.
PREDIS_NEEDS_BROWSER (or CI) makes a missing browser a failure; PREDIS_SOAK_S sets how long the soak watches.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from lives import FACTS, some_ticks

from predis_lab.bench import servers
from predis_lab.live import tape
from predis_lab.live.scenes import SCENES

pytestmark = [pytest.mark.browser, pytest.mark.redis]

ROOT = Path(__file__).parents[1]
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
MS = 20_000  # that anything may take to appear
CHANGES_MS = 8000


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class OwnRedis:
    """A Redis at one port that is killed and started again."""

    def __init__(self):
        self.binary, self.port = servers.find_binary("redis")[0], free_port()
        self.start()

    def start(self):
        options = [
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        self.process = subprocess.Popen([self.binary, *options], stdout=subprocess.DEVNULL)

    def kill(self):
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def dashboard(*arguments, **environment):
    """A served dashboard; its address, and its process."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "predis_lab.cli",
        "dashboard",
        "--port",
        str(port),
        "--capacity",
        "64MiB",
    ]
    # Without a GPU, wherever these tests run: on one there is nothing else to see than more numbers.
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""} | environment
    process = subprocess.Popen(
        [*command, *arguments], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert str(port) in process.stdout.readline()
    try:
        yield f"http://localhost:{port}/dashboard", process
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


@pytest.fixture(scope="module")
def browser():
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        missing = f"no {' or '.join(NAMES)} on the PATH"
        if os.environ.get("PREDIS_NEEDS_BROWSER") or os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=root)
        yield running
        running.close()


@pytest.fixture(scope="module")
def redis():
    own = OwnRedis()
    yield own
    own.kill()


@pytest.fixture(scope="module")
def served(redis):
    with dashboard(PREDIS_REDIS_URL=f"redis://127.0.0.1:{redis.port}") as (address, process):
        yield address, process


class Page:
    """One viewer, and what its browser complained of or asked elsewhere."""

    def __init__(self, browser, address, **options):
        self.context = browser.new_context(
            **({"viewport": {"width": 1600, "height": 900}} | options)
        )
        self.context.set_default_timeout(MS)
        self.page, self.complaints, self.outside = self.context.new_page(), [], []
        self.page.on("console", lambda m: m.type == "error" and self.complaints.append(m.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self._judge(request.url))
        self.page.goto(address)
        self.page.wait_for_selector("#ratio")

    def _judge(self, url):
        if not re.match(r"(https?|ws)://(localhost|127\.0\.0\.1)[:/]|data:|blob:", url):
            self.outside.append(url)

    def text(self, selector):
        return self.page.locator(selector).first.inner_text()

    def style(self, selector, name):
        """A computed style; asked again where the text was renewed that very moment."""
        script = f"e => getComputedStyle(e).{name}"
        return next(
            filter(None, (self.page.locator(selector).first.evaluate(script) for _ in range(9)))
        )

    def button(self, name):
        return self.page.get_by_role("button", name=name, exact=True)

    def wait(self, text, selector=".pill"):
        self.page.locator(selector, has_text=text).first.wait_for()

    def changes(self, selector, count):
        """Whether the text there changes so often in a while."""
        seen, deadline = [self.text(selector)], time.monotonic() + CHANGES_MS / 1000
        while len(seen) <= count and time.monotonic() < deadline:
            self.page.wait_for_timeout(100)
            if (now := self.text(selector)) != seen[-1]:
                seen.append(now)
        return len(seen) > count

    def play(self, scene):
        self.button(SCENES[scene].title).click()
        self.wait(SCENES[scene].title, "h2")
        self.wait("LIVE")
        self.page.locator("#predis-rate", has_text="/s").first.wait_for()


@pytest.fixture(scope="module")
def first(browser, served):
    one = Page(browser, served[0])
    yield one
    one.context.close()


@pytest.fixture(scope="module")
def dark(browser, served):
    """Another viewer of the same load."""
    one = Page(browser, f"{served[0]}?theme=dark")
    yield one
    one.context.close()


@pytest.fixture
def page(first):
    """A viewer's page, that none of the tests may make complain or ask elsewhere."""
    yield first
    assert first.complaints == [] and first.outside == []


def test_charts_are_there_and_numbers_change(page):
    page.play("single")
    assert page.page.locator("canvas").count() >= 7
    for head in (
        "Operations a second",
        "Latency of a call",
        "Memory",
        "Values of a call",
        "Session",
    ):
        assert page.page.locator(".head h2", has_text=head).count() >= 1, head
    assert re.fullmatch(r"[\d.,]+x", page.text("#ratio"))
    for selector in ("#predis-rate", "#redis-rate", "#ratio"):
        assert page.changes(selector, 2), selector
    updates = float(re.search(r"([\d.]+) updates/s", page.text(".tiles")).group(1))
    assert updates > 1, "5 to 10 where cores are free; speed is measured in the soak"


def test_without_a_gpu_it_says_so(page):
    page.wait("No GPU here: Predis on its host table", ".title p")
    assert page.text(".tiles").count("no GPU here") == 2
    page.wait("none of a GPU's", ".story")


@pytest.mark.parametrize("scene", SCENES)
def test_each_scene_starts_and_stops(page, scene):
    page.play(scene)
    page.button("Stop").click()
    page.wait("STOPPED")
    page.page.wait_for_timeout(600)  # what was under way is shown
    still = page.text("#predis-rate")
    page.page.wait_for_timeout(900)
    assert page.text("#predis-rate") == still


def test_controls_act_and_can_be_reached_by_keyboard(page):
    page.play("batch")
    handles = page.page.locator(".noUi-handle")
    assert handles.count() == 5
    handles.nth(2).focus()
    page.page.keyboard.press("ArrowRight")
    page.wait("from 2 thread(s)", ".note")
    page.page.locator(".tile", has_text="Redis connections").locator(
        ".value", has_text="2"
    ).wait_for()
    page.button("Start").focus()
    page.page.keyboard.press("Tab")
    page.page.keyboard.press("Enter")
    page.wait("STOPPED")
    page.page.keyboard.press("Shift+Tab")
    page.page.keyboard.press("Space")
    page.wait("LIVE")
    page.button("Reset").click()
    page.wait("from 1 thread(s)", ".note")


def test_presenter_mode_hides_controls_and_enlarges_type(page):
    def size(selector):
        return float(page.style(selector, "fontSize").removesuffix("px"))

    before = size(".title h1")
    page.button("Present").click()
    page.button("Guided tour").wait_for(state="hidden")
    assert size(".title h1") > 1.2 * before
    page.button("Present").click()
    page.button("Guided tour").wait_for()


def test_light_and_dark(page, dark):
    assert page.style(".lead", "backgroundColor") == "rgb(255, 255, 255)"
    assert dark.style(".lead", "backgroundColor") == "rgb(22, 28, 38)"
    for one in (page, dark):
        assert one.style(".bar.predis", "backgroundColor") == "rgb(0, 114, 178)"
        assert one.style(".bar.redis", "backgroundColor") == "rgb(213, 94, 0)"


def test_viewers_share_one_load(page, dark):
    page.play("batch")
    dark.wait(SCENES["batch"].title, "h2")
    dark.button("Stop").click()
    page.wait("STOPPED")
    page.button("Start").click()
    dark.wait("LIVE")
    dark.wait("2 viewer(s)", ".tiles")
    assert dark.complaints == [] and dark.outside == []


def test_a_narrow_screen_needs_no_scrolling_sideways(page):
    page.page.set_viewport_size({"width": 390, "height": 844})
    page.page.wait_for_function("document.scrollingElement.scrollWidth <= 390")
    assert page.page.locator("#ratio").bounding_box()["width"] <= 390
    page.button("Guided tour").scroll_into_view_if_needed()
    page.page.set_viewport_size({"width": 1600, "height": 900})


def test_a_tour_announces_its_first_scene(page):
    page.button("Guided tour").click()
    page.wait("Tour, 1 of 5", ".banner")
    page.play("batch")
    page.page.locator(".banner").wait_for(state="detached")


def test_a_redis_that_is_killed_is_told_and_goes_on_when_it_is_back(page, redis):
    page.play("batch")
    redis.kill()
    page.wait("RECORDED")
    page.wait("Redis went away at", ".banner.warning")
    assert re.search(r"\d", page.text("#predis-rate")), "the last numbers stay"
    redis.start()
    page.wait("LIVE")
    page.page.locator(".banner").wait_for(state="detached")
    assert page.changes("#predis-rate", 2)


def test_a_recording_is_replayed_and_marked(browser, page, tmp_path):
    page.button("Stop").click()  # the cores are needed for another page
    tape.save(some_ticks(60, step=0.15), FACTS, tmp_path)
    with dashboard("--replay", str(tmp_path)) as (address, _):
        shown = Page(browser, address)
        shown.wait("RECORDED")
        shown.wait("A recording, not measured here: host memory, 20", ".banner.warning")
        shown.page.locator("#predis-rate", has_text="/s").first.wait_for()
        assert shown.changes("#predis-rate", 1)
        assert shown.page.locator("[disabled].noUi-target, [disabled] .noUi-target").count() == 5
        assert shown.complaints == [] and shown.outside == []
        shown.context.close()


def test_other_origins_get_no_data(served):
    """A page from elsewhere, open in the same browser, must not read along: the websocket refuses its origin."""
    port = int(re.search(r":(\d+)/", served[0]).group(1))
    codes = {}
    for origin in (f"http://localhost:{port}", "http://evil.example"):
        with socket.create_connection(("127.0.0.1", port)) as one:
            lines = ["GET /dashboard/ws HTTP/1.1", f"Host: localhost:{port}", "Upgrade: websocket", "Connection: Upgrade",
                     f"Origin: {origin}", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"]  # fmt: skip
            one.sendall("\r\n".join([*lines, "", ""]).encode())
            codes[origin] = int(one.recv(64).split()[1])
    assert codes["http://evil.example"] == 403 != codes[f"http://localhost:{port}"]


def test_it_listens_on_loopback_only(served):
    _, process = served
    heard = [
        c.laddr.ip
        for c in psutil.Process(process.pid).net_connections()
        if c.status == psutil.CONN_LISTEN
    ]
    assert heard == ["127.0.0.1"]


def test_memory_stays_flat(page, served):
    """The soak: 10 minutes at night, skipped by day."""
    seconds = float(os.environ.get("PREDIS_SOAK_S", 0))
    if not seconds:
        pytest.skip("PREDIS_SOAK_S is not set: the soak runs at night")
    _, process = served
    page.play("batch")
    page.page.wait_for_timeout(70_000)  # until the last minute is full
    readings, rates = [], []
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        page.page.wait_for_timeout(5000)
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        readings.append(sum(one.memory_info().rss for one in tree if "python" in one.name()))
        rates.append(float(re.search(r"([\d.]+) updates/s", page.text(".tiles")).group(1)))
    third = len(readings) // 3
    growth = statistics.median(readings[-third:]) / statistics.median(readings[:third]) - 1
    slower = statistics.median(rates[:third]) / statistics.median(rates[-third:]) - 1
    print(
        f"soak: {seconds:g} s, memory {growth:+.2%}, {statistics.median(rates):.2f} updates/s, drift {slower:+.2%}"
    )
    assert growth < 0.05
