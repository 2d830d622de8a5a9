// Bytes of one direction's ring: where position p lives, and copying in and out across the wrap.
// Called under the read or write lock of a side, or in its owner's signal handler. Pure memory; never decides when.
#pragma once

#include <sys/uio.h>

#include "base/platform.h"
#include "shm/layout.h"
#include "shm/user_copy.h"

namespace shunt {

// Where the areas of one direction's ring are mapped, by class.
struct Region {
  uint8_t* area[kClasses];
};

// How positions map to areas, as one end knows it: private, never re-read from the channel. Position p is of the largest class k with from[k] ≤ p.
struct RingMap {
  uint64_t from[kClasses] = {0, kNever, kNever, kNever};
  uint32_t newest = 0;  // larger classes do not count yet. Written after `from`, so that who dies in between has changed nothing
};

constexpr uint64_t class_bytes(uint32_t ring_class) { return uint64_t{1} << kClassBits[ring_class]; }

inline void begin_class(RingMap& map, uint32_t ring_class, uint64_t from) {
  for (uint32_t skipped = map.newest + 1; skipped < ring_class; ++skipped) map.from[skipped] = kNever;
  map.from[ring_class] = from;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  __atomic_store_n(&map.newest, ring_class, __ATOMIC_RELAXED);
}

// For who has no lock: it may just be changing.
inline uint32_t newest_class(const RingMap& map) { return __atomic_load_n(&map.newest, __ATOMIC_RELAXED); }

inline uint32_t class_at(const RingMap& map, uint64_t position) {
  uint32_t k = map.newest;
  while (map.from[k] > position) --k;  // from[0] is 0
  return k;
}

// Where the bytes of class `k` end: at the next class, at `end` at the latest.
inline uint64_t class_end(const RingMap& map, uint32_t k, uint64_t end) {
  while (++k <= map.newest)
    if (map.from[k] != kNever) return min_of(map.from[k], end);
  return end;
}

// No area holds more than its size.
inline bool fits(const RingMap& map, uint64_t head, uint64_t tail) {
  while (head < tail) {
    const uint32_t k = class_at(map, head);
    const uint64_t end = class_end(map, k, tail);
    if (end - head > class_bytes(k)) return false;
    head = end;
  }
  return true;
}

inline uint8_t* ring_at(const Region& region, uint32_t ring_class, uint64_t position) {
  return region.area[ring_class] + (position & (class_bytes(ring_class) - 1));
}

// The contiguous bytes from `position` within one area.
inline uint64_t contiguous(uint32_t ring_class, uint64_t position) {
  const uint64_t size = class_bytes(ring_class);
  return size - (position & (size - 1));
}

// A walk over a caller's iovec: what is left of it.
class Cursor {
 public:
  Cursor(const iovec* vector, size_t count) : vector_(vector), count_(count) {}

  size_t remaining() const {
    size_t total = 0;
    for (size_t i = 0; i < count_; ++i) total += vector_[i].iov_len;
    return total - offset_;
  }
  // Copies `bytes` from the caller's memory to `to`, or from `from` into it, and advances. False: that memory is bad.
  bool take(uint8_t* to, size_t bytes) {
    bool good = true;
    each(bytes, [&](uint8_t* mine, size_t n) { good = good && copy_user(to, mine, n), to += n; });
    return good;
  }
  bool fill(const uint8_t* from, size_t bytes) {
    bool good = true;
    each(bytes, [&](uint8_t* mine, size_t n) { good = good && copy_user(mine, from, n), from += n; });
    return good;
  }
  // Calls good(memory, bytes) for each part of the next `bytes`; false as soon as one is not.
  template <typename Good>
  bool all(size_t bytes, Good good) const {
    Cursor walk = *this;
    bool all_good = true;
    walk.each(bytes, [&](uint8_t* mine, size_t n) { all_good = all_good && good(mine, n); });
    return all_good;
  }
  // The part of the walk that is left, at most `bytes` of it, as an iovec of at most `room` entries. Returns their number.
  size_t rest(iovec* out, size_t room, size_t bytes) const {
    size_t used = 0, offset = offset_;
    for (size_t i = 0; i < count_ && used < room && bytes > 0; ++i, offset = 0) {
      const size_t n = min_of(vector_[i].iov_len - offset, bytes);
      if (n == 0) continue;
      out[used++] = {static_cast<uint8_t*>(vector_[i].iov_base) + offset, n};
      bytes -= n;
    }
    return used;
  }
  bool untouched() const { return offset_ == 0; }
  const iovec* vector() const { return vector_; }
  size_t count() const { return count_; }
  void skip(size_t bytes) {
    each(bytes, [](uint8_t*, size_t) {});
  }

 private:
  template <typename Move>
  void each(size_t bytes, Move move) {
    while (bytes > 0) {
      const size_t n = min_of(vector_->iov_len - offset_, bytes);
      if (n > 0) move(static_cast<uint8_t*>(vector_->iov_base) + offset_, n);
      bytes -= n;
      offset_ += n;
      if (offset_ == vector_->iov_len && bytes > 0) ++vector_, --count_, offset_ = 0;
    }
  }
  const iovec* vector_;
  size_t count_;
  size_t offset_ = 0;
};

// Copies between a caller's memory and [position, position + bytes) of an area, splitting at the wrap. False: the caller's memory is bad.
inline bool ring_put(const Region& region, uint32_t ring_class, uint64_t position, Cursor& from, uint64_t bytes) {
  const uint64_t first = min_of(bytes, contiguous(ring_class, position));
  return from.take(ring_at(region, ring_class, position), first) &&
         (bytes == first || from.take(ring_at(region, ring_class, position + first), bytes - first));
}
inline bool ring_get(const Region& region, uint32_t ring_class, uint64_t position, Cursor& to, uint64_t bytes) {
  const uint64_t first = min_of(bytes, contiguous(ring_class, position));
  return to.fill(ring_at(region, ring_class, position), first) &&
         (bytes == first || to.fill(ring_at(region, ring_class, position + first), bytes - first));
}

}  // namespace shunt
