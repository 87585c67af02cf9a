"""The machine's C++ compiler in place of NVRTC: what it makes of CUDA sources is a shared library."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

_HEADERS = Path(__file__).parent.parent.parent


def compile_using_nvrtc(
    source: str, options: tuple[str, ...] = (), filename: str = "kern.cu"
) -> tuple[bytes, None]:
    macros = [option for option in options if option.startswith("-D")]
    with tempfile.TemporaryDirectory(prefix="predis-emulated-") as directory:
        Path(directory, "module.cpp").write_text(f'#include "cuda.h"\n{source}')
        subprocess.run(
            # No aliasing rules and no builtins: CUDA has names of its own for much of C's library. No unique symbols: what is
            # static in one module is another variable in the next. A misaligned address ends the process, as on a device the
            # context.
            ["g++", "-std=c++20", "-O1", "-w", "-fno-strict-aliasing", "-fno-builtin", "-fno-gnu-unique", "-fPIC", "-shared",
             "-fsanitize=alignment", "-fsanitize-undefined-trap-on-error",
             "-Wl,-Bsymbolic", f"-I{_HEADERS}", *macros, "module.cpp", "-o", "module.so"],
            cwd=directory, check=True,
        )  # fmt: skip
        return Path(directory, "module.so").read_bytes(), None
