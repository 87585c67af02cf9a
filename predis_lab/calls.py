"""One verb's call: the table locked for its length, and copies of hot records that a write makes stale. Called by `client`.

Classes with slots: a generator-based context manager would cost five times as much.
"""

from __future__ import annotations

from .columns import Column
from .errors import CacheClosed
from .hot import HotTier, Record
from .table import Table


class Call:
    """The table, locked. One object serves all calls: nothing in it belongs to a single one.

    closed:    whether calls are refused
    commands:  calls so far
    """

    __slots__ = ("_lock", "_table", "closed", "commands")

    def __init__(self, table: Table):
        self._table, self._lock = table, table.lock
        self.closed, self.commands = False, 0

    def begin(self) -> Table:
        """Returns with the table, locked."""
        # Taken as by `with`, which would cost a call more here and one at the end.
        lock = self._lock
        if not lock.take(False):
            lock.wait()
        if self.closed:
            lock.give()
            raise CacheClosed("the cache has been closed")
        self.commands += 1
        return self._table

    def end(self) -> None:
        """Lets others in."""
        lock = self._lock
        lock.give()
        if lock.waiting or lock.away:
            lock.step_aside()

    __enter__ = begin

    def __exit__(self, *_: object) -> None:
        self.end()


class WriteCall:
    """A call that writes these keys, or all where they are None, beside a tier of hot records. It serves one call.

    left:  key and record that it left behind, where that is known
    """

    __slots__ = ("_call", "_hot", "_keys", "_version", "left")

    def __init__(self, call: Call, hot: HotTier, keys: Column | bytes | None):
        self._call, self._hot, self._keys = call, hot, keys
        self.left: tuple[bytes, Record] | None = None

    def __enter__(self) -> Table:
        table = self._call.begin()
        self._version = self._hot.begin(self._keys)
        return table

    def __exit__(self, *error: object) -> None:
        left = None if any(error) else self.left
        self._hot.end(self._version, *(left or ()))
        self._call.end()
