// Several threads and processes that wait for the same connections: no event is lost, none is told to two.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

constexpr int kConnections = 6;
constexpr int kThreads = 4;
constexpr int kRounds = 150;
constexpr int kNever_ms = 10'000;

void control(int set, int operation, int fd, uint32_t events) {
  epoll_event event{.events = events, .data = {.fd = fd}};
  CHECK_EQ(::epoll_ctl(set, operation, fd, &event), 0);
}

// The descriptor told of, with its events in `events`; −1 when the time was up.
int wait_one(int set, int timeout_ms, uint32_t* events = nullptr) {
  epoll_event event{};
  const int n = ::epoll_wait(set, &event, 1, timeout_ms);
  CHECK(n >= 0);
  if (events != nullptr) *events = event.events;
  return n == 1 ? event.data.fd : -1;
}

void in_threads(const std::function<void()>& body) {
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) threads.emplace_back(body);
  for (std::thread& thread : threads) thread.join();
}

// Each round a byte on every connection, and an answer to each; then the end.
void ask_all(int fd) {
  std::vector<int> fds{fd};
  for (int i = 1; i < kConnections; ++i) fds.push_back(accept_another());
  await_peer();
  for (int round = 0; round < kRounds; ++round) {
    for (const int each : fds) write_all(each, "x");
    for (const int each : fds) CHECK_EQ(read_exactly(each, 1), "y");
  }
  for (const int each : fds) ::close(each);
}

// What a one-shot event is worth: the thread that got it has the connection to itself until it arms it again.
void answer_all(int fd, uint32_t mode) {
  const int set = ::epoll_create1(0);
  const int done = ::eventfd(0, 0);
  std::vector<int> fds{fd};
  for (int i = 1; i < kConnections; ++i) fds.push_back(connect_another());
  for (const int each : fds) control(set, EPOLL_CTL_ADD, each, EPOLLIN | EPOLLONESHOT | mode);
  control(set, EPOLL_CTL_ADD, done, EPOLLIN);
  tell_peer();
  std::atomic<int> ends = 0;
  std::atomic<int> owners[1024] = {};
  in_threads([&] {
    for (;;) {
      const int each = wait_one(set, kNever_ms);
      CHECK(each >= 0);
      if (each == done) return;
      CHECK_EQ(owners[each].fetch_add(1), 0);
      char byte = 0;
      const ssize_t n = ::recv(each, &byte, 1, MSG_DONTWAIT);
      CHECK(n >= 0);  // EAGAIN: somebody else had been told as well
      if (n == 1) write_all(each, "y");
      owners[each].fetch_sub(1);
      if (n == 1) control(set, EPOLL_CTL_MOD, each, EPOLLIN | EPOLLONESHOT | mode);
      if (n == 0 && ends.fetch_add(1) + 1 == kConnections) CHECK_EQ(::eventfd_write(done, 1), 0);
    }
  });
  CHECK_EQ(ends.load(), kConnections);
}

BEHAVIOUR{.name = "of_one_shot_events_share_them", .server = ask_all, .client = [](int fd) { answer_all(fd, 0); }};

BEHAVIOUR{.name = "of_one_shot_edges_share_them", .server = ask_all, .client = [](int fd) { answer_all(fd, EPOLLET); }};

BEHAVIOUR{.name = "registered_before_the_upgrade_share_one_shot_events",
          .server = ask_all,
          .client = [](int fd) { answer_all(fd, 0); },
          .warms_up = false};

// epoll_ctl(2): "one or more of the epoll file descriptors will receive an event".
BEHAVIOUR{.name = "in_exclusive_sets_get_every_byte",
          .server =
              [](int fd) {
                await_peer();
                for (int round = 0; round < kRounds; ++round) {
                  write_all(fd, "x");
                  CHECK_EQ(read_exactly(fd, 1), "y");
                }
                ::shutdown(fd, SHUT_WR);
                await_peer();
              },
          .client =
              [](int fd) {
                std::atomic<int> ready = 0;
                std::atomic<int> bytes = 0;
                in_threads([&] {
                  const int set = ::epoll_create1(0);
                  control(set, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLEXCLUSIVE);
                  epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
                  CHECK_ERRNO(::epoll_ctl(set, EPOLL_CTL_MOD, fd, &event), EINVAL);
                  if (++ready == kThreads) tell_peer();
                  for (;;) {
                    CHECK_EQ(wait_one(set, kNever_ms), fd);
                    char byte = 0;
                    const ssize_t n = ::recv(fd, &byte, 1, MSG_DONTWAIT);
                    if (n == 0) return;
                    if (n == 1) ++bytes, write_all(fd, "y");
                  }
                });
                CHECK_EQ(bytes.load(), kRounds);
                tell_peer();
              },
          .leaves_ring = true};

