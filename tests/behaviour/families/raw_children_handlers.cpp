// Children that a signal handler makes when it has interrupted a call on the very connection: _Fork is made for that,
// fork is used so. A child may use the connection in the handler, end there, or return into the call with its parent.
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <thread>

#include "alarms.h"
#include "behaviour.h"
#include "check.h"
#include "children.h"
#include "io.h"
#include "role.h"
#include "signals.h"

namespace shunt::behaviour {
namespace {

int connection = -1;
pid_t (*make)(const Body&) = nullptr;
void (*in_handler)() = nullptr;
volatile sig_atomic_t handled = 0;

void handle(int) {
  const int error = errno;
  in_handler();
  handled = handled + 1;
  errno = error;
}

void on_alarm(int fd, int flags, void (*action)()) {
  connection = fd;
  in_handler = action;
  struct sigaction installed {};
  installed.sa_handler = handle;
  installed.sa_flags = flags;
  CHECK_EQ(::sigaction(SIGALRM, &installed, nullptr), 0);
  handled = 0;
}

pid_t by_fork(const Body& body) {
  const pid_t child = ::fork();
  CHECK(child >= 0);
  if (child > 0) return child;
  body();
  ::_exit(0);
}
constexpr ChildWay kFork{"fork", by_fork};

template <typename Function>
void through_ways_of_a_handler(Function function) {
  make = kFork.make;
  about(kFork.name);
  function();
  for (size_t i = 0; i < 3; ++i) {  // _Fork, clone, SYS_fork
    make = kCopies[i].make;
    about(kCopies[i].name);
    function();
  }
  about("");
}
constexpr int kWays = 4;

void child_asks() {
  join_any_child(make([] { ask_plainly(connection, 2); }));
}

// A read sleeps. The child has the connection to itself; then the read goes on, or ends.
void interrupted_read(int fd, int flags) {
  on_alarm(fd, flags, child_asks);
  through_ways_of_a_handler([fd, flags] {
    alarm_after_sleep_ms(5);
    char byte = 0;
    if (flags == 0)
      CHECK_ERRNO(::read(fd, &byte, 1), EINTR);
    else
      CHECK_EQ(::read(fd, &byte, 1), 1);
    tell_peer();
    if (flags == 0) CHECK_EQ(::read(fd, &byte, 1), 1);
    CHECK_EQ(byte, 'x');
    ask_plainly(fd, 2);
  });
}
template <bool kAtOnce>
void answer_in_between(int fd) {
  for (int i = 0; i < kWays; ++i) {
    echo_plainly(fd, 2);
    if (!kAtOnce) await_peer();
    write_all(fd, "x");
    if (kAtOnce) await_peer();
    echo_plainly(fd, 2);
  }
}
BEHAVIOUR{.name = "a_read_is_interrupted", .server = answer_in_between<false>, .client = [](int fd) {
            interrupted_read(fd, 0);
          }};
BEHAVIOUR{.name = "a_read_is_restarted", .server = answer_in_between<true>, .client = [](int fd) {
            interrupted_read(fd, SA_RESTART);
          }};

// A poll and an epoll_wait sleep.
BEHAVIOUR{.name = "a_poll_is_interrupted", .server = answer_in_between<false>, .client = [](int fd) {
            on_alarm(fd, 0, child_asks);
            through_ways_of_a_handler([fd] {
              alarm_after_sleep_ms(5);
              pollfd one{.fd = fd, .events = POLLIN, .revents = 0};
              CHECK_ERRNO(::poll(&one, 1, 10'000), EINTR);
              tell_peer();
              CHECK_EQ(::poll(&one, 1, 10'000), 1);
              char byte = 0;
              CHECK_EQ(::read(fd, &byte, 1), 1);
              ask_plainly(fd, 2);
            });
          }};

BEHAVIOUR{.name = "an_epoll_wait_is_interrupted", .server = answer_in_between<false>, .client = [](int fd) {
            const int set = ::epoll_create1(0);
            epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
            CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), 0);
            on_alarm(fd, 0, child_asks);
            through_ways_of_a_handler([fd, set] {
              alarm_after_sleep_ms(5);
              epoll_event ready{};
              CHECK_ERRNO(::epoll_wait(set, &ready, 1, 10'000), EINTR);
              tell_peer();
              CHECK_EQ(::epoll_wait(set, &ready, 1, 10'000), 1);
              char byte = 0;
              CHECK_EQ(::read(fd, &byte, 1), 1);
              ask_plainly(fd, 2);
            });
          }};

// The child returns into the read as well: each gets one of two bytes, and neither's end is the other's.
volatile pid_t returned = -1;
void child_returns() {
  returned = ::_Fork();
  CHECK(returned >= 0);
}
BEHAVIOUR{.name = "the_child_returns_into_the_read",
          .server =
              [](int fd) {
                for (int i = 0; i < 3; ++i) {
                  await_peer();
                  write_all(fd, "x");
                  await_peer();
                  write_all(fd, "x");
                  await_peer();
                }
                echo_plainly(fd, 2);
              },
          .client =
              [](int fd) {
                for (int i = 0; i < 3; ++i) {
                  on_alarm(fd, SA_RESTART, child_returns);
                  int taken[2];
                  CHECK_EQ(::pipe(taken), 0);
                  returned = -1;
                  alarm_after_sleep_ms(5);
                  std::thread tells([parent = ::gettid()] {
                    while (handled == 0) sleep_ms(1);
                    await_sleeping(parent), await_sleeping(returned);
                    tell_peer();
                  });
                  char byte = 0;
                  CHECK_EQ(::read(fd, &byte, 1), 1);
                  if (returned == 0) {
                    CHECK_EQ(::write(taken[1], "c", 1), 1);
                    tell_peer();
                    ::_exit(0);
                  }
                  CHECK_EQ(::write(taken[1], "p", 1), 1);
                  tell_peer();
                  tells.join();
                  join_any_child(returned);
                  char both[3] = {};
                  CHECK_EQ(::read(taken[0], both, 2), 2);
                  CHECK(std::string(both) == "cp" || std::string(both) == "pc");
                }
                ask_plainly(fd, 2);
              }};

// Signals fall anywhere into echo rounds, also into the few instructions in which a call holds what the family shares.
// The child looks, and ends; its parent waits for that in the handler.
void child_looks() {
  join_any_child(make([] {
    char byte = 0;
    (void)!::recv(connection, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    pollfd one{.fd = connection, .events = POLLIN | POLLOUT, .revents = 0};
    CHECK(::poll(&one, 1, 0) >= 0);
  }));
}

// The next one comes a while after the end of the last: a fork may take longer than any interval.
constexpr int kBetweenUs = 300;
void child_looks_again() {
  child_looks();
  alarm_after_us(kBetweenUs);
}

constexpr int kStormRounds = 200;
void storm_of_children(int fd) {
  on_alarm(fd, SA_RESTART, child_looks_again);
  through_ways_of_a_handler([fd] {
    alarm_after_us(kBetweenUs);
    ask_plainly(fd, kStormRounds);
    alarm_every_us(0);
  });
  CHECK(handled > 3);
}
void answer_storm(int fd) {
  for (int i = 0; i < kWays; ++i) echo_plainly(fd, kStormRounds);
}
BEHAVIOUR{.name = "made_at_any_moment_of_a_call", .server = answer_storm, .client = storm_of_children};
BEHAVIOUR{.name = "made_at_any_moment_of_a_call_at_the_server", .server = storm_of_children, .client = answer_storm};

// The same with long writes: a signal finds the copy under way, most of the time.
void bulk_with_children(int fd) {
  constexpr uint64_t kMuch = 30'000'000;
  static char data[1 << 20];
  on_alarm(fd, SA_RESTART, child_looks);
  make = kCopies[0].make;
  alarm_every_us(1000);
  uint64_t sent = 0;
  while (sent < kMuch || handled < 10) {
    const ssize_t n = ::write(fd, data, sizeof data);
    CHECK(n > 0);
    sent += static_cast<uint64_t>(n);
  }
  alarm_every_us(0);
  CHECK_EQ(::close(fd), 0);
  tell_peer(static_cast<uint32_t>(sent));
}
void take_bulk(int fd) {
  static char data[1 << 20];
  uint64_t received = 0;
  for (ssize_t n; (n = ::read(fd, data, sizeof data)) != 0; received += static_cast<uint64_t>(n)) CHECK(n > 0);
  CHECK_EQ(received, await_peer());
}
BEHAVIOUR{.name = "made_in_the_middle_of_a_long_write", .server = take_bulk, .client = bulk_with_children};

// Parent and child both return into a write, and both complete it: no record is torn, none of the parent's is missing,
// and none comes from nowhere.
int children_made = 0;
void child_returns_too() {
  returned = ::_Fork();
  CHECK(returned >= 0);
  if (returned > 0) ++children_made;
}
constexpr size_t kRecord = 4096;
void write_records(int fd) {
  static char record[kRecord];
  const pid_t parent = ::getpid();
  on_alarm(fd, SA_RESTART, child_returns_too);
  alarm_every_us(500);
  uint32_t written = 0;
  for (children_made = 0; written < 5'000 || children_made < 10; ++written) {
    for (char& byte : record) byte = static_cast<char>('a' + written % 26);
    CHECK_EQ(::write(fd, record, kRecord), kRecord);
    if (::getpid() != parent) ::_exit(0);
  }
  alarm_every_us(0);
  if (::getpid() != parent) ::_exit(0);
  for (int i = 0; i < children_made; ++i) {
    int status = -1;
    CHECK(::waitpid(-1, &status, 0) > 0);
    CHECK_EQ(status, 0);
  }
  CHECK_EQ(::close(fd), 0);
  tell_peer(written);
  tell_peer(static_cast<uint32_t>(children_made));
}
void read_records(int fd) {
  static char record[kRecord];
  uint32_t records = 0;
  for (;; ++records) {
    size_t done = 0;
    while (done < kRecord) {
      const ssize_t n = ::read(fd, record + done, kRecord - done);
      CHECK(n >= 0);
      if (n == 0) break;
      done += static_cast<size_t>(n);
    }
    if (done == 0) break;
    CHECK_EQ(done, kRecord);
    for (const char byte : record) CHECK_EQ(byte, record[0]);
  }
  const uint32_t written = await_peer(), children = await_peer();
  CHECK(records >= written && records <= written + children);
}
BEHAVIOUR{.name = "the_child_returns_into_the_write", .server = read_records, .client = write_records};

// A crash handler: the child becomes another program, and its parent waits for it.
void child_executes() {
  join_any_child(make([] { ::execl("/bin/true", "true", static_cast<char*>(nullptr)); }));
}
BEHAVIOUR{.name = "a_debugger_is_started_at_any_moment",
          .server = [](int fd) { echo_plainly(fd, 400); },
          .client =
              [](int fd) {
                CHECK_EQ(::fcntl(fd, F_SETFD, FD_CLOEXEC), 0);
                on_alarm(fd, SA_RESTART, child_executes);
                make = kCopies[0].make;
                alarm_every_us(2000);
                ask_plainly(fd, 400);
                alarm_every_us(0);
              }};

// The child leaves the handler by a jump, and the interrupted call with it.
sigjmp_buf outside;
void child_jumps() {
  returned = ::_Fork();
  CHECK(returned >= 0);
  if (returned == 0) ::siglongjmp(outside, 1);
}
BEHAVIOUR{.name = "the_child_jumps_out_of_the_call",
          .server =
              [](int fd) {
                for (int i = 0; i < 2; ++i) {
                  await_peer();
                  echo_plainly(fd, 2);
                  await_peer();
                  write_all(fd, "x");
                }
                echo_plainly(fd, 2);
                expect_end_of_stream(fd);
              },
          .client =
              [](int fd) {
                static int i;  // a jump comes back here
                for (i = 0; i < 2; ++i) {
                  on_alarm(fd, 0, child_jumps);
                  if (::sigsetjmp(outside, 1) != 0) {
                    tell_peer();
                    ask_plainly(fd, 2);
                    ::_exit(0);
                  }
                  alarm_after_sleep_ms(5);
                  char byte = 0;
                  CHECK_ERRNO(::read(fd, &byte, 1), EINTR);
                  join_any_child(returned);
                  tell_peer();
                  CHECK_EQ(::read(fd, &byte, 1), 1);
                }
                ask_plainly(fd, 2);
                CHECK_EQ(::close(fd), 0);
              }};

}  // namespace
}  // namespace shunt::behaviour
