// Memory that a process shares with the children it makes later: slots, in chunks of raw mmap. What was given up is not
// used again, because a relative may look at it; a chunk of which that is true throughout is mapped anew, for this
// process alone. Under a lock of the caller's.
#pragma once

#include <sys/mman.h>

#include <cstdint>

#include "sys/raw.h"

namespace shunt {

template <typename T>
class FamilySlots {
 public:
  // All zeros. Null: no memory.
  T* take() {
    for (uint32_t tries = 0; tries < made_; ++tries, current_ = current_ + 1 < made_ ? current_ + 1 : 0)
      if (T* slot = take_from(chunks_[current_])) return slot;
    if (made_ == kChunks) return nullptr;
    T* memory = map(nullptr, 0);
    if (!memory) return nullptr;
    chunks_[current_ = made_++] = {memory, 0, 0};
    return take_from(chunks_[current_]);
  }
  void give_up(T* slot) { --chunk_of(slot).live; }

  // In a child: nothing is taken from a chunk of its parent's, until none of its slots is in use here. Then keep() of
  // each that is.
  void begin_in_child() {
    for (uint32_t i = 0; i < made_; ++i) chunks_[i].used = kSlots, chunks_[i].live = 0;
  }
  void keep(T* slot) { ++chunk_of(slot).live; }

 private:
  static constexpr size_t kBytes = 32768;
  static constexpr uint32_t kSlots = kBytes / sizeof(T);
  static constexpr uint32_t kChunks = 1024;
  struct Chunk {
    T* memory;
    uint32_t used, live;
  };
  static T* map(void* where, int flags) {
    const long address = sys::mmap(where, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | flags, -1, 0);
    return address < 0 && address > -4096 ? nullptr : reinterpret_cast<T*>(address);
  }
  static T* take_from(Chunk& chunk) {
    if (chunk.used == kSlots) {
      if (chunk.live > 0 || !map(chunk.memory, MAP_FIXED)) return nullptr;
      chunk.used = 0;
    }
    ++chunk.live;
    return &chunk.memory[chunk.used++];
  }
  Chunk& chunk_of(const T* slot) {
    uint32_t i = 0;
    while (slot < chunks_[i].memory || slot >= chunks_[i].memory + kSlots) ++i;
    return chunks_[i];
  }

  Chunk chunks_[kChunks];
  uint32_t made_, current_;
};

}  // namespace shunt
