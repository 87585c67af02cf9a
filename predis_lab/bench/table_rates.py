"""How fast the table itself is: columns in device memory in and out, no link, no packing. For notebook 06.

Keys of 16 bytes, values of 64, index at its normal load factor. Every repeat asks for fresh random records, made
before its clock starts; the device's own events time it. What was found is compared with what was stored.
Imports CuPy: only for where there is a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cupy
import numpy as np

from ..columns import Column
from ..gpu.memory import on_device
from ..gpu.table import DeviceTable
from ..table import NEVER, Status
from .contestants import WrongAnswerError
from .limits import TABLE, Limit, event_seconds, lookup_ceilings

KEY_NBYTES, VALUE_NBYTES, RECORD_NBYTES = 16, 64, 96  # a record with its header
NOW_MS = 1
# Odd multipliers: a bijection of the numbers, so that distinct records have distinct keys.
_MIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9)


def table_rates(records: int, batch: int, repeats: int, *, seed: int = 0) -> list[Limit]:
    """Rates (1/s, keys) of the device table's verbs, one value per repeat; for lookups beside the rate of the same
    accesses with nothing else to do.

    records:  in the table throughout, at load factor 0.8
    batch:    keys a call, at most as many as records
    raises:   MemoryError where the device can't hold the table, its columns and what the repeats write
    """
    written = records + (2 * repeats + 2) * batch
    capacity = int(1.1 * RECORD_NBYTES * written + 3 * 10 * records) + 2**30
    free = cupy.cuda.runtime.memGetInfo()[0]
    if capacity + 2 * (KEY_NBYTES + VALUE_NBYTES) * records > free:
        raise MemoryError(f"{records:,} records need {capacity:,} bytes, and {free:,} are free")
    hit, miss = lookup_ceilings(RECORD_NBYTES * records // 64 * 64, batch, repeats)
    ceilings = {"find_64v": hit, "find_miss": miss}
    table = DeviceTable(capacity)
    everything = cupy.arange(records, dtype=np.uint64)
    _expect(_insert(table, _keys(everything), _values(everything)), Status.STORED)
    del everything
    generator = cupy.random.RandomState(seed)
    seconds: dict[str, list[float]] = {name: [] for name in TABLE}

    def timed(name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        answer, took = event_seconds(call, table, *arguments)
        seconds[name].append(took)
        return answer

    for _ in range(repeats + 1):  # the first warms up
        numbers = generator.permutation(records)[:batch].astype(np.uint64)
        keys, values = _keys(numbers), _values(numbers)
        found = timed("find_64v", _find, keys)
        if not (found.data.view(np.uint64) == values.data.view(np.uint64)).all():
            raise WrongAnswerError("the device table found other values than were stored")
        missing = timed("find_miss", _find, _keys(numbers + np.uint64(records)))
        if missing.validity.any():
            raise WrongAnswerError("the device table found keys that were never stored")
        _expect(timed("contains", _contains, keys), True)
        _expect(timed("update_64v", _insert, keys, values), Status.UPDATED)
        _expect(timed("erase", _erase, keys), True)
        _expect(timed("insert_64v", _insert, keys, values), Status.STORED)
    table.clear()
    return [
        Limit(name, label, [batch / s for s in seconds[name][1:]], "1/s", ceilings.get(name))
        for name, label in TABLE.items()
    ]


def _find(table: Any, keys: Column) -> Column:
    nbytes = len(keys) * VALUE_NBYTES
    return table.find(keys, NOW_MS, in_pinned=False, capacity=nbytes).column


def _contains(table: Any, keys: Column) -> Any:
    present = on_device(len(keys), np.bool_)
    table.peek(keys, NOW_MS, present=present)
    return present


def _insert(table: Any, keys: Column, values: Column) -> Any:
    status = on_device(len(keys), np.int8)
    batch = table.begin(keys, values, NOW_MS)
    table.append(batch, keys, values, NEVER, NOW_MS, status)
    table.end(batch)
    return status


def _erase(table: Any, keys: Column) -> Any:
    erased = on_device(len(keys), np.bool_)
    table.erase(keys, NOW_MS, erased)
    return erased


def _expect(answers: Any, expected: Any) -> None:
    if not (answers == int(expected)).all():
        raise WrongAnswerError(f"a batch on the device was not answered {expected!r} throughout")


def _keys(numbers: Any) -> Column:
    return _words(numbers, [numbers * np.uint64(mix) for mix in _MIX])


def _values(numbers: Any) -> Column:
    return _words(numbers, [numbers * np.uint64(2 * lane + 1) for lane in range(8)])


def _words(numbers: Any, columns: list) -> Column:
    """Rows of 64-bit words, `columns` side by side."""
    data = cupy.stack(columns, axis=1).reshape(-1).view(np.uint8)
    return Column(data, None, 8 * len(columns), len(numbers))
