// Sockets that do not wait: EAGAIN at the right moment, partial writes, and the ways to switch.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

bool is_nonblocking(int fd) { return (::fcntl(fd, F_GETFL) & O_NONBLOCK) != 0; }

BEHAVIOUR{.name = "read_of_nothing",
          .server =
              [](int fd) {
                await_peer();
                write_all(fd, "abc");
                tell_peer();
                read_exactly(fd, 1);
              },
          .client =
              [](int fd) {
                char data[10];
                set_blocking(fd, false);
                CHECK_ERRNO(::read(fd, data, sizeof data), EAGAIN);
                CHECK_ERRNO(::recv(fd, data, sizeof data, MSG_WAITALL), EAGAIN);
                tell_peer();
                await_peer();
                CHECK_EQ(::read(fd, data, sizeof data), 3);
                CHECK_ERRNO(::read(fd, data, sizeof data), EAGAIN);
                set_blocking(fd, true);
                write_all(fd, "x");
              }};

BEHAVIOUR{.name = "fill_drain_and_go_on",
          .server =
              [](int fd) {
                uint64_t done = 0;
                for (int round = 0; round < 20; ++round) {
                  const uint64_t count = await_peer();
                  read_stream(fd, done, count, 12'345);
                  done += count;
                  char byte = 0;
                  CHECK_ERRNO(::recv(fd, &byte, 1, MSG_DONTWAIT), EAGAIN);
                  tell_peer();
                }
              },
          .client =
              [](int fd) {
                set_blocking(fd, false);
                uint64_t done = 0;
                for (size_t round = 0; round < 20; ++round) {
                  const uint64_t count = fill(fd, done, 1 + round * 1777);
                  CHECK(count > 0);
                  done += count;
                  tell_peer(static_cast<uint32_t>(count));
                  await_peer();
                }
              }};

// "A write larger than the free space sends what fits." What is larger than any buffer is written in part, then EAGAIN.
BEHAVIOUR{.name = "a_write_larger_than_the_buffer_is_partial",
          .server =
              [](int fd) {
                const uint64_t count = await_peer();
                read_stream(fd, 0, count, 65'536);
                tell_peer();
                CHECK_EQ(read_exactly(fd, 4), "next");
              },
          .client =
              [](int fd) {
                set_blocking(fd, false);
                const std::string data = bytes_at(0, size_t{16} << 20);
                const ssize_t n = ::write(fd, data.data(), data.size());
                CHECK(n > 0 && n < static_cast<ssize_t>(data.size()));
                CHECK_ERRNO(::write(fd, data.data() + n, data.size() - static_cast<size_t>(n)), EAGAIN);
                tell_peer(static_cast<uint32_t>(n));
                await_peer();
                set_blocking(fd, true);
                write_all(fd, "next");
              }};

BEHAVIOUR{.name = "partial_drain_makes_partial_room",
          .server =
              [](int fd) {
                uint64_t done = 0;
                for (uint64_t left = await_peer(); left > 0;) {
                  const uint64_t some = std::min<uint64_t>(left, 100'000);
                  read_stream(fd, done, some, 1000);
                  done += some;
                  left -= some;
                  tell_peer();
                  left += await_peer();
                }
              },
          .client =
              [](int fd) {
                set_blocking(fd, false);
                uint64_t done = fill(fd, 0, 4321);
                tell_peer(static_cast<uint32_t>(done));
                uint64_t unread = done;
                while (unread > 0) {
                  await_peer();
                  unread -= std::min<uint64_t>(unread, 100'000);
                  const uint64_t more = done < 3'000'000 ? fill(fd, done, 4321) : 0;
                  done += more;
                  unread += more;
                  tell_peer(static_cast<uint32_t>(more));
                }
              }};

BEHAVIOUR{.name = "both_ways_of_switching_agree",
          .server =
              [](int fd) {
                int on = 1;
                CHECK(!is_nonblocking(fd));
                CHECK_EQ(::ioctl(fd, FIONBIO, &on), 0);
                CHECK(is_nonblocking(fd));
                char byte = 0;
                CHECK_ERRNO(::read(fd, &byte, 1), EAGAIN);
                set_blocking(fd, true);
                CHECK(!is_nonblocking(fd));
                set_blocking(fd, false);
                CHECK_ERRNO(::read(fd, &byte, 1), EAGAIN);
                int off = 0;
                CHECK_EQ(::ioctl(fd, FIONBIO, &off), 0);
                CHECK(!is_nonblocking(fd));
                tell_peer();
                CHECK_EQ(read_exactly(fd, 1), "x");  // waits again
              },
          .client =
              [](int fd) {
                await_peer();
                sleep_ms(20);
                write_all(fd, "x");
              }};

// The flag belongs to the open file description: every duplicate has it.
BEHAVIOUR{.name = "duplicates_share_the_flag",
          .server =
              [](int fd) {
                await_peer();
                write_all(fd, "x");
              },
          .client =
              [](int fd) {
                const int other = ::dup(fd);
                char byte = 0;
                set_blocking(other, false);
                CHECK(is_nonblocking(fd));
                CHECK_ERRNO(::read(fd, &byte, 1), EAGAIN);
                set_blocking(fd, true);
                CHECK(!is_nonblocking(other));
                tell_peer();
                CHECK_EQ(read_exactly(other, 1), "x");
              }};

BEHAVIOUR{.name = "non_blocking_echo_by_polling",
          .server =
              [](int fd) {
                set_blocking(fd, false);
                std::string pending;
                for (size_t received = 0, sent = 0; sent < 2'000'000;) {
                  char buffer[30'000];
                  const ssize_t in = received < 2'000'000 ? ::read(fd, buffer, sizeof buffer) : -1;
                  if (in > 0) pending.append(buffer, static_cast<size_t>(in)), received += static_cast<size_t>(in);
                  const ssize_t out = pending.empty() ? -1 : ::write(fd, pending.data(), pending.size());
                  if (out > 0) pending.erase(0, static_cast<size_t>(out)), sent += static_cast<size_t>(out);
                  if (in < 0 && out < 0) sleep_ms(1);
                }
              },
          .client =
              [](int fd) {
                for (uint64_t i = 0; i < 20; ++i) {
                  write_stream(fd, i * 100'000, 100'000, 33'333);
                  read_stream(fd, i * 100'000, 100'000, 55'555);
                }
              }};

}  // namespace
}  // namespace shunt::behaviour
