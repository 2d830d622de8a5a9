// Calls the next library and turns errno into −errno. Any thread.
#include "sys/next.h"

#include <atomic>
#include <cerrno>

#include "sys/raw.h"

namespace shunt::sys {

Next next{};

namespace {

template <typename Result, typename... Parameters, typename... Arguments>
long call(Result (*function)(Parameters...), long number, Arguments... arguments) {
  if (!function) return raw(number, arguments...);
  const CancellationPoint here;
  const int saved = errno;
  long result = function(arguments...);
  if (result < 0) result = -errno;
  errno = saved;
  return result;
}

}  // namespace

long blocking_recv(int fd, void* data, size_t bytes, int flags) {
  if (!next.recv) return sys::recv(fd, data, bytes, flags);
  const long result = call(next.recv, SYS_recvfrom, fd, data, bytes, flags);
  return refused(result) ? recv_otherwise(fd, data, bytes, flags, result) : result;
}

long blocking_send(int fd, const void* data, size_t bytes, int flags) {
  if (!next.send) return sys::send(fd, data, bytes, flags);
  const long result = call(next.send, SYS_sendto, fd, data, bytes, flags);
  return refused(result) ? send_otherwise(fd, data, bytes, flags, result) : result;
}

long blocking_recvmsg(int fd, msghdr* message, int flags) {
  const long result = call(next.recvmsg, SYS_recvmsg, fd, message, flags);
  return refused(result) ? recvmsg_otherwise(fd, message, flags, result) : result;
}

long blocking_sendmsg(int fd, const msghdr* message, int flags) {
  const long result = call(next.sendmsg, SYS_sendmsg, fd, message, flags);
  return refused(result) ? sendmsg_otherwise(fd, message, flags, result) : result;
}

long blocking_ppoll(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask) {
  if (!next.ppoll) return sys::ppoll(fds, count, timeout, mask);
  const long result = call(next.ppoll, SYS_ppoll, fds, count, timeout, mask);
  return refused(result) ? ppoll_otherwise(fds, count, timeout, mask, result) : result;
}

namespace {

// What epoll_wait itself gives. Anything else is a filter's answer, or an old kernel's, to a call that the program may never have made.
bool is_epolls_own(long result) { return result >= 0 || result == -EINTR || result == -EBADF || result == -EFAULT || result == -EINVAL; }

}  // namespace

long epoll_look(int fd, epoll_event* events, int room) {
  long result = raw(SYS_epoll_pwait, fd, events, room, 0, nullptr, sizeof(uint64_t));
  if (!is_epolls_own(result)) result = raw(SYS_epoll_wait, fd, events, room, 0);
  if (!is_epolls_own(result)) result = call(next.epoll_pwait, SYS_epoll_pwait, fd, events, room, 0, nullptr);
  return result;
}

long epoll_ctl(int fd, int operation, int of, epoll_event* event) {
  const long result = raw(SYS_epoll_ctl, fd, operation, of, event);
  if (!refused(result) || !next.epoll_ctl) return result;
  const int saved = errno;
  const long again = next.epoll_ctl(fd, operation, of, event) == 0 ? 0 : -errno;
  errno = saved;
  return again;
}

bool is_answer(long result) {
  return result >= 0 || result == -EINTR || result == -EBADF || result == -EINVAL || result == -EFAULT || result == -ENOMEM;
}

namespace {

// −1: for ever.
int milliseconds(const timespec* timeout) {
  if (!timeout) return -1;
  constexpr int kMost = 2'147'483'000;
  if (timeout->tv_sec >= kMost / 1000) return kMost;
  return static_cast<int>(timeout->tv_sec * 1000 + (timeout->tv_nsec + 999999) / 1000000);
}

bool is_short(const timespec* timeout) { return timeout && timeout->tv_sec == 0 && timeout->tv_nsec > 0 && timeout->tv_nsec < 1000000; }

long pwait(int fd, epoll_event* events, int room, int timeout_ms, const sigset_t* mask) {
  if (!next.epoll_pwait) return raw(SYS_epoll_pwait, fd, events, room, timeout_ms, mask, sizeof(uint64_t));
  return call(next.epoll_pwait, SYS_epoll_pwait, fd, events, room, timeout_ms, mask);
}

}  // namespace

long blocking_epoll(EpollCall by, int fd, epoll_event* events, int room, const timespec* timeout, const sigset_t* mask) {
  if (by == EpollCall::pwait2) {
    if (!next.epoll_pwait2) return raw(SYS_epoll_pwait2, fd, events, room, timeout, mask, sizeof(uint64_t));
    return call(next.epoll_pwait2, SYS_epoll_pwait2, fd, events, room, timeout, mask);
  }
  const int timeout_ms = milliseconds(timeout);
  if (by == EpollCall::pwait || mask) return pwait(fd, events, room, timeout_ms, mask);
  return call(next.epoll_wait, SYS_epoll_wait, fd, events, room, timeout_ms);
}

long blocking_poll(PollCall by, pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask) {
  if (by == PollCall::ppoll || mask) return blocking_ppoll(fds, count, timeout, mask);
  if (is_short(timeout))
    if (const long result = blocking_ppoll(fds, count, timeout, mask); is_answer(result)) return result;
  return call(next.poll, SYS_poll, fds, count, milliseconds(timeout));
}

long blocking_select(SelectCall by, int count, fd_set* read, fd_set* write, fd_set* except, timespec* timeout, const sigset_t* mask) {
  if (by == SelectCall::select && !mask) {
    timeval left{};
    if (timeout) left = {timeout->tv_sec, (timeout->tv_nsec + 999) / 1000};
    const long result = call(next.select, SYS_select, count, read, write, except, timeout ? &left : nullptr);
    if (timeout) *timeout = {left.tv_sec, left.tv_usec * 1000};
    return result;
  }
  if (next.pselect) return call(next.pselect, SYS_pselect6, count, read, write, except, static_cast<const timespec*>(timeout), mask);
  const struct {
    const sigset_t* mask;
    size_t bytes;
  } with_size{mask, sizeof(uint64_t)};
  return raw(SYS_pselect6, count, read, write, except, timeout, &with_size);
}

long ask_epoll(EpollCall by, int fd, epoll_event* events, int room) {
  const timespec zero{};
  const sigset_t* const none = nullptr;
  long result = -EINVAL;
  switch (by) {
    case EpollCall::wait:
      result = raw(SYS_epoll_wait, fd, events, room, 0);
      break;
    case EpollCall::pwait:
      result = raw(SYS_epoll_pwait, fd, events, room, 0, none, sizeof(uint64_t));
      break;
    case EpollCall::pwait2:
      result = raw(SYS_epoll_pwait2, fd, events, room, &zero, none, sizeof(uint64_t));
      break;
  }
  return refused(result) ? epoll_look(fd, events, room) : result;
}

long ask_poll(PollCall by, pollfd* fds, nfds_t count, const sigset_t* mask) {
  const timespec zero{};
  if (by == PollCall::poll && !mask) return raw(SYS_poll, fds, count, 0);
  return sys::ppoll(fds, static_cast<size_t>(count), &zero, mask);
}

}  // namespace shunt::sys
