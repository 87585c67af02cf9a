"""The way and the setting of each call, as the model of this machine has it and as such calls have turned out. Called by `engine`.

Calls of one kind and about one size are a case. A case begins with what `tuning.choose` thinks best, tries what should come
close, a few times, and stays with what took least; what it does not use it tries some more when it has been called twice as
often. Nothing oscillates: a case changes its mind only for a gain that noise does not make, and after each change waits twice
as long before the next. Without constants of this machine,
and where a caller has pinned a tuning, thresholds decide and nothing is followed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from . import stages
from .sizing import MOST_DEPTH
from .stages import DOORBELL, LAUNCH, PIPELINE, Machine, Setting, Shape
from .tuning import Choice, Tuning, choose, estimates_of, ranked_settings

MEASURED_AFTER_S = 1.0  # of bulk calls, on a machine of which nothing is known
KEY_NBYTES = 16  # of a call that is explained, unless said otherwise
# Times what the way in use takes: what should take longer, or did so twice, is not tried.
TRIED_WITHIN = 1.5
TRIALS = 6  # of each, the first of which only warms up
# Calls of a case: so many go by between two trials, of which there are few altogether.
TRIED_EVERY = 4
TRIED_AGAIN = 3.0  # times what is in use: what takes less is tried some more
FRESH = 256  # calls of a case, and twice as many, and so on: when that is
FIRST = 15  # calls of which the median is believed
GAIN = 0.1  # of a deviation that is believed later on
# A single call counts as this at most, lest the few that are held up weigh more than the many; all together.
STEP, FURTHEST = 0.2, math.log(16)
MARGIN = 0.05  # of the time, that a change has to gain
# A case whose calls take that much longer or shorter than when it tried is another one.
MOVED = math.log(1.25)
WAIT = 32  # calls between changes of mind; twice as many after each
# Calls as short as this are timed one in eight, or one in sixty-four: timing more of them would show. But all of the first ones
# are: as many as it takes to try everything. And the first one after a call that went another way takes longer: what is tried
# is called twice, and the first call's time is nobody's.
SAMPLED_BELOW_S, SHORT_S = 2e-4, 5e-5
EIGHTH, SIXTY_FOURTH = 7, 63
SETTLING = 128


class Arm:
    """One way to make the calls of a case, and how long it is believed to take: fixed + traffic * per_byte, times exp(off).

    seen:  calls timed, less those that warm up
    first: of these, how far off the model was in each; their median is believed, for any call may be held up
    """

    __slots__ = ("case", "first", "fixed", "off", "per_byte", "seen", "setting", "way")

    def __init__(
        self, case: Case | None, way: str, setting: Setting, low: Any = None, high: Any = None
    ):
        self.case, self.way, self.setting = case, way, setting
        self.off, self.seen = 0.0, -1
        self.first: list[float] = []
        self.fixed, self.per_byte = 0.0, 0.0
        if low is not None:  # (traffic, seconds) of a small call and of a large one
            self.per_byte = (high[1] - low[1]) / max(high[0] - low[0], 1)
            self.fixed = low[1] - low[0] * self.per_byte

    def expected(self, traffic: float) -> float:
        """Seconds, by the model alone."""
        return max(self.fixed + traffic * self.per_byte, 1e-9)

    def believed(self, traffic: float) -> float:
        """Seconds, as calls have turned out."""
        return self.expected(traffic) * math.exp(self.off)

    def promised(self, traffic: float) -> float:
        """As `believed`, but what took long once may have been held up."""
        return self.believed(traffic) if self.seen >= 2 else self.expected(traffic)

    def learn(self, traffic: float, seconds: float) -> None:
        """Moves the belief towards what a call took: damped, and bounded."""
        self.seen += 1
        if self.seen <= 0:
            return
        error = math.log(max(seconds, 1e-9) / self.expected(traffic))
        if len(self.first) < FIRST:
            self.first.append(error)
            self.off = sorted(self.first)[(len(self.first) - 1) // 2]
        else:
            self.off += GAIN * min(max(error - self.off, -STEP), STEP)
        self.off = min(max(self.off, -FURTHEST), FURTHEST)

    def forget(self) -> None:
        """Counts as never tried; what it took then is believed until it is."""
        self.seen = -1
        self.first.clear()


class Case:
    """Calls of one kind and about one size.

    again:  what the next call goes by, whatever else there is to try
    """

    def __init__(self, machine: Machine, shape: Shape):
        self.shape = shape
        self.traffic = shape.traffic
        self.arms = [*self._arms(machine)]
        self.current = min(self.arms, key=lambda arm: arm.expected(self.traffic))
        self.mask = 0  # of the number of a call that is timed
        self.calls = self.changes = self.trials = 0
        self.again: Arm | None = None
        self._last: Arm | None = None  # that a call was timed by
        self._changed_at, self._tried_at_off, self._fresh_at = 0, 0.0, FRESH

    def _arms(self, machine: Machine) -> Any:
        ends = [replace(self.shape, rows=math.ceil(f * self.shape.rows)) for f in (0.7, 1, 1.4)]
        usual = next(stages.settings(machine, self.shape))
        estimates = estimates_of(machine, self.shape, usual)
        best = min(one.seconds for one in estimates.values())
        chosen = [usual]
        # Where the pipeline is far from being the best way, its settings are not worth the millisecond to rank them.
        if estimates[PIPELINE].seconds < 2 * TRIED_WITHIN * best:
            # What was built, what the model thinks best, and the best of many buffers, for which it sees no difference.
            ranked = [one for _, one in ranked_settings(machine, self.shape)]
            many = next((one for one in ranked if one.depth == MOST_DEPTH), usual)
            chosen = list(dict.fromkeys((ranked[0], usual, many)))

        def arm(way: str, setting: Setting) -> Arm:
            at = [(end.traffic, estimates_of(machine, end, setting).get(way)) for end in ends]
            open_to = [(traffic, one.seconds) for traffic, one in at if one]
            return Arm(self, way, setting, open_to[0], open_to[-1])

        yield from (arm(way, chosen[0]) for way in (DOORBELL, LAUNCH) if way in estimates)
        yield from (arm(PIPELINE, setting) for setting in chosen)

    def next_arm(self) -> Arm:
        """What this call goes by: what is in use, but now and then what has yet to be tried."""
        arm, self.again = self.again, None
        if arm is not None:
            return arm
        if self.calls % TRIED_EVERY == 0 and self.current.seen >= TRIALS:
            takes = self.current.believed(self.traffic)
            for arm in self.arms:
                if arm.seen < TRIALS - 1 and arm.promised(self.traffic) <= TRIED_WITHIN * takes:
                    self.trials += 1
                    self.again = arm if takes < SAMPLED_BELOW_S else None
                    return arm
        return self.current

    def learn(self, arm: Arm, traffic: float, seconds: float) -> None:
        """What a call took; then, whether the case had better be served in another way."""
        takes, before, self._last = self.current.believed(self.traffic), self._last, arm
        is_short = takes < SAMPLED_BELOW_S
        if arm is before or not is_short:
            arm.learn(traffic, seconds)
        if self.calls >= SETTLING:
            often = EIGHTH if takes >= SHORT_S else SIXTY_FOURTH
            self.mask = often if is_short else 0
        if arm is self.current and len(arm.first) < FIRST:
            self._tried_at_off = arm.off
        elif arm is self.current and abs(arm.off - self._tried_at_off) > MOVED:
            self._tried_at_off = arm.off
            for one in self._others():  # what it took then says nothing any more
                one.forget()
        if self.calls >= self._fresh_at:
            self._fresh_at *= 2
            bound = TRIED_AGAIN * self.current.believed(self.traffic)
            for one in self._others():
                if one.believed(self.traffic) <= bound:
                    one.seen = min(one.seen, 0)  # what it took so far still counts
        if self.calls - self._changed_at >= WAIT << min(self.changes, 20):
            self._reconsider()

    def _others(self) -> list[Arm]:
        return [arm for arm in self.arms if arm is not self.current]

    def _reconsider(self) -> None:
        known = [arm for arm in self._others() if arm.seen >= TRIALS - 1]
        if not known:
            return
        best = min(known, key=lambda arm: arm.believed(self.traffic))
        if best.believed(self.traffic) < (1 - MARGIN) * self.current.believed(self.traffic):
            self.current, self._tried_at_off = best, best.off
            self.changes, self._changed_at = self.changes + 1, self.calls


class Tuner:
    """What the engine asks before a column's call, and tells after it.

    base:         what serves as long as no constants of this machine are known
    pinned:       by the caller, instead of all this
    bell:         keys that the doorbell takes at once; 0 where there is none
    room_nbytes:  of a ring
    load:         tells how full the index is

    machine:  its constants, or None
    tuning:   the thresholds in force where no machine is known
    follows:  whether calls are tuned: there are constants, and nothing is pinned
    """

    def __init__(
        self,
        base: Tuning,
        pinned: Tuning | None,
        bell: int,
        room_nbytes: int,
        load: Callable[[], float] = lambda: 0.5,
    ):
        self.bell, self.room_nbytes, self._load = bell, room_nbytes, load
        self.machine: Machine | None = None
        self._base = base
        self._cases: dict[tuple[str, int, int], Case] = {}
        self.pin(pinned)

    def pin(self, tuning: Tuning | None) -> None:
        """Has this decide from now on, or None: the tuner again."""
        self.pinned = tuning is not None
        self.tuning = (tuning or self._base).fitted(self.bell, self.room_nbytes)
        self.rings = self.tuning.doorbell_rows > 0  # for calls of a single key, which are not tuned
        self.follows = self.machine is not None and not self.pinned
        self._plain = {way: Arm(None, way, self.tuning.setting) for way in stages.WAYS}

    def adopt(self, machine: Machine) -> None:
        """Constants of this machine, from now on."""
        self.machine = machine
        self.follows = not self.pinned
        self._cases.clear()

    def turn(self, verb: str, rows: int, up: int, down: int) -> tuple[Arm, float]:
        """How a call of so many rows and bytes is to go, and when it began; 0.0 where nobody wants to know how it went.

        verb: `stages.FIND`, INSERT or PEEK
        """
        traffic = up + down
        if not self.follows or not traffic:
            return self._plain[self.tuning.way(rows, traffic)], 0.0
        case = self._cases.get((verb, rows.bit_length(), traffic.bit_length()))
        if case is None:
            case = self._open(verb, rows, up, down)
        case.calls += 1
        if case.calls & case.mask and case.again is None:
            return case.current, 0.0
        return case.next_arm(), time.perf_counter()

    def unserved(self, traffic: int) -> Arm:
        """How a call goes on that the doorbell would not serve."""
        return self._plain[self.tuning.way(0, traffic)]

    def ended(self, arm: Arm, traffic: int, began: float) -> None:
        """A call that began then has its answer now."""
        if arm.case is not None:
            arm.case.learn(arm, traffic, time.perf_counter() - began)

    def _open(self, verb: str, rows: int, up: int, down: int) -> Case:
        assert self.machine is not None
        case = Case(self.machine, self._here(Shape(verb, rows, up / rows, down / rows)))
        self._cases[verb, rows.bit_length(), (up + down).bit_length()] = case
        return case

    # ---- Telling

    @property
    def state(self) -> str:
        """Where choices come from: "pinned", "measured", or "as built"."""
        return "pinned" if self.pinned else "as built" if self.machine is None else "measured"

    def shape_of(self, verb: str, n: int, key_nbytes: float, value_nbytes: float) -> Shape:
        """A call on this cache as it is now."""
        return self._here(Shape.of(verb, n, key_nbytes, value_nbytes))

    def _here(self, shape: Shape) -> Shape:
        return replace(shape, load=self._load(), room_nbytes=self.room_nbytes, bell=self.bell)

    def chosen(self, shape: Shape) -> Choice | None:
        """What the model chooses for such a call; None as long as there are no constants."""
        return None if self.machine is None else choose(self.machine, shape)

    def case_of(self, shape: Shape) -> Case | None:
        """The case that such calls belong to, if there have been any."""
        up, down = int(shape.rows * shape.up), int(shape.rows * shape.down)
        return self._cases.get((shape.verb, shape.rows.bit_length(), (up + down).bit_length()))

    @property
    def changes(self) -> int:
        """How often any case has changed its mind."""
        return sum(case.changes for case in self._cases.values())

    @property
    def trials(self) -> int:
        """How often a way was tried, by a call or two."""
        return sum(case.trials for case in self._cases.values())
