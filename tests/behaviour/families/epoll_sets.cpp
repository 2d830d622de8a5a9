// epoll sets as wholes: many connections, several sets, closes and duplicates, registration before the upgrade.
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <set>
#include <thread>
#include <vector>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

constexpr int kConnections = 12;

void add(int set, int fd, uint32_t events) {
  epoll_event event{.events = events, .data = {.fd = fd}};
  CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), 0);
}

std::multiset<int> wait(int set, int timeout_ms, int most = 32) {
  epoll_event events[32];
  const int n = ::epoll_wait(set, events, most, timeout_ms);
  CHECK(n >= 0);
  std::multiset<int> ready;
  for (int i = 0; i < n; ++i) ready.insert(events[i].data.fd);
  return ready;
}

// All that is ready, of what the kernel tells in one wait. Under chaos the rest of it may come with the next.
std::multiset<int> wait_for_all(int set, size_t count) {
  std::multiset<int> ready = wait(set, 1000);
  for (int i = 0; i < 20 && current_way() == Way::chaos && ready.size() < count; ++i) {
    for (const int fd : wait(set, 1000)) {
      if (!ready.contains(fd)) ready.insert(fd);
    }
  }
  return ready;
}

std::vector<int> accept_many() {
  std::vector<int> fds;
  for (int i = 0; i < kConnections; ++i) fds.push_back(accept_another());
  return fds;
}

std::vector<int> connect_many() {
  std::vector<int> fds;
  for (int i = 0; i < kConnections; ++i) fds.push_back(connect_another());
  return fds;
}

void write_once_when_asked(int fd) {
  await_peer();
  write_all(fd, "x");
  tell_peer();
  await_peer();
}

BEHAVIOUR{.name = "tell_the_ready_among_many",
          .server =
              [](int) {
                const std::vector<int> fds = accept_many();
                for (size_t step = 1; step <= 4; ++step) {
                  await_peer();
                  for (size_t i = 0; i < fds.size(); i += step) write_all(fds[i], "x");
                  tell_peer();
                }
              },
          .client =
              [](int) {
                const std::vector<int> fds = connect_many();
                const int set = ::epoll_create1(0);
                for (const int fd : fds) add(set, fd, EPOLLIN);
                for (size_t step = 1; step <= 4; ++step) {
                  CHECK(wait(set, 0).empty());
                  tell_peer();
                  await_peer();
                  std::multiset<int> wanted;
                  for (size_t i = 0; i < fds.size(); i += step) wanted.insert(fds[i]);
                  CHECK(wait_for_all(set, wanted.size()) == wanted);
                  for (const int fd : wanted) CHECK_EQ(read_exactly(fd, 1), "x");
                }
              }};

// With room for fewer events than there are, everybody gets its turn before long.
BEHAVIOUR{.name = "are_fair_when_there_is_little_room",
          .server =
              [](int) {
                for (const int fd : accept_many()) write_all(fd, "x");
                tell_peer();
                await_peer();
              },
          .client =
              [](int) {
                const std::vector<int> fds = connect_many();
                const int set = ::epoll_create1(0);
                for (const int fd : fds) add(set, fd, EPOLLIN);
                await_peer();
                std::set<int> seen;
                for (int i = 0; i < 3 * kConnections; ++i) {
                  const std::multiset<int> ready = wait(set, 1000, 1);
                  CHECK_EQ(ready.size(), 1U);
                  seen.insert(*ready.begin());
                }
                CHECK_EQ(seen.size(), fds.size());
                tell_peer();
              }};

BEHAVIOUR{.name = "mix_connections_and_other_files",
          .server = write_once_when_asked,
          .client =
              [](int fd) {
                const int set = ::epoll_create1(0);
                const int event = ::eventfd(0, EFD_NONBLOCK);
                add(set, event, EPOLLIN);
                add(set, fd, EPOLLIN);
                CHECK(wait(set, 10).empty());
                CHECK_EQ(::eventfd_write(event, 1), 0);
                CHECK(wait(set, 1000) == std::multiset<int>{event});
                tell_peer();
                await_peer();
                CHECK((wait_for_all(set, 2) == std::multiset<int>{event, fd}));
                tell_peer();
              }};

