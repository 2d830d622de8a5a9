// Readiness bits, the same for poll and epoll, and what a ring's bells can announce of them. Constants only.
#pragma once

#include <poll.h>
#include <sys/epoll.h>

#include <cstdint>

namespace shunt {

static_assert(POLLIN == EPOLLIN && POLLPRI == EPOLLPRI && POLLOUT == EPOLLOUT && POLLERR == EPOLLERR &&
              POLLHUP == EPOLLHUP);
static_assert(POLLRDNORM == EPOLLRDNORM && POLLRDBAND == EPOLLRDBAND && POLLWRNORM == EPOLLWRNORM &&
              POLLWRBAND == EPOLLWRBAND && POLLRDHUP == EPOLLRDHUP);

inline constexpr short kReadable = POLLIN | POLLRDNORM;
inline constexpr short kWritable = POLLOUT | POLLWRNORM | POLLWRBAND;
inline constexpr short kEnds = POLLHUP | POLLRDHUP | POLLERR | POLLPRI;  // always announced by the kernel itself

// What must be armed for these events, as arm() takes it.
inline short armed_for(uint32_t events) {
  return static_cast<short>((events & kReadable ? POLLIN : 0) | (events & kWritable ? POLLOUT : 0));
}

}  // namespace shunt
