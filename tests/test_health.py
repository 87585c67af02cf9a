"""Waiting with an end, and the lock that is left meanwhile. No device is needed: anything can be awaited."""

import threading
import time

import pytest

from predis_lab.errors import DeviceTimeout
from predis_lab.gpu.health import Health


class Work:
    """Done after some queries, or when a test says so."""

    def __init__(self, queries=10**9):
        self.left = queries

    @property
    def done(self):
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("queries", [0, 1, 19, 20, 21, 499, 500, 501])
def test_what_ends_is_waited_for(queries):
    for brief in (False, True):
        health, work = Health(60), Work(queries)
        health.wait(work, "a lookup", brief=brief)
        assert work.left < 0 and health.stuck is None
        health.check()


def test_what_does_not_end_is_given_up_and_remembered():
    health, work = Health(0.05), Work()
    began = time.monotonic()
    with pytest.raises(DeviceTimeout, match=r"not finished a lookup within 0\.05 s"):
        health.wait(work, "a lookup")
    assert 0.05 <= time.monotonic() - began < 5
    health.kept.append(object())
    for _ in range(3):
        with pytest.raises(DeviceTimeout, match="still busy with a lookup"):
            health.check()
    work.left = 0
    health.check()
    assert health.stuck is None and not health.kept


def test_what_has_failed_is_not_waited_for():
    def check(awaited):
        raise ValueError(f"{awaited.left < 10**9} it has failed")

    began = time.monotonic()
    with pytest.raises(ValueError, match="True it has failed"):
        Health(60, check).wait(Work(), "a lookup")
    assert time.monotonic() - began < 5


def test_a_call_that_was_away_gets_its_turn_among_many_short_ones():
    """Between two of its steps another thread makes some dozen calls, not the thousand that the interpreter's turns take."""
    health, over = Health(60), threading.Event()
    lock, short = health.calls, 0

    def ring():
        nonlocal short
        while not over.is_set():
            with lock:
                until = time.perf_counter() + 5e-6
                while time.perf_counter() < until:
                    pass
            short += 1

    ringing = threading.Thread(target=ring)
    ringing.start()
    steps, before = 0, short
    with lock:
        while steps < 200:
            with health.unlocked():
                time.sleep(1e-4)
            steps += 1
        made = short - before
    assert not lock.away and not lock.waiting
    over.set()
    ringing.join()
    assert made < 200 * steps


def test_others_get_through_while_one_waits():
    health, work, order = Health(60), Work(), []

    def other():
        with health.lock:
            order.append("other")
            work.left = 0

    with health.lock:
        thread = threading.Thread(target=other)
        thread.start()
        health.wait(work, "a lookup")
        order.append("waiter")
    thread.join()
    assert order == ["other", "waiter"] and health.waited_s > 0


def test_a_lock_held_twice_is_not_left():
    """As while a batch is not sealed yet: the waiter keeps what it has."""
    health, work, seen = Health(0.1), Work(), []
    with health.lock, health.lock:
        thread = threading.Thread(target=lambda: seen.append(health.lock.acquire(timeout=0.01)))
        thread.start()
        with pytest.raises(DeviceTimeout):
            health.wait(work, "a write")
        thread.join()
    assert seen == [False]


def test_another_lock_is_not_waited_for_with_this_one_held():
    health, ring = Health(60), threading.Lock()
    ring.acquire()

    def let_go():
        with health.lock:  # would hang if the waiter kept it
            ring.release()

    with health.lock:
        thread = threading.Thread(target=let_go)
        thread.start()
        with health.holding(ring):
            assert ring.locked()
        assert not ring.locked()
    thread.join(5)
    assert not thread.is_alive()
