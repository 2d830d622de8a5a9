// Whom a data word stands for: one registration of ours, or nobody that can be named.
#include "readiness/epoll_words.h"

#include <gtest/gtest.h>

#include <cstdint>

namespace shunt {
namespace {

class WordsTest : public testing::Test {
 protected:
  ~WordsTest() override { words.clear(); }
  static Registration* registration(int i) { return reinterpret_cast<Registration*>(static_cast<uintptr_t>(0x1000 * (i + 1))); }
  Words words{};
};

TEST_F(WordsTest, NameTheOnlyRegistration) {
  EXPECT_EQ(words.only(7), nullptr);
  words.note(3, 7, registration(0));
  words.note(4, 0, registration(1));
  EXPECT_EQ(words.only(7), registration(0));
  EXPECT_EQ(words.only(0), registration(1));
  words.forget(3, registration(0));
  EXPECT_EQ(words.only(7), nullptr);
}

TEST_F(WordsTest, NameNobodyOfSeveral) {
  words.note(3, 7, registration(0));
  words.note(4, 7, nullptr);
  EXPECT_EQ(words.only(7), nullptr);
  words.forget(4, nullptr);
  EXPECT_EQ(words.only(7), nullptr);     // nobody remembers who is left
  words.note(3, 7, registration(0));     // until it is modified
  EXPECT_EQ(words.only(7), registration(0));
}

TEST_F(WordsTest, FollowAChange) {
  words.note(3, 7, registration(0));
  words.note(3, 8, registration(0));
  EXPECT_EQ(words.only(7), nullptr);
  EXPECT_EQ(words.only(8), registration(0));
}

TEST_F(WordsTest, ANewRegistrationUnderAnOldNumberOutlivesTheOldOnesEnd) {
  words.note(3, 7, registration(0));
  words.note(3, 8, registration(1));
  words.forget(3, registration(0));
  EXPECT_EQ(words.only(8), registration(1));
}

TEST_F(WordsTest, StaySmallWhileWordsChange) {
  for (uint64_t i = 0; i < 1'000'000; ++i) words.note(static_cast<int>(i % 50), i, registration(static_cast<int>(i % 50)));
  for (uint64_t i = 999'950; i < 1'000'000; ++i) EXPECT_EQ(words.only(i), registration(static_cast<int>(i % 50)));
  EXPECT_EQ(words.only(999'949), nullptr);
}

TEST_F(WordsTest, HoldManyDescriptors) {
  for (int fd = 0; fd < 20'000; ++fd) words.note(fd, static_cast<uint64_t>(fd) << 32, fd % 2 ? registration(fd) : nullptr);
  for (int fd = 0; fd < 20'000; ++fd) EXPECT_EQ(words.only(static_cast<uint64_t>(fd) << 32), fd % 2 ? registration(fd) : nullptr);
}

}  // namespace
}  // namespace shunt
