// Enough of CUDA to compile this project's kernels for the CPU and run them thread by thread.
//
// Each CUDA thread is a fiber with a stack of its own. Fibers are switched where threads wait for one another (barriers,
// votes, shuffles) and now and then at atomics and fences, in an order that the seed decides. Blocks run one after the
// other, so shared memory is static memory. What a GPU would leave undefined ends the process with a message: a lane that is
// not in its own mask or has left, different operations that meet, misaligned accesses, a barrier that can't be passed.
//
// What it can't show: races between blocks, memory ordering, speed. Kernels take 64-bit integers and pointers only.
#pragma once
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __noinline__
#define __shared__ static
#define __launch_bounds__(...)

struct Dimensions { unsigned x = 0, y = 1, z = 1; };
inline Dimensions threadIdx, blockIdx, gridDim, blockDim;
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) ulonglong2 { unsigned long long x, y; };

// Saves the callee-saved registers and the stack of the one, and goes on with the other (System V, x86-64).
extern "C" void emulated_switch(void** from, void* to);
asm(R"(
.text
.type emulated_switch, @function
emulated_switch:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret
)");

namespace emulated {

constexpr int ARGUMENTS = 24;      // at most; a kernel ignores those it does not have
constexpr size_t STACK = 64 << 10;
enum State { READY, AT_BARRIER, IN_WARP, DONE };
enum Operation { SYNC, SHUFFLE, UP, XOR, BALLOT, MATCH };
typedef uint64_t Word;
typedef void (*Kernel)(
    Word, Word, Word, Word, Word, Word, Word, Word, Word, Word, Word, Word,
    Word, Word, Word, Word, Word, Word, Word, Word, Word, Word, Word, Word);

struct Fiber {
    void* stack_pointer;
    char* stack;
    State state;
    unsigned mask;        // of lanes that an exchange within the warp waits for
    Operation operation;
    Word given, taken[32];  // to the exchange, and what all lanes gave
};

inline std::vector<Fiber> fibers;
inline void* scheduler;
inline unsigned current;
inline uint64_t state_of_chance;
inline Kernel kernel;
inline const Word* arguments;

inline unsigned chance() {
    state_of_chance = state_of_chance * 6364136223846793005ull + 1442695040888963407ull;
    return state_of_chance >> 33;
}

[[noreturn]] inline void fail(const char* why) {
    std::fprintf(stderr, "emulated GPU: %s (block %u, thread %u)\n", why, blockIdx.x, current);
    std::abort();
}

inline void wait(State state) {
    Fiber& fiber = fibers[current];
    fiber.state = state;
    emulated_switch(&fiber.stack_pointer, scheduler);
}

inline void wait_by_chance() {
    if (chance() % 4 == 0) wait(READY);
}

inline const Word* exchange(unsigned mask, Operation operation, Word given) {
    Fiber& fiber = fibers[current];
    if (!(mask >> current % 32 & 1)) fail("a lane is not in its own mask");
    fiber.mask = mask, fiber.operation = operation, fiber.given = given;
    wait(IN_WARP);
    return fiber.taken;
}

inline void run_thread() {
    const Word* a = arguments;
    kernel(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11],
           a[12], a[13], a[14], a[15], a[16], a[17], a[18], a[19], a[20], a[21], a[22], a[23]);
    wait(DONE);
}

// Lets the lanes go on that one of the warp's lanes waits for, once all of them are there.
inline bool release(unsigned lane) {
    Fiber& fiber = fibers[lane];
    unsigned warp = lane & ~31u;
    for (unsigned i = 0; i < 32; ++i) {
        Fiber& other = fibers[warp + i];
        if (!(fiber.mask >> i & 1)) continue;
        current = lane;
        if (other.state == DONE) fail("a lane of the mask has left");
        if (other.state != IN_WARP || other.mask != fiber.mask) return false;
        if (other.operation != fiber.operation) fail("different operations of one warp meet");
    }
    Word all[32] = {};
    for (unsigned i = 0; i < 32; ++i) {
        if (fiber.mask >> i & 1) all[i] = fibers[warp + i].given;
    }
    unsigned mask = fiber.mask;
    for (unsigned i = 0; i < 32; ++i) {
        if (!(mask >> i & 1)) continue;
        std::memcpy(fibers[warp + i].taken, all, sizeof all);
        fibers[warp + i].state = READY;
    }
    return true;
}

