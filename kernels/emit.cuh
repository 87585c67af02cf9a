// Writing rows that lie scattered in records as one packed Arrow column: offsets, validity bits, bytes.
#include "stretches.cuh"

#ifndef ROWS_PER_THREAD
#define ROWS_PER_THREAD 2  // at most: more rows a tile, fewer tiles that wait for one another
#endif
#define TILE_ROWS (TILE * ROWS_PER_THREAD)

struct Output {
    u8* data;       // `capacity` bytes
    u64 capacity;   // a tile that would pass it writes no bytes; the total still comes out right
    void* offsets;  // n + 1, int32 or int64
    u64 wide;       // 1: int64 offsets
    u32* validity;  // one bit per row, least significant first, padded to whole words
    u64* total;     // bytes of all rows together
};

// A tile's rows, in order. Row r of the tile is brought by thread r % TILE.
struct Rows {
    const u8* sources[TILE_ROWS];
    u64 starts[TILE_ROWS];
    u32 lengths[TILE_ROWS];
    u64 tile_start;
};

// Notes row r of a tile of `count`, null if not present. Called by whole warps, by each thread for each r of its own.
__device__ __forceinline__ void bring(
    Rows& rows, const Output& out, u64 first, u64 n, u32 count, u32 r, const u8* from, u64 nbytes) {
    u32 bits = __ballot_sync(~0u, from != nullptr);
    u64 i = first + r;
    if (count % 32 == 0) {
        if (r % 32 == 0 && i < n) out.validity[i / 32] = bits;
    } else if (r % 8 == 0 && (r < count || first + count >= n) && i < (n + 31) / 32 * 32) {
        ((u8*)out.validity)[i / 8] = bits >> r % 32;  // a word may be several tiles'; the last one fills it up
    }
    rows.sources[r] = from;
    rows.lengths[r] = nbytes;
}

__device__ __forceinline__ void store_offset(const Output& out, u64 i, u64 offset) {
    if (out.wide) {
        ((i64*)out.offsets)[i] = offset;
    } else {
        ((int*)out.offsets)[i] = offset;
    }
}

// Writes the tile's rows, `count` of them, once all have been brought. One pass over the data: the tile's place in the output
// comes from the tiles before it while their bytes are still being copied, or is `begin` where one block writes all of them in
// turn. Returns where the next tile begins then.
//
// count:   of a tile, a multiple of eight, or as many for each thread
// epoch:   of this launch, see `look_back`
// list:    where long rows are listed instead of being copied, as far as there is room; or null
__device__ __forceinline__ u64 emit(
    Rows& rows, const Output& out, u64* states, u64 epoch, u64 tile, u64 n, u32 count, u64 begin = 0,
    Stretches* list = nullptr) {
    u32 t = threadIdx.x, own_rows = count < TILE ? t < count : count / TILE;
    u64 first = tile * count;
    __syncthreads();
    // Each thread adds up neighbouring rows, so that one scan over the block does.
    u64 own = 0, tile_nbytes;
    for (u32 k = 0; k < own_rows; ++k) own += rows.lengths[t * own_rows + k];
    u64 before = block_scan(own, tile_nbytes);
    if (t < 32) {
        u64 start = look_back(states, tile, tile_nbytes, epoch);
        if (t == 0) rows.tile_start = begin + start;
    }
    for (u32 k = 0; k < own_rows; ++k) {
        rows.starts[t * own_rows + k] = before;
        before += rows.lengths[t * own_rows + k];
    }
    __syncthreads();
    u64 start = rows.tile_start;
    for (u32 r = t; r < count && first + r < n; r += TILE) store_offset(out, first + r, start + rows.starts[r]);
    if (t == 0 && first + count >= n) {
        store_offset(out, n, start + tile_nbytes);
        *out.total = start + tile_nbytes;
    }
    if (start + tile_nbytes > out.capacity) return start + tile_nbytes;
    u32 here = min(n - first, (u64)count);
    if (list) {
        for (u32 r = t; r < here; r += TILE) {
            u64 nbytes = rows.lengths[r];
            if (nbytes >= LONG_NBYTES && list_long(list, n, out.data + start + rows.starts[r], rows.sources[r], nbytes)) {
                rows.lengths[r] = 0;
            }
        }
        __syncthreads();
    }
#ifdef ONE_BLOCK
    copy_long<LOG>(here, rows.lengths, [&](u32 r) {
        return Stretch{out.data + start + rows.starts[r], rows.sources[r], rows.lengths[r]};
    });
#endif
    u32 lanes = lanes_per_row(tile_nbytes, here), lane = t % lanes;
    for (u32 r = t / lanes; r - t % 32 / lanes < here; r += TILE / lanes) {  // while the warp has one
        copy_row<LOG>(out.data + start + rows.starts[r], rows.sources[r], rows.lengths[r], lane, lanes);
    }
    return start + tile_nbytes;
}
