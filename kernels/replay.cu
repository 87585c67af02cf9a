// The ceilings of the table's own operations: the same sectors in the same pattern, and nothing else. No hash, no
// comparison, no fence, no retry: where each access goes has been traced beforehand.
//
// trace          for each key the slot its search ends at, the buckets it reads on its way, and the record it finds
// replay_find    find_dense: buckets, whole records, values written out
// replay_packed  find: buckets, heads of records, values of any length written out
// replay_publish publish: buckets, slots swapped
// replay_erase   erase: buckets, heads of records, slots swapped
//
// A trace takes 16 bytes a row, read in order, and stands in for the key column. It is two words: the home bucket, and the
// stride in the upper half; the record's address / 16, 0 for none, and in the top 16 bits the number of buckets read, times
// eight, and the slot in the last of them. What is read has to be used, or the compiler would
// leave the read out: it is compared with a number that it never is.
#include "emit.cuh"
#include "records.cuh"

extern "C" __global__ void __launch_bounds__(TILE) trace(
    const u8* key_data, const void* key_offsets, u64 key_stride, u64 n, u64* index, u64 buckets, ulonglong2* traces) {
    u64 i = (u64)blockIdx.x * TILE + threadIdx.x;
    if (i >= n) return;
    Key key = load_key({key_data, key_offsets, key_stride}, i);
    u64 h = hash(key), done = 0;
    u32 bucket = home(h, buckets), slot = 0;
    u64 record = 0;
    for (;; ++done) {
        u64 seen = EMPTY, vacant = SLOTS;
        for (slot = 0; slot < SLOTS && !record; ++slot) {
            seen = __ldcg(index + (u64)bucket * SLOTS + slot);
            if (!is_record(seen)) vacant = min(vacant, (u64)slot);
            bool same = seen >> 48 == tag_of(h) && load_header(record_of(seen)).key_nbytes == key.nbytes;
            for (u64 b = 0; same && b < key.nbytes; ++b) same = __ldcg(record_of(seen) + HEADER + b) == key.data[b];
            if (same) record = seen & ADDRESS;
        }
        if (record) --slot;
        if (!record) slot = min(vacant, SLOTS - 1ull);
        if (record || !(seen & GOES_ON) || done == 4095) break;
        bucket = next_bucket(bucket, stride_of(h, buckets), done, buckets);
    }
    traces[i] = {(u64)stride_of(h, buckets) << 32 | (u32)home(h, buckets), record | ((done + 1) * SLOTS + slot) << 48};
}

// One warp's records, known only once the buckets have been read.
struct Replay {
    u64 records[32];
};

__device__ __forceinline__ bool is(uint4 words, u64 unlikely) {
    return (words.x ^ words.y ^ words.z ^ words.w) == (u32)unlikely;
}

// Returns where the search ends: the slot's number.
__device__ __forceinline__ u64 read_buckets(
    Replay& replay, ulonglong2 traced, bool wanted, const u64* index, u64 buckets, u64 unlikely) {
    u32 lane = threadIdx.x % 32, place = lane / LANES_PER_BUCKET;
    u32 bucket = (u32)traced.x, last = bucket, count = wanted ? traced.y >> 48 : 0;
    __syncwarp();
    replay.records[lane] = wanted ? traced.y & ADDRESS : 0;
    __syncwarp();
    for (u32 done = 0;; ++done) {
        u32 pending = __ballot_sync(ALL, done < count / SLOTS);
        if (!pending) break;
        uint4 words[LANES_PER_BUCKET];
#pragma unroll
        for (u32 g = 0; g < LANES_PER_BUCKET; ++g) {
            u32 asker = g * BUCKETS_AT_ONCE + place;
            u64 at = (u64)__shfl_sync(ALL, bucket, asker) * LANES_PER_BUCKET + lane % LANES_PER_BUCKET;
            words[g] = {};
            if (pending >> asker & 1) words[g] = __ldcg((const uint4*)index + at);
        }
#pragma unroll
        for (u32 g = 0; g < LANES_PER_BUCKET; ++g) {
            if (is(words[g], unlikely)) replay.records[g * BUCKETS_AT_ONCE + place] = 0;
        }
        if (pending >> lane & 1) last = bucket;
        bucket = next_bucket(bucket, (u32)(traced.x >> 32), done, buckets);
    }
    __syncwarp();
    return (u64)last * SLOTS + count % SLOTS;
}

__device__ __forceinline__ void read_heads(const Replay& replay, u64 unlikely, u32* sink) {
    u32 lane = threadIdx.x % 32;
    uint4 heads[2];
#pragma unroll
    for (u32 s = 0; s < 2; ++s) {
        u64 record = replay.records[s * 16 + lane / 2];
        heads[s] = {};
        if (record) heads[s] = __ldcg((const uint4*)record_of(record) + lane % 2);
    }
    if (is(heads[0], unlikely) || is(heads[1], unlikely)) *sink = lane;
}

