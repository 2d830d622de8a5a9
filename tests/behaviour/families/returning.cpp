// A connection goes back to the kernel with bytes unread, and a handler, or another thread, reads at any moment of that.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

// The other end stays on the ring; or it has left it before, and what it sent then lies in the kernel, behind the ring; or its stream has ended.
enum class Peer { stays, left, ended };
constexpr int kReturns = 40;
constexpr size_t kUnread = 700;
int returning = -1;
std::string taken_by_other;

void take_some(int) {
  char data[90];
  const ssize_t n = ::recv(returning, data, sizeof data, MSG_DONTWAIT);
  if (n > 0) taken_by_other.append(data, static_cast<size_t>(n));
}

template <Peer kPeer>
void write_to_returning(int) {
  for (int i = 0; i < kReturns; ++i) {
    const int fd = accept_another();
    write_all(fd, bytes_at(0, kUnread));
    if (kPeer == Peer::left) CHECK_EQ(::fcntl(fd, F_SETOWN, ::getpid()), 0);
    tell_peer();
    write_all(fd, read_exactly(fd, 1));
    if (kPeer == Peer::ended) CHECK_EQ(::shutdown(fd, SHUT_WR), 0);
    if (kPeer != Peer::stays) tell_peer();
    if (i % 10 == 9) await_peer();  // in no call: what lies in the ring is read there
    CHECK_EQ(read_exactly(fd, 1), "y");
    ::close(fd);
  }
}

template <Peer kPeer, typename Leave>
void return_to_kernel(Leave leave) {
  taken_by_other.reserve(kUnread + 1);
  for (int i = 0; i < kReturns; ++i) {
    returning = connect_another();
    await_peer();
    taken_by_other.clear();
    write_all(returning, "x");
    if (kPeer != Peer::stays) await_peer();
    leave(i);
    const std::string rest = read_exactly(returning, kUnread + 1 - taken_by_other.size());
    CHECK_EQ(taken_by_other + rest, bytes_at(0, kUnread) + "x");
    if (i % 10 == 9) tell_peer();
    write_all(returning, "y");
    ::close(returning);
  }
}

template <Peer kPeer>
void return_beside_handler(int) {
  struct sigaction action = {};
  action.sa_handler = take_some;
  CHECK_EQ(::sigaction(SIGALRM, &action, nullptr), 0);
  return_to_kernel<kPeer>([](int i) {
    const itimerval soon{{0, 20}, {0, 1 + i * 7 % 60}};
    CHECK_EQ(::setitimer(ITIMER_REAL, &soon, nullptr), 0);
    CHECK_EQ(::fcntl(returning, F_SETOWN, ::getpid()), 0);
    const itimerval never{};
    CHECK_EQ(::setitimer(ITIMER_REAL, &never, nullptr), 0);
  });
}

template <Peer kPeer>
void return_beside_thread(int) {
  return_to_kernel<kPeer>([](int i) {
    std::atomic<bool> begun = false;
    std::thread reader([&, i] {
      begun = true;
      for (size_t bytes = 90; taken_by_other.size() < kUnread + 1; bytes = 20 + static_cast<size_t>(i) % 7) {
        char data[90];
        const ssize_t n = ::recv(returning, data, bytes, i % 2 ? MSG_DONTWAIT : 0);
        CHECK(n > 0 || (n < 0 && errno == EAGAIN));
        if (n > 0) taken_by_other.append(data, static_cast<size_t>(n));
      }
    });
    while (!begun) ::sched_yield();
    for (const double end = now_ms() + 0.002 * (i % 10); now_ms() < end;) {
    }
    CHECK_EQ(::fcntl(returning, F_SETOWN, ::getpid()), 0);
    reader.join();
  });
}

// The peer puts back as much as its small buffer takes, while a thread here reads some of that; then it is silent until the ring was left for good, and
// goes on writing. What it writes comes behind what the ring still has.
constexpr size_t kMany = 60'000, kMore = 100;
constexpr int kPartly = 5;

