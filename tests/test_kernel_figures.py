"""Figures, tables and sentences of notebooks 01 and 02: what they are given, all of it; a plain line where that is nothing."""

import importlib.util

import numpy as np
import pytest

from predis_lab.bench import counted, kernel_samples, launch_settings, results
from predis_lab.gpu import source
from predis_lab.gpu.ladder import RUNGS
from predis_lab.gpu.occupancy import MULTIPROCESSORS, occupancy
from predis_lab.report import kernel_figures, kernel_show

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("cuda") is None, reason="cuda-bindings is not installed"
)
SPEEDS = {"v1": 0.2, "v2": 0.4, "v6": 0.4, "v7": 0.7, "v10": 0.8, "align32": 0.85, "fnv": 0.5}


@pytest.fixture
def ladder(tmp_path):
    """A ladder of a few rungs, all verbs at 64 bytes in two batches, lookups at 256."""
    run, noise = results.Run.open(tmp_path, notebook="t"), np.random.default_rng(0)
    systems = {**SPEEDS, "winner": 0.75, "ceiling": 1.0}
    for workload, kernel in kernel_samples.WORKLOADS.items():
        for size, batch in ((64, 10_000), (64, 1_000_000), (256, 1_000_000)):
            if size == 256 and workload != "find":
                continue
            cell = {"batch": batch, "value_nbytes": size, "records": 8_000_000}
            for system, speed in systems.items():
                if system in RUNGS and kernel not in RUNGS[system].operations:
                    continue
                for block in range(5):
                    rate = 8e9 * speed * (1 + 0.01 * noise.random())
                    run.add_sample(system, workload, cell, block, "throughput", rate, "1/s")
    return kernel_samples.ladder_samples(run.frame())


@pytest.fixture
def sweep(tmp_path):
    """Lookups that peak at three quarters of the warps; three pieces under way are the usual number."""
    run = results.Run.open(tmp_path, notebook="t")
    for threads in (128, 256):
        for pieces in (1, 3):
            for registers, share in ((64, 0.5), (40, 0.75), (32, 1.0)):
                told = {
                    "threads": threads,
                    "resident": share,
                    "pieces": pieces,
                    "rounds": 4,
                    "registers": registers,
                    "local_nbytes": 184 * (registers == 32),
                    "occupancy": share,
                    "batch": 1000,
                    "records": 9000,
                    "usual": (threads, pieces, share) == (128, 3, 0.75),
                }
                for block in range(5):
                    rate = 7e9 * (1 - abs(share - 0.75)) * pieces**0.1 * (1 + 0.001 * block)
                    run.add_sample("find_dense", "sweep", told, block, "throughput", rate, "1/s")
    return kernel_samples.sweep_samples(run.frame())


def prediction(arch, kernel, registers, spilled=0):
    setting = launch_settings.usual(kernel, MULTIPROCESSORS[arch])
    found = occupancy(MULTIPROCESSORS[arch], registers, 0, 128)
    return launch_settings.Prediction(kernel, arch, setting, registers, spilled, found)


PREDICTIONS = [
    prediction(arch, kernel, registers, 12 * (arch == 80))
    for arch in (80, 90)
    for kernel, registers in (("find_dense", 40), ("publish", 64))
]


def bars(axes):
    return [bar.get_width() for bar in axes.patches]


# ---- The ladder


def test_the_ladder_has_a_panel_per_cell_and_a_bar_per_rung(ladder):
    figure = kernel_figures.ladder(ladder, "find")
    figure.draw_without_rendering()
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "64 B, 10,000 keys",
        "64 B, 1,000,000 keys",
        "256 B, 1,000,000 keys",
    ]
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[0] == "v1 · plain" and "serves the cache" in labels and len(labels) == 8
    for axes in figure.axes:
        assert bars(axes) == pytest.approx([0.2, 0.4, 0.4, 0.7, 0.8, 0.75, 0.85, 0.5], rel=0.02)
        rates = [text.get_text() for text in axes.texts]
        assert len(rates) == 8 and all(rate.endswith(" G/s") for rate in rates)
        assert axes.get_xlim()[1] > 1


