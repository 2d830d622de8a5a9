// Handlers that arrive while this thread is inside a section (a lock is taken, a copy is under way) run when it ends, as the kernel runs them
// at the end of a system call. So no handler, and no child that it makes, sees or shares a half-made change. A fault is no such signal: it is handled where it is.
// Same thread only, handlers included. Allocates nothing; raw calls, and getcontext(3).
#pragma once

#include <csignal>

#include "wait/duties.h"

namespace shunt {

enum class Stack : uint8_t { threads, alternate };  // SA_ONSTACK

struct Arrived {
  int signal;
  uint64_t blocks;  // the kernel's mask of what its handler adds to the thread's, itself included
  Stack stack;
  void (*run)(int signal, siginfo_t* information, void* context);  // what the trampoline would do now
};

// By the trampoline, first. True: `run` is called when the section ends, and until then the thread has its signals blocked.
bool hold_back(const Arrived& arrived, const siginfo_t& information, void* context);
// By the trampoline of one that was not held back, last: those that are still have to wait.
void go_on_holding(void* context);
void run_held_back();
// A forked child inherits a mask, and no signals.
void drop_held_back();

// A section of this thread has ended, or is about to sleep for its lock.
inline void let_handlers_run() {
  std::atomic_signal_fence(std::memory_order_seq_cst);
  if (__builtin_expect(duties.held_back, 0)) run_held_back();
}

}  // namespace shunt
