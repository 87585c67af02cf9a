// What every kernel of the table shares: how columns, records and the index lie in memory.
//
// Record   16-byte header, key, value, padded to 16 bytes; begins at a multiple of 16.
//            bytes 0-3    value length
//            bytes 4-7    row in the batch that wrote it: among equal keys of one batch the highest row wins; after the
//                         batch nobody asks, and a table with checksums keeps the record's there
//            bytes 8-13   expiry, ms since the epoch, 0 = never
//            bytes 14-15  key length
// Index    64-byte buckets of eight 64-bit slots: a 16-bit fingerprint, four flags, and the record's address / 16. That is
//          a plain pointer below 2^48, so a record may lie in any segment, on the device or in mapped host memory, where
//          kernels read it at the address that the host knows it by. What is done with the latter: tiers.cu.
// Probing  bucket by bucket from the key's home bucket on, at a stride of the key's own, so that full buckets don't run
//          into one another. The last slot of a bucket carries a flag if a record ever had to go past it: a search
//          ends at the first bucket without, full or not, and an erased slot is simply empty again.
//
// Records and slots are read past L1 (ld.global.cg): another stream may be appending to the sector next door. The
// caller's columns don't change while a kernel runs, so they are read through L1: neighbouring rows share lines.

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#ifndef TILE
#define TILE 128  // rows per block, one thread each; a multiple of 32
#endif
// Blocks per multiprocessor at least, by kind of kernel: they cap the registers. Set by `source.options_for`.
#ifndef FIND_BLOCKS
#define FIND_BLOCKS 8
#endif
#ifndef INSERT_BLOCKS
#define INSERT_BLOCKS 7
#endif
#ifndef MIN_BLOCKS
#define MIN_BLOCKS 8
#endif
#define WARPS (TILE / 32)
#define ALL (~0u)  // lanes of a warp
#define SLOTS 8
#define EMPTY 0ull
#define GOES_ON (1ull << 47)   // in a bucket's last slot, empty or not: some record went past this bucket
#define REPLACED (1ull << 46)  // the record replaced a live one of before its batch
#define CLAIMED REPLACED       // of a record on the host, which is in no batch under way: a launch is to move it
#define ON_HOST (1ull << 45)   // the record lies in host memory
#define READ_ONCE (1ull << 44) // and has been read there of late
#define ADDRESS (READ_ONCE - 1)
#define HEADER 16ull
#define LOW48 0xffffffffffffull
#define HOPS 8  // buckets a search goes on by its own stride; then one by one, so that it comes to all of them

// ---- Columns ------------------------------------------------------------------------------------------------

// How columns are read: a kernel in whose time they change brings a way of its own.
#ifdef LOAD_COLUMN
#define LOAD_OFFSET LOAD_COLUMN
#else
#define LOAD_COLUMN __ldg
#define LOAD_OFFSET *
#endif

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
        begin = LOAD_OFFSET(offsets + i);
        nbytes = LOAD_OFFSET(offsets + i + 1) - begin;
    } else if (column.stride == OFFSETS64) {
        const i64* offsets = (const i64*)column.offsets;
        begin = LOAD_OFFSET(offsets + i);
        nbytes = LOAD_OFFSET(offsets + i + 1) - begin;
    } else {
        begin = i * column.stride;
        nbytes = column.stride;
    }
    return column.data + begin;
}

// ---- Bytes --------------------------------------------------------------------------------------------------

// Whose bytes are read decides how: a column's through L1, the log's past it, a warp's own copy in shared memory.
enum Memory { COLUMN, LOG, OWN };

template <Memory FROM, class T>
__device__ __forceinline__ T load(const T* p) {
    if (FROM == COLUMN) return LOAD_COLUMN(p);
    if (FROM == OWN) return *p;
    return __ldcg(p);
}

