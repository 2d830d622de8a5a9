// What the kernel's registration holds: the program's request, or a tag that stands for it. Under the set's lock.
// Makes raw calls only; the program's own epoll_ctl has already been seen by whoever wanted to.
#include <cerrno>

#include "readiness/epoll_set.h"
#include "readiness/events.h"
#include "readiness/readiness.h"
#include "sys/raw.h"

namespace shunt {
namespace {

// Flags that the kernel checks or acts upon whatever the mode.
constexpr uint32_t kKernelsOwn = EPOLLWAKEUP | EPOLLEXCLUSIVE;

epoll_event kernel_event(const Registration& r, Kick kick) {
  epoll_event event{};
  if (r.mode.load(std::memory_order_relaxed) == Mode::native) {
    event.events = r.events;
    // A one-shot registration disables itself when it is fetched, and we must know: it reports by tag.
    event.data.u64 = r.events & EPOLLONESHOT ? tag_of(r) | kOneShotTag : r.data;
  } else {
    event.events = EPOLLIN | EPOLLRDHUP | EPOLLET | (r.events & (EPOLLPRI | kKernelsOwn));
    // Once asked for, it stays: a loop that wants to write now will want it again.
    const bool stays = (r.asked & EPOLLOUT) && !r.kicked;
    if ((r.events & kWritable) || kick == Kick::yes || stays) event.events |= EPOLLOUT;
    event.data.u64 = tag_of(r);
  }
  return event;
}

bool in_family(const Registration& r) { return r.family && r.set->shared.load(std::memory_order_relaxed); }

bool is_later(uint64_t a, uint64_t b) { return static_cast<int32_t>(static_cast<uint32_t>(a) - static_cast<uint32_t>(b)) > 0; }

// Does it, unless another process of the family has done so; a process that is killed in between has not. False: it has, or it failed.
template <typename Action>
bool once_in_family(Registration& r, Action action) {
  if (!in_family(r)) return action();
  Locked lock(r.family->lock);
  const bool outdated = is_later(r.family->latest, r.request);
  if (r.family->spent == r.request || outdated || !action()) return false;
  r.family->spent = r.request;
  return true;
}

void become_native(Registration& r) {
  r.mode.store(Mode::native, std::memory_order_relaxed);
  r.kicked = false;
  r.set->tagged.fetch_sub(1, std::memory_order_relaxed);
}

}  // namespace

bool spent(const Registration& r) {
  return in_family(r) && __atomic_load_n(&r.family->spent, __ATOMIC_RELAXED) == r.request;
}

void note_request_in_family(Registration& r) {
  r.spent_here = false;
  if (!in_family(r)) {
    r.request = next_request(r.request);
    return;
  }
  Locked lock(r.family->lock);
  FamilyRecord& record = *r.family;
  r.request = next_request(is_later(record.latest, r.request) ? record.latest : r.request);
  record.latest_events = r.events;
  record.latest_data = r.data;
  record.latest = r.request;
  const bool given_back = r.mode.load(std::memory_order_relaxed) == Mode::native && has_channel(*r.connection);
  if (given_back) record.spent = r.request;
}

void follow_family(Registration& r) {
  if (!in_family(r)) return;
  Locked lock(r.family->lock);
  const FamilyRecord& record = *r.family;
  if (!is_later(record.latest, r.request)) return;
  r.events = record.latest_events;
  r.data = record.latest_data;
  r.request = record.latest;
  r.fired = r.spent_here = false;
  r.edges.store(kEdgeOfRequest, std::memory_order_relaxed);
}

void give_back_for_family(Registration& r) {
  follow_family(r);
  const Side& side = *r.connection->side;
  if (!in_family(r) || spent(r)) return;
  if (side.in_flow.load(std::memory_order_relaxed) != Flow::kernel_again || side.left_end.load(std::memory_order_relaxed) != 0) return;
  r.mode.store(Mode::tagged, std::memory_order_relaxed);
  r.set->tagged.fetch_add(1, std::memory_order_relaxed);
  switch_to_native(r);
}

bool may_fire(Registration& r) {
  if (!(r.events & EPOLLONESHOT)) return true;
  const uint64_t looked_for = r.request;
  follow_family(r);
  if (r.request != looked_for) return false;
  return r.spent_here = once_in_family(r, [] { return true; });
}

long tell_kernel(Registration& r, int epoll_fd, int operation, Kick kick) {
  const bool ended = operation == EPOLL_CTL_MOD && ended_in_kernel(r);
  if (ended) operation = EPOLL_CTL_ADD;
  if (operation != EPOLL_CTL_ADD)
    if (Pin pin(r.fd); r.fd != r.handle || !pin || &*pin != r.connection) return -EBADF;
  epoll_event event = kernel_event(r, kick);
  long result = sys::raw(SYS_epoll_ctl, epoll_fd, operation, r.fd, &event);
  if (ended && result == -EEXIST) result = sys::raw(SYS_epoll_ctl, epoll_fd, EPOLL_CTL_MOD, r.fd, &event);  // by another process of the family
  if (result == 0) r.asked = operation == EPOLL_CTL_DEL ? 0 : event.events;
  return result;
}

bool incoming_on_ring(const Connection& c) {
  return c.side->in_flow.load(std::memory_order_relaxed) == Flow::ring &&
         c.in->stage.load(std::memory_order_acquire) == Stage::ring;
}

bool kernel_serves(const Registration& r) {
  const Connection& c = *r.connection;
  if (r.mode.load(std::memory_order_relaxed) != Mode::tagged || !incoming_on_ring(c)) return false;
  if (c.side->out_flow.load(std::memory_order_relaxed) != Flow::ring) return false;
  return r.asked == kernel_event(r, Kick::no).events;
}

void forget_in_kernel(Registration& r) {
  if (r.asked == 0) return;
  if (const int epoll_fd = descriptor_of(*r.set); epoll_fd >= 0) tell_kernel(r, epoll_fd, EPOLL_CTL_DEL, Kick::no);
  r.asked = 0;
}

void switch_to_tagged(Registration& r, int epoll_fd, Kick kick) {
  r.mode.store(Mode::tagged, std::memory_order_relaxed);
  r.set->tagged.fetch_add(1, std::memory_order_relaxed);
  r.kicked = kick == Kick::yes;
  r.reported = r.looked = glance(*r.connection);
  // A one-shot registration that has fired stays disabled in the kernel until the program modifies it.
  if (!r.fired && tell_kernel(r, epoll_fd, EPOLL_CTL_MOD, kick) != 0) {
    r.mode.store(Mode::native, std::memory_order_relaxed);
    r.set->tagged.fetch_sub(1, std::memory_order_relaxed);
  }
}

void switch_to_native(Registration& r) {
  follow_family(r);
  // epoll_ctl adds EPOLLERR and EPOLLHUP to whatever it is given, so it cannot disable: the kernel's registration of a fired one ends until the
  // program modifies it.
  if (r.fired) {
    once_in_family(r, [&] { return forget_in_kernel(r), true; });
    r.asked = 0;
    if (!withholds_reset(*r.connection)) become_native(r);
    return;
  }
  if (withholds_reset(*r.connection)) return;
  const int epoll_fd = descriptor_of(*r.set);
  if (epoll_fd < 0) return;
  const bool told = once_in_family(r, [&] {
    r.mode.store(Mode::native, std::memory_order_relaxed);
    const bool done = tell_kernel(r, epoll_fd, EPOLL_CTL_MOD, Kick::no) == 0;
    r.mode.store(Mode::tagged, std::memory_order_relaxed);
    return done;
  });
  if (told || spent(r)) become_native(r);  // else look() answers for the kernel as well
}

int descriptor_of(EpollSet& set) {
  const int last = set.fd.load(std::memory_order_relaxed);
  if (epoll_set_of(last) == &set) return last;
  for (int fd = 0; fd < descriptors_in_use(); ++fd) {
    if (epoll_set_of(fd) != &set) continue;
    set.fd.store(fd, std::memory_order_relaxed);
    return fd;
  }
  return -1;
}

}  // namespace shunt
