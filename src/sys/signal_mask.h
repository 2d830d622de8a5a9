// Keeps signal handlers out of a state change of several stores, which "redo until one store commits" cannot cover; or out of the moment between a
// look for those that have run and a sleep that lets them in again, by before().
// Any thread. Only where changes are rare: it costs two system calls, and a signal for the whole process that arrives meanwhile, or that the
// kernel's chosen thread has not come to yet, is delivered to this thread.
#pragma once

#include <csignal>

#include "sys/raw.h"

namespace shunt::sys {

class SignalsBlocked {
 public:
  SignalsBlocked() {
    const uint64_t all = ~uint64_t{0};
    raw(SYS_rt_sigprocmask, SIG_BLOCK, &all, &before_, sizeof all);
  }
  ~SignalsBlocked() { raw(SYS_rt_sigprocmask, SIG_SETMASK, &before_, nullptr, sizeof(uint64_t)); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

  const sigset_t* before() const { return &before_; }

 private:
  sigset_t before_{};  // the kernel uses its first word
};

}  // namespace shunt::sys
