// Signals that arrive inside a section: their handlers run behind it, as the kernel would have run them.
#include "wait/held_back.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <csetjmp>
#include <vector>

#include "shm/user_copy.h"

namespace shunt::testing {
namespace {

class Section : Duty {
 public:
  Section() { begin(kFate); }
  ~Section() {
    done();
    let_handlers_run();
  }

 private:
  static void nothing(Duty&) {}
  static bool always(const Duty&) { return true; }
  static constexpr Fate kFate{nothing, nullptr, nullptr, always};
};

struct Ran {
  int signal, value;
  bool in_section, blocked;  // the signal itself
  const void* stack;
};
std::vector<Ran> ran;
void (*also)(void* context) = nullptr;
Stack stack_of_handlers = Stack::threads;

bool is_blocked(int signal) {
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  return sigismember(&mask, signal);
}

void handler(int signal, siginfo_t* information, void* context) {
  int local = 0;
  ran.push_back({signal, information->si_value.sival_int, duties.innermost != nullptr, is_blocked(signal), &local});
  if (also) also(context);
}

void trampoline(int signal, siginfo_t* information, void* context) {
  if (end_copy(signal, *information, context)) return;
  if (hold_back({signal, uint64_t{1} << (signal - 1), stack_of_handlers, handler}, *information, context)) return;
  handler(signal, information, context);
  go_on_holding(context);
}

class HeldBack : public ::testing::Test {
 protected:
  HeldBack() {
    ran.clear();
    also = nullptr;
    stack_of_handlers = Stack::threads;
    pthread_sigmask(SIG_SETMASK, nullptr, &before_);
  }
  ~HeldBack() override {
    sigset_t after;
    pthread_sigmask(SIG_SETMASK, nullptr, &after);
    for (int signal = 1; signal < NSIG; ++signal) EXPECT_EQ(sigismember(&after, signal), sigismember(&before_, signal)) << signal;
    EXPECT_EQ(duties.innermost, nullptr);
    EXPECT_EQ(duties.held_back, 0);
  }
  static void handle(int signal, int flags = 0) {
    struct sigaction action = {};
    action.sa_sigaction = trampoline;
    action.sa_flags = SA_SIGINFO | flags;
    ASSERT_EQ(sigaction(signal, &action, nullptr), 0);
  }
  static void queue(int signal, int value) { ASSERT_EQ(sigqueue(getpid(), signal, {.sival_int = value}), 0); }

