"""What tests of the doorbell share."""


def rung(cache):
    """How many calls the doorbell has been asked to serve."""
    return cache._table.doorbell._asked


class Stuck:
    """A stream that is done when a test says so."""

    done = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def doorbell_module():
    from predis_lab.gpu import doorbell

    return doorbell
