// Children with memory and descriptors of their own that are made past fork(). What is true of fork's children is true
// of them, whichever way they were made: each behaviour goes through all ways, one after the other, on one connection
// that stays on the ring.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <thread>

#include "behaviour.h"
#include "check.h"
#include "children.h"
#include "io.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

constexpr int kRounds = 5;
constexpr uint64_t kBulk = 300'000;

// The peer does its part as often as the end that `makes` has ways.
template <typename Function>
void through_all_ways(Function function) {
  uint32_t ways = 0;
  for (size_t i = 0; i < kCopyCount; ++i) ways += can_be_made(kCopies[i]);
  tell_peer(ways);
  for (size_t i = 0; i < kCopyCount; ++i) {
    if (!can_be_made(kCopies[i])) continue;
    about(kCopies[i].name);
    function(kCopies[i]);
  }
  about("");
}

template <typename Function>
void once_for_each_way(Function function) {
  for (uint32_t ways = await_peer(); ways > 0; --ways) function();
}

// Both, in turns: each sees what the other has read and written.
void child_then_parent(int fd) {
  through_all_ways([fd](const ChildWay& way) {
    join_any_child(way.make([fd] { ask_plainly(fd, kRounds); }));
    ask_plainly(fd, kRounds);
  });
}
void answer_both(int fd) {
  once_for_each_way([fd] { echo_plainly(fd, kRounds), echo_plainly(fd, kRounds); });
}
BEHAVIOUR{.name = "client_and_child_in_turns", .server = answer_both, .client = child_then_parent};
BEHAVIOUR{.name = "server_and_child_in_turns", .server = child_then_parent, .client = answer_both};

void child_reads_parent_writes(int fd) {
  through_all_ways([fd](const ChildWay& way) {
    const pid_t child = way.make([fd] { take_plainly(fd, 0, kBulk); });
    put_plainly(fd, 7, kBulk);
    join_any_child(child);
  });
}
void child_writes_parent_reads(int fd) {
  once_for_each_way([fd] {
    const pid_t child = kCopies[0].make([fd] { put_plainly(fd, 0, kBulk); });
    take_plainly(fd, 7, kBulk);
    join_any_child(child);
  });
}
BEHAVIOUR{
    .name = "both_at_once_at_the_client", .server = child_writes_parent_reads, .client = child_reads_parent_writes};
BEHAVIOUR{
    .name = "both_at_once_at_the_server", .server = child_reads_parent_writes, .client = child_writes_parent_reads};

void child_leaves_it_alone(int fd) {
  through_all_ways([fd](const ChildWay& way) {
    join_any_child(way.make([] {}));
    join_any_child(way.make([fd] { CHECK_EQ(::close(fd), 0); }));
    ask_plainly(fd, kRounds);
  });
}
void answer_one(int fd) {
  once_for_each_way([fd] { echo_plainly(fd, kRounds); });
}
BEHAVIOUR{.name = "a_child_that_leaves_it_alone", .server = answer_one, .client = child_leaves_it_alone};

BEHAVIOUR{.name = "a_killed_child", .server = answer_both, .client = [](int fd) {
            through_all_ways([fd](const ChildWay& way) {
              expect_killed(way.make([fd] {
                ask_plainly(fd, kRounds);
                ::raise(SIGKILL);
              }));
              ask_plainly(fd, kRounds);
            });
          }};

BEHAVIOUR{.name = "a_child_that_is_killed_in_a_call",
          .server =
              [](int fd) {
                once_for_each_way([fd] {
                  echo_plainly(fd, kRounds);
                  await_peer();
                  put_plainly(fd, 0, 100);
                });
              },
          .client =
              [](int fd) {
                int ready[2];
                CHECK_EQ(::pipe(ready), 0);
                through_all_ways([fd, ready](const ChildWay& way) {
                  const pid_t child = way.make([fd, ready] {
                    ask_plainly(fd, kRounds);
                    CHECK_EQ(::write(ready[1], "r", 1), 1);
                    char byte = 0;
                    (void)!::read(fd, &byte, 1);
                  });
                  char byte = 0;
                  CHECK_EQ(::read(ready[0], &byte, 1), 1);
                  sleep_ms(5);
                  CHECK_EQ(::kill(child, SIGKILL), 0);
                  expect_killed(child);
                  tell_peer();
                  take_plainly(fd, 0, 100);
                });
              }};

