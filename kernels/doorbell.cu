// A few keys at a time, without a launch for each: one block that stays on the device for some milliseconds and answers what
// the host writes into a mailbox in mapped pinned memory.
//
// serve  waits for a request, does for its keys what `find`, `peek`, `erase`, or `write` and `publish` do, and waits for the
//        next one. It leaves when it is told to, or when its time is up, whatever is asked, so that nobody who waits for the
//        device to be idle waits longer than that; it is started again by who asks next.
//
// What takes time is going to the host and back, a microsecond each time, so a request is read by the very look that finds
// it: it is written in sectors of 32 bytes, three words and its number, and a look that sees the number in a sector sees the
// words before it (a sector is read at once, by two lanes that go together, and the host writes in order). Sectors are all of
// a short request: one key of 24 bytes or less, and a value of 120 to be stored. One warp answers it; to a lookup with the
// record as it lies, of which all warps bring a long one. What a longer request brings is read in one more go, by all threads, and
// kept on the device; keys of one length are read by who looks them up, and kept beside what it finds. An answer is written, then
// its number.
//
// The host need not wait for an answer before it asks again: requests lie in a ring of mailboxes and are answered one after the
// other. One look is under way at a time, and none while a request is being answered: what a warp reads of the device waits for
// the look that it began before. On an H200 answers came 1.1 us later with one look under way, and 1.3 us more with each further.
//
// On its way out the block says so before it looks for a request one last time: who asks later sees it gone.
//
// Bytes moved per request: 256 across the link for each look, then the columns once; for a found key 64 (bucket) + 16 + k + v
// (record) on the device, and v + 4 + 1/8 written across the link.
#define LOAD_COLUMN __ldcg  // of what lies on the device by then, and changes from request to request
#define LAUNCH_FENCE __threadfence_block  // one block is all there is
#define FEW_ROWS  // see `publish_rows`
#define ONE_BLOCK  // see stretches.cuh
#include "reading.cuh"
#include "writing.cuh"

// Mailboxes, and words behind them; see gpu/mailbox.py.
#define BOXES 8
#define ANSWERED 256  // the number of the last answer
#define GONE 257      // of the last block that has left
#define TOTAL 258     // bytes of all values together; of a short request the value's and one, 0: there is none; or a status
#define EXPIRY 259    // answer to LOOK

#define FIND 1
#define DENSE 2  // the same, of keys and values that `find_dense` takes
#define PEEK 3
#define ERASE 4
#define INSERT 5
#define GET 6    // from here on: short
#define LOOK 7
#define PUT 8
#define DROP 9
#define LEAVE 10

// For the whole block: a request, a record that is to be brought; the last one. Bits of a word.
enum Coming { NONE, REQUEST = 1, RECORD = 2, LAST = 4 };

#define SECTORS 8
#define LANES (2 * SECTORS)
#define VALUE_SECTOR 3       // of a short request: where its value begins
#define HEAD_PIECES 8        // of 16 bytes, of a record: read before anything is known of it
#define SHORT_PIECES 10      // of the longest record that a short request stores
#define PIECES_PER_THREAD 4  // under way

// A longer request, three words a sector. Of a short one the second has the key; then expiry, where to write, value's length.
struct Request {
    u64 what, now, *index;        // verb, sectors << 4, key's length << 8, buckets << 16
    u64 n, nbytes, expiry;        // keys; bytes that the host brings
    Column keys, values;
    u8* log;                      // where records are written
    u64 room, capacity;           // bytes there, and of `data`; of each value where that is known
    void *data, *offsets;         // of the answer: values, their offsets; or one item per key, and nothing
    u32* validity;
};
static_assert(sizeof(Request) == 8 * 3 * 6, "three words a sector");

// One warp's, of DENSE.
struct Dense {
    Probes probes;
    uint4 keys[32];
};

struct Room {
    Request request;
    const ulonglong2* record;  // that the whole block is to bring, and how long it is
    u64 pieces;
    u64 work[2];
    union {
        struct {
            Lookups lookups[WARPS];
            union {
                Rows rows;
                Changes changes;
            };
        };
        Writing writing;
        Dense dense[WARPS];
    };
};

