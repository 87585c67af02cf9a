// Checksums: 32 bits a record, kept in that word of its header which is its row while its batch is being published.
//
// seal_keys     gives the records of a batch their checksums, found by its keys
// seal_slots    the same where those keys are not all at hand any more: a pass over the index
// verify_keys   whether each key's record is another than was stored
// verify_slots  how many records of the index are
//
// A checksum is the sum, modulo 2^32, of mix(word, place) over a record's 4-byte words: its lengths, key and value, but not
// its row, its expiry, or the padding. Sums may be taken in any order, so as many lanes share a record as it has pieces of
// 16 bytes. For one place mix is one to one, so whatever changes within one word, a bit above all, changes the sum; anything
// else passes unnoticed once in some 2^32. The sum is that of an additive hash of a multiset, here of words with their places
// (Clarke et al., Incremental Multiset Hash Functions, 2003), mix the last step of MurmurHash3 (Appleby).
//
// A length that has changed may lead out of the log: of a record that does not end within its stretch of the log nothing but
// the header is read.
//
// Bytes moved per key of k bytes with a value of v: k (query) + 64 (bucket) + 16 + k + v (record) read, 4 (checksum) or 1
// (answer) written.
#include "blocks.cuh"
#include "counters.cuh"
#include "probe.cuh"

// Begin and end of each stretch of the log in question, all together ascending.
struct Stretches {
    const u64* edges;
    u64 n;

