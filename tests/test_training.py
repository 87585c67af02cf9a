"""Training: tensors are what was stored, whoever delivers them, and waiting is measured where it happens."""

import os
import time

import numpy as np
import pytest

from predis_lab import Predis
from predis_lab.bench import busy, sustained, training
from predis_lab.bench.contestants import WrongAnswerError, load
from predis_lab.bench.results import Run
from predis_lab.bench.scenarios import DIMENSIONS, SAMPLES, SCENARIOS
from predis_lab.report import load_figures, load_show


@pytest.fixture(autouse=True)
def products(monkeypatch):
    """Kernels that are played on the CPU have no matrix product beside them."""
    if os.environ.get("PREDIS_EMULATED"):
        monkeypatch.setattr(training.Place, "product", lambda *_: time.sleep(1e-4))


BACKENDS = ["host", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=BACKENDS)
def cache(request):
    with Predis("64MiB", backend=request.param) as predis:
        yield predis


@pytest.mark.redis
@pytest.mark.parametrize("name", ["ml_training_float16", "ml_training_float32"])
def test_all_deliver_the_same_tensors(cache, server, name):
    scenario = SCENARIOS[name](1500)
    load(cache, [server], scenario.data.filled())
    found = training.training(cache, [server], scenario, "training", outputs=8, seed=1)
    backend = cache.info("server")["backend"]
    assert [one.system for one in found] == [
        f"predis-{backend} columns tensors", f"predis-{backend} columns", "redis mget unix", "redis mget tcp", "dict"
    ]  # fmt: skip
    for one in found:
        assert one.operations == SAMPLES
        one.check()
        one.call()
        told = one.tell()
        assert told["error_rate"] == (0.0, "1") and 0 < told["waiting_share"][0] < 1


@pytest.mark.redis
def test_a_wrong_sample_is_noticed(cache, server):
    scenario = SCENARIOS["ml_training_float16"](SAMPLES)
    load(cache, [server], scenario.data.filled())
    found = training.training(cache, [server], scenario, "delivery", outputs=8, seed=1)
    key = scenario.data.filled().keys[17].as_py()
    for store in (cache, server.client()):
        value = bytearray(store.get(key))
        value[100] ^= 1
        store.set(key, bytes(value))
    for one in found:
        if one.system == "dict":
            one.check()
            continue
        with pytest.raises(WrongAnswerError, match=one.system):
            one.check()
        one.call()
        assert one.tell() == {**one.tell(), "error_rate": (1 / SAMPLES, "1")}


def trainer(fetch, announced):
    scenario = SCENARIOS["ml_training_float32"](SAMPLES)
    turns = training.turns_of(scenario, np.dtype("f4"), 1)
    place = training.Place(np, lambda: None)
    weights = np.zeros((DIMENSIONS, 2), "f4")
    return training.Trainer(place, fetch, announced.append, turns, weights), turns


def test_waiting_is_the_time_for_data():
    def slow(turn):
        time.sleep(0.02)
        return turn.expected

    one, _ = trainer(slow, [])
    product, one.place.product = one.place.product, None

    def long_product(samples, weights):
        time.sleep(0.06)
        return product(samples, weights)

    one.place.product = long_product
    for _ in range(3):
        one.step()
    share = one.tell()["waiting_share"][0]
    assert 0.1 < share < 0.6
    one.begin()
    one.deliver()
    assert "waiting_share" not in one.tell()


def test_the_next_batch_is_announced():
    announced = []
    one, turns = trainer(lambda turn: turn.expected, announced)
    for _ in range(training.BATCHES + 1):
        one.step()
    for number, keys in enumerate(announced):
        assert keys.equals(turns[(number + 1) % training.BATCHES].keys)


@pytest.mark.redis
def test_what_is_measured_is_shown(cache, server, tmp_path):
    run = Run.open(tmp_path, notebook="t")
    scenario = SCENARIOS["ml_training_float16"](SAMPLES)
    training.measure_training(
        run, cache, [server], scenario, outputs=8, seed=1, blocks=3, block_seconds=0.002
    )
    busy.measure_busy(
        run, cache, records=2000, batch=500, threads=2, seconds=0.2, windows=4, seed=1
    )
    frame = run.frame()
    assert set(frame["workload"]) == {"delivery", "training", "busy"}
    rows = frame[(frame["workload"] == "busy") & (frame["metric"] == "throughput")]
    assert len(rows) == 4 and (rows["value"] > 0).all()
    read = frame[(frame["workload"] == "busy") & (frame["metric"] == "process_memory")]
    assert 1 <= len(read) <= 4  # a busy interpreter may leave no time to look
    page = load_show.busy(frame).data
    if cache.info("server")["backend"] == "host":
        assert ("no GPU tells it here" in page) == ("gpu_power" not in set(frame["metric"]))
    assert page.count("columns on the GPU") == 0
    assert load_show.training(frame).data.count("ML training float16") == 4
    bars = load_figures.waiting(frame, "ml_training_float16").axes[0]
    assert len(bars.get_yticklabels()) == 4


@pytest.mark.gpu
def test_columns_on_the_device_are_found_and_stored_there(make, tmp_path):
    cache, run = make("64MiB"), Run.open(tmp_path, notebook="t")
    asked = {"records": 2000, "threads": 2, "seconds": 0.2, "windows": 4, "seed": 1}
    busy.measure_busy(run, cache, batch=500, **asked)
    busy.measure_busy(run, cache, batch=500, device=True, **asked)
    frame = run.frame()
    rates = frame[frame["metric"] == "throughput"].groupby("system")["value"]
    assert rates.min()["predis-cuda columns on device"] > 0 and rates.size().tolist() == [4, 4]
    assert (frame.loc[frame["metric"] == "error_rate", "value"] == 0).all()
    assert "columns on the GPU" in load_show.busy(frame).data


@pytest.mark.gpu
def test_what_is_missing_or_wrong_on_the_device_is_an_error(make):
    cache = make("64MiB")
    keys = sustained.fill(cache, 100)
    asked = busy.DeviceBatch.of(sustained.Batch(keys, None))
    assert asked.errors(asked.send(cache)) == 0 and asked.wrong(asked.send(cache)) == 0
    cache.delete(keys[0].as_py())
    cache.set(keys[1].as_py(), b"x" * sustained.VALUE_NBYTES)
    answer = asked.send(cache)
    assert asked.errors(answer) == 1 and asked.wrong(answer) == 2
    stored = busy.DeviceBatch.of(sustained.Batch(keys, sustained.values_of(keys, 7)))
    assert stored.errors(stored.send(cache)) == 0
    assert asked.errors(asked.send(cache)) == 0 and asked.wrong(asked.send(cache)) == 0
