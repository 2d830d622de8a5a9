// Which registrations are looked at, what is due for report, and how they are armed when nobody looks any more.
// Any thread. Takes a set's lock, never the registry's. Makes raw calls only, and only through look() and
// arm_registered().
#include "readiness/epoll_set.h"
#include "readiness/events.h"
#include "readiness/readiness.h"
#include "sys/raw.h"

namespace shunt {
namespace {

constexpr short kAll = POLLIN | POLLPRI | POLLOUT | POLLRDNORM | POLLRDBAND | POLLWRNORM | POLLWRBAND | POLLRDHUP;

uint32_t state_of(Connection& connection, int fd, Belief belief) {
  const short bits = has_channel(connection) ? look(connection, fd, belief) : sys::poll_now(fd, kAll);
  return static_cast<uint16_t>(bits & ~POLLNVAL);
}

// One hot registration on its way to being cold.
struct Candidate {
  Registration* registration;
  Connection* connection;
  uint32_t generation;
  int handle;
  short interest;
};

constexpr size_t kBatch = 32;

size_t take_batch(EpollSet& set, bool first, Candidate* batch) {
  Locked lock(set.lock);
  if (lock.nested()) return 0;
  if (first) take_fresh(set);
  size_t used = 0;
  while (used < kBatch && set.hot_first) {
    Registration& r = *set.hot_first;
    cool(set, r);
    if (r.mode.load(std::memory_order_relaxed) != Mode::tagged || r.fired) continue;
    batch[used++] = {&r, r.connection, r.generation.load(std::memory_order_relaxed), r.handle, armed_for(r.events)};
  }
  return used;
}

Armed arm_one(const Candidate& candidate) {
  Pin pin(candidate.handle);
  if (!pin || &*pin != candidate.connection || !has_channel(*pin)) return Armed::sleep;
  if (candidate.interest != 0) return arm_registered(*pin, candidate.handle, candidate.interest);
  full_barrier();  // SYNC: as in arm_registered(): cold, then look
  return Armed::sleep;
}

void look_again(EpollSet& set, const Candidate& candidate, Armed armed, ArmedSet& result) {
  Locked lock(set.lock);
  Registration& r = *candidate.registration;
  if (r.generation.load(std::memory_order_relaxed) != candidate.generation || r.set != &set) return;
  if (r.mode.load(std::memory_order_relaxed) != Mode::tagged) return;
  Glance now;
  const bool is_due = due(r, now) != 0;
  const bool slices = armed == Armed::slices;
  if (is_due || slices) {
    heat_up(r);
    ++result.epochs;
  }
  result.due |= is_due;
  result.slices |= slices;
}

void take_out(EpollSet& set, Registration& r) {
  (r.hot_previous ? r.hot_previous->hot_next : set.hot_first) = r.hot_next;
  (r.hot_next ? r.hot_next->hot_previous : set.hot_last) = r.hot_previous;
  --set.hot_count;
}

// Wakes a thread that sleeps in the set: EPOLLOUT is true of nearly every socket, and asking for it makes an edge.
void kick_sleeper(EpollSet& set) {
  const int epoll_fd = descriptor_of(set);
  Locked lock(set.lock);
  if (lock.nested() || epoll_fd < 0) return;
  take_fresh(set);
  for (Registration* r = set.hot_first; r; r = r->hot_next)
    if (kick(*r, epoll_fd, Kick::yes)) return;
}

}  // namespace

void mark_hot(Registration& r) {
  Heat cold = Heat::cold;
  // SYNC: seq_cst, whatever made it hot is visible before; pairs with cool() and the barrier in arm_registered().
  if (!r.heat.compare_exchange_strong(cold, Heat::queued, std::memory_order_seq_cst)) return;
  EpollSet& set = *r.set;
  Registration* first = set.fresh.load(std::memory_order_relaxed);
  do r.next_fresh = first;
  while (!set.fresh.compare_exchange_weak(first, &r, std::memory_order_release));  // SYNC: pairs with take_fresh()
}

void heat_up(Registration& r) {
  mark_hot(r);
  r.set->epoch.fetch_add(1, std::memory_order_seq_cst);  // SYNC: Dekker pair with asleep, see hand_over()
}

void take_fresh(EpollSet& set) {
  if (!set.fresh.load(std::memory_order_relaxed)) return;
  Registration* last = set.fresh.exchange(nullptr, std::memory_order_acquire);
  Registration* r = nullptr;  // the one that got hot first is looked at first
  while (last) {
    Registration* before = last->next_fresh;
    last->next_fresh = r;
    r = last;
    last = before;
  }
  while (r) {
    Registration* next = r->next_fresh;
    append_hot(set, *r);
    r = next;
  }
}

void append_hot(EpollSet& set, Registration& r) {
  r.heat.store(Heat::hot, std::memory_order_relaxed);
  r.hot_next = nullptr;
  r.hot_previous = set.hot_last;
  (set.hot_last ? set.hot_last->hot_next : set.hot_first) = &r;
  set.hot_last = &r;
  ++set.hot_count;
}

void cool(EpollSet& set, Registration& r) {
  take_out(set, r);
  r.heat.store(Heat::cold, std::memory_order_seq_cst);  // SYNC: pairs with mark_hot()
}

void rotate(EpollSet& set, Registration& r) {
  if (set.hot_last == &r) return;
  take_out(set, r);
  append_hot(set, r);
}

// Level triggered: what is true. Edge triggered: all that is true, if something of it is news. ep_poll_callback: news
// is a wake-up whose key meets the interest: bytes arrived, bytes were consumed (a buffer was freed), the end came
// nearer.
uint32_t due(Registration& r, Glance& now) {
  now = r.looked;
  if (r.fired) return 0;
  Pin pin(r.handle);
  if (!pin || &*pin != r.connection) return 0;  // about to be forgotten
  now = glance(*pin);
  const uint32_t edges = r.edges.load(std::memory_order_relaxed);
  if ((r.events & EPOLLET) && edges == 0 && now == r.reported) return 0;
  const uint32_t state = state_of(*pin, r.handle, r.ended ? Belief::nothing : Belief::alive);
  r.seen = state & kEnds;
  const uint32_t bits = state & (r.events | POLLERR | POLLHUP);
  if (!(r.events & EPOLLET) || (edges & kEdgeOfRequest)) return bits;
  const bool moved_on = now.stages != r.reported.stages;
  uint32_t news = edges & kEnds & (state | ~uint32_t{POLLERR});
  if (moved_on || now.tail != r.reported.tail || (edges & kReadable)) news |= kReadable | POLLPRI;  // sock_def_readable's key
  if (moved_on || now.head != r.reported.head || (edges & kWritable)) news |= kWritable;
  if (moved_on) news |= kEnds;
  // unix_shutdown wakes the other end's waiters without a key: of whatever is true.
  if (now.gone != r.reported.gone) news |= kReadable | kWritable | kEnds | POLLPRI;
  return news & (r.events | POLLERR | POLLHUP) ? bits : 0;  // ep_send_events asks anew what is true by now
}

ArmedSet arm_hot(EpollSet& set) {
  ArmedSet result{false, false, 0};
  Candidate batch[kBatch];
  bool first = true;
  // What is marked hot again goes to `fresh`, so this ends.
  while (const size_t used = take_batch(set, first, batch)) {
    for (size_t i = 0; i < used; ++i) look_again(set, batch[i], arm_one(batch[i]), result);
    first = false;
  }
  return result;
}

void hand_over(EpollSet& set) {
  // SYNC: seq_cst, Dekker pair: epoch grew when something got hot; a thread that goes to sleep later sees that.
  if (set.asleep.load(std::memory_order_seq_cst) == 0) return;
  const ArmedSet left = arm_hot(set);
  if ((left.due || left.slices) && set.asleep.load(std::memory_order_seq_cst) > 0) kick_sleeper(set);
}

}  // namespace shunt
