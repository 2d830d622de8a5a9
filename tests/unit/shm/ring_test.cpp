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

// All areas of one ring, each with a guard before and behind that nobody may touch.
class Ring : public ::testing::TestWithParam<uint32_t> {
 protected:
  static constexpr size_t kGuard = 4096;
  Ring() {
    for (uint32_t k = 0; k < kClasses; ++k) {
      memory_[k].assign(class_bytes(k) + 2 * kGuard, 0xee);
      region_.area[k] = memory_[k].data() + kGuard;
    }
  }

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
  // Bytes that are no longer as they were, outside the area of the class.
  size_t touched_outside() const {
    size_t touched = 0;
    for (uint32_t k = 0; k < kClasses; ++k)
      for (size_t i = 0; i < memory_[k].size(); ++i)
        if (memory_[k][i] != 0xee && (k != GetParam() || i < kGuard || i >= kGuard + class_bytes(k))) ++touched;
    return touched;
  }

  Bytes memory_[kClasses];
  Region region_;
};

INSTANTIATE_TEST_SUITE_P(Classes, Ring, ::testing::Range(0u, kClasses));

TEST_P(Ring, WhatWasPutAtAPositionIsGotThere) {
  const uint64_t size = class_bytes(GetParam());
  uint32_t seed = 0;
  for (const uint64_t lap : {uint64_t{0}, uint64_t{1}, uint64_t{12345}, uint64_t{1} << 40})
    for (const uint64_t before_end : {uint64_t{0}, uint64_t{1}, uint64_t{63}, size / 2 + 1})
      for (const uint64_t bytes : {uint64_t{1}, uint64_t{2}, uint64_t{64}, size / 2 + 1, size - 1, size}) {
        const uint64_t position = (lap + 1) * size - before_end;
        const Bytes data = noise(bytes, ++seed);
        put(position, data);
        ASSERT_EQ(get(position, bytes), data) << "position " << position << " bytes " << bytes;
      }
}

TEST_P(Ring, APutStaysInsideTheAreaOfItsClass) {
  const uint64_t size = class_bytes(GetParam());
  put(5 * size - 7, Bytes(size, 0x55));
  EXPECT_EQ(touched_outside(), 0u);
}

TEST_P(Ring, TheByteAfterTheLastIsTheFirst) {
  const uint64_t size = class_bytes(GetParam());
  put(size - 1, {1, 2});
  EXPECT_EQ(region_.area[GetParam()][size - 1], 1);
  EXPECT_EQ(region_.area[GetParam()][0], 2);
  EXPECT_EQ(contiguous(GetParam(), size - 1), 1u);
  EXPECT_EQ(contiguous(GetParam(), size), size);
}

TEST_P(Ring, PositionsWrapAt64BitsWithoutALossToo) {
  const Bytes data = noise(100, 7);
  put(~uint64_t{0} - 49, data);
  EXPECT_EQ(get(~uint64_t{0} - 49, 100), data);
}

TEST(RingMap, StartsInTheSmallestClass) {
  const RingMap map;
  for (const uint64_t position : {uint64_t{0}, uint64_t{1}, kNever - 1, kNever}) EXPECT_EQ(class_at(map, position), 0u);
  EXPECT_EQ(class_end(map, 0, 77), 77u);
}

TEST(RingMap, EachPositionIsOfTheClassThatBeganLast) {
  RingMap map;
  begin_class(map, 1, 100);
  begin_class(map, 3, 500);  // the second is skipped
  const struct {
    uint64_t position;
    uint32_t ring_class;
    uint64_t end;
  } places[] = {{0, 0, 100}, {99, 0, 100}, {100, 1, 500}, {499, 1, 500}, {500, 3, 1000}, {999, 3, 1000}};
  for (const auto& place : places) {
    EXPECT_EQ(class_at(map, place.position), place.ring_class) << place.position;
    EXPECT_EQ(class_end(map, place.ring_class, 1000), place.end) << place.position;
  }
  EXPECT_EQ(class_end(map, 0, 50), 50u);
}

TEST(RingMap, AClassThatBeginsWhereTheLastBeganLeavesItEmpty) {
  RingMap map;
  begin_class(map, 1, 0);
  begin_class(map, 2, 0);
  EXPECT_EQ(class_at(map, 0), 2u);
  EXPECT_TRUE(fits(map, 0, class_bytes(2)));
  EXPECT_FALSE(fits(map, 0, class_bytes(2) + 1));
}

TEST(RingMap, NoAreaHoldsMoreThanItsSize) {
  RingMap map;
  EXPECT_TRUE(fits(map, 5, 5));
  EXPECT_TRUE(fits(map, 5, 5 + class_bytes(0)));
  EXPECT_FALSE(fits(map, 5, 5 + class_bytes(0) + 1));
  begin_class(map, 1, 1000);
  EXPECT_TRUE(fits(map, 0, 1000 + class_bytes(1)));
  EXPECT_FALSE(fits(map, 0, 1000 + class_bytes(1) + 1));
  begin_class(map, 3, 1000 + class_bytes(1) + 1);  // the area of class 1 would hold one byte too many
  EXPECT_FALSE(fits(map, 0, 1000 + class_bytes(1) + 2));
  EXPECT_TRUE(fits(map, 1001, 1000 + class_bytes(1) + 2));
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
