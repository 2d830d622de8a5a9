// A connection held by a process and its forked children.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pty.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <iterator>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

constexpr uint64_t kBulk = 1'000'000;

void echo_rounds(int fd, int rounds) {
  for (int i = 0; i < rounds; ++i) write_all(fd, read_exactly(fd, 3000));
}

void ask_rounds(int fd, int rounds) {
  for (int i = 0; i < rounds; ++i) {
    const auto position = static_cast<uint64_t>(i);
    write_all(fd, bytes_at(position, 3000));
    CHECK_EQ(agreeing(read_exactly(fd, 3000), position), 3000U);
  }
}

// The kernel makes no more children of fork's kind: EAGAIN, as where RLIMIT_NPROC is reached, which root has not.
void refuse_forks() {
  constexpr uint32_t kOfFork = CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD;
  constexpr uint32_t kAnswer = SECCOMP_RET_ERRNO | EAGAIN;
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fork, 3, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[0])),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kOfFork, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, kAnswer),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program{std::size(code), code};
  CHECK_EQ(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
  CHECK_EQ(::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

// A fork that failed has made no relative: whose peer has shut down its writing is still the only one to have the
// bytes.
BEHAVIOUR{.name = "a_refused_fork_leaves_one_process",
          .server =
              [](int fd) {
                write_all(fd, "unread");
                CHECK_EQ(::shutdown(fd, SHUT_WR), 0);
                tell_peer();
                CHECK_EQ(read_exactly(fd, 3), "bye");
              },
          .client =
              [](int fd) {
                await_peer();
                refuse_forks();
                int terminal;
                CHECK_ERRNO(::fork(), EAGAIN);
                CHECK_ERRNO(::forkpty(&terminal, nullptr, nullptr, nullptr), EAGAIN);
                CHECK_ERRNO(::daemon(1, 1), EAGAIN);
                CHECK_ERRNO(static_cast<int>(::syscall(SYS_fork)), EAGAIN);
                std::FILE* in = ::fdopen(fd, "r+");
                char data[7] = {};
                CHECK_EQ(std::fread(data, 1, sizeof data, in), 6U);
                CHECK_EQ(std::string(data), "unread");
                CHECK(std::fputs("bye", in) >= 0);
                CHECK_EQ(std::fclose(in), 0);
              },
          .leaves_ring = true};

// The usual server: the parent accepts, the child serves.
BEHAVIOUR{.name = "the_child_serves_and_the_parent_closes",
          .server =
              [](int fd) {
                const int child = in_child([fd] { echo_rounds(fd, 50); });
                ::close(fd);
                join_child(child);
              },
          .client =
              [](int fd) {
                ask_rounds(fd, 50);
                expect_end_of_stream(fd);
              }};

BEHAVIOUR{.name = "the_child_closes_and_the_parent_goes_on",
          .server = [](int fd) { echo_rounds(fd, 50); },
          .client =
              [](int fd) {
                const int child = in_child([fd] { ::close(fd); });
                ask_rounds(fd, 25);
                join_child(child);
                ask_rounds(fd, 25);
              }};

BEHAVIOUR{.name = "forked_before_the_upgrade_for_a_child_that_serves",
          .server =
              [](int fd) {
                const int child = in_child([fd] { echo_rounds(fd, 50); });
                ::close(fd);
                join_child(child);
              },
          .client =
              [](int fd) {
                ask_rounds(fd, 50);
                expect_end_of_stream(fd);
              },
          .warms_up = false,
          .leaves_ring = true};

BEHAVIOUR{.name = "forked_before_the_upgrade_and_used_by_both",
          .server =
              [](int fd) {
                join_child(in_child([fd] { echo_rounds(fd, 20); }));
                echo_rounds(fd, 20);
                join_child(in_child([fd] { echo_rounds(fd, 20); }));
                echo_rounds(fd, 20);
              },
          .client = [](int fd) { ask_rounds(fd, 80); },
          .warms_up = false,
          .leaves_ring = true};

BEHAVIOUR{.name = "parent_and_child_in_turns",
          .server =
              [](int fd) {
                join_child(in_child([fd] { echo_rounds(fd, 20); }));
                echo_rounds(fd, 20);
                join_child(in_child([fd] { echo_rounds(fd, 20); }));
                echo_rounds(fd, 20);
              },
          .client = [](int fd) { ask_rounds(fd, 80); }};

BEHAVIOUR{.name = "parent_writes_and_child_reads",
          .server =
              [](int fd) {
                const int child = in_child([fd] { read_stream(fd, 0, kBulk, 20'000); });
                write_stream(fd, 7, kBulk, 30'000);
                join_child(child);
              },
          .client =
              [](int fd) {
                const int child = in_child([fd] { read_stream(fd, 7, kBulk, 20'000); });
                write_stream(fd, 0, kBulk, 30'000);
                join_child(child);
              }};

// Each byte goes to one of the readers, and none to both.
BEHAVIOUR{.name = "parent_and_child_share_the_reading",
          .server =
              [](int fd) {
                write_all(fd, std::string(300'000, 'x'));
                ::close(fd);
              },
          .client =
              [](int fd) {
                int counts[2];
                CHECK_EQ(::pipe(counts), 0);
                const auto count_all = [&] {
                  uint64_t total = 0;
                  for (std::string some = read_some(fd, 1000); !some.empty(); some = read_some(fd, 1000)) {
                    CHECK_EQ(some.find_first_not_of('x'), std::string::npos);
                    total += some.size();
                  }
                  CHECK_EQ(::write(counts[1], &total, sizeof total), sizeof total);
                };
                const int child = in_child(count_all);
                count_all();
                join_child(child);
                uint64_t two[2];
                CHECK_EQ(::read(counts[0], two, sizeof two), sizeof two);
                CHECK_EQ(two[0] + two[1], 300'000);
              }};

// A write of up to what fits is never torn by another process's.
BEHAVIOUR{.name = "records_of_two_processes_do_not_mix",
          .server =
              [](int fd) {
                int seen[2] = {};
                for (int i = 0; i < 2000; ++i) {
                  const std::string record = read_exactly(fd, 256);
                  CHECK(record[0] == 'p' || record[0] == 'c');
                  CHECK_EQ(record.find_first_not_of(record[0]), std::string::npos);
                  ++seen[record[0] == 'p' ? 0 : 1];
                }
                CHECK_EQ(seen[0], 1000);
                CHECK_EQ(seen[1], 1000);
              },
          .client =
              [](int fd) {
                const int child = in_child([fd] {
                  for (int i = 0; i < 1000; ++i) CHECK_EQ(::write(fd, std::string(256, 'c').data(), 256), 256);
                });
                for (int i = 0; i < 1000; ++i) CHECK_EQ(::write(fd, std::string(256, 'p').data(), 256), 256);
                join_child(child);
              }};

BEHAVIOUR{.name = "no_end_of_stream_while_a_child_holds_it",
          .server =
              [](int fd) {
                await_peer();
                CHECK(!is_readable(fd, 30));
                tell_peer();
                CHECK_EQ(read_exactly(fd, 5), "child");
                expect_end_of_stream(fd);
              },
          .client =
              [](int fd) {
                int gate[2];
                CHECK_EQ(::pipe(gate), 0);
                const int child = in_child([&] {
                  CHECK_EQ(read_exactly(gate[0], 1), "g");
                  write_all(fd, "child");
                });
                ::close(fd);
                tell_peer();
                await_peer();
                write_all(gate[1], "g");
                join_child(child);
              }};

BEHAVIOUR{.name = "a_killed_child_leaves_the_connection_to_the_parent",
          .server = [](int fd) { echo_rounds(fd, 40); },
          .client =
              [](int fd) {
                for (int i = 0; i < 4; ++i) {
                  const int child = in_child([fd] {
                    ask_rounds(fd, 5);
                    ::raise(SIGKILL);
                  });
                  int status = 0;
                  CHECK_EQ(::waitpid(child, &status, 0), child);
                  CHECK(WIFSIGNALED(status));
                  ask_rounds(fd, 5);
                }
              }};

BEHAVIOUR{.name = "a_grandchild_serves",
          .server =
              [](int fd) {
                const int child = in_child([fd] { join_child(in_child([fd] { echo_rounds(fd, 20); })); });
                ::close(fd);
                join_child(child);
              },
          .client =
              [](int fd) {
                ask_rounds(fd, 20);
                expect_end_of_stream(fd);
              }};

BEHAVIOUR{.name = "many_children_one_after_another",
          .server =
              [](int fd) {
                for (int i = 0; i < 30; ++i) join_child(in_child([fd] { echo_rounds(fd, 1); }));
              },
          .client = [](int fd) { ask_rounds(fd, 30); }};

// Connections of a child are its own: the parent makes its own under the same numbers.
BEHAVIOUR{.name = "parent_and_child_make_their_own",
          .server =
              [](int) {
                for (int i = 0; i < 2; ++i) {
                  const int fd = accept_another();
                  echo_rounds(fd, 20);
                  expect_end_of_stream(fd);
                  ::close(fd);
                }
              },
          .client =
              [](int) {
                const auto use_one = [] {
                  const int fd = connect_another();
                  ask_rounds(fd, 20);
                  ::close(fd);
                };
                const int child = in_child(use_one);
                join_child(child);
                use_one();
              }};

// The pre-forked server: workers that accept on the same listening socket.
BEHAVIOUR{.name = "workers_accept_for_themselves",
          .server =
              [](int) {
                int workers[3];
                for (int& worker : workers) {
                  worker = in_child([] {
                    for (int i = 0; i < 5; ++i) {
                      const int fd = accept_another();
                      echo_rounds(fd, 10);
                      expect_end_of_stream(fd);
                      ::close(fd);
                    }
                  });
                }
                for (const int worker : workers) join_child(worker);
              },
          .client =
              [](int) {
                for (int i = 0; i < 15; ++i) {
                  const int fd = connect_another();
                  ask_rounds(fd, 10);
                  ::close(fd);
                }
              }};

BEHAVIOUR{.name = "an_epoll_set_is_used_by_the_child_alone",
          .server =
              [](int fd) {
                const int set = ::epoll_create1(0);
                epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
                CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), 0);
                join_child(in_child([=] {
                  for (int i = 0; i < 20; ++i) {
                    epoll_event ready{};
                    CHECK_EQ(::epoll_wait(set, &ready, 1, 10'000), 1);
                    CHECK_EQ(ready.data.fd, fd);
                    echo_rounds(fd, 1);
                  }
                }));
              },
          .client = [](int fd) { ask_rounds(fd, 20); },
          .leaves_ring = true};

BEHAVIOUR{.name = "an_epoll_set_is_used_by_both",
          .server =
              [](int fd) {
                const int set = ::epoll_create1(0);
                epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
                CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), 0);
                const auto serve = [=] {
                  for (int i = 0; i < 10; ++i) {
                    epoll_event ready{};
                    CHECK_EQ(::epoll_wait(set, &ready, 1, 10'000), 1);
                    echo_rounds(fd, 1);
                  }
                };
                join_child(in_child(serve));
                serve();
                join_child(in_child(serve));
              },
          .client = [](int fd) { ask_rounds(fd, 30); },
          .leaves_ring = true};

}  // namespace
}  // namespace shunt::behaviour
