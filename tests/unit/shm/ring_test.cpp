// Copying across the wrap of every class, and the walk over odd vectors.
#include "shm/ring.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace shunt::testing {
namespace {

using Bytes = std::vector<uint8_t>;

Bytes noise(size_t bytes, uint32_t seed) {
  std::mt19937 random(seed);
  Bytes made(bytes);
  for (uint8_t& byte : made) byte = static_cast<uint8_t>(random());
  return made;
}

// One whole region, with a guard before and behind that nobody may touch.
class Ring : public ::testing::TestWithParam<uint32_t> {
 protected:
  static constexpr size_t kGuard = 4096;
  Ring() : memory_(kRegionBytes + 2 * kGuard, 0xee), region_(memory_.data() + kGuard) {}

  void put(uint64_t position, const Bytes& data) {
    iovec part{const_cast<uint8_t*>(data.data()), data.size()};
    Cursor from(&part, 1);
    ring_put(region_, GetParam(), position, from, data.size());
  }
  Bytes get(uint64_t position, size_t bytes) {
    Bytes data(bytes);
    iovec part{data.data(), bytes};
    Cursor to(&part, 1);
    ring_get(region_, GetParam(), position, to, bytes);
    return data;
  }
  // Bytes of memory_ that are no longer as they were, outside [begin, begin + bytes) of the region.
  size_t touched_outside(uint64_t begin, uint64_t bytes) const {
    size_t touched = 0;
    for (size_t i = 0; i < memory_.size(); ++i)
      if (memory_[i] != 0xee && (i < kGuard + begin || i >= kGuard + begin + bytes)) ++touched;
    return touched;
  }

