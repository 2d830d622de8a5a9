// Which descriptors are mapped as channels: genuine ones alone, whatever a hostile peer sends.
#include "agreement/offer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>

namespace shunt::testing {
namespace {

constexpr Bits kBits{{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};
constexpr int kGoodSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

// A channel made by hand, with one thing wrong.
struct Forgery {
  uint64_t magic = kChannelMagic;
  uint32_t version = kChannelVersion, bytes = kChannelBytes;
  Bits bits = kBits;
  size_t size = kChannelBytes;
  int seals = kGoodSeals;
  unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;

  int make() const {
    const int fd = memfd_create("forgery", flags);
    if (fd < 0) return fd;
    EXPECT_EQ(ftruncate(fd, static_cast<off_t>(size)), 0) << strerror(errno);
    uint8_t header[32];
    memcpy(header, &magic, 8), memcpy(header + 8, &version, 4), memcpy(header + 12, &bytes, 4),
        memcpy(header + 16, bits.bytes, 16);
    if (flags & MFD_HUGETLB) {
      void* page = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
      if (page != MAP_FAILED) memcpy(page, header, sizeof header), munmap(page, size);
    } else if (size >= sizeof header) {
      EXPECT_EQ(pwrite(fd, header, sizeof header, 0), ssize_t{sizeof header});
    }
    EXPECT_EQ(fcntl(fd, F_ADD_SEALS, seals), 0) << strerror(errno);
    return fd;
  }
};

size_t channels_mapped() {
  size_t count = 0;
  FILE* maps = fopen("/proc/self/maps", "re");
  for (char line[512]; fgets(line, sizeof line, maps);)
    if (strstr(line, "memfd:")) ++count;
  fclose(maps);
  return count;
}

void expect_refused(int fd) {
  ASSERT_GE(fd, 0);
  Mapping channel{};
  const size_t before = channels_mapped();
  EXPECT_EQ(map_channel(fd, kBits, channel), -EPROTO);
  EXPECT_EQ(channel.header, nullptr);
  EXPECT_EQ(channels_mapped(), before);
  EXPECT_NE(fcntl(fd, F_GETFD), -1) << "the descriptor is its owner's to close";
  close(fd);
}

void release(const Mapping& channel) { EXPECT_TRUE(unmap_channel(channel, nullptr)); }

TEST(Offer, AGenuineChannelIsMappedByBothEnds) {
  Mapping one{}, other{};
  int memfd;
  ASSERT_EQ(create_channel(kBits, one, memfd), 0);
  ASSERT_TRUE(is_offer(memfd, kBits));
  ASSERT_EQ(map_channel(memfd, kBits, other), 0);
  ASSERT_NE(other.header, one.header);
  one.header[kHeaderBytes - 1] = 0x5a;
  EXPECT_EQ(other.header[kHeaderBytes - 1], 0x5a);
  one.larger[kChannelBytes - kHeaderBytes - 1] = 0x5b;
  EXPECT_EQ(other.larger[kChannelBytes - kHeaderBytes - 1], 0x5b);
  struct stat status {};
  ASSERT_EQ(fstat(memfd, &status), 0);
  EXPECT_EQ(status.st_size, static_cast<off_t>(kChannelBytes));
  EXPECT_EQ(fcntl(memfd, F_GET_SEALS) & kGoodSeals, kGoodSeals);
  EXPECT_TRUE(fcntl(memfd, F_GETFD) & FD_CLOEXEC);
  EXPECT_EQ(ftruncate(memfd, 0), -1) << "nobody can take the pages away";
  close(memfd);
  release(one);
  release(other);
  EXPECT_EQ(channels_mapped(), 0u);
}

TEST(Offer, HeadersGoWhereTheyAreToldAndTheirPlacesAreKept) {
  uint8_t* const places = reserve_headers(2);
  ASSERT_NE(places, nullptr);
  for (int life = 0; life < 2; ++life) {
    Mapping one{places, nullptr}, other{places + kHeaderBytes, nullptr};
    int memfd;
    ASSERT_EQ(create_channel(kBits, one, memfd), 0);
    ASSERT_EQ(map_channel(memfd, kBits, other), 0);
    EXPECT_EQ(one.header, places);
    EXPECT_EQ(other.header, places + kHeaderBytes);
    close(memfd);
    EXPECT_TRUE(unmap_channel(one, places));
    EXPECT_TRUE(unmap_channel(other, places + kHeaderBytes));
    EXPECT_EQ(channels_mapped(), 0u);
    // Nobody else may be given the place: it is mapped still.
    EXPECT_EQ(mmap(places, 2 * kHeaderBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0), MAP_FAILED);
  }
  munmap(places, 2 * kHeaderBytes);
}

TEST(Offer, AFreshChannelWakesThoseWhoSleepInTheKernelAlready) {
  Mapping channel{};
  int memfd;
  ASSERT_EQ(create_channel(kBits, channel, memfd), 0);
  const auto& header = *reinterpret_cast<ChannelHeader*>(channel.header);
  EXPECT_EQ(memcmp(header.bits, kBits.bytes, 16), 0);
  EXPECT_EQ(header.attached.load(), 0u);
  for (const Direction& direction : header.direction) {
    EXPECT_EQ(direction.data_arm.load(), 1u);
    EXPECT_EQ(direction.space_arm.load(), 0u);
    EXPECT_EQ(direction.class_next.load(), 0u);
    for (const auto& from : direction.class_from) EXPECT_EQ(from.load(), kNever);
    EXPECT_EQ(direction.stage.load(), Stage::kernel);
    EXPECT_EQ(direction.tail.load(), 0u);
  }
  close(memfd);
  release(channel);
}

TEST(Offer, AForgeryWithNothingWrongIsAccepted) {
  const int fd = Forgery{}.make();
  Mapping channel{};
  ASSERT_EQ(map_channel(fd, kBits, channel), 0);  // or the refusals below would prove nothing
  release(channel);
  close(fd);
}

TEST(Offer, UnsealedOnesAreRefused) { expect_refused(Forgery{.seals = 0}.make()); }

TEST(Offer, EachMissingSealIsRefused) {
  for (const int missing : {F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_SEAL}) {
    SCOPED_TRACE(missing);
    expect_refused(Forgery{.seals = kGoodSeals & ~missing}.make());
  }
}

TEST(Offer, ChannelsThatNobodyMayWriteAreRefused) {
  expect_refused(Forgery{.seals = kGoodSeals | F_SEAL_WRITE}.make());
  expect_refused(Forgery{.seals = kGoodSeals | F_SEAL_FUTURE_WRITE}.make());
}

TEST(Offer, OtherSizesAreRefused) {
  for (const size_t size : {size_t{0}, size_t{32}, size_t{4096}, kChannelBytes - 4096, kChannelBytes - 1,
                            kChannelBytes + 1, kChannelBytes + 4096, 2 * kChannelBytes}) {
    SCOPED_TRACE(size);
    expect_refused(Forgery{.size = size}.make());
  }
}

TEST(Offer, OtherHeadersAreRefused) {
  expect_refused(Forgery{.version = kChannelVersion + 1}.make());
  expect_refused(Forgery{.version = 0}.make());
  expect_refused(Forgery{.bytes = kChannelBytes - 1}.make());
  for (size_t i = 0; i < 16; ++i) {
    SCOPED_TRACE(i);
    Forgery forgery;
    forgery.bits.bytes[i] ^= 0x80;
    expect_refused(forgery.make());
  }
}

// take_offer() asks is_offer() first, then maps: together they must refuse a wrong magic.
TEST(Offer, AnotherMagicIsTheProgramsOwnDescriptor) {
  const int fd = Forgery{.magic = kChannelMagic + 1}.make();
  EXPECT_FALSE(is_offer(fd, kBits));
  close(fd);
}

TEST(Offer, AnotherVersionIsAnOfferStillSoThatItIsClosed) {
  const int fd = Forgery{.version = kChannelVersion + 1}.make();
  EXPECT_TRUE(is_offer(fd, kBits));
  close(fd);
}

TEST(Offer, HugePagesAreRefused) {
  Forgery forgery{.size = size_t{4} << 20, .flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB};  // no huge page is as small as a channel
  const int fd = forgery.make();
  if (fd < 0) GTEST_SKIP() << "no huge pages here";
  expect_refused(fd);
}

TEST(Offer, AProgramsOwnDescriptorsAreNoOffersAndAreRefused) {
  int pipes[2];
  ASSERT_EQ(pipe2(pipes, O_CLOEXEC), 0);
  int sockets[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
  FILE* file = tmpfile();
  ASSERT_EQ(ftruncate(fileno(file), static_cast<off_t>(kChannelBytes)), 0);
  const uint64_t magic = kChannelMagic;
  ASSERT_EQ(pwrite(fileno(file), &magic, sizeof magic, 0), ssize_t{sizeof magic});
  const int plain_memfd = memfd_create("own", MFD_CLOEXEC);
  ASSERT_EQ(ftruncate(plain_memfd, static_cast<off_t>(kChannelBytes)), 0);
  for (const int fd :
       {pipes[0], pipes[1], sockets[0], sockets[1], dup(fileno(file)), plain_memfd, eventfd(0, EFD_CLOEXEC),
        open("/dev/null", O_RDWR | O_CLOEXEC), open("/dev/zero", O_RDWR | O_CLOEXEC), open("/", O_RDONLY | O_CLOEXEC),
        Forgery{.bits = {}}.make()}) {
    SCOPED_TRACE(fd);
    EXPECT_FALSE(is_offer(fd, kBits));
    expect_refused(fd);
  }
  fclose(file);
}

// Looking at a stranger's pipe must not eat from it, nor sleep for it.
TEST(Offer, LookingLeavesTheDescriptorAsItWas) {
  int pipes[2];
  ASSERT_EQ(pipe2(pipes, O_CLOEXEC), 0);
  EXPECT_FALSE(is_offer(pipes[0], kBits));
  ASSERT_EQ(write(pipes[1], "ab", 2), 2);
  EXPECT_FALSE(is_offer(pipes[0], kBits));
  char got[3] = {};
  EXPECT_EQ(read(pipes[0], got, 2), 2);
  EXPECT_STREQ(got, "ab");
  const int fd = Forgery{.bits = {}}.make();
  ASSERT_EQ(lseek(fd, 100, SEEK_SET), 100);
  EXPECT_FALSE(is_offer(fd, kBits));
  EXPECT_EQ(lseek(fd, 0, SEEK_CUR), 100);
  for (const int used : {pipes[0], pipes[1], fd}) close(used);
}

TEST(Offer, ABadDescriptorIsNoOffer) {
  Mapping channel{};
  errno = 4711;
  EXPECT_FALSE(is_offer(-1, kBits));
  EXPECT_FALSE(is_offer(1 << 20, kBits));
  EXPECT_EQ(map_channel(-1, kBits, channel), -EPROTO);
  EXPECT_EQ(errno, 4711);
}

}  // namespace
}  // namespace shunt::testing
