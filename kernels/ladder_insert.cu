// Insert, as a ladder: n keys and values of one width each; new keys and updates alike, and of equal keys in one batch the
// last wins, whatever the order of execution.
//
// v1   plain: an entry is locked, its value written in place, byte by byte (ladder_plain.cuh).
// v2   a log: records are written where nobody reads yet, then published by one 64-bit compare-and-swap each. No lock, no
//      4 KiB slots, and a reader never sees half a value.
// v3   16-byte words.
// v4   fingerprints: finding out that a key is new visits no record.
// v5   buckets of 64 bytes.
// v6   lanes share the copy: the records of a warp's 32 rows are one stretch of memory; its lanes fill it piece by piece, each
//      store 512 contiguous bytes.
// v7   lanes share the buckets (ladder_warp.cuh).
// v8   lanes share the records' heads too: of a key that is there already, header and key are read side by side.
// v9   several pieces under way per lane.
// v10  cache hints: values are read once, and leave L2 first.
//      That is write_dense and publish (insert.cu) in one launch, less expiry, counters, batches in several pieces, and
//      telling updates from new keys.
//
// Equal keys, linear probing: a slot is claimed only as the first free one of the key's whole probe, and slots are only ever
// filled here; so two threads with one key contend for one and the same slot, the loser looks again and finds the winner's
// record. With a choice of two buckets they would not: there the pair of buckets is locked (publish_locked).
//
// Bytes moved per new key of k bytes with a value of v: k + v read, 16 + k + v written, 1 (status), and
//   v1  16 (entry) read      v2-v4  8 (slot) read and 8 swapped      v5 on  64 (bucket) read and 8 swapped
#include "ladder_plain.cuh"
#include "ladder_warp.cuh"

#ifndef INSERT_BLOCKS
#define INSERT_BLOCKS 8  // per multiprocessor: caps the registers
#endif

