// Makes and reads markers. Raw calls only.
#include "agreement/marker.h"

#include <cerrno>
#include <cstddef>
#include <cstring>

#include "sys/raw.h"

namespace shunt {
namespace {

constexpr char kPrefix[] = "shunt2-";
constexpr size_t kVersionAt = 5;  // in the prefix: one digit
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

long bind_marker(int fd, Bits& bits) {
  if (sys::raw(SYS_getrandom, bits.bytes, sizeof bits.bytes, 0) != sizeof bits.bytes) return -EAGAIN;
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

Marker read_marker(const sockaddr_un& name, socklen_t length, Bits& bits) {
  if (length != kLength || name.sun_family != AF_UNIX || name.sun_path[0] != '\0') return Marker::none;
  char prefix[kPrefixBytes];
  memcpy(prefix, name.sun_path + 1, kPrefixBytes);
  const char version = prefix[kVersionAt];
  prefix[kVersionAt] = kPrefix[kVersionAt];
  if (memcmp(prefix, kPrefix, kPrefixBytes) != 0 || version < '1' || version > '9') return Marker::none;
  const char* digit = name.sun_path + 1 + kPrefixBytes;
  uint32_t held = 0, count = 0;
  for (uint8_t& byte : bits.bytes) {
    for (; count < 8; count += 6) {
      const uint32_t value = value_of(*digit++);
      if (value == 64) return Marker::none;
      held = held << 6 | value;
    }
    count -= 8;
    byte = static_cast<uint8_t>(held >> count);
  }
  if ((held & ((1u << count) - 1)) != 0) return Marker::none;
  return version == kPrefix[kVersionAt] ? Marker::understood : Marker::other_version;
}

}  // namespace shunt