// Up to 8 bytes at any address, zero-extended. Touches only aligned words that hold one of those bytes, which
// therefore lie inside the allocation.
template <Memory FROM>
__device__ __forceinline__ u64 load_word(const u8* p, u64 nbytes) {
    u64 skip = (u64)p & 7;
    const u64* q = (const u64*)(p - skip);
    u64 word = load<FROM>(q) >> (8 * skip);
    if (skip + nbytes > 8 && skip) word |= load<FROM>(q + 1) << (64 - 8 * skip);
    return nbytes < 8 ? word & ((1ull << (8 * nbytes)) - 1) : word;
}

// Copies one row with `lanes` threads side by side, a power of two; the whole warp calls, each group with a row of its own.
// Aligned 16-byte pieces are read and written: where the two ends lie differently, each thread shifts its piece together with
// its neighbour's, so that nothing is asked of memory twice. All first reads are under way before any is waited for.
template <Memory FROM>
__device__ __forceinline__ void copy_row(u8* to, const u8* from, u64 nbytes, u32 lane, u32 lanes) {
    u32 head = min((0 - (u64)to) & 15, nbytes), tail = (nbytes - head) % 16;  // bytes around the pieces
    u64 body = (nbytes - head) / 16;
    u8* ending = to + head + 16 * body;
    const u8* ending_from = from + head + 16 * body;
    u32 shift = (u64)(from + head) & 15, skip = 8 * (shift & 7);
    const ulonglong2* pieces = (const ulonglong2*)(from + head - shift);
    ulonglong2 piece = {}, next = {};
    auto ask = [&](u64 i) {
        if (i < body + (shift != 0)) piece = load<FROM>(pieces + i);
        if (shift && lane == lanes - 1 && i < body) next = load<FROM>(pieces + i + 1);
    };
    ask(lane);
    u8 first = 0, last = 0;
    if (lane < head) first = load<FROM>(from + lane);
    if (lane < tail) last = load<FROM>(ending_from + lane);
    if (lane < head) to[lane] = first;
    if (lane < tail) ending[lane] = last;
    for (u32 i = lane + lanes; i < head; i += lanes) to[i] = load<FROM>(from + i);
    for (u32 i = lane + lanes; i < tail; i += lanes) ending[i] = load<FROM>(ending_from + i);
    for (u64 i = lane; __any_sync(ALL, i < body);) {
        u64 x = __shfl_sync(ALL, piece.x, lane + 1, lanes), y = __shfl_sync(ALL, piece.y, lane + 1, lanes);
        if (lane != lanes - 1) next = {x, y};
        if (i < body) {
            u64 a = shift < 8 ? piece.x : piece.y, b = shift < 8 ? piece.y : next.x, c = shift < 8 ? next.x : next.y;
            if (skip) a = a >> skip | b << (64 - skip), b = b >> skip | c << (64 - skip);
            ((ulonglong2*)(to + head))[i] = {a, b};
        }
        i += lanes;
        ask(i);
    }
}

// ---- Keys ---------------------------------------------------------------------------------------------------

// A key with its first 16 bytes in registers: all that most comparisons ever need.
struct Key {
    const u8* data;
    u64 nbytes, first, second;
};

template <Memory FROM = COLUMN>
__device__ __forceinline__ Key load_key(const Column& keys, u64 i) {
    Key key;
    key.data = row(keys, i, key.nbytes);
    if (key.nbytes >= 16 && ((u64)key.data & 15) == 0) {
        ulonglong2 words = load<FROM>((const ulonglong2*)key.data);
        key.first = words.x;
        key.second = words.y;
    } else {
        key.first = load_word<FROM>(key.data, min(key.nbytes, 8ull));
        key.second = key.nbytes > 8 ? load_word<FROM>(key.data + 8, min(key.nbytes - 8, 8ull)) : 0;
    }
    return key;
}

// The same where all keys have one length, a multiple of 16, and lie aligned.
template <Memory FROM = COLUMN>
__device__ __forceinline__ Key load_dense_key(const u8* data, u64 nbytes, u64 i) {
    const u8* at = data + i * nbytes;
    ulonglong2 words = load<FROM>((const ulonglong2*)at);
    return {at, nbytes, words.x, words.y};
}

__device__ __forceinline__ u64 fold(u64 a, u64 b) { return a * b ^ __umul64hi(a, b); }

