"""The family of named errors. Each says what was given and what is allowed, before anything changes."""


class PredisError(Exception):
    """Anything Predis raises on purpose."""


class RecordsRefused(PredisError):
    """Records of a batch that were not stored; `status` has one entry per record where some others were."""

    def __init__(self, message: str, status=None):
        super().__init__(message)
        self.status = status


class InvalidKey(PredisError, ValueError):
    """A key that is null, empty or longer than `columns.MAX_KEY_NBYTES`."""


class InvalidValue(RecordsRefused, ValueError):
    """A value that is null or longer than `columns.MAX_VALUE_NBYTES`."""


class InvalidArgument(PredisError, ValueError):
    """Options that contradict each other or lie outside their range."""


class UnsupportedType(PredisError, TypeError):
    """An object that is no byte string, or no column of them."""


class CacheClosed(PredisError):
    """A call on a cache after `close()`."""


class CacheFull(RecordsRefused, MemoryError):
    """Records that did not fit into the cache's capacity."""


class CorruptRecord(PredisError):
    """Records that are no longer what was stored; `rows` of those asked for, `key` that of the first."""

    def __init__(self, rows: int, key: bytes):
        super().__init__(rows, key)
        self.rows, self.key = rows, key

    def __str__(self) -> str:
        others = f", nor do {self.rows - 1} more" if self.rows > 1 else ""
        return f"the record of key {self.key[:64]!r} does not match its checksum{others}"


class DeviceUnavailable(PredisError, RuntimeError):
    """`backend="cuda"` where no CUDA device answers, or CuPy is not installed."""


class PinnedMemoryUnavailable(PredisError, MemoryError):
    """Host memory that can't be page-locked where a kernel has to reach it."""


class DeviceTimeout(PredisError, TimeoutError):
    """Work on the device that has not ended in time; the message names the step. What was stored before stays whole."""


class DeviceFailed(RecordsRefused, RuntimeError):
    """An allocation, a copy or a launch that the device or its driver refused; the message tells what it said."""
