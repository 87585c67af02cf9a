"""What launch settings do to lookups and inserts: rates beside registers and predicted occupancy. For notebook 02.

Imports CuPy: only for where there is a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cupy
import numpy as np

from ..gpu import modules
from ..gpu.memory import on_device
from ..table import Status
from .device_records import keys, values
from .kernel_samples import RATE, SWEPT
from .ladder_rates import Winner
from .launch_settings import KERNELS, Setting, parameters, usual
from .limits import event_seconds
from .results import Run
from .table_rates import Answer, expect

VALUE_NBYTES = 64


def occupancy_rates(
    run: Run,
    settings: dict[str, Sequence[Setting]],
    *,
    records: int,
    batch: int,
    repeats: int,
    scrub_nbytes: int,
    seed: int = 0,
    progress: Callable[[float], object] = lambda _: None,
) -> None:
    """Each kernel with each of its settings, in random order in every repeat, on one table at load factor 0.8.

    settings: by kernel, find_dense and publish; the latter's rates are of whole inserts. They bring back keys that have been erased. progress: called after each repeat
    """
    writes = (repeats + 1) * len(set(settings.get("publish", ())))
    winner = Winner(records, VALUE_NBYTES, spare=writes * batch)
    scrub = on_device(scrub_nbytes, np.uint8)
    generator, order = cupy.random.RandomState(seed), np.random.default_rng(seed)
    answer, status = Answer(batch, VALUE_NBYTES), on_device(batch, np.int8)
    erased = on_device(batch, np.bool_)

    def measured(kernel: str, defines: tuple[str, ...]) -> float:
        """Seconds of one launch, its answers checked."""
        numbers = generator.permutation(records)[:batch].astype(np.uint64)
        asked, stream = keys(numbers), cupy.cuda.get_current_stream()
        if kernel == "publish":
            written = values(numbers, VALUE_NBYTES)
            winner.erase(asked, erased)
        scrub.data.memset_async(0, scrub.nbytes, stream)
        if kernel == "publish":
            _, seconds = event_seconds(winner.insert, asked, written, status, defines)
            expect(status, Status.STORED)
        else:
            _, seconds = event_seconds(winner.find, asked, answer, defines)
            answer.check(numbers)
        return seconds

    multiprocessor = modules.multiprocessor()
    usually = {kernel: usual(kernel, multiprocessor) for kernel in settings}
    every = [
        (kernel, one) for kernel, several in settings.items() for one in dict.fromkeys(several)
    ]
    for repeat in range(-1, repeats):  # the first one warms up
        for i in order.permutation(len(every)):
            kernel, setting = every[i]
            defines = setting.defines(kernel, multiprocessor)
            seconds = measured(kernel, defines)
            if repeat >= 0:
                told = {
                    **parameters(setting),
                    "usual": setting == usually[kernel],
                    **needs(kernel, defines),
                    "batch": batch,
                    "records": records,
                }
                run.add_sample(kernel, SWEPT, told, repeat, RATE, batch / seconds, "1/s")
        progress(1)
    winner.close()


def needs(kernel: str, defines: tuple[str, ...] = ()) -> dict[str, Any]:
    """Registers and bytes of local memory per thread, and the predicted occupancy, on the current device."""
    compiled = modules.function(KERNELS[kernel][0], kernel, defines)
    return {
        "registers": compiled.num_regs,
        "local_nbytes": compiled.local_size_bytes,
        "occupancy": modules.occupancy_of(compiled).share,
    }


def compile_settings(
    settings: dict[str, Sequence[Setting]],
    progress: Callable[[float], object] = lambda _: None,
) -> None:
    """Compiles all of them, beforehand. progress: called with each module's share of all."""
    multiprocessor = modules.multiprocessor()
    wanted = {
        (KERNELS[kernel][0], setting.defines(kernel, multiprocessor))
        for kernel, several in settings.items()
        for setting in several
    }
    modules.prepare(wanted, progress)
