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

extern "C" __global__ void empty() {}

// One thread per 16-byte piece, so that the lanes of a warp share a record's sectors.
extern "C" __global__ void __launch_bounds__(TILE) gather(
    const uint4* records, u64 pieces_per_record, const u32* places, u64 n, uint4* out) {
    u64 i = (u64)blockIdx.x * TILE + threadIdx.x;
    if (i >= n * pieces_per_record) return;
    u64 row = i / pieces_per_record, piece = i % pieces_per_record;
    out[i] = __ldcg(records + places[row] * pieces_per_record + piece);
}

// `never` is false but not known to the compiler: without a use the reads would be removed.
__device__ __forceinline__ void keep(uint4 words, u64 never, u32* sink) {
    if ((words.x ^ words.y ^ words.z ^ words.w) == 0x9e3779b9u && never) *sink = words.x;
}

extern "C" __global__ void __launch_bounds__(TILE) touch(
    const uint4* records, u64 pieces_per_record, const u32* places, u64 n, u64 never, u32* sink) {
    u64 i = (u64)blockIdx.x * TILE + threadIdx.x;
    if (i >= n) return;
    const uint4* record = records + places[i] * pieces_per_record;
    uint4 words = __ldcg(record);
    for (u64 piece = 1; piece < pieces_per_record; ++piece) {
        uint4 more = __ldcg(record + piece);
        words.x ^= more.x, words.y ^= more.y, words.z ^= more.z, words.w ^= more.w;
    }
    keep(words, never, sink);
}

extern "C" __global__ void __launch_bounds__(TILE) two_hops(
    const uint4* buckets,  // 32 bytes each; the first 4 are a record number
    const uint4* records,  // 64 bytes each
    const u32* places, u64 n, u64 never, u32* sink) {
    u64 i = (u64)blockIdx.x * TILE + threadIdx.x;
    if (i >= n) return;
    const uint4* bucket = buckets + places[i] * 2ull;
    uint4 first = __ldcg(bucket), second = __ldcg(bucket + 1);
    const uint4* record = records + first.x * 4ull;
    uint4 words = second;
#pragma unroll
    for (int piece = 0; piece < 4; ++piece) {
        uint4 more = __ldcg(record + piece);
        words.x ^= more.x, words.y ^= more.y, words.z ^= more.z, words.w ^= more.w;
    }
    keep(words, never, sink);
}

extern "C" __global__ void __launch_bounds__(TILE) swap(u64* slots, const u32* places, u64 n) {
    u64 i = (u64)blockIdx.x * TILE + threadIdx.x;
    if (i < n) atomicCAS(slots + places[i], 0ull, i + 1);
}
