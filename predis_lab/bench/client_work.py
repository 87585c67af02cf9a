"""What one client among many does, and how its answers are judged. Called by `clients`, in threads and in processes.

Values tell whose they are and when they were written: the key, then the moment of the write, six times. Each key is written
by one client only, so that its moments ascend, and an answer can be one of four:

    right    whole, of its key, and no older than the last write that had ended before it was asked for
    torn     not whole: of two writes, of another key, or of another length
    stale    older than that
    missing  none, though no key is ever deleted

Nothing but NumPy, Arrow and the systems' clients is imported: processes start with this.
"""

from __future__ import annotations

import gc
import itertools
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import redis

from .operations import numbered_keys
from .scenarios import trading
from .servers import ERRORS, Server
from .workloads import fixed_array

KEY_NBYTES, STAMPS = 16, 6
VALUE_NBYTES = KEY_NBYTES + 8 * STAMPS
STEPS = 4096  # calls of a client that rotate
MISSING, TORN = -1, -2  # in place of the moment of a write
_NOTHING = b"\xff" * VALUE_NBYTES
KINDS = ("refused", "missing", "torn", "stale")

_pack = struct.Struct("<q").pack


def keys_of(records: int) -> pa.Array:
    """The keys of all records."""
    return numbered_keys(np.arange(records), KEY_NBYTES)


def values_of(keys: Sequence[bytes], moment: int) -> list[bytes]:
    """A value for each key, written at that moment (ns)."""
    stamps = _pack(moment) * STAMPS
    return [key + stamps for key in keys]


