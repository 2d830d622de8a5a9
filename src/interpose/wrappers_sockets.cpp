// The calls that make and describe sockets.
#include <linux/sockios.h>

#include "calls/connecting.h"
#include "calls/socket_options.h"
#include "interpose/export.h"
#include "interpose/wrappers.h"
#include "sys/raw.h"

using shunt::is_connection;
using shunt::interpose::active;
using shunt::interpose::next;
namespace calls = shunt::calls;

SHUNT_WRAPPER(int, socket, (int domain, int type, int protocol)) {
  const int fd = next.socket(domain, type, protocol);
  if (fd >= 0 && active()) calls::note_socket(fd, domain, type);
  return fd;
}

SHUNT_WRAPPER(int, socketpair, (int domain, int type, int protocol, int* pair)) {
  const int result = next.socketpair(domain, type, protocol, pair);
  if (result == 0 && active()) calls::note_socketpair(domain, type, pair);
  return result;
}

SHUNT_FORWARD(int, connect, (int fd, const sockaddr* address, socklen_t length), (fd, address, length), active());
SHUNT_SECOND_NAME(__connect, connect);
SHUNT_FORWARD(int, accept, (int fd, sockaddr* address, socklen_t* length), (fd, address, length), active());
SHUNT_FORWARD(int, accept4, (int fd, sockaddr* address, socklen_t* length, int flags), (fd, address, length, flags),
              active());
SHUNT_FORWARD(int, getsockname, (int fd, sockaddr* address, socklen_t* length), (fd, address, length), active());
SHUNT_FORWARD(int, getpeername, (int fd, sockaddr* address, socklen_t* length), (fd, address, length), active());
SHUNT_FORWARD(int, getsockopt, (int fd, int level, int name, void* value, socklen_t* length),
              (fd, level, name, value, length), is_connection(fd));
SHUNT_FORWARD(int, setsockopt, (int fd, int level, int name, const void* value, socklen_t length),
              (fd, level, name, value, length), level == SOL_SOCKET && active());
SHUNT_FORWARD(int, shutdown, (int fd, int how), (fd, how), is_connection(fd));

// libc asks with an ioctl of its own.
SHUNT_WRAPPER(int, sockatmark, (int fd)) {
  if (!is_connection(fd)) return next.sockatmark(fd);
  int answer = 0;
  return shunt_ioctl(fd, SIOCATMARK, shunt::sys::word(&answer)) < 0 ? -1 : answer;
}