// One warp's: a record that is being made, and the value that goes into it.
struct Making {
    ulonglong2 record[SHORT_PIECES];
    u64 value[3 * (SECTORS - VALUE_SECTOR)];
};

#ifdef __CUDACC__  // elsewhere the kernels are played on a CPU, which brings its own
__device__ __forceinline__ u64 nanoseconds() {
    u64 now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    return now;
}

// Two words for each of `lanes` lanes of a warp, as they are at this moment. The whole warp calls.
__device__ __forceinline__ ulonglong2 look(const u64* box, u32 lanes) {
    u32 lane = threadIdx.x % 32;
    ulonglong2 words = {};
    // Where several processes share the device, lanes may come here apart: each would read its half of a sector by itself.
    __syncwarp();
    if (lane < lanes) {
        asm volatile(
            "ld.volatile.global.v2.u64 {%0, %1}, [%2];" : "=l"(words.x), "=l"(words.y) : "l"(box + 2 * lane) : "memory");
    }
    return words;
}
#endif

// Where the request of this number is written.
__device__ __forceinline__ const u64* box_of(const u64* boxes, u64 number) {
    return boxes + number % BOXES * (2 * LANES);
}

// What the host has brought, to where kernels read it; or of the device, to where the host looks for it. The whole block calls.
template <bool BROUGHT>
__device__ __forceinline__ void copy_pieces(const ulonglong2* from, ulonglong2* to, u64 n) {
    for (u64 first = threadIdx.x; first < n; first += TILE * PIECES_PER_THREAD) {
        ulonglong2 pieces[PIECES_PER_THREAD];
#pragma unroll
        for (u32 k = 0; k < PIECES_PER_THREAD; ++k) {
            const ulonglong2* at = from + first + k * TILE;
            if (first + k * TILE < n) pieces[k] = BROUGHT ? __ldcv(at) : __ldcg(at);
        }
#pragma unroll
        for (u32 k = 0; k < PIECES_PER_THREAD; ++k) {
            if (first + k * TILE < n) to[first + k * TILE] = pieces[k];
        }
    }
    __syncthreads();
}

// The answer to DENSE. Every warp reads the keys of its own rows, where that is one piece a lane; else it would wait for them more
// than once. The whole block calls.
//
// sent, copied:  where the keys lie; as much device memory, for who has to look again
__device__ __forceinline__ void find_dense(Dense& mine, const Request& asked, const ulonglong2* sent, ulonglong2* copied) {
    u64 n = asked.n, width = asked.capacity, stride = asked.keys.stride, buckets = asked.what >> 16;
    u64 warp_rows = n > 16 * WARPS ? 32 : n > 8 * WARPS ? 16 : 8;
    u32 lane = threadIdx.x % 32, key_pieces = stride / 16;
    const u8* keys = (const u8*)copied;
    u8* values = (u8*)asked.data;
    bool own = warp_rows * key_pieces <= 32 && n <= 32 * WARPS;
    if (!own) copy_pieces<true>(sent, copied, asked.nbytes / 16);
    for (u64 first = threadIdx.x / 32 * warp_rows; first < (n + 31) / 32 * 32; first += WARPS * warp_rows) {
        u32 rows = first < n ? min(n - first, warp_rows) : 0, found;
        if (own) {
            if (lane < rows * key_pieces) {
                ulonglong2 piece = __ldcv(sent + first * key_pieces + lane);
                *(ulonglong2*)&mine.keys[lane] = piece;
                copied[first * key_pieces + lane] = piece;
            }
            __syncwarp();
        }
        if (warp_rows == 8) {  // keys have 64 bytes at most: one piece a lane
            found = find_dense_rows<1, OWN>(
                mine.probes, keys, stride, first, rows, asked.index, buckets, asked.now, width, values, mine.keys);
        } else if (own) {
            found = find_dense_rows<LANES_PER_BUCKET, OWN>(
                mine.probes, keys, stride, first, rows, asked.index, buckets, asked.now, width, values, mine.keys);
        } else {
            found = find_dense_rows(mine.probes, keys, stride, first, rows, asked.index, buckets, asked.now, width, values);
        }
        store_bits(asked.validity, first, warp_rows, found);
    }
}

