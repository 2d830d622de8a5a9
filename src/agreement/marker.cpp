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
constexpr size_t kDigits = 22;
constexpr socklen_t kLength = offsetof(sockaddr_un, sun_path) + 1 + kPrefixBytes + kDigits;

static_assert(kLength == 32);

constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

// The value of a digit, or 64.
uint32_t value_of(char c) {
  if (c >= 'A' && c <= 'Z') return static_cast<uint32_t>(c - 'A');
  if (c >= 'a' && c <= 'z') return static_cast<uint32_t>(c - 'a' + 26);
  if (c >= '0' && c <= '9') return static_cast<uint32_t>(c - '0' + 52);
  if (c == '-') return 62;
  return c == '_' ? 63 : 64;
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
  char* digit = name.sun_path + 1 + kPrefixBytes;
  uint32_t held = 0, count = 0;  // bits that no digit shows yet
  for (const uint8_t byte : bits.bytes) {
    held = held << 8 | byte;
    for (count += 8; count >= 6; count -= 6) *digit++ = kAlphabet[held >> (count - 6) & 63];
  }
  *digit = kAlphabet[held << (6 - count) & 63];
  return sys::raw(SYS_bind, fd, &name, kLength);
}

bool read_marker(const sockaddr_un& name, socklen_t length, Bits& bits) {
  if (length != kLength || name.sun_family != AF_UNIX || name.sun_path[0] != '\0') return false;
  if (memcmp(name.sun_path + 1, kPrefix, kPrefixBytes) != 0) return false;
  const char* digit = name.sun_path + 1 + kPrefixBytes;
  uint32_t held = 0, count = 0;
  for (uint8_t& byte : bits.bytes) {
    for (; count < 8; count += 6) {
      const uint32_t value = value_of(*digit++);
      if (value == 64) return false;
      held = held << 6 | value;
    }
    count -= 8;
    byte = static_cast<uint8_t>(held >> count);
  }
  return (held & ((1u << count) - 1)) == 0;
}

}  // namespace shunt