  sigset_t before_;
};

TEST_F(HeldBack, AHandlerRunsAtOnceOutsideOfSections) {
  handle(SIGUSR1);
  queue(SIGUSR1, 7);
  ASSERT_EQ(ran.size(), 1u);
  EXPECT_EQ(ran[0].value, 7);
}

TEST_F(HeldBack, AHandlerRunsBehindTheOutermostSection) {
  handle(SIGUSR1);
  {
    Section outer;
    {
      Section inner;
      queue(SIGUSR1, 7);
      EXPECT_TRUE(is_blocked(SIGUSR2)) << "one at a time";
    }
    EXPECT_EQ(ran.size(), 0u);
  }
  ASSERT_EQ(ran.size(), 1u);
  EXPECT_EQ(ran[0].value, 7);
  EXPECT_TRUE(ran[0].blocked);
  EXPECT_FALSE(ran[0].in_section);
}

TEST_F(HeldBack, QueuedSignalsKeepTheirOrder) {
  handle(SIGRTMIN);
  {
    Section section;
    for (int i = 0; i < 5; ++i) queue(SIGRTMIN, i);
  }
  ASSERT_EQ(ran.size(), 5u);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(ran[static_cast<size_t>(i)].value, i);
}

// The kernel makes a frame for each before the first handler has run an instruction.
void arrive_together(int count) {
  sigset_t all, before;
  sigfillset(&all);
  Section section;
  pthread_sigmask(SIG_SETMASK, &all, &before);
  for (int i = 0; i < count; ++i) sigqueue(getpid(), SIGRTMIN + i, {.sival_int = i});
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  EXPECT_TRUE(is_blocked(SIGUSR1));
}

TEST_F(HeldBack, SeveralThatArriveTogetherAllRun) {
  for (int i = 0; i < 6; ++i) handle(SIGRTMIN + i);
  arrive_together(6);
  ASSERT_EQ(ran.size(), 6u);
  for (const Ran& one : ran) EXPECT_FALSE(one.in_section);
}

TEST_F(HeldBack, MoreThanThereIsRoomForRunToo) {
  for (int i = 0; i < 20; ++i) handle(SIGRTMIN + i);
  arrive_together(20);
  EXPECT_EQ(ran.size(), 20u);
}

TEST_F(HeldBack, AHandlerForTheAlternateStackRunsThere) {
  std::vector<char> memory(1 << 16);
  const stack_t stack{.ss_sp = memory.data(), .ss_flags = 0, .ss_size = memory.size()};
  ASSERT_EQ(sigaltstack(&stack, nullptr), 0);
  handle(SIGUSR1, SA_ONSTACK);
  stack_of_handlers = Stack::alternate;
  also = [](void* context) {
    stack_t now;
    ASSERT_EQ(sigaltstack(nullptr, &now), 0);
    EXPECT_TRUE(now.ss_flags & SS_ONSTACK);
    EXPECT_NE(static_cast<ucontext_t*>(context)->uc_mcontext.fpregs, nullptr);
  };
  {
    Section section;
    queue(SIGUSR1, 0);
  }
  ASSERT_EQ(ran.size(), 1u);
  EXPECT_GE(ran[0].stack, memory.data());
  EXPECT_LT(ran[0].stack, memory.data() + memory.size());
  const stack_t none{.ss_sp = nullptr, .ss_flags = SS_DISABLE, .ss_size = 0};
  sigaltstack(&none, nullptr);
}

TEST_F(HeldBack, WhatAHandlerMakesOfTheMaskStays) {
  handle(SIGUSR1);
  also = [](void* context) { sigaddset(&static_cast<ucontext_t*>(context)->uc_sigmask, SIGWINCH); };
  {
    Section section;
    queue(SIGUSR1, 0);
  }
  EXPECT_TRUE(is_blocked(SIGWINCH));
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

sigjmp_buf outside;
TEST_F(HeldBack, AHandlerMayLeaveByAJump) {
  handle(SIGUSR1);
  also = [](void*) { siglongjmp(outside, 1); };
  for (int i = 0; i < 3; ++i) {
    if (sigsetjmp(outside, 1) == 0) {
      Section section;
      queue(SIGUSR1, 0);
    }
  }
  EXPECT_EQ(ran.size(), 3u);
}

char* page = nullptr;
TEST_F(HeldBack, AFaultIsHandledWhereItIs) {
  page = static_cast<char*>(mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  handle(SIGSEGV);
  handle(SIGUSR1);
  also = [](void*) { mprotect(page, 4096, PROT_READ | PROT_WRITE); };
  {
    Section section;
    queue(SIGUSR1, 0);
    *const_cast<volatile char*>(page) = 'x';  // while others are held back, too
    EXPECT_EQ(ran.size(), 1u);
    EXPECT_TRUE(is_blocked(SIGUSR1));
  }
  ASSERT_EQ(ran.size(), 2u);
  EXPECT_EQ(ran[0].signal, SIGSEGV);
  EXPECT_TRUE(ran[0].in_section);
  munmap(page, 4096);
  signal(SIGSEGV, SIG_DFL);
}

TEST(UserCopy, CopiesEachLength) {
  uint8_t from[3100], to[3100];
  for (size_t i = 0; i < sizeof from; ++i) from[i] = static_cast<uint8_t>(i * 7 + 1);
  for (size_t bytes = 0; bytes < 3000; bytes += bytes < 300 ? 1 : 97) {
    memset(to, 0, sizeof to);
    ASSERT_TRUE(copy_user(to + 10, from + bytes % 13, bytes));
    ASSERT_EQ(memcmp(to + 10, from + bytes % 13, bytes), 0) << bytes;
    for (size_t i = 0; i < 10; ++i) ASSERT_EQ(to[i] + to[10 + bytes + i], 0) << bytes;
  }
}

TEST_F(HeldBack, AFaultInACopyEndsTheCopy) {
  page = static_cast<char*>(mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  uint8_t other[3000] = "other";
  auto* const bad = reinterpret_cast<uint8_t*>(page);
  handle(SIGSEGV);
  for (const size_t bytes : std::initializer_list<size_t>{1, 2, 3, 4, 7, 8, 15, 16, 17, 100, 256, 257, 1000, 3000}) {
    EXPECT_FALSE(copy_user(bad, other, bytes)) << bytes;
    EXPECT_FALSE(copy_user(other, bad, bytes)) << bytes;
  }
  EXPECT_EQ(large_copy, nullptr);
  EXPECT_EQ(ran.size(), 0u);
  EXPECT_STREQ(reinterpret_cast<char*>(other), "other");
  munmap(page, 4096);
  signal(SIGSEGV, SIG_DFL);
}

}  // namespace
}  // namespace shunt::testing