namespace ladder {

// One record by one thread.
__device__ __forceinline__ void write_alone(u8* record, const u8* key, const u8* value, const Table& table) {
    *(Piece*)record = header_of(table);
    u8 *key_to = record + PIECE, *value_to = record + head_of(table) * PIECE;
    if constexpr (WORDS) {
        u32 k = table.key_nbytes, v = table.value_nbytes;
        for (u32 at = 0; at < k; at += PIECE) *(Piece*)(key_to + at) = load_piece<false>(key + at, k - at);
        for (u32 at = 0; at < v; at += PIECE) *(Piece*)(value_to + at) = load_piece<true>(value + at, v - at);
    } else {
        for (u32 b = 0; b < table.key_nbytes; ++b) key_to[b] = key[b];
        for (u32 b = 0; b < table.value_nbytes; ++b) value_to[b] = value[b];
    }
}

// The records of the warp's rows by all its lanes, piece by piece. Pointers are those of the first row.
__device__ __forceinline__ void write_together(
    u8* records, const u8* keys, const u8* values, u32 rows, const Table& table) {
    u32 head = head_of(table);
    u32 nbytes = record_nbytes(table), k = table.key_nbytes, v = table.value_nbytes;
    Walk reading(head + pieces_of(v)), writing(head + pieces_of(v));
    while (writing.row < rows) {
        Piece words[PIECES_AT_ONCE];
#pragma unroll
        for (u32 f = 0; f < PIECES_AT_ONCE; ++f, reading.next()) {
            words[f] = header_of(table);
            if (reading.row >= rows || !reading.piece) continue;
            u32 in_key = (reading.piece - 1) * PIECE, in_value = (reading.piece - head) * PIECE;
            words[f] = reading.piece < head ? load_piece<false>(keys + reading.row * k + in_key, k - in_key)
                                            : load_piece<true>(values + reading.row * v + in_value, v - in_value);
        }
#pragma unroll
        for (u32 f = 0; f < PIECES_AT_ONCE; ++f, writing.next()) {
            if (writing.row < rows) ((Piece*)(records + writing.row * nbytes))[writing.piece] = words[f];
        }
    }
}

// Publishes a record that has been written and fenced off. log, status: of the batch's first row.
__device__ __forceinline__ void publish(
    const u8* key, u64 h, Match match, u8* record, const u8* log, signed char* status, const Table& table) {
    u32 nbytes = record_nbytes(table);
    for (u64 mine = slot_for(h, record);; match = lookup<true, true>(key, h, table)) {
        if (match.record > record) {
            status[(record - log) / nbytes] = SUPERSEDED;
            return;
        }
        u64* slot = match.record ? match.slot : match.free;
        if (!slot) {
            status[(record - log) / nbytes] = NO_SPACE;
            return;
        }
        u64 seen = match.record ? match.seen : match.free_seen;
        if (atomicCAS(slot, seen, mine) != seen) continue;
        if (match.record >= log) status[(match.record - log) / nbytes] = SUPERSEDED;
        return;
    }
}

// ---- Two buckets to choose from -----------------------------------------------------------------------------

constexpr u32 ATTEMPTS = 256;  // at moving another key; each fails only where others hold the locks it needs

// The lock of all keys that have these two buckets.
__device__ __forceinline__ u32* lock_of(u32* locks, u64 place, u64 other) { return locks + min(place, other); }
__device__ __forceinline__ bool try_lock(u32* lock) {
    if (atomicCAS(lock, 0u, 1u)) return false;
    __threadfence();
    return true;
}
__device__ __forceinline__ void unlock(u32* lock) {
    __threadfence();
    *(volatile u32*)lock = 0;
}

// Makes a key of `place` move to its other bucket, and puts `mine` in its slot: copied first, then written over, under the
// lock of its own pair, so that it is never in no slot, nor updated in one of two. One move deep: of sixteen keys one has
// room, but for one insert in eight million at load 0.8 and one in 10,000 at 0.9. busy: another held a lock, trying again may
// help.
__device__ __forceinline__ bool move_one(
    u64 place, u64 mine, u32* held, u32* locks, const Table& table, bool& busy) {
    for (u32 s = 0; s < BUCKET_SLOTS; ++s) {
        u64* at = table.index + place * BUCKET_SLOTS + s;
        u64 seen = __ldcg(at);
        if (!is_record(seen)) continue;
        u64 to = other_place(place, seen >> 48, table.buckets);
        u32* lock = lock_of(locks, place, to);
        if (to == place) continue;
        if (lock != held && !try_lock(lock)) {
            busy = true;
            continue;
        }
        bool moved = false;
        if (__ldcg(at) == seen) {
            for (u32 f = 0; f < BUCKET_SLOTS && !moved; ++f) {
                u64* free = table.index + to * BUCKET_SLOTS + f;
                u64 free_seen = __ldcg(free);
                moved = !is_record(free_seen) && atomicCAS(free, free_seen, seen) == free_seen;
            }
            __threadfence();
            if (moved) *(volatile u64*)at = mine;
        } else {
            busy = true;
        }
        if (lock != held) unlock(lock);
        if (moved) return true;
    }
    return false;
}

// publish, for keys with two buckets: one at a time among those that have the same two. Slots are still claimed by
// compare-and-swap, since keys of other pairs share each bucket.
__device__ __forceinline__ void publish_locked(
    const u8* key, u64 h, u8* record, const u8* log, signed char* status, u32* locks, const Table& table) {
    u32 nbytes = record_nbytes(table);
    u64 mine = slot_for(h, record), place = first_place(h, table.buckets);
    u64 other = other_place(place, tag_of(h), table.buckets);
    u32* lock = lock_of(locks, place, other);
    // The lock is let go in the iteration that took it: the warp's other lanes may be waiting for it.
    for (u32 attempts = 0, done = 0; !done;) {
        if (!try_lock(lock)) continue;
        Match match = lookup<true>(key, h, table);
        done = 1;
        if (match.record > record) {
            status[(record - log) / nbytes] = SUPERSEDED;
        } else if (match.record) {
            *(volatile u64*)match.slot = mine;
            if (match.record >= log) status[(match.record - log) / nbytes] = SUPERSEDED;
        } else if (match.free) {
            done = atomicCAS(match.free, match.free_seen, mine) == match.free_seen;
        } else {
            bool busy = false;
            bool moved = CHOICES == CUCKOO && (move_one(place, mine, lock, locks, table, busy) ||
                                               move_one(other, mine, lock, locks, table, busy));
            done = moved || !busy || ++attempts == ATTEMPTS;
            if (done && !moved) status[(record - log) / nbytes] = NO_SPACE;
        }
        unlock(lock);
    }
}

extern "C" __global__ void __launch_bounds__(TILE, CHOICES == LINEAR ? INSERT_BLOCKS : INSERT_BLOCKS / 2) ladder_insert(
    const u8* keys, u64 key_nbytes, const u8* values, u64 value_nbytes, u64 n,
    u64* index, u64 buckets,  // v1: entries, and how many
    u32* locks,               // zeros, one per bucket, where a key has two of them
    u8* log,                  // n records' room, after those of earlier batches; v1: unused
    u64 first_row,            // rows of all earlier batches
    signed char* status) {    // n: 0 stored, 2 superseded by a later row, 4 no space
    Table table = {index, buckets, (u32)key_nbytes, (u32)value_nbytes};
    u64 i = (u64)blockIdx.x * TILE + threadIdx.x;
    u32 lane = threadIdx.x % 32;
    u64 first = i - lane, nbytes = record_nbytes(table);
    if (first >= n) return;  // whole warps: the lanes of the others go on together
    u32 rows = min(n - first, 32ull);
    bool wanted = i < n;
    const u8 *key = keys + i * key_nbytes, *value = values + i * value_nbytes;
    if (wanted) status[i] = STORED;
    if constexpr (PLAIN) {
        __threadfence();  // another row may be the next to write it
        if (wanted) plain_insert(key, value, first_row + i, first_row, status, table);
    } else {
        u8* record = log + i * nbytes;
        u64 h = wanted ? hash_of(key, key_nbytes) : 0;
        Match match = {};
        if constexpr (CHOICES == LINEAR) {
            if constexpr (TOGETHER) {
                __shared__ Found results[WARPS];
                const u8* all = keys + first * key_nbytes;
                match = lookup_together<true>(results[threadIdx.x / 32], all, h, wanted, rows, table);
            } else if (wanted) {
                match = lookup<true>(key, h, table);
            }
        }
        if constexpr (SHARED_COPY) {
            write_together(log + first * nbytes, keys + first * key_nbytes, values + first * value_nbytes, rows, table);
            __syncwarp();
        } else if (wanted) {
            write_alone(record, key, value, table);
        }
        __threadfence();  // after the other lanes' writes too
        if (!wanted) return;
        if constexpr (CHOICES == LINEAR) {
            publish(key, h, match, record, log, status, table);
        } else {
            publish_locked(key, h, record, log, status, locks, table);
        }
    }
}

}  // namespace ladder
