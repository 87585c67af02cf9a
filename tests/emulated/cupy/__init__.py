"""A stand-in for CuPy on a machine without a GPU: arrays lie in host memory, kernels run on the CPU (`../cuda.h`).

Only as much as `predis_lab.gpu` and its tests use. Put `tests/emulated` on PYTHONPATH to import it instead of CuPy; see
`tests/test_emulated.py`. It checks what the kernels compute, and measures nothing.
"""

from __future__ import annotations

import ctypes
import operator
import random as random_numbers
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from . import cuda, random
from .cuda import memory_pool as get_default_memory_pool
from .cuda import pinned_memory_pool as get_default_pinned_memory_pool

uint8, uint64, float32, bool_ = np.uint8, np.uint64, np.float32, np.bool_
GARBAGE = 0xCD  # what fresh memory holds, lest zeros be taken for granted
_WORKSPACE = tempfile.TemporaryDirectory(prefix="predis-emulated-")


class ndarray:  # noqa: N801 - CuPy's own name
    """A NumPy array that NumPy does not know as one, as CuPy's arrays are."""

    __array_ufunc__ = None
    __cuda_array_interface__: dict = {}  # noqa: RUF012
    __hash__ = object.__hash__

    def __init__(self, shape: Any, dtype: Any = float, memptr: Any = None):
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = memptr.memory.host[memptr.offset : memptr.offset + nbytes]
        self._host = memory.view(dtype).reshape(shape)

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("implicit conversion to NumPy is not allowed: use get()")

    def __getattr__(self, name: str) -> Any:
        if name in ("dtype", "shape", "ndim", "size", "nbytes", "flags", "itemsize"):
            return getattr(self._host, name)
        if name in ("view", "reshape", "astype", "copy", "fill", "min", "max", "sum", "all", "any"):
            if name not in ("view", "reshape"):
                cuda.settle()
            method = getattr(self._host, name)
            return lambda *arguments: _wrap(method(*arguments))
        raise AttributeError(name)

    @property
    def data(self) -> _Data:
        return _Data(self._host)

    def get(self, out: np.ndarray | None = None) -> np.ndarray:
        cuda.settle()
        if out is None:
            return self._host.copy()
        out[...] = self._host
        return out

    def set(self, host: np.ndarray) -> None:
        cuda.settle()
        self._host[...] = host

    def __len__(self) -> int:
        return len(self._host)

    def __getitem__(self, key: Any) -> ndarray:
        if not isinstance(key, slice):
            cuda.settle()
        return _wrap(self._host[_unwrap(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        cuda.settle()
        if isinstance(value, np.ndarray):
            raise ValueError("a NumPy array can't be assigned to a device array")
        self._host[_unwrap(key)] = _unwrap(value)

    def __int__(self) -> int:
        cuda.settle()
        return int(self._host)

    def __index__(self) -> int:
        cuda.settle()
        return operator.index(self._host[()])

    def __bool__(self) -> bool:
        cuda.settle()
        return bool(self._host)

    def __invert__(self) -> ndarray:
        cuda.settle()
        return _wrap(~self._host)

    def __isub__(self, other: Any) -> ndarray:
        cuda.settle()
        self._host -= _unwrap(other)
        return self

    def __iadd__(self, other: Any) -> ndarray:
        cuda.settle()
        self._host += _unwrap(other)
        return self

    def __iand__(self, other: Any) -> ndarray:
        cuda.settle()
        self._host &= _unwrap(other)
        return self


def _operator(name: str) -> Any:
    def apply(self: ndarray, other: Any) -> ndarray:
        cuda.settle()
        return _wrap(getattr(self._host, name)(_unwrap(other)))

    return apply


for _name in (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "rmul", "radd"),
    *("eq", "ne", "lt", "gt", "le", "ge", "and", "or"),
):
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))


class _Data:
    """Where an array lies."""

    def __init__(self, host: np.ndarray):
        self._host = host
        self.ptr = host.ctypes.data if host.size else 0

    def memset_async(self, value: int, nbytes: int, stream: Any = None) -> None:
        target = self._host.reshape(-1).view(np.uint8)[:nbytes]
        cuda.enqueue(stream or cuda.get_current_stream(), lambda: target.fill(value))


def _wrap(host: Any) -> ndarray:
    array = object.__new__(ndarray)
    array._host = cuda.keep(np.asarray(host))
    return array


def _unwrap(thing: Any) -> Any:
    return thing._host if isinstance(thing, ndarray) else thing


def empty(shape: Any, dtype: Any = float) -> ndarray:
    host = np.empty(shape, dtype)
    host.reshape(-1).view(np.uint8)[:] = GARBAGE
    return _wrap(host)


def zeros(shape: Any, dtype: Any = float) -> ndarray:
    return _wrap(np.zeros(shape, dtype))