BEHAVIOUR{.name = "a_child_that_executes",
          .server = answer_one,
          .client =
              [](int fd) {
                through_all_ways([fd](const ChildWay& way) {
                  join_any_child(way.make([] { ::execl("/bin/true", "true", static_cast<char*>(nullptr)); }));
                  ask_plainly(fd, kRounds);
                });
              },
          .leaves_ring = true};

// The stream ends with the last holder, wherever that is.
BEHAVIOUR{.name = "the_child_is_the_last_holder",
          .server =
              [](int) {
                once_for_each_way([] {
                  const int fd = accept_another();
                  await_peer();
                  CHECK(!is_readable(fd, 20));
                  tell_peer();
                  take_plainly(fd, 0, 5);
                  expect_end_of_stream(fd);
                  CHECK_EQ(::close(fd), 0);
                });
              },
          .client =
              [](int) {
                through_all_ways([](const ChildWay& way) {
                  const int fd = connect_another();
                  int gate[2];
                  CHECK_EQ(::pipe(gate), 0);
                  const pid_t child = way.make([&] {
                    char byte = 0;
                    CHECK_EQ(::read(gate[0], &byte, 1), 1);
                    put_plainly(fd, 0, 5);
                  });
                  CHECK_EQ(::close(fd), 0);
                  tell_peer();
                  await_peer();
                  CHECK_EQ(::write(gate[1], "g", 1), 1);
                  join_any_child(child);
                  ::close(gate[0]), ::close(gate[1]);
                });
              }};

BEHAVIOUR{.name = "the_parent_is_the_last_holder",
          .server =
              [](int) {
                once_for_each_way([] {
                  const int fd = accept_another();
                  echo_plainly(fd, kRounds);
                  echo_plainly(fd, kRounds);
                  expect_end_of_stream(fd);
                  CHECK_EQ(::close(fd), 0);
                });
              },
          .client =
              [](int) {
                through_all_ways([](const ChildWay& way) {
                  const int fd = connect_another();
                  join_any_child(way.make([fd] {
                    ask_plainly(fd, kRounds);
                    CHECK_EQ(::close(fd), 0);
                  }));
                  ask_plainly(fd, kRounds);
                  CHECK_EQ(::close(fd), 0);
                });
              }};

BEHAVIOUR{.name = "parent_and_child_make_their_own",
          .server =
              [](int) {
                once_for_each_way([] {
                  for (int i = 0; i < 2; ++i) {
                    const int fd = accept_another();
                    echo_plainly(fd, kRounds);
                    expect_end_of_stream(fd);
                    CHECK_EQ(::close(fd), 0);
                  }
                });
              },
          .client =
              [](int) {
                through_all_ways([](const ChildWay& way) {
                  const auto use_one = [] {
                    const int fd = connect_another();
                    ask_plainly(fd, kRounds);
                    CHECK_EQ(::close(fd), 0);
                  };
                  join_any_child(way.make(use_one));
                  use_one();
                });
              }};

// Other threads hold whatever the library has to lock.
void child_beside_threads(int fd) {
  const CallsBeside others(fd);
  std::atomic<bool> over = false;
  std::thread duplicates([&] {
    while (!over) ::close(::dup(fd));
  });
  through_all_ways([fd](const ChildWay& way) {
    for (int i = 0; i < 2; ++i) {
      join_any_child(way.make([fd] { ask_plainly(fd, kRounds); }));
      ask_plainly(fd, kRounds);
    }
  });
  over = true;
  duplicates.join();
}
void answer_often(int fd) {
  once_for_each_way([fd] {
    for (int i = 0; i < 4; ++i) echo_plainly(fd, kRounds);
  });
}
BEHAVIOUR{.name = "made_while_other_threads_are_in_calls", .server = answer_often, .client = child_beside_threads};

}  // namespace
}  // namespace shunt::behaviour
