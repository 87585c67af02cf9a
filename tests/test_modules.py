"""Compiled modules: kept on disk, whatever becomes of the disk, and launched in as many blocks as the device holds."""

import os
import subprocess
import sys

import pytest

from predis_lab import Predis
from predis_lab.gpu import source

try:
    from predis_lab.gpu import table
except ImportError:  # every test here then skips with this as its reason, see conftest
    table = None

pytestmark = pytest.mark.gpu
MODULE = "limits"  # the smallest to compile
ROOM = ("MIN_BLOCKS=1",)  # a definition that makes a module of its own


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """`predis_lab.gpu.modules` with nothing compiled yet and a cache directory of its own."""
    from predis_lab.gpu import modules

    def forget():
        modules._module.cache_clear()
        modules._function.cache_clear()

    monkeypatch.setenv("PREDIS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(modules, "_reports", [])
    modules.forget = forget
    forget()
    yield modules
    forget()


def load(modules, defines=()):
    """The report of loading the module as a new process would."""
    modules.forget()
    modules.function(MODULE, "empty", defines)((1,), (32,), ())
    return modules.compile_reports()[-1]


def stored():
    return sorted(file.name for file in _directory().iterdir())


def _directory():
    from predis_lab.gpu import modules

    return modules.cache_directory()


def test_a_module_is_compiled_once(modules):
    assert modules.compile_reports() == []
    first = load(modules)
    assert (first.module, first.defines, first.cached) == (MODULE, (), False)
    assert first.seconds > 0
    (file,) = stored()
    again = load(modules)
    assert again.cached and again.arch == first.arch
    assert stored() == [file]
    assert modules.module(MODULE) is modules.module(MODULE)
    assert len(modules.compile_reports()) == 2


def test_a_cache_has_its_kernels_when_it_is_made(modules):
    with Predis("8MiB", backend="cuda") as cache:
        loaded = modules.compile_reports()
        assert {report.module for report in loaded} == {*table.MODULES, "doorbell"}
        keys = [b"%d" % i for i in range(1000)]
        for _ in range(20):
            cache.insert(keys, [bytes(i) for i in range(1000)])
        cache.delete(*keys[::2]), cache.expire(keys[1], 5), cache.compact(), list(cache.scan_iter())
        assert cache.mget(keys)[3] == bytes(3)
        assert modules.compile_reports() == loaded


def test_a_second_process_starts_without_compiling(modules):
    load(modules)
    code = (
        "from predis_lab.gpu import limits, modules\n"
        "limits.empty()\n"
        "print([(report.module, report.cached) for report in modules.compile_reports()])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=dict(os.environ), capture_output=True, text=True
    )
    assert result.stdout.strip() == f"[({MODULE!r}, True)]", result.stderr


def test_what_goes_into_a_module_makes_its_name(modules, monkeypatch):
    load(modules)
    assert not load(modules, ROOM).cached
    assert len(stored()) == 2
    text = source.read_source(MODULE)
    monkeypatch.setattr(source, "read_source", lambda module: text + "\n// changed\n")
    assert not load(modules).cached
    assert len(stored()) == 3
    monkeypatch.undo()


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b""])
def test_a_damaged_file_is_compiled_again(modules, damage):
    load(modules)
    (file,) = _directory().iterdir()
    whole = file.read_bytes()
    file.unlink()  # a library in use is not to be written over
    file.write_bytes(damage(whole))
    assert not load(modules).cached
    assert load(modules).cached
    assert all(modules._stored(_directory(), name.split("-")[0]) for name in stored())


@pytest.mark.parametrize("obstacle", ["a file in its place", "a file above it"])
def test_without_a_directory_each_process_compiles(modules, monkeypatch, tmp_path, obstacle):
    file = tmp_path / "file"
    file.touch()
    directory = file if obstacle == "a file in its place" else file / "below"
    monkeypatch.setenv("PREDIS_CACHE_DIR", str(directory))
    assert not load(modules).cached
    assert not load(modules).cached
    assert file.read_bytes() == b""


def test_an_unreadable_entry_is_passed_over(modules):
    load(modules)
    (file,) = _directory().iterdir()
    file.unlink()
    file.mkdir()
    assert not load(modules).cached


def test_where_modules_are_kept(modules, monkeypatch, tmp_path):
    assert modules.cache_directory() == tmp_path / "cache"
    monkeypatch.delenv("PREDIS_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert modules.cache_directory() == tmp_path / "predis"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert modules.cache_directory() == tmp_path / ".cache" / "predis"


@pytest.mark.parametrize(
    ("module", "kernel"), [("find", "find"), ("insert", "publish"), ("erase", "erase")]
)
def test_the_driver_counts_as_many_resident_blocks(module, kernel):
    import cupy

    from predis_lab.gpu import modules

    compiled = modules.function(module, kernel)
    resident = cupy.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(
        compiled.kernel.ptr, compiled.max_threads_per_block, 0
    )
    assert compiled.max_threads_per_block == modules.block_threads()
    assert modules.occupancy_of(compiled).blocks == resident > 0
    assert modules.resident_blocks(compiled) == resident * modules.multiprocessors()