inline void run_block(unsigned threads) {
    for (unsigned t = 0; t < threads; ++t) {
        Fiber& fiber = fibers[t];
        void** top = (void**)(fiber.stack + STACK - 64);
        *--top = nullptr;
        *--top = (void*)run_thread;
        for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
        fiber.stack_pointer = top, fiber.state = READY;
    }
    unsigned first = chance();
    for (;;) {
        bool moved = false;
        unsigned done = 0, waiting = 0;
        for (unsigned k = 0; k < threads; ++k) {
            unsigned t = (k * 37 + first) % threads;  // every thread once: 37 and a multiple of 32 share no factor
            if (fibers[t].state != READY) continue;
            current = t, threadIdx.x = t, moved = true;
            emulated_switch(&scheduler, fibers[t].stack_pointer);
        }
        for (unsigned t = 0; t < threads; ++t) {
            if (fibers[t].state == IN_WARP) moved |= release(t);
        }
        for (unsigned t = 0; t < threads; ++t) {
            done += fibers[t].state == DONE, waiting += fibers[t].state == AT_BARRIER;
        }
        if (done == threads) return;
        if (waiting && waiting + done == threads) {
            for (unsigned t = 0; t < threads; ++t) {
                if (fibers[t].state == AT_BARRIER) fibers[t].state = READY;
            }
            moved = true;
        }
        if (!moved) fail("threads wait for one another for ever");
    }
}

template <class T> Word pack(T value) {
    Word word = 0;
    std::memcpy(&word, &value, sizeof value);
    return word;
}

template <class T> T unpack(Word word) {
    T value;
    std::memcpy(&value, &word, sizeof value);
    return value;
}

template <class T> void check_aligned(const T* p) {
    if ((uint64_t)p % alignof(T)) fail("a misaligned access");
}

}  // namespace emulated

extern "C" void emulated_launch(void* kernel, const uint64_t* arguments, unsigned blocks, unsigned threads, uint64_t seed) {
    using namespace emulated;
    state_of_chance = seed;
    emulated::kernel = (Kernel)kernel, emulated::arguments = arguments;
    gridDim.x = blocks, blockDim.x = threads;
    while (fibers.size() < threads) {
        fibers.emplace_back();
        fibers.back().stack = (char*)std::aligned_alloc(64, STACK);
    }
    for (unsigned block = 0; block < blocks; ++block) {
        blockIdx.x = block;
        run_block(threads);
    }
}

// ---- What kernels call ------------------------------------------------------------------------------------------

inline void __syncthreads() { emulated::wait(emulated::AT_BARRIER); }
inline int __syncthreads_or(int vote) {
    static int any;
    __syncthreads();  // an earlier one has been read
    any = 0;
    __syncthreads();
    any |= vote;
    __syncthreads();
    return any;
}
inline void __syncwarp(unsigned mask = ~0u) { emulated::exchange(mask, emulated::SYNC, 0); }
inline void __threadfence() { emulated::wait_by_chance(); }
inline void __threadfence_block() { emulated::wait_by_chance(); }
inline void __threadfence_system() { emulated::wait_by_chance(); }

template <class T> T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
    int lane = emulated::current % 32, source = (lane & ~(width - 1)) | (from & (width - 1));
    const uint64_t* all = emulated::exchange(mask, emulated::SHUFFLE, emulated::pack(value));
    if (!(mask >> source & 1)) emulated::fail("a shuffle from outside of the mask");
    return emulated::unpack<T>(all[source]);
}

template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32) {
    unsigned lane = emulated::current % 32, source = (lane & (width - 1)) >= distance ? lane - distance : lane;
    return emulated::unpack<T>(emulated::exchange(mask, emulated::UP, emulated::pack(value))[source]);
}

