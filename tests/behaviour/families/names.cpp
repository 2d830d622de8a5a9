// Names: a client that was not given one has none, whatever the library did to tell the server of itself.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

using Asker = int (*)(int, sockaddr*, socklen_t*);

// The name that `ask` tells, with everything beyond its length left as it was.
void expect_name(int fd, Asker ask, const Address& wanted) {
  sockaddr_un name;
  std::memset(&name, 0x5a, sizeof name);
  socklen_t length = sizeof name;
  CHECK_EQ(ask(fd, reinterpret_cast<sockaddr*>(&name), &length), 0);
  CHECK_EQ(length, wanted.length);
  CHECK_EQ(std::memcmp(&name, &wanted.name, length), 0);
  CHECK_EQ(reinterpret_cast<const unsigned char*>(&name)[length], 0x5aU);
}

int own_name(int fd, sockaddr* name, socklen_t* length) { return ::getsockname(fd, name, length); }
int peer_name(int fd, sockaddr* name, socklen_t* length) { return ::getpeername(fd, name, length); }

Address no_name() {
  Address address;
  address.name.sun_family = AF_UNIX;
  address.length = sizeof address.name.sun_family;
  return address;
}

// A server without the library sees the marker of a client with it, once that has been seen to use the connection. accept never does.
bool sees_markers() { return current_way() == Way::client_only; }

Address name_in_directory(const char* file) {
  Address address = path_address();
  const std::string path = scratch_file(file);
  std::memset(address.name.sun_path, 0, sizeof address.name.sun_path);
  std::memcpy(address.name.sun_path, path.c_str(), path.size() + 1);
  address.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
  return address;
}

int bind_to(int fd, const Address& address) {
  return ::bind(fd, reinterpret_cast<const sockaddr*>(&address.name), address.length);
}

int accept_named(int listener, const Address& wanted) {
  sockaddr_un name;
  std::memset(&name, 0x5a, sizeof name);
  socklen_t length = sizeof name;
  const int fd = ::accept(listener, reinterpret_cast<sockaddr*>(&name), &length);
  CHECK(fd >= 0);
  CHECK_EQ(length, wanted.length);
  CHECK_EQ(std::memcmp(&name, &wanted.name, length), 0);
  return fd;
}

void expect_client_name(int fd, const Address& wanted) {
  if (wanted.length == no_name().length && sees_markers()) return;
  expect_name(fd, peer_name, wanted);
}

void serve_one(const Address& address, const Address& client_name) {
  const int listener = listen_at(address);
  tell_peer();
  const int fd = accept_named(listener, client_name);
  expect_client_name(fd, client_name);
  expect_name(fd, own_name, address);
  warm_up_server(fd);
  expect_client_name(fd, client_name);
  expect_name(fd, own_name, address);
}

void connect_unnamed(const Address& address) {
  await_peer();
  const int fd = connect_to(address);
  expect_name(fd, own_name, no_name());
  expect_name(fd, peer_name, address);
  warm_up_client(fd);
  expect_name(fd, own_name, no_name());
  expect_name(fd, peer_name, address);
}

BEHAVIOUR{.name = "of_a_client_on_a_path",
          .server = [](int) { serve_one(path_address(), no_name()); },
          .client = [](int) { connect_unnamed(path_address()); },
          .connects_itself = true};

BEHAVIOUR{.name = "of_a_client_on_an_abstract_name",
          .server = [](int) { serve_one(abstract_address(), no_name()); },
          .client = [](int) { connect_unnamed(abstract_address()); },
          .connects_itself = true};

BEHAVIOUR{.name = "given_by_the_client",
          .server = [](int) { serve_one(path_address(), name_in_directory("mine")); },
          .client =
              [](int) {
                await_peer();
                const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
                const Address server = path_address();
                CHECK_EQ(bind_to(fd, name_in_directory("mine")), 0);
                CHECK_EQ(::connect(fd, reinterpret_cast<const sockaddr*>(&server.name), server.length), 0);
                expect_name(fd, own_name, name_in_directory("mine"));
                warm_up_client(fd);
              },
          .connects_itself = true,
          .leaves_ring = true};

// After a connect that failed the socket is as it was: without a name, free to be given one.
BEHAVIOUR{.name = "given_after_a_connect_that_failed",
          .server =
              [](int) {
                await_peer();
                serve_one(path_address(), name_in_directory("mine"));
              },
          .client =
              [](int) {
                const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
                const Address server = path_address();
                CHECK_ERRNO(::connect(fd, reinterpret_cast<const sockaddr*>(&server.name), server.length), ENOENT);
                expect_name(fd, own_name, no_name());
                tell_peer();
                await_peer();
                CHECK_EQ(bind_to(fd, name_in_directory("mine")), 0);
                CHECK_EQ(::connect(fd, reinterpret_cast<const sockaddr*>(&server.name), server.length), 0);
                expect_name(fd, own_name, name_in_directory("mine"));
                warm_up_client(fd);
              },
          .connects_itself = true,
          .leaves_ring = true};

