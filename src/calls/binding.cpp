// A kernel socket keeps its first name for good. So a marked socket that the program wants to name itself is exchanged
// for a fresh one with the same settings. Only for fresh sockets (calls/policy.h): unconnected, reached by this one
// descriptor, waited on by nobody.
#include "calls/binding.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstring>

#include "calls/kernel.h"
#include "calls/names.h"
#include "calls/policy.h"
#include "sys/raw.h"

namespace shunt::calls {
namespace {

bool is_marked(int fd) {
  Name name;
  Bits bits;
  return sys::raw(SYS_getsockname, fd, &name.storage, &name.length) >= 0 && name.marker(bits);
}

// What a program may have set on an unconnected stream socket.
constexpr int kOptions[] = {
    SO_SNDBUF,    SO_RCVBUF,    SO_RCVTIMEO,  SO_SNDTIMEO,  SO_RCVLOWAT, SO_PASSCRED,
    SO_PASSSEC,   SO_PEEK_OFF,  SO_PRIORITY,  SO_KEEPALIVE, SO_LINGER,   SO_REUSEADDR,
    SO_REUSEPORT, SO_OOBINLINE, SO_BROADCAST, 76,           83,          84};  // SO_PASSPIDFD, SO_PASSRIGHTS, SO_INQ

struct Value {
  alignas(long) uint8_t bytes[16] = {};
  socklen_t length = 16;
};

void copy_option(int from, int to, int name) {
  Value wanted, current;
  if (sys::raw(SYS_getsockopt, from, SOL_SOCKET, name, wanted.bytes, &wanted.length) < 0) return;
  if (sys::raw(SYS_getsockopt, to, SOL_SOCKET, name, current.bytes, &current.length) < 0) return;
  if (memcmp(wanted.bytes, current.bytes, wanted.length) == 0) return;
  if (name == SO_SNDBUF || name == SO_RCVBUF) {  // the kernel tells the double of what was set
    int size;
    memcpy(&size, wanted.bytes, sizeof size);
    size /= 2;
    memcpy(wanted.bytes, &size, sizeof size);
  }
  sys::raw(SYS_setsockopt, to, SOL_SOCKET, name, wanted.bytes, wanted.length);
}

long exchange(int fd) {
  const long descriptor_flags = sys::raw(SYS_fcntl, fd, F_GETFD), status = sys::raw(SYS_fcntl, fd, F_GETFL);
  const int nonblocking = status & O_NONBLOCK ? SOCK_NONBLOCK : 0;
  const long made = sys::raw(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | nonblocking, 0);
  if (made < 0) return made;
  const int unnamed = static_cast<int>(made);
  for (const int name : kOptions) copy_option(fd, unnamed, name);
  const long result = sys::raw(SYS_dup3, unnamed, fd, descriptor_flags & FD_CLOEXEC ? O_CLOEXEC : 0);
  sys::close(unnamed);
  return result;
}

}  // namespace

long bind(int fd, const sockaddr* address, socklen_t length) {
  const Fresh socket = fresh(fd);
  if (!socket.known || socket.spoilt == Reason::shared_before_upgrade) return kPassOn;
  const long result = kernel.bind(fd, address, length);
  if (result != -EINVAL || !is_marked(fd) || in_foreign_process() || exchange(fd) < 0) return result;
  return kernel.bind(fd, address, length);
}

}  // namespace shunt::calls