// Parent and child wait on one set that both inherited, one event at a time.
BEHAVIOUR{.name = "in_two_processes_share_one_shot_events",
          .server =
              [](int fd) {
                await_peer();
                for (int round = 0; round < kRounds; ++round) {
                  write_all(fd, "x");
                  CHECK_EQ(read_exactly(fd, 1), "y");
                }
                ::shutdown(fd, SHUT_WR);
              },
          .client =
              [](int fd) {
                const int set = ::epoll_create1(0);
                const int begun = ::eventfd(0, 0);
                control(set, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLONESHOT);
                const auto work = [set, fd] {
                  for (;;) {
                    CHECK_EQ(wait_one(set, kNever_ms), fd);
                    char byte = 0;
                    const ssize_t n = ::recv(fd, &byte, 1, MSG_DONTWAIT);
                    CHECK(n >= 0);
                    if (n == 1) write_all(fd, "y");
                    control(set, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLONESHOT);
                    if (n == 0) return;
                  }
                };
                const int child = in_child([&] {
                  CHECK_EQ(::eventfd_write(begun, 1), 0);
                  work();
                });
                eventfd_t count = 0;
                CHECK_EQ(::eventfd_read(begun, &count), 0);
                tell_peer();
                work();
                join_child(child);
              },
          .leaves_ring = true};

// epoll_ctl(2): after an event the registration "is disabled", for everybody who has the set.
BEHAVIOUR{.name = "in_two_processes_hear_of_a_one_shot_event_once",
          .server =
              [](int fd) {
                for (const char* each : {"x", "y", "z"}) {
                  await_peer();
                  write_all(fd, each);
                  tell_peer();
                }
                await_peer();
              },
          .client =
              [](int fd) {
                const int set = ::epoll_create1(0);
                control(set, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLONESHOT);
                const auto ask = [] { tell_peer(), await_peer(); };
                // The first to wait here gets it.
                join_child(in_child([&] {
                  CHECK_EQ(wait_one(set, 0), -1);
                  ask();
                  CHECK_EQ(wait_one(set, kNever_ms), fd);
                }));
                CHECK_EQ(wait_one(set, 50), -1);
                control(set, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLONESHOT);
                CHECK_EQ(wait_one(set, kNever_ms), fd);
                CHECK_EQ(read_exactly(fd, 1), "x");
                // What one has disabled the other may arm.
                join_child(in_child([&] {
                  ask();
                  CHECK_EQ(wait_one(set, 50), -1);
                  control(set, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLONESHOT);
                }));
                CHECK_EQ(wait_one(set, kNever_ms), fd);
                join_child(in_child([&] { CHECK_EQ(wait_one(set, 50), -1); }));
                CHECK_EQ(wait_one(set, 50), -1);
                CHECK_EQ(read_exactly(fd, 1), "y");
                control(set, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLONESHOT);
                ask();
                CHECK_EQ(wait_one(set, kNever_ms), fd);
                CHECK_EQ(wait_one(set, 50), -1);
                CHECK_EQ(read_exactly(fd, 1), "z");
                tell_peer();
              },
          .leaves_ring = true};

// On the ring when the child is made, and given an event that the parent has had before.
BEHAVIOUR{.name = "in_a_child_arm_what_fired_in_the_parent",
          .server =
              [](int fd) {
                write_all(fd, "x");
                await_peer();
              },
          .client =
              [](int fd) {
                const int set = ::epoll_create1(0);
                control(set, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLONESHOT);
                CHECK_EQ(wait_one(set, kNever_ms), fd);
                join_child(in_child([&] {
                  CHECK_EQ(wait_one(set, 50), -1);
                  control(set, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLONESHOT);
                }));
                CHECK_EQ(wait_one(set, kNever_ms), fd);
                CHECK_EQ(wait_one(set, 50), -1);
                control(set, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLONESHOT);
                CHECK_EQ(wait_one(set, kNever_ms), fd);
                CHECK_EQ(read_exactly(fd, 1), "x");
                tell_peer();
              },
          .leaves_ring = true};

