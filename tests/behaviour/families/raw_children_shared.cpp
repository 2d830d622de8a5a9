// Children that share their parent's memory, its table of descriptors, or both. Where they run beside it, the library
// cannot tell one from the other: what was on the ring goes back to the kernel first, and nothing of it is lost.
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "behaviour.h"
#include "check.h"
#include "children.h"
#include "io.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

constexpr int kRounds = 5;
constexpr uint64_t kBulk = 300'000;

constexpr int kFiles = CLONE_FILES;              // the numbers are shared, memory is not
constexpr int kWaited = CLONE_VM | CLONE_VFORK;  // as vfork, on a stack of its own
constexpr int kWaitedFiles = kWaited | CLONE_FILES;
constexpr int kBeside = CLONE_VM;
constexpr int kBesideFiles = CLONE_VM | CLONE_FILES;

pid_t clone3_files(const Body& body) {
  clone_args arguments{};
  arguments.flags = CLONE_FILES;
  arguments.exit_signal = SIGCHLD;
  const long child = ::syscall(SYS_clone3, &arguments, sizeof arguments);
  if (child == 0) {
    body();
    ::_exit(0);
  }
  CHECK(child > 0);
  return static_cast<pid_t>(child);
}

// The child uses it, then the parent, then a child again.
template <int kFlags>
void in_turns(int fd) {
  join_any_child(clone_with(kFlags, [fd] { ask_plainly(fd, kRounds); }));
  ask_plainly(fd, kRounds);
  join_any_child(clone_with(kFlags, [fd] { ask_plainly(fd, kRounds); }));
  tell_peer();
}
void answer_turns(int fd) {
  for (int i = 0; i < 3; ++i) echo_plainly(fd, kRounds);
  await_peer();
}
BEHAVIOUR{.name = "in_turns_waited_for", .server = answer_turns, .client = in_turns<kWaited>};
BEHAVIOUR{
    .name = "in_turns_with_shared_numbers", .server = answer_turns, .client = in_turns<kFiles>, .leaves_ring = true};
BEHAVIOUR{.name = "in_turns_waited_for_with_shared_numbers",
          .server = answer_turns,
          .client = in_turns<kWaitedFiles>,
          .leaves_ring = true};
BEHAVIOUR{
    .name = "in_turns_on_shared_memory", .server = answer_turns, .client = in_turns<kBeside>, .leaves_ring = true};
BEHAVIOUR{
    .name = "in_turns_with_all_shared", .server = in_turns<kBesideFiles>, .client = answer_turns, .leaves_ring = true};
BEHAVIOUR{.name = "in_turns_with_shared_numbers_by_clone3",
          .server = answer_turns,
          .client =
              [](int fd) {
                join_any_child(clone3_files([fd] { ask_plainly(fd, kRounds); }));
                ask_plainly(fd, kRounds);
                join_any_child(clone3_files([fd] { ask_plainly(fd, kRounds); }));
                tell_peer();
              },
          .leaves_ring = true};

// Parent and child at once.
template <int kFlags>
void reads_and_child_writes(int fd) {
  const Body writes = [fd] { put_plainly(fd, 0, kBulk); };
  const pid_t child = clone_with(kFlags, writes);
  take_plainly(fd, 7, kBulk);
  join_any_child(child);
}
void writes_and_thread_reads(int fd) {
  const pid_t child = kCopies[0].make([fd] { take_plainly(fd, 0, kBulk); });
  put_plainly(fd, 7, kBulk);
  join_any_child(child);
}
BEHAVIOUR{.name = "at_once_with_shared_numbers",
          .server = writes_and_thread_reads,
          .client = reads_and_child_writes<kFiles>,
          .leaves_ring = true};
BEHAVIOUR{.name = "at_once_on_shared_memory",
          .server = writes_and_thread_reads,
          .client = reads_and_child_writes<kBeside>,
          .leaves_ring = true};
BEHAVIOUR{.name = "at_once_with_all_shared",
          .server = reads_and_child_writes<kBesideFiles>,
          .client = writes_and_thread_reads,
          .leaves_ring = true};

