"""Reports: numbers as text, samples as tables, notebooks as pages, and an exit code that says what became of them."""

import doctest
import html.parser
import re
from html import unescape

import nbformat
import numpy as np
import pytest
import tiny
from hypothesis import example, given
from hypothesis import strategies as st

from predis_lab import cli
from predis_lab.bench import results, statistics
from predis_lab.report import comparison, runner, units
from predis_lab.report import html as pages
from predis_lab.report.facts import Facts

# ---- Numbers


def test_examples_hold():
    failed, attempted = doctest.testmod(units)
    assert attempted and not failed


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1, "1/s", "1.00 /s"),
        (999, "1/s", "999 /s"),
        (999.4, "1/s", "999 /s"),
        (999.6, "1/s", "1.00 k/s"),
        (1000, "1/s", "1.00 k/s"),
        (999.4e3, "1/s", "999 k/s"),
        (999.6e3, "1/s", "1.00 M/s"),
        (9.996e6, "B/s", "10.0 MB/s"),
        (99.96e9, "B/s", "100 GB/s"),
        (3.35e12, "B/s", "3.35 TB/s"),
        (12.34e-9, "s", "12.3 ns"),
        (999.6e-9, "s", "1.00 µs"),
        (0.05, "s", "50.0 ms"),
        (64, "B", "64.0 B"),
        (-2.5e6, "1/s", "-2.50 M/s"),
        (-999.6e3, "1/s", "-1.00 M/s"),
        (0.9996, "1", "1.00"),
        (1234.5, "1", "1,234"),
        (-0.5, "1", "-0.500"),
    ],
)
def test_quantities_have_three_digits_and_a_prefix(value, unit, text):
    assert units.format_quantity(value, unit) == text


@pytest.mark.parametrize("unit", results.UNITS)
def test_zero_has_no_prefix(unit):
    text = units.format_quantity(0.0, unit)
    assert text.split(" ")[0] in ("0", "0.0") and not re.search("[TGMkmµn]", text)


@given(st.floats(1e-8, 1e14), st.sampled_from(["1/s", "B/s", "s", "B"]))
def test_what_is_shown_is_what_was_meant(value, unit):
    text = units.format_quantity(value, unit)
    number, _, suffix = text.partition(" ")
    prefix = suffix.removesuffix("/s") if unit == "1/s" else suffix.removesuffix(unit)
    factor = {"T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3, "": 1, "m": 1e-3, "µ": 1e-6, "n": 1e-9}[
        prefix
    ]
    assert float(number.replace(",", "")) * factor == pytest.approx(value, rel=0.00501)
    assert units.format_quantity(-value, unit) == f"-{text}"


@given(st.floats(1.1e-3, 9.9e5))
@example(9.996)
def test_digits_are_three(value):
    text = units.digits(value)
    assert "e" not in text
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.00501)
    significant = text.replace(",", "").replace(".", "").lstrip("0")
    assert len(significant) == 3 or (value >= 999.5 and "." not in text)


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        ((2.184e6, 2.15e6, 2.2e6, "1/s"), "2.18 [2.15, 2.20] M/s"),
        ((1.0e3, 0.9e3, 1.1e3, "B/s"), "1.00 [0.900, 1.10] kB/s"),
        ((5e-6, 4e-6, 6e-6, "s"), "5.00 [4.00, 6.00] µs"),
        ((0.5, 0.25, 0.75, "1"), "0.500 [0.250, 0.750]"),
        ((2e6, None, None, "1/s"), "2.00 M/s"),
        ((2e6, 1e6, None, "1/s"), "2.00 M/s"),
    ],
)
def test_figures_show_their_interval(figure, text):
    stored = dict(zip(("value", "low", "high", "unit"), figure, strict=True))
    assert units.format_figure(stored | {"n": 3}) == text


# ---- Comparisons

CELL = {"records": "fixed 16+64 B", "keys": 10}


class Samples:
    """A run made up of throughput blocks around a median."""

    def __init__(self, directory):
        self.run = results.Run.open(directory, notebook="t")
        self.generator = np.random.default_rng(0)

    def add(self, system, rate, *, workload="get", blocks=12, **changes):
        params = {name: value for name, value in (CELL | changes).items() if value is not None}
        values = rate * self.generator.normal(1, 0.01, blocks)
        for block, value in enumerate(values):
            self.run.add_sample(system, workload, params, block, "throughput", value, "1/s")
            self.run.add_sample(system, workload, params, block, "latency_mean", 1 / value, "s")
        return values

    def rows(self):
        """Predis against Redis at its best."""
        self.run.save()
        return list(Facts.of(self.run.directory).at_best.itertuples())


@pytest.fixture
def samples(tmp_path):
    return Samples(tmp_path)


