// The calls of the next library in line (libc, as a rule) that the lower floors sleep in: they are cancellation points and
// other preloaded libraries may want to see them. Until they are resolved they are the raw system calls.
// Any thread. Results ≥ 0 or −errno; errno is left as it was.
#pragma once

#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>

namespace shunt::sys {

struct Next {
  ssize_t (*recv)(int, void*, size_t, int);
  ssize_t (*send)(int, const void*, size_t, int);
  ssize_t (*recvmsg)(int, msghdr*, int);
  ssize_t (*sendmsg)(int, const msghdr*, int);
  int (*ppoll)(pollfd*, nfds_t, const timespec*, const sigset_t*);
  int (*epoll_pwait)(int, epoll_event*, int, int, const sigset_t*);
  int (*epoll_ctl)(int, int, int, epoll_event*);
  // libc's cleanup of the first kind, which runs also when a jump leaves its frame. Null, or all three.
  void (*cleanup_push)(_pthread_cleanup_buffer*, void (*)(void*), void*);
  void (*cleanup_pop)(_pthread_cleanup_buffer*, int);
  void (*left)(void*);  // the thread leaves the call for good
  int (*poll)(pollfd*, nfds_t, int);
  int (*select)(int, fd_set*, fd_set*, fd_set*, timeval*);
  int (*pselect)(int, fd_set*, fd_set*, fd_set*, const timespec*, const sigset_t*);
  int (*epoll_wait)(int, epoll_event*, int, int);
  int (*epoll_pwait2)(int, epoll_event*, int, const timespec*, const sigset_t*);
};
extern Next next;  // filled once by the interposition floor

// Around a call that is a cancellation point.
class CancellationPoint {
 public:
  CancellationPoint() {
    if (next.left) next.cleanup_push(&buffer_, next.left, nullptr);
  }
  ~CancellationPoint() {
    if (next.left) next.cleanup_pop(&buffer_, 0);
  }
  CancellationPoint(const CancellationPoint&) = delete;
  CancellationPoint& operator=(const CancellationPoint&) = delete;

 private:
  _pthread_cleanup_buffer buffer_;
};

long blocking_recv(int fd, void* data, size_t bytes, int flags);
long blocking_send(int fd, const void* data, size_t bytes, int flags);
long blocking_recvmsg(int fd, msghdr* message, int flags);
long blocking_sendmsg(int fd, const msghdr* message, int flags);
long blocking_ppoll(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask);
// What a set has now; the library's own call, or, where that is refused, the program's. Never sleeps.
long epoll_look(int fd, epoll_event* events, int room);
// The same for a registration.
long epoll_ctl(int fd, int operation, int of, epoll_event* event);

// Waits by the call that the program made. A filter that lets the program's calls through may refuse any other: only a mask takes another one, and less than a millisecond,
// for which the program's own serves as well. Milliseconds are rounded up.
enum class EpollCall : uint8_t { wait, pwait, pwait2 };
enum class PollCall : uint8_t { poll, ppoll };
enum class SelectCall : uint8_t { select, pselect };
long blocking_epoll(EpollCall call, int fd, epoll_event* events, int room, const timespec* timeout, const sigset_t* mask);
long blocking_poll(PollCall call, pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask);
// `timeout`: what is left of it, where the kernel says so.
long blocking_select(SelectCall call, int count, fd_set* read, fd_set* write, fd_set* except, timespec* timeout, const sigset_t* mask);
// The same without waiting.
long ask_epoll(EpollCall call, int fd, epoll_event* events, int room);
long ask_poll(PollCall call, pollfd* fds, nfds_t count, const sigset_t* mask);
// An answer about the call's arguments or a signal, not about its number.
bool is_answer(long result);

}  // namespace shunt::sys
