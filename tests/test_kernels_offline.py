"""The CUDA sources without a GPU: where they are found, that they compile, what they need, who launches them.

`pytest -rP tests/test_kernels_offline.py` prints registers, stack and spills of every kernel for every architecture.
"""

import ast
import dataclasses
import fcntl
import functools
import importlib.util
import os
import pickle
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from predis_lab.gpu import sizing, source
from predis_lab.gpu.occupancy import MULTIPROCESSORS, occupancy

HAS_COMPILER = (
    importlib.util.find_spec("cuda") is not None
    and importlib.util.find_spec("cuda.bindings") is not None
)
needs_compiler = pytest.mark.skipif(not HAS_COMPILER, reason="cuda-bindings is not installed")

MEASURED = 90  # sm_90: the architecture that figures are recorded on
GPU = Path(source.__file__).parent
CHECKOUT = Path(__file__).parents[1] / "kernels"
KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(([^)]*)\)")


@pytest.fixture(scope="session")
def compile_once(tmp_path_factory):
    """`source.compile_offline`, once for all workers of a run."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    (folder / "compiled").mkdir(exist_ok=True)

    @functools.cache
    def compile_once(module, arch):
        with (folder / "compiled" / f"{module}-{arch}").open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            stored = file.read()
            made = pickle.loads(stored) if stored else source.compile_offline(module, arch)
            if not stored:
                file.write(pickle.dumps(made))
        return made

    return compile_once


def test_the_list_of_long_values_is_as_long_as_the_host_takes_it_for():
    text = (source.kernels_directory() / "stretches.cuh").read_text()
    found = {name: int(value) for name, value in re.findall(r"#define (\w+) +(\d+)", text)}
    assert len(found) == 3 and all(getattr(sizing, name) == value for name, value in found.items())


def declared(module):
    """The kernels of a file, by name, with the text of their parameters; comments taken out."""
    text = (source.kernels_directory() / f"{module}.cu").read_text()
    return dict(KERNEL.findall(re.sub(r"//[^\n]*", "", text)))


def launched():
    """(module, kernel) of every launch in the Python code, one entry per place."""
    found = []
    for file in GPU.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and len(node.args) >= 2:
                called = getattr(node.func, "attr", getattr(node.func, "id", ""))
                first, second = (getattr(argument, "value", None) for argument in node.args[:2])
                if called in ("launch", "launch_packing", "function") and isinstance(first, str):
                    found.append((first, second))
    return found


def definitions(arch):
    """The numbers that kernels are compiled with for an architecture, by name."""
    options = source.options_for(MULTIPROCESSORS[arch])
    return {name: int(value) for name, value in re.findall(r"-D(\w+)=(\d+)", " ".join(options))}


KERNELS = [(module, kernel) for module in source.MODULES for kernel in declared(module)]
each_kernel = pytest.mark.parametrize(
    ("module", "kernel"), [pytest.param(*pair, id="/".join(pair)) for pair in KERNELS]
)


@pytest.fixture
def fresh():
    """Sources are read anew in this test, and after it."""

    def forget():
        source.kernels_directory.cache_clear()
        source.read_source.cache_clear()

    forget()
    yield
    forget()


@pytest.fixture
def kernels_at(tmp_path, monkeypatch, fresh):
    """Makes `source` believe that it lies in tmp_path/predis_lab, with these files where it looks for kernels."""

    def place(folder, **files):
        directory = tmp_path / folder
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (directory / name.replace("_cu", ".cu")).write_text(text)
        return directory

    monkeypatch.setattr(source, "_PACKAGE", tmp_path / "predis_lab")
    return place


# ---- Where sources come from


def test_every_file_is_a_module():
    files = {file.stem for file in source.kernels_directory().glob("*.cu")}
    assert files == set(source.MODULES)


@pytest.mark.parametrize("folder", ["kernels", "predis_lab/kernels"])
def test_kernels_are_found_in_a_checkout_and_in_an_installed_package(kernels_at, folder):
    directory = kernels_at(folder)
    for file in CHECKOUT.glob("*.cu*"):
        shutil.copy(file, directory)
    assert source.kernels_directory() == directory
    own = (CHECKOUT / "find.cu").read_text().rpartition('#include "')[2].partition("\n")[2]
    assert own and source.read_source("find").endswith(own)


def test_an_installation_without_kernels_says_so(kernels_at):
    with pytest.raises(FileNotFoundError, match=r"no kernels beside .*installation is incomplete"):
        source.kernels_directory()
    with pytest.raises(FileNotFoundError, match="installation is incomplete"):
        source.read_source("find")


@pytest.mark.parametrize("module", source.MODULES)
def test_headers_stand_in_the_text_once(module):
    text = source.read_source(module)
    assert '#include "' not in text
    included, waiting = set(), [f"{module}.cu"]
    while waiting:
        file = (source.kernels_directory() / waiting.pop()).read_text()
        for name in re.findall(r'#include "([^"]+)"', file):
            if name not in included:
                included.add(name)
                waiting.append(name)
    files = [
        (source.kernels_directory() / name).read_text() for name in included | {f"{module}.cu"}
    ]
    for file in files:
        own = [
            line
            for line in file.splitlines()
            if len(line) > 40 and not line.startswith(("#include", "//"))
        ]
        assert own and all(
            text.count(line) == sum(other.count(line) for other in files) for line in own[:3]
        )


def test_a_header_that_two_headers_need_comes_once_and_first(kernels_at):
    kernels_at(
        "kernels",
        common_cuh="int common;\n",
        a_cuh='#include "common.cuh"\nint a;\n',
        b_cuh='#include "common.cuh"\nint b;\n',
        find_cu='#include "a.cuh"\n#include "b.cuh"\nint find;\n',
    )
    text = source.read_source("find")
    assert re.findall(r"int (\w+);", text) == ["common", "a", "b", "find"]


def test_a_changed_header_changes_the_text(kernels_at):
    kernels_at("kernels", common_cuh="int x = 1;\n", find_cu='#include "common.cuh"\n')
    before = source.read_source("find")
    kernels_at("kernels", common_cuh="int x = 2;\n")
    source.read_source.cache_clear()
    assert source.read_source("find") != before


# ---- Options


def test_what_kernels_are_compiled_with(monkeypatch):
    monkeypatch.setattr(source, "RESIDENT_SHARE", {"FIND_BLOCKS": 0.75, "MIN_BLOCKS": 0.5})
    assert source.options_for(MULTIPROCESSORS[90]) == (
        "-std=c++17", "-DTILE=128", f"-DROWS_PER_THREAD={source.ROWS_PER_THREAD}", "-DFIND_BLOCKS=12", "-DMIN_BLOCKS=8",
    )  # fmt: skip
    assert definitions(75)["FIND_BLOCKS"] == 6
    assert definitions(86)["FIND_BLOCKS"] == 9
    assert definitions(120)["MIN_BLOCKS"] == 6


def test_a_definition_takes_the_place_of_ours():
    options = source.options_for(MULTIPROCESSORS[90], ("TILE=256", "RUNG=3", "PLAIN"))
    assert [option for option in options if "TILE" in option] == ["-DTILE=256"]
    assert options[-2:] == ("-DRUNG=3", "-DPLAIN=")


@pytest.mark.parametrize("arch", source.ARCHITECTURES, ids="sm_{}".format)
def test_blocks_fill_a_multiprocessor(arch):
    multiprocessor = MULTIPROCESSORS[arch]
    assert source.block_size(multiprocessor) == source.TILE
    assert occupancy(multiprocessor, 32, 0, source.TILE).share == 1
    for name, value in definitions(arch).items():
        if name.endswith("_BLOCKS"):
            assert 0 < value * source.TILE <= multiprocessor.max_threads, name


def test_larger_blocks_where_few_would_not_fill():
    few = dataclasses.replace(MULTIPROCESSORS[90], max_blocks=12)
    assert source.block_size(few) == 256
    assert "-DTILE=256" in source.options_for(few)


# ---- Compilation


@needs_compiler
@pytest.mark.parametrize("arch", source.ARCHITECTURES, ids="sm_{}".format)
@pytest.mark.parametrize("module", source.MODULES)
def test_a_file_compiles(module, arch, record_property, compile_once):
    cubin, resources = compile_once(module, arch)
    assert cubin.startswith(b"\x7fELF")
    assert {entry.kernel for entry in resources} == set(declared(module))
    print(f"{'kernel':<22}{'arch':>7}{'registers':>11}{'shared B':>10}{'stack B':>9}{'spill B':>9}")
    for entry in sorted(resources, key=lambda entry: entry.kernel):
        numbers = entry.registers, entry.shared_nbytes, entry.stack_nbytes, entry.spill_nbytes
        name = f"{module}/{entry.kernel}"
        print("{:<22}{:>7}{:>11}{:>10}{:>9}{:>9}".format(name, f"sm_{arch}", *numbers))
        record_property(
            f"{name} sm_{arch}", "registers {} shared {} stack {} spill {}".format(*numbers)
        )
        assert 0 < entry.registers <= 65536 // source.TILE
        assert entry.shared_nbytes <= 48 * 1024  # what a launch gets without asking


@needs_compiler
@pytest.mark.parametrize("arch", source.ARCHITECTURES, ids="sm_{}".format)
@each_kernel
def test_as_many_blocks_reside_as_a_kernel_promises(module, kernel, arch, compile_once):
    text = (source.kernels_directory() / f"{module}.cu").read_text()
    promise = re.search(rf"__launch_bounds__\(TILE, (\w+)\) {kernel}\(", text)
    _, resources = compile_once(module, arch)
    (entry,) = [entry for entry in resources if entry.kernel == kernel]
    found = occupancy(MULTIPROCESSORS[arch], entry.registers, entry.shared_nbytes, source.TILE)
    least = {"1": 1} | definitions(arch)
    # Where shared memory has room for fewer, registers were capped in vain.
    assert found.blocks >= (least[promise[1]] if promise else 1), found


@needs_compiler
@each_kernel
def test_a_kernel_keeps_its_registers(module, kernel, compile_once):
    _, resources = compile_once(module, MEASURED)
    (entry,) = [entry for entry in resources if entry.kernel == kernel]
    assert entry.spill_nbytes == 0, (
        f"{kernel} spills {entry.spill_nbytes} B a thread at sm_{MEASURED}, "
        f"with {entry.registers} registers and {entry.stack_nbytes} B of stack"
    )


def loads_of(module):
    """The kinds of loads from memory that others can write to, in a module's intermediate code, without their types."""
    from cuda.bindings import nvrtc

    text = source.read_source(module).encode()
    _, program = nvrtc.nvrtcCreateProgram(text, b"", 0, [], [])
    options = [*source.options_for(MULTIPROCESSORS[MEASURED]), f"--gpu-architecture=compute_{MEASURED}"]  # fmt: skip
    nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
    code = source._fetch(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program).decode()
    kind = r"\b(ld(?:\.(?!shared|param|local)[a-z]+)*)(?:\.v[24])?\.[usbf]\d+\b"
    return Counter(re.findall(kind, code))


