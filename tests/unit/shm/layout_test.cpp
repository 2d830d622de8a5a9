// The channel's layout as bytes: two builds of the library must agree on every one of them, so the offsets are written
// down here as well.
#include "shm/layout.h"

#include <gtest/gtest.h>

#include <cstring>
#include <new>

namespace shunt::testing {
namespace {

class Layout : public ::testing::Test {
 protected:
  Layout() : header_(*new (bytes_) ChannelHeader{}) {}

  template <typename T>
  T read(size_t offset) const {
    T value;
    memcpy(&value, bytes_ + offset, sizeof value);
    return value;
  }

  alignas(kLine) uint8_t bytes_[sizeof(ChannelHeader)] = {};
  ChannelHeader& header_;
};

TEST_F(Layout, TheHeaderBeginsWithItsMagicVersionSizeAndBits) {
  header_.magic = kChannelMagic;
  header_.version = 0x01020304;
  header_.bytes = 0x0a0b0c0d;
  memcpy(header_.bits, "0123456789abcdef", 16);
  header_.attached = 0x77;
  EXPECT_EQ(memcmp(bytes_, "STCHNNL1", 8), 0);
  EXPECT_EQ(read<uint32_t>(8), 0x01020304u);
  EXPECT_EQ(read<uint32_t>(12), 0x0a0b0c0du);
  EXPECT_EQ(memcmp(bytes_ + 16, "0123456789abcdef", 16), 0);
  EXPECT_EQ(read<uint32_t>(64), 0x77u);
}

TEST_F(Layout, EachFieldOfBothDirectionsHasItsPlace) {
  const size_t base[2] = {128, 512};
  for (uint32_t i = 0; i < 2; ++i) {
    SCOPED_TRACE(i);
    Direction& d = header_.direction[i];
    const uint32_t mark = (i + 1) << 16;
    d.tail = mark + 1, d.class_next = mark + 3, d.writing = mark + 4, d.writer_cpu = mark + 5;
    d.class_from[0] = mark + 2, d.class_from[1] = mark + 19, d.class_from[2] = mark + 20;
    d.stage = static_cast<Stage>(mark + 6), d.bells_rung = mark + 7, d.kernel_total = mark + 8, d.demote_at = mark + 9;
    d.space_arm = mark + 10, d.gone_writer = mark + 11, d.bells_final = mark + 12, d.head = mark + 13;
    d.data_arm = mark + 14, d.ask = static_cast<Ask>(mark + 15), d.gone_reader = mark + 16, d.passed = mark + 17;
    d.old_readers = mark + 18;
    d.received = mark + 21, d.wants_times = mark + 22, d.publications = mark + 23, d.kernel_at = mark + 24;
    d.published[0].at = mark + 25, d.published[3].end = mark + 26;
  }
  const struct {
    size_t offset;
    bool wide;
  } places[] = {{0, true},   {8, true},    {32, false},  {256, false}, {36, false},  {64, false},
                {68, false}, {72, true},   {80, true},   {88, false},  {92, false},  {96, false},
                {128, true}, {192, false}, {196, false}, {200, false}, {204, false}, {208, false},
                {16, true},  {24, true},   {216, true},  {224, false}, {260, false}, {264, true},
                {320, true}, {376, true}};
  for (uint32_t i = 0; i < 2; ++i)
    for (uint32_t field = 0; field < std::size(places); ++field) {
      const size_t at = base[i] + places[field].offset;
      const uint64_t seen = places[field].wide ? read<uint64_t>(at) : read<uint32_t>(at);
      EXPECT_EQ(seen, ((i + 1) << 16) + field + 1) << "direction " << i << " offset " << places[field].offset;
    }
}

// A line that is written on every operation shares no cache line with one that the other end writes.
TEST_F(Layout, LinesOfDifferentWritersAreCacheLinesApart) {
  Direction& d = header_.direction[0];
  const auto line = [&](const void* field) { return (static_cast<const uint8_t*>(field) - bytes_) / 64; };
  EXPECT_EQ(line(&d.tail), line(&d.writer_cpu));
  EXPECT_NE(line(&d.tail), line(&d.stage));
  EXPECT_NE(line(&d.stage), line(&d.head));
  EXPECT_NE(line(&d.head), line(&d.data_arm));
  EXPECT_NE(line(&d.tail), line(&d.writing));
  EXPECT_NE(line(&d.old_readers), line(&d.writing));
  EXPECT_NE(line(&d.writing), line(&d.published));
  EXPECT_NE(line(&d.published), line(&header_.direction[1].tail));
}

TEST(Geometry, TheFirstAreasLieBesideTheHeaderAndTheOthersBehindIt) {
  EXPECT_GE(kFirstAreaAt, sizeof(ChannelHeader));
  EXPECT_LE(kFirstAreaAt + 2 * (size_t{1} << kClassBits[0]), kHeaderBytes);
  EXPECT_EQ(kHeaderBytes, 4096u);
  EXPECT_EQ(larger_areas_before(1), 0u);
  EXPECT_EQ(larger_areas_before(2), size_t{16} << 10);
  EXPECT_EQ(larger_areas_before(3), size_t{272} << 10);
  EXPECT_EQ(kLargerBytes, size_t{1296} << 10);
  EXPECT_EQ(kChannelBytes, 4096 + (size_t{2592} << 10));
}

}  // namespace
}  // namespace shunt::testing