def test_a_rung_faster_than_the_ceiling_stays_in_the_picture(ladder):
    faster = ladder.assign(value=ladder["value"].where(ladder["system"] != "align32", 2e10))
    figure = kernel_figures.ladder(faster, "find")
    assert all(max(bars(axes)) < axes.get_xlim()[1] for axes in figure.axes)


def test_the_table_of_the_ladder_compares_each_rung_with_its_parent(ladder):
    html = kernel_show.ladder(ladder, "find").data
    assert html.count("<tr>") == 1 + len(SPEEDS) + 1
    assert "2.0" in html and "80%" in html and ">241<" in html
    assert ">241<" not in kernel_show.ladder(ladder, "update").data


def test_the_verdict_tells_what_paid_from_what_did_not(ladder):
    lines = kernel_show.ladder_verdict(ladder, "find").data.splitlines()
    assert lines[0].startswith("- **Find**, 1,000,000 keys a launch, values of 64 B")
    (paid,) = [line for line in lines if "paid, the largest first" in line]
    assert "v2 *a log and an index*" in paid and "v7" in paid and "v6" not in paid
    (beside,) = [line for line in lines if "no faster" in line]
    assert "fnv" in beside and "align32" not in beside
    # v6 leaves erase alone: nothing is said of it, and v7 then has no measured parent.
    assert "v6" not in kernel_show.ladder_verdict(ladder, "erase").data


def test_lanes_are_compared_where_both_were_measured(ladder):
    lines = kernel_show.lanes_verdict(ladder).data.splitlines()
    assert [line.split(",")[0] for line in lines] == ["- find", "- insert", "- update"]
    assert "1.7" in lines[0]


def test_ideas_name_every_rung():
    html = kernel_show.ideas(list(RUNGS), 16, 64).data
    assert all(f">{name}<" in html for name in RUNGS)


# ---- Goals and counters


def test_goals_are_judged_by_their_numbers():
    figures = {
        "find": {"value": 9.5, "ceiling": 10.0},
        "insert": {"value": 8.9, "ceiling": 10.0},
        "contains": {"value": 3.0},
    }
    text = kernel_show.roofline_verdict(figures, {name: name for name in figures}).data
    assert "alone: find 95%." in text and "Not above: insert 89%." in text
    ratios = {
        "k4_find": {"value": 4.0, "low": 3.9, "high": 4.2, "n": 5},
        "k4_erase": {"value": 2.1, "low": 1.9, "high": 2.2, "n": 5},
    }
    assert kernel_show.winner_verdict(ratios).data.endswith("interval included: find.")
    told = {
        "occupancy_find": {"value": 0.7, "ceiling": 0.75},
        "occupancy_insert": {"value": 0.8},
    }
    lines = kernel_show.occupancy_verdict(told).data.splitlines()
    assert lines == [
        "- find: achieved 70%, predicted 75%; not above 75%.",
        "- insert: achieved 80%; above 75%.",
    ]


def test_bytes_stand_beside_the_counter():
    figures = {"dram_nbytes_hits": {"value": 2 * counted.by_hand("hits")}}
    assert "2.00" in kernel_show.counted_bytes(figures).data
    assert "find, all there 2.00." in kernel_show.bytes_verdict(figures).data
    assert "all there" in kernel_show.by_hand().data
    threads = {"threads_per_instruction_misses": {"value": 28.44}}
    assert "28.4" in kernel_show.divergence(threads).data


# ---- Settings


def test_settings_have_a_line_per_value_and_a_ring(sweep):
    figure = kernel_figures.launch_settings(sweep, "find_dense", "threads")
    figure.draw_without_rendering()
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert set(lines) == {"128 threads a block", "256 threads a block", "serves the cache"}
    assert lines["128 threads a block"].get_xdata() == pytest.approx([0.5, 0.75, 1.0])
    assert lines["serves the cache"].get_xdata() == [0.75]
    figure = kernel_figures.launch_settings(sweep, "find_dense", "pieces")
    assert {line.get_label() for line in figure.axes[0].get_lines()} == {
        "1 pieces under way",
        "3 pieces under way",
        "serves the cache",
    }


