// A process that waits uses no CPU, and is there at once when bytes arrive.
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

constexpr double kAllowed_ms = 10;

// Long enough to be sure where it matters, short where only the path is tried.
int idle_ms() { return current_way() == Way::both ? 2000 : 300; }

void write_late(int fd) {
  await_peer();
  sleep_ms(idle_ms());
  write_all(fd, "x");
  CHECK_EQ(read_exactly(fd, 1), "y");
}

template <class Wait>
void expect_idle(int fd, const Wait& wait) {
  const double start = now_ms();
  tell_peer();
  const double cpu = cpu_ms();
  wait();
  CHECK(now_ms() - start > idle_ms() - 20);
  CHECK(cpu_ms() - cpu < kAllowed_ms);
  CHECK_EQ(read_exactly(fd, 1), "x");
  write_all(fd, "y");
}

BEHAVIOUR{.name = "in_read", .server = write_late, .client = [](int fd) {
            expect_idle(fd, [fd] {
              char byte = 0;
              CHECK_EQ(::recv(fd, &byte, 1, MSG_PEEK), 1);
            });
          }};

BEHAVIOUR{.name = "in_poll", .server = write_late, .client = [](int fd) {
            expect_idle(fd, [fd] { CHECK(is_readable(fd, -1)); });
          }};

BEHAVIOUR{.name = "in_select", .server = write_late, .client = [](int fd) {
            expect_idle(fd, [fd] {
              fd_set set;
              FD_ZERO(&set);
              FD_SET(fd, &set);
              CHECK_EQ(::select(fd + 1, &set, nullptr, nullptr, nullptr), 1);
            });
          }};

BEHAVIOUR{.name = "in_epoll_wait", .server = write_late, .client = [](int fd) {
            const int set = ::epoll_create1(0);
            epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
            CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), 0);
            expect_idle(fd, [set] {
              epoll_event ready{};
              CHECK_EQ(::epoll_wait(set, &ready, 1, -1), 1);
            });
          }};

// A level-triggered set that asks for writing, over a stream that is full: not writable, so nothing to do.
BEHAVIOUR{.name = "in_epoll_wait_for_a_full_stream_to_drain",
          .server =
              [](int fd) {
                const uint32_t count = await_peer();
                sleep_ms(idle_ms());
                read_stream(fd, 0, count, 65'536);
                CHECK_EQ(read_exactly(fd, 1), "y");
              },
          .client =
              [](int fd) {
                set_blocking(fd, false);
                const auto count = static_cast<uint32_t>(fill(fd, 0, 5000));
                const int set = ::epoll_create1(0);
                epoll_event event{.events = EPOLLOUT, .data = {.fd = fd}};
                CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), 0);
                tell_peer(count);
                const double cpu = cpu_ms();
                CHECK_EQ(::epoll_wait(set, &event, 1, -1), 1);
                CHECK(cpu_ms() - cpu < kAllowed_ms);
                set_blocking(fd, true);
                write_all(fd, "y");
              },
          .limit = kByFences};

BEHAVIOUR{.name = "in_a_blocked_write",
          .server =
              [](int fd) {
                const uint32_t count = await_peer();
                sleep_ms(idle_ms());
                read_stream(fd, 0, count, 65'536);
                CHECK_EQ(read_exactly(fd, 1), "y");
              },
          .client =
              [](int fd) {
                set_blocking(fd, false);
                const auto count = static_cast<uint32_t>(fill(fd, 0, 5000));
                set_blocking(fd, true);
                tell_peer(count);
                const double cpu = cpu_ms();
                write_all(fd, "y");
                CHECK(cpu_ms() - cpu < kAllowed_ms);
              }};

}  // namespace
}  // namespace shunt::behaviour
