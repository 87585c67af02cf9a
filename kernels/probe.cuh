// Looking up 32 keys with the 32 lanes of a warp.
//
// What bounds random lookups, once enough of them are under way, is the number of requests that leave a
// multiprocessor, not their bytes: a lane that reads a 64-byte bucket by itself asks four times, four lanes side by side
// ask once. So each lane keeps one key, and four lanes together read a bucket for it: first the home buckets of all
// keys, eight at a time, then, eight at a time again, the next buckets of those keys (about one in ten at load 0.8) whose
// search goes on. What they find goes to the key's own lane through shared memory.
#include "common.cuh"

#define LANES_PER_BUCKET 4  // 16 bytes, two slots, each
#define BUCKETS_AT_ONCE (32 / LANES_PER_BUCKET)
#ifndef ROUNDS_AT_ONCE
#define ROUNDS_AT_ONCE 4  // under way per lane, of the four that a warp's 32 home buckets take
#endif

// A slot and what it held.
struct Spot {
    u64* at;
    u64 seen;
};

// One warp's results, per lane.
struct Probes {
    Spot match[32];   // the slot that has the key's fingerprint; seen 0: none has
    u32 asking[BUCKETS_AT_ONCE];
};

struct Lookups : Probes {
    Spot vacant[32];     // first slot of the probe that can be claimed; null: none
    uint4 heads[32][2];  // of the record at `match`: its header, and 16 bytes from its key on
};

// Marks a bucket as one that a record goes past. A fence has to follow before that record can be seen.
__device__ __forceinline__ bool go_past(u64* last_slot) {
    atomicOr(last_slot, GOES_ON);  // what the mark was before is not waited for
    return true;
}

// What four lanes see in a bucket they have read for lane `asker`. Returns, four bits apart, for which of the eight
// buckets at once the search goes on. With `vacant` it does so, past a full bucket, until there is a slot to be claimed.
__device__ __forceinline__ u32 inspect(
    Probes& probes, Spot* vacant, bool& marked, u32 asker, u32 tag, u64* at, ulonglong2 slots, bool active) {
    u32 lane = threadIdx.x % 32, first = lane & ~3u, own = 1u << lane % 4;
    bool left = slots.x >> 48 == tag, right = slots.y >> 48 == tag;
    u32 matches = __ballot_sync(ALL, active && (left || right)) >> first & 15;
    if (matches && (matches & (0 - matches)) == own) probes.match[asker] = {at + !left, left ? slots.x : slots.y};
    bool on = active && !matches && lane % 4 == 3, past = slots.y & GOES_ON;
    if (vacant) {
        bool free = active && !(is_record(slots.x) && is_record(slots.y));
        u32 frees = __ballot_sync(ALL, free) >> first & 15;
        if (free && (frees & (0 - frees)) == own && !vacant[asker].at) {
            bool second = is_record(slots.x);
            vacant[asker] = {at + second, second ? slots.y : slots.x};
        }
        if (on && !past && !frees && !vacant[asker].at) past = marked = go_past(at + 1);
    }
    return __ballot_sync(ALL, on && past) >> 3;
}

// Fills match for every lane, and unless it is null vacant; `wanted`: whether the lane has a key, which only the first 8 * ROUNDS
// may. The whole warp calls.
template <u32 ROUNDS = LANES_PER_BUCKET>
__device__ __forceinline__ void probe(
    Probes& probes, Spot* vacant, u64 h, bool wanted, u64* index, u64 buckets) {
    u32 lane = threadIdx.x % 32, place = lane / LANES_PER_BUCKET, slot = lane % LANES_PER_BUCKET * 2;
    u32 bucket = home(h, buckets), stride = stride_of(h, buckets), tag = tag_of(h);
    __syncwarp();  // earlier results have been read
    probes.match[lane] = {};
    if (vacant) vacant[lane] = {};
    u32 asked = __ballot_sync(ALL, wanted);
    __syncwarp();
    bool searching = false, marked = false;
#pragma unroll
    for (u32 round = 0; round < ROUNDS; round += ROUNDS_AT_ONCE) {
        ulonglong2 slots[ROUNDS_AT_ONCE];
#pragma unroll
        for (u32 f = 0; f < ROUNDS_AT_ONCE && round + f < ROUNDS; ++f) {
            u32 asker = (round + f) * BUCKETS_AT_ONCE + place;
            u64 at = (u64)__shfl_sync(ALL, bucket, asker) * SLOTS + slot;
            slots[f] = {EMPTY, EMPTY};
            if (asked >> asker & 1) slots[f] = __ldcg((const ulonglong2*)(index + at));
        }
#pragma unroll
        for (u32 f = 0; f < ROUNDS_AT_ONCE && round + f < ROUNDS; ++f) {
            u32 asker = (round + f) * BUCKETS_AT_ONCE + place;
            u64* at = index + (u64)__shfl_sync(ALL, bucket, asker) * SLOTS + slot;
            u32 on = inspect(probes, vacant, marked, asker, __shfl_sync(ALL, tag, asker), at, slots[f], asked >> asker & 1);
            if (lane / BUCKETS_AT_ONCE == round + f) searching = on >> lane % BUCKETS_AT_ONCE * LANES_PER_BUCKET & 1;
        }
    }
    for (u64 done = 0; done < buckets + HOPS; ++done) {
        u32 pending = __ballot_sync(ALL, searching), count = __popc(pending);
        if (!pending) break;
        bucket = next_bucket(bucket, stride, done, buckets);
        u32 rank = searching ? __popc(pending & ((1u << lane) - 1)) : ~0u;
        searching = false;
        for (u32 base = 0; base < count; base += BUCKETS_AT_ONCE) {
            __syncwarp();  // `asking` and `vacant` have been read
            if (rank - base < BUCKETS_AT_ONCE && rank != ~0u) probes.asking[rank - base] = lane;
            __syncwarp();
            bool active = base + place < count;
            u32 asker = active ? probes.asking[place] : 0;
            u64* at = index + (u64)__shfl_sync(ALL, bucket, asker) * SLOTS + slot;
            ulonglong2 next = {EMPTY, EMPTY};
            if (active) next = __ldcg((const ulonglong2*)at);
            u32 on = inspect(probes, vacant, marked, asker, __shfl_sync(ALL, tag, asker), at, next, active);
            if (rank - base < BUCKETS_AT_ONCE && rank != ~0u) {
                searching = on >> (rank - base) * LANES_PER_BUCKET & 1;
            }
        }
    }
    if (vacant && __any_sync(ALL, marked)) __threadfence();
    __syncwarp();
}

