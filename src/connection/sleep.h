// Waiting inside one blocking call: spin, then sleep in the kernel on the connection's own descriptor.
// Used by receive and send. Ends as the kernel's call would: ready, −EAGAIN (SO_RCVTIMEO / SO_SNDTIMEO, O_NONBLOCK), −EINTR. What the descriptor's flags and
// timeouts are the kernel says: the program may have set them past the library.
#pragma once

#include "connection/connection.h"

namespace shunt {

class BlockingWait {
 public:
  // `timeout_ns`: the socket's own timeout, 0: none. signal(7): with a timeout set, any handler ends the call.
  explicit BlockingWait(uint64_t timeout_ns)
      : timeout_ns_(timeout_ns),
        watch_(timeout_ns ? Interruption::by_any_handler : Interruption::by_handlers_without_restart) {}

  // 0: look again. −EAGAIN, −EINTR: give up.
  long for_data(Connection& connection, int fd) { return wait(connection, fd, POLLIN); }
  long for_space(Connection& connection, int fd) { return wait(connection, fd, POLLOUT); }

  // The same for a call that goes on in the kernel (POLLIN, POLLOUT): it must not begin there anew, as a handler may have run since it began.
  long for_kernel(int fd, short events);

  // The call has slept elsewhere, or others have seen it begin.
  void note_sleep() { slept_ = true; }
  bool slept() const { return slept_; }

 private:
  long wait(Connection& connection, int fd, short events);
  long sleep(Connection& connection, int fd, short events, Armed armed);
  long sleep_in_receive(Connection& connection, int fd);
  long ask_before_sleep(Connection& connection, int fd, short events);
  long sleep_in_kernel(int fd, short wanted, uint64_t length);
  bool in_vain(Connection& connection, int fd);
  bool timed_out(int fd, short events);

  uint64_t timeout_ns_;
  uint64_t deadline_ns_ = 0;  // monotonic; read when the first sleep begins
  uint64_t seen_head_ = 0;    // the peer's head when the ring was last found full
  SignalWatch watch_;
  bool slept_ = false;        // so that others may know that the call has begun
  uint32_t idle_wakes_ = 0;   // wake-ups in a row that brought nothing
  uint64_t moved_ = 0;        // bytes that this end had moved when we last waited
  uint32_t vain_ = 0;         // waits in a row, without a full sleep, in which it moved none
};

}  // namespace shunt
