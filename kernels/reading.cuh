// What lookups do with a tile of keys: shared by the kernels of find.cu, one tile a block, and by the block of doorbell.cu.
#include "emit.cuh"
#include "probe.cuh"

// Looks up tile `tile` of n keys and packs their values; `begin` and what it returns as of `emit`.
__device__ __forceinline__ u64 find_tile(
    Lookups& lookups, Rows& rows, const Column& keys, u64 n, u64* index, u64 buckets, u64 now, const Output& out,
    u64 tile, u64 rows_per_thread, u64* states, u64 begin = 0) {
    u64 first = tile * TILE * rows_per_thread;
    for (u32 r = threadIdx.x; r < TILE * rows_per_thread; r += TILE) {
        const u8* from = nullptr;
        u64 nbytes = 0;
        bool wanted = first + r < n;
        Key key = wanted ? load_key(keys, first + r) : Key{};
        u8* record;
        Header header;
        if (find_record(lookups, key, wanted, index, buckets, record, header) && alive(header, now)) {
            from = record + HEADER + key.nbytes;
            nbytes = header.value_nbytes;
        }
        bring(rows, out, first, n, r, from, nbytes);
    }
    return emit(rows, out, states, tile, n, rows_per_thread, begin);
}

// Whether key i is there, and when it expires, each where it is asked for. The whole warp calls.
__device__ __forceinline__ void peek_row(
    Lookups& lookups, const Column& keys, u64 i, u64 n, u64* index, u64 buckets, u64 now, u8* present, i64* expiry) {
    Key key = i < n ? load_key(keys, i) : Key{};
    u8* record;
    Header header;
    bool found = find_record(lookups, key, i < n, index, buckets, record, header);
    if (i >= n) return;
    found = found && alive(header, now);
    if (present) present[i] = found;
    if (expiry) expiry[i] = !found ? -2 : header.expiry ? (i64)header.expiry : -1;
}
