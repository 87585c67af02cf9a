"""One notebook in a process of its own, with a log and a time limit. Called by `nightly`."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import threading
import time
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil

from . import runner
from .runner import log_of

# A kernel looks for its parent once a second; servers see their kernel's end, and clear up behind them.
CLEAR_UP_SECONDS = 5.0


def run_apart(job: runner.Job, directory: Path, limit_s: float) -> runner.Outcome:
    """What became of a notebook, whatever became of its process; that process is gone when this returns.

    What the process and the notebook's kernel write, and the traceback of a failure, is added to the run's
    log of that notebook. One that takes longer than `limit_s` is ended, and kept as far as it was saved.
    """
    log = log_of(directory, job.notebook.stem)
    log.parent.mkdir(exist_ok=True)
    _say(log, f"{job.notebook.stem} begins")
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_in_child, args=(job, directory, log, sender))
    began = time.monotonic()
    process.start()
    sender.close()
    try:
        if receiver.poll(limit_s):
            return receiver.recv()
        error = f"took longer than the limit of {limit_s:g} s"
    except (EOFError, OSError):  # closed, perhaps in the middle of a message
        process.join()
        error = f"its process died with exit code {process.exitcode}"
    finally:
        receiver.close()
        _end(process)
    _say(log, error)
    _keep_if_whole(directory / job.notebook.name)
    return runner.Outcome(job.notebook.stem, time.monotonic() - began, error)


def _say(log: Path, text: str) -> None:
    with log.open("a") as file:
        file.write(f"== {datetime.now(UTC).isoformat(timespec='seconds')} {text}\n")


def _keep_if_whole(notebook: Path) -> None:
    """Tidies what a process that was ended has left, and removes it where it was being written just then."""
    try:
        runner.tidy(notebook)
    except Exception:  # noqa: BLE001 - half a file is wrong in ways of its own
        notebook.unlink()


def _end(process: BaseProcess) -> None:
    """Ends the process; its kernel sees that and ends too. What is left after a while is ended by force."""
    started: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        started = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.join()
    _, left = psutil.wait_procs(started, CLEAR_UP_SECONDS)
    _kill(left)


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _in_child(job: runner.Job, directory: Path, log: Path, sender: Connection) -> None:
    """Runs the notebook, all output into the log; the kernel inherits that, and so do crashes in it."""
    os.setsid()  # Ctrl-C is for the process that started this one
    os.environ["PYTHONFAULTHANDLER"] = "1"  # the kernel says where it crashed
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with log.open("a", buffering=1) as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
        sender.send(runner.run(job, directory, log=file))


def _end_with_parent() -> None:
    """Ends this process and its kernel when the process that started it ends in whatever way."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    _kill(psutil.Process().children())
    os._exit(1)
