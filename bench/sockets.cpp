// See sockets.h. Runs with and without the preloaded library; calls nothing but sockets.
#include "sockets.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace shunt::bench {

void die(const char* what) {
  std::perror(what);
  std::exit(1);
}

namespace {

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) die("socket path too long");
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

}  // namespace

int listening_socket(const std::string& path) {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_un address = address_of(path);
  if (fd < 0 || ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) die("bind");
  if (::listen(fd, SOMAXCONN) != 0) die("listen");
  return fd;
}

int connected_socket(const std::string& path) {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_un address = address_of(path);
  if (fd < 0 || ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) die("connect");
  return fd;
}

void write_all(int fd, const std::vector<char>& data, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    const ssize_t n = ::write(fd, data.data() + done, bytes - done);
    if (n < 0 && errno != EINTR) die("write");
    if (n > 0) done += static_cast<size_t>(n);
  }
}

bool read_all(int fd, std::vector<char>& data, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    const ssize_t n = ::read(fd, data.data() + done, bytes - done);
    if (n < 0 && errno != EINTR) die("read");
    if (n == 0) {
      if (done == 0) return false;
      die("read: end in the middle of a message");
    }
    if (n > 0) done += static_cast<size_t>(n);
  }
  return true;
}

}  // namespace shunt::bench
