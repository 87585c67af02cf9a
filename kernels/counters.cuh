// What a table knows of itself, kept on the device and handed to the host by the last block of a launch.
#include "common.cuh"

#define ENTRIES 0           // slots that hold a record, expired ones included
#define LIVE_NBYTES 1       // bytes of the records that slots point to
#define HOST_NBYTES 2       // those of them that lie on the host
#define MAX_VALUE_NBYTES 3  // of any value written since the table was cleared
#define MIN_VALUE_NBYTES 4  // its complement: zero while nothing has been written
#define COUNTERS 5

// Takes note of a value's length: atomic maxima that cost a read, both at once, where they change nothing, as nearly always.
__device__ __forceinline__ void note_length(u64* counters, u64 nbytes) {
    u64 longest = *(volatile u64*)(counters + MAX_VALUE_NBYTES), shortest = *(volatile u64*)(counters + MIN_VALUE_NBYTES);
    if (nbytes > longest) atomicMax(counters + MAX_VALUE_NBYTES, nbytes);
    if (~nbytes > shortest) atomicMax(counters + MIN_VALUE_NBYTES, ~nbytes);
}

__device__ __forceinline__ u64 warp_sum(u64 value) {
#pragma unroll
    for (int step = 16; step; step >>= 1) value += __shfl_xor_sync(~0u, value, step);
    return value;
}

// What a block changes, modulo 2^64. In shared memory.
struct Changes {
    u64 entries, live_nbytes, host_nbytes;
};

// Before anything is added up. Every thread of the block calls.
__device__ __forceinline__ void start(Changes& changes) {
    if (threadIdx.x == 0) changes = {};
    __syncthreads();
}

// Adds what each lane of a warp has changed. The whole warp calls.
__device__ __forceinline__ void add_up(Changes& changes, u64 entries, u64 live_nbytes, u64 host_nbytes = 0) {
    entries = warp_sum(entries), live_nbytes = warp_sum(live_nbytes);
    if (__any_sync(ALL, host_nbytes != 0)) host_nbytes = warp_sum(host_nbytes);
    if (threadIdx.x % 32 != 0) return;
    if (host_nbytes) atomicAdd(&changes.host_nbytes, host_nbytes);
    if (entries) atomicAdd(&changes.entries, entries);
    if (live_nbytes) atomicAdd(&changes.live_nbytes, live_nbytes);
}

// Adds a block's changes to the counters; the last block reports them: `report` lies in mapped host memory, COUNTERS
// words, then what the launch used of the log. `work`: that, then finished blocks; zero before and after a launch, and where
// there is one block it may be shared memory. Every thread of every block must call it.
__device__ __forceinline__ void settle(const Changes& changes, u64* counters, u64* report, u64* work) {
    __syncthreads();
    if (threadIdx.x != 0) return;
    if (changes.entries) atomicAdd(counters + ENTRIES, changes.entries);
    if (changes.live_nbytes) atomicAdd(counters + LIVE_NBYTES, changes.live_nbytes);
    if (changes.host_nbytes) atomicAdd(counters + HOST_NBYTES, changes.host_nbytes);
    if (gridDim.x > 1) {
        __threadfence();
        u32* done = (u32*)(work + 1);
        if (atomicAdd(done, 1) != gridDim.x - 1) return;
        __threadfence();
    }
    u64 now[COUNTERS];
#pragma unroll
    for (int i = 0; i < COUNTERS; ++i) now[i] = __ldcg(counters + i);  // all under way before any is waited for
#pragma unroll
    for (int i = 0; i < COUNTERS; ++i) report[i] = now[i];
    report[COUNTERS] = *(volatile u64*)work;
    work[0] = work[1] = 0;
}
