// Records in host memory, and their way back to the device.
//
// The log's older segments may lie in mapped pinned memory: a lookup reads them at the same address, over the link. They get
// there by `relocate` (maintain.cu), the oldest segment of the device first. What is read there comes back:
//
// touch    after a lookup, over the same keys: counts on which side each record lies, notes in the slot of one on the host
//          that it was read (READ_ONCE), and wants those that were noted before. So a pass over all keys moves nothing.
// promote  the wanted records to the tail of a device segment, then their addresses into their slots.
// forget   takes all notes away. Done once in as many reads as make up a part of the table, so that only what is read twice
//          within that time comes back: that tells what is hot from what is merely old (the ghost queue of S3-FIFO, Yang et
//          al., 2023, in one bit), and a load that prefers no key moves little.
//
// Which record is meant is told by the fingerprint alone, for to compare keys would mean to read each record over the link
// once more: a key in some ten thousand counts for another, and an expired record counts as one read. Nothing but the counts
// and the choice of what to move depends on it.
//
// Bytes moved per key of k bytes: touch: k (query) + 64 (bucket), 8 (slot) where it lies on the host; promote, per record: 16
// (header) + record read over the link, record written, 8 (slot) written.
#include "blocks.cuh"
#include "probe.cuh"
#include "counters.cuh"

// Words of a tally: what is counted until the table is cleared, then what one launch leaves for the next.
#define DEVICE_HITS 0
#define HOST_HITS 1
#define PROMOTED_NBYTES 2
#define TAIL 3    // bytes asked for in the segment that records come back to; more than its room where some found none
#define TALLY 4   // as many are reported
#define WANTED 4  // slots listed by `touch`; 0 after `promote`
#define DONE 5    // blocks of `promote`; 0 after it

extern "C" __global__ void __launch_bounds__(TILE, MIN_BLOCKS) touch(
    const u8* key_data, const void* key_offsets, u64 key_stride, u64 n, u64* index, u64 buckets,
    u64 at_once,   // 1: whatever lies on the host is wanted, and nothing is counted
    u64* tally,
    u64** wanted,  // slots to be promoted, each once; `capacity` of them
    u64 capacity) {
    __shared__ Probes probes[WARPS];
    __shared__ u32 hits[2];
    if (threadIdx.x < 2) hits[threadIdx.x] = 0;
    __syncthreads();
    u64 i = (u64)blockIdx.x * TILE + threadIdx.x;
    u32 lane = threadIdx.x % 32;
    Probes& mine = probes[threadIdx.x / 32];
    Key key = i < n ? load_key({key_data, key_offsets, key_stride}, i) : Key{};
    probe(mine, nullptr, hash(key), i < n, index, buckets);
    Spot spot = mine.match[lane];
    bool far = (spot.seen & ON_HOST) != 0, listed = false;
    if (far) {
        // The note that counts is the one in memory: of equal keys in one batch the second finds the first one's.
        u64 seen = at_once ? spot.seen | READ_ONCE : atomicOr(spot.at, READ_ONCE);
        listed = seen & READ_ONCE && !(seen & CLAIMED) && !(atomicOr(spot.at, CLAIMED) & CLAIMED);
    }
    u32 far_lanes = __ballot_sync(ALL, far), near_lanes = __ballot_sync(ALL, spot.seen && !far);
    u32 listed_lanes = __ballot_sync(ALL, listed);
    u64 place = 0;
    if (lane == 0) {
        atomicAdd(hits + DEVICE_HITS, __popc(near_lanes));
        atomicAdd(hits + HOST_HITS, __popc(far_lanes));
        if (listed_lanes) place = atomicAdd(tally + WANTED, __popc(listed_lanes));
    }
    place = __shfl_sync(ALL, place, 0) + __popc(listed_lanes & ((1u << lane) - 1));
    if (listed && place < capacity) wanted[place] = spot.at;
    if (listed && place >= capacity) atomicAnd(spot.at, ~CLAIMED);
    __syncthreads();
    u32 t = threadIdx.x;
    if (t < 2 && hits[t] && !at_once) atomicAdd(tally + t, hits[t]);
}

extern "C" __global__ void __launch_bounds__(TILE, MIN_BLOCKS) promote(
    u64** wanted, u64 capacity, u64 now,  // as `touch` left them; blocks go on to further slots rather than end
    u8* log, u64 room,                    // of a device segment from where TAIL is 0; records that find none stay
    u64 longest,                          // records of more bytes stay too
    u64* counters, u64* tally,
    u64* report) {  // TALLY words in mapped host memory
    __shared__ u8* targets[TILE];
    __shared__ const u8* sources[TILE];
    __shared__ u32 lengths[TILE];
    __shared__ u64 tile_start;
    __shared__ Changes changes;
    start(changes);
    u32 t = threadIdx.x;
    u64 count = min(__ldcg(tally + WANTED), capacity);
    for (u64 first = (u64)blockIdx.x * TILE; first < count; first += (u64)gridDim.x * TILE) {
        u64* at = first + t < count ? wanted[first + t] : nullptr;
        u64 slot = at ? __ldcg(at) : EMPTY, nbytes = 0;
        if (slot & ON_HOST) {  // it may have moved within the host since, or be gone
            Header header = load_header(record_of(slot));
            if (alive(header, now)) nbytes = record_nbytes(header.key_nbytes, header.value_nbytes);
            if (nbytes > longest) nbytes = 0;
        }
        u64 tile_nbytes, before = block_scan(nbytes, tile_nbytes);
        if (t == 0 && tile_nbytes) tile_start = atomicAdd(tally + TAIL, tile_nbytes);
        __syncthreads();
        u8* target = log + tile_start + before;
        if (nbytes && tile_start + before + nbytes > room) nbytes = 0;
        targets[t] = target;
        sources[t] = record_of(slot);
        lengths[t] = nbytes;
        __syncthreads();
        u32 lanes = lanes_per_row(tile_nbytes, TILE);
        for (u32 r = t / lanes; r < TILE; r += TILE / lanes) {
            copy_row<LOG>(targets[r], sources[r], lengths[r], t % lanes, lanes);
        }
        __threadfence();
        __syncthreads();
        if (slot & ON_HOST) *at = nbytes ? (slot & ~(ADDRESS | ON_HOST | READ_ONCE | CLAIMED)) | (u64)target >> 4 : slot & ~CLAIMED;
        add_up(changes, 0, 0, nbytes);
    }
    __syncthreads();
    if (t != 0) return;
    if (changes.host_nbytes) {
        atomicAdd(counters + HOST_NBYTES, 0 - changes.host_nbytes);
        atomicAdd(tally + PROMOTED_NBYTES, changes.host_nbytes);
    }
    __threadfence();
    if (atomicAdd(tally + DONE, 1) != gridDim.x - 1) return;
    __threadfence();
    for (int i = 0; i < TALLY; ++i) report[i] = __ldcg(tally + i);
    tally[WANTED] = tally[DONE] = 0;
    __threadfence_system();
}

extern "C" __global__ void __launch_bounds__(TILE) forget(u64* slots, u64 n) {
    u64 i = (u64)blockIdx.x * TILE + threadIdx.x;
    u64 slot = i < n ? __ldcg(slots + i) : EMPTY;
    if (slot & READ_ONCE) slots[i] = slot & ~READ_ONCE;
}
