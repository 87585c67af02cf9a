"""Nights: what fails, dies, hangs or is killed in one, what is gone on with, what is compared, kept and removed."""

import doctest
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
import tiny

from predis_lab import cli
from predis_lab.bench import results
from predis_lab.report import nightly, runner

COMMIT = "0123456789ab"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Notebooks, and nights over them; a baseline is there and agrees."""
    monkeypatch.setattr(nightly, "describe_machine", lambda: {"commit": COMMIT})
    monkeypatch.setattr(nightly, "compare_with_baseline", lambda directory: True)

    class Nightly(tiny.Project):
        output = tmp_path / "outputs"

        def arguments(self, *options):
            folders = ["--source", str(self.root), "--output", str(self.output)]
            return ["nightly", "--profile", "smoke", *folders, *options]

        def night(self, *options):
            return cli.main(self.arguments(*options))

        def start(self):
            """A night in a process of its own, and where it writes."""
            return subprocess.Popen(
                [sys.executable, "-m", "predis_lab.cli", *self.arguments()],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=os.environ | {"PREDIS_COMMIT": COMMIT},
            )

        def runs(self):
            return nightly.nights(self.output)

        def past(self, name, *, age=timedelta(), **state):
            """A run of the notebooks 01 and 02 as a night would have left it."""
            directory = self.output / name
            directory.mkdir(parents=True)
            began = (datetime.now(UTC) - age).isoformat(timespec="seconds")
            notebooks = {"01_one": {"size": 2}, "02_two": {"size": 2}}
            kept = {"profile": "smoke", "commit": COMMIT, "notebooks": notebooks, "began": began}
            nightly.Night(directory, **kept | state).save()
            return directory

    return Nightly(tmp_path / "source")


@pytest.fixture
def fake(project, monkeypatch):
    """Notebooks 01 and 02, which are not executed: `fake.does` by name, and `fake.ran` says which ran."""

    class Fake:
        def __init__(self):
            self.ran, self.does = [], {}

        def run(self, job, directory, limit_s):
            self.ran.append(job.notebook.stem)
            error = self.does.get(job.notebook.stem, lambda: None)()
            return runner.Outcome(job.notebook.stem, 7.0, error)

    faked = Fake()
    for name in ("01_one", "02_two"):
        project.add(name)
    monkeypatch.setattr(nightly, "run_apart", faked.run)
    return faked


def outcome(name, seconds, error=None):
    return {name: runner.Outcome(name, seconds, error)}


# ---- Notebooks that fail, die and hang


@pytest.mark.notebooks
def test_a_night_outlives_what_its_notebooks_do(project, monkeypatch, capsys):
    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # kernels treat their descriptors otherwise there
    project.add("01_broken", "print('so far')", "raise ValueError('out of luck')")
    project.add(
        "02_kernel",
        "import ctypes\nnative = ctypes.PyDLL(None)",
        "native.write(2, b'last words', 10)\nnative.abort()",
    )
    project.add("03_process", "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\n")
    project.add(
        "04_goes_on",
        "import os\nprint('still here', size)",
        "print([os.readlink(f'/proc/{os.getppid()}/fd/{number}') for number in (1, 2)])",
    )
    assert project.night() == 1
    (night,) = project.runs()
    errors = {name: outcome.error for name, outcome in night.outcomes.items()}
    assert errors["01_broken"] == "ValueError: out of luck" and errors["04_goes_on"] is None
    assert "DeadKernelError" in errors["02_kernel"]
    assert errors["03_process"] == "its process died with exit code -9"

    logs = {log.stem: log.read_text() for log in (night.directory / "logs").iterdir()}
    assert set(logs) == set(errors)
    assert "so far" in logs["01_broken"] and "Traceback" in logs["01_broken"]
    assert (
        "raise ValueError('out of luck')" in logs["01_broken"] and "\x1b[" not in logs["01_broken"]
    )
    assert "last words" in logs["02_kernel"] and "Aborted" in logs["02_kernel"]
    assert "DeadKernelError" in logs["02_kernel"]
    assert errors["03_process"] in logs["03_process"]
    assert "still here 2" in logs["04_goes_on"] and "Traceback" not in logs["04_goes_on"]
    assert logs["04_goes_on"].count(str(night.directory / "logs" / "04_goes_on.log")) == 2
    index = (night.directory / "index.html").read_text()
    for name in errors:
        assert f'<a href="logs/{name}.log">{name}</a>' in index
    assert "so far" in (night.directory / "01_broken.html").read_text()
    assert "failed: ValueError: out of luck" in index and index.count("failed: ") == 3
    assert f"Report: {night.directory / 'index.html'}" in capsys.readouterr().out


# ---- Nights that are cut short


@pytest.mark.notebooks
def test_a_night_killed_outright_is_gone_on_with(project, tmp_path, monkeypatch, capsys):
    counts, hanging = tmp_path / "counts", tmp_path / "hanging"
    project.add("01_done", f"open({str(counts)!r}, 'a').write('x')")
    project.add(
        "02_half",
        "import os, time",
        f"if not os.path.exists({str(hanging)!r}):\n"
        f"    open({str(hanging)!r}, 'w').write(str(os.getpid()))\n"
        "    time.sleep(600)",
        "print('to the end')",
    )
    night = project.start()
    tiny.until(lambda: hanging.exists() and hanging.read_text())
    night.kill()
    night.communicate(timeout=20)
    (cut,) = project.runs()
    assert list(cut.outcomes) == ["01_done"] and cut.finished is None
    tiny.until(lambda: tiny.gone(int(hanging.read_text())), 10)

    monkeypatch.setattr(nightly, "describe_machine", lambda: {"commit": cut.commit})
    assert project.night() == 0
    (whole,) = project.runs()
    assert whole.directory == cut.directory and whole.began == cut.began and whole.finished
    assert counts.read_text() == "x"
    assert whole.outcomes["01_done"] == cut.outcomes["01_done"]
    assert "to the end" in (whole.directory / "02_half.html").read_text()
    assert (whole.directory / "01_done.html").exists()
    said = capsys.readouterr().out
    assert f"Process {night.pid}, which worked on {whole.directory}, is gone." in said
    assert "1 of 2 notebooks" in said and "[1/2] 01_done: done before" in said


@pytest.mark.notebooks
def test_sigterm_ends_a_night_and_its_kernel(project, tmp_path):
    hanging = tmp_path / "hanging"
    project.add(
        "01_hangs",
        f"import os, time\nopen({str(hanging)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)",
    )
    night = project.start()
    tiny.until(lambda: hanging.exists() and hanging.read_text())
    night.terminate()
    said, _ = night.communicate(timeout=20)
    assert night.returncode == 143 and "Stopped by SIGTERM" in said
    assert tiny.gone(int(hanging.read_text()))
    (cut,) = project.runs()
    assert cut.finished is None and not cut.outcomes


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_a_night_to_go_on_with(project, fake, capsys, number, code):
    handler = signal.getsignal(number)
    fake.does["02_two"] = lambda: os.kill(os.getpid(), number)
    assert project.night() == code and signal.getsignal(number) == handler
    assert f"Stopped by {number.name}" in capsys.readouterr().out
    (cut,) = project.runs()
    assert list(cut.outcomes) == ["01_one"] and cut.finished is None
    fake.does.clear()
    assert project.night() == 0
    said = capsys.readouterr().out
    assert fake.ran == ["01_one", "02_two", "02_two"] and "is gone" not in said
    (whole,) = project.runs()
    assert whole.directory == cut.directory and whole.finished


@pytest.mark.parametrize(
    ("state", "resumed"),
    [
        ({}, True),
        ({"age": timedelta(hours=23)}, True),
        ({"age": timedelta(hours=24, seconds=5)}, False),
        ({"commit": "another"}, False),
        ({"profile": "deep"}, False),
        ({"finished": "2026-01-01T00:00:00+00:00"}, False),
        ({"notebooks": {"01_one": {"size": 2}}}, False),
        ({"notebooks": {"01_one": {"size": 3}, "02_two": {"size": 2}}}, False),
    ],
    ids=str,
)
def test_what_is_gone_on_with(project, fake, capsys, state, resumed):
    past = project.past("past", **{"outcomes": outcome("01_one", 5.0)} | state)
    assert project.night() == 0
    assert fake.ran == (["02_two"] if resumed else ["01_one", "02_two"])
    assert (f"Going on with {past}" in capsys.readouterr().out) == resumed
    assert len(project.runs()) == 2 - resumed


def test_fresh_leaves_what_was_cut_short(project, fake):
    past = project.past("past", outcomes=outcome("01_one", 5.0))
    before = (past / nightly.STATE).read_bytes()
    assert project.night("--fresh") == 0
    assert fake.ran == ["01_one", "02_two"] and (past / nightly.STATE).read_bytes() == before


def test_nothing_is_gone_on_with_where_the_commit_is_not_known(project, fake, monkeypatch):
    monkeypatch.setattr(nightly, "describe_machine", lambda: {"commit": None})
    project.past("past", commit=None)
    assert project.night() == 0 and len(project.runs()) == 2


def test_changed_files_are_told(project, fake, monkeypatch, capsys):
    monkeypatch.setattr(nightly, "describe_machine", lambda: {"commit": f"{COMMIT}+"})
    project.past("past", commit=f"{COMMIT}+")
    assert project.night() == 0
    assert "whether they still differ alike is not checked" in capsys.readouterr().out


def test_a_state_is_written_whole_or_not_at_all(project, monkeypatch):
    directory = project.past("past")
    night = nightly.Night.read(directory)

    def cut(*_):
        raise OSError("killed here")

    night.outcomes |= outcome("01_one", 1.0)
    monkeypatch.setattr(nightly.os, "fsync", cut)
    with pytest.raises(OSError, match="killed here"):
        night.save()
    assert nightly.Night.read(directory).outcomes == {}


def test_two_at_once_are_refused(project, fake, capsys):
    past = project.past("past")
    holds = (
        "import sys, time\nfrom pathlib import Path\nfrom predis_lab.report import nightly\n"
        "with nightly.locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(600)"
    )
    other = subprocess.Popen([sys.executable, "-c", holds, past], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        assert project.night() == 2 and not fake.ran
        assert f"process {other.pid} works on {past}" in capsys.readouterr().err
        assert project.night("--fresh", "--keep", "1") == 0
        assert past.exists()  # what another works on is not removed
    finally:
        other.kill()
        other.communicate()
    assert project.night("--keep", "2") == 0
    assert f"Process {other.pid}, which worked on {past}, is gone." in capsys.readouterr().out


# ---- What a night says


@pytest.mark.parametrize(
    ("broken", "judged", "code"),
    [(None, True, 0), ("ValueError: no", True, 1), (None, False, 1), ("ValueError: no", False, 1)],
)
def test_exit_codes(project, fake, monkeypatch, broken, judged, code):
    compared = []
    fake.does["01_one"] = lambda: broken
    monkeypatch.setattr(
        nightly, "compare_with_baseline", lambda run: compared.append(run) or judged
    )
    assert project.night() == code
    (night,) = project.runs()
    assert compared == [night.directory] and night.finished and len(fake.ran) == 2


@pytest.mark.parametrize(("code", "well"), [(0, True), (1, False), (2, True)])
def test_only_a_confirmed_regression_is_a_failure(tmp_path, monkeypatch, code, well):
    monkeypatch.setattr(nightly.regressions, "compare_runs", lambda directory: code)
    assert nightly.compare_with_baseline(tmp_path) is well


def test_a_missing_baseline_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, "REFERENCE", tmp_path)
    results.Run.open(tmp_path / "r", notebook="01_one").save()
    assert nightly.compare_with_baseline(tmp_path / "r")
    assert "no recorded run to compare with" in capsys.readouterr().out


@pytest.mark.parametrize("step", ["compare_with_baseline", "_publish"])
def test_a_step_that_breaks_ends_the_night_in_order(project, fake, monkeypatch, capsys, step):
    monkeypatch.setattr(nightly, step, lambda *_: 1 // 0)
    assert project.night() == 1
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert project.runs()[0].finished


@pytest.mark.parametrize("wrong", ["profile", "output"])
def test_nothing_can_be_begun(project, fake, capsys, wrong):
    if wrong == "profile":
        code, said = project.night("--profile", "deep"), "no parameters for the profile 'deep'"
    else:
        project.output.write_text("no folder")
        code, said = project.night(), str(project.output)
    assert code == 2 and not fake.ran
    assert said in capsys.readouterr().err


def test_examples_hold():
    failed, attempted = doctest.testmod(nightly)
    assert attempted and not failed


def test_progress_goes_by_the_latest_finished_night(project, fake, capsys):
    hours = {name: timedelta(hours=int(name)) for name in ("30", "40", "50", "60")}
    both = outcome("01_one", 1200.0) | outcome("02_two", 600.0)
    project.past("60", age=hours["60"], finished="then", outcomes=outcome("01_one", 1.0))
    project.past("50", age=hours["50"], finished="then", outcomes=both)
    project.past("40", age=hours["40"], finished="then", outcomes={}, profile="deep")
    project.past("30", age=hours["30"], outcomes=outcome("01_one", 2.0))
    assert project.night() == 0
    said = capsys.readouterr().out.splitlines()
    assert "[1/2] 01_one: took 20 min last time, about 30 min left" in said
    assert "[1/2] 01_one: done, 7 s" in said
    assert "[2/2] 02_two: took 10 min last time, about 10 min left" in said


def test_time_left_is_unknown_where_a_notebook_never_took_its_course(project, fake, capsys):
    seconds = outcome("01_one", 60.0) | outcome("02_two", 3.0, "ValueError: early")
    project.past("past", age=timedelta(days=2), finished="then", outcomes=seconds)
    assert project.night() == 0
    said = capsys.readouterr().out
    assert (
        "[1/2] 01_one: took 60 s last time, time left unknown (nothing to go by for 1 of 2" in said
    )
    assert "[2/2] 02_two: time left unknown (nothing to go by for 1 of 1" in said


# ---- What is removed


def test_only_old_nights_are_removed(project, fake, monkeypatch):
    old = {
        n: project.past(f"night{n}", age=timedelta(days=n), finished="then") for n in range(2, 7)
    }
    for run in old.values():
        (run / "logs").mkdir()
        (run / "logs" / "01_one.log").write_text("")
        (run / "figures.json").write_text("{}")
    others = [project.output / name for name in ("report", "precious", "link", "torn", "file")]
    others[0].mkdir()
    old[6].rename(others[1])  # named by someone, so wanted
    elsewhere = project.past("../link", age=timedelta(days=9), finished="then")
    others[2].symlink_to(elsewhere)
    others[3].mkdir()
    (others[3] / nightly.STATE).write_text('{"directory": "torn"')
    others[4].write_text("")
    monkeypatch.setattr(nightly, "REFERENCE", old[5])
    assert project.night("--keep", "3") == 0
    assert {n for n, run in old.items() if run.exists()} == {2, 3, 5}
    assert all(other.exists() for other in others) and (elsewhere / nightly.STATE).exists()
    assert len(project.runs()) == 4 and fake.ran  # this one, 2 and 3, and the reference


def test_the_run_in_progress_stays(project, fake, capsys):
    past = project.past("later", age=-timedelta(days=1), finished="then")
    assert project.night("--keep", "1") == 0
    assert past.exists() and len(project.runs()) == 2 and "Kept" not in capsys.readouterr().out


def test_a_removal_cut_short_is_known_for_what_it_is(project, monkeypatch):
    directory = project.past("past")
    (directory / "figures.json").write_text("{}")
    monkeypatch.setattr(nightly.shutil, "rmtree", lambda *_: None)
    nightly._remove(directory)
    assert [path.name for path in directory.iterdir()] == [nightly.STATE]


@pytest.mark.parametrize("option", ["--keep", "--limit"])
def test_at_least_one_stays_and_has_time(project, option):
    with pytest.raises(SystemExit) as ended:
        project.night(option, "0")
    assert ended.value.code == 2 and not project.output.exists()