BEHAVIOUR{.name = "are_woken_by_an_eventfd_of_another_thread",
          .server = [](int) { await_peer(); },
          .client =
              [](int fd) {
                const int set = ::epoll_create1(0);
                const int event = ::eventfd(0, EFD_NONBLOCK);
                add(set, event, EPOLLIN);
                add(set, fd, EPOLLIN);
                std::thread waker([event] {
                  sleep_ms(30);
                  CHECK_EQ(::eventfd_write(event, 1), 0);
                });
                CHECK(wait(set, 10'000) == std::multiset<int>{event});
                waker.join();
                tell_peer();
              }};

BEHAVIOUR{.name = "forget_what_is_closed",
          .server =
              [](int fd) {
                const int second = accept_another();
                write_all(fd, "x");
                write_all(second, "x");
                tell_peer();
                await_peer();
              },
          .client =
              [](int fd) {
                const int second = connect_another();
                const int set = ::epoll_create1(0);
                add(set, fd, EPOLLIN);
                add(set, second, EPOLLIN);
                await_peer();
                CHECK_EQ(wait_for_all(set, 2).size(), 2U);
                ::close(fd);
                CHECK(wait(set, 1000) == std::multiset<int>{second});
                tell_peer();
              }};

// Loops that wait for one direction at a time delete and add at every turn.
BEHAVIOUR{.name = "forget_what_is_deleted_until_it_is_added",
          .server =
              [](int fd) {
                for (int i = 0; i < 3; ++i) {
                  await_peer();
                  write_all(fd, "x");
                  tell_peer();
                }
                await_peer();
                ::close(fd);
                tell_peer();
              },
          .client =
              [](int fd) {
                const int set = ::epoll_create1(0);
                add(set, fd, EPOLLIN);
                epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
                for (int i = 0; i < 4; ++i) {
                  CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), -1);
                  CHECK_EQ(errno, EEXIST);
                  CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_DEL, fd, nullptr), 0);
                  CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_DEL, fd, nullptr), -1);
                  CHECK_EQ(errno, ENOENT);
                  CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_MOD, fd, &event), -1);
                  CHECK_EQ(errno, ENOENT);
                  tell_peer();
                  await_peer();
                  CHECK(wait(set, 20).empty());
                  add(set, fd, EPOLLOUT);
                  CHECK(wait(set, 1000) == std::multiset<int>{fd});
                  CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_DEL, fd, nullptr), 0);
                  add(set, fd, EPOLLIN | (i == 1 ? EPOLLET : 0U));
                  CHECK(wait(set, 1000) == std::multiset<int>{fd});
                  if (i < 3) CHECK_EQ(read_exactly(fd, 1), "x");
                  CHECK(i == 3 || wait(set, 0).empty());
                }
                CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_MOD, fd, &event), 0);
                epoll_event ended{};
                CHECK_EQ(::epoll_wait(set, &ended, 1, 1000), 1);
                CHECK_EQ(ended.events, uint32_t{EPOLLIN | EPOLLHUP});
              }};

// What was deleted before the fork is the kernel's business alone: parent and child share the set, and either may add.
BEHAVIOUR{.name = "deleted_before_a_fork_can_be_added_by_the_child",
          .server = write_once_when_asked,
          .client =
              [](int fd) {
                const int set = ::epoll_create1(0);
                add(set, fd, EPOLLIN);
                CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_DEL, fd, nullptr), 0);
                const pid_t child = ::fork();
                CHECK(child >= 0);
                if (child == 0) {
                  epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
                  ::_exit(::epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : 1);
                }
                int status = -1;
                CHECK_EQ(::waitpid(child, &status, 0), child);
                CHECK_EQ(status, 0);
                tell_peer();
                await_peer();
                CHECK(wait(set, 1000) == std::multiset<int>{fd});
                tell_peer();
              },
          .leaves_ring = true};

// "A registration lives as long as the open file description": a duplicate keeps it.
BEHAVIOUR{.name = "remember_what_a_duplicate_keeps_open",
          .server = write_once_when_asked,
          .client =
              [](int fd) {
                const int set = ::epoll_create1(0);
                add(set, fd, EPOLLIN);
                const int other = ::dup(fd);
                ::close(fd);
                tell_peer();
                await_peer();
                CHECK(wait(set, 1000) == std::multiset<int>{fd});
                CHECK_EQ(read_exactly(other, 1), "x");
                CHECK(wait(set, 10).empty());
                tell_peer();
              }};

BEHAVIOUR{.name = "hold_both_a_descriptor_and_its_duplicate",
          .server = write_once_when_asked,
          .client =
              [](int fd) {
                const int set = ::epoll_create1(0);
                const int other = ::dup(fd);
                add(set, fd, EPOLLIN);
                add(set, other, EPOLLIN | EPOLLOUT);
                CHECK(wait(set, 0) == std::multiset<int>{other});
                tell_peer();
                await_peer();
                CHECK((wait_for_all(set, 2) == std::multiset<int>{fd, other}));
                CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_DEL, other, nullptr), 0);
                CHECK(wait(set, 1000) == std::multiset<int>{fd});
                tell_peer();
              }};