// One key by one lane, for the few that need it: the slot that holds the key's record, seen 0 if none does; and with
// `vacant` the first of the search that can be claimed. A small batch waits for it, so reads go side by side.
__device__ __forceinline__ void search(
    Spot& match, Spot* vacant, const u8* bytes, u64 key_nbytes, u64* index, u64 buckets) {
    Key key = load_key({bytes, nullptr, key_nbytes}, 0);
    u64 h = hash(key);
    u32 bucket = home(h, buckets), tag = tag_of(h);
    match = {};
    if (vacant) *vacant = {};
    for (u64 done = 0; done < buckets + HOPS; ++done) {
        u64* at = index + (u64)bucket * SLOTS;
        // The upper halves tell all but the address: the fingerprint, 0 in a slot without a record, and GOES_ON.
        u32 upper[SLOTS], alike = 0;
#pragma unroll
        for (u32 i = 0; i < SLOTS; ++i) upper[i] = __ldcg((const u32*)(at + i) + 1);
#pragma unroll
        for (u32 i = 0; i < SLOTS; ++i) {
            if (upper[i] >> 16 == tag) alike |= 1u << i;
            if (vacant && !(upper[i] >> 16) && !vacant->at) *vacant = {at + i, (u64)upper[i] << 32};
        }
        for (; alike; alike &= alike - 1) {
            u64* candidate = at + __ffs(alike) - 1;
            u64 slot = __ldcg(candidate);
            if (slot >> 48 != tag) continue;  // erased since
            const ulonglong2* record = (const ulonglong2*)record_of(slot);
            ulonglong2 header = __ldcg(record), start = __ldcg(record + 1);
            if (header.y >> 48 == key_nbytes && same_start(key, start) && same_rest(key, (const u8*)record)) {
                match = {candidate, slot};
                return;
            }
        }
        if (!((u64)upper[SLOTS - 1] << 32 & GOES_ON)) {
            if (!vacant || vacant->at) return;
            go_past(at + SLOTS - 1);
            __threadfence();
        }
        bucket = next_bucket(bucket, stride_of(h, buckets), done, buckets);
    }
}

enum Finding { ABSENT, PRESENT, MISTAKEN };

// Looks keys up, one a lane, of as many lanes as `probe`. Two lanes read the head of each record whose fingerprint matches.
// MISTAKEN, one in some ten thousand: that was another key's, and whether there is one of this key remains to be searched for.
template <u32 ROUNDS = LANES_PER_BUCKET>
__device__ __forceinline__ Finding look_up(
    Lookups& lookups, Spot* vacant, const Key& key, u64 h, bool wanted, u64* index, u64 buckets) {
    probe<ROUNDS>(lookups, vacant, h, wanted, index, buckets);
    u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 s = 0; s < ROUNDS * BUCKETS_AT_ONCE; s += 16) {
        u64 seen = lookups.match[s + lane / 2].seen;
        if (seen) lookups.heads[s + lane / 2][lane % 2] = __ldcg((const uint4*)record_of(seen) + lane % 2);
    }
    __syncwarp();
    u64 seen = lookups.match[lane].seen;
    if (!seen) return ABSENT;
    Header header = parse_header(lookups.heads[lane][0]);
    bool right = header.key_nbytes == key.nbytes &&
                 same_start(key, *(const ulonglong2*)&lookups.heads[lane][1]) && same_rest(key, record_of(seen));
    return right ? PRESENT : MISTAKEN;
}

// The same for kernels that only need the record and its header: nothing is left to be searched for. Whether it is there.
__device__ __forceinline__ bool find_record(
    Lookups& lookups, const Key& key, bool wanted, u64* index, u64 buckets, u8*& record, Header& header) {
    u32 lane = threadIdx.x % 32;
    Finding finding = look_up(lookups, nullptr, key, hash(key), wanted, index, buckets);
    if (finding == MISTAKEN) {
        search(lookups.match[lane], nullptr, key.data, key.nbytes, index, buckets);
        u64 seen = lookups.match[lane].seen;
        if (seen) lookups.heads[lane][0] = __ldcg((const uint4*)record_of(seen));
    }
    record = record_of(lookups.match[lane].seen);
    header = parse_header(lookups.heads[lane][0]);
    return lookups.match[lane].seen != 0;
}