// Bytes that lay unread in the ring when the child was made are there for both.
template <int kFlags>
void reads_what_lay_there(int fd) {
  await_peer();
  take_plainly(fd, 0, 100);
  join_any_child(clone_with(kFlags, [fd] { take_plainly(fd, 100, 400); }));
  take_plainly(fd, 500, 500);
  tell_peer();
}
void writes_ahead(int fd) {
  put_plainly(fd, 0, 1000);
  tell_peer();
  await_peer();
}
BEHAVIOUR{.name = "unread_bytes_waited_for", .server = writes_ahead, .client = reads_what_lay_there<kWaited>};
BEHAVIOUR{.name = "unread_bytes_with_shared_numbers",
          .server = writes_ahead,
          .client = reads_what_lay_there<kFiles>,
          .leaves_ring = true};
BEHAVIOUR{.name = "unread_bytes_on_shared_memory",
          .server = writes_ahead,
          .client = reads_what_lay_there<kBeside>,
          .leaves_ring = true};
BEHAVIOUR{.name = "unread_bytes_with_all_shared",
          .server = reads_what_lay_there<kBesideFiles>,
          .client = writes_ahead,
          .leaves_ring = true};

// Numbers of its own: what the child closes and opens is nothing to its parent.
void gives_the_number_away(int fd) {
  CHECK_EQ(::close(fd), 0);
  CHECK_EQ(::open("/dev/null", O_RDWR), fd);
  CHECK_EQ(::write(fd, "x", 1), 1);
  char byte = 0;
  CHECK_EQ(::read(fd, &byte, 1), 0);
}
template <int kFlags>
void child_with_own_numbers(int fd) {
  join_any_child(clone_with(kFlags, [fd] { gives_the_number_away(fd); }));
  ask_plainly(fd, kRounds);
  join_any_child(clone_with(kFlags, [fd] { ask_plainly(fd, kRounds); }));
  ask_plainly(fd, kRounds);
  CHECK_EQ(::close(fd), 0);
}
void answer_three(int fd) {
  for (int i = 0; i < 3; ++i) echo_plainly(fd, kRounds);
  expect_end_of_stream(fd);
}
BEHAVIOUR{.name = "own_numbers_waited_for", .server = answer_three, .client = child_with_own_numbers<kWaited>};
BEHAVIOUR{.name = "own_numbers_on_shared_memory",
          .server = answer_three,
          .client = child_with_own_numbers<kBeside>,
          .leaves_ring = true};

// Shared numbers: the child's close is the parent's, and the number means for both what either makes of it.
template <int kFlags>
void child_closes_for_both(int fd) {
  ask_plainly(fd, kRounds);
  join_any_child(clone_with(kFlags, [fd] { CHECK_EQ(::close(fd), 0); }));
  await_peer();  // has seen the end
  char byte = 0;
  CHECK_ERRNO(::read(fd, &byte, 1), EBADF);
  join_any_child(clone_with(kFlags, [fd] { CHECK_EQ(::open("/dev/zero", O_RDWR), fd); }));
  CHECK_EQ(::read(fd, &byte, 1), 1);
  CHECK_EQ(byte, '\0');
  CHECK_EQ(::write(fd, "x", 1), 1);
}
void sees_the_end(int fd) {
  echo_plainly(fd, kRounds);
  expect_end_of_stream(fd);
  tell_peer();
}
BEHAVIOUR{
    .name = "closed_for_both", .server = sees_the_end, .client = child_closes_for_both<kFiles>, .leaves_ring = true};
BEHAVIOUR{.name = "closed_for_both_waited_for",
          .server = sees_the_end,
          .client = child_closes_for_both<kWaitedFiles>,
          .leaves_ring = true};
BEHAVIOUR{.name = "closed_for_both_with_all_shared",
          .server = child_closes_for_both<kBesideFiles>,
          .client = sees_the_end,
          .leaves_ring = true};

