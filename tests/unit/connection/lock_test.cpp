// The lock of a family of processes: exclusion, handlers on the owner's own thread, and owners that died.
#include "connection/lock.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <new>
#include <thread>
#include <vector>

namespace shunt::testing {
namespace {

struct Shared {
  FamilyLock lock;
  std::atomic<uint32_t> signalled{0};
  uint64_t counter = 0;  // under lock
};

class Lock : public ::testing::Test {
 protected:
  Lock()
      : shared_(*new (mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))
                    Shared) {}
  ~Lock() override { munmap(&shared_, sizeof(Shared)); }

  // A child that takes the lock, says so, and does not let go.
  pid_t child_that_holds() {
    const pid_t child = fork();
    if (child == 0) {
      forget_thread_id();
      shared_.lock.lock();
      shared_.signalled = 1;
      for (;;) pause();
    }
    while (shared_.signalled == 0) usleep(100);
    return child;
  }
  bool free_for_others() {
    bool taken = false;
    std::thread([&] {
      taken = shared_.lock.try_lock();
      if (taken) shared_.lock.unlock();
    }).join();
    return taken;
  }

  Shared& shared_;
};

TEST_F(Lock, ThreadsExcludeEachOther) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int n = 0; n < 50000; ++n) {
        const Locked lock(shared_.lock);
        ASSERT_FALSE(lock.nested());
        ++shared_.counter;
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(shared_.counter, 200000u);
}

TEST_F(Lock, ThreadsThatOnlyTryExcludeEachOtherToo) {
  std::vector<std::thread> threads;
  std::atomic<uint64_t> successes{0};
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int n = 0; n < 20000; ++n)
        if (shared_.lock.try_lock()) {
          ++shared_.counter;
          ++successes;
          shared_.lock.unlock();
        }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(shared_.counter, successes.load());
  EXPECT_GT(successes.load(), 0u);
}

TEST_F(Lock, ProcessesExcludeEachOther) {
  for (int i = 0; i < 3; ++i)
    if (fork() == 0) {
      forget_thread_id();
      for (int n = 0; n < 30000; ++n) {
        const Locked lock(shared_.lock);
        ++shared_.counter;
      }
      _exit(0);
    }
  while (wait(nullptr) > 0) {
  }
  EXPECT_EQ(shared_.counter, 90000u);
  EXPECT_TRUE(free_for_others());
}

TEST_F(Lock, SleepersAreWokenByTheUnlock) {
  std::atomic<int> through{0};
  shared_.lock.lock();
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i)
    threads.emplace_back([&] {
      const Locked lock(shared_.lock);
      ++through;
    });
  usleep(30000);  // long enough for them to fall asleep
  EXPECT_EQ(through, 0);
  shared_.lock.unlock();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(through, 3);
}

TEST_F(Lock, IsReleasedOnceAndEarlyIfAsked) {
  {
    Locked lock(shared_.lock);
    EXPECT_FALSE(free_for_others());
    lock.release();
    EXPECT_TRUE(free_for_others());
    ASSERT_TRUE(shared_.lock.try_lock());
  }
  EXPECT_FALSE(free_for_others()) << "the destructor must not give away what was locked since";
  shared_.lock.unlock();
}

// ---- signal handlers

FamilyLock* handlers_lock = nullptr;
bool handler_was_nested, handler_could_try;

TEST_F(Lock, AHandlerOfTheOwnersThreadWorksInsideAndDoesNotUnlock) {
  handlers_lock = &shared_.lock;
  struct sigaction action {};
  action.sa_handler = [](int) {
    handler_could_try = handlers_lock->try_lock();
    const Locked lock(*handlers_lock);
    handler_was_nested = lock.nested();
  };
  struct sigaction before {};
  sigaction(SIGUSR1, &action, &before);
  {
    const Locked lock(shared_.lock);
    raise(SIGUSR1);
    EXPECT_TRUE(handler_was_nested);
    EXPECT_FALSE(handler_could_try);
    EXPECT_FALSE(free_for_others());
  }
  EXPECT_TRUE(free_for_others());
  raise(SIGUSR1);
  EXPECT_TRUE(handler_could_try);
  sigaction(SIGUSR1, &before, nullptr);
}

TEST_F(Lock, AHandlerOfAnotherThreadWaits) {
  handlers_lock = &shared_.lock;
  static std::atomic<bool> entered{false};
  static std::atomic<int> nested{-1};
  entered = false, nested = -1;
  struct sigaction action {};
  action.sa_handler = [](int) {
    entered = true;
    const Locked lock(*handlers_lock);
    nested = lock.nested();
  };
  struct sigaction before {};
  sigaction(SIGUSR1, &action, &before);
  shared_.lock.lock();
  std::thread other([] { raise(SIGUSR1); });
  while (!entered) usleep(100);
  usleep(5000);
  EXPECT_EQ(nested, -1);
  shared_.lock.unlock();
  other.join();
  EXPECT_EQ(nested, 0);
  sigaction(SIGUSR1, &before, nullptr);
}

// ---- owners that died

TEST_F(Lock, OfAProcessThatDiedIsTakenOver) {
  const pid_t child = child_that_holds();
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  {
    const Locked lock(shared_.lock);
    EXPECT_FALSE(lock.nested());
    EXPECT_FALSE(free_for_others());
  }
  EXPECT_TRUE(free_for_others());
}

// A parent that writes before it waits must not wait for its own wait.
TEST_F(Lock, OfAProcessThatDiedButWasNotWaitedForIsTakenOver) {
  const pid_t child = child_that_holds();
  kill(child, SIGKILL);
  siginfo_t info;
  waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT);
  std::atomic<bool> taken{false};
  std::thread locker([&] {
    const Locked lock(shared_.lock);
    taken = true;
  });
  for (int i = 0; i < 100 && !taken; ++i) usleep(10000);
  EXPECT_TRUE(taken) << "still not after a second";
  waitpid(child, nullptr, 0);
  locker.join();
}

TEST_F(Lock, OfAThreadThatDiedIsTakenOver) {
  std::thread([&] { shared_.lock.lock(); }).join();
  const Locked lock(shared_.lock);
  EXPECT_FALSE(lock.nested());
}

TEST_F(Lock, OfADeadOwnerIsTakenByOneOfMany) {
  const pid_t child = child_that_holds();
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int n = 0; n < 1000; ++n) {
        const Locked lock(shared_.lock);
        ++shared_.counter;
      }
    });
  usleep(5000);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(shared_.counter, 4000u);
}

TEST_F(Lock, IsNotTakenFromAProcessThatSleeps) {
  const pid_t child = child_that_holds();
  kill(child, SIGSTOP);
  std::atomic<bool> taken{false};
  std::thread locker([&] {
    const Locked lock(shared_.lock);
    taken = true;
  });
  usleep(100000);
  EXPECT_FALSE(taken);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  locker.join();
}

TEST(ThreadId, IsTheKernelsAndAForkedChildsOwn) {
  EXPECT_EQ(thread_id(), static_cast<uint32_t>(gettid()));
  std::thread([] { EXPECT_EQ(thread_id(), static_cast<uint32_t>(gettid())); }).join();
  const pid_t child = fork();
  if (child == 0) {
    forget_thread_id();
    _exit(thread_id() == static_cast<uint32_t>(gettid()) ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace shunt::testing