// A 64-bit hash by folded 128-bit products (Wang Yi, wyhash): home bucket from the high bits, fingerprint from
// the low ones.
template <Memory FROM = COLUMN>
__device__ __forceinline__ u64 hash(const Key& key) {
    u64 h = fold(key.first ^ 0xa0761d6478bd642full, key.second ^ 0xe7037ed1a0b428dbull ^ key.nbytes);
    for (u64 at = 16; at < key.nbytes; at += 16) {
        u64 left = key.nbytes - at;
        u64 a = load_word<FROM>(key.data + at, min(left, 8ull));
        u64 b = left > 8 ? load_word<FROM>(key.data + at + 8, min(left - 8, 8ull)) : 0;
        h = fold(a ^ h ^ 0x8ebc6af09c88c6e3ull, b ^ h);
    }
    return fold(h ^ 0x589965cc75374cc3ull, 0x1d8e4e27c47d124full);
}

__device__ __forceinline__ u64 home(u64 h, u64 buckets) { return __umul64hi(h, buckets); }

// From each bucket of a search to the next. done: buckets left behind so far.
__device__ __forceinline__ u32 stride_of(u64 h, u64 buckets) {
    return 1 + (u32)__umul64hi(h << 32 | h >> 32, buckets - 1);
}

__device__ __forceinline__ u32 next_bucket(u32 bucket, u32 stride, u64 done, u64 buckets) {
    u64 next = (u64)bucket + (done < HOPS ? stride : 1);
    return next >= buckets ? next - buckets : next;
}

// The fingerprint: never 0, so that no empty slot has one.
__device__ __forceinline__ u32 tag_of(u64 h) { return max((u32)h & 0xffff, 1u); }

// ---- Records ------------------------------------------------------------------------------------------------

__device__ __forceinline__ u8* record_of(u64 slot) { return (u8*)((slot & ADDRESS) << 4); }
__device__ __forceinline__ u64 slot_of(u64 h, const u8* record) { return (u64)tag_of(h) << 48 | (u64)record >> 4; }
__device__ __forceinline__ bool is_record(u64 slot) { return (slot & ADDRESS) != 0; }

struct Header {
    u32 value_nbytes, batch_row;
    u64 key_nbytes, expiry;
};

__device__ __forceinline__ Header parse_header(uint4 words) {
    u64 high = (u64)words.w << 32 | words.z;
    return {words.x, words.y, high >> 48, high & LOW48};
}

__device__ __forceinline__ Header load_header(const u8* record) { return parse_header(__ldcg((const uint4*)record)); }

__device__ __forceinline__ uint4 pack_header(u64 value_nbytes, u32 batch_row, u64 key_nbytes, u64 expiry) {
    u64 high = key_nbytes << 48 | expiry;
    return {(u32)value_nbytes, batch_row, (u32)high, (u32)(high >> 32)};
}

__device__ __forceinline__ bool alive(const Header& header, u64 now) {
    return header.expiry == 0 || header.expiry > now;
}

__device__ __forceinline__ u64 record_nbytes(u64 key_nbytes, u64 value_nbytes) {
    return (HEADER + key_nbytes + value_nbytes + 15) & ~15ull;
}

// The first 16 bytes, of which a shorter key has but some; a record has as many after its header in any case.
__device__ __forceinline__ bool same_start(const Key& key, ulonglong2 stored) {
    u64 n = key.nbytes;
    u64 first = n < 8 ? (1ull << 8 * n) - 1 : ~0ull;
    u64 second = n <= 8 ? 0 : n < 16 ? (1ull << 8 * (n - 8)) - 1 : ~0ull;
    return (stored.x & first) == key.first && (stored.y & second) == key.second;
}

__device__ __forceinline__ bool same_rest(const Key& key, const u8* record) {
    for (u64 at = 16; at < key.nbytes; at += 8) {
        u64 left = min(key.nbytes - at, 8ull);
        if (load_word<LOG>(record + HEADER + at, left) != load_word<COLUMN>(key.data + at, left)) return false;
    }
    return true;
}