void put_back_partly(int) {
  for (int i = 0; i < kPartly; ++i) {
    const int fd = accept_another();
    write_all(fd, bytes_at(0, kMany));
    const int small = 1;
    CHECK_EQ(::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    tell_peer();
    sleep_ms(10);
    char byte;
    CHECK_ERRNO(::recv(fd, &byte, 1, MSG_DONTWAIT), EAGAIN);
    await_peer();
    write_all(fd, bytes_at(kMany, kMore));
    CHECK_EQ(read_exactly(fd, 1), "y");
    ::close(fd);
  }
}

template <typename Leave>
void read_what_was_put_back(Leave leave) {
  for (int i = 0; i < kPartly; ++i) {
    returning = connect_another();
    await_peer();
    std::string taken;
    std::thread reader([&taken] {
      sleep_ms(5);
      char data[500];
      for (const double end = now_ms() + 100; taken.size() < 1000 && now_ms() < end;) {
        const ssize_t n = ::recv(returning, data, sizeof data, MSG_DONTWAIT);
        if (n > 0) taken.append(data, static_cast<size_t>(n));
      }
    });
    leave();
    reader.join();
    std::string data(kMany, '\0');
    data.resize(static_cast<size_t>(::recv(returning, data.data(), data.size(), 0)));
    taken += data;
    tell_peer();
    sleep_ms(5);
    taken += read_exactly(returning, kMany + kMore - taken.size());
    CHECK_EQ(agreeing(taken, 0), kMany + kMore);
    write_all(returning, "y");
    ::close(returning);
  }
}

BEHAVIOUR{.name = "a_thread_reads_what_the_peer_puts_back_in_part",
          .server = put_back_partly,
          .client = [](int) { read_what_was_put_back([] { CHECK_EQ(::fcntl(returning, F_SETOWN, ::getpid()), 0); }); },
          .leaves_ring = true};
BEHAVIOUR{.name = "a_thread_reads_before_a_relay_brings_the_rest",
          .server = put_back_partly,
          .client = [](int) { read_what_was_put_back([] { CHECK(::fdopen(::dup(returning), "r") != nullptr); }); },
          .leaves_ring = true};

// The peer is in no call. Who reads goes to sleep while the other thread still waits for it, or slept before; nobody but that thread can tell it that there is
// something to read.
BEHAVIOUR{.name = "a_thread_sleeps_as_the_connection_leaves_the_ring",
          .server =
              [](int) {
                for (int i = 0; i < 4; ++i) {
                  const int fd = accept_another();
                  write_all(fd, bytes_at(0, kUnread));
                  tell_peer();
                  await_peer();
                  ::close(fd);
                }
              },
          .client =
              [](int) {
                for (int i = 0; i < 4; ++i) {
                  returning = connect_another();
                  await_peer();
                  std::thread reader([i] {
                    sleep_ms(5 + 20 * i);
                    CHECK_EQ(read_exactly(returning, kUnread), bytes_at(0, kUnread));
                  });
                  CHECK_EQ(::fcntl(returning, F_SETOWN, ::getpid()), 0);
                  reader.join();
                  tell_peer();
                  ::close(returning);
                }
              },
          .leaves_ring = true};

void await_in_epoll(int fd) {
  const int set = ::epoll_create1(0);
  epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
  CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), 0);
  CHECK_EQ(::epoll_wait(set, &event, 1, -1), 1);
  CHECK_EQ(::close(set), 0);
}

// The peer writes in the very moment, and is then in no call. Who sleeps in a read, in poll or in epoll_wait is told of it.
constexpr int kMoments = 15;
BEHAVIOUR{.name = "bytes_for_a_sleeper_come_as_the_connection_leaves_the_ring",
          .server =
              [](int) {
                for (int i = 0; i < kMoments; ++i) {
                  const int fd = accept_another();
                  await_peer();
                  for (const double begin = now_ms(); now_ms() < begin + 0.005 * (i % 20);) {
                  }
                  write_all(fd, bytes_at(0, 100));
                  await_peer();
                  ::close(fd);
                }
              },
          .client =
              [](int) {
                for (int i = 0; i < kMoments; ++i) {
                  returning = connect_another();
                  std::atomic<int> id{0};
                  std::thread reader([&id, i] {
                    id = ::gettid();
                    if (i % 3 == 0) CHECK(is_readable(returning, -1));
                    if (i % 3 == 1) await_in_epoll(returning);
                    CHECK_EQ(read_exactly(returning, 100), bytes_at(0, 100));
                  });
                  while (id == 0) ::sched_yield();
                  await_sleeping(id);
                  tell_peer();
                  CHECK_EQ(::fcntl(returning, F_SETOWN, ::getpid()), 0);
                  reader.join();
                  tell_peer();
                  ::close(returning);
                }
              },
          .leaves_ring = true};

