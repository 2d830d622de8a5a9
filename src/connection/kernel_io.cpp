// The kernel path of one operation. A connector that does not know its peer yet receives with room for the offer's descriptor.
#include "connection/kernel_io.h"

#include <sys/ioctl.h>

#include <cerrno>
#include <cstring>

#include "connection/upgrade.h"
#include "sys/next.h"
#include "sys/raw.h"

namespace shunt {
namespace {

constexpr size_t kOfferRoom = CMSG_SPACE(sizeof(int));
constexpr size_t kParts = 64;

// The part of the caller's vector that the walk has left, at most `limit` bytes: the vector itself if that is all of it.
void set_vector(msghdr& message, const Cursor& walk, size_t bytes, size_t limit, iovec* parts) {
  if (walk.untouched() && limit >= bytes) {
    message.msg_iov = const_cast<iovec*>(walk.vector());
    message.msg_iovlen = walk.count();
  } else {
    message.msg_iov = parts;
    message.msg_iovlen = walk.rest(parts, kParts, min_of(bytes, limit));
  }
}

void hide_marker(msghdr& message) {
  Bits bits;
  if (message.msg_name && message.msg_namelen <= sizeof(sockaddr_un) &&
      read_marker(*static_cast<const sockaddr_un*>(message.msg_name), message.msg_namelen, bits))
    message.msg_namelen = 0;  // an unnamed sender has no name at all
}

// Descriptors that the kernel put into our own room although the program gave none: the kernel would have discarded them.
void discard_descriptors(msghdr& message) {
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    for (size_t at = CMSG_LEN(0); at + sizeof(int) <= header->cmsg_len; at += sizeof(int)) {
      int fd;
      memcpy(&fd, reinterpret_cast<uint8_t*>(header) + at, sizeof fd);
      sys::close(fd);
    }
    message.msg_flags |= MSG_CTRUNC;
  }
}

}  // namespace

long read_kernel(Connection& c, int fd, const ReceiveRequest& request, size_t limit, int flags, Sleep sleep) {
  // unix_stream_read_generic: sock_error() clears the error as it tells it, also behind bytes that another call got.
  if (int queued = 0; request.satisfied && sys::ioctl(fd, FIONREAD, &queued) == 0 && queued == 0) return -EAGAIN;
  msghdr message{};
  iovec parts[kParts];
  alignas(cmsghdr) uint8_t room[kOfferRoom];
  set_vector(message, request.to, request.bytes, limit, parts);
  const msghdr* program = request.message;
  // recvmsg without a peek may bring the offer. The program's own control room serves if the offer fits into it.
  const bool expects_offer = c.side->role == Role::connector && !has_channel(c) && !(flags & MSG_PEEK);
  const bool own_room = expects_offer && (!program || program->msg_controllen < kOfferRoom);
  if (program) {
    message.msg_name = program->msg_name;
    message.msg_namelen = program->msg_namelen;
    message.msg_control = program->msg_control;
    message.msg_controllen = program->msg_controllen;
  }
  if (own_room) {
    message.msg_control = room;
    message.msg_controllen = sizeof room;
    flags |= MSG_CMSG_CLOEXEC;
  }
  if (sleep == Sleep::never) flags |= MSG_DONTWAIT;
  const bool plain = !program && !own_room && message.msg_iovlen == 1;  // the cheaper call will do
  const auto receive = [&] {
    if (sleep == Sleep::never) return sys::recvmsg(fd, &message, flags);
    if (!plain) return sys::blocking_recvmsg(fd, &message, flags);
    return sys::blocking_recv(fd, message.msg_iov->iov_base, message.msg_iov->iov_len, flags);
  };
  long got = receive();
  if (own_room && sys::refused(got)) {
    // The program asked for less than a recvmsg with control data: it gets that, and no offer.
    Reason none = Reason::none;
    c.side->plain.compare_exchange_strong(none, Reason::offer_failed, std::memory_order_relaxed);
    message.msg_control = program ? program->msg_control : nullptr;
    message.msg_controllen = program ? program->msg_controllen : 0;
    got = receive();
  }
  if (got < 0) return got;
  if (expects_offer && message.msg_controllen > 0) take_offer(c, message);
  if (own_room) {
    discard_descriptors(message);
    message.msg_controllen = 0;
  }
  if (msghdr* out = request.message) {
    hide_marker(message);
    out->msg_namelen = message.msg_namelen;
    out->msg_controllen = message.msg_controllen;
    out->msg_flags = message.msg_flags & ~MSG_CMSG_CLOEXEC;
    if (flags & request.flags & MSG_CMSG_CLOEXEC) out->msg_flags |= MSG_CMSG_CLOEXEC;
  }
  count(totals.kernel_ops_in);
  count(totals.kernel_bytes_in, static_cast<uint64_t>(got));
  return got;
}

long write_kernel(int fd, const SendRequest& request, int flags, Sleep sleep) {
  msghdr message{};
  iovec parts[kParts];
  set_vector(message, request.from, request.bytes, request.bytes, parts);
  if (const msghdr* program = request.message) {
    message.msg_control = program->msg_control;
    message.msg_controllen = program->msg_controllen;
  }
  if (sleep == Sleep::never) flags |= MSG_DONTWAIT;
  const bool plain = !request.message && message.msg_iovlen == 1;  // the cheaper call will do
  const auto send = [&] {
    if (sleep == Sleep::never) return sys::sendmsg(fd, &message, flags);
    if (!plain) return sys::blocking_sendmsg(fd, &message, flags);
    return sys::blocking_send(fd, message.msg_iov->iov_base, message.msg_iov->iov_len, flags);
  };
  const long sent = send();
  if (sent >= 0) {
    count(totals.kernel_ops_out);
    count(totals.kernel_bytes_out, static_cast<uint64_t>(sent));
  }
  return sent;
}

void fill_message(const Connection& c, int fd, msghdr& message) {
  message.msg_controllen = 0;
  message.msg_flags = 0;
  if (!message.msg_name) return;
  socklen_t length = c.side->role == Role::connector ? message.msg_namelen : 0;
  if (length > 0 && sys::raw(SYS_getpeername, fd, message.msg_name, &length) < 0) length = 0;
  message.msg_namelen = length <= sizeof(sa_family_t) ? 0 : length;
}

}  // namespace shunt
