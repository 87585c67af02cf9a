// Erase, as a ladder: n keys of one width; a found byte per key, for exactly one of equal keys.
//
// v1 plain entries, v2 a slot per record, v3 words, v4 fingerprints, v5 buckets, v7 lanes share the buckets, v8 and the records'
// heads, v9 several of their pieces under way: the reasons are find's (ladder_find.cu). No value is read, so that nothing is
// gained by sharing a copy (v6). A record is taken out by one compare-and-swap on its slot, which one of equal keys wins.
//
// Bytes moved per key of k bytes that is there: k (query) + 16 + k (record's head) read, 1 (answer), and
//   v1  nothing more, 4 swapped      v2-v4  8 (slot) read, 8 swapped      v5 on  64 (bucket) read, 8 swapped
#include "ladder_plain.cuh"
#include "ladder_warp.cuh"

namespace ladder {

extern "C" __global__ void __launch_bounds__(TILE, MIN_BLOCKS) ladder_erase(
    const u8* keys, u64 key_nbytes, u64 n,
    u64* index, u64 buckets,  // v1: entries, and how many
    u64 value_nbytes,
    u8* erased) {  // n
    Table table = {index, buckets, (u32)key_nbytes, (u32)value_nbytes};
    u64 i = (u64)blockIdx.x * TILE + threadIdx.x;
    u32 lane = threadIdx.x % 32;
    u64 first = i - lane;
    if (first >= n) return;  // whole warps: the lanes of the others go on together
    bool wanted = i < n;
    const u8* key = keys + i * key_nbytes;
    if constexpr (PLAIN) {
        Entry* entry = wanted ? plain_lookup(key, table) : nullptr;
        if (wanted) erased[i] = entry && atomicCAS(&entry->state, FULL, ERASED) == FULL;
    } else {
        u64 h = wanted ? hash_of(key, key_nbytes) : 0;
        Match match = {};
        if constexpr (TOGETHER) {
            __shared__ Found results[WARPS];
            const u8* all = keys + first * key_nbytes;
            u32 rows = min(n - first, 32ull);
            match = lookup_together<false>(results[threadIdx.x / 32], all, h, wanted, rows, table);
        } else if (wanted) {
            match = lookup<false>(key, h, table);
        }
        if (!wanted) return;
        bool mine = false;
        if (match.record) {
            // In front of an empty slot of its place it becomes empty too: no probe went past that one.
            u64 at = match.slot - index, group = BUCKETED ? BUCKET_SLOTS : buckets * BUCKET_SLOTS;
            u64 after = at % group != group - 1 && __ldcg(match.slot + 1) == EMPTY ? EMPTY : TOMBSTONE;
            mine = atomicCAS(match.slot, match.seen, after) == match.seen;  // a failure: an equal key was faster
        }
        erased[i] = mine;
    }
}

}  // namespace ladder
