// Several descriptors for one connection: every way to make one, and the use of any after the others are closed.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include <algorithm>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

// `copies` echoes, each through a duplicate made from the last one, which is closed.
constexpr int kWaysToCopy = 6;

int copied(int fd, int way) {
  switch (way) {
    case 0:
      return ::dup(fd);
    case 1:
      return ::dup2(fd, 50);
    case 2:
      return ::dup3(fd, 51, O_CLOEXEC);
    case 3:
      return ::fcntl(fd, F_DUPFD, 60);
    case 4:
      return ::fcntl(fd, F_DUPFD_CLOEXEC, 70);
    default:
      return ::fcntl(fd, F_DUPFD, 0);
  }
}

void echo(int fd) { write_all(fd, read_exactly(fd, 5000)); }

void ask(int fd, uint64_t position) {
  write_all(fd, bytes_at(position, 5000));
  CHECK_EQ(agreeing(read_exactly(fd, 5000), position), 5000U);
}

BEHAVIOUR{.name = "live_on_when_the_original_is_closed",
          .server =
              [](int fd) {
                for (int i = 0; i < kWaysToCopy; ++i) echo(fd);
                expect_end_of_stream(fd);
              },
          .client =
              [](int fd) {
                for (int way = 0; way < kWaysToCopy; ++way) {
                  about("way " + std::to_string(way));
                  const int other = copied(fd, way);
                  CHECK(other >= 0);
                  CHECK_EQ(::fcntl(other, F_GETFD), way == 2 || way == 4 ? FD_CLOEXEC : 0);
                  CHECK_EQ(::close(fd), 0);
                  CHECK_ERRNO(::write(fd, "x", 1), EBADF);
                  fd = other;
                  ask(fd, 11);
                }
                ::close(fd);
              }};

