"""What notebook 04 measures: ceilings and goals by arithmetic, host work for real, bulk calls and the link on a GPU."""

import contextlib
import threading
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from predis_lab import Predis
from predis_lab.bench import host_transfers, results, sustained
from predis_lab.bench import pipeline_samples as measured

CALLS = {call.name: call for call in measured.CALLS}
LINK = {"up": 55e9, "down": 55e9}


@pytest.fixture
def run(tmp_path):
    return results.Run.open(tmp_path / "run", notebook="t")


def interval(stage, start, stop, chunk=0):
    return SimpleNamespace(stage=stage, chunk=chunk, start_s=start, stop_s=stop)


# ---- Ceilings and goals


def test_a_ceiling_is_what_the_link_carries_of_both_ways():
    find, insert = CALLS["pipeline_find_64v"], CALLS["pipeline_insert_64v_pinned"]
    assert find.ceiling(**LINK) == pytest.approx(55e9 / (64 + 4 + 1 / 8))
    assert find.ceiling(**LINK, offset_nbytes=8) == pytest.approx(55e9 / (64 + 8 + 1 / 8))
    assert find.ceiling(up=1e9, down=55e9) == pytest.approx(1e9 / 16)
    assert insert.ceiling(**LINK) == pytest.approx(55e9 / 80)
    assert CALLS["pipeline_insert_64v_binary"].ceiling(**LINK) == pytest.approx(55e9 / 88)
    assert CALLS["pipeline_find_64v_binary"].upload_nbytes() == 20
    assert CALLS["pipeline_insert_1024v_pinned"].ceiling(**LINK) == pytest.approx(55e9 / 1040)


@pytest.mark.parametrize(
    ("goal", "entry", "verdict"),
    [
        (measured.Goal(least=10), (11, 10.5, 12), "met"),
        (measured.Goal(least=10), (11, 9.5, 12), "open"),
        (measured.Goal(least=10), (9, 8, 9.5), "missed"),
        (measured.Goal(share=0.5), (11, 10.5, 12), "met"),
        (measured.Goal(share=0.6), (11, 10.5, 12.5), "open"),
        (measured.Goal(most=12), (11, 10.5, 11.5), "met"),
        (measured.Goal(most=11), (11, 10.5, 11.5), "open"),
        (measured.Goal(most=10), (11, 10.5, 11.5), "missed"),
        (measured.Goal(most=12), (11, None, None), "met"),
    ],
)
def test_a_goal_is_judged_by_the_whole_interval(goal, entry, verdict):
    value, low, high = entry
    assert goal.verdict({"value": value, "low": low, "high": high, "ceiling": 20}) == verdict


def test_a_share_of_an_unknown_ceiling_is_open():
    assert measured.Goal(share=0.5).verdict({"value": 1, "low": 1, "high": 1}) == "open"


def test_every_goal_and_call_has_a_label_and_a_figure_of_its_own():
    assert set(measured.GOALS) <= set(measured.LABELS)
    assert len({call.name for call in measured.CALLS}) == len(measured.CALLS)
    assert set(measured.BOTH_WAYS.values()) <= set(measured.PIPELINE)
    assert {call.overhead for call in measured.CALLS} - {""} == set(measured.OVERHEADS)


# ---- Stages


def test_overlapping_stages_count_once_and_packing_not_at_all():
    intervals = [
        interval("pack", 0.0, 10.0),
        interval("upload", 1.0, 4.0),
        interval("kernel", 3.0, 5.0),
        interval("download", 7.0, 8.0),
        interval("download", 7.2, 7.5, chunk=1),
    ]
    assert measured.overhead(intervals, 10.0) == pytest.approx(0.5)
    assert measured.overhead(intervals, 7.0) == pytest.approx(3 / 7)
    assert measured.overhead([], 3.0) == 1


def test_what_lies_outside_of_a_call_does_not_count():
    assert measured.covered_seconds([(-5.0, 1.0), (9.0, 20.0)], 0.0, 10.0) == 2
    assert measured.covered_seconds([(20.0, 30.0)], 0.0, 10.0) == 0


