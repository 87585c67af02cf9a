"""The lock that many threads take for calls of microseconds each: everybody gets a turn, and nobody is woken for each call."""

import threading
import time

import pytest

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


def test_who_is_interrupted_while_waiting_leaves_no_trace():
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

    napping, lock._over = lock._over, Interrupt()
    with pytest.raises(KeyboardInterrupt):
        lock.wait()
    assert not lock.waiting
    lock._over = napping
    waiting = threading.Thread(target=lambda: (lock.wait(), lock.give()))
    waiting.start()
    over.set()
    for thread in (holding, waiting):
        thread.join(60)
    assert lock.take(False) and not lock.waiting