// Anything at once, by chance: how much there is, in which pieces, how long each is silent, how much room the kernel has, and when and how often a thread
// here, and one there, leaves while another reads.
int random_rounds() {
  const char* asked = std::getenv("SHUNT_TEST_RETURNS");
  return asked != nullptr ? std::atoi(asked) : 25;
}
class Dice {
 public:
  explicit Dice(int round) {
    const char* seed = std::getenv("SHUNT_TEST_SEED");
    dice_.seed(static_cast<unsigned>(round * 2 + (current_end() == End::client ? 1 : 0) + (seed != nullptr ? std::atoi(seed) * 1000 : 0)));
  }
  uint64_t below(uint64_t end) { return dice_() % end; }
  bool one_in(uint64_t n) { return below(n) == 0; }
  void pause() {
    if (one_in(20)) return sleep_ms(static_cast<int>(below(4)));
    for (const double end = now_ms() + 0.001 * static_cast<double>(below(40)); now_ms() < end;) {
    }
  }

 private:
  std::mt19937 dice_;
};
uint64_t bytes_of_round(int round) { return 500 + static_cast<uint64_t>(round) * 7919 % 90'000; }

void leave_by_chance(int fd, Dice& dice) {
  if (dice.one_in(4))
    CHECK(::fdopen(::dup(fd), "r") != nullptr);
  else
    CHECK_EQ(::fcntl(fd, F_SETOWN, ::getpid()), 0);
}

void stream_both_ways(int fd, int round) {
  const uint64_t bytes = bytes_of_round(round);
  std::thread reader([fd, round, bytes] {
    Dice dice(round + 10'000);
    for (uint64_t at = 0; at < bytes;) {
      char data[4000];
      const bool sleeps = dice.one_in(2);
      const ssize_t n = ::recv(fd, data, 1 + dice.below(sizeof data), sleeps ? 0 : MSG_DONTWAIT);
      if (n < 0 && errno == EAGAIN) continue;
      CHECK(n > 0);
      CHECK_EQ(agreeing(std::string(data, static_cast<size_t>(n)), at), n);
      at += static_cast<uint64_t>(n);
      if (dice.one_in(3)) dice.pause();
    }
  });
  std::thread leaver([fd, round] {
    Dice dice(round + 20'000);
    for (uint64_t times = dice.below(4); times > 0; --times) {
      dice.pause();
      leave_by_chance(fd, dice);
    }
  });
  Dice dice(round);
  const int small = 1;
  if (dice.one_in(3)) CHECK_EQ(::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
  for (uint64_t at = 0; at < bytes;) {
    const uint64_t piece = std::min(bytes - at, 1 + dice.below(dice.one_in(5) ? 30'000 : 300));
    write_all(fd, bytes_at(at, piece));
    at += piece;
    if (dice.one_in(4)) dice.pause();
  }
  leaver.join();
  reader.join();
  ::close(fd);
}

BEHAVIOUR{.name = "anything_as_the_connection_leaves_the_ring",
          .server =
              [](int) {
                for (int i = 0; i < random_rounds(); ++i) stream_both_ways(accept_another(), i), await_peer(), tell_peer();
              },
          .client =
              [](int) {
                for (int i = 0; i < random_rounds(); ++i) about(std::to_string(i)), stream_both_ways(connect_another(), i), tell_peer(), await_peer();
              },
          .leaves_ring = true};

BEHAVIOUR{.name = "a_handler_reads_as_the_connection_leaves_the_ring",
          .server = write_to_returning<Peer::stays>,
          .client = return_beside_handler<Peer::stays>,
          .leaves_ring = true};
BEHAVIOUR{.name = "a_handler_reads_as_both_ends_leave_the_ring",
          .server = write_to_returning<Peer::left>,
          .client = return_beside_handler<Peer::left>,
          .leaves_ring = true};
BEHAVIOUR{.name = "a_handler_reads_as_an_ended_connection_leaves_the_ring",
          .server = write_to_returning<Peer::ended>,
          .client = return_beside_handler<Peer::ended>,
          .leaves_ring = true};
BEHAVIOUR{.name = "a_thread_reads_as_the_connection_leaves_the_ring",
          .server = write_to_returning<Peer::stays>,
          .client = return_beside_thread<Peer::stays>,
          .leaves_ring = true};
BEHAVIOUR{.name = "a_thread_reads_as_both_ends_leave_the_ring",
          .server = write_to_returning<Peer::left>,
          .client = return_beside_thread<Peer::left>,
          .leaves_ring = true};
BEHAVIOUR{.name = "a_thread_reads_as_an_ended_connection_leaves_the_ring",
          .server = write_to_returning<Peer::ended>,
          .client = return_beside_thread<Peer::ended>,
          .leaves_ring = true};

}  // namespace
}  // namespace shunt::behaviour