template <class T> T __shfl_xor_sync(unsigned mask, T value, int flip) {
    unsigned source = emulated::current % 32 ^ flip;
    return emulated::unpack<T>(emulated::exchange(mask, emulated::XOR, emulated::pack(value))[source]);
}

inline unsigned __ballot_sync(unsigned mask, int vote) {
    const uint64_t* all = emulated::exchange(mask, emulated::BALLOT, vote != 0);
    unsigned bits = 0;
    for (int i = 0; i < 32; ++i) bits |= (unsigned)all[i] << i;
    return bits;
}

template <class T> unsigned __match_any_sync(unsigned mask, T value) {
    const uint64_t* all = emulated::exchange(mask, emulated::MATCH, emulated::pack(value));
    uint64_t own = emulated::pack(value);
    unsigned bits = 0;
    for (int i = 0; i < 32; ++i) bits |= (unsigned)(mask >> i & 1 && all[i] == own) << i;
    return bits;
}

inline int __any_sync(unsigned mask, int vote) { return __ballot_sync(mask, vote) != 0; }

template <class T> T __ldcg(const T* p) { return emulated::check_aligned(p), *p; }
template <class T> T __ldcv(const T* p) { return __ldcg(p); }
template <class T> T __ldg(const T* p) { return __ldcg(p); }
template <class T> T __ldcs(const T* p) { return __ldcg(p); }
template <class T> void __stcs(T* p, T value) { emulated::check_aligned(p), *p = value; }

// An atomic operation: what was there, after `change` has made something else of it.
template <class T, class F> T emulated_atomic(T* p, F change) {
    emulated::wait_by_chance();
    T old = *p;
    *p = change(old);
    return old;
}

template <class T, class U> T atomicAdd(T* p, U value) { return emulated_atomic(p, [=](T old) { return T(old + T(value)); }); }
template <class T, class U> T atomicMax(T* p, U value) {
    return emulated_atomic(p, [=](T old) { return T(value) > old ? T(value) : old; });
}
template <class T, class U> T atomicExch(T* p, U value) { return emulated_atomic(p, [=](T) { return T(value); }); }
template <class T, class U> T atomicAnd(T* p, U value) { return emulated_atomic(p, [=](T old) { return T(old & T(value)); }); }
template <class T, class U> T atomicOr(T* p, U value) { return emulated_atomic(p, [=](T old) { return T(old | T(value)); }); }
template <class T, class U, class V> T atomicCAS(T* p, U expected, V value) {
    return emulated_atomic(p, [=](T old) { return old == T(expected) ? T(value) : old; });
}

inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) { return (unsigned __int128)a * b >> 64; }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
template <class T, class U> auto min(T a, U b) -> decltype(a + b) { return (decltype(a + b))a < (decltype(a + b))b ? a : b; }
template <class T, class U> auto max(T a, U b) -> decltype(a + b) { return (decltype(a + b))a > (decltype(a + b))b ? a : b; }

// Where a kernel stays for a while: on a thread of its own by the clock, else for as many looks at it as milliseconds.
inline unsigned long long nanoseconds() {
    static unsigned long long looks;
    if (!std::getenv("PREDIS_EMULATED_ASYNC")) return looks += 1000000;
    return std::chrono::steady_clock::now().time_since_epoch().count();
}

// Two words for each of `lanes` lanes of a warp, all of one moment: read backwards while the host writes forwards on another
// thread, so that a number that is there tells that what was written before it is too.
inline ulonglong2 look(const unsigned long long* box, unsigned lanes) {
    static unsigned long long seen[64];
    __syncwarp();  // earlier looks are over
    if (emulated::current % 32 == 0) {
        for (unsigned k = 2 * lanes; k-- > 0;) seen[k] = ((const volatile unsigned long long*)box)[k];
    }
    __syncwarp();
    unsigned lane = emulated::current % 32;
    if (lane >= lanes) return {0, 0};
    return {seen[2 * lane], seen[2 * lane + 1]};
}