// A level that stays true is told to every thread that waits; what was deleted is told to none.
BEHAVIOUR{.name = "are_not_told_of_what_another_thread_has_deleted",
          .server =
              [](int fd) {
                await_peer();
                sleep_ms(20);
                write_all(fd, "x");
                tell_peer();
                await_peer();
              },
          .client =
              [](int fd) {
                const int set = ::epoll_create1(0);
                control(set, EPOLL_CTL_ADD, fd, EPOLLIN);
                std::thread other([set] { CHECK_EQ(wait_one(set, 200), -1); });
                sleep_ms(20);
                CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_DEL, fd, nullptr), 0);
                tell_peer();
                await_peer();
                other.join();
                CHECK_EQ(read_exactly(fd, 1), "x");
                tell_peer();
              }};

// EPOLL_CTL_MOD while another thread sleeps: what is true already wakes it.
BEHAVIOUR{.name = "are_woken_by_a_change_of_interest",
          .server = [](int) { await_peer(); },
          .client =
              [](int fd) {
                const int set = ::epoll_create1(0);
                control(set, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLET);
                for (int i = 0; i < 5; ++i) {
                  std::thread other([set, fd] {
                    uint32_t events = 0;
                    CHECK_EQ(wait_one(set, kNever_ms, &events), fd);
                    CHECK_EQ(events, uint32_t{EPOLLOUT});
                  });
                  sleep_ms(10);
                  control(set, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLOUT | EPOLLET);
                  other.join();
                  control(set, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLET);
                }
                tell_peer();
              }};

// A number that is closed and given out again is another connection: nothing of the first is told of it.
BEHAVIOUR{.name = "of_a_number_used_again_hear_of_the_new_connection_only",
          .server =
              [](int fd) {
                write_all(fd, "old");
                const int second = accept_another();
                tell_peer();
                await_peer();
                write_all(second, "new");
                tell_peer();
                await_peer();
              },
          .client =
              [](int fd) {
                const int set = ::epoll_create1(0);
                control(set, EPOLL_CTL_ADD, fd, EPOLLIN);
                CHECK_EQ(wait_one(set, kNever_ms), fd);
                const int other = connect_another();
                CHECK_EQ(::dup2(other, fd), fd);
                ::close(other);
                await_peer();
                CHECK_EQ(wait_one(set, 10), -1);
                control(set, EPOLL_CTL_ADD, fd, EPOLLIN);
                CHECK_EQ(wait_one(set, 10), -1);
                tell_peer();
                await_peer();
                CHECK_EQ(wait_one(set, kNever_ms), fd);
                CHECK_EQ(read_exactly(fd, 3), "new");
                CHECK_EQ(wait_one(set, 0), -1);
                tell_peer();
              }};

BEHAVIOUR{.name = "in_select_hear_of_a_set",
          .server =
              [](int fd) {
                await_peer();
                sleep_ms(20);
                write_all(fd, "x");
                await_peer();
              },
          .client =
              [](int fd) {
                const int set = ::epoll_create1(0);
                control(set, EPOLL_CTL_ADD, fd, EPOLLIN);
                fd_set readable;
                FD_ZERO(&readable);
                FD_SET(set, &readable);
                timeval time{0, 0};
                CHECK_EQ(::select(set + 1, &readable, nullptr, nullptr, &time), 0);
                FD_SET(set, &readable);
                tell_peer();
                time = {10, 0};
                CHECK_EQ(::select(set + 1, &readable, nullptr, nullptr, &time), 1);
                CHECK(FD_ISSET(set, &readable));
                CHECK_EQ(wait_one(set, 0), fd);
                tell_peer();
              },
          .leaves_ring = true};

}  // namespace
}  // namespace shunt::behaviour
