// Lookup: values for keys, and what else can be asked about a key without changing anything.
//
// find_dense  keys and values of one length each, multiples of 16: a row's place in the answer is known beforehand. A
//             record is visited once (`find_dense_rows`).
// find        everything else: probe and compare, scan the lengths, copy the values into one packed column.
// peek        presence and expiry only, or how many there are.
//
// Bytes moved per found key of k bytes with a value of v: k (query) + 64 (bucket) + 16 + k + v (record) + v (result) + 4
// (offset) + 1/8 (validity); the bucket and the record are the two random accesses.
#include "reading.cuh"

extern "C" __global__ void __launch_bounds__(TILE, MIN_BLOCKS) find(
    const u8* key_data, const void* key_offsets, u64 key_stride, u64 n,
    u64* index, u64 buckets, u64 now,
    u8* values, u64 capacity, void* value_offsets, u64 wide, u32* validity, u64* total,
    u64 tile_rows,  // as of `emit`
    u64* ticket,    // a zero word
    u64* states,    // one per tile, of earlier launches or zero; unused where there is only one
    u64 epoch) {    // of this launch, as of `look_back`
    __shared__ Rows rows;
    __shared__ Lookups lookups[WARPS];
    Output out = {values, capacity, value_offsets, wide, validity, total};
    u64 tile = take_ticket((u32*)ticket);
    find_tile(
        lookups[threadIdx.x / 32], rows, {key_data, key_offsets, key_stride}, n, index, buckets, now, out, tile,
        tile_rows, states, epoch);
}

extern "C" __global__ void __launch_bounds__(TILE, FIND_BLOCKS) find_dense(
    const u8* key_data, const void* key_offsets, u64 key_stride, u64 n,  // fixed width, a multiple of 16, aligned
    u64* index, u64 buckets, u64 now,
    u64 width,            // bytes of every value, a multiple of 16; a value of another length counts as missing
    u8* values,           // n * width, aligned; zero where a key is missing
    void* value_offsets,  // n + 1 multiples of width; or null
    u64 wide, u32* validity, u8* present,  // a bit, and a byte, per key: 1 or 0; or null
    u64 tile_rows) {                       // of a block, a multiple of eight for each warp, 32 at most
    __shared__ Probes probes[WARPS];
    u32 lane = threadIdx.x % 32, warp_rows = (u32)tile_rows / WARPS;
    u64 first = ((u64)blockIdx.x * WARPS + threadIdx.x / 32) * warp_rows, i = first + lane;
    if (first >= (n + 31) / 32 * 32) return;  // who has no row may have bits of the last word
    u32 rows = first < n ? min(n - first, (u64)warp_rows) : 0;
    u32 found = find_dense_rows(
        probes[threadIdx.x / 32], key_data, key_stride, first, rows, index, buckets, now, width, values);
    Output out = {values, 0, value_offsets, wide, validity, nullptr};
    if (value_offsets && lane < rows) {  // not before: who looks for a key waits for nothing longer than for that
        store_offset(out, i, i * width);
        if (i == n - 1) store_offset(out, n, n * width);
    }
    if (validity) store_bits(validity, first, warp_rows, found);
    if (present && lane < rows) present[i] = found >> lane & 1;
}

extern "C" __global__ void __launch_bounds__(TILE, MIN_BLOCKS) peek(
    const u8* key_data, const void* key_offsets, u64 key_stride, u64 n,
    u64* index, u64 buckets, u64 now,
    u8* present,    // one byte per key, 1 or 0; or null
    i64* expiry,    // ms since the epoch, -1 never, -2 absent; or null
    u64* count) {   // how many there are is added to it; or null
    __shared__ Lookups lookups[WARPS];
    bool found = peek_row(
        lookups[threadIdx.x / 32], {key_data, key_offsets, key_stride}, (u64)blockIdx.x * TILE + threadIdx.x, n, index,
        buckets, now, present, expiry);
    if (!count) return;
    u64 sum;
    block_scan(found, sum);
    if (threadIdx.x == 0 && sum) atomicAdd(count, sum);
}
