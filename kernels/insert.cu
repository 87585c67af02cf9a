// Insert: append whole records to the log, then publish each by one compare-and-swap.
//
// A tile of records takes its place at the log's tail with one atomic addition and is written there in order, all
// lanes sharing the bytes. Only then, after a fence, is any of it published: a reader sees the old record or the
// new one, never a mixture.
//
// Equal keys in one batch: the highest row wins, whatever the order of execution; which records belong to the
// batch is told by where they lie (a batch may take several launches, one for each piece of the log it fills). A slot is claimed only as the
// first free one of the key's whole probe, and slots are only ever filled while this kernel runs; so two threads
// with one key contend for one and the same slot, the loser looks again and finds the winner's record.
//
// Bytes moved per new record: key and value read, 16 + key + value written, 64 (bucket) read, 32 (slot's sector)
// read and written; the bucket is the one random access.
#include "common.cuh"
#include "counters.cuh"

#ifndef INSERT_BLOCKS
#define INSERT_BLOCKS 7  // per multiprocessor: caps the registers
#endif
#define STORED 0
#define UPDATED 1
#define SUPERSEDED 2
#define NO_SPACE 4
#define OWN_KEY_NBYTES 64  // keys up to here are written by their own thread, word by word

extern "C" __global__ void __launch_bounds__(TILE, INSERT_BLOCKS) insert(
    const u8* key_data, const void* key_offsets, u64 key_stride,
    const u8* value_data, const void* value_offsets, u64 value_stride, u64 n,
    u64* index, u64 buckets, u64 now, u64 expiry,
    u8* log,                             // the tail, with room for all these rows
    const u8* begin, const u8* end,      // where this segment holds records of the batch, `log` on included
    const u64* earlier, u64 n_earlier,   // the same, begin and end, for the batch's earlier segments
    u64 first_row, signed char* status,  // of these rows in the batch; per row of the whole batch
    u64* counters, u64* report,
    u64* work) {                         // two zero words: bytes used of the log, finished blocks
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
        store_header(record, value_nbytes, first_row + i, key.nbytes, expiry);
        u64* words = (u64*)(record + HEADER);
        if (key.nbytes <= OWN_KEY_NBYTES) {
            // The last word may reach into the value, which is written after the barrier.
            words[0] = key.first;
            if (key.nbytes > 8) words[1] = key.second;
            for (u64 at = 16; at < key.nbytes; at += 8) {
                words[at / 8] = load_word(key.data + at, min(key.nbytes - at, 8ull));
            }
        }
    }
    records[t] = record;
    keys[t] = key.data;
    values[t] = value;
    key_lengths[t] = key.nbytes;
    value_lengths[t] = value_nbytes;
    __syncthreads();

    u32 lanes = lanes_per_row(tile_nbytes, TILE), lane = t % lanes;
    for (u32 r = t / lanes; r < TILE; r += TILE / lanes) {
        u8* to = records[r] + HEADER;
        if (key_lengths[r] > OWN_KEY_NBYTES) copy_row(to, keys[r], key_lengths[r], lane, lanes);
        copy_row(to + key_lengths[r], values[r], value_lengths[r], lane, lanes);
    }
    __threadfence();
    __syncthreads();

    u64 claimed = 0, tombstones = 0, live = 0;  // what this thread adds to the counters, modulo 2^64
    u64 h = nbytes ? hash(key) : 0, mine = slot_of(h, record), batch_row = first_row + i;
    while (nbytes) {
        Match match = lookup(key, h, index, buckets);
        if (!match.record) {
            if (!match.free) {
                status[batch_row] = NO_SPACE;
                break;
            }
            if (atomicCAS(match.free, match.free_seen, mine) != match.free_seen) continue;
            claimed = 1;
            tombstones = match.free_seen == TOMBSTONE ? ~0ull : 0;
            live = nbytes;
            break;
        }
        bool same_batch = match.record >= begin && match.record < end;
        for (u64 e = 0; e < n_earlier && !same_batch; ++e) {
            same_batch = (u64)match.record >= earlier[2 * e] && (u64)match.record < earlier[2 * e + 1];
        }
        if (same_batch && match.header.batch_row > batch_row) {
            status[batch_row] = SUPERSEDED;
            break;
        }
        // Whether the key was there before the batch is handed on from record to record.
        if (same_batch ? match.header.replaced != 0 : alive(match.header, now)) {
            status[batch_row] = UPDATED;
            *(u32*)record = (u32)value_nbytes | REPLACED;
            __threadfence();
        }
        if (atomicCAS(match.slot, match.seen, mine) != match.seen) continue;
        live = nbytes - record_nbytes(match.header.key_nbytes, match.header.value_nbytes);
        if (same_batch) status[match.header.batch_row] = SUPERSEDED;
        break;
    }
    settle(counters, claimed, tombstones, live, report, work);
}
