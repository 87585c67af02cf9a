// What every kernel of the table shares: how columns, records and the index lie in memory.
//
// Record   16-byte header, key, value, padded to 16 bytes; begins at a multiple of 16.
//            bytes 0-3    value length; the top bit marks a record that replaced a live one of an earlier batch
//            bytes 4-7    row in the batch that wrote it: among equal keys of one batch the highest row wins
//            bytes 8-13   expiry, ms since the epoch, 0 = never
//            bytes 14-15  key length
// Index    64-byte buckets of eight 64-bit slots: 16-bit fingerprint, 48-bit record address / 16. The address
//          is a plain device pointer, so a record may lie in any segment, on the device or in mapped host memory.
// Probing  slot by slot from the first of the key's home bucket on. An empty slot ends the search: no record lies
//          behind one on its probe.
//
// Records and slots are read past L1 (ld.global.cg): another stream may be appending to the sector next door.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#ifndef TILE
#define TILE 128  // rows per block, one thread each; a multiple of 32
#endif
#ifndef MIN_BLOCKS
#define MIN_BLOCKS 9  // per multiprocessor: caps the registers
#endif
#define WARPS (TILE / 32)
#define SLOTS 8
#define EMPTY 0ull      // never used: ends a probe
#define TOMBSTONE 1ull  // erased: reusable, but a probe goes on
#define HEADER 16ull
#define REPLACED 0x80000000u
#define LOW48 0xffffffffffffull

// ---- Columns ------------------------------------------------------------------------------------------------

struct Column {
    const u8* data;
    const void* offsets;  // int32 or int64, n + 1 of them; unused for fixed-width rows
    u64 stride;           // bytes per row, or one of the two below
};

#define OFFSETS64 (~0ull)
#define OFFSETS32 (~1ull)

__device__ __forceinline__ const u8* row(const Column& column, u64 i, u64& nbytes) {
    u64 begin;
    if (column.stride == OFFSETS32) {
        const int* offsets = (const int*)column.offsets;
        begin = offsets[i];
        nbytes = offsets[i + 1] - begin;
    } else if (column.stride == OFFSETS64) {
        const i64* offsets = (const i64*)column.offsets;
        begin = offsets[i];
        nbytes = offsets[i + 1] - begin;
    } else {
        begin = i * column.stride;
        nbytes = column.stride;
    }
    return column.data + begin;
}

// ---- Bytes --------------------------------------------------------------------------------------------------

// Up to 8 bytes at any address, zero-extended. Touches only aligned words that hold one of those bytes, which
// therefore lie inside the allocation.
__device__ __forceinline__ u64 load_word(const u8* p, u64 nbytes) {
    u64 skip = (u64)p & 7;
    const u64* q = (const u64*)(p - skip);
    u64 word = __ldcg(q) >> (8 * skip);
    if (skip + nbytes > 8 && skip) word |= __ldcg(q + 1) << (64 - 8 * skip);
    return nbytes < 8 ? word & ((1ull << (8 * nbytes)) - 1) : word;
}

// Copies one row with `lanes` threads. 16-byte stores wherever the destination allows.
__device__ __forceinline__ void copy_row(u8* to, const u8* from, u64 nbytes, u32 lane, u32 lanes) {
    if ((((u64)to | (u64)from | nbytes) & 15) == 0) {
        for (u64 i = lane; i < nbytes / 16; i += lanes) {
            ((uint4*)to)[i] = __ldcg((const uint4*)from + i);
        }
        return;
    }
    u64 head = (16 - ((u64)to & 15)) & 15;
    if (head > nbytes) head = nbytes;
    u64 body = (nbytes - head) / 16, tail = head + 16 * body;
    for (u64 i = lane; i < head; i += lanes) to[i] = __ldcg(from + i);
    u64 skip = 8 * ((u64)(from + head) & 7);
    const u64* words = (const u64*)((u64)(from + head) & ~7ull);
    for (u64 i = lane; i < body; i += lanes) {
        ulonglong2 chunk = {__ldcg(words + 2 * i), __ldcg(words + 2 * i + 1)};
        if (skip) {
            u64 next = __ldcg(words + 2 * i + 2);
            chunk.x = chunk.x >> skip | chunk.y << (64 - skip);
            chunk.y = chunk.y >> skip | next << (64 - skip);
        }
        ((ulonglong2*)(to + head))[i] = chunk;
    }
    for (u64 i = tail + lane; i < nbytes; i += lanes) to[i] = __ldcg(from + i);
}

