"""Claims: nothing holds that samples don't show, and what fails is told."""

import numpy as np
import pytest

from predis_lab.bench import results
from predis_lab.report import claims, html, show
from predis_lab.report.claims import CLAIMS, Claim, Level
from predis_lab.report.facts import Facts

CLAIM = Claim("get", 1000, "columns", "command", 10)


def samples_of(tmp_path, rates, blocks=12, spread=0.02, floor=None, keys=1000, workload="get"):
    """One cell: systems with a rate each, and blocks that scatter about it."""
    run = results.Run.open(tmp_path / "run", notebook="t")
    generator = np.random.default_rng(3)
    params = {"records": claims.RECORDS, "keys": keys, "value_nbytes": 64}
    for system, rate in rates.items():
        for block in range(blocks):
            value = rate * np.exp(spread * generator.standard_normal())
            run.add_sample(system, workload, params, block, "throughput", value, "1/s")
    if floor is not None:
        run.add_sample("machine", "a/a", {}, -1, "noise_floor", floor, "1")
    run.save()
    return run.frame()


def settled(samples, claim=CLAIM):
    (one,) = claims.settle(samples, [claim])
    return one


@pytest.mark.parametrize(
    ("times", "verdict"), [(12, "holds"), (10, "open"), (8, "fails"), (0.5, "fails")]
)
def test_a_claim_is_tested_against_what_it_says(tmp_path, times, verdict):
    rates = {"predis-cuda columns": times * 1e6, "redis mget unix": 1e6}
    one = settled(samples_of(tmp_path, rates))
    assert one.verdict == verdict
    assert one.ratio.low <= times * 1.03 and one.ratio.high >= times * 0.97
    assert one.delta == (1 if times > 1 else -1)
    assert (one.p_adjusted < 1e-3) == (verdict == "holds")


def test_redis_is_taken_at_its_best(tmp_path):
    rates = {"predis-cuda columns": 12e6, "redis mget unix": 1e6, "redis mget tcp": 2e6}
    rates |= {"redis pipeline unix": 9e6, "predis-cuda lists": 99e6, "valkey mget unix": 9e6}
    assert settled(samples_of(tmp_path, rates)).ratio.value == pytest.approx(6, rel=0.05)


def test_a_pipeline_is_another_claim(tmp_path):
    rates = {"predis-cuda columns": 12e6, "redis mget unix": 1e6, "redis pipeline tcp": 4e6}
    piped = Claim("get", 1000, "columns", "pipeline", 2)
    one = settled(samples_of(tmp_path, rates), piped)
    assert one.verdict == "holds" and one.ratio.value == pytest.approx(3, rel=0.05)


def test_nothing_is_claimed_within_the_noise(tmp_path):
    rates = {"predis-cuda columns": 1.2e6, "redis mget unix": 1e6}
    claim = Claim("get", 1000, "columns", "command", 1)
    assert settled(samples_of(tmp_path, rates), claim).verdict == "holds"
    assert settled(samples_of(tmp_path, rates, floor=0.25), claim).verdict == "open"


def test_few_blocks_show_nothing(tmp_path):
    rates = {"predis-cuda columns": 50e6, "redis mget unix": 1e6}
    assert settled(samples_of(tmp_path, rates, blocks=4)).verdict == "open"
    assert settled(samples_of(tmp_path, rates, blocks=1)).verdict == "not measured"


def test_claims_are_corrected_together(tmp_path):
    samples = samples_of(tmp_path, {"predis-cuda columns": 12e6, "redis mget unix": 1e6}, blocks=8)
    alone = settled(samples)
    together = claims.settle(samples, [CLAIM] * 20)
    assert alone.verdict == "holds" and alone.p_adjusted < 1e-3
    assert {one.verdict for one in together} == {"open"}
    assert together[0].p_adjusted == pytest.approx(20 * alone.p_adjusted)


def test_a_dict_is_no_gpu(tmp_path):
    rates = {"predis-host columns": 99e6, "redis mget unix": 1e6}
    assert settled(samples_of(tmp_path, rates)).verdict == "not measured"


def test_the_same_cell_of_other_records_is_another(tmp_path):
    samples = samples_of(tmp_path, {"predis-cuda columns": 12e6, "redis mget unix": 1e6})
    assert settled(samples.assign(records="airports")).verdict == "not measured"
    assert settled(samples.assign(workload="set")).verdict == "not measured"


def test_without_samples_nothing_is_measured(tmp_path):
    told = claims.settle(results.read_samples(tmp_path))
    assert {one.verdict for one in told} == {"not measured"} and len(told) == len(CLAIMS)
    assert claims.tally(told) == ""


