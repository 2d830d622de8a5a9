// epoll: level and edge triggered, one-shot, changes of interest, hang-ups.
// The expected bits were read off the kernel (6.x) and are checked against it in the kernel way.
#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <map>
#include <thread>

#include "alarms.h"
#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"
#include "signals.h"

namespace shunt::behaviour {
namespace {

constexpr int kRounds = 2000;
constexpr uint32_t kHungUp = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLHUP;

struct Set {
  int fd = ::epoll_create1(EPOLL_CLOEXEC);

  void control(int operation, int socket, uint32_t events) const {
    epoll_event event{.events = events, .data = {.u64 = 0xabcd000000000000U + static_cast<uint64_t>(socket)}};
    CHECK_EQ(::epoll_ctl(fd, operation, socket, &event), 0);
  }
  void add(int socket, uint32_t events) const { control(EPOLL_CTL_ADD, socket, events); }
  void modify(int socket, uint32_t events) const { control(EPOLL_CTL_MOD, socket, events); }
  void remove(int socket) const { CHECK_EQ(::epoll_ctl(fd, EPOLL_CTL_DEL, socket, nullptr), 0); }

  // Descriptor → events, of one wait.
  std::map<int, uint32_t> wait(int timeout_ms, int most = 16) const {
    epoll_event events[16];
    const int n = ::epoll_wait(fd, events, most, timeout_ms);
    CHECK(n >= 0);
    std::map<int, uint32_t> result;
    for (int i = 0; i < n; ++i) {
      CHECK_EQ(events[i].data.u64 >> 48, 0xabcdU);
      const auto socket = static_cast<int>(events[i].data.u64 & 0xffffffffU);
      CHECK(!result.contains(socket));
      result[socket] = events[i].events;
    }
    return result;
  }

