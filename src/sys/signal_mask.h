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
// The kernel ends a program that has blocked one of these and runs into it. A filter (SECCOMP_RET_TRAP) makes any call of ours such a place, so nothing of
// ours blocks them.
inline constexpr uint64_t kForcedSignals =
    signal_bit(SIGSEGV) | signal_bit(SIGBUS) | signal_bit(SIGFPE) | signal_bit(SIGILL) | signal_bit(SIGTRAP) | signal_bit(SIGSYS);
// Without a handler the kernel ignores these, but not where they are blocked: then one for the process would end another thread's epoll_wait. They are left
// alone until there is a handler.
inline constinit std::atomic<uint64_t> ignored_by_default{signal_bit(SIGCHLD) | signal_bit(SIGURG) | signal_bit(SIGWINCH) | signal_bit(SIGCONT)};

// Adds `signals` to this thread's mask. False: refused, the mask is as it was, and `before` says nothing.
inline bool block_signals(uint64_t signals, uint64_t& before) { return raw(SYS_rt_sigprocmask, SIG_BLOCK, &signals, &before, sizeof signals) == 0; }

// Gives a mask back that had `added` blocked since. A filter may know one way and not the other.
inline bool restore_mask(uint64_t before, uint64_t added) {
  if (raw(SYS_rt_sigprocmask, SIG_SETMASK, &before, nullptr, sizeof before) == 0) return true;
  const uint64_t ours = added & ~before;
  return raw(SYS_rt_sigprocmask, SIG_UNBLOCK, &ours, nullptr, sizeof ours) == 0;
}

class SignalsBlocked {
 public:
  SignalsBlocked() : SignalsBlocked(~(ignored_by_default.load(std::memory_order_relaxed) | kForcedSignals)) {}
  explicit SignalsBlocked(uint64_t signals) : added_(signals), works_(block_signals(signals, *first_word(before_))) {}
  ~SignalsBlocked() { end(); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

  // False: refused. Handlers run as ever, and before() is null: a sleep leaves the mask alone.
  bool works() const { return works_; }
  const sigset_t* before() const { return works_ ? &before_ : nullptr; }
  // Earlier than the destructor.
  void end() {
    if (works_) restore_mask(*first_word(before_), added_);
    works_ = false;
  }

 private:
  static uint64_t* first_word(sigset_t& set) { return reinterpret_cast<uint64_t*>(&set); }  // all that the kernel uses
  sigset_t before_{};
  uint64_t added_;
  bool works_;
};

}  // namespace shunt::sys
