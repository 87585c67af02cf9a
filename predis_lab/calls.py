"""One verb's call: the table locked for its length, and copies of hot records that a write makes stale. Called by `client`.

Classes with slots: a generator-based context manager would cost five times as much.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .columns import Column
from .errors import CacheClosed
from .hot import Record
from .table import Table

if TYPE_CHECKING:
    from .client import Predis


class Call:
    """The table, locked."""

    __slots__ = ("_cache",)

    def __init__(self, cache: Predis):
        self._cache = cache

    def __enter__(self) -> Table:
        cache = self._cache
        cache._lock.acquire()
        if cache._closed:
            cache._lock.release()
            raise CacheClosed("the cache has been closed")
        cache._commands += 1
        return cache._table

    def __exit__(self, *_: object) -> None:
        self._cache._lock.release()


class WriteCall(Call):
    """The same for a write of these keys, or of all where they are None.

    left:  key and record that it left behind, where that is known
    """

    __slots__ = ("_keys", "_version", "left")

    def __init__(self, cache: Predis, keys: Column | None):
        super().__init__(cache)
        self._keys = keys
        self.left: tuple[bytes, Record] | None = None

    def __enter__(self) -> Table:
        table = super().__enter__()
        if self._cache._hot is not None:
            self._version = self._cache._hot.begin(self._keys)
        return table

    def __exit__(self, *error: object) -> None:
        if self._cache._hot is not None:
            left = None if any(error) else self.left
            self._cache._hot.end(self._version, *(left or ()))
        super().__exit__(*error)
