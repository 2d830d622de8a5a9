// Keeps signal handlers out of a state change of several stores, which "redo until one store commits" cannot cover; or out of the moment between a
// look for those that have run and a sleep that lets them in again, by before().
// Any thread. Only where changes are rare: it costs two system calls, and a signal for the whole process that arrives meanwhile, or that the
// kernel's chosen thread has not come to yet, is delivered to this thread.
#pragma once

#include <atomic>
#include <csignal>

#include "sys/raw.h"

namespace shunt::sys {

constexpr uint64_t signal_bit(int signal) { return uint64_t{1} << (signal - 1); }
// Without a handler the kernel ignores these, but not where they are blocked: then one for the process would end another thread's epoll_wait. They are left
// alone until there is a handler.
inline constinit std::atomic<uint64_t> ignored_by_default{signal_bit(SIGCHLD) | signal_bit(SIGURG) | signal_bit(SIGWINCH) | signal_bit(SIGCONT)};

class SignalsBlocked {
 public:
  SignalsBlocked() {
    const uint64_t all = ~ignored_by_default.load(std::memory_order_relaxed);
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
