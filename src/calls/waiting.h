// poll, select and epoll: converts times and decides whether anything of ours is concerned. Any thread. ≥ 0, −errno, or
// kPassOn.
#pragma once

#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/time.h>

#include <csignal>
#include <ctime>

#include "calls/common.h"
#include "sys/next.h"

namespace shunt::calls {

long poll(pollfd* items, nfds_t count, int timeout_ms);
long ppoll(pollfd* items, nfds_t count, const timespec* timeout, const sigset_t* mask);
// select(2) on Linux writes what is left of the time back; pselect does not.
long select(int count, fd_set* read, fd_set* write, fd_set* except, timeval* timeout);
long pselect(int count, fd_set* read, fd_set* write, fd_set* except, const timespec* timeout, const sigset_t* mask);

// The numbers themselves, ppoll and pselect6, write what is left of the time back.
long ppoll_and_tell(pollfd* items, nfds_t count, timespec* timeout, const sigset_t* mask);
long pselect_and_tell(int count, fd_set* read, fd_set* write, fd_set* except, timespec* timeout, const sigset_t* mask);

void note_epoll(int fd);  // after the kernel made it
long epoll_ctl(int set, int operation, int fd, epoll_event* event);
long epoll_wait(int set, epoll_event* events, int room, int timeout_ms, const sigset_t* mask, sys::EpollCall call);
long epoll_wait_until(int set, epoll_event* events, int room, const timespec* timeout, const sigset_t* mask, sys::EpollCall call);

}  // namespace shunt::calls