def test_calls_that_a_window_cuts_count_in_part():
    calls = [measured.Moved(0.0, 2.0, 100), measured.Moved(2.0, 4.0, 100), measured.Moved(9.0, 10.0, 7)]  # fmt: skip
    assert measured.nbytes_within(calls, 0.0, 3.0) == 150
    assert measured.nbytes_within(calls, 1.0, 1.5) == 25
    assert measured.nbytes_within(calls, 5.0, 6.0) == 0


# ---- Host work


def test_codecs_are_timed_and_give_back_what_they_were_given(run):
    shares = []
    host_transfers.codec_rates(run, 2, progress=shares.append)
    samples = measured.codec_samples(run.frame())
    assert len(samples) == len(run.rows) == 3 * 2 * 2 * 3 and len(shares) == 3
    assert (samples["value"] > 0).all()
    for codec in host_transfers.ARROW_NAMES:
        real, noise = (measured.codec_medians(samples, codec, data) for data in ("airports", "random"))  # fmt: skip
        assert real["ratio"] > 2 and 0.9 < noise["ratio"] < 1.01
        assert run.figures[f"ratio_{codec}"]["value"] == pytest.approx(real["ratio"])
        assert {f"compress_{codec}", f"decompress_{codec}"} <= set(run.figures)


def test_what_crosses_is_bound_by_cores_or_by_the_link(run):
    for metric, value in (("ratio", 2.0), ("compress", 1e9)):
        run.add_sample("lz4", "codec", {"data": "airports"}, 0, metric, value, "1")
    crossing = [
        measured.compressed_bandwidth(run.frame(), "lz4", "airports", "compress", 5e9, cores)
        for cores in (1, 8, 16)
    ]
    assert crossing == [1e9, 8e9, 10e9]


def test_offsets_are_set_up_again_from_lengths(run):
    host_transfers.offset_rates(run, 1000, 2)
    samples = measured.offset_samples(run.frame())
    assert set(samples["metric"]) == {"saved", "rebuild"} and len(samples) == 2 * 2 * 2
    saved = samples[samples["metric"] == "saved"].groupby("data")["value"].first()
    assert saved["fixed 64 B"] == 4 and 2 < saved["airports"] < 4
    with pytest.raises(ValueError, match="32-bit"):
        host_transfers.offset_rates(run, 2**25, 2)


def test_lists_have_a_floor():
    floor = host_transfers.list_floor(2000, 64, 3)
    assert floor.n == 3 and 0 < floor.low <= floor.value <= floor.high


# ---- Load


@pytest.mark.parametrize("threads", [1, 3])
def test_a_load_is_answered_counted_and_recorded(cache, run, threads):
    keys, shares = sustained.fill(cache, 5000), []
    load = sustained.sustained(
        cache, keys, seconds=0.3, threads=threads, batch=50, windows=3, progress=shares.append
    )
    assert load.errors == 0 and load.operations % 50 == 0
    assert load.histogram.get_total_count() == load.operations // 50 > 0
    assert len(load.windows) == 3 and sum(map(len, (part for _, part in load.windows))) > 0
    assert sum(shares) > 0 and load.seconds >= 0.3
    sustained.record(run, "sustained", load, threads=threads, batch=50)
    assert set(run.figures) == {
        "sustained", "sustained_latency_mean", "sustained_latency_p99", "sustained_errors",
    }  # fmt: skip
    assert run.figures["sustained"]["n"] == 3
    samples = measured.window_samples(run.frame())
    assert len(samples) == len(run.rows) and set(samples["threads"]) == {threads}
    assert {"pooled_latency_p99.9", "errors"} <= set(samples["metric"])


