"""Ticks, messages and a source of them for tests of the dashboard: numbers that the tests choose, and nothing that runs."""

from predis_lab.live.scenes import SCENES, as_dict
from predis_lab.live.ticks import Side, Tick

FACTS = {
    "kind": "facts",
    "backend": "host",
    "device": "host memory",
    "server": {
        "name": "redis",
        "version": "8.2.3",
        "source": "a test",
        "allocator": "jemalloc",
        "configuration": {"io-threads": "1"},
        "transports": ["unix", "tcp"],
        "client": {"redis": "8", "hiredis": "3"},
    },
}
READINGS = {"predis_hits": 0.95, "redis_memory": 4e6, "gpu_utilisation": None}


def tick(number=0, *, at=None, scene="batch", controls=None, rates=(200.0, 100.0), p50s=(0.001, 0.002), p99s=(0.004, 0.009),
         unsent=(0, 0), segment=0, readings=READINGS, renewed=True):  # fmt: skip
    """A tick of these numbers, six a second."""
    names = ("predis-host columns", "redis mget unix")
    sides = tuple(Side(*side) for side in zip(names, rates, unsent, p50s, p99s, strict=True))
    at = number / 6 if at is None else at
    controls = controls or SCENES[scene].start
    return Tick(number, at, segment, scene, controls, sides, dict(readings), renewed)


def message(scene="batch", controls=None, rates=(200.0, 100.0)):
    """What a load process says of such a tick."""
    made = tick(scene=scene, controls=controls or SCENES[scene].start, rates=rates)
    return {
        "kind": "tick",
        "at": 0.0,
        "scene": scene,
        "controls": as_dict(made.controls),
        "sides": [vars(side) for side in made.sides],
        "readings": made.readings,
        "renewed": True,
    }


class Script:
    """Opens sources that say what a test tells them to, and remember what they were sent."""

    def __init__(self):
        self.opened = []

    def __call__(self, take, backend):
        self.opened.append(Spoken(take, backend))
        return self.opened[-1]

    @property
    def last(self):
        return self.opened[-1]


class Spoken:
    def __init__(self, take, backend):
        self.say, self.backend, self.sent, self.closed = take, backend, [], False

    def send(self, command):
        self.sent.append(command)

    def close(self):
        self.closed = True


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def some_ticks(count, *, step, scene="batch"):
    """Ticks with rates of their own."""
    return [tick(i, at=i * step, scene=scene, rates=(200.0 + i, 100.0)) for i in range(count)]
