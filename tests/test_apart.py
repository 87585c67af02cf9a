"""One notebook in a process of its own: over its time, and ended while it is being saved."""

import time

import nbformat
import pytest
import tiny

from predis_lab.report import apart, runner


@pytest.mark.notebooks
def test_a_notebook_over_its_time_is_ended_with_all_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr(apart, "CLEAR_UP_SECONDS", 1.0)
    project = tiny.Project(tmp_path / "source")
    pids = tmp_path / "pids"
    project.add(
        "01_hangs",
        "print('so far')",
        "import os, subprocess, time\n"
        "sleeper = subprocess.Popen(['sleep', '600'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getppid()}} {{os.getpid()}} {{sleeper.pid}}')\n"
        "time.sleep(600)",
    )
    (job,) = runner.plan(project.notebooks, project.params, "smoke")
    began = time.monotonic()
    found = apart.run_apart(job, tmp_path, limit_s=10)
    assert time.monotonic() - began < 10 + apart.CLEAR_UP_SECONDS + 10
    assert found.error == "took longer than the limit of 10 s" and found.seconds >= 10
    assert found.error in (tmp_path / "logs" / "01_hangs.log").read_text()
    started = pids.read_text().split()
    assert len(started) == 3
    tiny.until(lambda: all(tiny.gone(int(pid)) for pid in started), 2)
    assert "so far" in (tmp_path / "01_hangs.ipynb").read_text()


def test_half_a_notebook_is_not_kept(tmp_path):
    half, whole = tmp_path / "half.ipynb", tmp_path / "whole.ipynb"
    half.write_text('{"cells": [')
    nbformat.write(tiny.notebook("1"), whole)
    for path in (half, whole, tmp_path / "never written.ipynb"):
        apart._keep_if_whole(path)
    assert not half.exists() and whole.exists()
