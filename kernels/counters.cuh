// What a table knows of itself, kept on the device and handed to the host by the last block of a launch.

#define ENTRIES 0           // slots that hold a record, expired ones included
#define TOMBSTONES 1        // slots erased and not claimed since
#define LIVE_NBYTES 2       // bytes of the records that slots point to
#define MAX_VALUE_NBYTES 3  // of any value written since the table was cleared
#define MIN_VALUE_NBYTES 4  // its complement: zero while nothing has been written
#define COUNTERS 5

// Atomic maximum that costs a cached read where it changes nothing, as nearly always.
__device__ __forceinline__ void raise(u64* counter, u64 value) {
    if (value > *(volatile u64*)counter) atomicMax(counter, value);
}

__device__ __forceinline__ u64 warp_sum(u64 value) {
#pragma unroll
    for (int step = 16; step; step >>= 1) value += __shfl_xor_sync(~0u, value, step);
    return value;
}

// Adds each thread's changes (modulo 2^64) to the counters; the last block reports them: `report` lies in mapped
// host memory, COUNTERS words, then what the launch used of the log. `work`: that, then finished blocks; zero
// before and after a launch. Every thread of every block must call it.
__device__ __forceinline__ void settle(
    u64* counters, u64 entries, u64 tombstones, u64 live_nbytes, u64* report, u64* work) {
    __shared__ u64 changes[3];
    if (threadIdx.x < 3) changes[threadIdx.x] = 0;
    __syncthreads();
    u64 sums[3] = {warp_sum(entries), warp_sum(tombstones), warp_sum(live_nbytes)};
    if (threadIdx.x % 32 == 0) {
        for (int i = 0; i < 3; ++i) {
            if (sums[i]) atomicAdd(changes + i, sums[i]);
        }
    }
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int i = 0; i < 3; ++i) {
        if (changes[i]) atomicAdd(counters + i, changes[i]);
    }
    __threadfence();
    u32* done = (u32*)(work + 1);
    if (atomicAdd(done, 1) != gridDim.x - 1) return;
    __threadfence();
    for (int i = 0; i < COUNTERS; ++i) report[i] = __ldcg(counters + i);
    report[COUNTERS] = __ldcg(work);
    work[0] = work[1] = 0;
    __threadfence_system();
}
