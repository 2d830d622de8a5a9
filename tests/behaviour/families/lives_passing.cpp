// Lives of a descriptor that goes to another program, and of a connection that carries what only the kernel can.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "life.h"

extern char** environ;

namespace shunt::behaviour {
namespace {

enum class Receiver { aware, unaware };

// A program that never had the connection gets it over another socket.
void pass_on(int fd, const Stream& rest, Receiver receiver) {
  int pair[2];
  CHECK_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  CHECK_EQ(::fcntl(fd, F_SETFD, FD_CLOEXEC), 0);
  CHECK_EQ(::fcntl(pair[0], F_SETFD, FD_CLOEXEC), 0);
  const int child = in_child([&] {
    const char* program = receiver == Receiver::aware ? "/proc/self/exe" : SHUNT_STATIC_IMAGE;
    ImageArguments arguments(program, pair[1], rest, From::passing);
    ::execve(program, arguments.argv, environ);
    fail(__FILE__, __LINE__, "execve");
  });
  ::close(pair[1]);
  CHECK_EQ(read_exactly(pair[0], 1), "r");  // it has started
  send_descriptor(pair[0], fd);
  CHECK_EQ(::close(fd), 0);
  ::close(pair[0]);
  join_child(child);
}

// `kind` of ancillary data goes with the next byte of the stream.
void carry(int fd, const Stream& rest, int kind, const void* data, size_t bytes) {
  rest.begin(fd);
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred))] = {};
  std::string byte = bytes_at(rest.sent, 1);
  iovec piece{byte.data(), 1};
  msghdr header{};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = CMSG_SPACE(bytes);
  cmsghdr* item = CMSG_FIRSTHDR(&header);
  *item = {.cmsg_len = CMSG_LEN(bytes), .cmsg_level = SOL_SOCKET, .cmsg_type = kind};
  std::memcpy(CMSG_DATA(item), data, bytes);
  set_blocking(fd, true);  // it may have to wait for room
  CHECK_EQ(::sendmsg(fd, &header, 0), 1);
  set_blocking(fd, rest.blocking);
  rest.carry_on(fd, {.out = 1});
  rest.second(fd), rest.last(fd);
  CHECK_EQ(::close(fd), 0);
}

bool sends(const Cell& cell, bool) { return cell.state != State::half_closed_by_us; }

constexpr Life kPassing[] = {
    {"SCM_RIGHTS of it to an aware program", [](int fd, const Stream& rest) { pass_on(fd, rest, Receiver::aware); },
     nullptr, true},
    {"SCM_RIGHTS of it to an unaware program", [](int fd, const Stream& rest) { pass_on(fd, rest, Receiver::unaware); },
     nullptr, true},
    {"SCM_RIGHTS of it to oneself",
     [](int fd, const Stream& rest) {
       int pair[2];
       CHECK_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
       send_descriptor(pair[0], fd);
       const int other = receive_descriptor(pair[1]);
       CHECK_EQ(::close(fd), 0);
       rest.all(other);
       ::close(other), ::close(pair[0]), ::close(pair[1]);
     }},
    {"SCM_RIGHTS over it",
     [](int fd, const Stream& rest) {
       const int passed = STDIN_FILENO;
       carry(fd, rest, SCM_RIGHTS, &passed, sizeof passed);
     },
     sends},
    {"SCM_CREDENTIALS over it",
     [](int fd, const Stream& rest) {
       const ucred mine{.pid = ::getpid(), .uid = ::getuid(), .gid = ::getgid()};
       carry(fd, rest, SCM_CREDENTIALS, &mine, sizeof mine);
     },
     sends},
    {"SO_PASSCRED",
     [](int fd, const Stream& rest) {
       const int on = 1;
       CHECK_EQ(::setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on), 0);
       rest.all(fd);
       CHECK_EQ(::close(fd), 0);
     }},
    // A reader without SO_OOBINLINE, which does not ask for the urgent byte, never sees it.
    {"MSG_OOB over it",
     [](int fd, const Stream& rest) {
       rest.begin(fd);
       set_blocking(fd, true);
       CHECK_EQ(::send(fd, "!", 1, MSG_OOB), 1);
       set_blocking(fd, rest.blocking);
       rest.carry_on(fd, {});
       rest.second(fd), rest.last(fd);
       CHECK_EQ(::close(fd), 0);
     },
     sends, false, true},
};

BEHAVIOUR{.name = "passed_at_the_server",
          .server = holds<kPassing>,
          .client = faces<kPassing>,
          .warms_up = false,
          .leaves_ring = true};
BEHAVIOUR{.name = "passed_at_the_client",
          .server = faces<kPassing>,
          .client = holds<kPassing>,
          .warms_up = false,
          .leaves_ring = true};

}  // namespace
}  // namespace shunt::behaviour
