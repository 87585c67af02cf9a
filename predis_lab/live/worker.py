"""The load process: a cache, a Redis, client threads, and slices of both systems in turn. Started by `remote`.

It reads commands from its standard input, one JSON object a line, and writes messages to its standard output likewise; it
ends when its input does. Only one system is under load at a time: first one slice of the one, then one of the other, in
random order, so that neither takes cores from the other. What the page costs is paid in another process.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import redis

from ..bench import contestants, servers
from ..bench.environment import describe_machine
from ..client import Predis
from ..errors import DeviceFailed, DeviceTimeout, DeviceUnavailable
from . import plays
from .crew import Crew, Played
from .latencies import Window
from .readings import Readings
from .scenes import DAY_S, PERIOD_S, SLICE_S, Controls, Scene, as_dict, offered, scene_of

WINDOW_S = 5.0  # that percentiles are taken over
RETRY_S = 0.5  # between two looks for a Redis that went away
RESTART_S = 3.0  # after which a Redis of our own is started anew
SEED = 7
EXIT_DEVICE = 3
Message = dict[str, Any]


class Stage:
    """What is set up for one scene and its controls: filled systems, client threads, work for each."""

    def __init__(self, name: str, controls: Controls, cache: Predis, server: servers.Server):
        self.name, self.controls, self.scene = name, controls, scene_of(name)
        scenario = self.scene.scenario(name, controls)
        contestants.load(cache, [server], scenario.data.filled())
        self.transport = server.transports[0]
        self.systems = plays.system_names(cache, controls.batch, self.transport)
        self.clients = [server.client(self.transport) for _ in range(controls.threads)]
        asked: dict[str, Any] = {
            "threads": controls.threads,
            "hints": self.scene.hints,
            "seed": SEED,
        }
        work = plays.work_of(scenario, controls.batch, **asked)
        if controls.batch == 1:
            sides = [
                [plays.single(cache)] * controls.threads,
                [plays.single(c) for c in self.clients],
            ]
        else:
            sides = [
                [plays.columns(cache)] * controls.threads,
                [plays.commands(c) for c in self.clients],
            ]
        for system, calls in zip(self.systems, sides, strict=True):
            plays.check(system, calls[0], scenario, controls.batch, SEED)
        self.parts = [plays.parts_of(work, calls) for calls in sides]
        self.windows = [Window(WINDOW_S) for _ in sides]
        self.due, self.day_s = offered(self.scene, controls, SEED), 0.0
        self.crew = Crew(controls.threads)

    def pair(self, generator: np.random.Generator) -> list[Played]:
        """One slice of each system, in random order; both are offered the same moments of the day."""
        due = None if self.due is None else self._next_moments()
        told: dict[int, Played] = {}
        for side in generator.permutation(2).tolist():
            told[side] = self.crew.play(self.parts[side], SLICE_S, due)
        return [told[0], told[1]]

    def close(self) -> None:
        """Ends threads and connections."""
        self.crew.close()
        for client in self.clients:
            client.close()

    def _next_moments(self) -> np.ndarray:
        assert self.due is not None
        start, self.day_s = self.day_s, (self.day_s + SLICE_S) % DAY_S
        first, last = np.searchsorted(self.due, [start, start + SLICE_S])
        return self.due[first:last] - start


class Worker:
    """Obeys commands and plays what they ask for. say: takes each message."""

    def __init__(self, backend: str, capacity: str, say: Callable[[Message], None]):
        self.backend, self.capacity, self.say = backend, capacity, say
        self.commands: queue.Queue[Message | None] = queue.Queue()
        self.generator = np.random.default_rng(SEED)
        self.server: servers.Server | None = None
        self.cache: Predis | None = None
        self.stage: Stage | None = None
        self.wanted: tuple[str, Controls] | None = None
        self.playing = False
        self.readings = Readings()
        self.began = time.monotonic()

    def run(self) -> None:
        """Until the input ends."""
        self.server = servers.start("redis")
        self._open(None)
        assert self.cache is not None
        told = self.cache.info("server")
        self.say(
            {
                "kind": "facts",
                "backend": told["backend"],
                "device": told["device"],
                "server": self.server.describe(),
                "environment": describe_machine(),
                "pid": os.getpid(),
            }
        )
        due = time.monotonic()
        while self._obey():
            if not self.playing:
                continue
            try:
                self._play()
            except redis.RedisError as error:
                self._without_redis(error)
            # A fixed raster: what one pair takes longer is not carried over to the next.
            due = max(due + PERIOD_S, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))

    def close(self) -> None:
        """Gives everything back."""
        self.readings.close()
        self._strike()
        if self.cache is not None:
            self.cache.close()
        if self.server is not None:
            self.server.close()

    def _obey(self) -> bool:
        """Takes what commands there are; waits for one while nothing is played. False where there will be none."""
        wait = not self.playing
        while wait or not self.commands.empty():
            command = self.commands.get()
            wait = False
            if command is None:
                return False
            if command["do"] == "play":
                self.wanted = command["scene"], Controls(**command["controls"])
                self.playing = True
            else:
                self.playing = False
                self.say({"kind": "phase", "phase": "stopped"})
        return True

    def _play(self) -> None:
        assert self.wanted is not None
        if self.stage is None or (self.stage.name, self.stage.controls) != self.wanted:
            self._set_up(*self.wanted)
        stage = self.stage
        assert stage is not None and self.cache is not None and self.server is not None
        gc.disable()
        try:
            played = stage.pair(self.generator)
        finally:
            gc.enable()
        gc.collect(0)
        at = time.monotonic() - self.began
        readings, renewed = self.readings.read(self.cache, self.server, stage.controls)
        self.say(
            {
                "kind": "tick",
                "at": at,
                "scene": stage.name,
                "controls": as_dict(stage.controls),
                "sides": [
                    self._told(stage, side, slice_, at) for side, slice_ in enumerate(played)
                ],
                "readings": readings,
                "renewed": renewed,
            }
        )

    def _told(self, stage: Stage, side: int, played: Played, at: float) -> Message:
        window = stage.windows[side]
        if played.calls:
            window.add(np.maximum(played.latencies_ns, 1), at)
        operations = played.calls * stage.controls.batch
        return {
            "system": stage.systems[side],
            "rate": operations / played.seconds,
            "unsent": played.unsent * stage.controls.batch,
            "p50": window.percentile(50.0),
            "p99": window.percentile(99.0),
        }

    def _set_up(self, name: str, controls: Controls) -> None:
        self.say({"kind": "phase", "phase": "preparing"})
        self._strike()
        scene = scene_of(name)
        self._open(scene)
        assert self.cache is not None and self.server is not None
        self.stage = Stage(name, controls, self.cache, self.server)
        self.stage.pair(self.generator)  # warms up what there is to warm up, and is not told
        gc.collect()
        gc.freeze()  # what is set up now is not looked through again between slices
        self.say({"kind": "phase", "phase": "playing"})

    def _strike(self) -> None:
        if self.stage is not None:
            self.stage.close()
            self.stage = None
            gc.unfreeze()

    def _open(self, scene: Scene | None) -> None:
        """A cache of its own for each scene: some want less of the device's memory than their records take."""
        if self.cache is not None:
            self.cache.close()
        capacity, host = (scene and scene.capacities) or (self.capacity, 0)
        self.cache = Predis(capacity, host_capacity=host, backend=self.backend)
        self.backend = contestants.backend_of(self.cache)  # and never another one by itself

    def _without_redis(self, error: Exception) -> None:
        """Says so, and waits until it answers again; one of our own is started anew after a while."""
        self.say({"kind": "trouble", "who": "Redis", "said": _words(error)})
        with suppress(redis.RedisError):
            self._strike()
        self.stage, since = None, time.monotonic()
        assert self.server is not None
        while not self._redis_answers():
            time.sleep(RETRY_S)
            if not self.commands.empty() and self.commands.queue[0] is None:
                return
            if self.server.ours and time.monotonic() - since > RESTART_S:
                self.server.close()
                self.server = servers.start("redis")
        self.say({"kind": "well", "who": "Redis", "server": self.server.describe()})

    def _redis_answers(self) -> bool:
        assert self.server is not None
        client = self.server.client(self.server.transports[0], socket_timeout=1.0)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


def main() -> int:
    """The exit code: 0 where the input ended, EXIT_DEVICE where the GPU failed, 1 for anything else."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--capacity", default="1GiB")
    options = parser.parse_args()
    # Whatever prints, prints to the log; the messages have the output for themselves.
    output = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(message: Message) -> None:
        output.write(json.dumps(message) + "\n")

    worker = Worker(options.backend, options.capacity, say)

    def listen() -> None:
        for line in sys.stdin:
            worker.commands.put(json.loads(line))
        worker.commands.put(None)

    threading.Thread(target=listen, daemon=True).start()
    code = 0
    try:
        worker.run()
    except (DeviceFailed, DeviceTimeout, DeviceUnavailable) as error:
        say({"kind": "trouble", "who": "GPU", "said": _words(error)})
        code = EXIT_DEVICE
    except Exception as error:  # noqa: BLE001 - the page says what ended the load
        traceback.print_exc()
        say({"kind": "trouble", "who": "load process", "said": _words(error)})
        code = 1
    finally:
        with suppress(Exception):
            worker.close()
    return code


if __name__ == "__main__":
    sys.exit(main())
