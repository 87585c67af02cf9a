"""Replay of a recorded trace: the published Twemcache format, read into operations. Called by notebooks.

One request a line, `timestamp,key,key size,value size,client,operation,TTL`, times and TTLs in seconds, sizes in bytes, the
key anonymised (github.com/twitter/cache-trace; Yang, Yue, Rashmi, OSDI 2020). Plain, .gz or .zst, told by the name's end.

    get, gets                     READ
    set, add, replace, cas        WRITE: a condition is not replayed, and a value that was refused then is stored now
    append, prepend, incr, decr   READ_MODIFY_WRITE: the recorded size is that of what is written
    delete                        DELETE

Keys are used as they stand: anonymised ones need not have the recorded key size. Clients are not told apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from .operations import Data, Operations, Verb, noise

COLUMNS = ("timestamp", "key", "key size", "value size", "client", "operation", "TTL")
VERBS = {
    "get": Verb.READ,
    "gets": Verb.READ,
    "set": Verb.WRITE,
    "add": Verb.WRITE,
    "replace": Verb.WRITE,
    "cas": Verb.WRITE,
    "append": Verb.READ_MODIFY_WRITE,
    "prepend": Verb.READ_MODIFY_WRITE,
    "incr": Verb.READ_MODIFY_WRITE,
    "decr": Verb.READ_MODIFY_WRITE,
    "delete": Verb.DELETE,
}
_NAMES = pa.array(list(VERBS))
_CODES = np.array(list(VERBS.values()), np.uint8)
_STORES = np.array([False, True, True, False])  # by verb
_DIGITS = 18  # of a number that surely fits 64 bits


class TraceError(ValueError):
    """A trace that can't be replayed; the message names the file, the line and what is wrong with it."""


@dataclass(frozen=True)
class Trace:
    """What was recorded.

    operations:  in their order; record numbers are those of `data`, by first appearance; starts count from the first
    data:        every key of the trace. A record's own size, to fill a cache with, is the largest recorded with it, of
                 reads as well; 0 where it was never found nor stored. Values are noise.
    """

    operations: Operations
    data: Data


def read_trace(path: str | Path, *, most: int | None = None) -> Trace:
    """A trace file's first `most` requests, or all of them.

    Raises TraceError at the first line that is none of the format, or goes back in time.
    """
    path = Path(path)
    parts: list[dict[str, pa.Array]] = []
    line = 1
    for batch in _batches(path):
        wanted = batch.slice(0, None if most is None else most + 1 - line)
        parts.append(_columns(path, line, wanted))
        line += len(wanted)
        if most is not None and line > most:
            break
    if line == 1:
        raise TraceError(f"{path}: no requests")
    columns = {name: pa.chunked_array([part[name] for part in parts]) for name in parts[0]}
    return _trace(path, columns)


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The lines as columns of text. Numbers are read later, where a line's number is still known when one is bad."""
    broken: list[csv.InvalidRow] = []

    def note(row: csv.InvalidRow) -> str:
        broken.append(row)
        return "error"

    types = {name: pa.binary() if name == "key" else pa.string() for name in COLUMNS}
    try:
        yield from csv.open_csv(
            path,
            csv.ReadOptions(column_names=COLUMNS, use_threads=False),
            csv.ParseOptions(quote_char=False, ignore_empty_lines=False, invalid_row_handler=note),
            csv.ConvertOptions(column_types=types, check_utf8=False),
        )
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        if broken:
            found, expected = broken[0].actual_columns, broken[0].expected_columns
            what = f"{found} columns, not {expected}"
            raise TraceError(f"{path}: line {broken[0].number}: {what}") from error
        raise TraceError(f"{path}: {error}") from error


def _columns(path: Path, line: int, batch: pa.RecordBatch) -> dict[str, pa.Array]:
    """Numbers for the texts of one part, which begins at that line; all but the client."""
    verb = pc.index_in(batch["operation"], _NAMES)
    _refuse(path, line, pc.is_null(verb), batch["operation"], "no operation")
    _refuse(path, line, pc.equal(pc.binary_length(batch["key"]), 0), batch["key"], "an empty key")
    columns = {"key": batch["key"], "verb": verb}
    for name in ("timestamp", "key size", "value size", "TTL"):
        text = batch[name]
        number = pc.and_(pc.ascii_is_decimal(text), pc.less_equal(pc.binary_length(text), _DIGITS))
        _refuse(path, line, pc.invert(number), text, f"no {name}")
        columns[name] = text.cast(pa.int64())
        if name in ("value size", "TTL"):
            beyond = pc.greater(columns[name], np.iinfo(np.int32).max)
            _refuse(path, line, beyond, text, f"too large a {name}")
    return columns


def _refuse(path: Path, line: int, bad: pa.Array, texts: pa.Array, what: str) -> None:
    row = pc.index(bad, True).as_py()
    if row >= 0:
        text = texts[row].as_buffer().to_pybytes()
        raise TraceError(f"{path}: line {line + row}: {text[:64]!r} is {what}")


def _trace(path: Path, columns: dict[str, pa.ChunkedArray]) -> Trace:
    since = columns["timestamp"].to_numpy()
    back = np.flatnonzero(np.diff(since) < 0)
    if len(back):
        before, after = since[back[0]], since[back[0] + 1]
        raise TraceError(f"{path}: line {back[0] + 2}: time goes back from {before} s to {after} s")
    encoded = columns["key"].dictionary_encode()  # one dictionary for all chunks
    keys = encoded.chunk(0).dictionary
    record = np.concatenate([chunk.indices.to_numpy() for chunk in encoded.chunks]).astype(np.int64)
    verb = _CODES[columns["verb"].to_numpy()]
    nbytes = columns["value size"].to_numpy().astype(np.int32)
    largest = np.zeros(len(keys), np.int32)
    np.maximum.at(largest, record, nbytes)
    stores = _STORES[verb]
    operations = Operations(
        verb,
        record,
        nbytes * stores,
        start_s=(since - since[0]).astype(np.float64),
        ttl_s=columns["TTL"].to_numpy().astype(np.int32) * stores,
    )
    data = Data(
        path.name,
        len(keys),
        keys=lambda numbers: keys.take(pa.array(numbers)),
        value_nbytes=lambda numbers: largest[numbers],
        values=noise,
    )
    return Trace(operations, data)
