// What lookups do with a tile of keys: shared by the kernels of find.cu, one tile a block, and by the block of doorbell.cu.
#include "emit.cuh"
#include "records.cuh"

// Looks up tile `tile` of n keys and packs their values; `count`, `epoch`, `begin`, `list` and what it returns as of `emit`.
__device__ __forceinline__ u64 find_tile(
    Lookups& lookups, Rows& rows, const Column& keys, u64 n, u64* index, u64 buckets, u64 now, const Output& out,
    u64 tile, u32 count, u64* states, u64 epoch, u64 begin = 0, Stretches* list = nullptr) {
    u64 first = tile * count;
    for (u32 r = threadIdx.x; r - threadIdx.x % 32 < count; r += TILE) {  // whole warps
        const u8* from = nullptr;
        u64 nbytes = 0;
        bool wanted = r < count && first + r < n;
        Key key = wanted ? load_key(keys, first + r) : Key{};
        u8* record;
        Header header;
        if (find_record(lookups, key, wanted, index, buckets, record, header) && alive(header, now)) {
            from = record + HEADER + key.nbytes;
            nbytes = header.value_nbytes;
        }
        bring(rows, out, first, n, count, r, from, nbytes);
    }
    return emit(rows, out, states, epoch, tile, n, count, begin, list);
}

// Whether key i is there, told and written where that is asked for, as is when it expires. The whole warp calls.
__device__ __forceinline__ bool peek_row(
    Lookups& lookups, const Column& keys, u64 i, u64 n, u64* index, u64 buckets, u64 now, u8* present, i64* expiry) {
    Key key = i < n ? load_key(keys, i) : Key{};
    u8* record;
    Header header;
    bool found = find_record(lookups, key, i < n, index, buckets, record, header);
    if (i >= n) return false;
    found = found && alive(header, now);
    if (present) present[i] = found;
    if (expiry) expiry[i] = !found ? -2 : header.expiry ? (i64)header.expiry : -1;
    return found;
}

// Looks up `rows` keys of `key_stride` bytes, 32 at most, from row `first` on, each by one lane, and writes their values of `width`
// bytes to their places, zeros where there is none. A record is visited once: header, key and value are read side by side, and
// the value is written out while the key is being compared. Where that turns out to be another key (one in some ten thousand),
// the row is done again. Returns a bit for each row, whether there is such a key. The whole warp calls, which may have no row, and
// 8 * ROUNDS at most.
//
// own:  a copy of these rows' keys in shared memory, where KEYS is OWN
template <u32 ROUNDS = LANES_PER_BUCKET, Memory KEYS = COLUMN>
__device__ __forceinline__ u32 find_dense_rows(
    Probes& mine, const u8* key_data, u64 key_stride, u64 first, u32 rows, u64* index, u64 buckets, u64 now, u64 width,
    u8* values, const uint4* own = nullptr) {
    u32 lane = threadIdx.x % 32;
    u64 i = first + lane;
    {
        Key key = lane >= rows    ? Key{}
                  : KEYS == OWN ? load_dense_key<OWN>((const u8*)own, key_stride, lane)
                                : load_dense_key(key_data, key_stride, i);
        probe<ROUNDS>(mine, nullptr, hash<KEYS>(key), lane < rows, index, buckets);
    }
    u32 key_pieces = key_stride / 16, value_pieces = width / 16, head = 1 + key_pieces;
    u32 wrong = 0;
    Walk reading(head + value_pieces), writing(head + value_pieces);
    const uint4* keys = (const uint4*)key_data + first * key_pieces;
    uint4* to = (uint4*)values + first * value_pieces;
    if (!__any_sync(ALL, mine.match[lane].seen != 0)) {
        for (u32 p = lane; p < rows * value_pieces; p += 32) __stcs(to + p, uint4{});
        return 0;
    }
    while (writing.row < rows) {
        uint4 words[PIECES_AT_ONCE];
#pragma unroll
        for (u32 f = 0; f < PIECES_AT_ONCE; ++f, reading.next()) {
            u64 seen = reading.row < rows ? mine.match[reading.row].seen : 0;
            words[f] = {};
            if (seen) words[f] = __ldcg((const uint4*)record_of(seen) + reading.piece);
        }
#pragma unroll
        for (u32 f = 0; f < PIECES_AT_ONCE; ++f, writing.next()) {
            u32 row = writing.row, piece = writing.piece;
            if (row >= rows) break;
            if (piece >= head) {
                __stcs(to + (u64)row * value_pieces + piece - head, words[f]);
            } else if (mine.match[row].seen) {
                bool right;
                if (piece == 0) {
                    Header header = parse_header(words[f]);
                    right = header.value_nbytes == width && header.key_nbytes == key_stride && alive(header, now);
                } else {
                    right = same(words[f], load<KEYS>((KEYS == OWN ? own : keys) + row * key_pieces + piece - 1));
                }
                if (!right) wrong |= 1u << row;
            }
        }
    }
    wrong = warp_or(wrong);
    __syncwarp();  // what is written again was written before
    bool found = mine.match[lane].seen != 0;
    if (wrong >> lane & 1) {
        search(mine.match[lane], nullptr, (const u8*)(keys + lane * key_pieces), key_stride, index, buckets);
        u64 seen = mine.match[lane].seen;
        found = seen && alive(load_header(record_of(seen)), now);
        if (!found) mine.match[lane].seen = 0;
    }
    __syncwarp();
    for (; wrong; wrong &= wrong - 1) {
        u32 row = __ffs(wrong) - 1;
        u64 seen = mine.match[row].seen;
        const uint4* from = (const uint4*)record_of(seen) + head;
        for (u32 p = lane; p < value_pieces; p += 32) {
            to[(u64)row * value_pieces + p] = seen ? __ldcg(from + p) : uint4{};
        }
    }
    return __ballot_sync(ALL, found);
}

// The bits of `rows` rows, a multiple of eight, from row `first` on, another one. By bytes, for a word may be several warps'.
__device__ __forceinline__ void store_bits(u32* bits, u64 first, u32 rows, u32 word) {
    u32 at = threadIdx.x % 32 * 8;
    if (at < rows) ((u8*)bits)[(first + at) / 8] = word >> at;
}
