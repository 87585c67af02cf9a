// Insert: append whole records to the log, in one launch, then publish each by one compare-and-swap, in another.
//
// write_dense  keys and values of one length each, multiples of 16: record i lies at log + i * record length, and a warp
//              writes its 32 records as one stretch of memory.
// write        everything else: a tile of records takes its place at the log's tail with one atomic addition.
// publish      looks each key up and puts its record's address into the slot.
//
// A record is published only once all of it lies in memory, which the end of a launch sees to: a reader sees the old record
// or the new one, never a mixture. Within one launch a fence would have to, and every lane would wait for its warp's writes.
//
// Equal keys in one batch: the highest row wins, whatever the order of execution; which records belong to the batch is told by
// where they lie (a batch may take several launches, one for each piece of the log it fills). A slot is claimed only as the
// first free one of the key's whole search, and slots are only ever filled while `publish` runs; so two threads with one
// key contend for one and the same slot, the loser looks again and finds the winner's record.
//
// Bytes moved per new record: write: key and value read, 16 + key + value written, all in order; publish: key read, 64
// (bucket) read, 8 (slot) swapped; the bucket is the one random access, visited twice.
#include "emit.cuh"
#include "records.cuh"
#include "counters.cuh"

#define STORED 0
#define UPDATED 1
#define SUPERSEDED 2
#define NO_SPACE 4
#define OWN_KEY_NBYTES 64  // keys up to here are written by their own thread, word by word

extern "C" __global__ void __launch_bounds__(TILE, FIND_BLOCKS) write_dense(
    const uint4* keys, u64 key_stride, const uint4* values, u64 value_stride, u64 n,  // multiples of 16, aligned
    u64 expiry, uint4* log, u64 first_row, signed char* status, u64* counters, u64* work) {  // as for write
    u32 lane = threadIdx.x % 32, key_pieces = key_stride / 16, head = 1 + key_pieces, value_pieces = value_stride / 16;
    u32 pieces = head + value_pieces;
    u64 i = (u64)blockIdx.x * TILE + threadIdx.x, first = i - lane;
    if (i == 0) {
        raise(counters + MAX_VALUE_NBYTES, value_stride);
        raise(counters + MIN_VALUE_NBYTES, ~value_stride);
        atomicAdd(work, n * 16 * pieces);
    }
    if (first >= n) return;
    if (i < n) status[first_row + i] = STORED;
    u32 rows = min(n - first, 32ull);
    keys += first * key_pieces, values += first * value_pieces, log += first * pieces + lane;
    for (Walk walk(pieces); walk.row < rows; walk.next(), log += 32) {
        if (walk.piece >= head) {
            *log = __ldcs(values + (u64)walk.row * value_pieces + walk.piece - head);
        } else if (walk.piece) {
            *log = load<COLUMN>(keys + walk.row * key_pieces + walk.piece - 1);
        } else {
            *log = pack_header(value_stride, first_row + first + walk.row, key_stride, expiry);
        }
    }
}

extern "C" __global__ void __launch_bounds__(TILE, MIN_BLOCKS) write(
    const u8* key_data, const void* key_offsets, u64 key_stride,
    const u8* value_data, const void* value_offsets, u64 value_stride, u64 n, u64 expiry,
    u8* log,                             // the tail, with room for all these rows
    u64* places,                         // per row: where its record lies
    u64 first_row, signed char* status,  // of these rows in the batch; per row of the whole batch
    u64* counters,
    u64* work) {                         // two zero words: bytes used of the log, for `publish` to report
    __shared__ u8* records[TILE];
    __shared__ const u8* keys[TILE];
    __shared__ const u8* values[TILE];
    __shared__ u32 key_lengths[TILE];
    __shared__ u32 value_lengths[TILE];
    __shared__ u64 tile_start;

    u32 t = threadIdx.x;
    u64 i = (u64)blockIdx.x * TILE + t;
    Key key = {};
    const u8* value = nullptr;
    u64 value_nbytes = 0, nbytes = 0;
    if (i < n) {
        key = load_key({key_data, key_offsets, key_stride}, i);
        value = row({value_data, value_offsets, value_stride}, i, value_nbytes);
        status[first_row + i] = STORED;
        nbytes = record_nbytes(key.nbytes, value_nbytes);
        raise(counters + MAX_VALUE_NBYTES, value_nbytes);
        raise(counters + MIN_VALUE_NBYTES, ~value_nbytes);
    }
    u64 tile_nbytes, before = block_scan(nbytes, tile_nbytes);
    if (t == 0) tile_start = atomicAdd(work, tile_nbytes);
    __syncthreads();

    u8* record = log + tile_start + before;
    if (nbytes) {
        places[i] = (u64)record;
        *(uint4*)record = pack_header(value_nbytes, first_row + i, key.nbytes, expiry);
        u64* words = (u64*)(record + HEADER);
        if (key.nbytes <= OWN_KEY_NBYTES) {
            // What reaches into the value is written over after the barrier. A record has 32 bytes or more.
            *(ulonglong2*)words = {key.first, key.second};
            for (u64 at = 16; at < key.nbytes; at += 8) {
                words[at / 8] = load_word<COLUMN>(key.data + at, min(key.nbytes - at, 8ull));
            }
        }
    }
    records[t] = record;
    keys[t] = key.data;
    values[t] = value;
    key_lengths[t] = key.nbytes;
    value_lengths[t] = value_nbytes;
    __syncthreads();

    u32 lanes = lanes_per_row(tile_nbytes, TILE);
    if (__any_sync(ALL, key_lengths[t] > OWN_KEY_NBYTES)) {
        // A warp's own rows: other warps need not have any.
        for (u32 r = t & ~31u; r < (t | 31u) + 1; ++r) {
            u32 key_nbytes = key_lengths[r] > OWN_KEY_NBYTES ? key_lengths[r] : 0;
            copy_row<COLUMN>(records[r] + HEADER, keys[r], key_nbytes, t % 32, 32);
        }
    }
    for (u32 r = t / lanes; r < TILE; r += TILE / lanes) {
        copy_row<COLUMN>(records[r] + HEADER + key_lengths[r], values[r], value_lengths[r], t % lanes, lanes);
    }
}

