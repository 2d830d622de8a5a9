// Which handlers end a wait.
#include "wait/signals.h"

#include <gtest/gtest.h>

#include <thread>

namespace shunt::testing {
namespace {

void handler_ran(bool restarts) {
  signal_count.all = signal_count.all + 1;
  if (!restarts) signal_count.interrupting = signal_count.interrupting + 1;
}

TEST(SignalWatch, SeesOnlyWhatRanSinceItsBeginning) {
  handler_ran(false);
  const SignalWatch any(Interruption::by_any_handler), hard(Interruption::by_handlers_without_restart);
  EXPECT_FALSE(any.interrupted());
  EXPECT_FALSE(hard.interrupted());
  handler_ran(false);
  EXPECT_TRUE(any.interrupted());
  EXPECT_TRUE(hard.interrupted());
  EXPECT_TRUE(hard.interrupted()) << "asking changes nothing";
}

TEST(SignalWatch, RestartingHandlersEndOnlyWaitsThatAnyEnds) {
  const SignalWatch any(Interruption::by_any_handler), hard(Interruption::by_handlers_without_restart);
  handler_ran(true);
  EXPECT_TRUE(any.interrupted());
  EXPECT_FALSE(hard.interrupted());
}

TEST(SignalWatch, CountsPerThread) {
  const SignalWatch watch(Interruption::by_any_handler);
  std::thread([] { handler_ran(false); }).join();
  EXPECT_FALSE(watch.interrupted());
}

TEST(SignalWatch, SurvivesTheCountersWrap) {
  signal_count.all = ~uint32_t{0};
  const SignalWatch watch(Interruption::by_any_handler);
  handler_ran(true);
  EXPECT_EQ(signal_count.all, 0u);
  EXPECT_TRUE(watch.interrupted());
}

}  // namespace
}  // namespace shunt::testing