// The answer to any other request for the whole block, which calls.
__device__ __forceinline__ void respond(
    Room& room, u64* total, u64* counters, u64* report, u64* places) {
    const Request& asked = room.request;
    Lookups& mine = room.lookups[threadIdx.x / 32];
    u64 verb = asked.what & 15, buckets = asked.what >> 16, n = asked.n, *index = asked.index, now = asked.now;
    if (verb == FIND) {
        Output out = {(u8*)asked.data, asked.capacity, asked.offsets, 0, asked.validity, total};
        u64 begin = 0;
        for (u64 tile = 0; tile * TILE < n; ++tile) {
            begin = find_tile(mine, room.rows, asked.keys, n, index, buckets, now, out, tile, TILE, nullptr, 0, begin);
            __syncthreads();  // the rows have been read
        }
    } else if (verb == PEEK) {
        for (u64 i = threadIdx.x; i - threadIdx.x % 32 < n; i += TILE) {
            peek_row(mine, asked.keys, i, n, index, buckets, now, (u8*)asked.data, (i64*)asked.offsets);
        }
    } else if (verb == ERASE) {
        erase_rows(mine, room.changes, asked.keys, n, index, buckets, now, (u8*)asked.data, counters, report, room.work);
    } else if (verb == INSERT) {
        signed char* status = (signed char*)asked.data;
        for (u64 first = 0; first < n; first += TILE) {
            write_tile(
                room.writing, asked.keys, asked.values, first, min(n - first, (u64)TILE), asked.expiry, asked.log, places, 0,
                status, counters, room.work);
            __syncthreads();  // whole records, before any can be seen
        }
        Batch batch = {asked.log, asked.log + asked.room, nullptr, 0};
        publish_rows(
            mine, room.changes, asked.keys, n, index, buckets, now, asked.log, 0, places, batch, 0, status, counters, report,
            room.work);
    }
}

// The key of a short request, which all lanes of the warp get, and how long it is; `copied`: as much device memory.
__device__ __forceinline__ Key short_key(ulonglong2 words, u64 what, u64* copied) {
    Key key = {(const u8*)copied, what >> 8 & 0xff, __shfl_sync(ALL, words.x, 2), __shfl_sync(ALL, words.y, 2)};
    if (threadIdx.x == 0) copied[0] = key.first, copied[1] = key.second;  // for what goes on beyond 16 bytes
    if (threadIdx.x == 3) copied[2] = words.x;
    __syncwarp();
    return key;
}

// GET brings the record of a key, LOOK tells whether there is one and when it expires. One warp calls; returns whether the block
// has to bring the record.
//
// words:  what each lane has read of the request
__device__ __forceinline__ bool read_one(
    Room& room, ulonglong2 words, u64 what, u64* index, u64* copied, ulonglong2* brought, u64 capacity, u64* box) {
    Lookups& mine = room.lookups[0];
    u32 lane = threadIdx.x;
    u64 now = __shfl_sync(ALL, words.y, 0), third = __shfl_sync(ALL, words.x, 3), buckets = what >> 16;
    Key key = short_key(words, what, copied);
    probe<1>(mine, nullptr, hash(key), lane == 0, index, buckets);
    u64 seen = mine.match[0].seen;
    ulonglong2 piece = {};
    u64 value_nbytes = 0, high = 0;
    for (bool sure = false; seen;) {
        const ulonglong2* record = (const ulonglong2*)record_of(seen);
        if (lane < HEAD_PIECES) piece = __ldcg(record + lane);
        value_nbytes = (u32)__shfl_sync(ALL, piece.x, 0), high = __shfl_sync(ALL, piece.y, 0);
        u64 beyond = key.nbytes > 16 ? ~0ull >> 8 * (24 - key.nbytes) : 0;
        bool wrong = high >> 48 != key.nbytes;
        if (lane == 1) wrong |= !same_start(key, piece);
        if (lane == 2) wrong |= (piece.x & beyond) != (third & beyond);
        if (sure || !__any_sync(ALL, wrong)) break;
        __syncwarp();  // the match has been read
        if (lane == 0) search(mine.match[0], nullptr, key.data, key.nbytes, index, buckets);
        __syncwarp();
        seen = mine.match[0].seen, sure = true;
    }
    u64 expiry = high & LOW48;
    bool found = seen && (expiry == 0 || expiry > now), far = false;
    if (found && (what & 15) == GET) {
        u64 pieces = record_nbytes(key.nbytes, value_nbytes) / 16;
        const ulonglong2* record = (const ulonglong2*)record_of(seen);
        far = pieces > HEAD_PIECES + 32 && 16 * pieces <= capacity;
        if (pieces <= HEAD_PIECES + 32) {
            if (lane < pieces && lane < HEAD_PIECES) brought[lane] = piece;
            if (HEAD_PIECES + lane < pieces) brought[HEAD_PIECES + lane] = __ldcg(record + HEAD_PIECES + lane);
        }
        if (lane == 0) room.record = record, room.pieces = pieces;
    }
    if (lane == 0) {
        box[TOTAL] = found ? 1 + value_nbytes : 0;
        box[EXPIRY] = !found ? (u64)-2 : expiry ? expiry : (u64)-1;
    }
    __syncwarp();
    return far;
}

