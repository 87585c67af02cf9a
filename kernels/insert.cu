// Insert: append whole records to the log, in one launch, then publish each by one compare-and-swap, in another.
//
// write_dense  keys and values of one length each, multiples of 16: record i lies at log + i * record length, and a warp
//              writes its records, 32 at most, as one stretch of memory.
// write        everything else: a tile of records takes its place at the log's tail with one atomic addition.
// publish      looks each key up and puts its record's address into the slot.
//
// A record is published only once all of it lies in memory, which the end of a launch sees to: a reader sees the old record
// or the new one, never a mixture. Within one launch a fence would have to, and every lane would wait for its warp's writes.
//
// Equal keys in one batch: the highest row wins, whatever the order of execution; which records belong to the batch is told by
// where they lie (a batch may take several launches, one for each piece of the log it fills). A slot is claimed only as the
// first free one of the key's whole search, and slots are only ever filled while `publish` runs; so two threads with one
// key contend for one and the same slot, the loser looks again and finds the winner's record.
//
// Bytes moved per new record: write: key and value read, 16 + key + value written, all in order; publish: key read, 64
// (bucket) read, 8 (slot) swapped; the bucket is the one random access, visited twice.
#include "writing.cuh"
#include "records.cuh"

extern "C" __global__ void __launch_bounds__(TILE, FIND_BLOCKS) write_dense(
    const uint4* keys, u64 key_stride, const uint4* values, u64 value_stride, u64 n,  // multiples of 16, aligned
    u64 expiry, uint4* log, u64 first_row, signed char* status, u64* counters, u64* work, u64 tile_rows) {  // as for write
    u32 lane = threadIdx.x % 32, key_pieces = key_stride / 16, head = 1 + key_pieces, value_pieces = value_stride / 16;
    u32 pieces = head + value_pieces;
    u64 warp_rows = tile_rows / WARPS, first = blockIdx.x * tile_rows + threadIdx.x / 32 * warp_rows;
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        note_length(counters, value_stride);
        atomicAdd(work, n * 16 * pieces);
    }
    if (first >= n) return;
    u32 rows = min(n - first, warp_rows);
    if (lane < rows) status[first_row + first + lane] = STORED;
    keys += first * key_pieces, values += first * value_pieces, log += first * pieces + lane;
    for (Walk walk(pieces); walk.row < rows; walk.next(), log += 32) {
        if (walk.piece >= head) {
            *log = __ldcs(values + (u64)walk.row * value_pieces + walk.piece - head);
        } else if (walk.piece) {
            *log = load<COLUMN>(keys + walk.row * key_pieces + walk.piece - 1);
        } else {
            *log = pack_header(value_stride, first_row + first + walk.row, key_stride, expiry);
        }
    }
}

extern "C" __global__ void __launch_bounds__(TILE, MIN_BLOCKS) write(
    const u8* key_data, const void* key_offsets, u64 key_stride,
    const u8* value_data, const void* value_offsets, u64 value_stride, u64 n, u64 expiry,
    u8* log,                             // the tail, with room for all these rows
    u64* places,                         // per row: where its record lies
    u64 first_row, signed char* status,  // of these rows in the batch; per row of the whole batch
    u64* counters,
    u64* work,                           // two zero words: bytes used of the log, for `publish` to report
    u64 tile_rows) {                     // of a block, TILE at most, as many for each warp
    __shared__ Writing room;
    u64 first = blockIdx.x * tile_rows;
    write_tile(
        room, {key_data, key_offsets, key_stride}, {value_data, value_offsets, value_stride},
        first, min(n - first, tile_rows), expiry, log, places, first_row, status, counters, work);
}

extern "C" __global__ void __launch_bounds__(TILE, INSERT_BLOCKS) publish(
    const u8* key_data, const void* key_offsets, u64 key_stride, u64 n, u64* index, u64 buckets, u64 now,
    const u8* log, u64 nbytes, const u64* places,  // record i lies at places[i], or where that is null at log + i * nbytes
    const u8* begin, const u8* end,     // where this segment holds records of the batch
    const u64* earlier, u64 n_earlier,  // the same, begin and end, for the batch's earlier segments
    u64 first_row, signed char* status, u64* counters, u64* report, u64* work) {
    __shared__ Lookups lookups[WARPS];
    __shared__ Changes changes;
    publish_rows(
        lookups[threadIdx.x / 32], changes, {key_data, key_offsets, key_stride}, n, index, buckets, now, log, nbytes, places,
        {begin, end, earlier, n_earlier}, first_row, status, counters, report, work);
}