// ---- Keys ---------------------------------------------------------------------------------------------------

// A key with its first 16 bytes in registers: all that most comparisons ever need.
struct Key {
    const u8* data;
    u64 nbytes, first, second;
};

__device__ __forceinline__ Key load_key(const Column& keys, u64 i) {
    Key key;
    key.data = row(keys, i, key.nbytes);
    if (key.nbytes >= 16 && ((u64)key.data & 15) == 0) {
        ulonglong2 words = __ldcg((const ulonglong2*)key.data);
        key.first = words.x;
        key.second = words.y;
    } else {
        key.first = load_word(key.data, min(key.nbytes, 8ull));
        key.second = key.nbytes > 8 ? load_word(key.data + 8, min(key.nbytes - 8, 8ull)) : 0;
    }
    return key;
}

__device__ __forceinline__ u64 fold(u64 a, u64 b) { return a * b ^ __umul64hi(a, b); }

// A 64-bit hash by folded 128-bit products (Wang Yi, wyhash): home bucket from the high bits, fingerprint from
// the low ones.
__device__ __forceinline__ u64 hash(const Key& key) {
    u64 h = fold(key.first ^ 0xa0761d6478bd642full, key.second ^ 0xe7037ed1a0b428dbull ^ key.nbytes);
    for (u64 at = 16; at < key.nbytes; at += 16) {
        u64 left = key.nbytes - at;
        u64 a = load_word(key.data + at, min(left, 8ull));
        u64 b = left > 8 ? load_word(key.data + at + 8, min(left - 8, 8ull)) : 0;
        h = fold(a ^ h ^ 0x8ebc6af09c88c6e3ull, b ^ h);
    }
    return fold(h ^ 0x589965cc75374cc3ull, 0x1d8e4e27c47d124full);
}

__device__ __forceinline__ u64 home(u64 h, u64 buckets) { return __umul64hi(h, buckets); }
__device__ __forceinline__ u64 fingerprint(u64 h) { return h << 48; }

// ---- Records ------------------------------------------------------------------------------------------------

__device__ __forceinline__ u8* record_of(u64 slot) { return (u8*)((slot & LOW48) << 4); }
__device__ __forceinline__ u64 slot_of(u64 h, const u8* record) { return fingerprint(h) | (u64)record >> 4; }
__device__ __forceinline__ bool is_record(u64 slot) { return slot > TOMBSTONE; }

struct Header {
    u32 value_nbytes, replaced, batch_row;
    u64 key_nbytes, expiry;
};

__device__ __forceinline__ Header load_header(const u8* record) {
    uint4 words = __ldcg((const uint4*)record);
    u64 high = (u64)words.w << 32 | words.z;
    return {words.x & ~REPLACED, words.x & REPLACED, words.y, high >> 48, high & LOW48};
}

__device__ __forceinline__ void store_header(u8* record, u64 value_nbytes, u32 batch_row, u64 key_nbytes, u64 expiry) {
    u64 high = key_nbytes << 48 | expiry;
    *(uint4*)record = {(u32)value_nbytes, batch_row, (u32)high, (u32)(high >> 32)};
}

__device__ __forceinline__ bool alive(const Header& header, u64 now) {
    return header.expiry == 0 || header.expiry > now;
}

__device__ __forceinline__ u64 record_nbytes(u64 key_nbytes, u64 value_nbytes) {
    return (HEADER + key_nbytes + value_nbytes + 15) & ~15ull;
}

__device__ __forceinline__ bool same_key(const Key& key, const u8* record, const Header& header) {
    if (header.key_nbytes != key.nbytes) return false;
    const u8* stored = record + HEADER;
    if (key.nbytes >= 16) {
        ulonglong2 words = __ldcg((const ulonglong2*)stored);
        if (words.x != key.first || words.y != key.second) return false;
    } else {
        if (load_word(stored, min(key.nbytes, 8ull)) != key.first) return false;
        return key.nbytes <= 8 || load_word(stored + 8, key.nbytes - 8) == key.second;
    }
    for (u64 at = 16; at < key.nbytes; at += 8) {
        u64 left = min(key.nbytes - at, 8ull);
        if (load_word(stored + at, left) != load_word(key.data + at, left)) return false;
    }
    return true;
}

