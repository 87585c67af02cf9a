"""The launches that `counted` has watched, each once and in the order of its cases.

Imports CuPy: only for where there is a GPU.
"""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from ..columns import Column
from ..gpu.memory import on_device
from ..table import Status
from .counted import VALUE_NBYTES
from .device_records import RealRecords, keys, values
from .ladder_rates import Winner
from .table_rates import Answer, expect, find_packed, real_table


def launch_all(records: int, batch: int) -> None:
    """One launch of each case of `counted.CASES`, their answers checked."""
    generator, real = cupy.random.RandomState(0), RealRecords.load()
    winner = Winner(records, VALUE_NBYTES, spare=2 * batch)
    real_records = real_table(batch, real)
    numbers = winner.fixed.pick(generator, batch)
    stored, absent = keys(numbers), keys(numbers + np.uint64(2**40))
    wanted = generator.permutation(batch).astype(np.uint64)
    expected = real.values(wanted)
    cupy.cuda.runtime.profilerStart()
    _find(winner, stored, absent, numbers)
    found = find_packed(real_records, real.keys(wanted), len(expected.data))
    assert bool((found.column.data[: len(expected.data)] == expected.data).all())
    erased, status = on_device(batch, np.bool_), on_device(batch, np.int8)
    winner.erase(stored, erased)
    expect(erased, True)
    written = values(numbers, VALUE_NBYTES)
    for expected_status in (Status.STORED, Status.UPDATED):
        winner.insert(stored, written, status)
        expect(status, expected_status)
    cupy.cuda.runtime.profilerStop()


def _find(winner: Winner, stored: Column, absent: Column, numbers: Any) -> None:
    """Hits, misses, and every other key a hit."""
    answer = Answer(len(stored), VALUE_NBYTES)
    winner.find(stored, answer)
    answer.check(numbers)
    winner.find(absent, answer)
    answer.check_missing()
    mixed = stored.data.copy().reshape(len(stored), -1)
    mixed[::2] = absent.data.reshape(len(stored), -1)[::2]
    winner.find(Column(mixed.reshape(-1), None, stored.width, len(stored)), answer)
