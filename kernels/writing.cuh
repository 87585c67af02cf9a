// What inserts and erasures do with rows: shared by the kernels of insert.cu and erase.cu, and by the block of doorbell.cu.
#include "stretches.cuh"
#include "probe.cuh"
#include "counters.cuh"

// Orders what one thread of a launch writes before what another does that has seen some of it.
#ifndef LAUNCH_FENCE
#define LAUNCH_FENCE __threadfence
#endif

#define STORED 0
#define UPDATED 1
#define SUPERSEDED 2
#define NO_SPACE 4
#define OWN_KEY_NBYTES 64  // keys up to here are written by their own thread, word by word

// One tile's rows on their way to the log. In shared memory.
struct Writing {
    u8* records[TILE];
    const u8* keys[TILE];
    const u8* values[TILE];
    u32 key_lengths[TILE];
    u32 value_lengths[TILE];
    u64 start;
};

// Writes one tile of `count` records to the log, from row `first` on; TILE at most. list, n: as of `emit`. The whole block calls.
__device__ __forceinline__ void write_tile(
    Writing& room, const Column& keys, const Column& values, u64 first, u32 count, u64 expiry, u8* log, u64* places,
    u64 first_row, signed char* status, u64* counters, u64* work, Stretches* list = nullptr, u64 n = 1) {
    u32 t = threadIdx.x;
    u64 i = first + t;
    Key key = {};
    const u8* value = nullptr;
    u64 value_nbytes = 0, nbytes = 0;
    if (t < count) {
        key = load_key(keys, i);
        value = row(values, i, value_nbytes);
        status[first_row + i] = STORED;
        nbytes = record_nbytes(key.nbytes, value_nbytes);
        note_length(counters, value_nbytes);
    }
    u64 tile_nbytes, before = block_scan(nbytes, tile_nbytes);
    if (t == 0) room.start = atomicAdd(work, tile_nbytes);
    __syncthreads();

    u8* record = log + room.start + before;
    if (nbytes) {
        places[i] = (u64)record;
        *(uint4*)record = pack_header(value_nbytes, first_row + i, key.nbytes, expiry);
        u64* words = (u64*)(record + HEADER);
        if (key.nbytes <= OWN_KEY_NBYTES) {
            // What reaches into the value is written over after the barrier. A record has 32 bytes or more.
            *(ulonglong2*)words = {key.first, key.second};
            for (u64 at = 16; at < key.nbytes; at += 8) {
                words[at / 8] = load_word<COLUMN>(key.data + at, min(key.nbytes - at, 8ull));
            }
        }
    }
    room.records[t] = record;
    room.keys[t] = key.data;
    room.values[t] = value;
    room.key_lengths[t] = key.nbytes;
    room.value_lengths[t] = value_nbytes;
    if (list && room.value_lengths[t] >= LONG_NBYTES) {
        u8* to = room.records[t] + HEADER + room.key_lengths[t];
        if (list_long(list, n, to, room.values[t], room.value_lengths[t])) room.value_lengths[t] = 0;
    }
    __syncthreads();

#ifdef ONE_BLOCK
    copy_long<COLUMN>(count, room.value_lengths, [&](u32 r) {
        return Stretch{room.records[r] + HEADER + room.key_lengths[r], room.values[r], room.value_lengths[r]};
    });
#endif
    u32 lanes = lanes_per_row(tile_nbytes, count);
    if (__any_sync(ALL, room.key_lengths[t] > OWN_KEY_NBYTES)) {
        // A warp's own rows: other warps need not have any.
        for (u32 r = t & ~31u; r < (t | 31u) + 1; ++r) {
            u32 key_nbytes = room.key_lengths[r] > OWN_KEY_NBYTES ? room.key_lengths[r] : 0;
            copy_row<COLUMN>(room.records[r] + HEADER, room.keys[r], key_nbytes, t % 32, 32);
        }
    }
    for (u32 r = t / lanes; r - t % 32 / lanes < count; r += TILE / lanes) {  // while the warp has one
        copy_row<COLUMN>(room.records[r] + HEADER + room.key_lengths[r], room.values[r], room.value_lengths[r], t % lanes, lanes);
    }
}

// Where the batch has written so far, begin and end of each stretch: in this segment, and in earlier ones.
struct Batch {
    const u8 *begin, *end;
    const u64* earlier;
    u64 n_earlier;

    __device__ __forceinline__ bool wrote(const u8* record) const {
        bool did = record >= begin && record < end;
        for (u64 e = 0; e < n_earlier && !did; ++e) {
            did = (u64)record >= earlier[2 * e] && (u64)record < earlier[2 * e + 1];
        }
        return did;
    }
};

__device__ __forceinline__ u64 nbytes_of(const Header& header) {
    return record_nbytes(header.key_nbytes, header.value_nbytes);
}