// PUT stores one record, DROP takes one out; nobody else reads or writes the table meanwhile, and none of its records lies on
// the host. One warp calls.
__device__ __forceinline__ void change_one(
    Lookups& mine, Making& making, ulonglong2 words, u64 what, u64* index, u64* copied, u64* counters, u64* report, u64* box) {
    u32 lane = threadIdx.x;
    bool putting = (what & 15) == PUT;
    u64 now = __shfl_sync(ALL, words.y, 0), buckets = what >> 16;
    u64 expiry = __shfl_sync(ALL, words.x, 4), value_nbytes = putting ? __shfl_sync(ALL, words.x, 5) : 0;
    ulonglong2* log = (ulonglong2*)__shfl_sync(ALL, words.y, 4);
    u64 count = lane < COUNTERS ? __ldcg(counters + lane) : 0;  // known by the time it is wanted
    Key key = short_key(words, what, copied);
    u64 h = hash(key), nbytes = putting ? record_nbytes(key.nbytes, value_nbytes) : 0;
    if (putting) {
        if (lane >= 2 * VALUE_SECTOR && lane < LANES) {
            u64* to = making.value + (lane / 2 - VALUE_SECTOR) * 3 + lane % 2 * 2;
            to[0] = words.x;
            if (lane % 2 == 0) to[1] = words.y;
        }
        if (lane == 2) making.record[1] = words;
        if (lane == 3) making.record[2].x = words.x;
        if (lane == 0) *(uint4*)making.record = pack_header(value_nbytes, 0, key.nbytes, expiry);
        __syncwarp();
        for (u32 i = lane; i < value_nbytes; i += 32) {
            ((u8*)making.record)[HEADER + key.nbytes + i] = ((const u8*)making.value)[i];
        }
        __syncwarp();
        if (lane < nbytes / 16) log[lane] = making.record[lane];
    }
    Finding finding = look_up<1>(mine, putting ? mine.vacant : nullptr, key, h, lane == 0, index, buckets);
    u64 status = putting ? STORED : 0, dead = 0, entries = 0;
    if (lane == 0) {
        Spot &match = mine.match[0], &vacant = mine.vacant[0];
        if (finding == MISTAKEN) {
            search(match, putting ? &vacant : nullptr, key.data, key.nbytes, index, buckets);
            finding = match.seen ? PRESENT : ABSENT;
            if (match.seen) mine.heads[0][0] = __ldcg((const uint4*)record_of(match.seen));
        }
        if (finding == PRESENT) {
            Header old = parse_header(mine.heads[0][0]);
            bool living = alive(old, now);
            dead = nbytes_of(old);
            *match.at = (putting ? slot_of(h, (const u8*)log) | (living ? REPLACED : 0) : 0) | (match.seen & GOES_ON);
            if (putting) status = living ? UPDATED : STORED;
            if (!putting) status = living, entries = -1;
        } else if (putting && vacant.at) {
            *vacant.at = slot_of(h, (const u8*)log) | (vacant.seen & GOES_ON), entries = 1;
        } else if (putting) {
            status = NO_SPACE, dead = nbytes;
        }
        box[TOTAL] = status;
        report[COUNTERS] = nbytes;
    }
    dead = __shfl_sync(ALL, dead, 0), entries = __shfl_sync(ALL, entries, 0);
    if (lane == ENTRIES) count += entries;
    if (lane == LIVE_NBYTES) count += nbytes - dead;
    if (putting && lane == MAX_VALUE_NBYTES) count = max(count, value_nbytes);
    if (putting && lane == MIN_VALUE_NBYTES) count = max(count, ~value_nbytes);
    if (lane < COUNTERS) counters[lane] = report[lane] = count;
    __syncwarp();
}

