// A few keys at a time, without a launch for each: one block that stays on the device for some milliseconds and answers what
// the host writes into a mailbox in mapped pinned memory.
//
// serve  waits for a request, does for its keys what `find`, `peek`, `erase`, or `write` and `publish` do, and waits for the
//        next one. It leaves when its time is up, whatever is asked, so that nobody who waits for the device to be idle
//        waits longer than that; it is started again by who asks next.
//
// The host writes a request, then its number; the block its answer, then that number. Both sides only ever read what the other
// one has finished. On its way out the block says so before it looks for a request one last time: who asks later sees it gone.
//
// What the host writes changes while the kernel runs: it is read where it lies each time, past all caches.
//
// Bytes moved per request: 8 across the link for each look at the number, 176 for the request, then its columns once; for a
// found key 64 (bucket) + 16 + k + v (record) on the device, and v + 4 + 1/8 written across the link.
#define LOAD_COLUMN __ldcv
#include "reading.cuh"
#include "writing.cuh"

// Words of a mailbox; see `Mailbox` in gpu/doorbell.py.
#define ASKED 0     // the number of the last request
#define REQUEST 8
#define REQUEST_WORDS 22
#define ANSWERED 32  // the number of the last answer
#define GONE 33      // of the last block that has left
#define TOTAL 34     // bytes of all values together

#define FIND 1
#define PEEK 2
#define ERASE 3
#define INSERT 4

struct Request {
    u64 verb, n;
    Column keys, values;
    u64 *index, buckets, now, expiry;
    u8* log;                   // where records are written
    u64 room;                  // bytes there
    void *data, *offsets;      // of the answer: values, their offsets; or one item per key, and nothing
    u32* validity;
    u64 capacity;              // bytes of `data`
    u64 *counters, *report, *work, *places;
};
static_assert(sizeof(Request) == 8 * REQUEST_WORDS, "a word for each");

struct Room {
    Lookups lookups[WARPS];
    Changes changes;
    union {
        Rows rows;
        Writing writing;
    };
};

#ifdef __CUDACC__  // elsewhere the kernels are played on a CPU, which brings a clock of its own
__device__ __forceinline__ u64 nanoseconds() {
    u64 now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    return now;
}
#endif

__device__ __forceinline__ void respond(const Request& asked, Room& room, u64* box) {
    Lookups& mine = room.lookups[threadIdx.x / 32];
    u64 n = asked.n, *index = asked.index, buckets = asked.buckets, now = asked.now;
    if (asked.verb == FIND) {
        Output out = {(u8*)asked.data, asked.capacity, asked.offsets, 0, asked.validity, box + TOTAL};
        u64 rows_per_thread = n > TILE ? ROWS_PER_THREAD : 1, begin = 0;
        for (u64 tile = 0; tile * TILE * rows_per_thread < n; ++tile) {
            begin = find_tile(mine, room.rows, asked.keys, n, index, buckets, now, out, tile, rows_per_thread, nullptr, begin);
            __syncthreads();  // the rows have been read
        }
    } else if (asked.verb == PEEK) {
        for (u64 i = threadIdx.x; i - threadIdx.x % 32 < n; i += TILE) {
            peek_row(mine, asked.keys, i, n, index, buckets, now, (u8*)asked.data, (i64*)asked.offsets);
        }
    } else if (asked.verb == ERASE) {
        erase_rows(
            mine, room.changes, asked.keys, n, index, buckets, now, (u8*)asked.data, asked.counters, asked.report, asked.work);
    } else if (asked.verb == INSERT) {
        signed char* status = (signed char*)asked.data;
        for (u64 first = 0; first < n; first += TILE) {
            write_tile(
                room.writing, asked.keys, asked.values, first + threadIdx.x, n, asked.expiry, asked.log, asked.places, 0, status,
                asked.counters, asked.work);
            __syncthreads();  // what the tile noted has been read
        }
        __threadfence();  // whole records, before any can be seen
        __syncthreads();
        Batch batch = {asked.log, asked.log + asked.room, nullptr, 0};
        publish_rows(
            mine, room.changes, asked.keys, n, index, buckets, now, asked.log, 0, asked.places, batch, 0, status, asked.counters,
            asked.report, asked.work);
    }
}

extern "C" __global__ void __launch_bounds__(TILE, 1) serve(
    u64* box,    // a mailbox
    u64 number,  // of this launch
    u64 stay) {  // as many nanoseconds
    __shared__ Room room;
    __shared__ Request request;
    __shared__ u64 last;
    volatile u64* words = box;
    u64 began = nanoseconds(), answered = words[ANSWERED];
    for (bool leaving = false;;) {
        if (threadIdx.x == 0) {
            u64 asked;
            while ((asked = words[ASKED]) == answered && !leaving) {
                if (nanoseconds() - began < stay) continue;
                words[GONE] = number;
                leaving = true;
                __threadfence_system();  // before the last look
            }
            last = asked;
            __threadfence_system();  // before the request is read
        }
        __syncthreads();
        u64 asked = last;
        if (asked == answered) return;
        if (threadIdx.x < REQUEST_WORDS) ((u64*)&request)[threadIdx.x] = words[REQUEST + threadIdx.x];
        __syncthreads();
        respond(request, room, box);
        __threadfence_system();
        __syncthreads();
        answered = asked;
        if (threadIdx.x == 0) words[ANSWERED] = answered;
    }
}
