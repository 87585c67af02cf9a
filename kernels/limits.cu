// What the hardware can do, with nothing of a hash table in the way: the ceilings the table is read against.
//
// empty     a launch and nothing else
// gather    records of any size from random places, written out one after the other
// touch     one random read per row, not written out: the bare rate of random accesses
// two_hops  a 32-byte bucket at a random place names a 64-byte record at another: the accesses of a lookup
// swap      a 64-bit compare-and-swap at a random place: the accesses of publishing a record
//
// Rows name their place by a column of record numbers read in order (4 bytes a row, coalesced).
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#ifndef IN_FLIGHT
#define IN_FLIGHT 4  // independent accesses a thread has under way
#endif

extern "C" __global__ void empty() {}

// One thread per 16-byte piece, so that the lanes of a warp share a record's sectors.
extern "C" __global__ void __launch_bounds__(TILE) gather(
    const uint4* records, u64 pieces_per_record, const u32* places, u64 n, uint4* out) {
    u64 i = (u64)blockIdx.x * TILE + threadIdx.x;
    if (i >= n * pieces_per_record) return;
    u64 row = i / pieces_per_record, piece = i % pieces_per_record;
    out[i] = __ldcg(records + places[row] * pieces_per_record + piece);
}

// What is read has to be used, or the compiler leaves the read out. The comparison must hang on the data alone: a flag
// tested first would let it skip the read where the flag is false.
__device__ __forceinline__ void keep(uint4 words, u64 unlikely, u32* sink) {
    if ((words.x ^ words.y ^ words.z ^ words.w) == (u32)unlikely) *sink = words.x;
}

// As in gather, lanes share a record: one lane reading all of it would be held up by the load units, not by memory.
extern "C" __global__ void __launch_bounds__(TILE) touch(
    const uint4* records, u64 pieces_per_record, const u32* places, u64 n, u64 unlikely, u32* sink) {
    u64 stride = (u64)gridDim.x * TILE, pieces = n * pieces_per_record;
    uint4 words[IN_FLIGHT] = {};
    for (u64 at = (u64)blockIdx.x * TILE + threadIdx.x; at < pieces; at += IN_FLIGHT * stride) {
#pragma unroll
        for (int f = 0; f < IN_FLIGHT; ++f) {
            u64 i = at + f * stride;
            if (i >= pieces) continue;
            u64 row = i / pieces_per_record, piece = i % pieces_per_record;
            words[f] = __ldcg(records + places[row] * pieces_per_record + piece);
        }
#pragma unroll
        for (int f = 0; f < IN_FLIGHT; ++f) keep(words[f], unlikely, sink);
    }
}

// Four lanes a row: each reads half of the bucket (the same two halves, so no more than its one sector), learns the
// record's number from the first, and reads its quarter of the record.
extern "C" __global__ void __launch_bounds__(TILE) two_hops(
    const uint4* buckets,  // 32 bytes each; the first 4 are a record number
    const uint4* records,  // 64 bytes each
    const u32* places, u64 n, u64 unlikely, u32* sink) {
    u64 stride = (u64)gridDim.x * TILE, first = (u64)blockIdx.x * TILE + threadIdx.x;
    u32 lane = threadIdx.x % 4;
    // The bound is rounded up so that a warp stays together for its exchanges.
    for (u64 at = first; at - threadIdx.x % 32 < 4 * n; at += IN_FLIGHT * stride) {
        uint4 words[IN_FLIGHT];
#pragma unroll
        for (int f = 0; f < IN_FLIGHT; ++f) {
            u64 row = min((at + f * stride) / 4, n - 1);
            words[f] = __ldcg(buckets + places[row] * 2ull + lane % 2);
        }
#pragma unroll
        for (int f = 0; f < IN_FLIGHT; ++f) {
            u32 record = __shfl_sync(~0u, words[f].x, 0, 4);
            words[f] = __ldcg(records + record * 4ull + lane);
        }
#pragma unroll
        for (int f = 0; f < IN_FLIGHT; ++f) keep(words[f], unlikely, sink);
    }
}

extern "C" __global__ void __launch_bounds__(TILE) swap(u64* slots, const u32* places, u64 n) {
    u64 i = (u64)blockIdx.x * TILE + threadIdx.x;
    if (i < n) atomicCAS(slots + places[i], 0ull, i + 1);
}
