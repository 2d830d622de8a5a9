// Checks what the kernel checks, in its order, and hands the rest to receive(). Must not touch a caller's memory before
// that.
#include "calls/receiving.h"

#include <cstring>

#include "calls/kernel.h"
#include "calls/kernel_flags.h"
#include "calls/names.h"
#include "calls/own.h"
#include "calls/vectors.h"

namespace shunt::calls {
namespace {

constexpr int kKernelsOwn = MSG_OOB;  // unix_stream_recv_urg; the rings carry no urgent byte

// The kernel finds bad memory only when it has bytes to put there: EFAULT if there are any, else what the call would
// give.
long receive_into_nowhere(Connection& connection, int fd, int flags) {
  uint8_t byte;
  iovec part{&byte, 1};
  const long got = receive(connection, fd, {Cursor(&part, 1), 1, (flags & ~MSG_WAITALL) | MSG_PEEK, nullptr});
  return got > 0 ? -EFAULT : got;
}

long receive_vector(int fd, const iovec* parts, size_t count, long total, int flags, msghdr* message, const OwnCall& own) {
  if (total == kPassOn || (flags & kKernelsOwn)) return kPassOn;
  Pin connection(fd);
  if (!connection || is_plain(*connection)) return kPassOn;
  // MSG_ERRQUEUE means nothing to an AF_UNIX stream: ordinary bytes are read.
  flags &= ~MSG_ERRQUEUE;
  if (total < 0) return receive_into_nowhere(*connection, fd, flags);
  return receive(*connection, fd, {Cursor(parts, count), static_cast<size_t>(total), flags, message, &own});
}

template <typename Make>
long receive_buffer(int fd, void* data, size_t bytes, int flags, msghdr* message, Make make) {
  const iovec part{data, bytes};
  return receive_vector(fd, &part, 1, measure(data, bytes), flags, message, Own(make));
}

// readv(2) and its kin: a socket read of nothing is 0 at once, which the kernel answers itself.
template <typename Make>
long read_vector(int fd, const iovec* parts, int count, int flags, Make make) {
  const long total = count < 0 ? kPassOn : measure(parts, static_cast<size_t>(count));
  if (total == 0) return kPassOn;
  return receive_vector(fd, parts, static_cast<size_t>(count), total, flags, nullptr, Own(make));
}

uint64_t monotonic_ns() {
  timespec now{};
  sys::monotonic_time(&now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000000u + static_cast<uint64_t>(now.tv_nsec);
}

// As SO_ERROR gives it, and clears it.
int pending_error(Connection& connection, int fd) {
  int error = 0;
  socklen_t size = sizeof error;
  sys::raw(SYS_getsockopt, fd, SOL_SOCKET, SO_ERROR, &error, &size);
  return has_channel(connection) || withholds_reset(connection) ? take_error(connection, fd, error) : error;
}

// recvmmsg's timeout: looked at after each message only; the caller gets back what is left of it.
class Deadline {
 public:
  explicit Deadline(timespec* timeout) : timeout_(timeout) {
    if (timeout)
      end_ = monotonic_ns() + static_cast<uint64_t>(timeout->tv_sec) * 1000000000u +
             static_cast<uint64_t>(timeout->tv_nsec);
  }
  bool passed() {
    if (!timeout_) return false;
    const uint64_t now = monotonic_ns(), left = end_ > now ? end_ - now : 0;
    *timeout_ = {static_cast<time_t>(left / 1000000000u), static_cast<long>(left % 1000000000u)};
    return left == 0;
  }

 private:
  timespec* timeout_;
  uint64_t end_ = 0;
};

}  // namespace

long read(int fd, void* data, size_t bytes) {
  if (bytes == 0) return kPassOn;
  return receive_buffer(fd, data, bytes, 0, nullptr, [=](int own) { return kernel.read(own, data, bytes); });
}

long readv(int fd, const iovec* parts, int count) {
  return read_vector(fd, parts, count, 0, [=](int own) { return kernel.readv(own, parts, count); });
}

long preadv2(int fd, const iovec* parts, int count, off_t offset, int flags) {
  if (offset != -1 || !kernel_takes(Transfer::read, flags)) return kPassOn;
  return read_vector(fd, parts, count, message_flags(flags), [=](int own) { return kernel.preadv2(own, parts, count, offset, flags); });
}

long recv(int fd, void* data, size_t bytes, int flags) {
  return receive_buffer(fd, data, bytes, flags, nullptr, [=](int own) { return kernel.recv(own, data, bytes, flags); });
}

long recvfrom(int fd, void* data, size_t bytes, int flags, sockaddr* address, socklen_t* length) {
  if (!address) return recv(fd, data, bytes, flags);
  Name name;
  msghdr message{};
  message.msg_name = &name.storage;
  message.msg_namelen = name.length;
  const socklen_t room = unreadable(length) ? 0 : *length;
  sockaddr_un before;  // what the program has there: the kernel leaves it alone where a sender has no name
  const size_t kept = min_of<size_t>(room, sizeof before);
  const bool keeps = kept > 0 && !unwritable(address, kept);
  if (keeps) memcpy(&before, address, kept);
  bool stored = false;
  const long got = receive_buffer(fd, data, bytes, flags, &message, [&](int own) {
    stored = true;
    return kernel.recvfrom(own, data, bytes, flags, address, length);
  });
  if (got < 0) return got;
  if (stored) {
    const socklen_t told = *length;
    hide_sender(fd, address, room, *length);
    if (keeps && *length == 0 && told != 0) memcpy(address, &before, kept);
    return got;
  }
  if (!can_store(address, length)) return unreadable(length) || static_cast<int>(*length) >= 0 ? -EFAULT : -EINVAL;
  name.length = message.msg_namelen;
  store(name, 0, address, length);
  return got;
}

long recvmsg(int fd, msghdr* message, int flags) {
  if (unreadable(message) || static_cast<int>(message->msg_namelen) < 0) return kPassOn;
  const long total = measure(message->msg_iov, message->msg_iovlen);
  const long got = receive_vector(fd, message->msg_iov, message->msg_iovlen, total, flags, message,
                                  Own([=](int own) { return kernel.recvmsg(own, message, flags); }));
  if (got >= 0) tidy_received(fd, *message, 0);
  return got;
}

long recvmmsg(int fd, mmsghdr* messages, unsigned count, int flags, timespec* timeout) {
  if (count > 0 && unreadable(messages)) return kPassOn;
  if (timeout && (unreadable(timeout) || timeout->tv_sec < 0 || timeout->tv_nsec < 0 || timeout->tv_nsec > 999999999))
    return kPassOn;
  // do_recvmmsg: sock_error() comes before the first message.
  if (Pin connection{fd}; connection && !(flags & MSG_ERRQUEUE))
    if (const int error = pending_error(*connection, fd); error != 0) return -error;
  Deadline deadline(timeout);
  unsigned done = 0;
  while (done < count) {
    mmsghdr& item = messages[done];
    if (done > 0 && unreadable(&item)) break;
    long got = calls::recvmsg(fd, &item.msg_hdr, flags & ~MSG_WAITFORONE);
    if (got == kPassOn) got = kernel.recvmsg(fd, &item.msg_hdr, flags & ~MSG_WAITFORONE);
    if (got < 0) {
      if (done == 0) return got;
      // do_recvmmsg: sk_err, for the next call. Other errors come again if they last.
      if (Pin connection{fd}; connection && got == -ECONNRESET) keep_reset(*connection);
      break;
    }
    item.msg_len = static_cast<unsigned>(got);
    ++done;
    if (flags & MSG_WAITFORONE) flags |= MSG_DONTWAIT;
    if (deadline.passed() || (item.msg_hdr.msg_flags & MSG_OOB)) break;
  }
  return static_cast<long>(done);
}

void tidy_received(int fd, msghdr& message, socklen_t room) {
  if (message.msg_name && room > 0) hide_sender(fd, message.msg_name, room, message.msg_namelen);
  if (message.msg_controllen == 0) return;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    for (size_t at = CMSG_LEN(0); at + sizeof(int) <= header->cmsg_len; at += sizeof(int)) {
      int received;
      memcpy(&received, reinterpret_cast<const uint8_t*>(header) + at, sizeof received);
      forget_stale(received);
    }
  }
}

}  // namespace shunt::calls
