// The kernel path of one operation: the program's own call wherever that can be. A connector that has shown its marker receives with room for an offer.
#include "connection/kernel_io.h"

#include <sys/ioctl.h>

#include <cerrno>
#include <cstring>

#include "connection/upgrade.h"
#include "sys/next.h"
#include "sys/raw.h"
#include "sys/user_memory.h"

namespace shunt {
namespace {

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
      read_marker(*static_cast<const sockaddr_un*>(message.msg_name), message.msg_namelen, bits) != Marker::none)
    message.msg_namelen = 0;  // an unnamed sender has no name at all
}

// The connector has shown that it receives here, and has not been offered a channel yet.
bool expects_offer(const Connection& c, const ReceiveRequest& request, int flags) {
  return awaits_offer(c) && !(flags & MSG_PEEK) && !(request.flags & MSG_PEEK);
}

void close_descriptors(const cmsghdr& item, size_t first) {
  for (size_t at = CMSG_LEN(first * sizeof(int)); at + sizeof(int) <= item.cmsg_len; at += sizeof(int)) {
    int fd;
    memcpy(&fd, reinterpret_cast<const uint8_t*>(&item) + at, sizeof fd);
    sys::close(fd);
  }
}

// Control data as the kernel hands it to the program: put_cmsg() and scm_detach_fds() cut what finds no room, and say so.
class ProgramsControl {
 public:
  explicit ProgramsControl(const msghdr* program)
      : begin_(program ? static_cast<uint8_t*>(program->msg_control) : nullptr), room_(begin_ && has_room(*program) ? program->msg_controllen : 0) {}
  // The kernel takes memory that it cannot write for none.
  static bool has_room(const msghdr& program) {
    return program.msg_control && program.msg_controllen > 0 && sys::accessible(program.msg_control, program.msg_controllen, sys::Access::write);
  }
  void put(const cmsghdr& item) {
    const bool rights = item.cmsg_level == SOL_SOCKET && item.cmsg_type == SCM_RIGHTS;
    size_t bytes = item.cmsg_len;
    if (rights) {
      const size_t most = room_ - used_ > sizeof(cmsghdr) ? (room_ - used_ - sizeof(cmsghdr)) / sizeof(int) : 0;
      const size_t count = (bytes - CMSG_LEN(0)) / sizeof(int);
      if (most < count) close_descriptors(item, most), cut_ = true;
      if (most == 0) return;
      bytes = CMSG_LEN(min_of(most, count) * sizeof(int));
    } else if (room_ - used_ < bytes) {
      cut_ = true;
      if (room_ - used_ < sizeof(cmsghdr)) return;
      bytes = room_ - used_;
    }
    cmsghdr header = item;
    header.cmsg_len = bytes;
    memmove(begin_ + used_, &item, bytes);
    memcpy(begin_ + used_, &header, sizeof header);
    used_ += min_of(CMSG_SPACE(bytes - CMSG_LEN(0)), room_ - used_);
  }
  size_t used() const { return used_; }
  bool cut() const { return cut_; }

 private:
  uint8_t* begin_;
  size_t room_;
  size_t used_ = 0;
  bool cut_ = false;
};

constexpr size_t kOfferRoom = CMSG_SPACE(sizeof(int)) + 256;  // with what the program may have asked for since, which comes first
constexpr size_t kRoom = 2048;  // a larger one of the program's has room for whatever may come (SCM_MAX_FD) and an offer

// recvmsg with room for an offer beside what the program has room for. The program gets what the kernel would have given it without the offer.
long receive_with_room(Connection& c, int fd, const ReceiveRequest& request, msghdr message, int flags, Sleep sleep) {
  alignas(cmsghdr) uint8_t room[kRoom + kOfferRoom];
  msghdr* const program = request.message;
  const bool has_room = program && ProgramsControl::has_room(*program);
  if (!has_room || program->msg_controllen <= kRoom) {
    message.msg_control = room;
    message.msg_controllen = (has_room ? program->msg_controllen : 0) + kOfferRoom;
  } else {
    message.msg_control = program->msg_control;
    message.msg_controllen = program->msg_controllen;
  }
  const int kept = has_room ? flags : flags | MSG_CMSG_CLOEXEC;
  const long got = sleep == Sleep::never ? sys::recvmsg(fd, &message, kept) : sys::blocking_recvmsg(fd, &message, kept);
  if (got < 0) return got;
  ProgramsControl given(program);
  bool offered = false;
  for (cmsghdr* item = CMSG_FIRSTHDR(&message); item; item = CMSG_NXTHDR(&message, item)) {
    if (!offered && take_offer(c, fd, *item))
      offered = true;
    else
      given.put(*item);
  }
  if (!program) return got;
  program->msg_namelen = message.msg_namelen;
  program->msg_controllen = given.used();
  program->msg_flags = message.msg_flags & ~(MSG_CMSG_CLOEXEC | (offered ? MSG_CTRUNC : 0));
  if (given.cut()) program->msg_flags |= MSG_CTRUNC;
  if (flags & request.flags & MSG_CMSG_CLOEXEC) program->msg_flags |= MSG_CMSG_CLOEXEC;
  return got;
}

}  // namespace

long read_kernel(Connection& c, int fd, ReceiveRequest& request, size_t limit, int flags, Sleep sleep) {
  // unix_stream_read_generic: sock_error() clears the error as it tells it, also behind bytes that another call got.
  if (int queued = 0; request.satisfied && sys::ioctl(fd, FIONREAD, &queued) == 0 && queued == 0) return -EAGAIN;
  const bool whole = request.to.untouched() && limit >= request.bytes;
  const bool with_room = expects_offer(c, request, flags);
  msghdr* const program = request.message;
  long got;
  if (request.own && whole && sleep == Sleep::allowed && !with_room) {
    got = (*request.own)(fd);
    request.complete = got >= 0;
  } else {
    if (sleep == Sleep::never) flags |= MSG_DONTWAIT;
    msghdr message{};
    iovec parts[kParts];
    set_vector(message, request.to, request.bytes, limit, parts);
    if (program) message.msg_name = program->msg_name, message.msg_namelen = program->msg_namelen;
    if (with_room) {
      got = receive_with_room(c, fd, request, message, flags, sleep);
      // A sandbox that takes the program's calls may not take this one; and the number may be no socket any more, closed and given out past libc.
      if (sys::refused(got) || got == -ENOTSOCK) {
        c.side->marked.store(false, std::memory_order_relaxed);
        stay_plain(c, Reason::refused);
        return read_kernel(c, fd, request, limit, flags, sleep);
      }
    } else if (!program && message.msg_iovlen == 1) {  // the cheaper call will do
      const iovec part = *message.msg_iov;
      got = sleep == Sleep::never ? sys::recv(fd, part.iov_base, part.iov_len, flags) : sys::blocking_recv(fd, part.iov_base, part.iov_len, flags);
    } else {
      if (program) message.msg_control = program->msg_control, message.msg_controllen = program->msg_controllen;
      got = sleep == Sleep::never ? sys::recvmsg(fd, &message, flags) : sys::blocking_recvmsg(fd, &message, flags);
      if (got >= 0 && program)
        program->msg_namelen = message.msg_namelen, program->msg_controllen = message.msg_controllen, program->msg_flags = message.msg_flags;
    }
  }
  if (got < 0) return got;
  if (program) hide_marker(*program);
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
    if (request.own && request.from.untouched() && sleep == Sleep::allowed && flags == request.flags) return (*request.own)(fd);
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
