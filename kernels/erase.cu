// Erase and expire: what changes a record's fate without writing a new one.
//
// erase   takes the record out of its slot. In front of an empty slot it becomes empty too, for no probe went past
//         that one; else it becomes a tombstone.
// expire  overwrites the expiry in the record's header, one aligned 8-byte store: a reader sees the old or the new.
#include "common.cuh"
#include "counters.cuh"

extern "C" __global__ void __launch_bounds__(TILE, MIN_BLOCKS) erase(
    const u8* key_data, const void* key_offsets, u64 key_stride, u64 n,
    u64* index, u64 buckets, u64 now,
    u8* erased,  // per key: 1 if it was there; exactly one of equal keys
    u64* counters, u64* report,
    u64* work) {  // as for insert
    u64 i = (u64)blockIdx.x * TILE + threadIdx.x;
    u64 removed = 0, tombstones = 0, freed = 0;
    if (i < n) {
        Key key = load_key({key_data, key_offsets, key_stride}, i);
        Match match = lookup(key, hash(key), index, buckets);
        if (match.record) {
            bool last = (match.slot - index) % SLOTS == SLOTS - 1;
            u64 after = !last && __ldcg(match.slot + 1) == EMPTY ? EMPTY : TOMBSTONE;
            // Only an equal key of this batch can have been faster.
            removed = atomicCAS(match.slot, match.seen, after) == match.seen;
            tombstones = removed && after == TOMBSTONE;
            if (removed) freed = record_nbytes(match.header.key_nbytes, match.header.value_nbytes);
        }
        erased[i] = removed && alive(match.header, now);
    }
    settle(counters, 0 - removed, tombstones, 0 - freed, report, work);
}

extern "C" __global__ void __launch_bounds__(TILE, MIN_BLOCKS) expire(
    const u8* key_data, const void* key_offsets, u64 key_stride, u64 n,
    u64* index, u64 buckets, u64 now, u64 expiry,
    u8* found) {  // per key
    u64 i = (u64)blockIdx.x * TILE + threadIdx.x;
    if (i >= n) return;
    Key key = load_key({key_data, key_offsets, key_stride}, i);
    Match match = lookup(key, hash(key), index, buckets);
    bool there = match.record && alive(match.header, now);
    if (there) *(u64*)(match.record + 8) = key.nbytes << 48 | expiry;
    found[i] = there;
}
