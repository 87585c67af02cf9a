// What the threads of a block, and the blocks of a launch, do together.
#include "common.cuh"

// Exclusive sum over the block's threads; `total` is the sum of all. Every thread must call it.
__device__ __forceinline__ u64 block_scan(u64 value, u64& total) {
    __shared__ u64 warp_sums[WARPS];
    u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    u64 inclusive = value;
#pragma unroll
    for (int step = 1; step < 32; step <<= 1) {
        u64 below = __shfl_up_sync(~0u, inclusive, step);
        if (lane >= step) inclusive += below;
    }
    __syncthreads();  // the sums of an earlier call have been read
    if (lane == 31) warp_sums[warp] = inclusive;
    __syncthreads();
    u64 before = 0;
    total = 0;
#pragma unroll
    for (int i = 0; i < WARPS; ++i) {
        if (i < warp) before += warp_sums[i];
        total += warp_sums[i];
    }
    return before + inclusive - value;
}

// The blocks of one launch in the order in which they start, so that a block may wait for those before it. The
// ticket is zero again when the launch is over.
__device__ __forceinline__ u64 take_ticket(u32* ticket) {
    __shared__ u32 tile;
    if (threadIdx.x == 0) {
        tile = gridDim.x == 1 ? 0 : atomicAdd(ticket, 1);
        if (tile && tile == gridDim.x - 1) *ticket = 0;
    }
    __syncthreads();
    return tile;
}

// Sum over all tiles before this one: single-pass scan with decoupled look-back (Merrill and Garland, 2016).
// A state carries its value, its kind and the launch it is of in one word, so no fence is needed, and nothing has to be zeroed
// between launches. Called by the whole first warp.
#define AGGREGATE (1ull << 62)
#define PREFIX (2ull << 62)
#define STATE_EPOCH 48  // first bit of the launch's number
#define STATE_VALUE ((1ull << STATE_EPOCH) - 1)

// epoch: of this launch, 1 to 2^14 - 1; no state has the same that is of another
__device__ __forceinline__ u64 look_back(u64* states, u64 tile, u64 aggregate, u64 epoch) {
    u32 lane = threadIdx.x;
    volatile u64* shared_states = states;
    u64 of_launch = epoch << STATE_EPOCH, prefix = PREFIX | of_launch;
    if (gridDim.x == 1) return 0;
    if (lane == 0) shared_states[tile] = (tile ? AGGREGATE | of_launch : prefix) | aggregate;
    if (tile == 0) return 0;
    u64 before = 0;
    for (i64 window = (i64)tile - 1;; window -= 32) {
        i64 at = window - lane;
        u64 state;
        do {
            state = at >= 0 ? shared_states[at] : prefix;
        } while (__any_sync(~0u, ((state ^ of_launch) & (AGGREGATE - 1)) >> STATE_EPOCH));
        u32 prefixes = __ballot_sync(~0u, state >= PREFIX);
        u32 last = prefixes ? __ffs(prefixes) - 1 : 31;
        u64 value = lane <= last ? state & STATE_VALUE : 0;
#pragma unroll
        for (int step = 16; step; step >>= 1) value += __shfl_xor_sync(~0u, value, step);
        before += value;
        if (prefixes) break;
    }
    if (lane == 0) shared_states[tile] = prefix | (before + aggregate);
    return before;
}

// Threads per row for copying `rows` rows of `total` bytes: a power of two, so that each thread has at least
// one 16-byte piece of an average row.
__device__ __forceinline__ u32 lanes_per_row(u64 total, u32 rows) {
    u32 lanes = 1;
    while (lanes < 32 && total >= 32ull * lanes * rows) lanes *= 2;
    return lanes;
}