// Where the batch has written so far, begin and end of each stretch: in this segment, and in earlier ones.
struct Batch {
    const u8 *begin, *end;
    const u64* earlier;
    u64 n_earlier;

    __device__ __forceinline__ bool wrote(const u8* record) const {
        bool did = record >= begin && record < end;
        for (u64 e = 0; e < n_earlier && !did; ++e) {
            did = (u64)record >= earlier[2 * e] && (u64)record < earlier[2 * e + 1];
        }
        return did;
    }
};

__device__ __forceinline__ u64 nbytes_of(const Header& header) {
    return record_nbytes(header.key_nbytes, header.value_nbytes);
}

extern "C" __global__ void __launch_bounds__(TILE, INSERT_BLOCKS) publish(
    const u8* key_data, const void* key_offsets, u64 key_stride, u64 n, u64* index, u64 buckets, u64 now,
    const u8* log, u64 nbytes, const u64* places,  // record i lies at places[i], or where that is null at log + i * nbytes
    const u8* begin, const u8* end,     // where this segment holds records of the batch
    const u64* earlier, u64 n_earlier,  // the same, begin and end, for the batch's earlier segments
    u64 first_row, signed char* status, u64* counters, u64* report, u64* work) {
    __shared__ Lookups lookups[WARPS];
    __shared__ Changes changes;
    Lookups& mine = lookups[threadIdx.x / 32];
    Batch batch = {begin, end, earlier, n_earlier};
    u32 lane = threadIdx.x % 32;
    Spot &match = mine.match[lane], &vacant = mine.vacant[lane];
    start(changes);
    if (blockIdx.x == 0 && threadIdx.x == 0) atomicAdd(&changes.live_nbytes, __ldcg(work));
    for (u64 i = (u64)blockIdx.x * TILE + threadIdx.x; i - lane < n; i += (u64)gridDim.x * TILE) {
        bool wanted = i < n, claimed = false, far = false;
        u32 dead_nbytes = 0;
        u64 slot = 0;
        Finding finding;
        {
            Key key = wanted ? load_key({key_data, key_offsets, key_stride}, i) : Key{};
            u64 h = hash(key);
            slot = slot_of(h, !wanted ? nullptr : places ? (const u8*)places[i] : log + i * nbytes);
            finding = look_up(mine, mine.vacant, key, h, wanted, index, buckets);
        }
        u32 row = first_row + i;
        while (wanted) {
            if (finding == MISTAKEN) {
                u64 key_nbytes;
                const u8* key = ::row({key_data, key_offsets, key_stride}, i, key_nbytes);
                search(match, &vacant, key, key_nbytes, index, buckets);
                if (match.seen) mine.heads[lane][0] = __ldcg((const uint4*)record_of(match.seen));
                finding = match.seen ? PRESENT : ABSENT;
            }
            u64 seen = match.seen;
            if (finding == ABSENT) {
                seen = vacant.seen;
                if (!vacant.at) {
                    status[row] = NO_SPACE;
                    dead_nbytes = nbytes_of(load_header(record_of(slot)));
                    break;
                }
                claimed = atomicCAS(vacant.at, seen, slot | (seen & GOES_ON)) == seen;
                if (claimed) break;
            } else {
                Header old = parse_header(mine.heads[lane][0]);
                bool same_batch = batch.wrote(record_of(seen));
                if (same_batch && old.batch_row > row) {
                    status[row] = SUPERSEDED;
                    dead_nbytes = nbytes_of(load_header(record_of(slot)));
                    break;
                }
                // Whether a live record of before the batch is replaced is handed on from slot to slot within it.
                u64 replaced = (same_batch ? (seen & REPLACED) != 0 : alive(old, now)) ? REPLACED : 0;
                if (replaced) {
                    status[row] = UPDATED;
                    __threadfence();  // once the record can be seen, a later row may write here
                }
                if (atomicCAS(match.at, seen, slot | replaced | (seen & GOES_ON)) == seen) {
                    if (same_batch) status[old.batch_row] = SUPERSEDED;
                    dead_nbytes = nbytes_of(old);
                    far = seen & ON_HOST;
                    break;
                }
            }
            finding = MISTAKEN;
        }
        add_up(changes, claimed, 0 - (u64)dead_nbytes, far ? 0 - (u64)dead_nbytes : 0);
    }
    settle(changes, counters, report, work);
}
