// The 32 keys of a warp looked up by its 32 lanes (v7 on): probe.cuh's idea, for any bucket and any choice of buckets.
//
// Each lane keeps one key; BUCKET_SLOTS / 2 lanes read a bucket for it, 16 bytes each, so that a bucket is one request of
// its sectors and not four: first the first buckets of all keys, then, packed together, the next ones of those few keys
// that need them. From v8 on the lanes go over the records in the same way, piece by piece as if they lay end to end.
#include "ladder.cuh"

namespace ladder {

constexpr u32 LANES = BUCKET_SLOTS / 2, AT_ONCE = 32 / LANES;  // lanes per bucket, buckets per request

// One warp's results, per lane.
struct Found {
    Spot match[32];   // the slot that has the key's fingerprint; seen 0: none has
    Spot vacant[32];  // first slot of the probe that can be claimed; null: none
    u32 asking[AT_ONCE];
};

// What LANES lanes see in a bucket they have read for lane `asker`. Returns, LANES bits apart, for which of the buckets at
// once the search goes on.
template <bool VACANT>
__device__ __forceinline__ u32 inspect(
    Found& found, u32 asker, u32 tag, u64* at, ulonglong2 slots, bool active, u64 probed) {
    u32 lane = threadIdx.x % 32, own = lane % LANES, group = lane - own, mask = (1u << LANES) - 1;
    bool left = slots.x >> 48 == tag, right = slots.y >> 48 == tag;
    u32 matches = __ballot_sync(ALL, active && (left || right)) >> group & mask;
    if (matches && __ffs(matches) - 1 == own) found.match[asker] = {at + !left, left ? slots.x : slots.y};
    if (VACANT) {
        bool free = active && !(is_record(slots.x) && is_record(slots.y));
        u32 frees = __ballot_sync(ALL, free) >> group & mask;
        if (frees && __ffs(frees) - 1 == own && !found.vacant[asker].at) {
            bool second = is_record(slots.x);
            found.vacant[asker] = {at + second, second ? slots.y : slots.x};
        }
    }
    bool on = active && !matches && own == LANES - 1 && goes_on(slots.y != EMPTY, probed);
    return __ballot_sync(ALL, on) >> (LANES - 1);
}

// Fills match (and vacant) for every lane; `wanted`: whether the lane has a key. The whole warp calls.
template <bool CHANGING>
__device__ __forceinline__ void probe_together(Found& found, u64 h, bool wanted, const Table& table) {
    u32 lane = threadIdx.x % 32, seat = lane / LANES, slot = lane % LANES * 2;
    u32 place = first_place(h, table.buckets), tag = tag_of(h);
    found.match[lane] = {};
    if (CHANGING) found.vacant[lane] = {};
    u32 asked = __ballot_sync(ALL, wanted);
    __syncwarp();
    ulonglong2 slots[LANES];
#pragma unroll
    for (u32 g = 0; g < LANES; ++g) {
        u32 asker = g * AT_ONCE + seat;
        u64 at = (u64)__shfl_sync(ALL, place, asker) * BUCKET_SLOTS + slot;
        slots[g] = {EMPTY, EMPTY};
        if (asked >> asker & 1) slots[g] = fetch_slots<CHANGING>(table.index + at);
    }
    bool searching = false;
#pragma unroll
    for (u32 g = 0; g < LANES; ++g) {
        u32 asker = g * AT_ONCE + seat;
        u64* at = table.index + (u64)__shfl_sync(ALL, place, asker) * BUCKET_SLOTS + slot;
        u32 its = __shfl_sync(ALL, tag, asker);
        u32 on = inspect<CHANGING>(found, asker, its, at, slots[g], asked >> asker & 1, 0);
        if (lane / AT_ONCE == g) searching = on >> lane % AT_ONCE * LANES & 1;
    }
    for (u64 probed = 1; probed < most_probes(table.buckets); ++probed) {
        u32 pending = __ballot_sync(ALL, searching), count = __popc(pending);
        if (!pending) break;
        place = next_place(place, probed, tag, table.buckets);
        u32 rank = searching ? __popc(pending & ((1u << lane) - 1)) : ~0u;
        searching = false;
        for (u32 base = 0; base < count; base += AT_ONCE) {
            bool seated = rank != ~0u && rank - base < AT_ONCE;
            __syncwarp();  // `asking` and `vacant` have been read
            if (seated) found.asking[rank - base] = lane;
            __syncwarp();
            bool active = base + seat < count;
            u32 asker = active ? found.asking[seat] : 0;
            u64* at = table.index + (u64)__shfl_sync(ALL, place, asker) * BUCKET_SLOTS + slot;
            ulonglong2 next = {EMPTY, EMPTY};
            if (active) next = fetch_slots<CHANGING>(at);
            u32 its = __shfl_sync(ALL, tag, asker);
            u32 on = inspect<CHANGING>(found, asker, its, at, next, active, probed);
            if (seated) searching = on >> (rank - base) * LANES & 1;
        }
    }
    __syncwarp();
}

// A piece on its way to shared memory without passing through a register, where the architecture can.
__device__ __forceinline__ void stage(Piece* to, const Piece* from) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800 && HEADER_NBYTES == 16
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((u32)__cvta_generic_to_shared(to)), "l"(from) : "memory");
#else
    *to = __ldcg(from);
