// Every stream that the program connects or accepts becomes a candidate. See docs/architecture.md, "Life of a connection".
#include "calls/connecting.h"

#include <fcntl.h>

#include "calls/early_registration.h"
#include "calls/kernel.h"
#include "calls/names.h"
#include "calls/policy.h"
#include "calls/socket_options.h"
#include "descriptors/slab.h"

namespace shunt::calls {
namespace {

constexpr int kTypeMask = 0xf;  // of socket(2)'s type, without SOCK_NONBLOCK and SOCK_CLOEXEC

Reason why_not_enter(int fd) {
  if (const Reason reason = refusal(); reason != Reason::none) return reason;
  if (belongs_to_stdio(fd)) return Reason::stdio;
  return Reason::none;
}

bool is_stream(int fd) { return read_int_option(fd, SO_TYPE) == SOCK_STREAM; }

void note_connected(int fd, const Fresh& socket) {
  long flags = socket.blocking == Blocking::no ? O_NONBLOCK : 0;
  if (socket.blocking == Blocking::unknown) flags = sys::raw(SYS_fcntl, fd, F_GETFL);
  if (flags < 0) return;
  if (flags & O_ASYNC) return count_plain(Reason::signal_driven);
  enter_connection(fd, Role::connector, (flags & O_NONBLOCK) != 0);
  renew_early_registration(fd);
  if (socket.timeouts) read_timeouts(fd);
}

void note_accepted(int fd, bool nonblocking) {
  const Reason reason = why_not_enter(fd);
  if (reason != Reason::none) return count_plain(reason);
  enter_connection(fd, Role::acceptor, nonblocking);
}

// The kernel's accept, told to give the name whether the program wants it or not.
template <typename Accept>
long accept_and_look(sockaddr* address, socklen_t* length, bool nonblocking, Accept accept) {
  if (address && !can_store(address, length)) return kPassOn;
  Name peer;
  const long fd = accept(peer.address(), &peer.length);
  if (fd < 0) return fd;
  forget_stale(static_cast<int>(fd));
  if (peer.is_unix()) note_accepted(static_cast<int>(fd), nonblocking);
  if (address) store(peer, sizeof(sa_family_t), address, length);
  return fd;
}

template <typename Get>
long get_name(sockaddr* address, socklen_t* length, Get get) {
  if (!can_store(address, length)) return kPassOn;
  Name name;
  const long result = get(name.address(), &name.length);
  if (result >= 0) store(name, sizeof(sa_family_t), address, length);
  return result;
}

}  // namespace

void note_socket(int fd, int domain, int type) {
  forget_stale(fd);
  if (domain == AF_UNIX && (type & kTypeMask) == SOCK_STREAM)
    note_fresh(fd, type & SOCK_NONBLOCK ? Blocking::no : Blocking::yes);
  else
    forget_fresh(fd);
}

void note_socketpair(int domain, int type, const int* pair) {
  if (domain == AF_UNIX && (type & kTypeMask) == SOCK_STREAM) count_plain(Reason::socketpair);
  for (int i = 0; i < 2; ++i) forget_stale(pair[i]), forget_fresh(pair[i]);
}

long connect(int fd, const sockaddr* address, socklen_t length) {
  if (is_connection(fd)) return kPassOn;
  const long result = kernel.connect(fd, address, length);
  if (result < 0 || address->sa_family != AF_UNIX) return result;  // the kernel has read it
  const Fresh socket = fresh(fd);
  Reason reason = socket.known ? socket.spoilt : Reason::shared_before_upgrade;
  if (reason == Reason::none) reason = why_not_enter(fd);
  // In a vfork child the table is the parent's, and its descriptors are not.
  if (reason == Reason::none && may_be_foreign_process()) reason = Reason::shared_before_upgrade;
  if (reason == Reason::none)
    note_connected(fd, socket);
  else if (socket.known || is_stream(fd))
    count_plain(reason);
  forget_fresh(fd);
  return result;
}

long accept(int fd, sockaddr* address, socklen_t* length) {
  return accept_and_look(address, length, false,
                         [&](sockaddr* name, socklen_t* room) { return kernel.accept(fd, name, room); });
}

long accept4(int fd, sockaddr* address, socklen_t* length, int flags) {
  return accept_and_look(address, length, (flags & SOCK_NONBLOCK) != 0,
                         [&](sockaddr* name, socklen_t* room) { return kernel.accept4(fd, name, room, flags); });
}

long getsockname(int fd, sockaddr* address, socklen_t* length) {
  return get_name(address, length, [&](sockaddr* name, socklen_t* room) { return kernel.getsockname(fd, name, room); });
}

long getpeername(int fd, sockaddr* address, socklen_t* length) {
  return get_name(address, length, [&](sockaddr* name, socklen_t* room) { return kernel.getpeername(fd, name, room); });
}

}  // namespace shunt::calls