extern "C" __global__ void __launch_bounds__(TILE, 1) serve(
    u64* box,              // mailboxes
    const ulonglong2* sent,  // columns that the host brings
    ulonglong2* brought,   // where the host looks for an answer; `capacity` bytes
    u64 capacity,
    u64* copied,           // as much device memory as the host may bring
    u64* counters, u64* report,
    u64* places,           // per row of a request
    u64 number,            // of this launch
    u64 stay) {            // as many nanoseconds
    __shared__ Room room;
    __shared__ Making making;
    __shared__ u32 coming;
    u32 lane = threadIdx.x;
    volatile u64* words = box;
    u64 began = nanoseconds(), answered = words[ANSWERED];
    if (lane < 2) room.work[lane] = 0;
    for (bool leaving = false;;) {
        while (lane < 32) {  // waits, and answers what one warp can
            ulonglong2 read = look(box_of(box, answered + 1), LANES);
            bool late = nanoseconds() - began >= stay, last = leaving;  // while the look is under way
            u32 fresh = __ballot_sync(ALL, lane % 2 && read.y == answered + 1);
            u64 what = __shfl_sync(ALL, read.x, 0), verb = what & 15;
            u32 wanted = (1u << 2 * (what >> 4 & 15)) - 1 & 0xaaaaaaaa;  // the lanes that read its sectors' numbers
            bool asked = fresh & 2 && (fresh & wanted) == wanted;
            if (asked && verb < GET) {
                u64* to = (u64*)&room.request + lane / 2 * 3 + lane % 2 * 2;
                if (to < (u64*)(&room.request + 1)) {
                    to[0] = read.x;
                    if (lane % 2 == 0) to[1] = read.y;
                }
                if (lane == 0) coming = REQUEST | (last ? LAST : 0);
                break;
            }
            if (asked) {
                u64* index = (u64*)__shfl_sync(ALL, read.x, 1);
                if (verb < PUT && read_one(room, read, what, index, copied, brought, capacity, box)) {
                    if (lane == 0) coming = RECORD | (last ? LAST : 0);
                    break;
                }
                if (verb == PUT || verb == DROP) {
                    change_one(room.lookups[0], making, read, what, index, copied, counters, report, box);
                }
                last |= verb == LEAVE;
                ++answered;
                if (lane == 0) {
                    if (verb == LEAVE) words[GONE] = number;
                    __threadfence_system();
                    words[ANSWERED] = answered;
                }
            }
            if (last) {
                if (lane == 0) coming = NONE;
                break;
            }
            leaving = __any_sync(ALL, lane == 0 && late);
            if (leaving && lane == 0) {
                words[GONE] = number;
                __threadfence_system();  // before the last look
            }
            __syncwarp();
        }
        __syncthreads();
        u32 doing = coming;
        if (doing == NONE) return;
        if (doing & RECORD) {
            copy_pieces<false>(room.record, brought, room.pieces);
        } else if ((room.request.what & 15) == DENSE) {
            find_dense(room.dense[threadIdx.x / 32], room.request, sent, (ulonglong2*)copied);
        } else {
            copy_pieces<true>(sent, (ulonglong2*)copied, room.request.nbytes / 16);
            respond(room, box + TOTAL, counters, report, places);
        }
        __syncthreads();
        ++answered;
        if (lane == 0) {
            __threadfence_system();
            words[ANSWERED] = answered;
        }
        if (doing & LAST) return;
    }
}
