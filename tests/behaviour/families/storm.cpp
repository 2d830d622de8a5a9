// Signals at the shortest interval over every blocking call: nothing hangs, no byte is lost, doubled or moved. The number of signals can be asked for.
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <thread>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"
#include "signals.h"

namespace shunt::behaviour {
namespace {

// Of each of the two storms below; SHUNT_TEST_SIGNALS asks for more.
int signals_wanted() {
  const char* asked = std::getenv("SHUNT_TEST_SIGNALS");
  return asked != nullptr ? std::atoi(asked) : 8'000;
}

bool interrupted(ssize_t n) { return n < 0 && errno == EINTR; }

// ---- ways to wait and to move bytes, each of which a signal may end

void wait_in(int way, int set, int fd, short events) {
  pollfd one{.fd = fd, .events = events, .revents = 0};
  fd_set ready;
  FD_ZERO(&ready);
  FD_SET(fd, &ready);
  epoll_event event{.events = events == POLLIN ? EPOLLIN : EPOLLOUT, .data = {.fd = fd}};
  int n = 0;
  switch (way) {
    case 0:
      n = ::poll(&one, 1, -1);
      break;
    case 1:
      n = events == POLLIN ? ::select(fd + 1, &ready, nullptr, nullptr, nullptr) : ::select(fd + 1, nullptr, &ready, nullptr, nullptr);
      break;
    case 2:
      CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_MOD, fd, &event), 0);
      n = ::epoll_wait(set, &event, 1, -1);
      break;
    default:
      return;
  }
  CHECK(n == 1 || interrupted(n));
}

ssize_t write_in(int way, int fd, const char* data, size_t count) {
  return way == 0 ? ::send(fd, data, count, 0) : ::write(fd, data, count);
}

ssize_t read_in(int way, int fd, char* data, size_t count) {
  return way == 0 ? ::recv(fd, data, count, MSG_WAITALL) : ::read(fd, data, count);
}

constexpr int kInterval = 30;  // shorter ones leave no time for anything else, on the kernel either
constexpr int kWays = 7;  // three waits, and none of them in the others
constexpr size_t kMost = 3000;

size_t size_of(uint64_t round) { return 1 + round * 37 % kMost; }

void storm(int fd, int flags) {
  const int set = ::epoll_create1(0);
  epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
  CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), 0);
  const int wanted = signals_wanted();
  count_signal(SIGALRM, flags);
  alarm_every_us(kInterval);
  uint64_t done = 0;
  for (uint64_t round = 0; signals_counted() < wanted; ++round) {
    const int way = static_cast<int>(round % kWays);
    const std::string data = bytes_at(done, size_of(round));
    for (size_t sent = 0; sent < data.size();) {
      wait_in(way, set, fd, POLLOUT);
      const ssize_t n = write_in(way % 2, fd, data.data() + sent, data.size() - sent);
      CHECK(n > 0 || (interrupted(n) && flags == 0));
      if (n > 0) sent += static_cast<size_t>(n);
    }
    std::string back(data.size(), '\0');
    for (size_t got = 0; got < back.size();) {
      wait_in(way, set, fd, POLLIN);
      const ssize_t n = read_in(way % 2, fd, back.data() + got, back.size() - got);
      CHECK(n > 0 || (interrupted(n) && flags == 0));
      if (n > 0) got += static_cast<size_t>(n);
    }
    CHECK_EQ(agreeing(back, done), back.size());
    done += back.size();
  }
  alarm_every_us(0);
  ::close(fd);
}

void echo_to_end(int fd) {
  int rounds = 0;
  for (std::string some = read_some(fd, 5000); !some.empty(); some = read_some(fd, 5000)) {
    if (++rounds % 50 == 7) sleep_ms(1);  // the other end sleeps
    write_all(fd, some);
  }
}

