// poll, ppoll, select and pselect: the bits that the kernel gives, at each station of a stream's life.
// The expected bits were read off the kernel (6.x) and are checked against it in the kernel way.
#include <poll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>

#include "alarms.h"
#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"
#include "signals.h"

namespace shunt::behaviour {
namespace {

constexpr short kEverything =
    POLLIN | POLLOUT | POLLRDHUP | POLLPRI | POLLRDNORM | POLLWRNORM | POLLRDBAND | POLLWRBAND;
constexpr int kIn = POLLIN | POLLRDNORM;
constexpr int kOut = POLLOUT | POLLWRNORM | POLLWRBAND;

int polled(int fd, short events = kEverything, int timeout_ms = 0) {
  pollfd one{.fd = fd, .events = events, .revents = 0};
  const int n = ::poll(&one, 1, timeout_ms);
  CHECK_EQ(n, one.revents != 0 ? 1 : 0);
  return one.revents;
}

int ppolled(int fd, short events = kEverything) {
  pollfd one{.fd = fd, .events = events, .revents = 0};
  const timespec now{0, 0};
  CHECK(::ppoll(&one, 1, &now, nullptr) >= 0);
  return one.revents;
}

// 1 readable, 2 writable, 4 exceptional.
int selected(int fd) {
  fd_set sets[3];
  for (fd_set& set : sets) {
    FD_ZERO(&set);
    FD_SET(fd, &set);
  }
  timeval now{0, 0};
  const int n = ::select(fd + 1, &sets[0], &sets[1], &sets[2], &now);
  int bits = 0;
  int count = 0;
  for (int i = 0; i < 3; ++i) {
    if (FD_ISSET(fd, &sets[i])) bits |= 1 << i, ++count;
  }
  CHECK_EQ(n, count);
  return bits;
}

// All faces of the same answer.
void expect_ready(int fd, int poll_bits, int select_bits) {
  CHECK_EQ(polled(fd), poll_bits);
  CHECK_EQ(ppolled(fd), poll_bits);
  CHECK_EQ(selected(fd), select_bits);
  CHECK_EQ(polled(fd, POLLIN), poll_bits & (POLLIN | POLLERR | POLLHUP));
  CHECK_EQ(polled(fd, POLLOUT), poll_bits & (POLLOUT | POLLERR | POLLHUP));
  CHECK_EQ(polled(fd, 0), poll_bits & (POLLERR | POLLHUP));
}

BEHAVIOUR{.name = "idle_readable_and_read",
          .server =
              [](int fd) {
                await_peer();
                write_all(fd, bytes_at(0, 100));
                tell_peer();
                await_peer();
              },
          .client =
              [](int fd) {
                expect_ready(fd, kOut, 2);
                tell_peer();
                await_peer();
                expect_ready(fd, kIn | kOut, 3);
                read_exactly(fd, 99);
                expect_ready(fd, kIn | kOut, 3);
                read_exactly(fd, 1);
                expect_ready(fd, kOut, 2);
                tell_peer();
              }};

BEHAVIOUR{.name = "full_and_drained",
          .server =
              [](int fd) {
                for (int round = 0; round < 3; ++round) {
                  read_stream(fd, 0, await_peer(), 10'000);
                  tell_peer();
                }
              },
          .client =
              [](int fd) {
                set_blocking(fd, false);
                for (int round = 0; round < 3; ++round) {
                  const uint64_t count = fill(fd, 0, 7000);
                  expect_ready(fd, 0, 0);
                  CHECK_EQ(polled(fd, POLLOUT, 30), 0);
                  tell_peer(static_cast<uint32_t>(count));
                  await_peer();
                  expect_ready(fd, kOut, 2);
                }
              },
          .limit = kByFences};

// unix_poll: POLLHUP is there from the shutdown on, and POLLOUT comes when the buffer is freed.
BEHAVIOUR{.name = "becomes_writable_after_a_shutdown_of_both",
          .server =
              [](int fd) {
                const uint32_t bytes = await_peer();
                ::shutdown(fd, SHUT_RDWR);
                tell_peer();
                sleep_ms(30);
                read_stream(fd, 0, bytes, 50'000);
                await_peer();
              },
          .client =
              [](int fd) {
                set_blocking(fd, false);
                tell_peer(static_cast<uint32_t>(fill(fd, 0, 4096)));
                await_peer();
                expect_ready(fd, kIn | POLLRDHUP | POLLHUP, 1);
                fd_set set;
                FD_ZERO(&set);
                FD_SET(fd, &set);
                timeval time{5, 0};
                CHECK_EQ(::select(fd + 1, nullptr, &set, nullptr, &time), 1);
                CHECK(FD_ISSET(fd, &set));
                CHECK((polled(fd) & (kOut | POLLERR)) == kOut);
                tell_peer();
              },
          .limit = kByFences};

BEHAVIOUR{.name = "becomes_writable_during_the_wait",
          .server =
              [](int fd) {
                const uint32_t count = await_peer();
                sleep_ms(20);
                read_stream(fd, 0, count, 10'000);
                CHECK_EQ(read_exactly(fd, 4), "more");
              },
          .client =
              [](int fd) {
                set_blocking(fd, false);
                tell_peer(static_cast<uint32_t>(fill(fd, 0, 7000)));
                CHECK_EQ(polled(fd, POLLOUT, 10'000), POLLOUT);
                CHECK_EQ(::write(fd, "more", 4), 4);
              }};

BEHAVIOUR{.name = "peer_shut_its_writing",
          .server =
              [](int fd) {
                write_all(fd, "abc");
                ::shutdown(fd, SHUT_WR);
                tell_peer();
                await_peer();
              },
          .client =
              [](int fd) {
                await_peer();
                expect_ready(fd, kIn | kOut | POLLRDHUP, 3);
                read_exactly(fd, 3);
                expect_ready(fd, kIn | kOut | POLLRDHUP, 3);
                expect_end_of_stream(fd);
                tell_peer();
              }};

BEHAVIOUR{.name = "own_shutdowns",
          .server = [](int) { await_peer(); },
          .client =
              [](int fd) {
                ::shutdown(fd, SHUT_WR);
                expect_ready(fd, kOut, 2);
                ::shutdown(fd, SHUT_RD);
                expect_ready(fd, kIn | kOut | POLLRDHUP | POLLHUP, 3);
                tell_peer();
              }};

BEHAVIOUR{.name = "peer_closed",
          .server =
              [](int fd) {
                write_all(fd, "abc");
                ::close(fd);
                tell_peer();
              },
          .client =
              [](int fd) {
                await_peer();
                expect_ready(fd, kIn | kOut | POLLRDHUP | POLLHUP, 3);
                read_exactly(fd, 3);
                expect_ready(fd, kIn | kOut | POLLRDHUP | POLLHUP, 3);
              }};

// select: an error is readable and writable, not exceptional.
BEHAVIOUR{.name = "peer_closed_without_reading",
          .server =
              [](int fd) {
                await_peer();
                ::close(fd);
                tell_peer();
              },
          .client =
              [](int fd) {
                write_all(fd, "abc");
                tell_peer();
                await_peer();
                expect_ready(fd, kIn | kOut | POLLRDHUP | POLLHUP | POLLERR, 3);
                char byte = 0;
                CHECK_ERRNO(::read(fd, &byte, 1), ECONNRESET);
                expect_ready(fd, kIn | kOut | POLLRDHUP | POLLHUP, 3);
              }};

BEHAVIOUR{.name = "peer_closed_after_sleeping",
          .server =
              [](int fd) {
                CHECK_EQ(polled(fd, POLLIN, 10'000), POLLIN);
                CHECK_EQ(read_exactly(fd, 5), "hello");
                ::close(fd);
                tell_peer();
              },
          .client =
              [](int fd) {
                sleep_ms(30);
                write_all(fd, "hello");
                await_peer();
                expect_ready(fd, kIn | kOut | POLLRDHUP | POLLHUP, 3);
                expect_end_of_stream(fd);
              }};

// Whatever woke a sleeper is not data: after it has read, nothing is readable.
BEHAVIOUR{.name = "not_readable_after_a_sleeper_has_read",
          .server =
              [](int fd) {
                for (int i = 0; i < 5; ++i) {
                  sleep_ms(10);
                  write_all(fd, "hello");
                  CHECK_EQ(read_exactly(fd, 1), "x");
                }
              },
          .client =
              [](int fd) {
                for (int i = 0; i < 5; ++i) {
                  if (i % 2 == 0) CHECK_EQ(polled(fd, POLLIN, 10'000), POLLIN);
                  CHECK_EQ(read_exactly(fd, 5), "hello");
                  expect_ready(fd, kOut, 2);
                  CHECK_EQ(polled(fd, POLLIN, 5), 0);
                  write_all(fd, "x");
                }
              }};

void answer_late(int fd, int times) {
  for (int i = 0; i < times; ++i) {
    await_peer();
    sleep_ms(20);
    write_all(fd, "x");
    read_exactly(fd, 1);
  }
}

BEHAVIOUR{.name = "data_arrives_during_the_wait",
          .server = [](int fd) { answer_late(fd, 8); },
          .client =
              [](int fd) {
                for (int i = 0; i < 8; ++i) {
                  tell_peer();
                  fd_set set;
                  FD_ZERO(&set);
                  FD_SET(fd, &set);
                  timeval long_time{10, 0};
                  const timespec long_span{10, 0};
                  pollfd one{.fd = fd, .events = POLLIN, .revents = 0};
                  switch (i % 4) {
                    case 0:
                      CHECK_EQ(::poll(&one, 1, i == 0 ? -1 : 10'000), 1);
                      break;
                    case 1:
                      CHECK_EQ(::ppoll(&one, 1, i == 1 ? nullptr : &long_span, nullptr), 1);
                      break;
                    case 2:
                      CHECK_EQ(::select(fd + 1, &set, nullptr, nullptr, i == 2 ? nullptr : &long_time), 1);
                      break;
                    case 3:
                      CHECK_EQ(::pselect(fd + 1, &set, nullptr, nullptr, i == 3 ? nullptr : &long_span, nullptr), 1);
                      break;
                  }
                  CHECK_EQ(polled(fd), kIn | kOut);
                  CHECK_EQ(read_exactly(fd, 1), "x");
                  write_all(fd, "y");
                }
              }};

BEHAVIOUR{.name = "the_peer_goes_during_the_wait",
          .server =
              [](int fd) {
                await_peer();
                sleep_ms(20);
                ::close(fd);
              },
          .client =
              [](int fd) {
                tell_peer();
                CHECK_EQ(polled(fd, 0, 10'000), POLLHUP);
              }};

BEHAVIOUR{.name = "timeouts",
          .server = [](int) { await_peer(); },
          .client =
              [](int fd) {
                double start = now_ms();
                CHECK_EQ(polled(fd, POLLIN, 60), 0);
                CHECK(now_ms() - start >= 59 && now_ms() - start < 1500);
                fd_set set;
                FD_ZERO(&set);
                FD_SET(fd, &set);
                timeval time{0, 60'000};
                start = now_ms();
                CHECK_EQ(::select(fd + 1, &set, nullptr, nullptr, &time), 0);
                CHECK(now_ms() - start >= 59 && now_ms() - start < 1500);
                CHECK(!FD_ISSET(fd, &set));
                CHECK_EQ(time.tv_sec + time.tv_usec, 0);  // Linux counts down what is left
                start = now_ms();
                const timespec span{0, 60'000'000};
                pollfd one{.fd = fd, .events = POLLIN, .revents = 7};
                CHECK_EQ(::ppoll(&one, 1, &span, nullptr), 0);
                CHECK_EQ(one.revents, 0);
                CHECK(now_ms() - start >= 59 && now_ms() - start < 1500);
                tell_peer();
              }};

BEHAVIOUR{
    .name = "among_other_descriptors",
    .server =
        [](int fd) {
          const int second = accept_another();
          await_peer();
          write_all(second, "x");
          tell_peer();
          await_peer();
          write_all(fd, "x");
          tell_peer();
          await_peer();
        },
    .client =
        [](int fd) {
          const int second = connect_another();
          int pipe_ends[2];
          CHECK_EQ(::pipe(pipe_ends), 0);
          pollfd all[] = {
              {.fd = fd, .events = POLLIN, .revents = 9},           {.fd = -1, .events = POLLIN, .revents = 9},
              {.fd = pipe_ends[0], .events = POLLIN, .revents = 9}, {.fd = 900, .events = POLLIN, .revents = 9},
              {.fd = second, .events = POLLIN, .revents = 9},       {.fd = second, .events = POLLOUT, .revents = 9}};
          CHECK_EQ(::poll(all, 6, 10'000), 2);
          CHECK_EQ(all[0].revents, 0);
          CHECK_EQ(all[1].revents, 0);
          CHECK_EQ(all[2].revents, 0);
          CHECK_EQ(all[3].revents, POLLNVAL);
          CHECK_EQ(all[4].revents, 0);
          CHECK_EQ(all[5].revents, POLLOUT);
          all[3].fd = -1;
          all[5].fd = -1;
          CHECK_EQ(::poll(all, 6, 20), 0);
          tell_peer();
          CHECK_EQ(::poll(all, 6, 10'000), 1);
          CHECK_EQ(all[4].revents, POLLIN);
          await_peer();
          write_all(pipe_ends[1], "p");
          tell_peer();
          await_peer();
          CHECK_EQ(::poll(all, 6, 10'000), 3);
          CHECK_EQ(all[0].revents, POLLIN);
          CHECK_EQ(all[2].revents, POLLIN);
          CHECK_EQ(all[4].revents, POLLIN);
          tell_peer();
        }};

BEHAVIOUR{.name = "a_pipe_wakes_the_wait",
          .server = [](int) { await_peer(); },
          .client =
              [](int fd) {
                int pipe_ends[2];
                CHECK_EQ(::pipe(pipe_ends), 0);
                const int child = in_child([&] {
                  sleep_ms(30);
                  write_all(pipe_ends[1], "p");
                });
                pollfd both[] = {{.fd = fd, .events = POLLIN, .revents = 0},
                                 {.fd = pipe_ends[0], .events = POLLIN, .revents = 0}};
                CHECK_EQ(::poll(both, 2, 10'000), 1);
                CHECK_EQ(both[1].revents, POLLIN);
                join_child(child);
                tell_peer();
              }};

BEHAVIOUR{.name = "select_of_closed_numbers",
          .server = [](int fd) { read_exactly(fd, 1); },
          .client =
              [](int fd) {
                fd_set set;
                FD_ZERO(&set);
                FD_SET(fd, &set);
                FD_SET(40, &set);
                timeval now{0, 0};
                CHECK_ERRNO(::select(41, &set, nullptr, nullptr, &now), EBADF);
                CHECK_ERRNO(::select(-1, &set, nullptr, nullptr, &now), EINVAL);
                now = {0, -1};
                CHECK_ERRNO(::select(0, nullptr, nullptr, nullptr, &now), EINVAL);
                write_all(fd, "x");
              }};

// core_sys_select: what lies beyond the table of descriptors, whose size is a multiple of 64, is neither read nor written.
BEHAVIOUR{.name = "select_of_numbers_beyond_the_table",
          .server = [](int fd) { read_exactly(fd, 1); },
          .client =
              [](int fd) {
                constexpr int kBeyond = 1000;
                fd_set in, out;
                const auto ask = [&](int count, int timeout_ms) {
                  FD_ZERO(&in);
                  FD_SET(fd, &in);
                  FD_SET(kBeyond, &in);
                  FD_ZERO(&out);
                  FD_SET(fd, &out);
                  FD_SET(kBeyond, &out);
                  timeval time{0, timeout_ms * 1000};
                  return ::select(count, &in, &out, nullptr, &time);
                };
                CHECK_EQ(ask(FD_SETSIZE, 0), 1);
                CHECK(FD_ISSET(fd, &out) && !FD_ISSET(fd, &in));
                CHECK(FD_ISSET(kBeyond, &in) && FD_ISSET(kBeyond, &out));
                CHECK_EQ(ask(kBeyond + 1, 10), 1);
                CHECK(FD_ISSET(kBeyond, &in) && FD_ISSET(kBeyond, &out));
                FD_SET(40, &in);
                timeval now{0, 0};
                CHECK_ERRNO(::select(FD_SETSIZE, &in, nullptr, nullptr, &now), EBADF);
                // Nothing else is ready: the time passes.
                FD_ZERO(&in);
                FD_SET(fd, &in);
                FD_SET(kBeyond, &in);
                timeval time{0, 20'000};
                const double begin = now_ms();
                CHECK_EQ(::select(FD_SETSIZE, &in, nullptr, nullptr, &time), 0);
                CHECK(now_ms() - begin >= 19);
                CHECK(!FD_ISSET(fd, &in) && FD_ISSET(kBeyond, &in));
                // A table that has grown has the number.
                CHECK_EQ(::dup2(fd, kBeyond), kBeyond);
                CHECK_EQ(ask(FD_SETSIZE, 0), 2);
                CHECK_EQ(::close(kBeyond), 0);
                CHECK_ERRNO(ask(FD_SETSIZE, 0), EBADF);
                write_all(fd, "x");
              }};

// A signal ends every wait with EINTR, whatever SA_RESTART says; ppoll and pselect swap the mask for the time of the
// wait.
BEHAVIOUR{.name = "signals_end_the_wait",
          .server = [](int) { await_peer(); },
          .client =
              [](int fd) {
                count_signal(SIGALRM, SA_RESTART);
                pollfd one{.fd = fd, .events = POLLIN, .revents = 0};
                alarm_after_sleep_ms(20);
                CHECK_ERRNO(::poll(&one, 1, 10'000), EINTR);
                fd_set set;
                FD_ZERO(&set);
                FD_SET(fd, &set);
                alarm_after_sleep_ms(20);
                CHECK_ERRNO(::select(fd + 1, &set, nullptr, nullptr, nullptr), EINTR);
                sigset_t blocked;
                sigset_t open;
                ::sigemptyset(&open);
                ::sigemptyset(&blocked);
                ::sigaddset(&blocked, SIGALRM);
                ::sigprocmask(SIG_BLOCK, &blocked, nullptr);
                alarm_after_ms(1);
                sleep_ms(30);
                CHECK_EQ(signals_counted(), 2);
                CHECK_EQ(::poll(&one, 1, 10), 0);
                const timespec span{10, 0};
                CHECK_ERRNO(::ppoll(&one, 1, &span, &open), EINTR);
                CHECK_EQ(signals_counted(), 3);
                alarm_after_sleep_ms(20);
                CHECK_ERRNO(::pselect(fd + 1, &set, nullptr, nullptr, &span, &open), EINTR);
                CHECK_EQ(signals_counted(), 4);
                tell_peer();
              }};

}  // namespace
}  // namespace shunt::behaviour
