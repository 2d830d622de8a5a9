// The library's start and end within a process. start() runs once, from the constructor or from the first wrapper that
// needs it.
#pragma once

#include <atomic>
#include <cstdint>

#include "descriptors/slab.h"

namespace shunt::interpose {

enum class State : uint8_t {
  waiting,   // nothing was read yet
  starting,  // some thread is at it: wrappers pass through
  active,
  inactive,  // excluded by an option, privileged, or the kernel lacks what we need: wrappers pass through for good
};
extern std::atomic<State> state;

bool start_early();

inline bool active() {
  const State now = state.load(std::memory_order_acquire);
  return now == State::active || (now == State::waiting && start_early());
}

// Around the kernel's call that makes a child with a copy of memory. No handler runs in between.
void before_any_fork();
void after_any_fork_in_parent(Born born);
void after_any_fork_in_child();

// This process's line in the report, and the counters back to zero: lines add up. Nothing in a vfork child.
void report(const char* why);
// The same at the end, once.
void report_end(const char* why);

}  // namespace shunt::interpose
