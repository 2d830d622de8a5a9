// Calls the next library and turns errno into −errno. Any thread.
#include "sys/next.h"

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
  return call(next.recv, SYS_recvfrom, fd, data, bytes, flags);
}

long blocking_send(int fd, const void* data, size_t bytes, int flags) {
  if (!next.send) return sys::send(fd, data, bytes, flags);
  return call(next.send, SYS_sendto, fd, data, bytes, flags);
}

long blocking_recvmsg(int fd, msghdr* message, int flags) {
  return call(next.recvmsg, SYS_recvmsg, fd, message, flags);
}

long blocking_sendmsg(int fd, const msghdr* message, int flags) {
  return call(next.sendmsg, SYS_sendmsg, fd, message, flags);
}

long blocking_ppoll(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask) {
  if (!next.ppoll) return sys::ppoll(fds, count, timeout, mask);
  return call(next.ppoll, SYS_ppoll, fds, count, timeout, mask);
}

long blocking_epoll_pwait(int fd, epoll_event* events, int room, const timespec* timeout, const sigset_t* mask) {
  // A sleep shorter than a millisecond needs epoll_pwait2; where the kernel lacks it, the next whole millisecond serves.
  if (timeout && timeout->tv_nsec % 1000000 != 0) {
    const long result = raw(SYS_epoll_pwait2, fd, events, room, timeout, mask, sizeof(uint64_t));
    if (result != -ENOSYS) return result;
  }
  const int milliseconds =
      timeout ? static_cast<int>(timeout->tv_sec * 1000 + (timeout->tv_nsec + 999999) / 1000000) : -1;
  if (!next.epoll_pwait) return raw(SYS_epoll_pwait, fd, events, room, milliseconds, mask, sizeof(uint64_t));
  return call(next.epoll_pwait, SYS_epoll_pwait, fd, events, room, milliseconds, mask);
}

}  // namespace shunt::sys