extern "C" __global__ void __launch_bounds__(TILE, FIND_BLOCKS) replay_find(
    const ulonglong2* traces, u64 n, const u64* index, u64 buckets, u64 key_nbytes, u64 width,
    u8* values, int* value_offsets, u64 unlikely, u32* sink) {
    __shared__ Replay replays[WARPS];
    Replay& mine = replays[threadIdx.x / 32];
    u64 i = (u64)blockIdx.x * TILE + threadIdx.x;
    u64 first = i - threadIdx.x % 32;
    if (first >= n) return;
    read_buckets(mine, i < n ? __ldcs(traces + i) : ulonglong2{}, i < n, index, buckets, unlikely);
    if (i < n) value_offsets[i] = i * width;
    u32 value_pieces = width / 16, head = 1 + key_nbytes / 16, rows = min(n - first, 32ull);
    uint4* to = (uint4*)values + first * value_pieces;
    Walk reading(head + value_pieces), writing(head + value_pieces);
    while (writing.row < rows) {
        uint4 words[PIECES_AT_ONCE];
#pragma unroll
        for (u32 f = 0; f < PIECES_AT_ONCE; ++f, reading.next()) {
            u64 record = reading.row < rows ? mine.records[reading.row] : 0;
            words[f] = {};
            if (record) words[f] = __ldcg((const uint4*)record_of(record) + reading.piece);
        }
#pragma unroll
        for (u32 f = 0; f < PIECES_AT_ONCE; ++f, writing.next()) {
            if (writing.row >= rows) break;
            if (writing.piece >= head) {
                __stcs(to + (u64)writing.row * value_pieces + writing.piece - head, words[f]);
            } else if (is(words[f], unlikely)) {
                *sink = writing.row;
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(TILE, MIN_BLOCKS) replay_packed(
    const ulonglong2* traces, u64 n, const u64* index, u64 buckets,
    const int* key_offsets, const int* value_offsets, u8* values, u64 unlikely, u32* sink) {
    __shared__ Replay replays[WARPS];
    __shared__ int starts[WARPS][33];
    __shared__ int lengths[WARPS][32];
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u64 i = (u64)blockIdx.x * TILE + threadIdx.x;
    u64 first = i - lane;
    if (first >= n) return;
    read_buckets(replays[warp], i < n ? __ldcs(traces + i) : ulonglong2{}, i < n, index, buckets, unlikely);
    read_heads(replays[warp], unlikely, sink);
    starts[warp][lane] = value_offsets[min(i, n)];
    if (lane == 31) starts[warp][32] = value_offsets[min(i + 1, n)];
    lengths[warp][lane] = i < n ? key_offsets[i + 1] - key_offsets[i] : 0;
    __syncwarp();
    u32 lanes = lanes_per_row(starts[warp][32] - starts[warp][0], 32);
    for (u32 r = lane / lanes; r < 32; r += 32 / lanes) {
        int start = starts[warp][r];
        const u8* from = record_of(replays[warp].records[r]) + HEADER + lengths[warp][r];
        copy_row<LOG>(values + start, from, starts[warp][r + 1] - start, lane % lanes, lanes);
    }
}

extern "C" __global__ void __launch_bounds__(TILE, INSERT_BLOCKS) replay_publish(
    const ulonglong2* traces, u64 n, u64* index, u64 buckets, u64 unlikely) {
    __shared__ Replay replays[WARPS];
    Replay& mine = replays[threadIdx.x / 32];
    for (u64 i = (u64)blockIdx.x * TILE + threadIdx.x; i - threadIdx.x % 32 < n; i += (u64)gridDim.x * TILE) {
        ulonglong2 traced = i < n ? __ldcs(traces + i) : ulonglong2{};
        u64 slot = read_buckets(mine, traced, i < n, index, buckets, unlikely);
        if (i < n) atomicExch(index + slot, mine.records[threadIdx.x % 32] + i + 2);
    }
}

extern "C" __global__ void __launch_bounds__(TILE, MIN_BLOCKS) replay_erase(
    const ulonglong2* traces, u64 n, u64* index, u64 buckets, u8* erased, u64 unlikely, u32* sink) {
    __shared__ Replay replays[WARPS];
    Replay& mine = replays[threadIdx.x / 32];
    for (u64 i = (u64)blockIdx.x * TILE + threadIdx.x; i - threadIdx.x % 32 < n; i += (u64)gridDim.x * TILE) {
        ulonglong2 traced = i < n ? __ldcs(traces + i) : ulonglong2{};
        u64 slot = read_buckets(mine, traced, i < n, index, buckets, unlikely);
        read_heads(mine, unlikely, sink);
        if (i < n) erased[i] = atomicExch(index + slot, EMPTY) != EMPTY;
    }
}