// Puts the addresses of n records into the slots of their keys, and settles. Every thread of every block calls.
__device__ __forceinline__ void publish_rows(
    Lookups& mine, Changes& changes, const Column& keys, u64 n, u64* index, u64 buckets, u64 now, const u8* log, u64 nbytes,
    const u64* places, const Batch& batch, u64 first_row, signed char* status, u64* counters, u64* report, u64* work) {
    u32 lane = threadIdx.x % 32;
    Spot &match = mine.match[lane], &vacant = mine.vacant[lane];
    start(changes);
    if (blockIdx.x == 0 && threadIdx.x == 0) atomicAdd(&changes.live_nbytes, *(volatile u64*)work);
    for (u64 i = (u64)blockIdx.x * TILE + threadIdx.x; i - lane < n; i += (u64)gridDim.x * TILE) {
        bool wanted = i < n, claimed = false, far = false;
        u32 dead_nbytes = 0;
        u64 slot = 0;
        Finding finding;
        {
            Key key = wanted ? load_key(keys, i) : Key{};
            u64 h = hash(key);
            slot = slot_of(h, !wanted ? nullptr : places ? (const u8*)places[i] : log + i * nbytes);
            finding = look_up(mine, mine.vacant, key, h, wanted, index, buckets);
        }
        u32 row = first_row + i;
#ifdef FEW_ROWS
        // Equal keys of a warp find one slot: only the highest row contends for it, for each that comes too late looks again.
        bool present = wanted && finding == PRESENT;
        u32 equal = __match_any_sync(ALL, present ? (u64)match.at : (u64)lane);
        if (present && equal >> lane > 1) {
            status[row] = SUPERSEDED;
            dead_nbytes = nbytes_of(load_header(record_of(slot)));
            wanted = false;
        }
#endif
        while (wanted) {
            if (finding == MISTAKEN) {
                u64 key_nbytes;
                const u8* key = ::row(keys, i, key_nbytes);
                search(match, &vacant, key, key_nbytes, index, buckets);
                if (match.seen) mine.heads[lane][0] = __ldcg((const uint4*)record_of(match.seen));
                finding = match.seen ? PRESENT : ABSENT;
            }
            u64 seen = match.seen;
            if (finding == ABSENT) {
                seen = vacant.seen;
                if (!vacant.at) {
                    status[row] = NO_SPACE;
                    dead_nbytes = nbytes_of(load_header(record_of(slot)));
                    break;
                }
                claimed = atomicCAS(vacant.at, seen, slot | (seen & GOES_ON)) == seen;
                if (claimed) break;
            } else {
                Header old = parse_header(mine.heads[lane][0]);
                bool same_batch = batch.wrote(record_of(seen));
                if (same_batch && old.batch_row > row) {
                    status[row] = SUPERSEDED;
                    dead_nbytes = nbytes_of(load_header(record_of(slot)));
                    break;
                }
                // Whether a live record of before the batch is replaced is handed on from slot to slot within it.
                u64 replaced = (same_batch ? (seen & REPLACED) != 0 : alive(old, now)) ? REPLACED : 0;
                if (replaced) {
                    status[row] = UPDATED;
                    LAUNCH_FENCE();  // once the record can be seen, a later row may write here
                }
                if (atomicCAS(match.at, seen, slot | replaced | (seen & GOES_ON)) == seen) {
                    if (same_batch) status[old.batch_row] = SUPERSEDED;
                    dead_nbytes = nbytes_of(old);
                    far = seen & ON_HOST;
                    break;
                }
            }
            finding = MISTAKEN;
        }
        add_up(changes, claimed, 0 - (u64)dead_nbytes, far ? 0 - (u64)dead_nbytes : 0);
    }
    settle(changes, counters, report, work);
}

// Takes n keys out of the index, and settles. Every thread of every block calls.
__device__ __forceinline__ void erase_rows(
    Lookups& mine, Changes& changes, const Column& keys, u64 n, u64* index, u64 buckets, u64 now, u8* erased, u64* counters,
    u64* report, u64* work) {
    start(changes);
    for (u64 i = (u64)blockIdx.x * TILE + threadIdx.x; i - threadIdx.x % 32 < n; i += (u64)gridDim.x * TILE) {
        Key key = i < n ? load_key(keys, i) : Key{};
        u8* record;
        Header header;
        bool took = false, far = false;
        if (find_record(mine, key, i < n, index, buckets, record, header)) {
            Spot spot = mine.match[threadIdx.x % 32];
            // Only an equal key of this batch can have been faster.
            took = atomicCAS(spot.at, spot.seen, spot.seen & GOES_ON) == spot.seen;
            far = took && spot.seen & ON_HOST;
        }
        if (i < n) erased[i] = took && alive(header, now);
        u64 nbytes = took ? record_nbytes(header.key_nbytes, header.value_nbytes) : 0;
        add_up(changes, 0ull - took, 0 - nbytes, far ? 0 - nbytes : 0);
    }
    settle(changes, counters, report, work);
}
