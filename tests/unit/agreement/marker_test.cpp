// The name that an aware connector binds: made, read back, and told from every other name.
#include "agreement/marker.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <set>
#include <string>

namespace shunt::testing {
namespace {

constexpr size_t kPath = offsetof(sockaddr_un, sun_path);

struct Name {
  sockaddr_un address{};
  socklen_t length = 0;
  explicit Name(const std::string& path) : length(static_cast<socklen_t>(kPath + path.size())) {
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path, path.data(), path.size());
  }
  explicit Name(int fd) {
    length = sizeof address;
    EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length), 0);
  }
  bool is_marker() const {
    Bits bits;
    return read_marker(address, length, bits) == Marker::understood;
  }
};

const std::string kDigits = "ABEiM0RVZneImaq7zN3u_w";
std::string marker_with(const std::string& digits) { return std::string("\0shunt2-", 8) + digits; }

class MarkedSocket : public ::testing::Test {
 protected:
  ~MarkedSocket() override { close(fd_); }
  int fd_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
};

TEST_F(MarkedSocket, WhatWasBoundIsWhatAPeerReads) {
  Bits bound, seen{};
  ASSERT_EQ(bind_marker(fd_, bound), 0);
  const Name name(fd_);
  ASSERT_EQ(read_marker(name.address, name.length, seen), Marker::understood);
  EXPECT_EQ(memcmp(bound.bytes, seen.bytes, sizeof bound.bytes), 0);
}

TEST_F(MarkedSocket, ANamedSocketKeepsItsName) {
  sockaddr_un autobind{};
  autobind.sun_family = AF_UNIX;
  ASSERT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&autobind), sizeof(sa_family_t)), 0);
  const Name before(fd_);
  Bits bits;
  EXPECT_EQ(bind_marker(fd_, bits), -EINVAL);
  const Name after(fd_);
  ASSERT_EQ(after.length, before.length);
  EXPECT_EQ(memcmp(&after.address, &before.address, after.length), 0);
}

TEST(Marker, ErrorsOfTheKernelComeBackAndErrnoStays) {
  Bits bits;
  errno = 4711;
  EXPECT_EQ(bind_marker(-1, bits), -EBADF);
  EXPECT_EQ(errno, 4711);
}

TEST(Marker, NoTwoConnectionsHaveTheSameBits) {
  std::set<std::string> seen;
  for (int i = 0; i < 200; ++i) {
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    Bits bits;
    ASSERT_EQ(bind_marker(fd, bits), 0);
    seen.emplace(reinterpret_cast<char*>(bits.bytes), sizeof bits.bytes);
    close(fd);
  }
  EXPECT_EQ(seen.size(), 200u);
}

TEST(Marker, DigitsAreTheBitsInOrder) {
  const Name name(marker_with(kDigits));
  Bits bits;
  ASSERT_EQ(read_marker(name.address, name.length, bits), Marker::understood);
  for (int i = 0; i < 16; ++i) EXPECT_EQ(bits.bytes[i], i * 0x11);
}

TEST(Marker, OtherLengthsAreOtherNames) {
  for (size_t digits = 0; digits <= 60; ++digits) {
    const Name name(marker_with(std::string(digits, 'A')));
    EXPECT_EQ(name.is_marker(), digits == 22) << digits;
  }
  Name name(marker_with(kDigits));
  for (name.length = 0; name.length <= sizeof(sockaddr_un); ++name.length)
    EXPECT_EQ(name.is_marker(), name.length == kPath + 8 + 22) << name.length;
}

TEST(Marker, OtherPrefixesAreOtherNames) {
  for (size_t at = 0; at < 8; ++at) {
    std::string path = marker_with(kDigits);
    path[at] = static_cast<char>(path[at] ^ 1);
    EXPECT_FALSE(Name(path).is_marker()) << at;
  }
  EXPECT_FALSE(Name("/tmp/shunt2-" + kDigits).is_marker());
}

TEST(Marker, OtherVersionsAreKnownForWhatTheyAre) {
  for (const char version : {'1', '3', '9'}) {
    std::string path = marker_with(kDigits);
    path[6] = version;
    const Name name(path);
    Bits bits;
    EXPECT_EQ(read_marker(name.address, name.length, bits), Marker::other_version) << version;
  }
}

TEST(Marker, OnlyDigitsOfBase64Count) {
  const std::string alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  for (size_t at = 0; at < 22; ++at)
    for (int c = 0; c < 256; ++c) {
      std::string digits = kDigits;
      digits[at] = static_cast<char>(c);
      // 22 digits show four bits more than there are: these are 0.
      const bool good = (at < 21 ? alphabet : "AQgw").find(static_cast<char>(c)) != std::string::npos;
      ASSERT_EQ(Name(marker_with(digits)).is_marker(), good) << "digit " << at << " is " << c;
    }
}

TEST_F(MarkedSocket, ANameTakesNoMoreThanAServerKeepsForAnIPv6Address) {
  Bits bits;
  ASSERT_EQ(bind_marker(fd_, bits), 0);
  EXPECT_LE(Name(fd_).length, 32u) << "varnishd ends when a name is longer";
}

TEST(Marker, OtherFamiliesHaveNone) {
  Name name(marker_with(kDigits));
  name.address.sun_family = AF_INET;
  EXPECT_FALSE(name.is_marker());
}

}  // namespace
}  // namespace shunt::testing
