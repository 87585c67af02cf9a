// Housekeeping over the whole index, one thread per slot: none of these is on a request's way.
//
// scan_keys    the keys of a range of slots as a packed column
// count_alive  records that have not expired
// rehash       the records of one index into a larger, empty one; expired ones are left behind
// census       live bytes per segment of the log: which segments are worth compacting
// relocate     the live records of chosen segments to the tails of one or two others, on the device or on the host
#include "emit.cuh"
#include "probe.cuh"
#include "counters.cuh"

extern "C" __global__ void __launch_bounds__(TILE) scan_keys(
    const u64* slots, u64 n, u64 now,
    u8* keys, u64 capacity, void* key_offsets, u64 wide, u32* validity, u64* total,
    u64 tile_rows, u64* ticket, u64* states, u64 epoch) {  // as for find
    __shared__ Rows rows;
    Output out = {keys, capacity, key_offsets, wide, validity, total};
    u64 tile = take_ticket((u32*)ticket), first = tile * tile_rows;
    for (u32 r = threadIdx.x; r - threadIdx.x % 32 < tile_rows; r += TILE) {  // whole warps
        const u8* from = nullptr;
        u64 nbytes = 0, slot = r < tile_rows && first + r < n ? __ldcg(slots + first + r) : EMPTY;
        if (is_record(slot)) {
            Header header = load_header(record_of(slot));
            if (alive(header, now)) {
                from = record_of(slot) + HEADER;
                nbytes = header.key_nbytes;
            }
        }
        bring(rows, out, first, n, tile_rows, r, from, nbytes);
    }
    emit(rows, out, states, epoch, tile, n, tile_rows);
}

extern "C" __global__ void __launch_bounds__(TILE) count_alive(const u64* slots, u64 n, u64 now, u64* count) {
    u64 i = (u64)blockIdx.x * TILE + threadIdx.x;
    u64 slot = i < n ? __ldcg(slots + i) : EMPTY;
    u64 sum = warp_sum(is_record(slot) && alive(load_header(record_of(slot)), now));
    if (threadIdx.x % 32 == 0 && sum) atomicAdd(count, sum);
}

extern "C" __global__ void __launch_bounds__(TILE, MIN_BLOCKS) rehash(
    const u64* slots, u64 n, u64 now,
    u64* index, u64 buckets,      // zeroed, with room for every record
    u64* counters, u64* report,   // counters zeroed
    u64* work) {                  // as for insert
    u64 i = (u64)blockIdx.x * TILE + threadIdx.x;
    u64 slot = i < n ? __ldcg(slots + i) : EMPTY;
    u64 kept = 0, live = 0, far = 0;
    __shared__ Changes changes;
    start(changes);
    if (is_record(slot)) {
        const u8* record = record_of(slot);
        Header header = load_header(record);
        if (alive(header, now)) {
            kept = 1;
            live = record_nbytes(header.key_nbytes, header.value_nbytes);
            far = slot & ON_HOST ? live : 0;
            // The stored key as a one-row column: the same words, the same hash.
            Key key = load_key<LOG>({record + HEADER, nullptr, header.key_nbytes}, 0);
            u64 h = hash<LOG>(key);
            u32 bucket = home(h, buckets);
            bool placed = false;
            for (u64 done = 0;; ++done) {
                u64* at = index + (u64)bucket * SLOTS;
                for (int s = 0; s < SLOTS && !placed; ++s) {
                    placed = !is_record(__ldcg(at + s)) && atomicCAS(at + s, EMPTY, slot & ~GOES_ON) == EMPTY;
                }
                if (placed) break;
                go_past(at + SLOTS - 1);  // nobody reads this index before the launch is over
                bucket = next_bucket(bucket, stride_of(h, buckets), done, buckets);
            }
        }
    }
    add_up(changes, kept, live, far);
    settle(changes, counters, report, work);
}

