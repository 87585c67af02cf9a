"""The ladder: what each idea in the kernels is worth, from a plain hash table to the one that serves the cache.

`RUNGS` names the steps and the reason for each; `ladder_table.LadderTable` is a table built as one of them says. The CUDA
sources, `kernels/ladder_*.cu`, hold every rung behind compile-time definitions. Called by the notebooks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FIND, INSERT, ERASE = OPERATIONS = ("find", "insert", "erase")
SLOT_NBYTES = 8
LAST = "v10"  # of the climb: what serves the cache does as it does


@dataclass(frozen=True)
class Rung:
    """One idea, and the definitions by which it differs from its parent.

    operations:  those whose code it changes; the others are as its parent's
    load:        records per slot of its tables, unless told otherwise
    """

    name: str
    title: str
    reason: str
    parent: str | None
    changes: Mapping[str, int | str]
    operations: tuple[str, ...] = OPERATIONS
    load: float = 0.8

    def settings(self, operation: str) -> dict[str, int | str]:
        """The definitions of one operation's kernel, by name."""
        inherited = RUNGS[self.parent].settings(operation) if self.parent else {}
        return {**inherited, **(self.changes if operation in self.operations else {})}

    def defines(self, operation: str) -> tuple[str, ...]:
        """The same as compile options: ("NAME=VALUE", ...)."""
        settings = self.settings(operation)
        return tuple(f"{name}={settings[name]}" for name in sorted(settings))

    def bytes_moved(self, operation: str, key_nbytes: int, value_nbytes: int) -> int:
        """Bytes per key that an operation must read and write, counted by hand: of a hit, or a new key, at its first place.

        find    query + place + header, key and value of the record + value and found byte of the answer
        insert  key and value of the columns + place + header, key and value written + slot swapped + status
        erase   query + place + header and key + slot swapped + answer

        A place is a slot or a bucket; that of v1 is the entry itself, whose header is read and whose state is swapped.

        >>> RUNGS["v1"].bytes_moved("find", 16, 64), RUNGS["v10"].bytes_moved("find", 16, 64)
        (177, 241)
        """
        k, v, layout = key_nbytes, value_nbytes, self.settings(INSERT)
        header = int(layout.get("HEADER_NBYTES", 16))
        place = SLOT_NBYTES * (int(layout.get("BUCKET_SLOTS", 8)) if layout["BUCKETED"] else 1)
        vacant, swap = place, SLOT_NBYTES
        if layout["PLAIN"]:
            place, vacant, swap = 0, header, 4
        return {
            FIND: k + place + (header + k + v) + v + 1,
            INSERT: (k + v) + vacant + (header + k + v) + swap + 1,
            ERASE: k + place + (header + k) + swap + 1,
        }[operation]


_CLIMB = (
    Rung(
        "v1",
        "plain",
        "open addressing over entries with a 4 KiB value slot, one thread per key, byte by byte",
        None,
        {
            "PLAIN": 1,
            "WORDS": 0,
            "TAGS": 0,
            "BUCKETED": 0,
            "SHARED_COPY": 0,
            "TOGETHER": 0,
            "FUSED": 0,
            "PIECES_AT_ONCE": 1,
            "HINTS": 0,
            "HASH": "FNV_BYTES",
        },
    ),
    Rung(
        "v2",
        "a log and an index",
        "slots of 8 bytes point to compact records: probes lie close together, and publishing is one compare-and-swap",
        "v1",
        {"PLAIN": 0},
    ),
    Rung(
        "v3",
        "vector loads",
        "one instruction moves, compares or hashes 16 bytes rather than one",
        "v2",
        {"WORDS": 1, "HASH": "FOLDED"},
    ),
    Rung(
        "v4",
        "fingerprints",
        "16 bits in the slot tell a record apart without a visit to it: one visit per lookup, not one per probe",
        "v3",
        {"TAGS": 1},
    ),
    Rung(
        "v5",
        "sector-aligned buckets",
        "four slots are read at once, a sector; slot by slot, each read waits for the one before",
        "v4",
        {"BUCKETED": 1},
    ),
    Rung(
        "v6",
        "lanes share the copy",
        "neighbouring lanes move neighbouring bytes: whole lines per request, and no lane idles",
        "v5",
        {"SHARED_COPY": 1},
        (FIND, INSERT),
    ),
    Rung(
        "v7",
        "lanes share the buckets",
        "four lanes read a bucket in one request; requests leaving a multiprocessor bound random access, not bytes",
        "v6",
        {"TOGETHER": 1},
    ),
    Rung(
        "v8",
        "one visit to a record",
        "header, key and value are read side by side, and the value is written while the key is compared",
        "v7",
        {"FUSED": 1},
    ),
    Rung(
        "v9",
        "several pieces under way",
        "a lane asks for six pieces before it waits for the first: latency is paid once for all of them",
        "v8",
        {"PIECES_AT_ONCE": 6},
    ),
    Rung(
        "v10",
        "cache hints",
        "random sectors stay out of L1; columns read or written once leave L2 first, and leave it to the index",
        "v9",
        {"HINTS": 1},
        (FIND, INSERT),
    ),
)

_BESIDE = (
    Rung(
        "bucket32",
        "buckets of 32 bytes",
        "one sector a bucket instead of two; but of four slots, at load 0.8, more are full and send the search on",
        LAST,
        {"BUCKET_SLOTS": 4},
    ),
    Rung(
        "align32",
        "records at multiples of 32 bytes",
        "no record straddles one sector more than it must, for up to 16 bytes of padding",
        LAST,
        {"RECORD_ALIGN": 32},
    ),
    Rung(
        "align64",
        "records at multiples of 64 bytes",
        "DRAM answers with 64 bytes: no record straddles one access more than it must, for up to 48 bytes of padding",
        LAST,
        {"RECORD_ALIGN": 64},
    ),
    Rung(
        "compact",
        "a header of 8 bytes",
        "the lengths alone: 8 bytes a record less, but key and value then go in pieces of 8, twice as many requests",
        LAST,
        {"HEADER_NBYTES": 8},
    ),
    Rung(
        "fnv",
        "FNV-1a over words",
        "the cheapest step per word; each waits for the one before, and the high bits need a mix at the end",
        LAST,
        {"HASH": "FNV_WORDS"},
    ),
    Rung(
        "murmur",
        "Murmur3's finalizer over words",
        "each word is mixed fully by two multiplications; the folded product needs one for two words",
        LAST,
        {"HASH": "MURMUR"},
    ),
    Rung(
        "two_choice",
        "the emptier of two buckets",
        "few buckets are ever full; but a hit reads one and a half on average, a miss always two, and an insert locks",
        LAST,
        {"CHOICES": "TWO"},
    ),
    Rung(
        "cuckoo",
        "bucketed cuckoo",
        "no key is further than its second bucket; an insert locks, and may move another key. At load 0.77: at 0.8 "
        "one in some millions finds no room by one move",
        LAST,
        {"CHOICES": "CUCKOO"},
        load=0.77,
    ),
    Rung(
        "keep_index",
        "buckets leave L2 last",
        "an index that fits L2 stays there while records stream through; CuPy can't set a persisting window, a load can ask",
        LAST,
        {"KEEP_INDEX": 1},
    ),
    Rung(
        "staged",
        "records through shared memory",
        "asynchronous copies need no registers: eight pieces under way per lane, for long keys and values",
        LAST,
        {"STAGED": 1, "PIECES_AT_ONCE": 8},
        (FIND,),
    ),
)

RUNGS: dict[str, Rung] = {rung.name: rung for rung in (*_CLIMB, *_BESIDE)}