def test_the_faster_transport_stands_for_the_server_in_each_cell(samples):
    for keys, unix, tcp in ((10, 300, 100), (100, 100, 300)):
        samples.add("redis mget unix", unix, keys=keys)
        samples.add("redis mget tcp", tcp, keys=keys)
        samples.add("redis pipeline unix", 50, keys=keys)
        samples.add("redis pipeline tcp", 60, keys=keys)
        samples.add("predis-host columns", 1000, keys=keys)
    best = comparison.best_transport(samples.run.frame())
    transports = best.groupby(["system", "keys"]).transport.unique()
    assert {cell: list(names) for cell, names in transports.items()} == {
        ("redis mget", 10): ["unix"],
        ("redis mget", 100): ["tcp"],
        ("redis pipeline", 10): ["tcp"],
        ("redis pipeline", 100): ["tcp"],
        ("predis-host columns", 10): [""],
        ("predis-host columns", 100): [""],
    }
    assert set(best.groupby(["system", "keys", "metric"]).size()) == {12}


def test_a_comparison_is_what_the_statistics_say(samples):
    predis = samples.add("predis-host columns", 2.5e6)
    unix, tcp = samples.add("redis mget unix", 1e6), samples.add("redis mget tcp", 9e5)
    assert np.median(unix) > np.median(tcp)
    (row,) = samples.rows()
    expected = statistics.compare(predis, unix)
    assert (row.ratio, row.low, row.high) == (expected.ratio, expected.low, expected.high)
    assert row.p_adjusted == expected.p and row.verdict == expected.verdict == "faster"
    assert (row.candidate, row.baseline) == ("predis-host columns", "redis mget")
    assert (row.workload, row.keys) == ("get", 10)


def test_p_is_corrected_within_the_table_of_a_pair(samples):
    for keys in (1, 10, 100):
        samples.add("predis-host lists", 120, keys=keys, blocks=5)
        samples.add("redis mget unix", 100, keys=keys, blocks=5)
    lone = statistics.compare([6, 7, 8, 9, 10], [1, 2, 3, 4, 5]).p  # five blocks all above five
    assert [row.p_adjusted for row in samples.rows()] == [pytest.approx(3 * lone)] * 3


def test_every_face_meets_redis_at_its_best(samples):
    for keys, mget, get in ((10, 200, 100), (20, 100, 200)):
        for system in ("predis-host lists", "predis-host columns", "valkey mget unix"):
            samples.add(system, 1000, keys=keys)
        samples.add("redis mget tcp", mget, keys=keys)
        samples.add("redis get unix", get, keys=keys)
    pairs = {(row.keys, row.candidate, row.baseline) for row in samples.rows()}
    faces = ("predis-host lists", "predis-host columns")
    best = {10: "redis mget", 20: "redis get"}
    assert pairs == {(keys, face, way) for face in faces for keys, way in best.items()}
    everything = comparison.default_pairs(samples.run.frame())
    assert set(everything) == {(face, way) for face in faces for way in best.values()}


def test_nothing_below_the_noise_floor_is_claimed(samples):
    samples.add("predis-host lists", 150)
    samples.add("redis mget unix", 100)
    assert samples.rows()[0].verdict == "faster"
    samples.run.add_sample("machine", "a/a", {}, -1, "noise_floor", 0.8, "1")
    assert samples.rows()[0].verdict == "same"


def test_a_run_without_comparisons_has_none(samples):
    assert samples.rows() == []
    samples.add("machine", 100, records=None, keys=None)
    assert samples.rows() == []
    samples.add("predis-host lists", 100)
    assert samples.rows() == []


@pytest.mark.parametrize(
    "changes",
    [{"keys": 20}, {"blocks": 1}, {"threads": 4}],
    ids=["other cell", "one block", "other load"],
)
def test_what_can_not_be_compared_is_left_out(samples, changes):
    samples.add("predis-host lists", 100, blocks=changes.get("blocks", 12))
    samples.add("redis mget unix", 100, **changes)
    assert samples.rows() == []


# ---- The index


