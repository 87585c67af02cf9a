// Lookup: values for keys, and what else can be asked about a key without changing anything.
//
// find_dense  keys and values of one length each, multiples of 16: a row's place in the answer is known beforehand. A
//             record is visited once: header, key and value are read side by side, and the value is written out while
//             the key is being compared. Where that turns out to be another key (one in some ten thousand), the row
//             is done again.
// find        everything else: probe and compare, scan the lengths, copy the values into one packed column.
// peek        presence and expiry only.
//
// Bytes moved per found key of k bytes with a value of v: k (query) + 64 (bucket) + 16 + k + v (record) + v (result) + 4
// (offset) + 1/8 (validity); the bucket and the record are the two random accesses.
#include "reading.cuh"
#include "records.cuh"


extern "C" __global__ void __launch_bounds__(TILE, MIN_BLOCKS) find(
    const u8* key_data, const void* key_offsets, u64 key_stride, u64 n,
    u64* index, u64 buckets, u64 now,
    u8* values, u64 capacity, void* value_offsets, u64 wide, u32* validity, u64* total,
    u64 rows_per_thread,
    u64* ticket,    // a zero word
    u64* states) {  // zeroed, one per tile; unused where there is only one
    __shared__ Rows rows;
    __shared__ Lookups lookups[WARPS];
    Output out = {values, capacity, value_offsets, wide, validity, total};
    u64 tile = take_ticket((u32*)ticket);
    find_tile(
        lookups[threadIdx.x / 32], rows, {key_data, key_offsets, key_stride}, n, index, buckets, now, out, tile,
        rows_per_thread, states);
}

extern "C" __global__ void __launch_bounds__(TILE, FIND_BLOCKS) find_dense(
    const u8* key_data, const void* key_offsets, u64 key_stride, u64 n,  // fixed width, a multiple of 16, aligned
    u64* index, u64 buckets, u64 now,
    u64 width,            // bytes of every value, a multiple of 16; a value of another length counts as missing
    u8* values,           // n * width, aligned; zero where a key is missing
    void* value_offsets,  // n + 1 multiples of width
    u64 wide, u32* validity) {
    __shared__ Probes probes[WARPS];
    Probes& mine = probes[threadIdx.x / 32];
    u64 i = (u64)blockIdx.x * TILE + threadIdx.x;
    u32 lane = threadIdx.x % 32;
    u64 first = i - lane;
    if (first >= n) return;
    {
        Key key = i < n ? load_key({key_data, key_offsets, key_stride}, i) : Key{};
        probe(mine, nullptr, hash(key), i < n, index, buckets);
    }
    Output out = {values, 0, value_offsets, wide, validity, nullptr};
    if (i < n) store_offset(out, i, i * width);
    if (i == n - 1) store_offset(out, n, n * width);

    u32 key_pieces = key_stride / 16, value_pieces = width / 16, head = 1 + key_pieces;
    u32 rows = min(n - first, 32ull), wrong = 0;
    Walk reading(head + value_pieces), writing(head + value_pieces);
    const uint4* keys = (const uint4*)key_data + first * key_pieces;
    uint4* to = (uint4*)values + first * value_pieces;
    if (!__any_sync(ALL, mine.match[lane].seen != 0)) {
        for (u32 p = lane; p < rows * value_pieces; p += 32) __stcs(to + p, uint4{});
        if (lane == 0) validity[i / 32] = 0;
        return;
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
                    right = same(words[f], load<COLUMN>(keys + row * key_pieces + piece - 1));
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
    u32 present = __ballot_sync(ALL, found);
    if (lane == 0) validity[i / 32] = present;
}

extern "C" __global__ void __launch_bounds__(TILE, MIN_BLOCKS) peek(
    const u8* key_data, const void* key_offsets, u64 key_stride, u64 n,
    u64* index, u64 buckets, u64 now,
    u8* present,     // one byte per key, 1 or 0; or null
    i64* expiry) {   // ms since the epoch, -1 never, -2 absent; or null
    __shared__ Lookups lookups[WARPS];
    peek_row(
        lookups[threadIdx.x / 32], {key_data, key_offsets, key_stride}, (u64)blockIdx.x * TILE + threadIdx.x, n, index,
        buckets, now, present, expiry);
}