BEHAVIOUR{.name = "read_in_turns",
          .server = [](int fd) { write_all(fd, bytes_at(0, 100'000)); },
          .client =
              [](int fd) {
                const int other = ::dup(fd);
                for (uint64_t done = 0; done < 100'000; done += 1000) {
                  read_stream(done % 2000 == 0 ? fd : other, done, 1000, 300);
                }
              }};

BEHAVIOUR{.name = "write_in_turns",
          .server = [](int fd) { read_stream(fd, 0, 100'000, 777); },
          .client =
              [](int fd) {
                const int other = ::dup(fd);
                for (uint64_t done = 0; done < 100'000; done += 1000) {
                  write_stream(done % 2000 == 0 ? fd : other, done, 1000, 300);
                }
              }};

// dup2 over a descriptor closes what was there.
BEHAVIOUR{.name = "dup2_over_a_connection_closes_it",
          .server =
              [](int fd) {
                const int second = accept_another();
                expect_end_of_stream(second);
                echo(fd);
                expect_end_of_stream(fd);
              },
          .client =
              [](int fd) {
                const int second = connect_another();
                CHECK_EQ(::dup2(fd, second), second);
                ::close(fd);
                ask(second, 4);
                CHECK_EQ(::close(second), 0);
              }};

BEHAVIOUR{.name = "dup2_over_itself_changes_nothing",
          .server = [](int fd) { echo(fd); },
          .client =
              [](int fd) {
                CHECK_EQ(::dup2(fd, fd), fd);
                CHECK_ERRNO(::dup3(fd, fd, 0), EINVAL);
                CHECK_ERRNO(::dup2(fd, -1), EBADF);
                CHECK_ERRNO(::dup2(99, fd), EBADF);
                ask(fd, 3);
              }};

// A file opened over the number of a closed connection is that file.
BEHAVIOUR{.name = "a_number_used_again_is_something_else",
          .server =
              [](int fd) {
                expect_end_of_stream(fd);
                echo(accept_another());
              },
          .client =
              [](int fd) {
                CHECK_EQ(::close(fd), 0);
                CHECK_ERRNO(::close(fd), EBADF);
                const int file = ::open("/dev/zero", O_RDWR);
                CHECK_EQ(file, fd);
                CHECK_EQ(read_exactly(file, 5), std::string(5, '\0'));
                CHECK_ERRNO(::recv(file, &fd, 1, 0), ENOTSOCK);
                CHECK_EQ(::close(file), 0);
                const int again = connect_another();
                CHECK_EQ(again, file);
                ask(again, 9);
              }};

BEHAVIOUR{.name = "close_range_closes_connections",
          .server =
              [](int fd) {
                expect_end_of_stream(fd);
                echo(accept_another());
              },
          .client =
              [](int fd) {
                CHECK_EQ(::close_range(static_cast<unsigned>(fd), ~0U, 0), 0);
                CHECK_ERRNO(::write(fd, "x", 1), EBADF);
                ask(connect_another(), 1);
              }};

BEHAVIOUR{.name = "closefrom_closes_connections",
          .server =
              [](int fd) {
                expect_end_of_stream(fd);
                echo(accept_another());
              },
          .client =
              [](int fd) {
                ::closefrom(fd);
                CHECK_ERRNO(::write(fd, "x", 1), EBADF);
                ask(connect_another(), 1);
              }};

BEHAVIOUR{.name = "blind_close_of_all_numbers",
          .server =
              [](int fd) {
                expect_end_of_stream(fd);
                echo(accept_another());
              },
          .client =
              [](int fd) {
                for (int i = fd; i < 1024; ++i) ::close(i);
                ask(connect_another(), 1);
              }};

BEHAVIOUR{.name = "to_very_high_numbers",
          .server =
              [](int fd) {
                for (int i = 0; i < 3; ++i) echo(fd);
              },
          .client =
              [](int fd) {
                rlimit limit{};
                CHECK_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
                limit.rlim_cur = limit.rlim_max;
                CHECK_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
                const int highest = static_cast<int>(std::min<rlim_t>(limit.rlim_max, 100'000)) - 1;
                for (const int number : {1024, std::min(5000, highest - 1), highest}) {
                  CHECK_EQ(::dup2(fd, number), number);
                  ::close(fd);
                  fd = number;
                  ask(fd, 5);
                }
              }};

// A duplicate keeps the connection: no end of stream until the last is closed.
BEHAVIOUR{.name = "the_last_close_ends_the_stream",
          .server =
              [](int fd) {
                await_peer();
                CHECK(!is_readable(fd, 30));
                tell_peer();
                expect_end_of_stream(fd);
              },
          .client =
              [](int fd) {
                const int other = ::dup(fd);
                ::close(fd);
                tell_peer();
                await_peer();
                ::close(other);
              }};

// A call goes on with the file that it began with, whatever becomes of its descriptor.
BEHAVIOUR{.name = "closed_under_a_reader",
          .server =
              [](int fd) {
                const int other = accept_another();
                for (int i = 0; i < 3; ++i) {
                  write_all(other, bytes_at(static_cast<uint64_t>(i) * 100, 100));
                  await_peer();
                  write_all(fd, bytes_at(static_cast<uint64_t>(i) * 1000, 1000));
                  tell_peer();
                }
                expect_end_of_stream(fd);
                tell_peer();
              },
          .client =
              [](int fd) {
                const int other = connect_another();
                std::atomic<int> id{0};
                std::thread reader([&] {
                  id = ::gettid();
                  std::string data(3000, '\0');
                  CHECK_EQ(::recv(fd, data.data(), data.size(), MSG_WAITALL), 3000);
                  CHECK_EQ(agreeing(data, 0), 3000U);
                });
                while (id == 0) sleep_ms(1);
                await_sleeping(id);
                CHECK_EQ(::dup2(other, fd), fd);  // closes it, and another connection has its number
                CHECK_EQ(::close(other), 0);
                for (int i = 0; i < 3; ++i) {
                  sleep_ms(5);
                  tell_peer();
                  await_peer();
                }
                reader.join();
                CHECK_EQ(read_exactly(fd, 300), bytes_at(0, 300));
                await_peer();
              }};

BEHAVIOUR{.name = "closed_under_a_writer",
          .server =
              [](int fd) {
                const uint32_t count = await_peer();
                read_stream(fd, 0, count, 50'000);
                read_stream(fd, 0, 3'000'000, 50'000);
                expect_end_of_stream(fd);
              },
          .client =
              [](int fd) {
                set_blocking(fd, false);
                const uint64_t full = fill(fd, 0, 3000);
                set_blocking(fd, true);
                std::atomic<int> id{0};
                std::thread writer([&] {
                  id = ::gettid();
                  const std::string data = bytes_at(0, 3'000'000);
                  CHECK_EQ(::write(fd, data.data(), data.size()), 3'000'000);
                });
                while (id == 0) sleep_ms(1);
                await_sleeping(id);
                CHECK_EQ(::close(fd), 0);
                int ends[2];
                CHECK_EQ(::pipe(ends), 0);  // takes the number
                tell_peer(static_cast<uint32_t>(full));
                writer.join();
              },
          .limit = kByFences};

}  // namespace
}  // namespace shunt::behaviour
