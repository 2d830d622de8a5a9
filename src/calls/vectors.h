// What the kernel checks before it touches a caller's memory (import_iovec). Any thread; no state.
#pragma once

#include <sys/uio.h>

#include <cerrno>
#include <climits>
#include <cstddef>

#include "calls/common.h"

namespace shunt::calls {

inline constexpr size_t kMostBytes = 0x7ffff000;  // MAX_RW_COUNT: longer transfers are cut to this

// Above any user address, with or without five-level page tables.
inline bool reachable(const void* data, size_t bytes) {
  constexpr uint64_t kEnd = uint64_t{1} << 56;
  const uint64_t begin = reinterpret_cast<uint64_t>(data);
  return bytes == 0 || (begin >= kLowestPage && begin < kEnd && bytes <= kEnd - begin);
}

// The bytes that a transfer with this vector may move, −EFAULT, or kPassOn if the kernel refuses the vector itself.
inline long measure(const iovec* parts, size_t count) {
  if (count > IOV_MAX) return kPassOn;
  if (count > 0 && unreadable(parts, count * sizeof *parts)) return kPassOn;
  size_t total = 0;
  for (size_t i = 0; i < count; ++i) {
    if (static_cast<ssize_t>(parts[i].iov_len) < 0) return kPassOn;
    if (!reachable(parts[i].iov_base, parts[i].iov_len)) return -EFAULT;
    total += min_of(parts[i].iov_len, kMostBytes - total);
  }
  return static_cast<long>(total);
}
inline long measure(const void* data, size_t bytes) {
  bytes = min_of(bytes, kMostBytes);
  return reachable(data, bytes) ? static_cast<long>(bytes) : -EFAULT;
}

}  // namespace shunt::calls