@dataclass(frozen=True)
class Plan:
    """A client's calls, which rotate.

    rows:    int32 (calls, keys a call), numbers of the records
    writes:  bool (calls,); others read
    """

    rows: np.ndarray
    writes: np.ndarray

    @classmethod
    def of(cls, client: int, clients: int, records: int, batch: int, *, seed: int) -> Plan:
        """Trading: 90 % reads, hot records more often. Writes go to records whose number is the client's, modulo `clients`."""
        calls = max(64, STEPS // batch)
        operations = trading(records).operations(calls * clients * batch, seed=seed)
        rows = operations.record.reshape(clients, calls, batch)[client].astype(np.int32)
        writes = operations.verb.reshape(clients, calls, batch)[client, :, 0] != 0
        own = rows - rows % clients + client
        own[own >= records] -= clients
        return cls(np.where(writes[:, None], own, rows), writes)


@dataclass(frozen=True)
class Face:
    """How a system is asked: prepare(keys) -> argument of both; get(argument) -> answer; put(argument, moment)."""

    prepare: Callable[[list[bytes]], Any]
    get: Callable[[Any], Any]
    put: Callable[[Any, int], Any]


def singles(get: Callable[[bytes], Any], put: Callable[[bytes, bytes], Any]) -> Face:
    """One key a call."""

    def write(key: bytes, moment: int) -> None:
        put(key, key + _pack(moment) * STAMPS)

    return Face(lambda keys: keys[0], get, write)


def lists(get: Callable[[list[bytes]], Any], put: Callable[[dict[bytes, bytes]], Any]) -> Face:
    """A list of keys, a dict of records."""

    def write(keys: list[bytes], moment: int) -> None:
        put(dict(zip(keys, values_of(keys, moment), strict=True)))

    return Face(lambda keys: keys, get, write)


def columns(
    find: Callable[[pa.Array], pa.Array], insert: Callable[[pa.Array, pa.Array], Any]
) -> Face:
    """Arrow arrays."""

    def write(keys: pa.Array, moment: int) -> None:
        grid = np.empty((len(keys), VALUE_NBYTES), np.uint8)
        grid[:, :KEY_NBYTES] = np.frombuffer(keys.buffers()[1], np.uint8).reshape(-1, KEY_NBYTES)
        grid[:, KEY_NBYTES:] = np.frombuffer(_pack(moment) * STAMPS, np.uint8)
        insert(keys, fixed_array(grid.reshape(-1), VALUE_NBYTES, len(keys)))

    return Face(lambda keys: pa.array(keys, pa.binary(KEY_NBYTES)), find, write)


@dataclass(frozen=True)
class Log:
    """What a client did in one block.

    rows:          int32 (calls, keys a call); writes: bool (calls,)
    began, ended:  int64 (calls,), ns, of the machine's clock
    seen:          int64 (calls, keys a call): when what was read had been written, or MISSING, TORN; of writes, when they did
    refused:       bool (calls,): an error was raised
    """

    rows: np.ndarray
    writes: np.ndarray
    began: np.ndarray
    ended: np.ndarray
    seen: np.ndarray
    refused: np.ndarray


class Client:
    """Makes a plan's calls, each as soon as the one before is answered."""

    def __init__(self, face: Face, plan: Plan, keys: Sequence[bytes]):
        self._plan, self._face, self._at = plan, face, 0
        self._key_words = np.frombuffer(b"".join(keys), np.int64).reshape(-1, KEY_NBYTES // 8)
        self._told: tuple[list[int], list[int], list[Any]] = ([], [], [])
        self._asked = [face.prepare([keys[row] for row in rows]) for rows in plan.rows.tolist()]

    def run(self, starts_ns: int, seconds: float) -> None:
        """From that moment on, or from now if that is over. What came of it `log` says, when no client is at work any more."""
        clock, get, put = time.perf_counter_ns, self._face.get, self._face.put
        steps = list(zip(self._asked, self._plan.writes.tolist(), strict=True))
        turning = itertools.islice(itertools.cycle(steps), self._at, None)
        answers: list[Any] = []
        began: list[int] = []
        ended: list[int] = []
        while (now := clock()) < starts_ns:
            time.sleep(min(1e-3, (starts_ns - now) * 1e-9))
        over = now + int(seconds * 1e9)
        for argument, writes in turning:
            began.append(now)
            try:
                # A write's value says when it began.
                answers.append(put(argument, now) if writes else get(argument))
            except ERRORS as error:
                answers.append(error)
            now = clock()
            ended.append(now)
            if now >= over:
                break
        self._told = began, ended, answers

    def log(self) -> Log:
        """Of the last run."""
        began, ended, answers = self._told
        calls = len(self._asked)
        steps = (self._at + np.arange(len(ended))) % calls
        self._at = (self._at + len(ended)) % calls
        rows, writes = self._plan.rows[steps], self._plan.writes[steps]
        began_ns = np.array(began, np.int64)
        refused = np.array([isinstance(answer, Exception) for answer in answers])
        seen = np.repeat(began_ns[:, None], rows.shape[1], axis=1)
        read = np.flatnonzero(~refused & ~writes)
        told = [value for call in read.tolist() for value in _as_list(answers[call])]
        seen[read] = self._moments(rows[read].reshape(-1), told).reshape(-1, rows.shape[1])
        return Log(rows, writes, began_ns, np.array(ended, np.int64), seen, refused)

    def _moments(self, rows: np.ndarray, values: list[bytes | None]) -> np.ndarray:
        """When the values were written that were read for these records; MISSING, or TORN where they can't have been."""
        whole = [value if value and len(value) == VALUE_NBYTES else _NOTHING for value in values]
        words = np.frombuffer(b"".join(whole), np.int64).reshape(-1, VALUE_NBYTES // 8)
        stamps = words[:, KEY_NBYTES // 8 :]
        right = (stamps == stamps[:, :1]).all(axis=1) & (stamps[:, 0] >= 0)
        right &= (words[:, : KEY_NBYTES // 8] == self._key_words[rows]).all(axis=1)
        missing = np.fromiter((value is None for value in values), bool, len(values))
        return np.where(missing, MISSING, np.where(right, stamps[:, 0], TORN))


def _as_list(answer: Any) -> list[bytes | None]:
    if isinstance(answer, pa.Array):
        return answer.to_pylist()
    return answer if isinstance(answer, list) else [answer]


def judge(logs: Iterable[Log], oldest: np.ndarray) -> dict[str, int]:
    """How many keys of all clients' calls were answered wrongly, by kind.

    oldest:  int64 by record, when each had last been written before the block; brought up to date
    """
    logs = list(logs)
    parts = {
        name: np.concatenate([_flat(log, name) for log in logs])
        for name in ("row", "began", "ended", "seen")
    }
    wrote = np.concatenate([_flat(log, "writes") for log in logs])
    refused = np.concatenate([_flat(log, "refused") for log in logs])
    row, seen = parts["row"], parts["seen"]
    reads = ~wrote & ~refused
    missing, torn = reads & (seen == MISSING), reads & (seen == TORN)
    needed = _needed(parts, wrote & ~refused, oldest)
    whole = reads & (seen >= 0)
    # A value from the future is no value that anybody had written.
    stale = whole & (seen < needed)
    future = whole & (seen > parts["ended"])
    np.maximum.at(oldest, row[wrote & ~refused], seen[wrote & ~refused])
    counts = (refused.sum(), missing.sum(), torn.sum() + future.sum(), stale.sum())
    return dict(zip(KINDS, map(int, counts), strict=True))


def _needed(parts: dict[str, np.ndarray], wrote: np.ndarray, oldest: np.ndarray) -> np.ndarray:
    """For each answer the moment of the last write of its record that had ended before it was asked for."""
    origin = min(parts["began"].min(), parts["ended"].min())
    by_write = (parts["row"][wrote].astype(np.int64) << 40) | (parts["ended"][wrote] - origin)
    order = np.argsort(by_write)
    by_write, moments = by_write[order], parts["seen"][wrote][order]
    asked = (parts["row"].astype(np.int64) << 40) | (parts["began"] - origin)
    place = np.searchsorted(by_write, asked, side="right") - 1
    needed = oldest[parts["row"]].copy()
    found = place >= 0
    same = np.zeros(len(place), bool)
    same[found] = (by_write[place[found]] >> 40) == parts["row"][found]
    needed[same] = np.maximum(needed[same], moments[place[same]])
    return needed


def _flat(log: Log, name: str) -> np.ndarray:
    """One entry a key."""
    if name == "row":
        return log.rows.reshape(-1)
    if name == "seen":
        return log.seen.reshape(-1)
    return np.repeat(getattr(log, name), log.rows.shape[1])


# ---- In a process of its own


def serve(pipe: Any, server: Server) -> None:
    """A client process's whole life: told its plan, then when to run, until it is told nothing more."""
    gc.disable()
    store = server.client(server.transports[0])
    client: Client | None = None
    while (told := pipe.recv()) is not None:
        if not isinstance(told[0], Plan):
            assert client is not None
            client.run(*told)
            pipe.send(client.log())
            gc.collect(0)  # what is old is not looked through each time
        else:
            plan, batch, records = told
            client = Client(redis_face(store, batch), plan, keys_of(records).to_pylist())
            pipe.send(None)


def redis_face(client: redis.Redis, batch: int) -> Face:
    """GET and SET, or MGET and MSET."""
    return singles(client.get, client.set) if batch == 1 else lists(client.mget, client.mset)