#endif
}

__device__ __forceinline__ void await_staged() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// Visits the record that each row's probe has named, once: compares header and key with the row's, and, with COPY, writes
// the value out meanwhile (zeros where there is no record). Returns the rows, as bits, whose record is of another key.
template <bool CHANGING, bool COPY>
__device__ __forceinline__ u32 visit(
    const Spot* match, const u8* keys, u32 rows, const Table& table, u8* values) {  // of the warp's first row on
    __shared__ Piece staged[STAGED ? PIECES_AT_ONCE : 1][TILE];
    u32 head = head_of(table), pieces = COPY ? head + pieces_of(table.value_nbytes) : head, wrong = 0;
    Walk reading(pieces), writing(pieces);
    while (writing.row < rows) {
        Piece words[PIECES_AT_ONCE];
#pragma unroll
        for (u32 f = 0; f < PIECES_AT_ONCE; ++f, reading.next()) {
            u64 seen = reading.row < rows ? match[reading.row].seen : 0;
            const Piece* from = (const Piece*)record_of(seen) + reading.piece;
            if constexpr (STAGED) {
                if (seen) stage(&staged[f][threadIdx.x], from);
                else staged[f][threadIdx.x] = {};
            } else {
                words[f] = {};
                if (seen) words[f] = fetch<CHANGING>(from);
            }
        }
        if constexpr (STAGED) await_staged();  // each lane reads only what it has asked for itself
#pragma unroll
        for (u32 f = 0; f < PIECES_AT_ONCE; ++f, writing.next()) {
            u32 row = writing.row, piece = writing.piece;
            if (row >= rows) break;
            if constexpr (STAGED) words[f] = staged[f][threadIdx.x];
            if (piece >= head) {
                u32 at = (piece - head) * PIECE;
                store_piece(values + row * table.value_nbytes + at, words[f], table.value_nbytes - at);
            } else if (match[row].seen) {
                u32 at = (piece - 1) * PIECE;
                const u8* key = keys + row * table.key_nbytes;
                Piece right = piece ? load_piece<false>(key + at, table.key_nbytes - at) : header_of(table);
                if (!same(words[f], right)) wrong |= 1u << row;
            }
        }
    }
    wrong = warp_or(wrong);
    __syncwarp();  // what is written again was written before
    return wrong;
}

// The warp's keys, each lane its own, with what probing together tells. The whole warp calls.
template <bool CHANGING>
__device__ __forceinline__ Match lookup_together(
    Found& found, const u8* keys, u64 h, bool wanted, u32 rows, const Table& table) {
    probe_together<CHANGING>(found, h, wanted, table);
    u32 lane = threadIdx.x % 32, wrong = 0;
    if constexpr (FUSED) wrong = visit<CHANGING, false>(found.match, keys, rows, table, nullptr);
    const u8* key = keys + lane * table.key_nbytes;
    Match match = {};
    if (CHANGING) match.free = found.vacant[lane].at, match.free_seen = found.vacant[lane].seen;
    u64 seen = found.match[lane].seen;
    if (!seen) return match;
    match.record = record_of(seen), match.slot = found.match[lane].at, match.seen = seen;
    bool right = FUSED ? !(wrong >> lane & 1) : same_key<CHANGING, false>(key, match.record, table);
    // Else another key with this fingerprint stood before it, or there is none of this key.
    return right ? match : lookup<CHANGING, true>(key, h, table);
}

}  // namespace ladder
