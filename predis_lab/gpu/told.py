"""What a cache is tuned by, for people: what `Predis.tuning` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..table import RECORD_HEADER_NBYTES
from .stages import FIND, PIPELINE, Machine, Shape
from .tuner import KEY_NBYTES, Case
from .tuning import Choice, Tuning

if TYPE_CHECKING:
    from .engine import DeviceEngine

SPOKEN_OF = 10_000  # keys of the call that a setting is told for, unless said otherwise
_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
_SIZES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))
_STATES = {
    "pinned": "pinned by the caller",
    "measured": "chosen by what was measured on this machine, and followed",
    "as built": "as built: nothing has been measured on this machine yet",
}


@dataclass(frozen=True)
class Explanation:
    """One choice and why; prints itself.

    choice:  of the model, or None where there are no constants
    way:     that such calls go now
    tuning:  that they go by
    case:    what such calls have taken so far, where any have been timed
    """

    shape: Shape
    state: str
    way: str
    tuning: Tuning
    choice: Choice | None
    case: Case | None

    def __str__(self) -> str:
        shape, setting = self.shape, self.tuning
        said = [f"{shape.verb}, {shape.rows:,} keys, {_size(shape.traffic)} both ways: {self.way}"]
        for way, one in (self.choice.estimates if self.choice else {}).items():
            stages = sorted(one.stages.items(), key=lambda stage: -stage[1])
            told = ", ".join(f"{name} {_seconds(value)}" for name, value in stages[:3] if value)
            said.append(f"  {way:9} {_seconds(one.seconds):>8} by the model: {told}")
        if self.case:
            for arm in (arm for arm in self.case.arms if arm.seen > 0):
                chunk = f", chunks of {_size(arm.setting.chunk_nbytes)}" if arm.way == PIPELINE else ""  # fmt: skip
                took = _seconds(arm.believed(shape.traffic))
                said.append(f"  {arm.way:9} {took:>8} by {arm.seen} calls timed{chunk}")
        if self.way == PIPELINE:
            said.append(
                f"  chunks of {_size(setting.chunk_nbytes)}, {setting.depth} under way, {setting.packers} cores pack"
            )
        return "\n".join([*said, f"  {_STATES[self.state]}"])

    __repr__ = __str__


class InForce:
    """What calls are chosen by; prints itself.

    >>> cache = Predis("1GiB", backend="cuda")  # doctest: +SKIP
    >>> print(cache.tuning.explain(10_000, 64))  # doctest: +SKIP
    """

    def __init__(self, engine: DeviceEngine):
        self._engine, self._tuner = engine, engine.tuner

    @property
    def state(self) -> str:
        """Where choices come from: "pinned", "measured", or "as built"."""
        return self._tuner.state

    @property
    def machine(self) -> Machine | None:
        """The constants of this machine; None as long as there are none."""
        return self._tuner.machine

    @property
    def current(self) -> Tuning:
        """What holds for calls of 10,000 keys, with values as long as the cache's are in the mean."""
        return self.explain(SPOKEN_OF).tuning

    @property
    def changes(self) -> int:
        """How often calls of a size have been given another way or setting than before."""
        return self._tuner.changes

    @property
    def trials(self) -> int:
        """Calls that went another way than the one in use, to see how long that takes."""
        return self._tuner.trials

    def measure(self) -> Machine:
        """Measures this machine now, within a second or so, and keeps what it comes to for other processes.

        raises: NotServedError, DeviceFailed or DeviceTimeout where the device does not answer, CacheClosed
        """
        return self._engine.measure()

    def explain(
        self,
        n: int,
        value_nbytes: float | None = None,
        *,
        key_nbytes: float = KEY_NBYTES,
        verb: str = FIND,
    ) -> Explanation:
        """How a call of n keys goes, and why.

        value_nbytes:  None: the mean of what the cache holds
        verb:          "find", "insert", or "peek" for what answers with a byte a key
        """
        table, tuner = self._engine.table, self._tuner
        if value_nbytes is None:
            record = table.live_nbytes / max(table.entries, 1) - RECORD_HEADER_NBYTES
            uniform = table.uniform_nbytes
            value_nbytes = max(record - key_nbytes, 0) if uniform is None else uniform
        shape = tuner.shape_of(verb, n, key_nbytes, value_nbytes)
        choice = tuner.chosen(shape)
        case = tuner.case_of(shape) if tuner.follows else None
        if not tuner.follows or choice is None:
            way, tuning = tuner.tuning.way(n, shape.traffic), tuner.tuning
        elif case is None:
            way, tuning = choice.way, choice.tuning
        else:
            way = case.current.way
            tuning = choice.tuning.going(way, shape, case.current.setting)
        return Explanation(shape, tuner.state, way, tuning, choice, case)

    def __str__(self) -> str:
        machine = self.machine
        facts = [] if machine is None else [
            f"  a launch {_seconds(machine.launch_s)}, a bulk call {_seconds(machine.bulk_s)} and {_seconds(machine.chunk_s)} a chunk",
            f"  link {machine.up / 1e9:.1f} GB/s up, {machine.down / 1e9:.1f} down; packing {machine.pack / 1e9:.1f} GB/s by one core, "
            f"{machine.pack_most / 1e9:.1f} by {machine.packers}",
        ]  # fmt: skip
        if machine is not None and machine.bell_s is not None:
            facts.append(f"  a key at the doorbell {_seconds(machine.bell_s)}")
        facts.append(f"  {self.changes} changes of mind, {self.trials} calls to try another way")
        return "\n".join([f"Tuning: {_STATES[self.state]}", *facts, str(self.explain(SPOKEN_OF))])

    __repr__ = __str__


def _seconds(value: float) -> str:
    factor, unit = next(((f, u) for f, u in _UNITS if value >= f), _UNITS[-1])
    return f"{value / factor:.3g} {unit}"


def _size(nbytes: float) -> str:
    factor, unit = next(((f, u) for f, u in _SIZES if nbytes >= f), _SIZES[-1])
    return f"{nbytes / factor:.3g} {unit}"
