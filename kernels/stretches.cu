// What finds and stores long values: see stretches.cuh.
//
// find_long       as `find`, and lists long values
// write_long      as `write`, and lists long values
// copy_stretches  copies what one of these has listed
//
// Bytes moved: as of those; each long value once in and once out.
#include "reading.cuh"
#include "writing.cuh"

extern "C" __global__ void __launch_bounds__(TILE, MIN_BLOCKS) find_long(
    const u8* key_data, const void* key_offsets, u64 key_stride, u64 n,
    u64* index, u64 buckets, u64 now,
    u8* values, u64 capacity, void* value_offsets, u64 wide, u32* validity, u64* total,
    u64 tile_rows, u64* ticket, u64* states, u64 epoch,  // as for `find`
    u64* list) {                                         // Stretches, none yet
    __shared__ Rows rows;
    __shared__ Lookups lookups[WARPS];
    Output out = {values, capacity, value_offsets, wide, validity, total};
    u64 tile = take_ticket((u32*)ticket);
    find_tile(
        lookups[threadIdx.x / 32], rows, {key_data, key_offsets, key_stride}, n, index, buckets, now, out, tile,
        tile_rows, states, epoch, 0, (Stretches*)list);
}

extern "C" __global__ void __launch_bounds__(TILE, MIN_BLOCKS) write_long(
    const u8* key_data, const void* key_offsets, u64 key_stride,
    const u8* value_data, const void* value_offsets, u64 value_stride, u64 n, u64 expiry,
    u8* log, u64* places, u64 first_row, signed char* status, u64* counters, u64* work, u64 tile_rows,  // as for `write`
    u64* list) {                                                                                        // as for `find_long`
    __shared__ Writing room;
    u64 first = blockIdx.x * tile_rows;
    write_tile(
        room, {key_data, key_offsets, key_stride}, {value_data, value_offsets, value_stride},
        first, min(n - first, tile_rows), expiry, log, places, first_row, status, counters, work, (Stretches*)list, n);
}

extern "C" __global__ void __launch_bounds__(TILE, MIN_BLOCKS) copy_stretches(const u64* listed) {
    const Stretches* list = (const Stretches*)listed;
    u64 count = min(list->count, (u64)MOST_STRETCHES);
    for (u64 k = (u64)blockIdx.x * WARPS + threadIdx.x / 32; k < count; k += (u64)gridDim.x * WARPS) {
        Stretch stretch = list->at[k];
        copy_row<LOG>(stretch.to, stretch.from, stretch.nbytes, threadIdx.x % 32, 32);
    }
}
