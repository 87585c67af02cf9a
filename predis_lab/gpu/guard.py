"""A call under way, from its beginning to its end. Called by `engine`.

A class with slots: a generator-based context manager would cost five times as much.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import DeviceFailed
from .memory import REFUSALS

if TYPE_CHECKING:
    from .engine import DeviceEngine


class Guard:
    """A call under way: refused while the device is stuck, and what the driver refuses gets a name."""

    __slots__ = ("_engine",)

    def __init__(self, engine: DeviceEngine):
        self._engine = engine

    def __enter__(self) -> None:
        self._engine.health.check()
        self._engine.under_way += 1

    def __exit__(self, kind: Any, error: BaseException | None, *_: object) -> None:
        self._engine.under_way -= 1
        if isinstance(error, REFUSALS):
            raise DeviceFailed(f"the device refused: {error}") from error
