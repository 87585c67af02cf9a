// Erase and expire: what changes a record's fate without writing a new one.
//
// erase   takes the record out of its slot, which is empty then: whether searches go past a bucket is not told by its slots.
// expire  overwrites the expiry in the record's header, one aligned 8-byte store: a reader sees the old or the new.
//
// Bytes moved per key of k bytes: k (query) + 64 (bucket) + 32 (record's head) read, 8 (slot) swapped, 1 (answer). Blocks go
// on to further rows rather than end, so that the table's counters are added to once a block and not once a tile.
#include "probe.cuh"
#include "counters.cuh"

extern "C" __global__ void __launch_bounds__(TILE, MIN_BLOCKS) erase(
    const u8* key_data, const void* key_offsets, u64 key_stride, u64 n,
    u64* index, u64 buckets, u64 now,
    u8* erased,  // per key: 1 if it was there; exactly one of equal keys
    u64* counters, u64* report,
    u64* work) {  // as for insert
    __shared__ Lookups lookups[WARPS];
    Lookups& mine = lookups[threadIdx.x / 32];
    __shared__ Changes changes;
    start(changes);
    for (u64 i = (u64)blockIdx.x * TILE + threadIdx.x; i - threadIdx.x % 32 < n; i += (u64)gridDim.x * TILE) {
        Key key = i < n ? load_key({key_data, key_offsets, key_stride}, i) : Key{};
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