  Bytes memory_;
  uint8_t* region_;
};

INSTANTIATE_TEST_SUITE_P(Classes, Ring, ::testing::Range(kFirstClass, kLastClass + 1));

TEST_P(Ring, WhatWasPutAtAPositionIsGotThere) {
  const uint64_t size = class_bytes(GetParam());
  uint32_t seed = 0;
  for (const uint64_t lap : {uint64_t{0}, uint64_t{1}, uint64_t{12345}, uint64_t{1} << 40})
    for (const uint64_t before_end : {uint64_t{0}, uint64_t{1}, uint64_t{63}, uint64_t{4097}})
      for (const uint64_t bytes : {uint64_t{1}, uint64_t{2}, uint64_t{64}, uint64_t{4097}, size - 1, size}) {
        const uint64_t position = (lap + 1) * size - before_end;
        const Bytes data = noise(bytes, ++seed);
        put(position, data);
        ASSERT_EQ(get(position, bytes), data) << "position " << position << " bytes " << bytes;
      }
}

TEST_P(Ring, APutStaysInsideTheAreaOfItsClass) {
  const uint64_t size = class_bytes(GetParam());
  put(5 * size - 7, Bytes(size, 0x55));
  EXPECT_EQ(touched_outside(size, size), 0u);
}

TEST_P(Ring, TheByteAfterTheLastIsTheFirst) {
  const uint64_t size = class_bytes(GetParam());
  put(size - 1, {1, 2});
  EXPECT_EQ(region_[size + size - 1], 1);
  EXPECT_EQ(region_[size], 2);
  EXPECT_EQ(contiguous(GetParam(), size - 1), 1u);
  EXPECT_EQ(contiguous(GetParam(), size), size);
}

TEST_P(Ring, PositionsWrapAt64BitsWithoutALossToo) {
  const Bytes data = noise(100, 7);
  put(~uint64_t{0} - 49, data);
  EXPECT_EQ(get(~uint64_t{0} - 49, 100), data);
}

TEST(RingClasses, EachAreaKeepsWhatTheOthersWrite) {
  Bytes memory(kRegionBytes);
  for (uint32_t c = kFirstClass; c <= kLastClass; ++c) {
    Bytes data(class_bytes(c), static_cast<uint8_t>(c));
    iovec part{data.data(), data.size()};
    Cursor from(&part, 1);
    ring_put(memory.data(), c, 3, from, data.size());
  }
  for (uint32_t c = kFirstClass; c <= kLastClass; ++c)
    for (const uint64_t position : {uint64_t{0}, class_bytes(c) / 2, class_bytes(c) - 1})
      EXPECT_EQ(*ring_at(memory.data(), c, position), c);
}

// ---- the walk

struct Vector {
  Bytes memory;
  std::vector<iovec> parts;
  explicit Vector(const std::vector<size_t>& lengths) {
    size_t total = 0;
    for (const size_t n : lengths) total += n;
    memory.resize(total + 1);
    size_t at = 0;
    for (const size_t n : lengths) {
      parts.push_back({n ? memory.data() + at : nullptr, n});  // an empty part may point nowhere
      at += n;
    }
  }
  Cursor cursor() const { return {parts.data(), parts.size()}; }
  size_t total() const { return memory.size() - 1; }
};

const std::vector<std::vector<size_t>> kOddVectors = {{1},
                                                      {10},
                                                      {0, 10},
                                                      {10, 0},
                                                      {0, 0, 3, 0, 0, 4, 0},
                                                      {1, 1, 1, 1, 1},
                                                      {0, 1, 0, 1, 0},
                                                      {100, 0, 1, 64, 0, 0, 200, 5}};

TEST(Cursor, TakesEveryByteInOrderWhateverTheSteps) {
  for (const auto& lengths : kOddVectors)
    for (const size_t step : {size_t{1}, size_t{2}, size_t{3}, size_t{7}, size_t{1000}}) {
      Vector vector(lengths);
      for (size_t i = 0; i < vector.total(); ++i) vector.memory[i] = static_cast<uint8_t>(i * 7);
      Cursor walk = vector.cursor();
      Bytes taken(vector.total() + 1, 0xee);
      for (size_t done = 0; done < vector.total();) {
        const size_t n = std::min(step, vector.total() - done);
        ASSERT_EQ(walk.remaining(), vector.total() - done);
        walk.take(taken.data() + done, n);
        done += n;
      }
      EXPECT_EQ(walk.remaining(), 0u);
      for (size_t i = 0; i < vector.total(); ++i) ASSERT_EQ(taken[i], static_cast<uint8_t>(i * 7));
      EXPECT_EQ(taken.back(), 0xee);
    }
}

TEST(Cursor, FillsEveryByteInOrderAndNotOneMore) {
  for (const auto& lengths : kOddVectors) {
    Vector vector(lengths);
    vector.memory.back() = 0xee;
    const Bytes data = noise(vector.total(), 3);
    Cursor walk = vector.cursor();
    const size_t half = vector.total() / 2;
    walk.fill(data.data(), half);
    walk.fill(data.data() + half, vector.total() - half);
    EXPECT_TRUE(std::equal(data.begin(), data.end(), vector.memory.begin()));
    EXPECT_EQ(vector.memory.back(), 0xee);
  }
}

TEST(Cursor, SkipIsATakeWithoutTheBytes) {
  for (const auto& lengths : kOddVectors) {
    Vector vector(lengths);
    for (size_t i = 0; i < vector.total(); ++i) vector.memory[i] = static_cast<uint8_t>(i);
    for (size_t skipped = 0; skipped < vector.total(); ++skipped) {
      Cursor walk = vector.cursor();
      walk.skip(skipped);
      ASSERT_EQ(walk.remaining(), vector.total() - skipped);
      uint8_t byte;
      walk.take(&byte, 1);
      ASSERT_EQ(byte, static_cast<uint8_t>(skipped));
    }
  }
}

TEST(Cursor, NothingTakenMovesNothing) {
  Vector vector({0, 3});
  Cursor walk = vector.cursor();
  walk.take(nullptr, 0);
  walk.fill(nullptr, 0);
  walk.skip(0);
  EXPECT_TRUE(walk.untouched());
  EXPECT_EQ(walk.count(), 2u);
  EXPECT_EQ(walk.remaining(), 3u);
}

TEST(Cursor, RestIsTheUntakenPartWithoutEmptyParts) {
  Vector vector({0, 5, 0, 0, 4, 3, 0});
  Cursor walk = vector.cursor();
  walk.skip(2);
  iovec out[8];
  ASSERT_EQ(walk.rest(out, 8, 100), 3u);
  EXPECT_EQ(out[0].iov_base, vector.memory.data() + 2);
  EXPECT_EQ(out[0].iov_len, 3u);
  EXPECT_EQ(out[1].iov_base, vector.memory.data() + 5);
  EXPECT_EQ(out[1].iov_len, 4u);
  EXPECT_EQ(out[2].iov_base, vector.memory.data() + 9);
  EXPECT_EQ(out[2].iov_len, 3u);
}

TEST(Cursor, RestObeysItsRoomAndItsLimit) {
  Vector vector({5, 4, 3});
  const Cursor walk = vector.cursor();
  iovec out[3];
  EXPECT_EQ(walk.rest(out, 2, 100), 2u);
  ASSERT_EQ(walk.rest(out, 3, 7), 2u);
  EXPECT_EQ(out[1].iov_len, 2u);
  EXPECT_EQ(walk.rest(out, 3, 0), 0u);
  EXPECT_EQ(walk.rest(out, 0, 5), 0u);
}

TEST(Cursor, RestAtTheEndOfAPartBeginsWithTheNext) {
  Vector vector({5, 0, 4});
  Cursor walk = vector.cursor();
  walk.skip(5);
  iovec out[3];
  ASSERT_EQ(walk.rest(out, 3, 100), 1u);
  EXPECT_EQ(out[0].iov_base, vector.memory.data() + 5);
  walk.skip(4);
  EXPECT_EQ(walk.rest(out, 3, 100), 0u);
}

}  // namespace
}  // namespace shunt::testing