    // Bytes from a record to the end of its stretch; 0 where it lies in none.
    __device__ __forceinline__ u64 room(const u8* record) const {
        u64 low = 0, high = n;
        while (low < high) {
            u64 middle = (low + high) / 2;
            if (edges[middle] <= (u64)record) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        return low % 2 ? edges[low] - (u64)record : 0;
    }
};

__device__ __forceinline__ u32 mix(u32 word, u32 place) {
    word ^= place * 0x9e3779b9u;
    word = (word ^ word >> 16) * 0x85ebca6bu;
    word = (word ^ word >> 13) * 0xc2b2ae35u;
    return word ^ word >> 16;
}

// Padding may hold anything: only the first n bytes of a word count.
__device__ __forceinline__ u32 first_bytes(u32 word, i64 n) {
    return n >= 4 ? word : n <= 0 ? 0 : word & ((1u << 8 * n) - 1);
}

// What piece i adds to the checksum of a record of `nbytes`.
__device__ __forceinline__ u32 sum_piece(const u8* record, u64 nbytes, u32 i) {
    uint4 words = __ldcg((const uint4*)record + i);
    if (i == 0) words.y = words.z = 0, words.w &= 0xffff0000u;  // of the header its lengths
    i64 left = nbytes - 16ull * i;
    return mix(first_bytes(words.x, left), 4 * i) + mix(first_bytes(words.y, left - 4), 4 * i + 1) +
           mix(first_bytes(words.z, left - 8), 4 * i + 2) + mix(first_bytes(words.w, left - 12), 4 * i + 3);
}

// The checksum of each lane's record. nbytes: without padding, 0 for none. The whole warp calls.
__device__ __forceinline__ u32 checksum(const u8* record, u64 nbytes) {
    u32 records = __popc(__ballot_sync(ALL, nbytes != 0));
    if (!records) return 0;
    u32 lane = threadIdx.x % 32, lanes = lanes_per_row(warp_sum(nbytes), records), at_once = 32 / lanes, own = 0;
    for (u32 first = 0; first < 32; first += at_once) {
        u32 owner = first + lane / lanes, sum = 0;
        const u8* from = (const u8*)__shfl_sync(ALL, (u64)record, owner);
        u64 size = __shfl_sync(ALL, nbytes, owner);
        u32 pieces = (size + 15) / 16;
#pragma unroll 4
        for (u32 i = lane % lanes; i < pieces; i += lanes) sum += sum_piece(from, size, i);
        for (u32 step = lanes / 2; step; step /= 2) sum += __shfl_xor_sync(ALL, sum, step);
        u32 whole = __shfl_sync(ALL, sum, (lane - first) * lanes);
        if (lane - first < at_once) own = whole;
    }
    return own;
}

// Bytes of a record without padding; 0 where it does not lie in one of the stretches, all of it.
__device__ __forceinline__ u64 nbytes_within(const u8* record, const Stretches& stretches) {
    u64 room = record ? stretches.room(record) : 0;
    if (!room) return 0;
    Header header = load_header(record);
    u64 nbytes = HEADER + header.key_nbytes + header.value_nbytes;
    return nbytes <= room ? nbytes : 0;
}

// Each lane's record, null for none; what does not lie in the stretches is left alone. The whole warp calls.
__device__ __forceinline__ void seal(u8* record, const Stretches& stretches) {
    u64 nbytes = nbytes_within(record, stretches);
    u32 sum = checksum(record, nbytes);
    if (nbytes) ((u32*)record)[1] = sum;
}

__device__ __forceinline__ bool is_corrupt(const u8* record, const Stretches& stretches) {
    u64 nbytes = nbytes_within(record, stretches);
    u32 sum = checksum(record, nbytes);
    return record && !(nbytes && sum == load_header(record).batch_row);
}

// The record of each lane's key. Where there is none it is another one with the key's fingerprint, if there is such a one: it
// may be the key's after all, changed in just those bytes. The whole warp calls.
__device__ __forceinline__ u8* candidate(Lookups& lookups, const Key& key, bool wanted, u64* index, u64 buckets) {
    Spot& match = lookups.match[threadIdx.x % 32];
    Finding finding = look_up(lookups, nullptr, key, hash(key), wanted, index, buckets);
    u64 seen = match.seen;
    if (finding == MISTAKEN) {
        search(match, nullptr, key.data, key.nbytes, index, buckets);
        if (match.seen) seen = match.seen;
    }
    return record_of(seen);
}

extern "C" __global__ void __launch_bounds__(TILE, MIN_BLOCKS) seal_keys(
    const u8* key_data, const void* key_offsets, u64 key_stride, u64 n, u64* index, u64 buckets,
    const u64* edges, u64 n_edges) {  // of what the batch wrote
    __shared__ Lookups lookups[WARPS];
    u64 i = (u64)blockIdx.x * TILE + threadIdx.x;
    Key key = i < n ? load_key({key_data, key_offsets, key_stride}, i) : Key{};
    seal(candidate(lookups[threadIdx.x / 32], key, i < n, index, buckets), {edges, n_edges});
}

extern "C" __global__ void __launch_bounds__(TILE, MIN_BLOCKS) seal_slots(
    const u64* slots, u64 n, const u64* edges, u64 n_edges) {  // as for seal_keys
    u64 i = (u64)blockIdx.x * TILE + threadIdx.x;
    seal(record_of(i < n ? __ldcg(slots + i) : EMPTY), {edges, n_edges});
}

extern "C" __global__ void __launch_bounds__(TILE, MIN_BLOCKS) verify_keys(
    const u8* key_data, const void* key_offsets, u64 key_stride, u64 n, u64* index, u64 buckets, u64 now,
    const u64* edges, u64 n_edges,  // of the whole log
    u8* corrupt) {                  // per key; 0 where it is absent or has expired
    __shared__ Lookups lookups[WARPS];
    u64 i = (u64)blockIdx.x * TILE + threadIdx.x;
    Key key = i < n ? load_key({key_data, key_offsets, key_stride}, i) : Key{};
    const u8* record = candidate(lookups[threadIdx.x / 32], key, i < n, index, buckets);
    if (record && !alive(load_header(record), now)) record = nullptr;
    bool changed = is_corrupt(record, {edges, n_edges});
    if (i < n) corrupt[i] = changed;
}

extern "C" __global__ void __launch_bounds__(TILE, MIN_BLOCKS) verify_slots(
    const u64* slots, u64 n, const u64* edges, u64 n_edges,  // as for verify_keys
    u64* count) {
    u64 i = (u64)blockIdx.x * TILE + threadIdx.x;
    u64 sum = warp_sum(is_corrupt(record_of(i < n ? __ldcg(slots + i) : EMPTY), {edges, n_edges}));
    if (threadIdx.x % 32 == 0 && sum) atomicAdd(count, sum);
}
