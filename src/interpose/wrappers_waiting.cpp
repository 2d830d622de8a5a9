// poll, select and epoll.
#include "calls/waiting.h"
#include "interpose/export.h"

using shunt::epoll_set_of;
using shunt::interpose::active;
using shunt::interpose::give;
using shunt::interpose::next;
using shunt::sys::EpollCall;
namespace calls = shunt::calls;

SHUNT_FORWARD(int, poll, (pollfd * items, nfds_t count, int timeout), (items, count, timeout), true);
SHUNT_SECOND_NAME(__poll, poll);
SHUNT_FORWARD(int, ppoll, (pollfd * items, nfds_t count, const timespec* timeout, const sigset_t* mask),
              (items, count, timeout, mask), true);
SHUNT_FORWARD(int, select, (int count, fd_set* read, fd_set* write, fd_set* except, timeval* timeout),
              (count, read, write, except, timeout), true);
SHUNT_SECOND_NAME(__select, select);
SHUNT_FORWARD(int, pselect,
              (int count, fd_set* read, fd_set* write, fd_set* except, const timespec* timeout, const sigset_t* mask),
              (count, read, write, except, timeout, mask), true);

SHUNT_WRAPPER(int, __poll_chk, (pollfd * items, nfds_t count, int timeout, size_t room)) {
  if (room / sizeof(pollfd) < count) return next.__poll_chk(items, count, timeout, room);
  return shunt_poll(items, count, timeout);
}

SHUNT_WRAPPER(int, __ppoll_chk,
              (pollfd * items, nfds_t count, const timespec* timeout, const sigset_t* mask, size_t room)) {
  if (room / sizeof(pollfd) < count) return next.__ppoll_chk(items, count, timeout, mask, room);
  return shunt_ppoll(items, count, timeout, mask);
}

SHUNT_WRAPPER(int, epoll_create, (int size)) {
  const int fd = next.epoll_create(size);
  if (fd >= 0 && active()) calls::note_epoll(fd);
  return fd;
}

SHUNT_WRAPPER(int, epoll_create1, (int flags)) {
  const int fd = next.epoll_create1(flags);
  if (fd >= 0 && active()) calls::note_epoll(fd);
  return fd;
}

SHUNT_FORWARD(int, epoll_ctl, (int set, int operation, int fd, epoll_event* event), (set, operation, fd, event),
              active());

SHUNT_WRAPPER(int, epoll_wait, (int set, epoll_event* events, int room, int timeout)) {
  if (epoll_set_of(set))
    if (const long answer = calls::epoll_wait(set, events, room, timeout, nullptr, EpollCall::wait); answer != calls::kPassOn)
      return give<int>(answer);
  return next.epoll_wait(set, events, room, timeout);
}

SHUNT_WRAPPER(int, epoll_pwait, (int set, epoll_event* events, int room, int timeout, const sigset_t* mask)) {
  if (epoll_set_of(set))
    if (const long answer = calls::epoll_wait(set, events, room, timeout, mask, EpollCall::pwait); answer != calls::kPassOn)
      return give<int>(answer);
  return next.epoll_pwait(set, events, room, timeout, mask);
}

SHUNT_WRAPPER(int, epoll_pwait2,
              (int set, epoll_event* events, int room, const timespec* timeout, const sigset_t* mask)) {
  if (epoll_set_of(set))
    if (const long answer = calls::epoll_wait_until(set, events, room, timeout, mask, EpollCall::pwait2); answer != calls::kPassOn)
      return give<int>(answer);
  return next.epoll_pwait2(set, events, room, timeout, mask);
}