@needs_compiler
def test_a_block_that_stays_reads_nothing_through_a_cache_that_may_be_stale():
    loads = loads_of("doorbell")
    assert loads["ld.global.cv"] >= 4 and loads["ld.global.cg"] > 50  # the host's, and the device's
    fresh = {"ld.global.cv", "ld.global.cg", "ld.volatile", "ld.volatile.global"}
    # What a thread itself has written: where its record lies.
    assert loads.total() - sum(loads[kind] for kind in fresh) == loads["ld.global"] == 1, loads
    assert loads_of("find")["ld.global.nc"] > 50  # where columns lie still


@needs_compiler
def test_a_refused_kernel_shows_the_log(kernels_at):
    kernels_at("kernels", common_cuh="", find_cu="this is no CUDA;\n")
    with pytest.raises(source.CompilationError, match=r"(?s)find\.cu for sm_80.*error"):
        source.compile_offline("find", 80)


def test_what_the_assembler_says_is_read():
    log = """
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'one' for 'sm_90'
ptxas info    : Function properties for one
    8 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 48 registers, used 1 barriers, 8 bytes cumulative stack size, 2064 bytes smem
ptxas info    : Compiling entry function 'two' for 'sm_90'
ptxas info    : Function properties for two
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 5 registers, used 0 barriers
"""
    assert source.parse_resources("m", 90, log) == [
        source.Resources("m", "one", 90, 48, 2064, 8, 28),
        source.Resources("m", "two", 90, 5, 0, 0, 0),
    ]
    assert source.parse_resources("m", 90, "") == []


# ---- Launches


def test_every_kernel_has_exactly_one_typed_launch():
    assert Counter(launched()) == Counter(KERNELS)


@each_kernel
def test_kernels_take_what_a_python_int_becomes(module, kernel):
    text = declared(module)[kernel].strip()
    for parameter in filter(None, map(str.strip, text.split(","))):
        assert "*" in parameter or re.match(r"(const )?[ui]64 \w+$", parameter), parameter
