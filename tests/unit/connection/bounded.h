// Runs a body in a forked child under an alarm, so that a crash or a hang of the code under test is one failed test and
// not the end of all.
#pragma once

#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <string>

#include "descriptors/table.h"

namespace shunt::testing {

// fork() as the library's own fork handlers would see it.
inline pid_t fork_family() {
  before_fork();
  const pid_t child = fork();
  if (child == 0)
    after_fork_in_child(forget_thread_id());
  else
    after_fork_in_parent(Born::yes);
  return child;
}

class Bounded {
 public:
  // `seconds` is a net, not an expectation. The body fails by gtest's macros, whose output appears as usual.
  template <typename Body>
  Bounded(unsigned seconds, Body body) {
    fflush(stdout);
    child_ = fork_family();
    if (child_ != 0) return;
    const rlimit no_core{0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(seconds);
    body();
    fflush(stdout);
    _exit(::testing::Test::HasFailure() ? 1 : 0);
  }
  ~Bounded() {
    int status = 0;
    EXPECT_EQ(waitpid(child_, &status, 0), child_);
    if (WIFSIGNALED(status)) {
      const int number = WTERMSIG(status);
      ADD_FAILURE() << (number == SIGALRM ? "hangs" : std::string("dies of signal ") + strsignal(number));
    } else {
      EXPECT_EQ(WEXITSTATUS(status), 0) << "failed in the child, see above";
    }
  }
  Bounded(const Bounded&) = delete;
  Bounded& operator=(const Bounded&) = delete;

 private:
  pid_t child_;
};

template <typename Body>
void bounded(unsigned seconds, Body body) {
  const Bounded child(seconds, body);
}

}  // namespace shunt::testing
