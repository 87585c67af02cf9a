// Find, as a ladder: n keys of one width, values of one width; a value and a found byte per key, zeros where it is absent.
//
// v1   plain: entries in an array, one thread per key, byte by byte (ladder_plain.cuh).
// v2   an index of 8-byte slots over a log of records: probing leaves the records 4 KiB no longer apart, and many slots share
//      a sector; but each slot that is passed still costs a visit to its record.
// v3   16-byte words: one instruction and one request move what took sixteen; the hash takes 16 bytes a multiplication.
// v4   fingerprints: a slot says in 16 bits whether its record is worth a visit. Per lookup one visit, not one per probe.
// v5   buckets: eight slots in 64 aligned bytes, looked at a sector, four slots, at a time: most lookups end within the first
//      sector or two. Slot by slot each read waits for the one before, and a probe may begin at the end of a sector.
// v6   lanes share the copy: 32 values are copied one after the other by neighbouring lanes, each store 512 contiguous bytes;
//      one thread a value spreads each store over 32 lines.
// v7   lanes share the buckets: four lanes read one, so that a request carries whole sectors; requests leaving a
//      multiprocessor are what bounds random access, not bytes (ladder_warp.cuh).
// v8   one visit: header, key and value of a record are read side by side, and the value is written while the key is being
//      compared. The two passes before it fetched the record's first sector twice, the second time after a wait.
// v9   several pieces under way per lane: a lane asks for six before it waits for the first.
// v10  cache hints: the table is read past L1, results leave L2 first, which leaves it to the index.
//      That is find_dense (find.cu), less expiry and Arrow's offsets.
// The other rungs change one thing of v10; predis_lab/gpu/ladder.py says which and why.
//
// Bytes moved per found key of k bytes with a value of v, the first place being the right one:
//   v1  k (query) + 16 + k + v (entry) + v + 1 (answer)      v2-v4  8 (slot) more      v5 on  64 (bucket) instead of 8
#include "ladder_plain.cuh"
#include "ladder_warp.cuh"

#ifndef FIND_BLOCKS
#define FIND_BLOCKS 12  // per multiprocessor: caps the registers
#endif

namespace ladder {

// One value by one thread; `from` null: zeros.
__device__ __forceinline__ void copy_alone(u8* to, const u8* from, u32 nbytes) {
    if constexpr (WORDS) {
        for (u32 at = 0; at < nbytes; at += PIECE) {
            Piece piece = {};
            if (from) piece = fetch<false>((const Piece*)(from + at));
            store_piece(to + at, piece, nbytes - at);
        }
    } else {
        for (u32 b = 0; b < nbytes; ++b) to[b] = from ? from[b] : 0;
    }
}

// The values of the warp's rows by all its lanes. records: of each row, null for zeros.
__device__ __forceinline__ void copy_together(u8* to, u8* const* records, u32 rows, const Table& table) {
    u32 nbytes = table.value_nbytes;
    if (!nbytes) return;
    for (Walk walk(pieces_of(nbytes)); walk.row < rows; walk.next()) {
        const u8* record = records[walk.row];
        Piece piece = {};
        if (record) piece = fetch<false>((const Piece*)record + head_of(table) + walk.piece);
        u32 at = walk.piece * PIECE;
        store_piece(to + walk.row * nbytes + at, piece, nbytes - at);
    }
}

__device__ __forceinline__ const u8* value_of(const u8* record, const Table& table) {
    return record ? record + head_of(table) * PIECE : nullptr;
}

// One row by one lane, for the few that need it. Whether the key was there.
__device__ __forceinline__ bool find_alone(const u8* key, u8* to, const Table& table) {
    const u8* record = lookup<false, true>(key, hash_of(key, table.key_nbytes), table).record;
    copy_alone(to, value_of(record, table), table.value_nbytes);
    return record;
}

extern "C" __global__ void __launch_bounds__(TILE, FUSED ? FIND_BLOCKS : MIN_BLOCKS) ladder_find(
    const u8* keys, u64 key_nbytes, u64 n,
    u64* index, u64 buckets,  // v1: entries, and how many
    u64 value_nbytes,
    u8* values,   // n * value_nbytes
    u8* found) {  // n
    Table table = {index, buckets, (u32)key_nbytes, (u32)value_nbytes};
    u64 i = (u64)blockIdx.x * TILE + threadIdx.x;
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u64 first = i - lane;
    if (first >= n) return;  // whole warps: the lanes of the others go on together
    u32 rows = min(n - first, 32ull);
    const u8* key = keys + i * key_nbytes;
    u8 *to = values + i * value_nbytes, *all_to = values + first * value_nbytes;
    if constexpr (PLAIN) {
        const Entry* entry = i < n ? plain_lookup(key, table) : nullptr;
        if (i < n) found[i] = entry != nullptr;
        if (i < n) copy_alone(to, entry ? value_in(entry, table) : nullptr, value_nbytes);
    } else if constexpr (FUSED) {
        __shared__ Found results[WARPS];
        Found& mine = results[warp];
        probe_together<false>(mine, i < n ? hash_of(key, key_nbytes) : 0, i < n, table);
        u32 wrong = visit<false, true>(mine.match, keys + first * key_nbytes, rows, table, all_to);
        bool there = mine.match[lane].seen != 0;
        if (wrong >> lane & 1) there = find_alone(key, to, table);
        if (i < n) found[i] = there;
    } else {
        u8* record = nullptr;
        u64 h = i < n ? hash_of(key, key_nbytes) : 0;
        if constexpr (TOGETHER) {
            __shared__ Found results[WARPS];
            record = lookup_together<false>(results[warp], keys + first * key_nbytes, h, i < n, rows, table).record;
        } else if (i < n) {
            record = lookup<false>(key, h, table).record;
        }
        if (i < n) found[i] = record != nullptr;
        if constexpr (SHARED_COPY) {
            __shared__ u8* records[TILE];
            records[threadIdx.x] = record;
            __syncwarp();
            copy_together(all_to, records + 32 * warp, rows, table);
        } else if (i < n) {
            copy_alone(to, value_of(record, table), value_nbytes);
        }
    }
}

}  // namespace ladder