BEHAVIOUR{.name = "of_a_second_connect_after_one_that_failed",
          .server =
              [](int) {
                await_peer();
                serve_one(path_address(), no_name());
              },
          .client =
              [](int) {
                const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
                const Address server = path_address();
                CHECK_ERRNO(::connect(fd, reinterpret_cast<const sockaddr*>(&server.name), server.length), ENOENT);
                tell_peer();
                await_peer();
                CHECK_EQ(::connect(fd, reinterpret_cast<const sockaddr*>(&server.name), server.length), 0);
                expect_name(fd, own_name, no_name());
                warm_up_client(fd);
                CHECK_ERRNO(::connect(fd, reinterpret_cast<const sockaddr*>(&server.name), server.length), EISCONN);
              },
          .connects_itself = true};

// The kernel lets a connected socket without a name be given one; the server sees it from then on.
BEHAVIOUR{.name = "given_after_connecting",
          .server =
              [](int fd) {
                await_peer();
                expect_name(fd, peer_name, name_in_directory("late"));
                write_all(fd, read_exactly(fd, 5));
              },
          .client =
              [](int fd) {
                CHECK_EQ(bind_to(fd, name_in_directory("late")), 0);
                expect_name(fd, own_name, name_in_directory("late"));
                tell_peer();
                write_all(fd, "hello");
                CHECK_EQ(read_exactly(fd, 5), "hello");
              },
          .leaves_ring = true,
          .limit = kByMarkers};

// "If the buffer is too small the name is cut, and the length says how long it was."
BEHAVIOUR{.name = "are_cut_to_the_buffer",
          .server =
              [](int fd) {
                if (sees_markers()) return;
                char family[2] = {0x5a, 0x5a};
                socklen_t length = 0;
                CHECK_EQ(::getpeername(fd, reinterpret_cast<sockaddr*>(family), &length), 0);
                CHECK_EQ(length, 2U);
                CHECK_EQ(family[0], 0x5a);
                length = 1;
                CHECK_EQ(::getpeername(fd, reinterpret_cast<sockaddr*>(family), &length), 0);
                CHECK_EQ(length, 2U);
                CHECK_EQ(family[0], AF_UNIX);
                CHECK_EQ(family[1], 0x5a);
              },
          .client =
              [](int fd) {
                char name[12] = {};
                socklen_t length = 10;
                CHECK_EQ(::getpeername(fd, reinterpret_cast<sockaddr*>(name), &length), 0);
                CHECK_EQ(length, path_address().length);
                const Address wanted = path_address();
                CHECK_EQ(std::memcmp(name, &wanted.name, 10), 0);
                CHECK_EQ(name[10], 0);
              }};

// SOCK_CLOEXEC and SOCK_NONBLOCK are O_CLOEXEC and O_NONBLOCK.
BEHAVIOUR{.name = "and_flags_of_accept4",
          .server =
              [](int) {
                const int listener = listen_at(path_address());
                tell_peer();
                for (const int flags : {0, O_CLOEXEC, O_NONBLOCK, O_CLOEXEC | O_NONBLOCK}) {
                  sockaddr_un name;
                  socklen_t length = sizeof name;
                  const int fd = ::accept4(listener, reinterpret_cast<sockaddr*>(&name), &length, flags);
                  CHECK(fd >= 0);
                  CHECK_EQ(length, 2U);
                  CHECK_EQ(::fcntl(fd, F_GETFD), (flags & O_CLOEXEC) != 0 ? FD_CLOEXEC : 0);
                  CHECK_EQ(::fcntl(fd, F_GETFL) & O_NONBLOCK, (flags & O_NONBLOCK) != 0 ? O_NONBLOCK : 0);
                  set_blocking(fd, true);
                  warm_up_server(fd);
                  set_blocking(fd, (flags & O_NONBLOCK) == 0);
                  char byte = 0;
                  if ((flags & O_NONBLOCK) != 0) CHECK_ERRNO(::read(fd, &byte, 1), EAGAIN);
                }
                CHECK_ERRNO(::accept4(listener, nullptr, nullptr, 0x12345), EINVAL);
              },
          .client =
              [](int) {
                await_peer();
                for (int i = 0; i < 4; ++i) warm_up_client(connect_to(path_address()));
              },
          .connects_itself = true};

BEHAVIOUR{.name = "of_a_non_blocking_connect",
          .server =
              [](int) {
                const int listener = listen_at(path_address(), 0);
                tell_peer();
                await_peer();
                accept_at(listener);
                const int fd = accept_named(listener, no_name());
                tell_peer();
                warm_up_server(fd);
              },
          .client =
              [](int) {
                await_peer();
                const Address server = path_address();
                const int first = connect_to(server);  // the backlog of 0 holds one
                const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
                CHECK_ERRNO(::connect(fd, reinterpret_cast<const sockaddr*>(&server.name), server.length), EAGAIN);
                tell_peer();
                while (::connect(fd, reinterpret_cast<const sockaddr*>(&server.name), server.length) != 0) {
                  CHECK_EQ(errno, EAGAIN);
                  sleep_ms(1);
                }
                await_peer();
                expect_name(fd, own_name, no_name());
                set_blocking(fd, true);
                warm_up_client(fd);
                ::close(first);
              },
          .connects_itself = true};

}  // namespace
}  // namespace shunt::behaviour
