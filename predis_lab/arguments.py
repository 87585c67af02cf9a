"""What a caller may hand to Redis's verbs, made into bytes and milliseconds. Called by `client`."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from .checks import MAX_KEY_NBYTES, MAX_VALUE_NBYTES
from .columns import Column, few_even, utf8
from .errors import InvalidArgument, InvalidKey, InvalidValue, UnsupportedType
from .table import NEVER

MAX_EXPIRY_MS = 2**48 - 1  # what a record's header holds: some 8,900 years

_UNITS = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
    "ti": 2**40,
}


def now_ms() -> int:
    """Milliseconds since the epoch: the clock of every expiry."""
    return time.time_ns() // 1_000_000


def parse_capacity(capacity: int | str, *, least: int = 1) -> int:
    """Bytes from a number or text such as "8GiB", "500MB", "65536"; raises InvalidArgument for less than `least`.

    >>> parse_capacity("1.5KiB")
    1536
    """
    nbytes = capacity
    if isinstance(capacity, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", capacity.lower())
        if match is None or match.group(2) not in _UNITS:
            raise InvalidArgument(
                f'a capacity is a number of bytes or text such as "8GiB", not {capacity!r}'
            )
        nbytes = int(float(match.group(1)) * _UNITS[match.group(2)])
    if not isinstance(nbytes, int) or isinstance(nbytes, bool) or nbytes < least:
        raise InvalidArgument(
            f"a capacity is a {'positive ' if least else ''}number of bytes, not {capacity!r}"
        )
    return nbytes


def encode(thing: Any, what: str) -> bytes:
    """Bytes as redis-py sends them: bytes-like as they are, str as UTF-8, int and float as their repr."""
    if isinstance(thing, bytes):
        return thing
    if isinstance(thing, str):
        return utf8(thing)
    if isinstance(thing, (bytearray, memoryview)):
        return bytes(thing)
    if isinstance(thing, (int, float)) and not isinstance(thing, bool):
        return repr(thing).encode()
    raise UnsupportedType(f"{what} is bytes, str, int or float, not {type(thing).__name__}")


def encode_key(name: Any) -> bytes:
    """A key's bytes; raises InvalidKey where they are none or too many."""
    key = name if type(name) is bytes else encode(name, "a key")
    if not 1 <= len(key) <= MAX_KEY_NBYTES:
        raise InvalidKey(
            f"a key of {len(key)} bytes was given: a key has 1 to {MAX_KEY_NBYTES} bytes"
        )
    return key


def encode_value(value: Any) -> bytes:
    """A value's bytes; raises InvalidValue where they are too many."""
    data = value if type(value) is bytes else encode(value, "a value")
    if len(data) > MAX_VALUE_NBYTES:
        raise InvalidValue(
            f"a value of {len(data)} bytes was given: a value has at most {MAX_VALUE_NBYTES} bytes"
        )
    return data


def encode_column(things: Iterable[Any], encode_one: Callable[[Any], bytes]) -> Column:
    """Many keys or values at once, as `encode_one` would encode each."""
    rows = list(things)
    few = few_even(rows)
    if few is not None:
        return few
    try:  # bytes and str, by far the most common, need no call each
        packed = pa.array(rows, pa.binary())
    except (pa.ArrowException, TypeError, ValueError):
        packed = None
    if packed is None or packed.null_count:
        return Column.of([encode_one(row) for row in rows])
    return Column.of(packed)


def collect_names(keys: Any, args: tuple) -> list:
    """One list from redis-py's `keys, *args`: a single name, or an iterable of them, and more names."""
    if isinstance(keys, (bytes, str, bytearray, memoryview)) or not isinstance(keys, Iterable):
        return [keys, *args]
    return [*keys, *args]


def row_layout(dtype: Any, shape: Any) -> tuple[np.dtype | None, int]:
    """The dtype of one number, None where none is asked for, and the bytes of an array of that shape."""
    if dtype is None:
        if shape != ():
            raise InvalidArgument("a shape needs a dtype")
        return None, 0
    try:
        number = np.dtype(dtype)
    except TypeError as error:
        raise InvalidArgument(f"a dtype of numbers is needed, not {dtype!r}") from error
    if number.hasobject or not number.itemsize:
        raise InvalidArgument(f"a dtype of numbers is needed, not {number}")
    if not isinstance(shape, tuple) or not all(isinstance(d, int) and d > 0 for d in shape):
        raise InvalidArgument(f"a shape is a tuple of positive integers, not {shape!r}")
    return number, number.itemsize * math.prod(shape)


def scan_count(count: Any) -> int:
    """Keys per step of a scan; raises InvalidArgument where that is no positive integer."""
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise InvalidArgument(f"count is a positive integer, not {count!r}")
    return count


def milliseconds(duration: Any, unit_ms: int) -> int:
    """A time to live in milliseconds; an integer counts units of `unit_ms`."""
    if type(duration) is int:
        return duration * unit_ms
    if isinstance(duration, timedelta):
        return int(duration / timedelta(milliseconds=1))
    if isinstance(duration, str) and re.fullmatch(r"-?\d+", duration):
        duration = int(duration)
    if not isinstance(duration, int) or isinstance(duration, bool):
        raise InvalidArgument(f"a time to live is an integer or a timedelta, not {duration!r}")
    return duration * unit_ms


def moment_ms(moment: Any, unit_ms: int) -> int:
    """Milliseconds since the epoch; an integer counts units of `unit_ms`."""
    if isinstance(moment, datetime):
        return int(moment.timestamp() * 1000)
    return milliseconds(moment, unit_ms)


def checked_expiry(expire_at_ms: int) -> int:
    """The moment itself; raises InvalidArgument where a record's header can't hold it."""
    if expire_at_ms > MAX_EXPIRY_MS:
        raise InvalidArgument(f"a record expires at {MAX_EXPIRY_MS} ms since the epoch or before")
    return max(0, expire_at_ms)


def expiry(
    now_ms: int,
    ex: Any = None,
    px: Any = None,
    exat: Any = None,
    pxat: Any = None,
    keepttl: bool = False,
) -> int:
    """When a record expires, ms since the epoch, or NEVER; at most one of the options may be given."""
    given = (ex is not None) + (px is not None) + (exat is not None) + (pxat is not None)
    if not given:
        return NEVER
    if given + bool(keepttl) > 1:
        raise InvalidArgument("ex, px, exat, pxat and keepttl exclude each other")
    for name, option, unit_ms in (("ex", ex, 1000), ("px", px, 1)):
        if option is not None:
            ttl_ms = milliseconds(option, unit_ms)
            if ttl_ms <= 0:
                raise InvalidArgument(f"{name} must be positive, not {option!r}")
            return checked_expiry(now_ms + ttl_ms)
    for name, option, unit_ms in (("exat", exat, 1000), ("pxat", pxat, 1)):
        if option is not None:
            at_ms = moment_ms(option, unit_ms)
            if at_ms <= 0:
                raise InvalidArgument(f"{name} must be positive, not {option!r}")
            return checked_expiry(at_ms)
    return NEVER
