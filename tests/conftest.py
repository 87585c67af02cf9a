"""The caches and servers that tests run against."""

from __future__ import annotations

import hypothesis
import pytest
from chunked import CHUNK

from predis_lab import DeviceUnavailable, Predis
from predis_lab.bench import servers

# Speed is asserted nowhere: on a busy machine any example may take long.
hypothesis.settings.register_profile("predis", deadline=None)
hypothesis.settings.load_profile("predis")


def device_missing() -> str | None:
    """Why there is no CUDA device, or None."""
    try:
        from predis_lab.gpu.engine import check_device

        check_device()
    except (ImportError, DeviceUnavailable) as error:
        return str(error)
    return None


def pytest_collection_modifyitems(items):
    # What takes minutes comes first, lest the other workers wait for it in the end.
    items.sort(key=lambda item: item.path.name != "test_emulated.py")
    reason = None
    for item in items:
        if item.get_closest_marker("gpu"):
            reason = reason or device_missing() or "present"
            if reason != "present":
                item.add_marker(pytest.mark.skip(reason=f"needs a CUDA device: {reason}"))


BACKENDS = [pytest.param("host"), pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(autouse=True)
def as_built(monkeypatch):
    """Nothing that an earlier process has measured, and nothing measured on the way, decides how calls go."""
    from predis_lab.gpu import kept, tuner

    monkeypatch.setattr(kept, "read", lambda *_: None)
    monkeypatch.setattr(tuner, "MEASURED_AFTER_S", float("inf"))


@pytest.fixture
def make():
    """Makes caches of a capacity on the device; options go to the client."""
    opened = []

    def make(capacity, **options):
        opened.append(Predis(capacity, backend="cuda", **options))
        return opened[-1]

    yield make
    for cache in opened:
        cache.close()


@pytest.fixture
def written_cache(make):
    """One whose log has somewhere to write to."""
    cache = make("64MiB")
    cache.set("first", "1")
    cache.delete("first")
    return cache


@pytest.fixture
def tiered_cache(make):
    """Makes caches with a device and a host part: 16 and 128 segments, the index in place of some of the former."""
    return lambda capacity=2**20, host_capacity=2**23: make(capacity, host_capacity=host_capacity)


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of a few dozen rows, and no way around them."""
    from predis_lab.gpu import engine, ring, staging

    monkeypatch.setattr(ring, "CHUNK_NBYTES", CHUNK)
    monkeypatch.setattr(ring, "MIN_CHUNK_NBYTES", CHUNK)
    monkeypatch.setattr(engine, "SMALL_NBYTES", 0)
    monkeypatch.setattr(staging, "BUFFER_NBYTES", 3 * CHUNK)
    monkeypatch.setattr(staging, "PIECE_NBYTES", 1000)


@pytest.fixture
def chunked_cache(small_chunks):
    """A cache whose bulk calls go in many chunks."""
    with Predis("64MiB", backend="cuda", doorbell=False) as predis:
        yield predis


SYSTEMS = [*BACKENDS, pytest.param("redis", marks=pytest.mark.redis)]


@pytest.fixture(scope="session")
def server():
    with servers.redis_server() as running:
        yield running


@pytest.fixture(params=BACKENDS)
def cache(request):
    """An empty Predis on each backend."""
    with Predis("256MiB", backend=request.param) as predis:
        yield predis


@pytest.fixture(params=SYSTEMS)
def store(request):
    """Makes empty stores of one system that speak Redis's verbs; options go to the client."""
    opened = []

    def make(**options):
        if request.param == "redis":
            client = request.getfixturevalue("server").client("unix", **options)
            client.flushdb()
        else:
            client = Predis("256MiB", backend=request.param, **options)
        opened.append(client)
        return client

    make.is_redis = request.param == "redis"
    yield make
    for client in opened:
        client.close()


@pytest.fixture
def clock(monkeypatch):
    """Predis's clock, standing still; `clock.now` is in ms and may be set."""

    class Clock:
        now = 1_700_000_000_000

    for module in ("client", "verbs"):
        monkeypatch.setattr(f"predis_lab.{module}.now_ms", lambda: Clock.now)
    return Clock
