// What is undone when a call is left, in which order, and how far.
#include "wait/duties.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include <vector>

namespace shunt::testing {
namespace {

std::vector<int> undone, went_on;

class Noted : Duty {
 public:
  explicit Noted(int number) : number_(number) { begin(kFate); }
  ~Noted() { done(); }

 private:
  static void undo(Duty& duty) { undone.push_back(static_cast<Noted&>(duty).number_); }
  static void go_on(Duty& duty, Whose whose) { went_on.push_back(static_cast<Noted&>(duty).number_ * (whose == Whose::childs ? -1 : 1)); }
  static constexpr Fate kFate{undo, nullptr, go_on};
  int number_;
};

TEST(Duties, TheInnermostIsUndoneFirst) {
  undone.clear();
  Duty* const before = duties.innermost;
  alignas(Noted) unsigned char frames[2][sizeof(Noted)];  // of a call that is never returned to
  new (frames[0]) Noted(1);
  new (frames[1]) Noted(2);
  undo_duties_down_to(before);
  EXPECT_EQ(undone, (std::vector<int>{2, 1}));
  EXPECT_EQ(duties.innermost, before);
}

TEST(Duties, WhatEndsByItselfIsNotUndone) {
  undone.clear();
  Duty* const before = duties.innermost;
  { Noted one(1); }
  undo_duties_down_to(before);
  EXPECT_TRUE(undone.empty());
}

TEST(Duties, AHandlerThatJumpsEndsWhatItInterrupted) {
  undone.clear();
  alignas(Noted) unsigned char frames[2][sizeof(Noted)];
  new (frames[0]) Noted(1);
  {
    HandlerScope handler;
    EXPECT_TRUE(handler.interrupts_a_call());
    new (frames[1]) Noted(2);  // a call of the handler's own
    handler.left();
  }
  EXPECT_EQ(undone, (std::vector<int>{2, 1}));
}

TEST(Duties, AHandlersChildGoesOnWithItsParentsCallsFromTheOutermostInwards) {
  went_on.clear();
  Noted one(1);
  Noted two(2);
  {
    HandlerScope handler;
    note_fork();
    EXPECT_TRUE(duties.forked);
    handler.returns();  // as in the parent
    note_fork();
    note_inherited_duties();
    handler.returns();  // as in the child
  }
  EXPECT_EQ(went_on, (std::vector<int>{1, 2, -1, -2}));
  EXPECT_FALSE(duties.forked);
  EXPECT_EQ(duties.inherited, nullptr);
}

TEST(Duties, AHandlersChildThatJumpsUndoesItsOwnAlone) {
  undone.clear();
  alignas(Noted) unsigned char frames[2][sizeof(Noted)];
  new (frames[0]) Noted(1);
  {
    HandlerScope handler;
    note_inherited_duties();
    new (frames[1]) Noted(2);
    handler.left();
  }
  EXPECT_EQ(undone, (std::vector<int>{2}));
  EXPECT_EQ(duties.inherited, nullptr);
}

// The second handler jumps back into the first: what that one has interrupted goes on.
TEST(Duties, AHandlerInAHandlerLeavesTheFirstOnesAlone) {
  undone.clear();
  Noted interrupted(1);
  HandlerScope first;
  alignas(Noted) unsigned char frame[sizeof(Noted)];
  new (frame) Noted(2);
  {
    HandlerScope second;
    second.left();
  }
  EXPECT_EQ(undone, (std::vector<int>{2}));
}

TEST(Duties, CountsAndMarksTogether) {
  std::atomic<uint32_t> counter{5};
  uint32_t mark = 0;
  count_and_mark(counter, 1, mark, 1);
  EXPECT_EQ(counter.load(), 6u);
  EXPECT_EQ(mark, 1u);
  count_and_mark(counter, ~0u, mark, 0);
  EXPECT_EQ(counter.load(), 5u);
  EXPECT_EQ(mark, 0u);
}

TEST(Duties, ReceivesAndSaysWhat) {
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  ASSERT_EQ(write(pair[0], "abc", 3), 3);
  char got[4] = {};
  int64_t result = 0;
  EXPECT_EQ(receive_and_mark(pair[1], got, 2, MSG_DONTWAIT, result), 2);
  EXPECT_EQ(result, 2);
  EXPECT_STREQ(got, "ab");
  EXPECT_EQ(receive_and_mark(pair[1], got, 2, MSG_DONTWAIT, result), 1);
  EXPECT_EQ(receive_and_mark(pair[1], got, 2, MSG_DONTWAIT, result), -EAGAIN);
  EXPECT_EQ(result, -EAGAIN);
  close(pair[0]), close(pair[1]);
}

}  // namespace
}  // namespace shunt::testing
