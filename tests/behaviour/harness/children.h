// Children that are made past fork(): _Fork, clone, and the numbers of syscall(2). A program's fork handlers do not run
// for them. A body that runs beside a thread, or on its parent's memory, does not allocate.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>

namespace shunt::behaviour {

using Body = std::function<void()>;

struct ChildWay {
  const char* name;
  pid_t (*make)(const Body& body);  // the child ends with 0 after `body`
  bool needs_library = false;       // a program in C cannot do this on the kernel alone: both would return on one stack
};

// With memory and descriptors of its own.
extern const ChildWay kCopies[];
extern const size_t kCopyCount;

pid_t clone_with(int flags,
                 const Body& body);  // clone(2), with SIGCHLD; on shared memory `body` must live as long as the child

bool can_be_made(const ChildWay& way);  // here

// The child ended with 0; or by SIGKILL.
void join_any_child(pid_t child);
void expect_killed(pid_t child);

// Without allocation: `count` bytes of a stream of their own, and echo rounds.
void put_plainly(int fd, uint64_t position, uint64_t count);
void take_plainly(int fd, uint64_t position, uint64_t count);
void echo_plainly(int fd, int rounds);
void ask_plainly(int fd, int rounds);

}  // namespace shunt::behaviour
