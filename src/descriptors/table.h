// Descriptor → what the library knows of it. One table load for descriptors that are not ours.
// Any thread, any context. Never allocates after start; entries are type-stable, so a stale pointer meets another life, never a hole.
#pragma once

#include "connection/connection.h"
#include "descriptors/slab.h"

namespace shunt {

struct EpollSet;  // readiness/epoll

inline constexpr int kMaxDescriptors = 1 << 20;  // higher descriptors are never ours

// ---- looking up

bool is_connection(int fd);  // a hint: no reference is taken

// Keeps a connection alive while a call uses it. Empty if `fd` is not a connection of ours. Several end in the reverse order of their beginnings.
class Pin : Duty {
 public:
  explicit Pin(int fd);
  ~Pin();
  Pin(const Pin&) = delete;
  Pin& operator=(const Pin&) = delete;
  explicit operator bool() const { return connection_ != nullptr; }
  Connection& operator*() const { return *connection_; }
  Connection* operator->() const { return connection_; }

 private:
  static void undo(Duty& duty);
  static constexpr Fate kFate{undo, undo};
  friend uint32_t calls_on(const Connection& connection);
  Connection* connection_;
  int fd_;
};

EpollSet* epoll_set_of(int fd);  // null if not one that we watch

// ---- keeping up with the program

// A connected stream that may be upgraded. Replaces whatever the table held for `fd`. Does nothing (the connection is simply not ours) without memory.
// nonblocking: O_NONBLOCK of the new description.
void enter_connection(int fd, Role role, const Bits& bits, bool nonblocking);
// A connection that stays on the kernel; only counted.
void count_plain(Reason reason);

void enter_epoll_set(int fd, EpollSet* set);  // null forgets

// `to` now refers to the same open file as `from` (dup family, after the kernel's call).
void note_duplicate(int from, int to);
// Around the kernel's close of `fd`: forgets the descriptor first, then finishes what the last close must do.
class Closing : Duty {
 public:
  explicit Closing(int fd);
  ~Closing();  // after the kernel's close
  Closing(const Closing&) = delete;
  Closing& operator=(const Closing&) = delete;

 private:
  static void undo(Duty& duty);
  static constexpr Fate kFate{undo, undo};
  friend uint32_t calls_on(const Connection& connection);
  int fd_;
  uintptr_t entry_;
};
// The highest descriptor that may be ours, plus one: bounds close_range, exec.
int descriptors_in_use();

// True in a vfork child or a raw clone, whose descriptors are not the parent's: such a process must not change the table. One system call.
bool in_foreign_process();
// The same for what can do no harm, at no call: children of vfork() and of raw forks are recognised, those of a CLONE_VM that the program makes by an
// instruction of its own are not. To forget a connection that is still the kernel's costs it its way to the ring; one that such a child makes is its parent's
// number at worst.
bool may_be_foreign_process();
// As much of it as `fd`, of ours, needs.
bool in_foreign_process(int fd);
// Before vfork(), whose child runs on this thread.
void note_vfork();
// In such a process: `fd` was closed or replaced there, and is another file from now on. For the calling thread, which
// is its parent's when the child has ended.
void note_foreign_number(int fd);

// The number's connection is the kernel's for good, and from now on not ours: another process may close it or give it another meaning. Its state stays for
// calls that go on. Where something is left that only we can do, each use looks whether the number is the same file still.
void disown(int fd);
// Another process is about to run on this thread's memory, beside it.
void share_this_thread();

// ---- start and fork; between before and after the caller keeps signals blocked
void note_process();  // once, before main
void before_fork();
void after_fork_in_parent(Born born);
void after_fork_in_child(uint32_t parent);  // the thread's id there

// ---- exec: `fn(fd, connection)` for each connection descriptor of this process
template <typename Function>
void for_each_connection(Function function) {
  const int end = descriptors_in_use();
  for (int fd = 0; fd < end; ++fd)
    if (Pin connection{fd}) function(fd, *connection);
}

}  // namespace shunt
