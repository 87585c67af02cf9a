"""The report: what it says of a run is what the statistics say of its samples, in one file that needs nothing else."""

import doctest
import html.parser
import re
from html import unescape

import numpy as np
import pandas as pd
import pytest
from made import RECORDS, Made

from predis_lab.bench import results, statistics
from predis_lab.report import (
    claims,
    report_figures,
    sentences,
    tables,
    tails,
)
from predis_lab.report import (
    html as pages,
)
from predis_lab.report.facts import Facts

HEADINGS = [
    *(
        "Claims",
        "Throughput",
        "Speed-up",
        "Latency, p95 and p99",
        "Memory",
        "Scaling by batch size",
    ),
    *("Three ways of comparison", "Since the recorded run", "Method and disclosure", "Environment"),
    *("Limits and losses", "Appendix"),
]


@pytest.fixture
def made(tmp_path):
    return Made(tmp_path / "run")


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A run with something for every section, as of a GPU, and its blocks by system and keys."""
    directory = tmp_path_factory.mktemp("runs") / "full"
    made, blocks = Made(directory), {}
    for keys in (10, 100, 1000):
        for system, rate in {
            "predis-cuda columns": 1e4 * keys,
            "predis-cuda lists": 5e5,
            "redis mget unix": 1e6 if keys < 1000 else 8e5,
            "redis mget tcp": 5e5,
            "redis pipeline unix": 2e5,
            "valkey mget unix": 9e5,
        }.items():
            blocks[system, keys] = made.add(system, rate, keys=keys, p95=[keys * 1e-6])
    for system, rate in {"predis-cuda columns": 1e6, "dict": 1e7, "redis mget unix": 1e5}.items():
        made.add(system, rate, workload="played", records="ycsb_a", keys=100)
    run = made.run
    for name, nbytes in {"predis": 144.0, "redis": 134.0}.items():
        run.add_figure(f"record_nbytes_{name}", nbytes, "B")
    run.add_figure("find_64v", 1e10, "1/s", low=0.9e10, high=1.1e10, n=9, ceiling=2e10)
    run.add_figure("sustained", 3e6, "1/s", low=2.9e6, high=3.1e6, n=10)
    for block, share in enumerate((0.8, 0.9, 0.85)):
        params = {"records": RECORDS, "keys": 10, "value_nbytes": 64}
        run.add_sample("predis-cuda columns", "get", params, block, "gpu_utilisation", share, "1")
    server = {"name": "redis", "version": "8.2", "allocator": "jemalloc", "source": "wheel", "client": {"hiredis": "3"}}  # fmt: skip
    servers = [server | {"configuration": {"io-threads": "4", "save": ""}, "transports": ["unix"]}]
    gpu = {"name": "NVIDIA H200", "driver": "580", "memory_nbytes": 150e9, "ecc": True}
    made.facts(gpu, servers)
    return directory, blocks


@pytest.fixture(scope="module")
def written(full):
    """The page, and what was told of its progress."""
    shares = []
    return pages.write_report(Facts.of(full[0]), shares.append).read_text(), shares


@pytest.fixture(scope="module")
def page(written):
    return written[0]


def words(page):
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page)))


@pytest.mark.parametrize("module", [sentences, report_figures], ids=lambda module: module.__name__)
def test_examples_hold(module):
    failed, attempted = doctest.testmod(module)
    assert attempted and not failed


# ---- The page


class Page(html.parser.HTMLParser):
    """Whether elements are closed in order, and what a page would fetch."""

    VOID = ("meta", "br", "img", "link", "input", "hr")

    def __init__(self, text):
        super().__init__()
        self.open, self.fetched, self.ids = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.fetched += [
            attrs[a] for a in ("src", "srcset", "data", "action", "poster") if a in attrs
        ]
        self.fetched += [
            v for a, v in attrs.items() if a.endswith("href") and not v.startswith("#")
        ]
        self.ids += [attrs["id"]] if tag == "section" else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_it_needs_nothing_from_elsewhere_and_is_well_formed(page):
    found = Page(page)
    assert not found.open and not found.fetched
    assert not re.search(r"<script|<iframe|@import|https?:|url\((?!#)", page)
    assert set(re.findall(r'href="#([^"]*)"', page)) >= set(found.ids)
    assert len(set(found.ids)) == len(HEADINGS)


def test_sections_come_in_their_order(page):
    assert re.findall(r"<h2>(.*?)</h2>", page) == HEADINGS


def test_it_prints_without_dark_grounds_and_with_a_running_header(page):
    (style,) = re.findall(r"(?s)<style>(.*?)</style>", page.split("</head>")[0])
    assert re.search(r"@media screen and \(prefers-color-scheme: dark\)", style)
    assert "prefers-color-scheme: dark" not in style.replace("screen and (prefers-color-scheme: dark)", "")  # fmt: skip
    assert "@top-right" in style and "run full" in style and "counter(page)" in style


def test_it_holds_what_the_run_holds(full, page):
    directory, blocks = full
    text = words(page)
    assert "NVIDIA H200" in text and results.read_environment(directory)["recorded_at"] in text
    assert "io-threads '4', save ''" in text and "hiredis 3" in text
    for row in claims.rows(claims.settle(results.read_samples(directory))):
        assert " ".join(" ".join(row.values()).split()) in text
    expected = statistics.compare(blocks["predis-cuda columns", 1000], blocks["redis mget unix", 1000])  # fmt: skip
    assert f"{statistics_text(expected)} faster" in text
    assert "144 B" in text and "3.00 [2.90, 3.10] M/s" in text and "50%" in text
    assert "gpu utilisation" in text and "0.850" in text


def statistics_text(found):
    return sentences.comparison.times_text(found.ratio, found.low, found.high)


def test_texts_are_escaped(made):
    made.add("predis-host columns", 2e6, records="<b>bold & more</b>")
    made.add("redis mget unix", 1e6, records="<b>bold & more</b>")
    assert "<b>bold" not in pages.report_page(made.facts())


def test_an_empty_folder_has_a_report_that_says_so(tmp_path):
    page = pages.report_page(Facts.of(tmp_path))
    assert re.findall(r"<h2>(.*?)</h2>", page) == HEADINGS
    assert "<svg" not in page and page.count("Not measured in this run.") >= 5
    assert not Facts.of(tmp_path) and "make report" in sentences.nothing(tmp_path)


def test_figures_take_the_colours_of_the_page(page):
    found = re.findall(r"(?s)<svg.*?</svg>", page)
    assert len(found) == len(re.findall("<figure>", page)) >= 6
    for text in found:
        assert "var(--blue)" in text and "<text" in text and "xmlns" not in text
        assert re.match(r'<svg role="img" aria-label="[^"]+\." viewBox=', text)
        assert not re.search(r": #[0-9a-f]{6}\b", text)
        for name in set(re.findall(r'url\(#(\w+)\)|href="#(\w+)"', text)):
            assert f'id="{"".join(name)}"' in text  # what a figure refers to, it holds


def test_progress_adds_up(written):
    _, shares = written
    assert sum(shares) == pytest.approx(1) and min(shares) > 0


# ---- What it says


def test_the_three_ways_never_mix(made):
    systems = ("predis-host columns", "predis-host lists", "predis-host mget unix", "dict")
    for system in (*systems, "redis mget unix", "redis mget tcp", "redis pipeline unix", "valkey mget unix"):  # fmt: skip
        made.add(system, 1e6)
    facts = made.facts()
    faces = ("predis-host columns", "predis-host lists")
    pairs = [set(zip(way.compared["candidate"], way.compared["baseline"], strict=True)) for way in facts.ways]  # fmt: skip
    assert pairs == [
        {(face, "dict") for face in faces},
        {("predis-host mget", "redis mget")},
        {(face, redis) for face in faces for redis in ("redis mget", "redis pipeline")},
    ]
    for way in facts.ways:  # each corrected for its own number of comparisons
        p = way.compared["p"].to_numpy()
        assert np.allclose(way.compared["p_adjusted"], statistics.holm(p))
    (row,) = [row for row in tables.side_by_side(facts).groups[0][1] if row[1] == "columns"]
    assert row[2].endswith("same") and row[3] == tables.NONE and row[4:] != (tables.NONE,) * 2


def test_loads_stand_by_system_and_load(made):
    for clients, rate in ((1, 1e5), (4, 3e5)):
        params = {"clients": clients, "batch": 10, "as": "threads"}
        for block in range(5):
            made.run.add_sample("redis mget unix", "clients", params, block, "throughput", rate, "1/s")  # fmt: skip
    made.run.add_sample("dict", "clients", {"clients": 4, "batch": 10, "as": "threads"}, 0, "throughput", 2e6, "1/s")  # fmt: skip
    found = tables.by_load(made.facts(), "clients", "throughput", "clients")
    assert found.columns == ("clients", "1", "4")
    assert found.groups == [
        ("as threads, batch 10", [
            ("Redis, mget unix", "100 [100, 100] k/s", "300 [300, 300] k/s"),
            ("a Python dict", "", "2.00 M/s"),
        ])
    ]  # fmt: skip
    assert not len(tables.by_load(made.facts(), "open", "achieved", "rate"))


def test_systems_that_share_a_look_are_not_drawn_as_one(made):
    for keys in (10, 100):
        for system, rate in {"predis-host lists": 1e6, "predis-host lists hot": 5e6, "redis mget unix": 1e6}.items():  # fmt: skip
            made.add(system, rate, keys=keys)
    facts = made.facts()
    (shown,) = report_figures.throughput(facts)
    (line,) = [line for line in shown.figure.axes[0].get_lines() if line.get_label() == "Predis, lists"]  # fmt: skip
    assert line.get_ydata() == pytest.approx([1e6, 1e6], rel=0.02)
    assert "Predis, lists with the hot tier 5.0" in shown.answer
    assert {row[1] for row in tables.side_by_side(facts).groups[0][1]} == {
        "lists",
        "lists with the hot tier",
    }


def test_three_sentences_on_gains_losses_and_proof(full):
    directory, blocks = full
    facts = Facts.of(directory)
    gains, losses, proves = sentences.summary(facts)
    most = statistics.compare(blocks["predis-cuda columns", 1000], blocks["redis mget unix", 1000])
    least = statistics.compare(blocks["predis-cuda columns", 10], blocks["redis mget unix", 10])
    assert "GET, fixed 16+64 B, 1,000 keys a call" in gains and statistics_text(most) in gains
    assert "host table" not in gains and gains.count("faster") == 1
    assert "10 keys a call" in losses and statistics_text(least) in losses
    assert claims.tally(facts.settled).rstrip(".") in proves
    for told in sentences.summary(facts):
        assert told.endswith(".")


def test_without_a_gpu_it_says_whose_figures_these_are(made):
    made.add("predis-host lists", 2e6)
    made.add("redis mget unix", 1e6)
    facts = made.facts()
    assert sentences.HOST in sentences.summary(facts)[0]
    assert "Nothing is claimed of a GPU" in sentences.summary(facts)[2]
    (on,) = [lines for heading, lines in sentences.losses(facts) if heading == "What it was measured on"]  # fmt: skip
    assert any("No GPU answered" in line for line in on)


def test_without_a_comparison_it_claims_none(made):
    made.run.add_figure("find_64v", 1e10, "1/s", ceiling=4e10)
    facts = made.facts()
    gains, bound, _ = sentences.summary(facts)
    assert "no comparison" in gains and "between 25% and 25%" in bound
    assert sentences.headline(facts) == []


def test_losses_are_named(made):
    for keys, rate in ((10, 0.5e6), (100, 0.6e6), (1000, 3e6)):
        made.add("predis-cuda columns", rate, keys=keys)
        made.add("redis mget unix", 1e6, keys=keys)
    made.add("predis-cuda columns", 1e5, workload="played", records="gaming", keys=100)
    made.add("dict", 1e7, workload="played", records="gaming", keys=100)
    made.add("predis-cuda lists", 1e6, keys=7, blocks=3)
    made.add("redis mget unix", 1e6 * 1.2, keys=7, blocks=3)
    found = dict(sentences.losses(made.facts()))
    assert len(found["Claims that fail"]) >= 2 and "where at least 30x" in " ".join(found["Claims that fail"])  # fmt: skip
    (redis,) = found["Where Redis is faster"]
    assert "at 10 keys" in redis and "at 100 keys" in redis and "1,000" not in redis
    (process,) = found["Where a Python dict is faster"]
    assert process.startswith("Columns: in 1 of 1") and "gaming, batches of 100" in process
    (unclear,) = found["Ambiguous"]
    assert "1 of 4 comparisons had fewer than the 8 blocks" in unclear
    missing = " ".join(found["What was not measured"])
    assert "GPU utilisation" in missing and "Behind a socket" in missing
    assert "In process" not in missing and "Redis at the same depth" not in missing


def test_everything_that_was_measured_is_not_missing(full):
    missing = sentences.missing(Facts.of(full[0]))
    assert not any("Bytes a record" in line or "sustained" in line for line in missing)
    assert any("p99.9" in line for line in missing)


@pytest.mark.parametrize(
    ("verdicts", "first"),
    [
        (("slower", "faster", "faster"), 100),
        (("faster", "slower", "faster"), 1000),
        (("faster", "faster", "ambiguous"), None),
        (("faster", "faster", "faster"), 10),
    ],
)
def test_where_it_begins_to_pay(verdicts, first):
    rows = pd.DataFrame({"keys": [10, 100, 1000], "verdict": verdicts})
    assert sentences.crossing(rows.sample(frac=1, random_state=1)) == first


# ---- Percentiles


def test_percentiles_have_intervals_where_blocks_have_calls_enough(made):
    made.add("predis-host lists", 1e6, keys=1, p95=[1e-6, 2e-6, 3e-6])
    params = {"records": RECORDS, "keys": 1, "value_nbytes": 64}
    for name, seconds in (("p95", 9e-6), ("p99", 5e-6)):
        made.run.add_sample("predis-host lists", "get", params, -1, f"pooled_latency_{name}", seconds, "s")  # fmt: skip
    found = tails.tails(made.facts(), "get", RECORDS).set_index("percentile")
    blocks = statistics.median_interval([1e-6, 2e-6, 3e-6] * 4)
    assert tuple(found.loc["p95", ["value", "low", "high", "n"]]) == (blocks.value, blocks.low, blocks.high, 12)  # fmt: skip
    assert found.loc["p99", "value"] == 5e-6 and np.isnan(found.loc["p99", "low"])
    assert "p50" not in found.index
