// A connection goes back to the kernel with bytes unread, and a handler, or another thread, reads at any moment of that.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
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