// Killed in the middle of a call: the parent goes on, and its close ends the stream.
template <int kFlags>
void child_is_killed(int fd) {
  const Body reads = [fd] {
    ask_plainly(fd, kRounds);
    tell_peer();
    char byte = 0;
    (void)!::read(fd, &byte, 1);
  };
  expect_killed(clone_with(kFlags, reads));
  ask_plainly(fd, kRounds);
  CHECK_EQ(::close(fd), 0);
  await_peer();
}
// The parent of a child that is waited for cannot kill it.
void kills_the_child(int fd) {
  echo_plainly(fd, kRounds);
  await_peer();
  sleep_ms(20);
  ucred who{};
  socklen_t length = sizeof who;
  CHECK_EQ(::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &length), 0);
  const std::string children = "/proc/" + std::to_string(who.pid) + "/task/" + std::to_string(who.pid) + "/children";
  pid_t child = 0;
  const int file = ::open(children.c_str(), O_RDONLY);
  const std::string text = read_some(file, 100);
  ::close(file);
  child = std::stoi(text);
  CHECK_EQ(::kill(child, SIGKILL), 0);
  echo_plainly(fd, kRounds);
  expect_end_of_stream(fd);
  tell_peer();
}
BEHAVIOUR{.name = "killed_while_waited_for", .server = kills_the_child, .client = child_is_killed<kWaited>};
BEHAVIOUR{.name = "killed_with_shared_numbers",
          .server = kills_the_child,
          .client = child_is_killed<kFiles>,
          .leaves_ring = true};
BEHAVIOUR{.name = "killed_on_shared_memory",
          .server = kills_the_child,
          .client = child_is_killed<kBeside>,
          .leaves_ring = true};
BEHAVIOUR{.name = "killed_with_all_shared",
          .server = kills_the_child,
          .client = child_is_killed<kBesideFiles>,
          .leaves_ring = true};

// What is connected afterwards works too, in either.
template <int kFlags>
void connects_afterwards(int fd) {
  join_any_child(clone_with(kFlags, [fd] { ask_plainly(fd, kRounds); }));
  for (int i = 0; i < 2; ++i) {
    const auto use_one = [] {
      const int another = connect_another();
      ask_plainly(another, kRounds);
      CHECK_EQ(::close(another), 0);
    };
    if (i == 0)
      use_one();
    else
      join_any_child(clone_with(kFlags, use_one));
  }
  ask_plainly(fd, kRounds);
}
void accepts_afterwards(int fd) {
  echo_plainly(fd, kRounds);
  for (int i = 0; i < 2; ++i) {
    const int another = accept_another();
    echo_plainly(another, kRounds);
    expect_end_of_stream(another);
    CHECK_EQ(::close(another), 0);
  }
  echo_plainly(fd, kRounds);
}
BEHAVIOUR{.name = "connected_later_waited_for", .server = accepts_afterwards, .client = connects_afterwards<kWaited>};
BEHAVIOUR{.name = "connected_later_with_shared_numbers",
          .server = accepts_afterwards,
          .client = connects_afterwards<kFiles>,
          .leaves_ring = true};
BEHAVIOUR{.name = "connected_later_on_shared_memory",
          .server = accepts_afterwards,
          .client = connects_afterwards<kBeside>,
          .leaves_ring = true};
BEHAVIOUR{.name = "connected_later_with_all_shared",
          .server = accepts_afterwards,
          .client = connects_afterwards<kBesideFiles>,
          .leaves_ring = true};

// A set that was made before: either may wait on it.
template <int kFlags>
void waits_in_a_set(int fd) {
  const int set = ::epoll_create1(0);
  epoll_event event{.events = EPOLLIN | EPOLLONESHOT, .data = {.u64 = 4711}};
  CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), 0);
  const auto serve = [=] {
    epoll_event ready{};
    CHECK_EQ(::epoll_wait(set, &ready, 1, 10'000), 1);
    CHECK_EQ(ready.data.u64, 4711U);
    echo_plainly(fd, 1);
    epoll_event again{.events = EPOLLIN | EPOLLONESHOT, .data = {.u64 = 4711}};
    CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_MOD, fd, &again), 0);
  };
  for (int i = 0; i < 3; ++i) {
    serve();
    join_any_child(clone_with(kFlags, serve));
  }
}
void asks_six(int fd) {
  ask_plainly(fd, 1), ask_plainly(fd, 1), ask_plainly(fd, 1), ask_plainly(fd, 1), ask_plainly(fd, 1),
      ask_plainly(fd, 1);
}
BEHAVIOUR{
    .name = "a_set_with_shared_numbers", .server = waits_in_a_set<kFiles>, .client = asks_six, .leaves_ring = true};
BEHAVIOUR{.name = "a_set_on_shared_memory", .server = waits_in_a_set<kBeside>, .client = asks_six, .leaves_ring = true};
BEHAVIOUR{
    .name = "a_set_with_all_shared", .server = waits_in_a_set<kBesideFiles>, .client = asks_six, .leaves_ring = true};

}  // namespace
}  // namespace shunt::behaviour
