"""Claims: nothing holds that samples don't show, and what fails is told."""

import numpy as np
import pytest

from predis_lab.bench import results
from predis_lab.report import claims, html, show
from predis_lab.report.claims import CLAIMS, Claim

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
    assert len({(c.workload, c.keys, c.face, c.way) for c in CLAIMS}) == len(CLAIMS)
    for claim in CLAIMS:
        assert claim.workload in ("get", "set") and claim.least >= 1
        assert claim.face in ("columns", "lists") and claim.way in ("command", "pipeline")
    recorded = results.reference_directory()
    told = claims.settle(results.read_samples(recorded))
    assert all(one.verdict != "not measured" for one in told if one.claim.keys <= 10_000)


def test_what_fails_is_shown(tmp_path):
    samples = samples_of(tmp_path, {"predis-cuda columns": 5e6, "redis mget unix": 1e6})
    page = show.claims(samples).data
    assert ">30x<" in page and page.count("fails") == 1
    assert page.count("not measured") == len(CLAIMS) - 1
    index = html.index_page(tmp_path / "run", [])
    assert "Of 15 claims 1 fails, 14 were not measured." in index and ">fails<" in index
