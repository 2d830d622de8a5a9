// The calls that move bytes.
#include "calls/escape.h"
#include "calls/names.h"
#include "calls/receiving.h"
#include "calls/sending.h"
#include "interpose/export.h"
#include "interpose/wrappers.h"

using shunt::is_connection;
using shunt::interpose::active;
using shunt::interpose::next;
namespace calls = shunt::calls;

SHUNT_FORWARD(ssize_t, read, (int fd, void* data, size_t bytes), (fd, data, bytes), is_connection(fd));
SHUNT_SECOND_NAME(__read, read);
SHUNT_FORWARD(ssize_t, readv, (int fd, const iovec* parts, int count), (fd, parts, count), is_connection(fd));
SHUNT_FORWARD(ssize_t, preadv2, (int fd, const iovec* parts, int count, off_t offset, int flags),
              (fd, parts, count, offset, flags), is_connection(fd));
SHUNT_SECOND_NAME(preadv64v2, preadv2);
SHUNT_FORWARD(ssize_t, recv, (int fd, void* data, size_t bytes, int flags), (fd, data, bytes, flags),
              is_connection(fd));

SHUNT_FORWARD(ssize_t, write, (int fd, const void* data, size_t bytes), (fd, data, bytes), is_connection(fd));
SHUNT_SECOND_NAME(__write, write);
SHUNT_FORWARD(ssize_t, writev, (int fd, const iovec* parts, int count), (fd, parts, count), is_connection(fd));
SHUNT_FORWARD(ssize_t, pwritev2, (int fd, const iovec* parts, int count, off_t offset, int flags),
              (fd, parts, count, offset, flags), is_connection(fd));
SHUNT_SECOND_NAME(pwritev64v2, pwritev2);
SHUNT_FORWARD(ssize_t, send, (int fd, const void* data, size_t bytes, int flags), (fd, data, bytes, flags),
              is_connection(fd));
SHUNT_SECOND_NAME(__send, send);
SHUNT_FORWARD(ssize_t, sendto,
              (int fd, const void* data, size_t bytes, int flags, const sockaddr* address, socklen_t length),
              (fd, data, bytes, flags, address, length), is_connection(fd));
SHUNT_FORWARD(ssize_t, sendfile, (int fd, int file, off_t* offset, size_t bytes), (fd, file, offset, bytes),
              is_connection(fd) || is_connection(file));
SHUNT_SECOND_NAME(sendfile64, sendfile);

// Names and descriptors that arrive on other sockets concern us too.

SHUNT_WRAPPER(ssize_t, recvfrom, (int fd, void* data, size_t bytes, int flags, sockaddr* address, socklen_t* length)) {
  if (is_connection(fd))
    if (const long answer = calls::recvfrom(fd, data, bytes, flags, address, length); answer != calls::kPassOn)
      return shunt::interpose::give<ssize_t>(answer);
  const bool named = address && !calls::unreadable(length) && active();
  const socklen_t room = named ? *length : 0;
  const ssize_t got = next.recvfrom(fd, data, bytes, flags, address, length);
  if (got >= 0 && named) calls::hide_sender(fd, address, room, *length);
  return got;
}

SHUNT_WRAPPER(ssize_t, recvmsg, (int fd, msghdr* message, int flags)) {
  if (is_connection(fd))
    if (const long answer = calls::recvmsg(fd, message, flags); answer != calls::kPassOn)
      return shunt::interpose::give<ssize_t>(answer);
  const socklen_t room = calls::unreadable(message) ? 0 : message->msg_namelen;
  const ssize_t got = next.recvmsg(fd, message, flags);
  if (got >= 0 && active()) calls::tidy_received(fd, *message, room);
  return got;
}

SHUNT_WRAPPER(int, recvmmsg, (int fd, mmsghdr* messages, unsigned count, int flags, timespec* timeout)) {
  if (is_connection(fd))
    if (const long answer = calls::recvmmsg(fd, messages, count, flags, timeout); answer != calls::kPassOn)
      return shunt::interpose::give<int>(answer);
  const int got = next.recvmmsg(fd, messages, count, flags, timeout);
  // How much room each name had is not known any more; whole markers fit or were cut, and are hidden only if whole.
  for (int i = 0; i < got && active(); ++i)
    calls::tidy_received(fd, messages[i].msg_hdr, messages[i].msg_hdr.msg_namelen);
  return got;
}

SHUNT_WRAPPER(ssize_t, sendmsg, (int fd, const msghdr* message, int flags)) {
  if (active()) calls::before_passing(message);
  if (is_connection(fd))
    if (const long answer = calls::sendmsg(fd, message, flags); answer != calls::kPassOn)
      return shunt::interpose::give<ssize_t>(answer);
  return next.sendmsg(fd, message, flags);
}

SHUNT_WRAPPER(int, sendmmsg, (int fd, mmsghdr* messages, unsigned count, int flags)) {
  for (unsigned i = 0; i < count && !calls::unreadable(messages + i) && active(); ++i)
    calls::before_passing(&messages[i].msg_hdr);
  if (is_connection(fd))
    if (const long answer = calls::sendmmsg(fd, messages, count, flags); answer != calls::kPassOn)
      return shunt::interpose::give<int>(answer);
  return next.sendmmsg(fd, messages, count, flags);
}

SHUNT_WRAPPER(ssize_t, splice, (int from, off_t* from_offset, int to, off_t* to_offset, size_t bytes, unsigned flags)) {
  calls::before_splice(from, to);
  return next.splice(from, from_offset, to, to_offset, bytes, flags);
}

// libc makes them of read and write, inside.

SHUNT_WRAPPER(int, eventfd_read, (int fd, uint64_t* value)) {
  if (!is_connection(fd)) return next.eventfd_read(fd, value);
  return shunt_read(fd, value, sizeof *value) == sizeof *value ? 0 : -1;
}

SHUNT_WRAPPER(int, eventfd_write, (int fd, uint64_t value)) {
  if (!is_connection(fd)) return next.eventfd_write(fd, value);
  return shunt_write(fd, &value, sizeof value) == sizeof value ? 0 : -1;
}

// Fortified forms: libc's own ends the program when the buffer is too small.

SHUNT_WRAPPER(ssize_t, __read_chk, (int fd, void* data, size_t bytes, size_t room)) {
  if (bytes > room || !is_connection(fd)) return next.__read_chk(fd, data, bytes, room);
  return shunt_read(fd, data, bytes);
}

SHUNT_WRAPPER(ssize_t, __recv_chk, (int fd, void* data, size_t bytes, size_t room, int flags)) {
  if (bytes > room || !is_connection(fd)) return next.__recv_chk(fd, data, bytes, room, flags);
  return shunt_recv(fd, data, bytes, flags);
}

SHUNT_WRAPPER(ssize_t, __recvfrom_chk,
              (int fd, void* data, size_t bytes, size_t room, int flags, sockaddr* address, socklen_t* length)) {
  if (bytes > room) return next.__recvfrom_chk(fd, data, bytes, room, flags, address, length);
  return shunt_recvfrom(fd, data, bytes, flags, address, length);
}
