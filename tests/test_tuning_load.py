"""How calls from several threads are timed for notebook 03, without a GPU."""

import time
from types import SimpleNamespace

import pytest

from predis_lab.bench import tuning_load


@pytest.mark.parametrize("count", [1, 3])
def test_calls_that_end_too_late_are_felt_all_the_same(count):
    """A call that waits for its turn until the block is over takes as long as it takes."""
    asked = []

    def ask(one):
        asked.append(one)
        time.sleep(0.05)

    latencies = tuning_load._together(ask, range(9), count, 0.02)
    assert len(latencies) == len(asked) == count and latencies.min() >= 0.05


def test_the_last_call_alone_ends_after_the_block(monkeypatch):
    clock = SimpleNamespace(now=1.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr(tuning_load, "time", clock)

    def ask(seconds):
        clock.now += seconds

    latencies = tuning_load._together(ask, [0.25, 0.5, 0.125], 1, 1.0)
    assert latencies.tolist() == [0.25, 0.5, 0.125, 0.25]