class Links(html.parser.HTMLParser):
    """What a page would fetch or lead to."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        names = ("src", "href", "data", "srcset", "poster", "action")
        self.found += [(tag, value) for name, value in attrs if name in names and value]


def foreign(text):
    """Links that leave the folder."""
    return [link for link in Links(text).found if re.match(r"\w+:(?<!data:)|//", link[1])]


def test_the_index_leads_to_report_pages_and_logs(tmp_path):
    results.Run.open(tmp_path, notebook="t").save()
    (tmp_path / "01_fine.html").write_text("")
    outcomes = [
        runner.Outcome("01_fine", 12.4, None),
        runner.Outcome("02_broken", 1.0, "ValueError: 1 < 2 & more"),
    ]
    page = pages.index_page(tmp_path, outcomes, {"02_broken": "logs/02_broken.log"})
    text = unescape(re.sub(r"<[^>]+>", " ", page))
    assert "ValueError: 1 < 2 & more" in text and "executed in 12 s" in text
    assert {value for tag, value in Links(page).found} == {
        "report.html",
        "01_fine.html",
        "logs/02_broken.log",
    }
    assert results.read_environment(tmp_path)["recorded_at"][:10] in text


# ---- Running notebooks


@pytest.fixture
def project(tmp_path):
    class Reported(tiny.Project):
        run = tmp_path / "outputs" / "r"

        def plan(self, profile="smoke", only=None):
            return runner.plan(self.notebooks, self.params, profile, only)

        def report(self, *options):
            folders = ["--source", str(self.root), "--output", str(self.run.parent)]
            return cli.main(["report", *folders, "--run", "r", *options])

    return Reported(tmp_path / "source")


def test_jobs_come_in_order_with_their_parameters(project):
    project.add("10_last", yaml="size: 3\n")
    project.add("02_first", yaml="")
    project.add("template", yaml=None)
    jobs = [(job.notebook.stem, job.parameters) for job in project.plan()]
    assert jobs == [("02_first", {}), ("10_last", {"size": 3})]


@pytest.mark.parametrize(
    ("only", "chosen"),
    [
        (["01"], ["01_one"]),
        (["02", "01"], ["01_one", "02_two"]),
        (["02_two"], ["02_two"]),
        (None, ["01_one", "02_two"]),
    ],
)
def test_only_some(project, only, chosen):
    for name in ("01_one", "02_two"):
        project.add(name)
    assert [job.notebook.stem for job in project.plan(only=only)] == chosen


@pytest.mark.parametrize(
    ("options", "arguments", "said"),
    [
        ({"yaml": "sise: 2\n"}, [], r"sise.*01_one\.ipynb does not have.*run_dir, size"),
        ({"yaml": None}, [], "no parameters for the profile 'smoke'"),
        ({}, ["--profile", "nightly"], "no parameters for the profile 'nightly'"),
        ({}, ["--notebooks", "07"], "07"),
        ({"parameters": None}, [], "no cell tagged 'parameters'"),
        ({"yaml": "- size\n"}, [], r"01_one\.smoke\.yaml"),
        ({"yaml": "size: [1\n"}, [], r"01_one\.smoke\.yaml"),
    ],
    ids=["unknown", "no file", "no profile", "no notebook", "no cell", "a list", "no YAML"],
)
def test_wrong_parameters_are_told_before_anything_runs(project, capsys, options, arguments, said):
    project.add("00_fine")
    project.add("00_fine", profile="nightly")
    project.add("01_one", **options)
    assert project.report(*arguments) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not project.run.exists()


@pytest.mark.notebooks
def test_a_run_from_parameters_to_pages(project, capsys):
    saves = (
        "from predis_lab.bench.results import Run\n"
        "run = Run.open(run_dir, notebook='01_one')\n"
        "run.add_figure('size', float(size), 'B')\n"
        "run.save()\nprint('the size is', size)"
    )
    project.add("01_one", saves, yaml="size: 4321\n")
    project.add("02_broken", "print('so far')", "raise ValueError('out of luck')", "print('never')")
    project.add("03_dead", "import os\nos._exit(7)")
    project.add("04_goes_on", "print('still here')")
    assert project.report() == 1
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == f"Report: {project.run / 'index.html'}"
    assert "ValueError: out of luck" in said

    assert results.read_figures(project.run)["size"]["value"] == 4321.0
    index = (project.run / "index.html").read_text()
    assert not foreign(index) and '<a class="report" href="report.html">' in index
    report = (project.run / "report.html").read_text()
    assert "4.32 kB" in report and not foreign(report)
    assert "failed: ValueError: out of luck" in index and index.count("failed: ") == 2

    for name, shown in (
        ("01_one", "the size is 4321"),
        ("02_broken", "so far"),
        ("04_goes_on", "still here"),
    ):
        page = (project.run / f"{name}.html").read_text()
        assert shown in page and f'<a href="{name}.html">' in index
        assert not [link for link in foreign(page) if link[0] != "a"]
        assert not re.search(r"<(?:script|iframe)[^>]*\bsrc=", page)
        assert not re.search(r"@import\s|url\(\s*['\"]?(?:https?:)?//", page)
    broken = nbformat.read(project.run / "02_broken.ipynb", 4)
    assert broken.cells[-1].outputs == []


@pytest.mark.notebooks
def test_a_run_in_which_all_goes_well(project):
    project.add("01_one", "assert size == 2")
    assert project.report() == 0
    assert "failed" not in re.sub(
        r"(?s)<style>.*?</style>", "", (project.run / "index.html").read_text()
    )
