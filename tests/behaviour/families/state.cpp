// What a program may ask about a connection: how much is unread, options, flags, what kind of file it is.
#include <fcntl.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

int asked(int fd, unsigned long request) {
  int value = -1;
  CHECK_EQ(::ioctl(fd, request, &value), 0);
  return value;
}

int option(int fd, int name) {
  int value = -1;
  socklen_t length = sizeof value;
  CHECK_EQ(::getsockopt(fd, SOL_SOCKET, name, &value, &length), 0);
  CHECK_EQ(length, sizeof value);
  return value;
}

BEHAVIOUR{.name = "fionread_counts_what_is_unread",
          .server =
              [](int fd) {
                for (const int count : {1, 1000, 40'000}) {
                  CHECK_EQ(asked(fd, FIONREAD), 0);
                  tell_peer();
                  await_peer();
                  CHECK_EQ(asked(fd, FIONREAD), count);
                  char byte = 0;
                  CHECK_EQ(::recv(fd, &byte, 1, MSG_PEEK), 1);
                  CHECK_EQ(asked(fd, FIONREAD), count);
                  read_exactly(fd, 1);
                  CHECK_EQ(asked(fd, FIONREAD), count - 1);
                  if (count > 1) read_exactly(fd, static_cast<size_t>(count - 1));
                }
                CHECK_EQ(asked(fd, FIONREAD), 0);
              },
          .client =
              [](int fd) {
                for (const size_t count : {1U, 1000U, 40'000U}) {
                  await_peer();
                  write_all(fd, bytes_at(0, count));
                  tell_peer();
                }
              }};

BEHAVIOUR{.name = "fionread_adds_up_several_writes",
          .server =
              [](int fd) {
                for (int i = 1; i <= 10; ++i) {
                  await_peer();
                  CHECK_EQ(asked(fd, FIONREAD), i * 100);
                  tell_peer();
                }
                read_exactly(fd, 1000);
              },
          .client =
              [](int fd) {
                for (int i = 0; i < 10; ++i) {
                  write_all(fd, bytes_at(0, 100));
                  tell_peer();
                  await_peer();
                }
              }};

BEHAVIOUR{.name = "fionread_at_the_end",
          .server =
              [](int fd) {
                write_all(fd, "abc");
                ::close(fd);
                tell_peer();
              },
          .client =
              [](int fd) {
                await_peer();
                CHECK_EQ(asked(fd, FIONREAD), 3);
                read_exactly(fd, 3);
                CHECK_EQ(asked(fd, FIONREAD), 0);
              }};

// SIOCOUTQ of a unix socket counts buffer memory, so only "none" and "some" mean something.
BEHAVIOUR{.name = "siocoutq_is_zero_when_all_is_read",
          .server =
              [](int fd) {
                for (int i = 0; i < 3; ++i) {
                  await_peer();
                  read_exactly(fd, 3000);
                  tell_peer();
                }
              },
          .client =
              [](int fd) {
                for (int i = 0; i < 3; ++i) {
                  CHECK_EQ(asked(fd, SIOCOUTQ), 0);
                  write_all(fd, bytes_at(0, 3000));
                  CHECK(asked(fd, SIOCOUTQ) > 0);
                  tell_peer();
                  await_peer();
                }
                CHECK_EQ(asked(fd, SIOCOUTQ), 0);
              }};

BEHAVIOUR{.name = "siocoutq_is_zero_after_a_sleeper_was_woken",
          .server =
              [](int fd) {
                CHECK_EQ(read_exactly(fd, 5), "hello");
                tell_peer();
                CHECK_EQ(read_exactly(fd, 1), "x");
              },
          .client =
              [](int fd) {
                sleep_ms(30);
                write_all(fd, "hello");
                await_peer();
                CHECK_EQ(asked(fd, SIOCOUTQ), 0);
                write_all(fd, "x");
              }};

BEHAVIOUR{.name = "fionread_is_zero_after_a_sleeper_was_woken",
          .server =
              [](int fd) {
                CHECK_EQ(read_exactly(fd, 5), "hello");
                CHECK_EQ(asked(fd, FIONREAD), 0);
                write_all(fd, "x");
              },
          .client =
              [](int fd) {
                sleep_ms(30);
                write_all(fd, "hello");
                CHECK_EQ(read_exactly(fd, 1), "x");
              }};

BEHAVIOUR{.name = "options_are_the_sockets_own",
          .server = [](int fd) { CHECK_EQ(read_exactly(fd, 1), "x"); },
          .client =
              [](int fd) {
                CHECK_EQ(option(fd, SO_ERROR), 0);
                CHECK_EQ(option(fd, SO_TYPE), SOCK_STREAM);
                CHECK_EQ(option(fd, SO_DOMAIN), AF_UNIX);
                CHECK_EQ(option(fd, SO_PROTOCOL), 0);
                CHECK_EQ(option(fd, SO_ACCEPTCONN), 0);
                CHECK_EQ(option(fd, SO_PASSCRED), 0);
                CHECK_EQ(option(fd, SO_RCVLOWAT), 1);
                CHECK(option(fd, SO_SNDBUF) > 0);
                write_all(fd, "x");
              }};

BEHAVIOUR{.name = "credentials_are_the_peers",
          .server =
              [](int fd) {
                const auto pid = static_cast<pid_t>(await_peer());
                ucred credentials{};
                socklen_t length = sizeof credentials;
                CHECK_EQ(::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length), 0);
                CHECK_EQ(credentials.pid, pid);
                CHECK_EQ(credentials.uid, ::getuid());
                CHECK_EQ(credentials.gid, ::getgid());
              },
          .client = [](int) { tell_peer(static_cast<uint32_t>(::getpid())); }};

BEHAVIOUR{.name = "it_is_a_socket_and_nothing_else",
          .server = [](int fd) { CHECK_EQ(read_exactly(fd, 1), "x"); },
          .client =
              [](int fd) {
                struct stat status {};
                CHECK_EQ(::fstat(fd, &status), 0);
                CHECK(S_ISSOCK(status.st_mode));
                CHECK_EQ(::isatty(fd), 0);
                CHECK_ERRNO(::lseek(fd, 0, SEEK_CUR), ESPIPE);
                CHECK_ERRNO(::listen(fd, 1), EINVAL);
                CHECK_ERRNO(::accept(fd, nullptr, nullptr), EINVAL);
                char byte = 0;
                CHECK_ERRNO(::pread(fd, &byte, 1, 0), ESPIPE);
                CHECK_ERRNO(::pwrite(fd, &byte, 1, 0), ESPIPE);
                CHECK_ERRNO(::fsync(fd), EINVAL);
                write_all(fd, "x");
              }};

BEHAVIOUR{.name = "status_flags_are_kept",
          .server = [](int fd) { CHECK_EQ(read_exactly(fd, 1), "x"); },
          .client =
              [](int fd) {
                CHECK_EQ(::fcntl(fd, F_GETFL), O_RDWR);
                CHECK_EQ(::fcntl(fd, F_GETFD), 0);
                CHECK_EQ(::fcntl(fd, F_SETFD, FD_CLOEXEC), 0);
                CHECK_EQ(::fcntl(fd, F_GETFD), FD_CLOEXEC);
                CHECK_EQ(::ioctl(fd, FIONCLEX), 0);
                CHECK_EQ(::fcntl(fd, F_GETFD), 0);
                CHECK_EQ(::ioctl(fd, FIOCLEX), 0);
                CHECK_EQ(::fcntl(fd, F_GETFD), FD_CLOEXEC);
                CHECK_ERRNO(::ioctl(fd, 0xdead, nullptr), ENOTTY);
                CHECK_ERRNO(::fcntl(fd, 9999), EINVAL);
                write_all(fd, "x");
              }};

// "Whatever the program opens, it gets the lowest free number": the library may not be seen in the numbers.
BEHAVIOUR{.name = "descriptor_numbers_are_the_programs",
          .server = [](int fd) { CHECK_EQ(read_exactly(fd, 1), "x"); },
          .client =
              [](int fd) {
                CHECK_EQ(fd, 5);  // 0 to 2, and the side channel
                const int next = ::dup(fd);
                CHECK_EQ(next, 6);
                ::close(next);
                const int file = ::open("/dev/null", O_RDONLY);
                CHECK_EQ(file, 6);
                write_all(fd, "x");
              }};

}  // namespace
}  // namespace shunt::behaviour