def ones(shape: Any, dtype: Any = float) -> ndarray:
    return _wrap(np.ones(shape, dtype))


def full(shape: Any, value: Any, dtype: Any = None) -> ndarray:
    return _wrap(np.full(shape, value, dtype))


def array(rows: Any, dtype: Any = None) -> ndarray:
    return _wrap(np.array(_unwrap(rows), dtype, order="C"))


def asarray(rows: Any, dtype: Any = None) -> ndarray:
    return rows if isinstance(rows, ndarray) and dtype is None else array(rows, dtype)


def asnumpy(rows: Any) -> np.ndarray:
    cuda.settle()
    return np.array(_unwrap(rows))


def ascontiguousarray(rows: ndarray) -> ndarray:
    cuda.settle()
    return _wrap(np.ascontiguousarray(rows._host))


def cumsum(rows: ndarray, out: ndarray | None = None) -> ndarray:
    cuda.settle()
    return _wrap(np.cumsum(rows._host, out=_unwrap(out)))


def _of_numpy(name: str) -> Any:
    def function(*arguments: Any, **named: Any) -> Any:
        cuda.settle()
        plain = [
            [_unwrap(a) for a in argument] if isinstance(argument, list) else _unwrap(argument)
            for argument in arguments
        ]
        answer = getattr(np, name)(*plain, **named)
        return [_wrap(a) for a in answer] if isinstance(answer, list) else _wrap(answer)

    return function


arange, stack, concatenate, searchsorted, minimum, array_split, unpackbits = map(
    _of_numpy,
    ("arange", "stack", "concatenate", "searchsorted", "minimum", "array_split", "unpackbits"),
)


def sqrt(rows: ndarray) -> ndarray:
    cuda.settle()
    return _wrap(np.sqrt(rows._host))


def array_equal(rows: ndarray, others: ndarray) -> ndarray:
    cuda.settle()
    return _wrap(np.array_equal(rows._host, others._host))


class RawModule:
    """CUDA sources compiled with the machine's C++ compiler, now or before."""

    def __init__(
        self, code: str = "", path: str = "", options: tuple[str, ...] = (), backend: str = "nvrtc"
    ):
        if not path:
            path = str(Path(tempfile.mkdtemp(dir=_WORKSPACE.name)) / "module.so")
            Path(path).write_bytes(cuda.compiler.compile_using_nvrtc(code, options)[0])
        # The interpreter is kept while a kernel runs, but for those that stay.
        self._library, self._staying = ctypes.PyDLL(path), ctypes.CDLL(path)
        for library in (self._library, self._staying):
            library.emulated_launch.argtypes = [
                ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint64,
            ]  # fmt: skip

    def compile(self) -> None:
        """Has been done."""

    def get_function(self, name: str) -> RawKernel:
        return RawKernel(name, self._library, self._staying)


class RawKernel:
    """One kernel, run thread by thread. Its resources are those of no compiler: what many kernels take."""

    num_regs, shared_size_bytes, local_size_bytes, max_threads_per_block = 64, 0, 0, 128

    def __init__(self, name: str, library: ctypes.PyDLL, staying: ctypes.CDLL):
        self._name, self._library, self._staying = name, library, staying
        self._kernel = ctypes.cast(getattr(library, name), ctypes.c_void_p)
        self.kernel = SimpleNamespace(ptr=self._kernel.value)
        cuda.driver.kernels[self._kernel.value] = self

    def __call__(self, grid: tuple[int], block: tuple[int], arguments: tuple[int, ...]) -> None:
        if not all(type(argument) is int for argument in arguments):
            raise TypeError(f"{self._name} was launched with something else than 64-bit integers")
        self.launch(cuda.get_current_stream().ptr, grid, block, arguments)

    def launch(
        self, stream: int, grid: tuple[int], block: tuple[int], arguments: tuple[int, ...]
    ) -> None:
        """On the stream of this number."""
        current = cuda.get_current_stream()
        if current.captured is not None:
            current.captured.append(lambda: self._run(self._library, grid, block, arguments))
        else:
            stays = current.priority and current.ptr == stream
            library = self._staying if stays else self._library
            cuda.enqueue(stream, lambda: self._run(library, grid, block, arguments))

    def _run(
        self, library: Any, grid: tuple[int], block: tuple[int], arguments: tuple[int, ...]
    ) -> None:
        words = (ctypes.c_uint64 * 24)(*(argument % 2**64 for argument in arguments))
        seed = random_numbers.getrandbits(60)
        library.emulated_launch(self._kernel, words, grid[0], block[0], seed)


__all__ = [
    "cuda",
    "get_default_memory_pool",
    "get_default_pinned_memory_pool",
    "ndarray",
    "random",
]
