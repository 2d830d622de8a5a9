// syscall(2): libuv and others close, poll and batch through it. A call that concerns us is made as the call itself;
// every other number, and every descriptor that is not ours, goes on with the very same arguments.
#include <sys/syscall.h>

#include <type_traits>
#include <utility>

#include "calls/uring.h"
#include "interpose/export.h"
#include "interpose/wrappers.h"

namespace {

using shunt::interpose::active;
using shunt::interpose::next;
namespace calls = shunt::calls;

template <typename To>
To convert(long word) {
  if constexpr (std::is_pointer_v<To>)
    return reinterpret_cast<To>(word);
  else
    return static_cast<To>(word);
}

template <typename Result, typename... Parameters, size_t... i>
long apply(Result (*wrapper)(Parameters...), const long (&words)[6], std::index_sequence<i...>) {
  return static_cast<long>(wrapper(convert<Parameters>(words[i])...));
}

template <typename Result, typename... Parameters>
long apply(Result (*wrapper)(Parameters...), const long (&words)[6]) {
  return apply(wrapper, words, std::index_sequence_for<Parameters...>());
}

// Calls through the first descriptor of which we know the connection.
bool is_made_through_connection(long number, int fd) {
  switch (number) {
    case SYS_read:
    case SYS_readv:
    case SYS_recvfrom:
    case SYS_recvmmsg:
    case SYS_write:
    case SYS_writev:
    case SYS_sendto:
    case SYS_sendfile:
    case SYS_getsockopt:
    case SYS_shutdown:
    case SYS_ioctl:
      return shunt::is_connection(fd);
    case SYS_close:
      return calls::is_ours(fd);
    case SYS_epoll_wait:
    case SYS_epoll_pwait:
    case SYS_epoll_pwait2:
      return shunt::epoll_set_of(fd) != nullptr;
    default:
      return true;
  }
}

}  // namespace

#define SHUNT_AS(name) \
  case SYS_##name:     \
    return apply(shunt_##name, words)

SHUNT_WRAPPER(long, syscall, (long number, long a, long b, long c, long d, long e, long f)) {
  const long words[] = {a, b, c, d, e, f};
  if (active() && is_made_through_connection(number, static_cast<int>(a))) {
    switch (number) {
      SHUNT_AS(read);
      SHUNT_AS(readv);
      SHUNT_AS(recvfrom);
      SHUNT_AS(recvmsg);
      SHUNT_AS(recvmmsg);
      SHUNT_AS(write);
      SHUNT_AS(writev);
      SHUNT_AS(sendto);
      SHUNT_AS(sendmsg);
      SHUNT_AS(sendmmsg);
      SHUNT_AS(sendfile);
      SHUNT_AS(splice);
      SHUNT_AS(socket);
      SHUNT_AS(socketpair);
      SHUNT_AS(bind);
      SHUNT_AS(connect);
      SHUNT_AS(accept);
      SHUNT_AS(accept4);
      SHUNT_AS(getsockname);
      SHUNT_AS(getpeername);
      SHUNT_AS(getsockopt);
      SHUNT_AS(setsockopt);
      SHUNT_AS(shutdown);
      SHUNT_AS(close);
      SHUNT_AS(close_range);
      SHUNT_AS(dup);
      SHUNT_AS(dup2);
      SHUNT_AS(dup3);
      SHUNT_AS(fcntl);
      SHUNT_AS(ioctl);
      SHUNT_AS(poll);
      SHUNT_AS(ppoll);
      SHUNT_AS(select);
      SHUNT_AS(epoll_create);
      SHUNT_AS(epoll_create1);
      SHUNT_AS(epoll_ctl);
      SHUNT_AS(epoll_wait);
      SHUNT_AS(epoll_pwait);
      SHUNT_AS(epoll_pwait2);
      SHUNT_AS(execve);
      SHUNT_AS(execveat);
      case SYS_pselect6: {
        const auto* mask = reinterpret_cast<const sigset_t* const*>(f);  // {mask, its size}
        return shunt_pselect(static_cast<int>(a), convert<fd_set*>(b), convert<fd_set*>(c), convert<fd_set*>(d),
                             convert<const timespec*>(e), mask ? *mask : nullptr);
      }
      case SYS_io_uring_setup: {
        const long ring = next.syscall(number, a, b, c, d, e, f);
        if (ring >= 0) calls::after_unwatched_ring();
        return ring;
      }
      case SYS_io_uring_enter:
        if (b != 0) calls::after_unwatched_ring();  // submits, to a ring that liburing made or one from before exec
        break;
      case SYS_io_uring_register:
        calls::before_ring_register(static_cast<unsigned>(b), convert<const void*>(c), static_cast<unsigned>(d));
        break;
      case SYS_exit_group:
        shunt::interpose::report_end("_exit");
        break;
      default:
        break;
    }
  }
  return next.syscall(number, a, b, c, d, e, f);
}
