// kill -9 of one end: the other gets what was sent, then the end. Nothing hangs, nothing crashes.
#include <poll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <thread>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"
#include "signals.h"

namespace shunt::behaviour {
namespace {

constexpr int kVictims = 25;

[[noreturn]] void die() {
  ::raise(SIGKILL);
  std::abort();
}

void die_after_ms(double milliseconds) {
  std::thread([milliseconds] {
    for (const double end = now_ms() + milliseconds; now_ms() < end;) {
    }
    die();
  }).detach();
}

// The end, with or without a reset before it: both are what a kernel socket may say after a kill.
void expect_end_or_reset(int fd) {
  char byte = 0;
  const ssize_t n = ::read(fd, &byte, 1);
  CHECK(n == 0 || (n < 0 && errno == ECONNRESET));
  expect_end_of_stream(fd);
}

// A write that was under way when the reader went may find the reset before it finds the closed stream.
bool is_end_of_writing(int error) { return error == EPIPE || error == ECONNRESET; }

uint64_t read_until_the_end_or_reset(int fd, size_t chunk) {
  std::string data(chunk, '\0');
  for (uint64_t done = 0;;) {
    const ssize_t n = ::read(fd, data.data(), chunk);
    if (n == 0 || (n < 0 && errno == ECONNRESET)) return done;
    CHECK(n > 0);
    CHECK_EQ(agreeing(data.substr(0, static_cast<size_t>(n)), done), static_cast<size_t>(n));
    done += static_cast<uint64_t>(n);
  }
}

void expect_writes_to_fail(int fd) {
  count_signal(SIGPIPE, 0);
  CHECK_ERRNO(::write(fd, "x", 1), EPIPE);
  CHECK_EQ(signals_counted(), 1);
}

void survive_idle_peer(int fd) {
  expect_end_of_stream(fd);
  expect_writes_to_fail(fd);
}

void die_idle(int) {
  sleep_ms(30);
  die();
}

BEHAVIOUR{.name = "of_an_idle_client", .server = survive_idle_peer, .client = die_idle, .killed = End::client};
BEHAVIOUR{.name = "of_an_idle_server", .server = die_idle, .client = survive_idle_peer, .killed = End::server};

// Everything that write() had accepted arrives.
void say_and_die(int fd) {
  write_stream(fd, 0, 100'000, 20'011);
  tell_peer();
  die();
}

void hear_the_dead(int fd) {
  await_peer();
  sleep_ms(10);
  read_stream(fd, 0, 100'000, 3000);
  expect_end_of_stream(fd);
  expect_writes_to_fail(fd);
}

BEHAVIOUR{
    .name = "of_a_client_that_had_written", .server = hear_the_dead, .client = say_and_die, .killed = End::client};
BEHAVIOUR{
    .name = "of_a_server_that_had_written", .server = say_and_die, .client = hear_the_dead, .killed = End::server};

BEHAVIOUR{.name = "of_a_client_with_unread_bytes_resets",
          .server =
              [](int fd) {
                write_all(fd, bytes_at(0, 500));
                tell_peer();
                sleep_ms(50);
                char byte = 0;
                CHECK_ERRNO(::read(fd, &byte, 1), ECONNRESET);
                expect_end_of_stream(fd);
                expect_writes_to_fail(fd);
              },
          .client =
              [](int) {
                await_peer();
                die();
              },
          .killed = End::client};

// It had shut down both ways, so POLLHUP was there before.
BEHAVIOUR{.name = "of_a_server_that_had_shut_both_ways",
          .server =
              [](int fd) {
                await_peer();
                ::shutdown(fd, SHUT_RDWR);
                tell_peer();
                sleep_ms(30);
                die();
              },
          .client =
              [](int fd) {
                set_blocking(fd, false);
                fill(fd, 0, 4096);
                tell_peer();
                await_peer();
                fd_set set;
                FD_ZERO(&set);
                FD_SET(fd, &set);
                timeval time{5, 0};
                CHECK_EQ(::select(fd + 1, nullptr, &set, nullptr, &time), 1);
                pollfd one{.fd = fd, .events = POLLOUT, .revents = 0};
                // The kernel tells of the reset before it throws away what nobody read, which makes room again.
                while (!(one.revents & POLLOUT)) CHECK_EQ(::poll(&one, 1, 0), 1);
                CHECK_EQ(one.revents, POLLOUT | POLLERR | POLLHUP);
                char byte = 0;
                CHECK_ERRNO(::read(fd, &byte, 1), ECONNRESET);
                expect_end_of_stream(fd);
              },
          .limit = bit(Way::both) | kByUpgrades,
          .killed = End::server};

// A blocked writer whose reader is killed.
BEHAVIOUR{.name = "of_a_server_that_did_not_read",
          .server =
              [](int) {
                await_sleeping(static_cast<int>(await_peer()));
                die();
              },
          .client =
              [](int fd) {
                count_signal(SIGPIPE, SA_RESTART);
                const std::string data = bytes_at(0, size_t{8} << 20);
                tell_peer(static_cast<uint32_t>(::getpid()));
                const ssize_t n = ::write(fd, data.data(), data.size());
                CHECK(n > 0 && n < static_cast<ssize_t>(data.size()));
                CHECK_ERRNO(::write(fd, "x", 1), EPIPE);
                CHECK_EQ(signals_counted(), 1);
                expect_end_or_reset(fd);
              },
          .killed = End::server};

// The victims are children of the client, each with a connection of its own, each killed a little later than the one
// before.
void await_killed(int pid) {
  int status = 0;
  CHECK_EQ(::waitpid(pid, &status, 0), pid);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

BEHAVIOUR{.name = "of_writers_mid_stream",
          .server =
              [](int) {
                for (int i = 0; i < kVictims; ++i) {
                  const int fd = accept_another();
                  read_until_the_end_or_reset(fd, 1 + static_cast<size_t>(i) * 997);
                  expect_end_of_stream(fd);
                  expect_writes_to_fail(fd);
                  ::close(fd);
                }
              },
          .client =
              [](int) {
                for (int i = 0; i < kVictims; ++i) {
                  await_killed(in_child([i] {
                    const int fd = connect_another();
                    die_after_ms(i * 0.2);
                    write_stream(fd, 0, uint64_t{1} << 40, 1 + static_cast<size_t>(i % 5) * 10'007);
                  }));
                }
              }};

BEHAVIOUR{.name = "of_readers_mid_stream",
          .server =
              [](int) {
                for (int i = 0; i < kVictims; ++i) {
                  const int fd = accept_another();
                  uint64_t done = 0;
                  for (ssize_t n = 0; n >= 0; done += static_cast<uint64_t>(n)) {
                    const std::string data = bytes_at(done, 1 + static_cast<size_t>(i % 5) * 10'007);
                    n = ::send(fd, data.data(), data.size(), MSG_NOSIGNAL);
                    if (n < 0) break;
                  }
                  CHECK(is_end_of_writing(errno));
                  expect_writes_to_fail(fd);
                  expect_end_or_reset(fd);
                  ::close(fd);
                }
              },
          .client =
              [](int) {
                for (int i = 0; i < kVictims; ++i) {
                  await_killed(in_child([i] {
                    const int fd = connect_another();
                    die_after_ms(i * 0.2);
                    read_stream(fd, 0, uint64_t{1} << 40, 1 + static_cast<size_t>(i) * 997);
                  }));
                }
              }};

BEHAVIOUR{.name = "of_clients_in_ping_pong",
          .server =
              [](int) {
                for (int i = 0; i < kVictims; ++i) {
                  const int fd = accept_another();
                  for (;;) {
                    char data[100];
                    const ssize_t n = ::read(fd, data, sizeof data);
                    if (n == 0 || (n < 0 && errno == ECONNRESET)) break;
                    CHECK(n > 0);
                    const ssize_t sent = ::send(fd, data, static_cast<size_t>(n), MSG_NOSIGNAL);
                    CHECK(sent == n || (sent < 0 && is_end_of_writing(errno)));
                  }
                  ::close(fd);
                }
              },
          .client =
              [](int) {
                for (int i = 0; i < kVictims; ++i) {
                  await_killed(in_child([i] {
                    const int fd = connect_another();
                    die_after_ms(i * 0.2);
                    for (uint64_t round = 0;; ++round) {
                      write_all(fd, bytes_at(round, 77));
                      CHECK_EQ(read_exactly(fd, 77), bytes_at(round, 77));
                    }
                  }));
                }
              }};

// A child that shares the connection dies in the middle of what it did; the parent goes on.
BEHAVIOUR{.name = "of_a_child_that_shares_the_connection",
          .server =
              [](int fd) {
                for (bool marked = false; !marked;) {
                  const std::string some = read_some(fd, 5000);
                  CHECK(!some.empty());
                  marked = some.back() == 'M';
                  CHECK_EQ(some.find_first_not_of('c'), marked ? some.size() - 1 : std::string::npos);
                }
                write_all(fd, "done");
              },
          .client =
              [](int fd) {
                for (int i = 0; i < 5; ++i) {
                  await_killed(in_child([fd, i] {
                    die_after_ms(i * 0.3);
                    for (;;) write_all(fd, std::string(777, 'c'));
                  }));
                }
                write_all(fd, "M");
                CHECK_EQ(read_exactly(fd, 4), "done");
              }};

}  // namespace
}  // namespace shunt::behaviour