def test_batches_are_mixed_and_values_begin_with_their_keys():
    with Predis("64MiB", backend="host") as cache:
        keys = sustained.fill(cache, 1000)
        batches = sustained.prepare(keys, 20, 0.8, np.random.default_rng(0))
        assert len(batches) == sustained.DISTINCT
        assert sum(batch.values is None for batch in batches) == 80
        for batch in batches:
            assert batch.errors(batch.send(cache)) == 0
        found = cache.find(keys)
        assert sustained.Batch(keys, None).wrong(found) == 0
        backwards = keys.take(pa.array(np.arange(1000)[::-1]))
        assert sustained.Batch(backwards, None).wrong(found) == 1000
        assert found[0].as_py()[:16] == keys[0].as_py() and len(set(found[0].as_py()[16:])) == 1


def test_failures_of_a_load_are_counted():
    class Failing:
        def __init__(self, cache):
            self.cache, self.calls, self.lock = cache, 0, threading.Lock()

        def find(self, keys):
            with self.lock:
                self.calls += 1
            return self.cache.find(pa.array([b"absent"] * len(keys), pa.binary()))

        def insert(self, keys, values):
            raise sustained.PredisError("no")

    with Predis("64MiB", backend="host") as cache:
        keys = sustained.fill(cache, 100)
        with pytest.raises(
            sustained.PredisError
        ):  # what warms up does not count, and must not fail
            sustained.sustained(Failing(cache), keys, seconds=0.1, threads=1, batch=10, find_share=0)  # fmt: skip
        load = sustained.sustained(
            Failing(cache), keys, seconds=0.1, threads=1, batch=10, find_share=1.0
        )
        assert load.errors == load.operations > 0


# ---- On a GPU


@pytest.fixture
def traced(monkeypatch):
    """Stages as an engine would tell them, of no particular length: this is not about the engine."""
    from predis_lab.gpu.engine import DeviceEngine

    @contextlib.contextmanager
    def traced(engine):
        intervals = []
        yield intervals
        for at, stage in enumerate(measured.STAGES):
            intervals.append(interval(stage, at * 1e-6, (at + 1) * 1e-6))

    monkeypatch.setattr(DeviceEngine, "traced", traced, raising=False)


def link_of(run):
    from predis_lab.bench import transfer_rates

    return transfer_rates.measure_link(run, 2**16, 3)


@pytest.mark.gpu
def test_the_link_has_names_of_this_notebook(run):
    link = link_of(run)
    assert set(run.figures) == set(measured.LINK)
    assert link.up == run.figures["link_h2d_pinned"]["value"]
    assert link.both == run.figures["link_both_pinned"]["value"]
    assert measured.link_of(run.figures) == {"up": link.up, "down": link.down, "both": link.both}


@pytest.mark.gpu
def test_transfers_are_swept(run):
    from predis_lab.bench import transfer_rates

    shares = []
    transfer_rates.transfer_sweep(run, [64, 4096], 3, shares.append)
    transfer_rates.chunk_sweep(run, [1000, 4096], [1, 2], 10_000, 3, shares.append)
    sizes, chunks = measured.size_samples(run.frame()), measured.chunk_samples(run.frame())
    assert len(sizes) == 2 * 8 * 3 and len(chunks) == 2 * 2 * 4 * 3 and len(shares) == 4
    assert len(sizes) + len(chunks) == len(run.rows)
    assert set(sizes["system"]) == {"pinned", "pageable", "zero-copy", "packed"}
    assert set(chunks["system"]) == {"pinned", "staged"}
    assert (sizes["value"] > 0).all() and (chunks["value"] > 0).all()


@pytest.mark.gpu
def test_short_copies_are_timed_among_chunks(run):
    from predis_lab.bench import transfer_rates

    transfer_rates.turns(run, 4096, 3)
    turned = measured.turn_samples(run.frame())
    assert turned.groupby("system").size().to_dict() == dict.fromkeys(
        (measured.ALONE, measured.SAME_STREAM, measured.OWN_STREAM), 3
    )
    assert (turned["value"] > 0).all() and (turned["queued"] == transfer_rates.QUEUED).all()


