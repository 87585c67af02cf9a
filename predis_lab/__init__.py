"""Predis: a cache whose records live in GPU memory.

>>> from predis_lab import Predis
>>> with Predis(capacity="64MiB", backend="host") as cache:
...     cache.set("greeting", "hello")
...     cache.get("greeting")
True
b'hello'
"""

from .client import Predis
from .columns import Column
from .errors import (
    CacheClosed,
    CacheFull,
    CorruptRecord,
    DeviceFailed,
    DeviceTimeout,
    DeviceUnavailable,
    InvalidArgument,
    InvalidKey,
    InvalidValue,
    PinnedMemoryUnavailable,
    PredisError,
    RecordsRefused,
    UnsupportedType,
)
from .gpu.tuning import Tuning
from .table import InsertReport, Status

__version__ = "0.1.0"

__all__ = [
    "CacheClosed",
    "CacheFull",
    "Column",
    "CorruptRecord",
    "DeviceFailed",
    "DeviceTimeout",
    "DeviceUnavailable",
    "InsertReport",
    "InvalidArgument",
    "InvalidKey",
    "InvalidValue",
    "PinnedMemoryUnavailable",
    "Predis",
    "PredisError",
    "RecordsRefused",
    "Status",
    "Tuning",
    "UnsupportedType",
    "__version__",
]
