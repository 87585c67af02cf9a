// Long values: one warp takes as long for a value as that is, and few rows are few warps. Who looks up or writes a tile of rows lists
// them in stretches, and `copy_stretches` (stretches.cu), a launch of its own, has every warp of the device copy some. Where a block
// is all there is, its warps share each.
#include "blocks.cuh"

#define LONG_NBYTES 16384    // values from here on
#define STRETCH_NBYTES 4096  // of a value, at least
#define MOST_STRETCHES 4096

struct Stretch {
    u8* to;
    const u8* from;
    u64 nbytes;
};

struct Stretches {
    u64 count, unused;  // of stretches; more than there are places where some found none. Zero before a launch
    Stretch at[MOST_STRETCHES];
};

// Lists one value of n that may be long, if there is room for all of it; there is for as many as MOST_STRETCHES. By one thread.
__device__ __forceinline__ bool list_long(Stretches* list, u64 n, u8* to, const u8* from, u64 nbytes) {
    u64 step = STRETCH_NBYTES, most = max(MOST_STRETCHES / n, (u64)1);
#pragma unroll 1
    while (nbytes > most * step) step *= 2;
    u64 first = atomicAdd(&list->count, (nbytes + step - 1) / step), stop = first + (nbytes + step - 1) / step;
    bool fits = stop <= MOST_STRETCHES;
#pragma unroll 1
    for (u64 k = first; k < stop && k < MOST_STRETCHES; ++k) {
        u64 done = (k - first) * step;
        list->at[k] = {to + done, from + done, fits ? min(step, nbytes - done) : 0};
    }
    return fits;
}

// Copies what rows of LONG_NBYTES or more hold, by all warps of the block, and has their lengths be 0. The whole block calls.
//
// where:  of a row, as a Stretch
template <Memory FROM, class Where>
__device__ __forceinline__ void copy_long(u32 count, u32* lengths, Where where) {
    u32 t = threadIdx.x;
    bool some = false;
    for (u32 r = t; r < count; r += TILE) some |= lengths[r] >= LONG_NBYTES;
    if (!__syncthreads_or(some)) return;
    for (u32 r = 0; r < count; ++r) {
        if (lengths[r] < LONG_NBYTES) continue;
        Stretch row = where(r);
        u64 part = (row.nbytes / WARPS + 512) / 512 * 512, done = t / 32 * part;
        if (done < row.nbytes) copy_row<FROM>(row.to + done, row.from + done, min(part, row.nbytes - done), t % 32, 32);
    }
    __syncthreads();
    for (u32 r = t; r < count; r += TILE) {
        if (lengths[r] >= LONG_NBYTES) lengths[r] = 0;
    }
    __syncthreads();
}