@pytest.mark.gpu
def test_every_way_across_moves_the_bytes():
    """Filled with a pattern at one end, each way leaves it at the other."""
    import cupy

    from predis_lab.bench import transfer_rates

    n, pattern = 4096, np.arange(4096).astype(np.uint8)
    for kind, way in ((kind, way) for kind in ("pinned", "pageable", "zero-copy") for way in ("up", "down")):  # fmt: skip
        ends = transfer_rates.Ends(n)
        host = ends.pageable if kind == "pageable" else ends.pinned[way]
        host[:] = pattern if way == "up" else 0
        ends.device[way].set(np.zeros(n, np.uint8) if way == "up" else pattern)
        cupy.cuda.get_current_stream().synchronize()
        ends.mover(kind, way, n)()
        there = ends.device[way].get() if way == "up" else np.array(host)
        assert (there == pattern).all(), (kind, way)


@pytest.mark.gpu
@pytest.mark.parametrize("value_nbytes", [64, 1024])
def test_bulk_calls_are_measured_beside_the_link(run, traced, value_nbytes):
    from predis_lab.bench import pipeline_rates

    link, shares = link_of(run), []
    lists = 300 if value_nbytes == 64 else 0
    sized = {"records": 2000, "rows": 800, "repeats": 3, "list_rows": lists}
    told = pipeline_rates.pipeline_rates(run, link, value_nbytes, **sized, progress=shares.append)
    assert isinstance(told, dict)
    calls = [call for call in measured.CALLS if call.value_nbytes == value_nbytes]
    assert len(shares) == pipeline_rates.steps([value_nbytes], bool(lists))
    for call in calls:
        entry = run.figures[call.name]
        assert entry["n"] == 3 and 0 < entry["low"] <= entry["value"] <= entry["high"]
        assert entry["ceiling"] == pytest.approx(call.ceiling(link.up, link.down))
        if call.overhead:
            assert 0 < run.figures[call.overhead]["value"] < 1
    both = run.figures[measured.BOTH_WAYS[value_nbytes]]
    assert both["unit"] == "B/s" and both["ceiling"] == link.both
    assert (measured.LISTS in run.figures) == bool(lists)
    spans = measured.timeline_samples(run.frame())
    assert set(spans["call"]) == {call.name for call in calls if call.overhead}
    found = measured.timeline_of(spans, calls[0].name)
    assert sorted(found["stage"]) == sorted(["call", *measured.STAGES])
    assert (found["stop"] > found["start"]).all()


@pytest.mark.gpu
def test_wrong_answers_are_found():
    import cupy

    from predis_lab.bench.contestants import WrongAnswerError
    from predis_lab.bench.device_records import keys
    from predis_lab.bench.host_columns import host_column
    from predis_lab.bench.pipeline_rates import Stock

    stock = Stock(1000, 64, 100)
    numbers = stock.pick(200)
    found = stock.cache.find(host_column(keys, numbers))
    stock.check(found, numbers)
    others = cupy.concatenate([numbers[1:], numbers[:1]])
    for wrong, asked in ((found, others), (found[:-1], numbers), (found.take(pa.array([None] * 200, pa.int32())), numbers)):  # fmt: skip
        with pytest.raises(WrongAnswerError):
            stock.check(wrong, asked)
    stock.check_stored(numbers, numbers)
    with pytest.raises(WrongAnswerError):
        stock.check_stored(numbers, others)
    assert stock.cache.dbsize() == 1000
    stock.refill()
    assert stock.cache.dbsize() == 1000
    stock.cache.close()


@pytest.mark.gpu
@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("binary", [False, True])
def test_columns_on_the_host_hold_what_was_made_on_the_device(pinned, binary):
    import cupy

    from predis_lab.bench.device_records import keys
    from predis_lab.bench.host_columns import HostColumn

    room = HostColumn(300, 16, pinned=pinned, binary=binary)
    for first in (0, 1000):
        numbers = cupy.arange(first, first + 300, dtype=np.uint64)
        column = room.filled(keys, numbers)
        column.validate(full=True)
        assert column.type == (pa.binary() if binary else pa.binary(16))
        assert b"".join(column.to_pylist()) == keys(numbers).data.get().tobytes()
    with pytest.raises(ValueError, match="32-bit"):
        HostColumn(2**27, 16, binary=True)
