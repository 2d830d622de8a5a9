// What a program compiled with -D_FORTIFY_SOURCE=2 calls: __read_chk, __recv_chk, __recvfrom_chk, __poll_chk,
// __ppoll_chk,
// __fdelt_chk. CMake compiles this file with it, optimised.
#include <poll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

// Unknown to the optimiser, so that the check stays.
size_t runtime(size_t value) {
  asm volatile("" : "+r"(value));
  return value;
}

void receive_fortified(int fd) {
  char small[64];
  CHECK_EQ(::read(fd, small, runtime(10)), 10);
  CHECK_EQ(std::string(small, 10), bytes_at(0, 10));
  CHECK_EQ(::recv(fd, small, runtime(20), MSG_PEEK), 20);
  CHECK_EQ(std::string(small, 20), bytes_at(10, 20));
  CHECK_EQ(::recv(fd, small, runtime(20), 0), 20);
  CHECK_EQ(std::string(small, 20), bytes_at(10, 20));
  CHECK_EQ(::recvfrom(fd, small, runtime(34), 0, nullptr, nullptr), 34);
  CHECK_EQ(std::string(small, 34), bytes_at(30, 34));
}

short poll_fortified(int fd, int timeout_ms) {
  pollfd one[1] = {{.fd = fd, .events = POLLIN, .revents = 0}};
  CHECK(::poll(one, runtime(1), timeout_ms) >= 0);
  return one[0].revents;
}

short ppoll_fortified(int fd, long timeout_ns) {
  pollfd one[1] = {{.fd = fd, .events = POLLIN, .revents = 0}};
  const timespec timeout{0, timeout_ns};
  CHECK(::ppoll(one, runtime(1), &timeout, nullptr) >= 0);
  return one[0].revents;
}

bool select_fortified(int fd, int timeout_us) {
  fd_set set;
  FD_ZERO(&set);
  FD_SET(fd, &set);
  timeval timeout{0, timeout_us};
  CHECK(::select(fd + 1, &set, nullptr, nullptr, &timeout) >= 0);
  return FD_ISSET(fd, &set);
}

BEHAVIOUR{.name = "reads",
          .server =
              [](int fd) {
                write_all(fd, bytes_at(0, 64));
                read_exactly(fd, 1);
              },
          .client =
              [](int fd) {
                while (::recv(fd, std::string(64, '\0').data(), 64, MSG_PEEK) < 64) {
                }
                receive_fortified(fd);
                write_all(fd, "x");
              },
          .limit = kByFences};

BEHAVIOUR{.name = "poll_and_select",
          .server =
              [](int fd) {
                await_peer();
                write_all(fd, "x");
                tell_peer();
                read_exactly(fd, 1);
              },
          .client =
              [](int fd) {
                CHECK_EQ(poll_fortified(fd, 0), 0);
                CHECK_EQ(ppoll_fortified(fd, 1000), 0);
                CHECK(!select_fortified(fd, 1000));
                tell_peer();
                await_peer();
                CHECK_EQ(poll_fortified(fd, 10'000), POLLIN);
                CHECK_EQ(ppoll_fortified(fd, 999'999'999), POLLIN);
                CHECK(select_fortified(fd, 999'999));
                write_all(fd, "x");
              }};

BEHAVIOUR{.name = "data_arriving_during_poll",
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
                for (int i = 0; i < 3; ++i) {
                  tell_peer();
                  if (i == 0) CHECK_EQ(poll_fortified(fd, 10'000), POLLIN);
                  if (i == 1) CHECK_EQ(ppoll_fortified(fd, 999'999'999), POLLIN);
                  if (i == 2) CHECK(select_fortified(fd, 999'999));
                  CHECK_EQ(read_exactly(fd, 1), "x");
                  write_all(fd, "y");
                }
              }};

}  // namespace
}  // namespace shunt::behaviour
