"""A night: all notebooks of a profile into one run folder, which survives what happens at night. Called by `cli`.

    outputs/<run>/nightly.json   what was begun and what is done; written after each notebook, all or nothing
    outputs/<run>/nightly.lock   held, and names its process, while one works on the run
    outputs/<run>/logs/*.log     what each notebook's process wrote

A night that was cut short is gone on with; what was half-done runs again from its start.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

from ..bench import regressions
from ..bench.environment import describe_machine
from ..bench.results import REFERENCE, new_run_id
from . import runner
from .apart import run_apart

STATE = "nightly.json"
LOCK = "nightly.lock"
RESUMABLE = timedelta(days=1)


class Busy(RuntimeError):  # noqa: N818 - named for what is wrong
    """A run that another process works on."""


class Stopped(BaseException):
    """A signal that asks to end; no handler of errors may take it for one."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass
class Night:
    """The state of one nightly run, as its folder keeps it. `notebooks`: their parameters by name, in order."""

    directory: Path
    profile: str
    commit: str | None
    notebooks: dict[str, dict[str, Any]]
    began: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    finished: str | None = None
    outcomes: dict[str, runner.Outcome] = field(default_factory=dict)

    def save(self) -> None:
        """Writes the state so that a kill leaves either the old one or the new one."""
        content = asdict(self) | {"directory": self.directory.name}
        temporary = self.directory / f".{STATE}"
        with temporary.open("w") as file:
            file.write(json.dumps(content, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.directory / STATE)

    @classmethod
    def read(cls, directory: Path) -> Night | None:
        """The state in a folder that a night made; None for any other, a copy under another name too."""
        try:
            content = json.loads((directory / STATE).read_text())
            if directory.is_symlink() or content["directory"] != directory.name:
                return None
            outcomes = {k: runner.Outcome(**v) for k, v in content["outcomes"].items()}
            return cls(**content | {"directory": directory, "outcomes": outcomes})
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def open_to(self, other: Night) -> bool:
        """Whether what `other` is about to begin was begun here and cut short, less than a day ago."""
        wanted = (other.profile, other.commit, other.notebooks)
        age = datetime.fromisoformat(other.began) - datetime.fromisoformat(self.began)
        return (
            self.finished is None
            and self.commit is not None
            and (self.profile, self.commit, self.notebooks) == wanted
            and age < RESUMABLE
        )


def nights(output: Path) -> list[Night]:
    """The nightly runs in a folder of runs, the newest first."""
    found = [Night.read(path) for path in output.iterdir()] if output.is_dir() else []
    return sorted(
        (night for night in found if night), key=lambda n: (n.began, n.directory), reverse=True
    )


def nightly(
    jobs: list[runner.Job], output: Path, profile: str, *, fresh: bool, keep: int, limit_s: float
) -> int:
    """Runs or goes on with a night.

    fresh:    begins anew where a night could be gone on with
    keep:     how many nightly runs stay, this one among them
    limit_s:  seconds that one notebook may take

    Returns 0 where all is well, 1 where a notebook failed or a regression is confirmed, 2 where nothing could
    be begun, 128 and the signal's number where one ended it.
    """
    try:
        with _signals_as_exceptions(), contextlib.ExitStack() as held:
            try:
                night = _begin(jobs, output, profile, fresh, held)
            except (Busy, OSError) as error:
                print(f"predis-lab: {error}", file=sys.stderr)
                return 2
            return _go_through(night, jobs, keep, limit_s)
    except Stopped as stopped:
        name = signal.Signals(stopped.number).name
        print(f"Stopped by {name}. What is done is kept, and the same command goes on with it.")
        return 128 + stopped.number


@contextlib.contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """Ctrl-C and SIGTERM raise Stopped, once: what follows clears up, and a second one must not cut that short."""
    numbers = (signal.SIGINT, signal.SIGTERM)

    def stop(number: int, _: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _begin(
    jobs: list[runner.Job], output: Path, profile: str, fresh: bool, held: contextlib.ExitStack
) -> Night:
    """A night that was cut short, or a new one; its lock is `held`. Raises Busy or OSError."""
    notebooks = {job.notebook.stem: job.parameters for job in jobs}
    new = Night(
        output / new_run_id(),
        profile,
        describe_machine()["commit"],
        json.loads(json.dumps(notebooks, default=str)),  # as it will be read
    )
    for night in [] if fresh else nights(output):
        if night.open_to(new):
            dead = held.enter_context(locked(night.directory))
            found = Night.read(night.directory)
            if found and found.finished is None:  # still, now that nobody else can finish it
                _say_resumed(found, dead)
                return found
    new.directory.mkdir(parents=True)
    held.enter_context(locked(new.directory))
    new.save()
    print(f"A new run: {new.directory}", flush=True)
    return new


def _say_resumed(night: Night, dead: str) -> None:
    if dead:
        print(f"Process {dead}, which worked on {night.directory}, is gone.")
    done, of = len(night.outcomes), len(night.notebooks)
    print(
        f"Going on with {night.directory} of {night.began}: "
        f"{done} of {of} notebooks at commit {night.commit} are done."
    )
    if str(night.commit).endswith("+"):
        print("Files differ from that commit; whether they still differ alike is not checked.")
    sys.stdout.flush()


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[str]:
    """Holds a run; yields the id of the process that held it and died, or "". Raises Busy where it is held.

    The system lets go of the lock of a process that ends in whatever way; its id stays in the file.
    """
    with (directory / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "that has just begun"
            raise Busy(f"process {owner} works on {directory}: wait, or stop it first") from None
        file.seek(0)
        dead = file.read().strip()
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield dead
        finally:
            file.truncate(0)


def _go_through(night: Night, jobs: list[runner.Job], keep: int, limit_s: float) -> int:
    output = night.directory.parent
    seconds = last_seconds(output, night.profile)
    left = [job.notebook.stem for job in jobs if job.notebook.stem not in night.outcomes]
    for number, job in enumerate(jobs, 1):
        name, at = job.notebook.stem, f"[{number}/{len(jobs)}] {job.notebook.stem}"
        if name in night.outcomes:
            print(f"{at}: done before")
            continue
        last = f"took {duration(seconds[name])} last time, " if name in seconds else ""
        print(f"{at}: {last}{time_left(left, seconds)}", flush=True)
        outcome = run_apart(job, night.directory.resolve(), limit_s)
        night.outcomes[name] = outcome
        night.save()
        left.remove(name)
        print(f"{at}: {outcome.error or 'done'}, {duration(outcome.seconds)}", flush=True)
    outcomes = [night.outcomes[job.notebook.stem] for job in jobs]
    published = _survived(lambda: _publish(night.directory.resolve(), outcomes))
    judged = _survived(lambda: compare_with_baseline(night.directory.resolve()))
    night.finished = datetime.now(UTC).isoformat(timespec="seconds")
    night.save()
    prune(output, keep, night)
    return int(any(outcome.error for outcome in outcomes) or not published or not judged)


def _publish(directory: Path, outcomes: list[runner.Outcome]) -> bool:
    print(f"Report: {runner.publish(directory, outcomes)}", flush=True)
    return True


def _survived(step: Callable[[], bool]) -> bool:
    """What a step says, or False where it broke: the night ends in order, or the next one would go on with it."""
    try:
        return step()
    except Exception:  # noqa: BLE001 - see above
        traceback.print_exc()
        return False


def compare_with_baseline(directory: Path) -> bool:
    """False where a regression against the recorded run is confirmed; it says where there is none to compare with."""
    return regressions.compare_runs(directory) != 1


def last_seconds(output: Path, profile: str) -> dict[str, float]:
    """How long each notebook took in the latest finished night of a profile, for those that went well."""
    for night in nights(output):
        if night.profile == profile and night.finished:
            return {name: o.seconds for name, o in night.outcomes.items() if not o.error}
    return {}


def time_left(names: list[str], seconds: dict[str, float]) -> str:
    """What the notebooks still to run will take, by how long they took; it says so where that is not known.

    >>> time_left(["01_one", "02_two"], {"01_one": 65.0, "02_two": 3600.0})
    'about 61 min left'
    >>> time_left(["01_one", "02_two", "03_three"], {"01_one": 65.0})
    'time left unknown (nothing to go by for 2 of 3 notebooks)'
    """
    unknown = sum(name not in seconds for name in names)
    if unknown:
        return f"time left unknown (nothing to go by for {unknown} of {len(names)} notebooks)"
    return f"about {duration(sum(seconds[name] for name in names))} left"


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(89), duration(600), duration(7500)
    ('89 s', '10 min', '2 h 05 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def prune(output: Path, keep: int, current: Night) -> None:
    """Removes the oldest nightly runs beyond `keep`; none that is worked on, and nothing that no night made."""
    for night in nights(output)[keep:]:
        directory = night.directory
        if directory == current.directory or directory.resolve().is_relative_to(REFERENCE):
            continue
        try:
            with locked(directory):
                _remove(directory)
            print(f"Removed {directory}, older than the {keep} runs that are kept.")
        except (Busy, OSError) as error:
            print(f"Kept {directory}: {error}")


def _remove(directory: Path) -> None:
    """Removes a run, its state last: one that is cut short here is still known for what it is."""
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in (STATE, LOCK):
            path.unlink()
    shutil.rmtree(directory)
