// v1: the table one writes first. An array of entries, open addressing, linear probing, one thread per key, byte by byte.
//
// Entry    16 bytes: state, key length, value length, row; the key, padded to 16 bytes; 4096 bytes for the value, however
//          short. Values are overwritten in place, so an entry is locked while it is written.
// What is wrong with it is the ladder's subject: an entry is 4 KiB apart from the next, so every probe is a miss in DRAM and
// its page; bytes are fetched and compared one instruction each; a warp's lanes touch 32 lines to write 32 bytes.
#include "ladder.cuh"

namespace ladder {

enum : signed char { STORED = 0, SUPERSEDED = 2, NO_SPACE = 4 };  // as in insert.cu, but that an update counts as stored
constexpr u64 VALUE_SLOT = 4096;
enum State : u32 { VACANT, ERASED, LOCKED, FULL };

struct Entry {
    u32 state, key_nbytes, value_nbytes, row;  // row: over all batches, the later the higher
};

__device__ __forceinline__ Entry* entry_at(const Table& table, u64 place) {
    return (Entry*)((u8*)table.index + place * (sizeof(Entry) + (table.key_nbytes + 15) / 16 * 16 + VALUE_SLOT));
}

__device__ __forceinline__ u8* key_in(const Entry* entry) { return (u8*)(entry + 1); }
__device__ __forceinline__ u8* value_in(const Entry* entry, const Table& table) {
    return key_in(entry) + (table.key_nbytes + 15) / 16 * 16;
}

template <bool CHANGING>
__device__ __forceinline__ bool holds(const Entry* entry, const u8* key, const Table& table) {
    if (fetch<CHANGING>(&entry->key_nbytes) != table.key_nbytes) return false;
    for (u32 b = 0; b < table.key_nbytes; ++b) {
        if (fetch<CHANGING>(key_in(entry) + b) != key[b]) return false;
    }
    return true;
}

// The key's entry, null if there is none. For kernels that write no new ones.
__device__ __forceinline__ Entry* plain_lookup(const u8* key, const Table& table) {
    u64 places = table.buckets, place = hash_of(key, table.key_nbytes) % places;
    for (u64 probed = 0; probed < places; ++probed) {
        Entry* entry = entry_at(table, place);
        if (entry->state == VACANT) return nullptr;
        if (entry->state == FULL && holds<false>(entry, key, table)) return entry;
        place = place + 1 == places ? 0 : place + 1;
    }
    return nullptr;
}

__device__ __forceinline__ void write_value(Entry* entry, const u8* value, u32 row, const Table& table) {
    for (u32 b = 0; b < table.value_nbytes; ++b) value_in(entry, table)[b] = value[b];
    entry->value_nbytes = table.value_nbytes, entry->row = row;
    __threadfence();
    *(volatile u32*)&entry->state = FULL;
}

// Row `row` of all rows ever; `status` that of row `first_row`, the first of the batch.
__device__ __forceinline__ void plain_insert(
    const u8* key, const u8* value, u32 row, u32 first_row, signed char* status, const Table& table) {
    u64 places = table.buckets, first = hash_of(key, table.key_nbytes) % places;
    for (;;) {
        Entry* free = nullptr;
        u32 free_seen = VACANT;
        u64 place = first;
        for (u64 probed = 0; probed < places;) {
            Entry* entry = entry_at(table, place);
            u32 state = *(volatile u32*)&entry->state;
            if (state == LOCKED) {  // it may become this key: ask again
                __threadfence();
                continue;
            }
            if (state != FULL && !free) free = entry, free_seen = state;
            if (state == VACANT) break;
            if (state == FULL && holds<true>(entry, key, table)) {
                if (atomicCAS(&entry->state, FULL, LOCKED) != FULL) continue;
                __threadfence();
                u32 other = *(volatile u32*)&entry->row;
                if (other >= first_row) status[min(other, row) - first_row] = SUPERSEDED;
                if (other < row) {
                    write_value(entry, value, row, table);
                } else {
                    *(volatile u32*)&entry->state = FULL;
                }
                return;
            }
            ++probed;
            place = place + 1 == places ? 0 : place + 1;
        }
        if (!free) {
            status[row - first_row] = NO_SPACE;
            return;
        }
        if (atomicCAS(&free->state, free_seen, LOCKED) != free_seen) continue;
        for (u32 b = 0; b < table.key_nbytes; ++b) key_in(free)[b] = key[b];
        free->key_nbytes = table.key_nbytes;
        write_value(free, value, row, table);
        return;
    }
}

}  // namespace ladder
