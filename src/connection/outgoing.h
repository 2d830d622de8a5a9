// What sends and what mends the outgoing direction share: bells that are owed, and marks that a process which was killed has left.
// For outgoing.cpp and mend.cpp alone; under write_lock.
#pragma once

#include <linux/sockios.h>
#include <sys/ioctl.h>

#include "connection/flow.h"
#include "sys/raw.h"

namespace shunt {

// Publishes the count of bells, before the byte is sent. SYNC: release, pairs with the acquire of bells_rung in arm_events().
inline void publish_bells(Connection& c) {
  uint32_t rung;
  do {
    rung = c.side->bells_rung.load(std::memory_order_relaxed);
    c.out->bells_rung.store(rung, std::memory_order_release);
  } while (c.side->bells_rung.load(std::memory_order_relaxed) != rung);
}

inline uint32_t bells_owed(const Side& side) { return side.bells_rung.load(std::memory_order_relaxed) - side.bells_sent.load(std::memory_order_relaxed); }

// A bell that is counted will be sent, also when a handler leaves in between.
class OwedBell : Duty {
 public:
  OwedBell(Connection& connection, int fd) : side_(*connection.side), fd_(fd) {
    begin(kFate);
    side_.bells_rung.fetch_add(1, std::memory_order_relaxed);
    publish_bells(connection);
  }
  ~OwedBell() { done(); }
  long send() { return send_low_byte_and_count(fd_, MSG_DONTWAIT | MSG_NOSIGNAL, side_.bells_sent); }

 private:
  static void undo(Duty& duty) {
    auto& self = static_cast<OwedBell&>(duty);
    while (bells_owed(self.side_) > 0) self.send();
  }
  static constexpr Fate kFate{undo};
  Side& side_;
  int fd_;
};

// What the peer has not read of what was sent into the kernel, by the memory that it takes there. kNever: nobody knows.
inline uint64_t queued_in_kernel(int fd) {
  int queued = 0;
  return sys::ioctl(fd, SIOCOUTQ, &queued) == 0 ? static_cast<uint64_t>(queued) : kNever;
}

inline bool room_for_a_bell(int fd) { return sys::poll_now(fd, POLLOUT) & (POLLOUT | POLLHUP | POLLERR); }

// A process was killed with the write lock held, in the middle of something.
inline bool is_torn(const Connection& c) {
  return c.side->begun != Begun::nothing || c.out->writing.load(std::memory_order_relaxed) != 0;
}

// Goes on with it. False: the down-fence has to wait.
[[gnu::cold]] bool mend(Connection& c, int fd);

void complete_up_fence(Connection& c);

// Of a frozen ring: the position from which on bytes have yet to go back through the kernel.
uint64_t putback_position(const Connection& c);

}  // namespace shunt
