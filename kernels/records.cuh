// Walking over 32 records or rows of one length with the 32 lanes of a warp: piece by piece of 16 bytes, as if they lay
// end to end, so that no lane is ever idle and neighbouring lanes ask for neighbouring bytes.
#include "probe.cuh"

#ifndef PIECES_AT_ONCE
#define PIECES_AT_ONCE 6  // under way per lane
#endif

// The row and the piece in it that a lane is at; `next` takes it 32 pieces on.
struct Walk {
    u32 row, piece;
    u32 rows_on, pieces_on, pieces;

    __device__ __forceinline__ explicit Walk(u32 pieces) : pieces(pieces) {
        row = threadIdx.x % 32 / pieces, piece = threadIdx.x % 32 % pieces;
        rows_on = 32 / pieces, pieces_on = 32 % pieces;
    }

    __device__ __forceinline__ void next() {
        row += rows_on, piece += pieces_on;
        if (piece >= pieces) piece -= pieces, ++row;
    }
};

__device__ __forceinline__ u32 warp_or(u32 bits) {
#pragma unroll
    for (int step = 16; step; step >>= 1) bits |= __shfl_xor_sync(ALL, bits, step);
    return bits;
}

__device__ __forceinline__ bool same(uint4 a, uint4 b) {
    return a.x == b.x && a.y == b.y && a.z == b.z && a.w == b.w;
}