def test_the_verdict_on_settings_says_where_more_does_not_help(sweep):
    text = kernel_show.settings_verdict(sweep, "find_dense", "threads").data
    assert "occupancy 75%: **" in text and "beyond that, more does not help" in text
    assert "32 registers and 184 B spilled" in text and "gives 75% of the fastest" in text
    assert "2 of 6 settings" in text and text.endswith("gives 100%.")


def test_predictions_are_drawn_and_told():
    figure = kernel_figures.predicted_occupancy(PREDICTIONS)
    figure.draw_without_rendering()
    assert sorted(bars(figure.axes[0])) == pytest.approx([0.5, 0.5, 0.75, 0.75])
    said = [text.get_text() for text in figure.axes[0].texts]
    assert "75% · 40 registers, 12 B spilled" in said and "50% · 64 registers" in said
    html = kernel_show.predictions(PREDICTIONS).data
    assert "sm_80" in html and "sm_90" in html and html.count("<tr>") == 5
    text = kernel_show.predictions_verdict(PREDICTIONS).data
    assert "`find_dense`: 75% to 75%; 75% or more on sm_80, sm_90." in text
    assert "`publish`: 50% to 50%; 75% or more on none." in text


@needs_compiler
def test_the_compiler_is_asked_without_a_gpu(tmp_path):
    assert launch_settings.why_no_compiler() is None
    found = launch_settings.predictions([90])
    assert {one.kernel for one in found} == set(launch_settings.KERNELS)
    assert all(one.registers > 16 and 0 < one.occupancy.share <= 1 for one in found)
    low, high = launch_settings.caps(90, [0.375, 1.0])[:2]
    assert high.registers == 32 < low.registers and high.occupancy.share == 1
    needs = launch_settings.rung_needs(["v1", "v6"], "erase", 90, lambda _: None)
    assert [one.rung for one in needs] == ["v1"]
    assert f"to {needs[0].registers} registers" in kernel_show.needs_verdict(needs, 90).data
    assert ">plain<" in kernel_show.rung_needs(needs).data
    run = results.Run.open(tmp_path, notebook="t")
    launch_settings.record(run, found)
    assert "occupancy_find_dense_sm_90_predicted" in run.figures


def test_every_setting_is_tried_once():
    around = launch_settings.Setting(128, 0.75, 3, 4)
    grid = launch_settings.blocks_by_registers(around, [128, 256], [0.5, 1.0])
    assert len(set(grid)) == 4 and {one.pieces for one in grid} == {3}
    ways = launch_settings.in_flight(around, [1, 3], [2], [0.5, 1.0])
    assert len(set(ways)) == 5 and {one.threads for one in ways} == {128}
    assert around.defines("find_dense", MULTIPROCESSORS[90]) == (
        "TILE=128",
        "FIND_BLOCKS=12",
        *(
            f"{name}={int(source.RESIDENT_SHARE[name] * 16)}"
            for name in list(source.RESIDENT_SHARE)[1:]
        ),
        "PIECES_AT_ONCE=3",
        "ROUNDS_AT_ONCE=4",
    )


# ---- Nothing


def test_nothing_is_said_plainly(tmp_path):
    run = results.Run.open(tmp_path, notebook="t")
    for keep in (kernel_samples.ladder_samples, kernel_samples.sweep_samples):
        nothing = keep(run.frame())
        shown = kernel_show.shown(kernel_figures.ladder, nothing, "find")
        assert shown.data == kernel_show.NOTHING
    for told in (
        kernel_show.roofline_verdict({}, {}),
        kernel_show.winner_verdict({}),
        kernel_show.occupancy_verdict({}),
        kernel_show.bytes_verdict({}),
        kernel_show.divergence({}),
    ):
        assert told.data == kernel_show.NOTHING
    assert kernel_show.among({"a": {}}, ["a", "b"]) == {"a": {}}
