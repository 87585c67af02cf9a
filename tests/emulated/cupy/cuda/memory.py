"""The memory pool's errors of the stand-in."""


class OutOfMemoryError(MemoryError):
    """Never raised."""
