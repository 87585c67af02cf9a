"""The lock that many threads take for calls of microseconds each: everybody gets a turn, and nobody is woken for each call."""

import threading
import time

import pytest

from predis_lab import turns
from predis_lab.gpu.health import Health
from predis_lab.turns import CallLock


def test_one_thread_may_hold_it_at_a_time():
    lock, inside, most = CallLock(), 0, 0

    def work():
        nonlocal inside, most
        for _ in range(300):
            with lock:
                inside += 1
                most = max(most, inside)
                time.sleep(0)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == 1 and inside == 0 and not lock.waiting


def test_all_get_their_turns():
    """While each of them makes one call after the other."""
    lock, over = CallLock(), threading.Event()
    calls = [0] * 6

    def work(number):
        while not over.is_set():
            with lock:
                until = time.perf_counter() + 5e-6
                while time.perf_counter() < until:
                    pass
            calls[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while min(calls) < 1000 and time.monotonic() < deadline:
        time.sleep(0.01)
    over.set()
    for thread in threads:
        thread.join(60)
    assert min(calls) >= 1000


def test_its_own_thread_may_take_it_again():
    lock = CallLock()
    with lock, lock.inner:
        assert lock.take(False)
        lock.give()


def test_who_is_interrupted_while_waiting_leaves_no_trace(monkeypatch):
    lock, taken, over = CallLock(), threading.Event(), threading.Event()

    def hold():
        with lock:
            taken.set()
            over.wait(60)

    holding = threading.Thread(target=hold)
    holding.start()
    taken.wait(60)

    class Interrupt:
        def acquire(self, *_):
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(turns, "_signal", Interrupt)
        with pytest.raises(KeyboardInterrupt):
            lock.wait()
    assert not lock.waiting
    waiting = threading.Thread(target=lambda: (lock.wait(), lock.give()))
    waiting.start()
    over.set()
    for thread in (holding, waiting):
        thread.join(60)
    assert lock.take(False) and not lock.waiting


def test_of_those_who_wait_the_first_alone_looks_again(monkeypatch):
    """The others sleep until they are woken, one after the other."""

    class Signal:
        def __init__(self):
            self.looks, self.lock = 0, threading.Lock()
            self.lock.acquire()
            self.release = self.lock.release
            signals.append(self)

        def acquire(self, *args):
            self.looks += 1
            return self.lock.acquire(*args)

    signals = []
    monkeypatch.setattr(turns, "_signal", Signal)
    monkeypatch.setattr(turns, "TURN_S", 600.0)
    lock, order = CallLock(), []

    def call(number):
        with lock:
            order.append(number)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(3)]
    deadline = time.monotonic() + 60
    with lock:
        for number, thread in enumerate(threads):
            thread.start()
            while len(lock.waiting) <= number and time.monotonic() < deadline:
                time.sleep(1e-4)
        while signals[0].looks < 20 and time.monotonic() < deadline:
            time.sleep(1e-3)
        looks = [signal.looks for signal in signals]
    assert looks[0] >= 20 and max(looks[1:]) <= 1
    for thread in threads:
        thread.join(60)
    assert order == [0, 1, 2] and not lock.waiting


def test_whose_turn_is_over_comes_after_those_who_wait(monkeypatch):
    """And who made a single call lets the first of them know."""
    monkeypatch.setattr(turns, "TURN_S", 2.0)
    lock, order, begun = CallLock(), [], threading.Event()

    def call(name, calls):
        begun.wait(60)
        for _ in range(calls):
            with lock:
                order.append(name)

    others = [threading.Thread(target=call, args=args) for args in (("b", 1), ("c", 1))]
    for thread in others:
        thread.start()
    with lock:
        begun.set()
        deadline = time.monotonic() + 60
        while len(lock.waiting) < 2 and time.monotonic() < deadline:
            time.sleep(1e-3)
        lock._begin_turn(threading.get_ident(), 2)
        lock._since -= 10
    assert sorted(order) == ["b", "c"]  # before anything else was done here
    for thread in others:
        thread.join(60)
    assert not lock.waiting and lock.take(False)


def test_who_leaves_the_lock_for_a_while_wakes_the_first():
    health, order = Health(60), []
    lock = health.calls

    def call():
        with lock:
            order.append("other")

    other = threading.Thread(target=call)
    with lock:
        other.start()
        deadline = time.monotonic() + 60
        while not lock.waiting and time.monotonic() < deadline:
            time.sleep(1e-3)
        # As if a turn had just begun: it would sleep until that is over.
        lock._begin_turn(threading.get_ident(), 2)
        with health.unlocked():
            other.join(60)
        assert order == ["other"]