// The segment that holds an address. starts: ascending, every record's address lies in one of them.
__device__ __forceinline__ u64 segment_of(const u64* starts, u64 segments, const u8* record) {
    u64 low = 0, high = segments;
    while (high - low > 1) {
        u64 middle = (low + high) / 2;
        if (starts[middle] <= (u64)record) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

// Counted in shared memory as far as there are counters for all segments, in units of 16 bytes: records of a segment are
// everywhere in the index, so all threads would add to the same few words.
#define COUNTED 256
extern "C" __global__ void __launch_bounds__(TILE) census(
    const u64* slots, u64 n, u64 now,
    u64 side,  // 0 or ON_HOST: where the segments lie
    const u64* starts, u64 segments, u64* live_nbytes) {  // per segment, zeroed
    __shared__ u32 units[COUNTED];
    bool few = segments <= COUNTED;
    for (u64 k = threadIdx.x; few && k < segments; k += TILE) units[k] = 0;
    __syncthreads();
    for (u64 i = (u64)blockIdx.x * TILE + threadIdx.x; i < n; i += (u64)gridDim.x * TILE) {
        u64 slot = __ldcg(slots + i);
        if (!is_record(slot) || (slot & ON_HOST) != side) continue;
        Header header = load_header(record_of(slot));
        if (!alive(header, now)) continue;
        u64 segment = segment_of(starts, segments, record_of(slot));
        u64 nbytes = record_nbytes(header.key_nbytes, header.value_nbytes);
        if (few) {
            atomicAdd(units + segment, (u32)(nbytes / 16));
        } else {
            atomicAdd(live_nbytes + segment, nbytes);
        }
    }
    __syncthreads();
    for (u64 k = threadIdx.x; few && k < segments; k += TILE) {
        if (units[k]) atomicAdd(live_nbytes + k, 16ull * units[k]);
    }
}

// Slots that a thread looks at before the block moves what it has found.
#define AHEAD 4
extern "C" __global__ void __launch_bounds__(TILE, MIN_BLOCKS) relocate(
    u64* slots, u64 n, u64 now,
    u64 side,                                           // 0 or ON_HOST: where the segments lie
    const u64* starts, u64 segments, const u8* chosen,  // per segment: 1 if its records have to leave
    u8* log, u64 room,         // where they go, and bytes there
    u64 to,                    // 0 or ON_HOST: where that lies
    u8* spill, u64* spilled,   // where tiles go that find no room there, with room for all, and their bytes, from zero; or
                               // null: records that find none stay
    u64* counters, u64* report,
    u64* work) {  // as for insert; comes to more than `room` where records have stayed
    __shared__ u64 found[(AHEAD + 1) * TILE];  // slots whose records have to leave: of a few segments among many, one here and there
    __shared__ u32 waiting;                    // of those
    __shared__ u8* targets[TILE];
    __shared__ const u8* sources[TILE];
    __shared__ u32 lengths[TILE];
    __shared__ u64 tile_start;
    __shared__ bool spills;
    __shared__ Changes changes;
    u32 t = threadIdx.x;
    u64 step = (u64)gridDim.x * TILE;
    if (t == 0) waiting = 0;
    start(changes);

    for (u64 i = (u64)blockIdx.x * TILE + t; i - t < n; i += AHEAD * step) {
        u64 seen[AHEAD];
#pragma unroll
        for (u32 k = 0; k < AHEAD; ++k) seen[k] = i + k * step < n ? __ldcg(slots + i + k * step) : EMPTY;
#pragma unroll
        for (u32 k = 0; k < AHEAD; ++k) {
            bool leaves = is_record(seen[k]) && (seen[k] & ON_HOST) == side &&
                          chosen[segment_of(starts, segments, record_of(seen[k]))];
            if (leaves) found[atomicAdd(&waiting, 1)] = i + k * step;
        }
        bool last = i - t + AHEAD * step >= n;
        __syncthreads();
        u32 left = waiting;
        __syncthreads();  // before the next ones are added
        while (left >= TILE || (last && left)) {  // a tile of them is moved
            u32 count = min(left, TILE);
            left -= count;
            u64 at = t < count ? found[left + t] : 0, slot = t < count ? __ldcg(slots + at) : EMPTY, nbytes = 0, freed = 0;
            bool expired = false;
            if (t < count) {
                Header header = load_header(record_of(slot));
                expired = !alive(header, now);
                (expired ? freed : nbytes) = record_nbytes(header.key_nbytes, header.value_nbytes);
            }
            u64 tile_nbytes, before = block_scan(nbytes, tile_nbytes);
            if (t == 0) {
                waiting = left;
                // Once a tile does not fit, none that comes after it does: those that fit are the first ones, without gaps.
                u64 to_here = atomicAdd(work, tile_nbytes);
                spills = spill && to_here + tile_nbytes > room;
                tile_start = spills ? atomicAdd(spilled, tile_nbytes) : to_here;
            }
            __syncthreads();
            u8* target = (spills ? spill : log) + tile_start + before;
            if (!spills && nbytes && tile_start + before + nbytes > room) nbytes = 0;
            targets[t] = target;
            sources[t] = record_of(slot);
            lengths[t] = nbytes;
            __syncthreads();
            copy_long<LOG>(count, lengths, [&](u32 r) { return Stretch{targets[r], sources[r], lengths[r]}; });
            u32 lanes = lanes_per_row(tile_nbytes, count);
            for (u32 r = t / lanes; r - t % 32 / lanes < count; r += TILE / lanes) {  // while the warp has one
                copy_row<LOG>(targets[r], sources[r], lengths[r], t % lanes, lanes);
            }
            __threadfence();
            __syncthreads();
            // No batch is under way in these segments, so what REPLACED tells is told. READ_ONCE stays.
            if (nbytes) slots[at] = (slot & ~(ADDRESS | ON_HOST | REPLACED)) | to | (u64)target >> 4;
            if (expired) slots[at] = slot & GOES_ON;
            add_up(changes, 0ull - expired, 0 - freed, (to ? nbytes : 0) - (side ? nbytes + freed : 0));
        }
    }
    settle(changes, counters, report, work);
}
