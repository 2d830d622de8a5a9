// The ways of children.h.
#include "children.h"

#include <linux/sched.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "check.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

constexpr size_t kRound = 3000;

[[noreturn]] void run(const Body& body) {
  body();
  ::_exit(0);
}

pid_t as_child(long pid, const Body& body) {
  CHECK(pid >= 0);
  if (pid == 0) run(body);
  return static_cast<pid_t>(pid);
}

uint8_t byte_at(uint64_t position) { return static_cast<uint8_t>((position * 0x9e3779b97f4a7c15U) >> 56); }

}  // namespace

pid_t clone_with(int flags, const Body& body) {
  alignas(16) static char stack[256 * 1024];
  const auto begin = [](void* its) {
    (*static_cast<const Body*>(its))();
    return 0;
  };
  const int child = ::clone(begin, stack + sizeof stack, flags | SIGCHLD, const_cast<Body*>(&body));
  CHECK(child > 0);
  return child;
}

const ChildWay kCopies[] = {
    {"_Fork", [](const Body& body) { return as_child(::_Fork(), body); }},
    {"clone", [](const Body& body) { return clone_with(0, body); }},
    {"SYS_fork", [](const Body& body) { return as_child(::syscall(SYS_fork), body); }},
    {"SYS_clone", [](const Body& body) { return as_child(::syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0), body); }},
    {"SYS_clone3",
     [](const Body& body) {
       clone_args arguments{};
       arguments.exit_signal = SIGCHLD;
       return as_child(::syscall(SYS_clone3, &arguments, sizeof arguments), body);
     }},
    {"SYS_vfork", [](const Body& body) { return as_child(::syscall(SYS_vfork), body); }, true},
};
const size_t kCopyCount = sizeof kCopies / sizeof kCopies[0];

bool can_be_made(const ChildWay& way) { return !way.needs_library || has_library(current_way(), current_end()); }

void join_any_child(pid_t child) {
  int status = -1;
  CHECK_EQ(::waitpid(child, &status, __WALL), child);
  CHECK_EQ(status, 0);
}

void expect_killed(pid_t child) {
  int status = 0;
  CHECK_EQ(::waitpid(child, &status, __WALL), child);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

void put_plainly(int fd, uint64_t position, uint64_t count) {
  uint8_t data[kRound];
  while (count > 0) {
    const size_t bytes = count < sizeof data ? count : sizeof data;
    for (size_t i = 0; i < bytes; ++i) data[i] = byte_at(position + i);
    for (size_t done = 0; done < bytes;) {
      const ssize_t n = ::write(fd, data + done, bytes - done);
      CHECK(n > 0);
      done += static_cast<size_t>(n);
    }
    position += bytes;
    count -= bytes;
  }
}

void take_plainly(int fd, uint64_t position, uint64_t count) {
  uint8_t data[kRound];
  while (count > 0) {
    const ssize_t n = ::read(fd, data, count < sizeof data ? count : sizeof data);
    CHECK(n > 0);
    for (size_t i = 0; i < static_cast<size_t>(n); ++i) CHECK_EQ(data[i], byte_at(position + i));
    position += static_cast<uint64_t>(n);
    count -= static_cast<uint64_t>(n);
  }
}

void echo_plainly(int fd, int rounds) {
  for (int i = 0; i < rounds; ++i) {
    take_plainly(fd, static_cast<uint64_t>(i), kRound);
    put_plainly(fd, static_cast<uint64_t>(i) + 7, kRound);
  }
}

void ask_plainly(int fd, int rounds) {
  for (int i = 0; i < rounds; ++i) {
    put_plainly(fd, static_cast<uint64_t>(i), kRound);
    take_plainly(fd, static_cast<uint64_t>(i) + 7, kRound);
  }
}

}  // namespace shunt::behaviour
