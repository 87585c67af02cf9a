"""Where rates stop growing as the keys of a call do, and what a call costs beside its keys."""

import numpy as np
import pytest

from predis_lab.report import scaling


def rates_of(rates, scatter=0.01):
    generator = np.random.default_rng(3)
    return {keys: rate * generator.normal(1, scatter, 12) for keys, rate in rates.items()}


def test_a_bend_is_where_the_rate_no_longer_grows_as_the_keys_do():
    found = scaling.steps(rates_of({1: 1e3, 10: 1e4, 100: 1e5, 1000: 1.5e5, 10_000: 1.5e5, 100_000: 5e4}))  # fmt: skip
    said = [step.said for step in found]
    assert said == ["linear", "linear", "bending", "level", "falling"]
    bend = scaling.bend(found)
    assert (bend.fewer, bend.more) == (100, 1000)
    assert bend.growth.value == pytest.approx(np.log10(1.5), abs=0.02)
    assert bend.growth.low < bend.growth.value < bend.growth.high


def test_no_bend_is_claimed_where_the_samples_show_none():
    found = scaling.steps(rates_of({1: 1e3, 10: 0.7e4, 20: 1.3e4}, scatter=0.5))
    assert scaling.bend(found) is None and {step.said for step in found} == {"unclear"}


def test_a_call_s_fixed_part_and_its_keys_balance_where_both_cost_the_same():
    fixed_s, key_s = 50e-6, 10e-9
    rates = {keys: keys / (fixed_s + keys * key_s) for keys in (1, 1000, 10_000_000)}
    cost = scaling.cost({keys: np.full(5, rate) for keys, rate in rates.items()})
    assert cost.balance == pytest.approx(fixed_s / key_s, rel=0.01)
