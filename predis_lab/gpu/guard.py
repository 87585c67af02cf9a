"""A call under way, from its beginning to its end, and what the driver refuses meanwhile. Called by `engine`, `singles`, `block` and
`doorbell`.

Classes with slots: a generator-based context manager would cost five times as much.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from .memory import REFUSALS, refused

if TYPE_CHECKING:
    from .health import Health


class Guard:
    """A call under way: refused while the device is stuck, and what the driver refuses gets a name.

    One object serves all calls, within one another too: it only counts them.

    under_way:  calls that have begun and not ended
    """

    __slots__ = ("_health", "under_way")

    def __init__(self, health: Health):
        self._health = health
        self.under_way = 0

    def __enter__(self) -> None:
        if self._health.stuck is not None:
            self._health.check()
        self.under_way += 1

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.under_way -= 1
        if error is not None and isinstance(error, REFUSALS):
            raise refused(error) from error


def named(step: Callable[..., None]) -> Callable[..., None]:
    """A step of a call that no Guard is around: what the driver refuses gets a name all the same."""

    @wraps(step)
    def taken(*arguments: Any) -> None:
        try:
            step(*arguments)
        except REFUSALS as error:
            raise refused(error) from error

    return taken