  // Events of the only connection in the set; 0 when the time was up.
  uint32_t wait_one(int timeout_ms = 0) const {
    const std::map<int, uint32_t> result = wait(timeout_ms);
    CHECK(result.size() <= 1);
    return result.empty() ? 0 : result.begin()->second;
  }
};

// The server's half of most of these: one byte when asked, `times` times.
void write_when_asked(int fd, int times) {
  for (int i = 0; i < times; ++i) {
    await_peer();
    write_all(fd, "x");
    tell_peer();
  }
  await_peer();
}

void ask_for_byte() {
  tell_peer();
  await_peer();
}

BEHAVIOUR{.name = "level_triggered_tells_until_read",
          .server = [](int fd) { write_when_asked(fd, 2); },
          .client =
              [](int fd) {
                const Set set;
                set.add(fd, EPOLLIN);
                CHECK_EQ(set.wait_one(), 0U);
                ask_for_byte();
                for (int i = 0; i < 3; ++i) CHECK_EQ(set.wait_one(1000), EPOLLIN);
                CHECK_EQ(read_exactly(fd, 1), "x");
                CHECK_EQ(set.wait_one(10), 0U);
                ask_for_byte();
                CHECK_EQ(set.wait_one(1000), EPOLLIN);
                tell_peer();
              }};

// A connection and a pipe that get ready at about the same time, with room for just the two.
BEHAVIOUR{.name = "nothing_is_told_twice_in_one_answer",
          .server =
              [](int fd) {
                for (int round = 0; round < kRounds; ++round) write_all(fd, read_exactly(fd, 1));
              },
          .client =
              [](int fd) {
                const Set set;
                int ends[2];
                CHECK_EQ(::pipe(ends), 0);
                set.add(fd, EPOLLIN);
                set.add(ends[0], EPOLLIN);
                std::atomic<int> started = 0;
                std::thread other([&] {
                  for (int round = 1; round <= kRounds; ++round) {
                    while (started.load() < round) ::sched_yield();
                    ::usleep(static_cast<unsigned>(round % 40));
                    CHECK_EQ(::write(ends[1], "x", 1), 1);
                  }
                });
                for (int round = 1; round <= kRounds; ++round) {
                  write_all(fd, "x");
                  started = round;
                  for (int got = 0; got < 2;) {
                    epoll_event events[2];
                    const int n = ::epoll_wait(set.fd, events, 2, 10'000);
                    CHECK(n > 0);
                    CHECK(n == 1 || events[0].data.u64 != events[1].data.u64);
                    for (int i = 0; i < n; ++i, ++got) read_exactly(static_cast<int>(events[i].data.u64 & 0xffffffffU), 1);
                  }
                }
                other.join();
                ::close(ends[0]);
                ::close(ends[1]);
              },
          .warms_up = true};

BEHAVIOUR{.name = "edge_triggered_tells_once_per_arrival",
          .server = [](int fd) { write_when_asked(fd, 3); },
          .client =
              [](int fd) {
                const Set set;
                set.add(fd, EPOLLIN | EPOLLET);
                CHECK_EQ(set.wait_one(), 0U);
                ask_for_byte();
                CHECK_EQ(set.wait_one(1000), EPOLLIN);
                CHECK_EQ(set.wait_one(10), 0U);
                ask_for_byte();  // more, although the first is unread
                CHECK_EQ(set.wait_one(1000), EPOLLIN);
                CHECK_EQ(set.wait_one(10), 0U);
                read_exactly(fd, 1);
                CHECK_EQ(set.wait_one(10), 0U);
                read_exactly(fd, 1);
                ask_for_byte();
                CHECK_EQ(set.wait_one(1000), EPOLLIN);
                read_exactly(fd, 1);
                CHECK_EQ(set.wait_one(10), 0U);
                tell_peer();
              },
          .limit = kByUpgrades};

BEHAVIOUR{.name = "edge_triggered_registration_tells_what_is_there",
          .server = [](int fd) { write_when_asked(fd, 1); },
          .client =
              [](int fd) {
                const Set set;
                ask_for_byte();
                set.add(fd, EPOLLIN | EPOLLOUT | EPOLLET);
                CHECK_EQ(set.wait_one(1000), EPOLLIN | EPOLLOUT);
                CHECK_EQ(set.wait_one(10), 0U);
                set.modify(fd, EPOLLIN | EPOLLOUT | EPOLLET);
                CHECK_EQ(set.wait_one(1000), EPOLLIN | EPOLLOUT);
                CHECK_EQ(set.wait_one(10), 0U);
                tell_peer();
              },
          .limit = kByUpgrades};

// unix_shutdown: sk_state_change() wakes the waiters of the socket itself.
BEHAVIOUR{.name = "edge_triggered_registration_tells_of_an_own_shutdown",
          .server = [](int fd) { write_when_asked(fd, 1); },
          .client =
              [](int fd) {
                const Set set;
                ask_for_byte();
                set.add(fd, EPOLLIN | EPOLLET);
                CHECK_EQ(set.wait_one(1000), EPOLLIN);
                CHECK_EQ(set.wait_one(10), 0U);
                CHECK_EQ(::shutdown(fd, SHUT_WR), 0);
                CHECK_EQ(set.wait_one(1000), EPOLLIN);
                CHECK_EQ(set.wait_one(10), 0U);
                tell_peer();
              },
          .limit = kByUpgrades};

BEHAVIOUR{.name = "one_shot_tells_once_until_rearmed",
          .server = [](int fd) { write_when_asked(fd, 2); },
          .client =
              [](int fd) {
                const Set set;
                set.add(fd, EPOLLIN | EPOLLONESHOT);
                ask_for_byte();
                CHECK_EQ(set.wait_one(1000), EPOLLIN);
                CHECK_EQ(set.wait_one(10), 0U);
                ask_for_byte();
                CHECK_EQ(set.wait_one(10), 0U);
                set.modify(fd, EPOLLIN | EPOLLONESHOT);
                CHECK_EQ(set.wait_one(1000), EPOLLIN);
                CHECK_EQ(set.wait_one(10), 0U);
                read_exactly(fd, 2);
                set.modify(fd, EPOLLIN | EPOLLONESHOT);
                CHECK_EQ(set.wait_one(10), 0U);
                tell_peer();
              }};

BEHAVIOUR{.name = "interest_can_be_changed",
          .server = [](int fd) { write_when_asked(fd, 1); },
          .client =
              [](int fd) {
                const Set set;
                set.add(fd, EPOLLOUT);
                CHECK_EQ(set.wait_one(), EPOLLOUT);
                CHECK_EQ(set.wait_one(), EPOLLOUT);
                set.modify(fd, EPOLLIN);
                CHECK_EQ(set.wait_one(), 0U);
                ask_for_byte();
                CHECK_EQ(set.wait_one(1000), EPOLLIN);
                set.modify(fd, EPOLLIN | EPOLLOUT);
                CHECK_EQ(set.wait_one(), EPOLLIN | EPOLLOUT);
                set.modify(fd, 0);
                CHECK_EQ(set.wait_one(10), 0U);
                set.modify(fd, EPOLLIN);
                CHECK_EQ(set.wait_one(1000), EPOLLIN);
                set.remove(fd);
                CHECK_EQ(set.wait_one(10), 0U);
                epoll_event event{};
                CHECK_ERRNO(::epoll_ctl(set.fd, EPOLL_CTL_MOD, fd, &event), ENOENT);
                CHECK_ERRNO(::epoll_ctl(set.fd, EPOLL_CTL_DEL, fd, nullptr), ENOENT);
                set.add(fd, EPOLLIN);
                CHECK_ERRNO(::epoll_ctl(set.fd, EPOLL_CTL_ADD, fd, &event), EEXIST);
                CHECK_EQ(set.wait_one(1000), EPOLLIN);
                tell_peer();
              }};

BEHAVIOUR{.name = "peer_shut_its_writing",
          .server =
              [](int fd) {
                write_all(fd, "x");
                ::shutdown(fd, SHUT_WR);
                tell_peer();
                await_peer();
              },
          .client =
              [](int fd) {
                const Set set;
                set.add(fd, EPOLLIN);
                await_peer();
                CHECK_EQ(set.wait_one(1000), EPOLLIN);
                set.modify(fd, EPOLLIN | EPOLLRDHUP | EPOLLOUT);
                CHECK_EQ(set.wait_one(1000), EPOLLIN | EPOLLRDHUP | EPOLLOUT);
                read_exactly(fd, 1);
                CHECK_EQ(set.wait_one(1000), EPOLLIN | EPOLLRDHUP | EPOLLOUT);
                set.modify(fd, EPOLLRDHUP);
                CHECK_EQ(set.wait_one(1000), EPOLLRDHUP);
                tell_peer();
              }};

BEHAVIOUR{.name = "peer_closed",
          .server =
              [](int fd) {
                write_all(fd, "x");
                ::close(fd);
                tell_peer();
              },
          .client =
              [](int fd) {
                const Set set;
                set.add(fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP);
                await_peer();
                CHECK_EQ(set.wait_one(1000), kHungUp);
                read_exactly(fd, 1);
                CHECK_EQ(set.wait_one(1000), kHungUp);
                set.modify(fd, 0);
                CHECK_EQ(set.wait_one(1000), EPOLLHUP);
                expect_end_of_stream(fd);
              }};

BEHAVIOUR{.name = "peer_closed_without_reading",
          .server =
              [](int fd) {
                await_peer();
                ::close(fd);
                tell_peer();
              },
          .client =
              [](int fd) {
                const Set set;
                set.add(fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP);
                write_all(fd, "x");
                tell_peer();
                await_peer();
                CHECK_EQ(set.wait_one(1000), kHungUp | EPOLLERR);
                char byte = 0;
                CHECK_ERRNO(::read(fd, &byte, 1), ECONNRESET);
                CHECK_EQ(set.wait_one(1000), kHungUp);
              }};

BEHAVIOUR{.name = "peer_closes_during_the_wait",
          .server =
              [](int fd) {
                await_peer();
                sleep_ms(20);
                ::close(fd);
              },
          .client =
              [](int fd) {
                const Set set;
                set.add(fd, EPOLLIN | EPOLLRDHUP | EPOLLET);
                tell_peer();
                CHECK_EQ(set.wait_one(10'000), EPOLLIN | EPOLLRDHUP | EPOLLHUP);
                // With the library an edge may be told once more (docs/limits.md).
                if (current_way() == Way::kernel) CHECK_EQ(set.wait_one(10), 0U);
                expect_end_of_stream(fd);
              }};

BEHAVIOUR{.name = "not_ready_after_a_sleeper_has_read",
          .server =
              [](int fd) {
                for (int i = 0; i < 6; ++i) {
                  sleep_ms(10);
                  write_all(fd, "hello");
                  CHECK_EQ(read_exactly(fd, 1), "x");
                }
              },
          .client =
              [](int fd) {
                const Set set;
                set.add(fd, EPOLLIN);
                for (int i = 0; i < 6; ++i) {
                  if (i % 2 == 0) CHECK_EQ(set.wait_one(10'000), EPOLLIN);
                  CHECK_EQ(read_exactly(fd, 5), "hello");
                  CHECK_EQ(set.wait_one(i % 3), 0U);
                  write_all(fd, "x");
                }
              }};

void full_and_drained_server(int fd) {
  for (int round = 0; round < 3; ++round) {
    read_stream(fd, 0, await_peer(), 10'000);
    tell_peer();
  }
}

BEHAVIOUR{.name = "level_triggered_full_and_drained",
          .server = full_and_drained_server,
          .client =
              [](int fd) {
                const Set set;
                set.add(fd, EPOLLIN | EPOLLOUT);
                set_blocking(fd, false);
                for (int round = 0; round < 3; ++round) {
                  CHECK_EQ(set.wait_one(), EPOLLOUT);
                  const uint64_t count = fill(fd, 0, 7000);
                  CHECK_EQ(set.wait_one(20), 0U);
                  tell_peer(static_cast<uint32_t>(count));
                  CHECK_EQ(set.wait_one(10'000), EPOLLOUT);
                  await_peer();
                }
              },
          .limit = kByFences};

BEHAVIOUR{.name = "edge_triggered_full_and_drained",
          .server = full_and_drained_server,
          .client =
              [](int fd) {
                const Set set;
                set.add(fd, EPOLLIN | EPOLLOUT | EPOLLET);
                set_blocking(fd, false);
                CHECK_EQ(set.wait_one(), EPOLLOUT);
                for (int round = 0; round < 3; ++round) {
                  const uint64_t count = fill(fd, 0, 7000);
                  while (set.wait_one(10) != 0) {  // what was left over from the round before
                  }
                  tell_peer(static_cast<uint32_t>(count));
                  CHECK_EQ(set.wait_one(10'000), EPOLLOUT);
                  await_peer();
                }
              },
          .limit = kByFences};

// A bulk sender and receiver that trust edges alone, as event loops do.
BEHAVIOUR{.name = "edge_triggered_bulk",
          .server =
              [](int fd) {
                const Set set;
                set.add(fd, EPOLLIN | EPOLLET | EPOLLRDHUP);
                set_blocking(fd, false);
                std::string data(30'000, '\0');
                for (uint64_t done = 0; done < 8'000'000;) {
                  CHECK(set.wait_one(10'000) != 0);
                  for (;;) {
                    const ssize_t n = ::read(fd, data.data(), data.size());
                    if (n < 0 && errno == EAGAIN) break;
                    if (n == 0) break;
                    CHECK(n > 0);
                    CHECK_EQ(agreeing(data.substr(0, static_cast<size_t>(n)), done), static_cast<size_t>(n));
                    done += static_cast<uint64_t>(n);
                  }
                }
              },
          .client =
              [](int fd) {
                const Set set;
                set.add(fd, EPOLLOUT | EPOLLET);
                set_blocking(fd, false);
                for (uint64_t done = 0; done < 8'000'000;) {
                  CHECK_EQ(set.wait_one(10'000), EPOLLOUT);
                  while (done < 8'000'000) {
                    const std::string data =
                        bytes_at(done, static_cast<size_t>(std::min<uint64_t>(50'000, 8'000'000 - done)));
                    const ssize_t n = ::write(fd, data.data(), data.size());
                    if (n < 0 && errno == EAGAIN) break;
                    CHECK(n > 0);
                    done += static_cast<uint64_t>(n);
                  }
                }
              }};

BEHAVIOUR{.name = "data_arrives_during_the_wait",
          .server =
              [](int fd) {
                for (int i = 0; i < 6; ++i) {
                  await_peer();
                  sleep_ms(20);
                  write_all(fd, "x");
                  read_exactly(fd, 1);
                }
              },
          .client =
              [](int fd) {
                const Set level;
                const Set edge;
                level.add(fd, EPOLLIN);
                edge.add(fd, EPOLLIN | EPOLLET);
                for (int i = 0; i < 6; ++i) {
                  tell_peer();
                  epoll_event event{};
                  const timespec span{10, 0};
                  if (i == 0) CHECK_EQ(level.wait_one(-1), EPOLLIN);
                  if (i == 1) CHECK_EQ(edge.wait_one(10'000), EPOLLIN);
                  if (i == 2) CHECK_EQ(::epoll_pwait(level.fd, &event, 1, 10'000, nullptr), 1);
                  if (i == 3) CHECK_EQ(::epoll_pwait2(level.fd, &event, 1, &span, nullptr), 1);
                  if (i >= 4) CHECK_EQ(level.wait_one(10'000), EPOLLIN);
                  CHECK_EQ(read_exactly(fd, 1), "x");
                  write_all(fd, "y");
                }
              }};

BEHAVIOUR{.name = "timeouts_and_signals",
          .server = [](int) { await_peer(); },
          .client =
              [](int fd) {
                const Set set;
                set.add(fd, EPOLLIN);
                double start = now_ms();
                CHECK_EQ(set.wait_one(60), 0U);
                CHECK(now_ms() - start >= 59 && now_ms() - start < 1500);
                epoll_event event{};
                const timespec span{0, 60'000'000};
                start = now_ms();
                CHECK_EQ(::epoll_pwait2(set.fd, &event, 1, &span, nullptr), 0);
                CHECK(now_ms() - start >= 59 && now_ms() - start < 1500);
                count_signal(SIGALRM, SA_RESTART);
                alarm_after_sleep_ms(20);
                CHECK_ERRNO(::epoll_wait(set.fd, &event, 1, 10'000), EINTR);
                sigset_t open;
                sigset_t blocked;
                ::sigemptyset(&open);
                ::sigemptyset(&blocked);
                ::sigaddset(&blocked, SIGALRM);
                ::sigprocmask(SIG_BLOCK, &blocked, nullptr);
                alarm_after_ms(1);
                sleep_ms(20);
                CHECK_EQ(signals_counted(), 1);
                CHECK_ERRNO(::epoll_pwait(set.fd, &event, 1, 10'000, &open), EINTR);
                CHECK_EQ(signals_counted(), 2);
                CHECK_ERRNO(::epoll_wait(set.fd, &event, 0, 0), EINVAL);
                CHECK_ERRNO(::epoll_wait(fd, &event, 1, 0), EINVAL);
                tell_peer();
              }};

}  // namespace
}  // namespace shunt::behaviour