// ---- Index --------------------------------------------------------------------------------------------------

struct Match {
    u8* record;  // null: no such key
    Header header;
    u64* slot;   // where the record was found, and what the slot held
    u64 seen;
    u64* free;  // first slot of the probe that can be claimed, and what it held; null: none
    u64 free_seen;
};

// One thread, one key, sector by sector (32 bytes, four slots): half of the keys are found in the first sector of
// their bucket. Fingerprints first, so that a record is read only when it is (almost) surely the one.
__device__ __forceinline__ Match lookup(const Key& key, u64 h, u64* index, u64 buckets) {
    u64 sectors = buckets * (SLOTS / 4), sector = home(h, buckets) * (SLOTS / 4);
    Match match = {};
    for (u64 probed = 0; probed < sectors; ++probed) {
        u64* at = index + sector * 4;
        ulonglong2 left = __ldcg((const ulonglong2*)at), right = __ldcg((const ulonglong2*)at + 1);
        u64 slots[4] = {left.x, left.y, right.x, right.y};
        bool ends = false;
        u32 candidates = 0;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (!is_record(slots[i])) {
                ends |= slots[i] == EMPTY;
                if (!match.free) match.free = at + i, match.free_seen = slots[i];
            } else if ((u16)(slots[i] >> 48) == (u16)h) {
                candidates |= 1u << i;
            }
        }
        // One place to read a record from, whichever slot it is, so that a warp's lanes read theirs together.
        for (; candidates; candidates &= candidates - 1) {
            int i = __ffs(candidates) - 1;
            u64 slot = i == 0 ? slots[0] : i == 1 ? slots[1] : i == 2 ? slots[2] : slots[3];
            u8* record = record_of(slot);
            Header header = load_header(record);
            if (same_key(key, record, header)) {
                match.record = record, match.header = header;
                match.slot = at + i, match.seen = slot;
                return match;
            }
        }
        if (ends) return match;
        sector = sector + 1 == sectors ? 0 : sector + 1;
    }
    return match;
}

// ---- Blocks -------------------------------------------------------------------------------------------------

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
// A state carries its value and its kind in one word, so no fence is needed. Called by the whole first warp.
#define AGGREGATE (1ull << 62)
#define PREFIX (2ull << 62)
#define STATE_VALUE (AGGREGATE - 1)

__device__ __forceinline__ u64 look_back(u64* states, u64 tile, u64 aggregate) {
    u32 lane = threadIdx.x;
    volatile u64* shared_states = states;
    if (gridDim.x == 1) return 0;
    if (lane == 0) shared_states[tile] = (tile ? AGGREGATE : PREFIX) | aggregate;
    if (tile == 0) return 0;
    u64 before = 0;
    for (i64 window = (i64)tile - 1;; window -= 32) {
        i64 at = window - lane;
        u64 state;
        do {
            state = at >= 0 ? shared_states[at] : PREFIX;
        } while (__any_sync(~0u, state < AGGREGATE));
        u32 prefixes = __ballot_sync(~0u, state >= PREFIX);
        u32 last = prefixes ? __ffs(prefixes) - 1 : 31;
        u64 value = lane <= last ? state & STATE_VALUE : 0;
#pragma unroll
        for (int step = 16; step; step >>= 1) value += __shfl_xor_sync(~0u, value, step);
        before += value;
        if (prefixes) break;
    }
    if (lane == 0) shared_states[tile] = PREFIX | (before + aggregate);
    return before;
}

// Threads per row for copying `rows` rows of `total` bytes: a power of two, so that each thread has at least
// one 16-byte piece of an average row.
__device__ __forceinline__ u32 lanes_per_row(u64 total, u32 rows) {
    u64 pieces = total / (16ull * rows);
    return pieces >= 32 ? 32 : pieces >= 16 ? 16 : pieces >= 8 ? 8 : pieces >= 4 ? 4 : pieces >= 2 ? 2 : 1;
}
