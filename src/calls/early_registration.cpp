// One registration per fresh socket is remembered, in a small table; two, or two sockets in one place, are too many.
// A program that connects and registers one socket in two threads at once gets what it would get from the kernel:
// either order.
#include "calls/early_registration.h"

#include "calls/policy.h"
#include "readiness/readiness.h"
#include "sys/raw.h"

namespace shunt::calls {

using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

namespace {

constexpr int kPlaces = 1024;
constexpr int kNobody = 0;  // no connection of ours lives at descriptor 0

struct Early {
  std::atomic<int> fd;
  std::atomic<int> set;
  std::atomic<uint32_t> events;
  std::atomic<uint64_t> data;
};
Early places[kPlaces];

void spoil_for_epoll(int fd) { spoil(fd, Reason::shared_before_upgrade); }

void remember(Early& place, int set, int fd, const epoll_event& event) {
  place.set.store(set, memory_order_relaxed);
  place.events.store(event.events, memory_order_relaxed);
  place.data.store(event.data.u64, memory_order_relaxed);
  place.fd.store(fd, memory_order_release);  // SYNC: pairs with the acquire in renew_early_registration()
}

}  // namespace

void note_early_registration(int set, int operation, int fd, const epoll_event* event) {
  if (fd <= 0 || !fresh(fd).known) return;
  Early& place = places[fd % kPlaces];
  const int holder = place.fd.load(memory_order_acquire);
  const bool is_known = holder == fd && place.set.load(memory_order_relaxed) == set;
  if (operation == EPOLL_CTL_DEL) {
    if (is_known) place.fd.store(kNobody, memory_order_relaxed);
    return;
  }
  const bool stale = holder != kNobody && !fresh(holder).known;
  const bool free = holder == kNobody || stale || (holder == fd && fresh(fd).spoilt == Reason::none && is_known);
  if (!free || !epoll_set_of(set) || (event->events & (EPOLLONESHOT | EPOLLEXCLUSIVE))) return spoil_for_epoll(fd);
  remember(place, set, fd, *event);
}

void renew_early_registration(int fd) {
  Early& place = places[fd % kPlaces];
  if (place.fd.load(memory_order_acquire) != fd) return;
  place.fd.store(kNobody, memory_order_relaxed);
  const int set = place.set.load(memory_order_relaxed);
  epoll_event event{};
  event.events = place.events.load(memory_order_relaxed);
  event.data.u64 = place.data.load(memory_order_relaxed);
  if (!epoll_set_of(set) || sys::raw(SYS_epoll_ctl, set, EPOLL_CTL_DEL, fd, &event) < 0) return;  // closed meanwhile
  control_epoll(set, EPOLL_CTL_ADD, fd, &event);
}

}  // namespace shunt::calls