def test_a_sentence_counts_them(tmp_path):
    samples = samples_of(tmp_path, {"predis-cuda columns": 12e6, "redis mget unix": 1e6})
    others = [Claim("get", 1000, "columns", "command", 1), Claim("get", 1000, "columns", "command", 30)]  # fmt: skip
    told = claims.settle(samples, [CLAIM, *others, Claim("set", 1, "lists", "command", 1)])
    assert claims.tally(told) == "Of 4 claims 2 hold, 1 fails, 1 was not measured."


def test_the_declared_claims_can_be_measured_by_notebook_06():
    ratios = [claim for claim in CLAIMS if isinstance(claim, Claim)]
    cells = {(c.workload, c.records, c.keys, c.face, c.way) for c in ratios}
    assert len(cells) == len(ratios)
    declared = [claim for claim in ratios if claim.records == claims.RECORDS]
    for claim in declared:
        assert claim.workload in ("get", "set") and claim.least >= 1
        assert claim.face in ("columns", "lists") and claim.way in ("command", "pipeline")
    recorded = results.reference_directory()
    told = claims.settle(results.read_samples(recorded), declared)
    assert all(one.verdict != "not measured" for one in told if one.claim.keys <= 10_000)


def scenario_samples(tmp_path, workload, records, keys, rates):
    run = results.Run.open(tmp_path / "run", notebook="t")
    generator = np.random.default_rng(3)
    params = {"records": records, "keys": keys, "value_nbytes": 64}
    for system, rate in rates.items():
        for block in range(12):
            value = rate * np.exp(0.02 * generator.standard_normal())
            run.add_sample(system, workload, params, block, "throughput", value, "1/s")
    return run.frame()


@pytest.mark.parametrize(
    "claim", [c for c in CLAIMS if isinstance(c, Claim) and c.records != claims.RECORDS]
)
def test_claims_of_scenarios_are_settled_by_their_own_samples(tmp_path, claim):
    rates = {f"predis-cuda {claim.face}": claim.least * 1.2e6, "redis mget unix": 1e6}
    cell = claim.workload, claim.records, claim.keys
    samples = scenario_samples(tmp_path, *cell, rates)
    assert settled(samples, claim).verdict == "holds"
    assert settled(samples.assign(records="other"), claim).verdict == "not measured"
    better = {**rates, "redis pipeline tcp": 2e6}
    one = settled(scenario_samples(tmp_path, *cell, better), claim)
    # At its best Redis is asked by the pipeline, which is faster here.
    assert one.verdict == ("fails" if claim.way == "best" else "holds")


def level_samples(tmp_path, values, system="predis-cuda columns"):
    run = results.Run.open(tmp_path / "run", notebook="t")
    for block, value in enumerate(values):
        run.add_sample(system, "busy", {"batch": 1}, block, "gpu_utilisation", value, "1")
    run.add_sample("machine", "a/a", {}, -1, "noise_floor", 0.1, "1")
    return run.frame()


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.9] * 12 + [0.8] * 8, "holds"),
        ([0.9] * 5, "open"),  # too few to tell
        ([0.9, 0.6] * 10, "open"),
        ([0.5] * 20, "fails"),
        ([0.9], "not measured"),
    ],
)
def test_a_level_is_read_and_not_compared(tmp_path, values, verdict):
    level = Level("gpu_utilisation", 0.75)
    one = settled(level_samples(tmp_path, values), level)
    assert one.verdict == verdict
    there = Level("gpu_utilisation", 0.75, " on device")
    assert settled(level_samples(tmp_path / "a", values), there).verdict == "not measured"
    samples = level_samples(tmp_path / "b", values, "predis-cuda columns on device")
    assert settled(samples, there).verdict == verdict and there.figure != level.figure
    if verdict == "holds":
        assert one.ratio.value == pytest.approx(0.9) and one.delta == 1
        (row,) = claims.rows([one])
        assert row["least"] == "75%" and row["ratio"].startswith("90.0% [")
    samples = level_samples(tmp_path, values, "predis-host columns")
    assert settled(samples, level).verdict == "not measured"


def test_what_fails_is_shown(tmp_path):
    samples = samples_of(tmp_path, {"predis-cuda columns": 5e6, "redis mget unix": 1e6})
    page = show.claims(samples).data
    assert ">30x<" in page and page.count("fails") == 1
    assert page.count("not measured") == len(CLAIMS) - 1
    report = html.report_page(Facts.of(tmp_path / "run"))
    assert (
        f"Of {len(CLAIMS)} claims 1 fails, {len(CLAIMS) - 1} were not measured." in report
        and ">fails<" in report
    )