BEHAVIOUR{.name = "that_interrupts", .server = echo_to_end, .client = [](int fd) { storm(fd, 0); }};
BEHAVIOUR{.name = "that_restarts", .server = echo_to_end, .client = [](int fd) { storm(fd, SA_RESTART); }};

// ---- a handler that uses the socket itself: each of its calls in turn, with every byte accounted for

int used_fd = -1;
int spare_fd = -1;  // a duplicate that handlers close and make anew
volatile uint64_t wrote = 0, took = 0;

void use(int) {
  const int error = errno;
  static int turn = 0;
  pollfd one{.fd = used_fd, .events = POLLIN | POLLOUT, .revents = 0};
  char data[64];
  switch (turn++ % 5) {
    case 0:
      if (::send(used_fd, "S", 1, MSG_DONTWAIT) == 1) wrote = wrote + 1;
      break;
    case 1:
      CHECK(::poll(&one, 1, 0) >= 0);
      break;
    case 2:
      if (const ssize_t n = ::recv(used_fd, data, sizeof data, MSG_DONTWAIT); n > 0) {
        for (ssize_t i = 0; i < n; ++i) CHECK_EQ(data[i], '.');
        took = took + static_cast<uint64_t>(n);
      } else {
        CHECK(n < 0 && errno == EAGAIN);
      }
      break;
    case 3:
      if (spare_fd >= 0) CHECK_EQ(::close(spare_fd), 0);
      spare_fd = ::dup(used_fd);
      CHECK(spare_fd >= 0);
      break;
    case 4:
      if (::write(spare_fd >= 0 ? spare_fd : used_fd, "S", 1) == 1) wrote = wrote + 1;
      break;
  }
  errno = error;
}

// The server sends one '.' for each byte that it gets, and in the end how many there were of either kind.
BEHAVIOUR{.name = "whose_handler_uses_the_socket",
          .server =
              [](int fd) {
                uint32_t program = 0, handler = 0;
                for (bool over = false; !over;) {
                  std::string some = read_some(fd, 2000);
                  for (const char c : some) {
                    CHECK(c == 'p' || c == 'S' || c == 'E');
                    program += c == 'p';
                    handler += c == 'S';
                    over = over || c == 'E';
                  }
                  if (!over) write_all(fd, std::string(some.size(), '.'));
                  if (over) write_all(fd, std::string(some.size() - 1, '.'));
                }
                tell_peer(program);
                tell_peer(handler);
              },
          .client =
              [](int fd) {
                used_fd = fd;
                struct sigaction action {};
                action.sa_handler = use;
                action.sa_flags = SA_RESTART;
                CHECK_EQ(::sigaction(SIGALRM, &action, nullptr), 0);
                alarm_every_us(50);
                uint64_t sent = 0, got = 0;
                const double end = now_ms() + 400;
                static char data[300];
                while (now_ms() < end) {
                  const std::string part(1 + sent % 200, 'p');
                  const ssize_t n = ::write(fd, part.data(), part.size());
                  CHECK_EQ(n, part.size());
                  sent += part.size();
                  pollfd one{.fd = fd, .events = POLLIN, .revents = 0};
                  if (::poll(&one, 1, 1) <= 0) continue;
                  const ssize_t back = ::recv(fd, data, sizeof data, MSG_DONTWAIT);
                  CHECK(back > 0 || errno == EAGAIN);  // the handler may have been quicker
                  for (ssize_t i = 0; i < back; ++i) CHECK_EQ(data[i], '.');
                  if (back > 0) got += static_cast<uint64_t>(back);
                }
                alarm_every_us(0);
                write_all(fd, "E");
                const uint64_t all = sent + wrote;
                while (got + took < all) got += read_some(fd, 1000).size();
                CHECK_EQ(got + took, all);
                CHECK_EQ(await_peer(), sent);
                CHECK_EQ(await_peer(), wrote);
                CHECK(wrote > 0 && took > 0);
              }};

