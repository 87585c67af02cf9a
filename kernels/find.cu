// Lookup: values for keys, and what else can be asked about a key without changing anything.
//
// find        one fused pass: probe, compare, scan the lengths, copy the values into one packed column. Each record
//             is visited once, so its bytes are read while its sectors are still near.
// find_dense  the same for values of one length: a row's place is known beforehand, so nothing is scanned, no block
//             waits for another and a warp shares nothing but registers.
// peek        presence and expiry only.
//
// Bytes moved per found key of k bytes with a value of v: k (query) + 32 to 64 (bucket) + 16 + k + v (record) + v
// (result) + 4 (offset) + 1/8 (validity); the bucket and the record are the two random accesses.
#include "common.cuh"
#include "emit.cuh"

extern "C" __global__ void __launch_bounds__(TILE, MIN_BLOCKS) find(
    const u8* key_data, const void* key_offsets, u64 key_stride, u64 n,
    u64* index, u64 buckets, u64 now,
    u8* values, u64 capacity, void* value_offsets, u64 wide, u32* validity, u64* total,
    u64 rows_per_thread,
    u64* ticket,    // a zero word
    u64* states) {  // zeroed, one per tile; unused where there is only one
    __shared__ Rows rows;
    Output out = {values, capacity, value_offsets, wide, validity, total};
    u64 tile = take_ticket((u32*)ticket), first = tile * TILE * rows_per_thread;
    for (u32 r = threadIdx.x; r < TILE * rows_per_thread; r += TILE) {
        const u8* from = nullptr;
        u64 nbytes = 0;
        if (first + r < n) {
            Key key = load_key({key_data, key_offsets, key_stride}, first + r);
            Match match = lookup(key, hash(key), index, buckets);
            if (match.record && alive(match.header, now)) {
                from = match.record + HEADER + key.nbytes;
                nbytes = match.header.value_nbytes;
            }
        }
        bring(rows, out, first, n, r, from, nbytes);
    }
    emit(rows, out, states, tile, n, rows_per_thread);
}

extern "C" __global__ void __launch_bounds__(TILE, MIN_BLOCKS) find_dense(
    const u8* key_data, const void* key_offsets, u64 key_stride, u64 n,
    u64* index, u64 buckets, u64 now,
    u64 width,            // bytes of every value; a value of another length counts as missing
    u8* values,           // n * width, zero where a key is missing
    void* value_offsets,  // n + 1 multiples of width, or null
    u64 wide, u32* validity) {
    u64 i = (u64)blockIdx.x * TILE + threadIdx.x;
    u32 lane = threadIdx.x % 32;
    const u8* from = nullptr;
    if (i < n) {
        Key key = load_key({key_data, key_offsets, key_stride}, i);
        Match match = lookup(key, hash(key), index, buckets);
        if (match.record && alive(match.header, now) && match.header.value_nbytes == width) {
            from = match.record + HEADER + key.nbytes;
        }
        Output out = {values, 0, value_offsets, wide, validity, nullptr};
        if (value_offsets) store_offset(out, i, i * width);
        if (value_offsets && i == n - 1) store_offset(out, n, n * width);
    }
    u32 present = __ballot_sync(~0u, from != nullptr);
    u64 first = i - lane;
    if (lane == 0 && i < n) validity[i / 32] = present;

    // Whether every row of the warp lies, here and there, at a multiple of 16; else all are copied the general way.
    bool whole = __ballot_sync(~0u, ((u64)from | (u64)values | width) & 15) == 0;
    u32 lanes = lanes_per_row(width, 1), rows = 32 / lanes, piece = lane % lanes;
#pragma unroll 4
    for (u32 r = lane / lanes; r < 32; r += rows) {
        const u8* source = (const u8*)__shfl_sync(~0u, (u64)from, r);
        if (first + r >= n) continue;
        u8* to = values + (first + r) * width;
        if (whole) {
            for (u64 p = piece; p < width / 16; p += lanes) {
                uint4 words = {};
                if (source) words = __ldcg((const uint4*)source + p);
                __stcs((uint4*)to + p, words);
            }
        } else if (source) {
            copy_row(to, source, width, piece, lanes);
        } else {
            for (u64 b = piece; b < width; b += lanes) to[b] = 0;
        }
    }
}

extern "C" __global__ void __launch_bounds__(TILE, MIN_BLOCKS) peek(
    const u8* key_data, const void* key_offsets, u64 key_stride, u64 n,
    u64* index, u64 buckets, u64 now,
    u8* present,     // one byte per key, 1 or 0; or null
    i64* expiry) {   // ms since the epoch, -1 never, -2 absent; or null
    u64 i = (u64)blockIdx.x * TILE + threadIdx.x;
    if (i >= n) return;
    Key key = load_key({key_data, key_offsets, key_stride}, i);
    Match match = lookup(key, hash(key), index, buckets);
    bool found = match.record && alive(match.header, now);
    if (present) present[i] = found;
    if (expiry) expiry[i] = !found ? -2 : match.header.expiry ? (i64)match.header.expiry : -1;
}
