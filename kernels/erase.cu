// Erase and expire: what changes a record's fate without writing a new one.
//
// erase   takes the record out of its slot, which is empty then: whether searches go past a bucket is not told by its slots.
// expire  overwrites the expiry in the record's header, one aligned 8-byte store: a reader sees the old or the new.
//
// Bytes moved per key of k bytes: k (query) + 64 (bucket) + 32 (record's head) read, 8 (slot) swapped, 1 (answer). Blocks go
// on to further rows rather than end, so that the table's counters are added to once a block and not once a tile.
#include "writing.cuh"

extern "C" __global__ void __launch_bounds__(TILE, MIN_BLOCKS) erase(
    const u8* key_data, const void* key_offsets, u64 key_stride, u64 n,
    u64* index, u64 buckets, u64 now,
    u8* erased,  // per key: 1 if it was there; exactly one of equal keys
    u64* counters, u64* report,
    u64* work) {  // as for insert
    __shared__ Lookups lookups[WARPS];
    __shared__ Changes changes;
    erase_rows(
        lookups[threadIdx.x / 32], changes, {key_data, key_offsets, key_stride}, n, index, buckets, now, erased, counters, report,
        work);
}

extern "C" __global__ void __launch_bounds__(TILE, MIN_BLOCKS) expire(
    const u8* key_data, const void* key_offsets, u64 key_stride, u64 n,
    u64* index, u64 buckets, u64 now, u64 expiry,
    u8* found) {  // per key
    __shared__ Lookups lookups[WARPS];
    Lookups& mine = lookups[threadIdx.x / 32];
    u64 i = (u64)blockIdx.x * TILE + threadIdx.x;
    Key key = i < n ? load_key({key_data, key_offsets, key_stride}, i) : Key{};
    u8* record;
    Header header;
    bool there = find_record(mine, key, i < n, index, buckets, record, header);
    if (i >= n) return;
    there = there && alive(header, now);
    if (there) *(u64*)(record + 8) = key.nbytes << 48 | expiry;
    found[i] = there;
}