BEHAVIOUR{.name = "share_a_connection",
          .server = write_once_when_asked,
          .client =
              [](int fd) {
                const int reading = ::epoll_create1(0);
                const int writing = ::epoll_create1(0);
                const int edges = ::epoll_create1(0);
                add(reading, fd, EPOLLIN);
                add(writing, fd, EPOLLOUT);
                add(edges, fd, EPOLLIN | EPOLLET);
                CHECK(wait(reading, 0).empty());
                CHECK_EQ(wait(writing, 0).size(), 1U);
                tell_peer();
                await_peer();
                CHECK_EQ(wait(reading, 1000).size(), 1U);
                CHECK_EQ(wait(writing, 1000).size(), 1U);
                CHECK_EQ(wait(edges, 1000).size(), 1U);
                CHECK_EQ(wait(edges, 10).size(), 0U);
                CHECK_EQ(wait(reading, 1000).size(), 1U);
                tell_peer();
              }};

// The set is made, and waited on, before anything could have moved to shared memory.
void registration_first_client(int fd, uint32_t mode) {
  const int set = ::epoll_create1(0);
  add(set, fd, EPOLLIN | mode);
  CHECK(wait(set, 5).empty());
  for (uint64_t i = 0; i < 20; ++i) {
    write_all(fd, bytes_at(i, 100));
    for (size_t done = 0; done < 100;) {
      CHECK(wait(set, 10'000) == std::multiset<int>{fd});
      char data[200];
      for (ssize_t n = ::recv(fd, data, sizeof data, MSG_DONTWAIT); n > 0;
           n = ::recv(fd, data, sizeof data, MSG_DONTWAIT)) {
        CHECK_EQ(agreeing(std::string(data, static_cast<size_t>(n)), i + done), static_cast<size_t>(n));
        done += static_cast<size_t>(n);
      }
      CHECK_EQ(errno, EAGAIN);  // as edges demand
    }
    CHECK(wait(set, 0).empty());
    if (i % 5 == 0) sleep_ms(3);
  }
}

void registration_first_server(int fd, uint32_t mode) {
  const int set = ::epoll_create1(0);
  add(set, fd, EPOLLIN | mode);
  for (int i = 0; i < 20; ++i) {
    CHECK(wait(set, 10'000) == std::multiset<int>{fd});
    const std::string data = read_exactly(fd, 100);
    CHECK(wait(set, 0).empty());
    write_all(fd, data);
  }
}

BEHAVIOUR{.name = "made_before_the_upgrade_level_triggered",
          .server = [](int fd) { registration_first_server(fd, 0); },
          .client = [](int fd) { registration_first_client(fd, 0); },
          .warms_up = false};

BEHAVIOUR{.name = "made_before_the_upgrade_edge_triggered",
          .server = [](int fd) { registration_first_server(fd, EPOLLET); },
          .client = [](int fd) { registration_first_client(fd, EPOLLET); },
          .warms_up = false};

// A thread that has slept in epoll_wait since before the upgrade.
BEHAVIOUR{.name = "waited_on_since_before_the_upgrade",
          .server =
              [](int fd) {
                sleep_ms(50);
                for (int i = 0; i < 10; ++i) {
                  write_all(fd, "x");
                  CHECK_EQ(read_exactly(fd, 1), "y");
                  sleep_ms(2);
                }
              },
          .client =
              [](int fd) {
                const int set = ::epoll_create1(0);
                add(set, fd, EPOLLIN);
                for (int i = 0; i < 10; ++i) {
                  CHECK(wait(set, 10'000) == std::multiset<int>{fd});
                  CHECK_EQ(read_exactly(fd, 1), "x");
                  write_all(fd, "y");
                }
              },
          .warms_up = false};

BEHAVIOUR{.name = "changed_by_another_thread_during_the_wait",
          .server =
              [](int fd) {
                const int second = accept_another();
                write_all(second, "x");
                tell_peer();
                await_peer();
                write_all(fd, "x");
                await_peer();
              },
          .client =
              [](int fd) {
                const int second = connect_another();
                const int set = ::epoll_create1(0);
                add(set, fd, EPOLLIN);
                await_peer();
                std::thread other([set, second] {
                  sleep_ms(30);
                  add(set, second, EPOLLIN);
                });
                CHECK(wait(set, 10'000) == std::multiset<int>{second});
                other.join();
                CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_DEL, second, nullptr), 0);
                tell_peer();
                CHECK(wait(set, 10'000) == std::multiset<int>{fd});
                tell_peer();
              }};

// A set inside poll, and a set inside a set.
BEHAVIOUR{.name = "that_refuse_a_connection_change_nothing",
          .server =
              [](int fd) {
                for (int i = 0; i < 3; ++i) {
                  CHECK_EQ(read_exactly(fd, 1), "x");
                  write_all(fd, "y");
                }
              },
          .client =
              [](int fd) {
                const auto exchange = [fd] { write_all(fd, "x"), CHECK_EQ(read_exactly(fd, 1), "y"); };
                epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
                const int no_set = ::eventfd(0, 0);
                CHECK_ERRNO(::epoll_ctl(no_set, EPOLL_CTL_ADD, fd, &event), EINVAL);
                CHECK_ERRNO(::epoll_ctl(no_set, EPOLL_CTL_MOD, fd, &event), EINVAL);
                CHECK_ERRNO(::epoll_ctl(fd, EPOLL_CTL_ADD, fd, &event), EINVAL);
                CHECK_ERRNO(::epoll_ctl(1000, EPOLL_CTL_ADD, fd, &event), EBADF);
                exchange();
                const int set = ::epoll_create1(0);
                event.events = EPOLLIN | EPOLLRDHUP | EPOLLEXCLUSIVE;
                CHECK_ERRNO(::epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), EINVAL);
                event.events = EPOLLIN | EPOLLONESHOT | EPOLLEXCLUSIVE;
                CHECK_ERRNO(::epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), EINVAL);
                exchange();
                CHECK_EQ(wait(set, 0).size(), 0);
                // Nor does a refused set take its connections along.
                add(set, fd, EPOLLIN);
                event.events = EPOLLIN;
                CHECK_ERRNO(::epoll_ctl(no_set, EPOLL_CTL_ADD, set, &event), EINVAL);
                event.events = EPOLLIN | EPOLLEXCLUSIVE;
                const int outer = ::epoll_create1(0);
                CHECK_ERRNO(::epoll_ctl(outer, EPOLL_CTL_ADD, set, &event), EINVAL);
                exchange();
                CHECK_EQ(wait(set, 0).size(), 0);
              }};

BEHAVIOUR{.name = "waited_on_by_others",
          .server =
              [](int fd) {
                for (int i = 0; i < 3; ++i) {
                  await_peer();
                  sleep_ms(20);
                  write_all(fd, "x");
                  read_exactly(fd, 1);
                }
              },
          .client =
              [](int fd) {
                const int inner = ::epoll_create1(0);
                const int outer = ::epoll_create1(0);
                add(inner, fd, EPOLLIN);
                add(outer, inner, EPOLLIN);
                for (int i = 0; i < 3; ++i) {
                  CHECK(!is_readable(inner, 0));
                  CHECK(wait(outer, 0).empty());
                  tell_peer();
                  if (i != 1) CHECK(wait(outer, 10'000) == std::multiset<int>{inner});
                  CHECK(is_readable(inner, 10'000));
                  CHECK(wait(inner, 1000) == std::multiset<int>{fd});
                  CHECK_EQ(read_exactly(fd, 1), "x");
                  CHECK(!is_readable(inner, 0));
                  write_all(fd, "y");
                }
              },
          .leaves_ring = true};

BEHAVIOUR{.name = "with_two_threads_waiting",
          .server =
              [](int fd) {
                for (int i = 0; i < 200; ++i) {
                  write_all(fd, "x");
                  CHECK_EQ(read_exactly(fd, 1), "y");
                }
                ::close(fd);
              },
          .client =
              [](int fd) {
                const int set = ::epoll_create1(0);
                add(set, fd, EPOLLIN | EPOLLONESHOT);
                const auto work = [set, fd] {
                  for (;;) {
                    CHECK(wait(set, 10'000) == std::multiset<int>{fd});
                    char byte = 0;
                    const ssize_t n = ::read(fd, &byte, 1);
                    CHECK(n >= 0);
                    if (n == 1) write_all(fd, "y");
                    epoll_event event{.events = EPOLLIN | EPOLLONESHOT, .data = {.fd = fd}};
                    CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_MOD, fd, &event), 0);
                    if (n == 0) return;
                  }
                };
                std::thread one(work);
                std::thread two(work);
                one.join();
                two.join();
              }};

}  // namespace
}  // namespace shunt::behaviour
