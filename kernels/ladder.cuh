// What the rungs of the ladder share: a table reduced to its memory behaviour, and one definition per idea.
//
// The ladder leads from the plain table of a first afternoon (v1, ladder_plain.cuh) to the kernels that serve the cache
// (find_dense, write_dense and publish, erase). Keys and values are columns of one width each, any width; nothing expires. A rung is a
// set of these definitions (predis_lab/gpu/ladder.py names them); without any, this is the last rung of the climb.
//
// Record   header, key, value, each padded to whole pieces (16 bytes; 8 with the compact header), then to RECORD_ALIGN. Row i
//          of a batch lies at log + i * record length: no atomics to take a place, and a higher address means a later row, of
//          this batch or of a later batch, so that the last of equal keys is told by its address.
// Index    slots as in common.cuh: 16-bit fingerprint (from v4 on), 48-bit record address / 16. Probed slot by slot, from v5 on
//          bucket by bucket. An empty slot ends the search.
#include "records.cuh"

#define TOMBSTONE (1ull << 47)  // erased: reusable, but a search goes on

#ifndef PLAIN
#define PLAIN 0  // v1: entries with a 4 KiB value slot, no log
#endif
#ifndef WORDS
#define WORDS 1  // 0: keys and values go byte by byte
#endif
#ifndef TAGS
#define TAGS 1  // fingerprints in the slots
#endif
#ifndef BUCKETED
#define BUCKETED 1  // 0: slots are read one at a time
#endif
#ifndef SHARED_COPY
#define SHARED_COPY 1  // the lanes of a warp share the bytes of its 32 rows
#endif
#ifndef TOGETHER
#define TOGETHER 1  // the lanes of a warp share the buckets of its 32 keys
#endif
#ifndef FUSED
#define FUSED 1  // ... and the records: each is visited once
#endif
#ifndef HINTS
#define HINTS 1  // the table is read past L1, columns used once are first to leave L2
#endif
#ifndef BUCKET_SLOTS
#define BUCKET_SLOTS 8  // 4: buckets of one sector
#endif
#ifndef RECORD_ALIGN
#define RECORD_ALIGN 16
#endif
#ifndef HEADER_NBYTES
#define HEADER_NBYTES 16  // 8: the lengths alone
#endif
#ifndef HASH
#define HASH FOLDED
#endif
#ifndef CHOICES
#define CHOICES LINEAR
#endif
#ifndef KEEP_INDEX
#define KEEP_INDEX 0  // buckets are last to leave L2
#endif
#ifndef STAGED
#define STAGED 0  // records pass through shared memory rather than registers
#endif

#define FNV_BYTES 0  // HASH
#define FNV_WORDS 1
#define MURMUR 2
#define FOLDED 3
#define LINEAR 0  // CHOICES: the bucket after a full one is the next
#define TWO 1     // a key goes to the emptier of two buckets, beyond them to the next
#define CUCKOO 2  // a key goes to the second bucket where the first is full, and if need be makes another key move

