// How often a wait looks before it gives up. Judged by counts of looks, never by a clock: this machine is busy with
// other things.
#include "wait/patience.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include "observe/counters.h"

namespace shunt::testing {
namespace {

class Spin : public ::testing::Test {
 protected:
  Spin() {
    reset_totals();
    patience_.start(-1);
  }
  ~Spin() override { reset_totals(); }

  // One wait. `ready_at`: the look that succeeds, 0: none.
  bool wait(uint64_t ready_at, uint32_t peer_cpu = kAnyCpu) {
    looks_ = 0;
    const SignalWatch watch(Interruption::by_any_handler);
    return patience_.spin(history_, watch, peer_cpu, [&] { return ++looks_ == ready_at; });
  }

  Patience patience_;
  History history_;
  uint64_t looks_ = 0;
};

TEST_F(Spin, SucceedsAtTheFirstLookWithoutASecond) {
  EXPECT_TRUE(wait(1));
  EXPECT_EQ(looks_, 1u);
  EXPECT_EQ(totals.spin_hits, 1u);
  EXPECT_EQ(totals.spin_misses, 0u);
}

TEST_F(Spin, LooksAgainUntilReady) {
  EXPECT_TRUE(wait(10));
  EXPECT_EQ(looks_, 10u);
}

TEST_F(Spin, EndsWhenNothingComes) {
  EXPECT_FALSE(wait(0));
  EXPECT_GT(looks_, 0u);
  EXPECT_EQ(totals.spin_hits, 0u);
  EXPECT_EQ(totals.spin_misses, 1u);
}

TEST_F(Spin, OfNoLengthNeverLooks) {
  patience_.start(0);
  for (int i = 0; i < 100; ++i) {
    EXPECT_FALSE(wait(1));
    EXPECT_EQ(looks_, 0u);
  }
  EXPECT_EQ(totals.spin_misses, 0u);
}

TEST_F(Spin, LongerLimitsLookMoreOften) {
  uint64_t most[2] = {};
  const int limits_us[2] = {5, 1000};
  // A spin that the scheduler interrupts is a short one: on a busy machine it takes some trials to see a long one.
  for (int trial = 0; trial < 500 && (trial < 5 || most[1] <= 4 * most[0]); ++trial)
    for (int i = 0; i < 2; ++i) {
      Patience fresh;  // what one trial learnt must not shorten the next
      fresh.start(limits_us[i]);
      History history;
      uint64_t looks = 0;
      const SignalWatch watch(Interruption::by_any_handler);
      fresh.spin(history, watch, kAnyCpu, [&] { return ++looks == 0; });
      most[i] = std::max(most[i], looks);
    }
  EXPECT_GT(most[1], 4 * most[0]);
}

// After a miss 1, 2, 4, ... up to 64 waits are skipped: in the long run not one wait in sixty spins.
TEST_F(Spin, BacksOffFromADirectionThatNeverAnswers) {
  int spun = 0;
  for (int i = 0; i < 2000; ++i) {
    wait(0);
    spun += looks_ > 0;
  }
  EXPECT_GE(spun, 1);
  EXPECT_LE(spun, 2 + 7 + 2000 / 64);
  EXPECT_EQ(totals.spin_misses, static_cast<uint64_t>(spun));
}

TEST_F(Spin, BacksOffForOneDirectionAlone) {
  for (int i = 0; i < 20; ++i) wait(0);
  for (int i = 0; i < 64; ++i) {
    History other;
    std::swap(history_, other);
    const bool hit = wait(1);
    if (hit) return;  // a theft by the scheduler silences all directions for a while: try on
    usleep(20000);
  }
  FAIL() << "a fresh direction was never tried";
}

TEST_F(Spin, TrustReturnsAfterASuccess) {
  for (int i = 0; i < 2000; ++i) wait(0);
  int waits = 0;
  while (!wait(1) && ++waits < 1000) usleep(1000);
  ASSERT_LT(waits, 1000) << "it must try again some time";
  EXPECT_EQ(history_.backoff, 1);
  EXPECT_TRUE(wait(1));
}

TEST_F(Spin, EndsEarlyWhenAHandlerRan) {
  patience_.start(1000);
  uint64_t looks = 0;
  const SignalWatch watch(Interruption::by_any_handler);
  EXPECT_FALSE(patience_.spin(history_, watch, kAnyCpu, [&] {
    if (++looks == 5) signal_count.all = signal_count.all + 1;
    return false;
  }));
  EXPECT_LE(looks, 16u) << "one burst of looks at most";
}

// A gap between two looks: somebody else had the CPU, so it is wanted.
TEST_F(Spin, StopsAtOnceWhenTheCpuWasTakenAway) {
  uint64_t looks = 0;
  const SignalWatch watch(Interruption::by_any_handler);
  EXPECT_FALSE(patience_.spin(history_, watch, kAnyCpu, [&] {
    if (++looks == 3) usleep(2000);
    return false;
  }));
  EXPECT_LE(looks, 17u);
  EXPECT_FALSE(wait(1)) << "and keeps quiet for a while";
  EXPECT_EQ(looks_, 0u);
}

TEST_F(Spin, WhatAppearedWhileTheCpuWasAwayIsSeen) {
  uint64_t looks = 0;
  const SignalWatch watch(Interruption::by_any_handler);
  EXPECT_TRUE(patience_.spin(history_, watch, kAnyCpu, [&] {
    if (++looks == 3) usleep(2000);
    return looks > 16;
  }));
}

class PinnedSpin : public Spin {
 protected:
  PinnedSpin() {
    sched_getaffinity(0, sizeof before_, &before_);
    cpu_ = static_cast<uint32_t>(sched_getcpu());
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu_, &one);
    EXPECT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    patience_.start(1000);
  }
  ~PinnedSpin() override { sched_setaffinity(0, sizeof before_, &before_); }
  cpu_set_t before_;
  uint32_t cpu_;
};

TEST_F(PinnedSpin, YieldsToAPeerOnTheSameCpu) {
  EXPECT_TRUE(wait(1, cpu_));
  EXPECT_EQ(looks_, 1u);
  EXPECT_EQ(totals.spin_hits, 1u);
}

TEST_F(PinnedSpin, StopsYieldingWhenTheCpuComesBackLate) {
  uint64_t looks = 0;
  const SignalWatch watch(Interruption::by_any_handler);
  EXPECT_FALSE(patience_.spin(history_, watch, cpu_, [&] {
    if (++looks == 1) usleep(5000);
    return false;
  }));
  EXPECT_LE(looks, 2u);
  EXPECT_FALSE(wait(1, cpu_));
  EXPECT_EQ(looks_, 0u);
}

TEST_F(PinnedSpin, SpinsAgainstAPeerOnAnotherCpu) {
  EXPECT_TRUE(wait(15, cpu_ + 1));
  EXPECT_EQ(looks_, 15u);
}

TEST(CycleCounter, RunsForwardAndHasASpeed) {
  Patience measured;
  measured.start(30);
  EXPECT_GT(measured.cycles_per_us(), 100u);
  EXPECT_LT(measured.cycles_per_us(), 20000u);
  uint64_t last = cycles();
  for (int i = 0; i < 1000; ++i) {
    const uint64_t now = cycles();
    ASSERT_GE(now, last);
    last = now;
  }
}

}  // namespace
}  // namespace shunt::testing