// The one that stops and goes on is a child; its parent does it to it, at any moment.
BEHAVIOUR{.name = "of_stops",
          .server = echo_to_end,
          .client =
              [](int fd) {
                const int child = in_child([fd] {
                  uint64_t done = 0;
                  for (uint64_t round = 0; round < 1500; ++round) {
                    const std::string data = bytes_at(done, size_of(round));
                    write_all(fd, data);
                    CHECK_EQ(read_exactly(fd, data.size()), data);
                    done += data.size();
                  }
                });
                int status = 0;
                for (int stops = 0; ::waitpid(child, &status, WNOHANG) == 0; ++stops) {
                  CHECK_EQ(::kill(child, SIGSTOP), 0);
                  if (stops % 4 == 0) ::usleep(300);
                  CHECK_EQ(::kill(child, SIGCONT), 0);
                  ::usleep(static_cast<useconds_t>(50 + stops * 31 % 400));
                }
                CHECK_EQ(status, 0);
                ::close(fd);
              }};

// "EPIPE: the process also receives a SIGPIPE signal" (send(2)): once for each failing write, and in a storm of alarms no more.
BEHAVIOUR{.name = "of_broken_pipes",
          .server =
              [](int fd) {
                read_exactly(fd, 1);
                ::close(fd);
                tell_peer();
              },
          .client =
              [](int fd) {
                write_all(fd, "x");
                await_peer();
                count_signal(SIGPIPE, 0);
                struct sigaction nothing {};
                nothing.sa_handler = [](int) {};
                CHECK_EQ(::sigaction(SIGALRM, &nothing, nullptr), 0);
                alarm_every_us(20);
                int failed = 0;
                for (int i = 0; i < 3000; ++i) {
                  const ssize_t n = i % 2 == 0 ? ::write(fd, "y", 1) : ::send(fd, "y", 1, MSG_NOSIGNAL);
                  CHECK(n < 0 && errno == EPIPE);
                  failed += i % 2 == 0;
                }
                alarm_every_us(0);
                CHECK_EQ(signals_counted(), failed);
              }};

// "If multiple instances of a real-time signal are queued, they are delivered in order" (signal(7)), each with its value, whatever call they interrupt.
constexpr int kQueued = 5000;
int expected = 0;  // the next value
BEHAVIOUR{.name = "of_queued_signals",
          .server =
              [](int fd) {
                for (;;) {
                  char data[kMost];
                  const ssize_t n = ::read(fd, data, sizeof data);
                  CHECK(n >= 0);
                  if (n == 0) return;
                  write_all(fd, std::string(data, static_cast<size_t>(n)));
                }
              },
          .client =
              [](int fd) {
                struct sigaction action {};
                action.sa_sigaction = [](int, siginfo_t* information, void*) {
                  CHECK_EQ(information->si_value.sival_int, expected);
                  expected = expected + 1;
                };
                action.sa_flags = SA_SIGINFO | SA_RESTART;
                CHECK_EQ(::sigaction(SIGRTMIN, &action, nullptr), 0);
                std::thread sends([to = ::pthread_self()] {
                  for (int i = 0; i < kQueued;) {
                    const int error = ::pthread_sigqueue(to, SIGRTMIN, {.sival_int = i});
                    CHECK(error == 0 || error == EAGAIN);
                    if (error == 0 && ++i % 7 != 0) continue;
                    for (const double end = now_ms() + 0.05; now_ms() < end;) {
                    }
                  }
                });
                uint64_t done = 0;
                for (uint64_t round = 0; expected < kQueued; ++round) {
                  const std::string data = bytes_at(done, size_of(round));
                  write_all(fd, data);
                  CHECK_EQ(read_exactly(fd, data.size()), data);
                  done += data.size();
                }
                sends.join();
                CHECK_EQ(::close(fd), 0);
              }};

}  // namespace
}  // namespace shunt::behaviour
