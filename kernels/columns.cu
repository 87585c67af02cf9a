// Packed columns alone, no table.
//
// shift_offsets  adds a number to a column's offsets, which may become wider: a part of a longer column, or a column's part
// lay_out        values of one length as the rows of an array
#include "blocks.cuh"

extern "C" __global__ void __launch_bounds__(TILE) shift_offsets(
    const void* offsets, u64 wide, u64 n, i64 by,
    void* shifted, u64 shifted_wide) {  // may be the same
    u64 i = (u64)blockIdx.x * TILE + threadIdx.x;
    if (i >= n) return;
    i64 offset = by + (wide ? ((const i64*)offsets)[i] : ((const int*)offsets)[i]);
    if (shifted_wide) {
        ((i64*)shifted)[i] = offset;
    } else {
        ((int*)shifted)[i] = offset;
    }
}

extern "C" __global__ void __launch_bounds__(TILE) lay_out(
    const u8* data, const void* offsets, u64 stride, const u8* validity, u64 n,  // a column; validity: a bit per row
    u64 width,    // of a row of the array; a value of another length counts as missing
    u8* rows,     // n * width, zeroed
    u8* present,  // 1 or 0 per row
    u64 lanes) {  // for each row, a power of two up to 32
    u64 i = (u64)blockIdx.x * (TILE / lanes) + threadIdx.x / lanes, nbytes = 0;
    u32 lane = threadIdx.x % lanes;
    const u8* from = nullptr;
    if (i < n) {
        from = row({data, offsets, stride}, i, nbytes);
        bool right = nbytes == width && validity[i / 8] >> i % 8 & 1;
        if (lane == 0) present[i] = right;
        if (!right) from = nullptr;
    }
    copy_row<COLUMN>(rows + i * width, from, from ? width : 0, lane, lanes);
}
