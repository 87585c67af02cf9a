"""Clients side by side: each kind of wrong answer is found, and right ones are not called wrong."""

import numpy as np
import pytest

from predis_lab import Predis
from predis_lab.bench import client_work, clients
from predis_lab.bench.client_work import MISSING, TORN, Client, Log, Plan, judge, keys_of
from predis_lab.bench.results import Run
from predis_lab.report import load_figures, load_show

RECORDS = 60


def log(calls, keys=1):
    """A client's log from (row, writes, began, ended, seen) of its calls."""
    rows, writes, began, ended, seen = (np.array(column) for column in zip(*calls, strict=True))
    return Log(
        np.repeat(rows[:, None], keys, 1).astype(np.int32), writes.astype(bool), began, ended,
        np.repeat(seen[:, None], keys, 1), np.zeros(len(rows), bool),
    )  # fmt: skip


def wrong(*logs, oldest=None):
    oldest = np.zeros(8, np.int64) if oldest is None else oldest
    return {kind: number for kind, number in judge(logs, oldest).items() if number}


W, R = True, False


def test_an_answer_is_no_older_than_the_last_write_that_had_ended():
    writer = log([(3, W, 100, 110, 100), (3, W, 200, 230, 200), (5, W, 300, 310, 300)])
    right = log(
        [
            (3, R, 105, 106, 0),  # while the first is written: either will do
            (3, R, 107, 108, 100),
            (3, R, 111, 115, 100),
            (3, R, 210, 215, 200),
            (3, R, 215, 220, 100),  # the second is not done yet
            (3, R, 231, 240, 200),
            (4, R, 400, 410, 0),
        ]
    )
    assert wrong(writer, right) == {}
    assert wrong(writer, log([(3, R, 111, 115, 0)])) == {"stale": 1}
    assert wrong(writer, log([(3, R, 231, 235, 100)])) == {"stale": 1}
    assert wrong(writer, log([(3, R, 50, 60, 100)])) == {"torn": 1}  # before it was written
    assert wrong(log([(3, R, 1, 2, MISSING), (3, R, 3, 4, TORN)])) == {"missing": 1, "torn": 1}


def test_what_was_written_in_earlier_blocks_is_not_forgotten():
    oldest = np.zeros(8, np.int64)
    assert wrong(log([(3, W, 100, 110, 100)]), oldest=oldest) == {}
    assert oldest[3] == 100
    assert wrong(log([(3, R, 500, 510, 100), (2, R, 500, 510, 0)]), oldest=oldest) == {}
    assert wrong(log([(3, R, 500, 510, 50)], keys=4), oldest=oldest) == {"stale": 4}


def test_a_refused_write_proves_nothing():
    one = log([(3, W, 100, 110, 100)])
    one.refused[0] = True
    oldest = np.zeros(8, np.int64)
    assert wrong(one, log([(3, R, 200, 210, 0)]), oldest=oldest) == {"refused": 1}
    assert oldest[3] == 0


@pytest.mark.parametrize("batch", [1, 7])
def test_each_key_has_one_writer(batch):
    plans = [Plan.of(one, 3, RECORDS, batch, seed=1) for one in range(3)]
    owners = [set(plan.rows[plan.writes].reshape(-1).tolist()) for plan in plans]
    for number, owned in enumerate(owners):
        assert owned and all(row % 3 == number for row in owned)
        assert plans[number].rows.min() >= 0 and plans[number].rows.max() < RECORDS
        assert 0.02 < plans[number].writes.mean() < 0.25
    assert not np.array_equal(plans[0].rows, plans[1].rows)


def client_of(table, face=None, batch=1):
    keys = keys_of(RECORDS).to_pylist()
    table.update(zip(keys, client_work.values_of(keys, 0), strict=True))
    face = face or client_work.singles(table.get, table.__setitem__)
    return Client(face, Plan.of(0, 1, RECORDS, batch, seed=1), keys), keys


def ran(client, seconds=0.01):
    client.run(0, seconds)
    return judge([client.log()], np.zeros(RECORDS, np.int64))


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (lambda value: None, "missing"),
        (lambda value: value[:-1], "torn"),
        (lambda value: value[:40] + b"\1" + value[41:], "torn"),
        (lambda value: b"other key.......".ljust(16) + value[16:], "torn"),
        (lambda value: value[:16] + b"\0" * 48, "stale"),
    ],
)
def test_a_spoilt_answer_is_told_from_a_right_one(spoil, kind):
    table = {}
    client, _ = client_of(table)
    assert sum(ran(client).values()) == 0
    face = client_work.singles(lambda key: spoil(table[key]), table.__setitem__)
    found = ran(client_of(table, face)[0])
    assert found[kind] > 0 and sum(found.values()) == found[kind]


def test_errors_are_refusals():
    table = {}

    def get(key):
        raise clients_error

    clients_error = client_work.redis.ConnectionError("gone")
    found = ran(client_of(table, client_work.singles(get, table.__setitem__))[0])
    assert found["refused"] > 0 and sum(found.values()) == found["refused"]


@pytest.mark.redis
def test_everybody_is_asked_and_told_right(server, tmp_path):
    run = Run.open(tmp_path, notebook="t")
    with (
        Predis("64MiB", backend="host") as cache,
        Predis("64MiB", backend="host", hot_bytes="8MiB") as hot,
    ):
        clients.measure_clients(
            run, cache, hot, [server], [1, 2], [1, 10], records=RECORDS, blocks=2,
            block_seconds=0.01, seed=1,
        )  # fmt: skip
    frame = run.frame()
    rates = frame[frame["metric"] == "throughput"]
    cells = rates.groupby(["batch", "system", "as", "clients"])["value"].count()
    assert set(cells) == {2}
    asked = {(system, kind) for _, system, kind, _ in cells.index}
    assert asked == {
        ("predis-host lists", "threads"), ("predis-host lists hot", "threads"), ("predis-host columns", "threads"),
        ("dict", "threads"), ("redis unix", "threads"), ("redis unix", "processes"),
    }  # fmt: skip
    assert set(frame[frame["metric"] == "error_rate"]["value"]) == {0.0}
    for batch in (1, 10):
        figure = load_figures.clients_rate(frame, batch)
        legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        assert "Redis, processes" in legend and "a Python dict, threads" in legend
        assert "2 reach" in load_show.scaling(frame, batch).data
    assert load_show.clients(frame).data.count("none") == len(cells)


@pytest.mark.redis
def test_a_client_process_that_dies_is_told(server):
    with clients.crews([server], 1) as crews:
        (crew,) = crews.values()
        crew.plan([Plan.of(0, 1, RECORDS, 1, seed=1)], 1, RECORDS)
        process, _ = crew.members[0]
        process.kill()
        process.join()
        with pytest.raises(clients.ClientError, match=f"{process.pid} is gone"):
            crew.run(1, 0, 0.01)


@pytest.mark.parametrize(("counts", "batches"), [([], [1]), ([0], [1]), ([1], [0])])
def test_counts_are_positive(tmp_path, counts, batches):
    with pytest.raises(ValueError, match="at least 1"):
        clients.measure_clients(
            Run.open(tmp_path, notebook="t"), None, None, [], counts, batches, records=1, blocks=1,
            block_seconds=1, seed=1,
        )  # fmt: skip
