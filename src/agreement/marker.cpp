// Makes and reads markers. Raw calls only.
#include "agreement/marker.h"

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include "sys/raw.h"

namespace shunt {
namespace {

constexpr char kPrefix[] = "shunt1-";
constexpr size_t kPrefixBytes = sizeof kPrefix - 1;
constexpr socklen_t kLength = offsetof(sockaddr_un, sun_path) + 1 + kPrefixBytes + 32;

int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

namespace {

// Random bits are fetched for several markers at once. `next` also tells who may take which: each index is given out once.
constexpr uint32_t kPool = 16;
Bits pool[kPool];
std::atomic<uint32_t> next_in_pool{kPool};

bool fetch_bits(Bits& bits) {
  uint32_t index = next_in_pool.load(std::memory_order_acquire);
  while (index < kPool)
    if (next_in_pool.compare_exchange_weak(index, index + 1, std::memory_order_acquire)) return bits = pool[index], true;
  // Empty, or being filled: one thread fills it, the others (and handlers) fetch for themselves.
  if (index == kPool && next_in_pool.compare_exchange_strong(index, kPool + 1, std::memory_order_acquire)) {
    const bool filled = sys::raw(SYS_getrandom, pool, sizeof pool, 0) == static_cast<long>(sizeof pool);
    bits = pool[0];
    next_in_pool.store(filled ? 1 : kPool, std::memory_order_release);
    if (filled) return true;
  }
  return sys::raw(SYS_getrandom, bits.bytes, sizeof bits.bytes, 0) == sizeof bits.bytes;
}

}  // namespace

void forget_random_bits() { next_in_pool.store(kPool, std::memory_order_relaxed); }

long bind_marker(int fd, Bits& bits) {
  if (!fetch_bits(bits)) return -EAGAIN;
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  memcpy(name.sun_path + 1, kPrefix, kPrefixBytes);
  char* hex = name.sun_path + 1 + kPrefixBytes;
  for (const uint8_t byte : bits.bytes) {
    *hex++ = "0123456789abcdef"[byte >> 4];
    *hex++ = "0123456789abcdef"[byte & 15];
  }
  return sys::raw(SYS_bind, fd, &name, kLength);
}

bool read_marker(const sockaddr_un& name, socklen_t length, Bits& bits) {
  if (length != kLength || name.sun_family != AF_UNIX || name.sun_path[0] != '\0') return false;
  if (memcmp(name.sun_path + 1, kPrefix, kPrefixBytes) != 0) return false;
  const char* hex = name.sun_path + 1 + kPrefixBytes;
  for (uint8_t& byte : bits.bytes) {
    const int high = digit(*hex++), low = digit(*hex++);
    if (high < 0 || low < 0) return false;
    byte = static_cast<uint8_t>(high << 4 | low);
  }
  return true;
}

}  // namespace shunt