namespace ladder {

// A CUDA kernel takes no struct from CuPy: each kernel puts its parameters together into one.
struct Table {
    u64* index;
    u64 buckets;
    u32 key_nbytes, value_nbytes;
};

// ---- Bytes --------------------------------------------------------------------------------------------------

#if HEADER_NBYTES == 8
typedef u64 Piece;
__device__ __forceinline__ Piece header_of(const Table& table) { return (u64)table.value_nbytes << 32 | table.key_nbytes; }
__device__ __forceinline__ u32 word_of(Piece piece, u32 i) { return piece >> 32 * i; }
__device__ __forceinline__ bool same(Piece a, Piece b) { return a == b; }
#else
typedef uint4 Piece;
__device__ __forceinline__ Piece header_of(const Table& table) {
    return {table.value_nbytes, table.key_nbytes, 0, 0};
}
__device__ __forceinline__ u32 word_of(Piece piece, u32 i) {
    return i == 0 ? piece.x : i == 1 ? piece.y : i == 2 ? piece.z : piece.w;
}
#endif
constexpr u32 PIECE = sizeof(Piece);

__device__ __forceinline__ u32 pieces_of(u32 nbytes) { return (nbytes + PIECE - 1) / PIECE; }
__device__ __forceinline__ u32 head_of(const Table& table) { return 1 + pieces_of(table.key_nbytes); }
__device__ __forceinline__ u32 record_nbytes(const Table& table) {
    u32 nbytes = (head_of(table) + pieces_of(table.value_nbytes)) * PIECE;
    return (nbytes + RECORD_ALIGN - 1) / RECORD_ALIGN * RECORD_ALIGN;
}

// What a lookup reads of the table. While records are being published (CHANGING) it has to be read past L1, which no other
// multiprocessor's writes reach; else that is a hint: a random sector in L1 is of no use to anybody.
template <bool CHANGING, class T>
__device__ __forceinline__ T fetch(const T* p) {
    if constexpr (CHANGING || HINTS) {
        return __ldcg(p);
    } else {
        return *p;
    }
}

// Two slots. A stream's window of persisting L2 can't be set through CuPy; the same wish, said with each load, can.
template <bool CHANGING>
__device__ __forceinline__ ulonglong2 fetch_slots(const u64* p) {
#if KEEP_INDEX && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    ulonglong2 slots;
    u64 policy;
    asm volatile("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
    asm volatile("ld.global.cg.L2::cache_hint.v2.u64 {%0, %1}, [%2], %3;"
                 : "=l"(slots.x), "=l"(slots.y) : "l"(p), "l"(policy) : "memory");
    return slots;
#else
    return fetch<CHANGING>((const ulonglong2*)p);
#endif
}

// Up to 16 bytes of a column at any address, zero-extended.
__device__ __forceinline__ ulonglong2 load_16(const u8* p, u32 nbytes) {
    if (nbytes >= 16 && (u64)p % 16 == 0) return __ldg((const ulonglong2*)p);
    u64 first = load_word<COLUMN>(p, min(nbytes, 8u));
    return {first, nbytes > 8 ? load_word<COLUMN>(p + 8, min(nbytes - 8, 8u)) : 0};
}

// A piece of a column of which `nbytes` are left. ONCE: nobody will ask for its line again.
template <bool ONCE>
__device__ __forceinline__ Piece load_piece(const u8* p, u32 nbytes) {
    if (ONCE && HINTS && nbytes >= PIECE && (u64)p % PIECE == 0) return __ldcs((const Piece*)p);
#if HEADER_NBYTES == 8
    return load_word<COLUMN>(p, min(nbytes, 8u));
#else
    ulonglong2 words = load_16(p, nbytes);
    return {(u32)words.x, (u32)(words.x >> 32), (u32)words.y, (u32)(words.y >> 32)};
#endif
}

__device__ __forceinline__ void store_piece(u8* to, Piece piece, u32 nbytes) {
    if (nbytes >= PIECE && (u64)to % PIECE == 0) {
        if constexpr (HINTS) {
            __stcs((Piece*)to, piece);
        } else {
            *(Piece*)to = piece;
        }
        return;
    }
    u32 unit = ((u32)(u64)to | nbytes) % 4 ? 1 : 4;
#pragma unroll
    for (u32 i = 0; i < PIECE / 4; ++i) {
        u32 word = word_of(piece, i);
        if (unit == 4) {
            if (4 * i < nbytes) ((u32*)to)[i] = word;
            continue;
        }
#pragma unroll
        for (u32 b = 0; b < 4; ++b) {
            if (4 * i + b < nbytes) to[4 * i + b] = word >> 8 * b;
        }
    }
}

// ---- Keys ---------------------------------------------------------------------------------------------------

__device__ __forceinline__ u64 scramble(u64 h) {
    h = (h ^ h >> 33) * 0xff51afd7ed558ccdull;
    h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53ull;
    return h ^ h >> 33;
}

// FNV-1a over bytes is what one writes first: a multiplication a byte, each waiting for the one before. Over words it
// needs an eighth of them, but mixes upwards only, hence the end. Murmur3's finalizer mixes each word fully, two
// multiplications one after the other. The folded 128-bit product (wyhash) takes in two words with one of them.
__device__ __forceinline__ u64 hash_of(const u8* key, u32 nbytes) {
    u64 h = 0xcbf29ce484222325ull;
    if constexpr (HASH == FNV_BYTES) {
        for (u32 b = 0; b < nbytes; ++b) h = (h ^ key[b]) * 0x100000001b3ull;
        return h;
    }
    h = HASH == FOLDED ? nbytes : h ^ nbytes;
    for (u32 at = 0; at < nbytes; at += 16) {
        ulonglong2 words = load_16(key + at, nbytes - at);
        if constexpr (HASH == FNV_WORDS) {
            h = (h ^ words.x) * 0x100000001b3ull;
            h = (h ^ h >> 32 ^ words.y) * 0x100000001b3ull;
        } else if constexpr (HASH == MURMUR) {
            h = scramble(scramble(h ^ words.x) ^ words.y);
        } else {
            h = fold(words.x ^ 0xa0761d6478bd642full, words.y ^ 0xe7037ed1a0b428dbull ^ h);
        }
    }
    if constexpr (HASH == FNV_WORDS) h = scramble(h);
    if constexpr (HASH == FOLDED) h = fold(h ^ 0x589965cc75374cc3ull, 0x1d8e4e27c47d124full);
    return h;
}

// Whether a record has this key: its header first, since a table of any lengths would have to ask.
template <bool CHANGING, bool LEAN>
__device__ __forceinline__ bool same_key(const u8* key, const u8* record, const Table& table) {
    if (!same(fetch<CHANGING>((const Piece*)record), header_of(table))) return false;
    u32 n = table.key_nbytes;
    if constexpr (WORDS && !LEAN) {
        for (u32 at = 0; at < n; at += PIECE) {
            Piece stored = fetch<CHANGING>((const Piece*)(record + PIECE + at));
            if (!same(stored, load_piece<false>(key + at, n - at))) return false;
        }
    } else {
        for (u32 b = 0; b < n; ++b) {
            if (fetch<CHANGING>(record + PIECE + b) != key[b]) return false;
        }
    }
    return true;
}

// ---- Where a key may be -------------------------------------------------------------------------------------

constexpr u32 STEP = BUCKETED ? BUCKET_SLOTS : 1;  // slots looked at together: a place

__device__ __forceinline__ u64 places_of(const Table& table) { return table.buckets * (BUCKET_SLOTS / STEP); }

__device__ __forceinline__ u64 first_place(u64 h, u64 places) {
    // The remainder costs some hundred instructions, but FNV's high bits are poor: short keys would share one place.
    return HASH == FNV_BYTES ? h % places : home(h, places);
}

// The other of two buckets, from either: told by the fingerprint, so that a record can move without being read (Fan et
// al., MemC3, 2013); a difference rather than an exclusive or, so that the buckets may be any number.
__device__ __forceinline__ u64 other_place(u64 place, u32 tag, u64 places) {
    u64 sum = home(tag * 0x9e3779b97f4a7c15ull, places);
    return sum >= place ? sum - place : sum + places - place;
}

// The place that is asked as number `probed`, after `place`.
__device__ __forceinline__ u64 next_place(u64 place, u64 probed, u32 tag, u64 places) {
    if (CHOICES != LINEAR && probed == 1) return other_place(place, tag, places);
    return place + 1 == places ? 0 : place + 1;
}

__device__ __forceinline__ u64 most_probes(u64 places) { return CHOICES == CUCKOO ? 2 : places; }

// Whether a search without a match goes on after a place. A key in its second bucket says that the first was full,
// except where it took the emptier one.
__device__ __forceinline__ bool goes_on(bool full, u64 probed) { return full || (CHOICES == TWO && probed == 0); }

__device__ __forceinline__ u64 slot_for(u64 h, const u8* record) { return TAGS ? slot_of(h, record) : (u64)record >> 4; }

struct Match {
    u8* record;  // null: no such key
    u64* slot;   // where the record was found, and what the slot held
    u64 seen;
    u64* free;  // the slot a new record should claim, and what it held; null: none
    u64 free_seen;
};

// One thread, one key; a bucket sector by sector (four slots), since half of the keys are found in the first. LEAN: slot by
// slot and byte by byte, for what is seldom needed and must not cost registers.
template <bool CHANGING, bool LEAN = false>
__device__ __forceinline__ Match lookup(const u8* key, u64 h, const Table& table) {
    constexpr u32 PART = LEAN || STEP == 1 ? 1 : 4;
    u64 places = places_of(table), place = first_place(h, places);
    Match match = {};
    u32 most_vacant = 0;
    for (u64 probed = 0; probed < most_probes(places);) {
        u64 *first_vacant = nullptr, vacant_seen = EMPTY;
        u32 vacant = 0;
        bool full = true;
        for (u32 part = 0; part < STEP && full; part += PART) {
            u64* at = table.index + place * STEP + part;
            u64 slots[PART];
            if constexpr (PART == 4) {
                ulonglong2 left = fetch_slots<CHANGING>(at), right = fetch_slots<CHANGING>(at + 2);
                slots[0] = left.x, slots[1] = left.y, slots[2] = right.x, slots[3] = right.y;
            } else {
                slots[0] = fetch<CHANGING>(at);
            }
            u32 candidates = 0;
#pragma unroll
            for (u32 i = 0; i < PART; ++i) {
                if (!is_record(slots[i])) {
                    if (!vacant++) first_vacant = at + i, vacant_seen = slots[i];
                } else if (!TAGS || slots[i] >> 48 == tag_of(h)) {
                    candidates |= 1u << i;
                }
            }
            // One place to read a record from, whichever slot it is, so that a warp's lanes read theirs together.
            for (; candidates; candidates &= candidates - 1) {
                u32 i = __ffs(candidates) - 1;
                u64 seen = slots[0];
#pragma unroll
                for (u32 s = 1; s < PART; ++s) seen = s == i ? slots[s] : seen;
                if (same_key<CHANGING, LEAN>(key, record_of(seen), table)) {
                    match.record = record_of(seen), match.slot = at + i, match.seen = seen;
                    return match;
                }
            }
            // Buckets fill up from their first slot on: one with an empty slot has an empty last one, and no more records.
            if (slots[PART - 1] == EMPTY) full = false, vacant += STEP - part - PART;
        }
        if (CHOICES == TWO && probed < 2 ? vacant > most_vacant : vacant && !match.free) {
            match.free = first_vacant, match.free_seen = vacant_seen, most_vacant = vacant;
        }
        if (!goes_on(full, probed)) break;
        place = next_place(place, ++probed, tag_of(h), places);
    }
    return match;
}

}  // namespace ladder
