// Checks what the kernel checks, in its order, and hands the rest to send(). What the kernel refuses or answers without
// transmitting goes to it unchanged.
#include "calls/sending.h"

#include <cstring>

#include "calls/escape.h"
#include "calls/kernel.h"
#include "calls/kernel_flags.h"
#include "calls/own.h"
#include "calls/policy.h"
#include "calls/vectors.h"
#include "readiness/epoll_set.h"

namespace shunt::calls {
namespace {

// A write of nothing transmits nothing: the kernel answers 0 or EPIPE.
long send_vector(int fd, const iovec* parts, size_t count, long total, int flags, const msghdr* message, const OwnCall& own) {
  if (total == kPassOn || total == 0) return kPassOn;
  Pin connection(fd);
  if (!connection || is_plain(*connection)) return kPassOn;
  if (total < 0) return total;
  if (flags & MSG_OOB) make_plain(*connection, fd, Reason::out_of_band);
  return shunt::send(*connection, fd, {Cursor(parts, count), static_cast<size_t>(total), flags, message, &own});
}

template <typename Make>
long send_buffer(int fd, const void* data, size_t bytes, int flags, Make make) {
  const iovec part{const_cast<void*>(data), bytes};
  return send_vector(fd, &part, 1, measure(data, bytes), flags, nullptr, Own(make));
}

template <typename Make>
long write_vector(int fd, const iovec* parts, int count, int flags, Make make) {
  const long total = count < 0 ? kPassOn : measure(parts, static_cast<size_t>(count));
  return send_vector(fd, parts, static_cast<size_t>(count), total, flags, nullptr, Own(make));
}

void before_passing_one(int fd) {
  spoil(fd, Reason::passed_descriptor);
  if (epoll_set_of(fd)) return note_set_passed(fd);
  if (!is_connection(fd)) return;
  if (Pin connection{fd}) retreat(*connection, fd, Reason::passed_descriptor);
}

}  // namespace

long write(int fd, const void* data, size_t bytes) {
  return send_buffer(fd, data, bytes, 0, [=](int own) { return kernel.write(own, data, bytes); });
}

long writev(int fd, const iovec* parts, int count) {
  return write_vector(fd, parts, count, 0, [=](int own) { return kernel.writev(own, parts, count); });
}

long pwritev2(int fd, const iovec* parts, int count, off_t offset, int flags) {
  if (offset != -1 || !kernel_takes(Transfer::write, flags)) return kPassOn;
  return write_vector(fd, parts, count, message_flags(flags), [=](int own) { return kernel.pwritev2(own, parts, count, offset, flags); });
}

long send(int fd, const void* data, size_t bytes, int flags) {
  return send_buffer(fd, data, bytes, flags, [=](int own) { return kernel.send(own, data, bytes, flags); });
}

long sendto(int fd, const void* data, size_t bytes, int flags, const sockaddr* address, socklen_t length) {
  if (address && length != 0) return kPassOn;  // unix_stream_sendmsg: EISCONN
  return send(fd, data, bytes, flags);
}

long sendmsg(int fd, const msghdr* message, int flags) {
  if (unreadable(message) || (message->msg_name && message->msg_namelen != 0)) return kPassOn;
  if (message->msg_controllen > INT_MAX) return kPassOn;  // ENOBUFS
  if (message->msg_controllen > 0 && unreadable(message->msg_control, message->msg_controllen)) return kPassOn;
  const long total = measure(message->msg_iov, message->msg_iovlen);
  return send_vector(fd, message->msg_iov, message->msg_iovlen, total, flags,
                     message->msg_controllen > 0 ? message : nullptr, Own([=](int own) { return kernel.sendmsg(own, message, flags); }));
}

long sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) {
  if (count > 0 && unreadable(messages)) return kPassOn;
  count = min_of<unsigned>(count, IOV_MAX);
  unsigned done = 0;
  while (done < count) {
    mmsghdr& item = messages[done];
    if (done > 0 && unreadable(&item)) break;
    long sent = calls::sendmsg(fd, &item.msg_hdr, flags);
    if (sent == kPassOn) sent = kernel.sendmsg(fd, &item.msg_hdr, flags);
    if (sent < 0) {
      if (done == 0) return sent;
      break;
    }
    item.msg_len = static_cast<unsigned>(sent);
    ++done;
    if (sent < measure(item.msg_hdr.msg_iov, item.msg_hdr.msg_iovlen))
      break;  // the kernel stops after a part of a message
  }
  return static_cast<long>(done);
}

long sendfile(int fd, int file, off_t* offset, size_t bytes) {
  if (is_connection(file)) before_splice(fd, file);
  if (bytes == 0 || !is_connection(fd) || (offset && (unreadable(offset) || *offset < 0))) return kPassOn;
  if (sys::raw(SYS_lseek, file, 0, SEEK_CUR) < 0) return kPassOn;  // the kernel refuses what cannot seek
  Pin connection(fd);
  if (!connection) return kPassOn;
  return send_file(*connection, fd, file, offset, min_of(bytes, kMostBytes));
}

void before_passing(const msghdr* message) {
  if (unreadable(message) || message->msg_controllen == 0 || message->msg_controllen > INT_MAX) return;
  if (unreadable(message->msg_control, message->msg_controllen)) return;
  msghdr copy = *message;  // CMSG_NXTHDR wants it writable
  for (cmsghdr* header = CMSG_FIRSTHDR(&copy); header; header = CMSG_NXTHDR(&copy, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    for (size_t at = CMSG_LEN(0); at + sizeof(int) <= header->cmsg_len; at += sizeof(int)) {
      int passed;
      memcpy(&passed, reinterpret_cast<const uint8_t*>(header) + at, sizeof passed);
      before_passing_one(passed);
    }
  }
}

}  // namespace shunt::calls
