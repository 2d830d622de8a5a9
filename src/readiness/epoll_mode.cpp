// What the kernel's registration holds: the program's request, or a tag that stands for it. Under the set's lock.
// Makes raw calls only; the program's own epoll_ctl has already been seen by whoever wanted to.
#include <cerrno>

#include "readiness/epoll_set.h"
#include "readiness/events.h"
#include "readiness/readiness.h"
#include "sys/next.h"
#include "sys/raw.h"

namespace shunt {
namespace {

// Flags that the kernel checks or acts upon whatever the mode.
constexpr uint32_t kKernelsOwn = EPOLLWAKEUP | EPOLLEXCLUSIVE;

epoll_event kernel_event(const Registration& r, Kick kick) {
  epoll_event event{};
  if (r.mode.load(std::memory_order_relaxed) == Mode::native) {
    event.events = r.events;
    event.data.u64 = r.data;
  } else {
    event.events = EPOLLIN | EPOLLRDHUP | EPOLLET | (r.events & (EPOLLPRI | kKernelsOwn));
    // Once asked for, it stays: a loop that wants to write now will want it again.
    const bool stays = (r.asked & EPOLLOUT) && !r.kicked;
    if ((r.events & kWritable) || kick == Kick::yes || stays) event.events |= EPOLLOUT;
    event.data.u64 = tag_of(r);
  }
  return event;
}

void set_mode(Registration& r, Mode mode) {
  const Mode before = r.mode.load(std::memory_order_relaxed);
  r.mode.store(mode, std::memory_order_relaxed);
  if (before == Mode::tagged) r.set->tagged.fetch_sub(1, std::memory_order_relaxed);
  if (mode == Mode::tagged) r.set->tagged.fetch_add(1, std::memory_order_relaxed);
}

// Takes over what others have changed.
void follow(Registration& r) {
  const FamilyRecord& record = *r.record;
  if (record.changes == r.changes) return;
  r.changes = record.changes;
  r.kicked = false;
  if (record.mode == Mode::unused) {
    r.given_back = true;
    return set_mode(r, Mode::native);
  }
  set_mode(r, record.mode);
  r.fired = record.fired;
  r.events = record.events;
  r.asked = record.asked;
  r.data = record.data;
  r.edges.store(kEdgeOfRequest, std::memory_order_relaxed);
}

void publish(Registration& r) {
  FamilyRecord& record = *r.record;
  const FamilyRecord now{r.given_back ? Mode::unused : r.mode.load(std::memory_order_relaxed), r.fired, record.changes, r.events, r.asked, r.data};
  if (now.mode == record.mode && now.fired == record.fired && now.events == record.events && now.asked == record.asked && now.data == record.data) return;
  record = now;
  r.changes = ++record.changes;
}

// Whether a change would meet the file that was registered: its number may have been closed since.
bool is_reachable(const Registration& r) {
  Pin pin(r.fd);
  return r.fd == r.handle && pin && &*pin == r.connection;
}

// Disabled, as one that has fired. No request disables (epoll_ctl adds EPOLLERR and EPOLLHUP), but this one fires at once, or when the program could
// have asked again, and nobody knows the tag.
long disable_in_kernel(Registration& r, int epoll_fd) {
  if (!is_reachable(r)) return -EBADF;
  epoll_event event{};
  event.events = EPOLLOUT | EPOLLONESHOT;
  event.data.u64 = nobodys_tag();
  const long result = sys::epoll_ctl(epoll_fd, r.asked == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, r.fd, &event);
  if (result == 0) r.asked = event.events;
  return result;
}

// The program's own request in place of the tag. False: the kernel refuses.
bool write_request(Registration& r, bool for_good) {
  const int epoll_fd = descriptor_of(*r.set);
  if (epoll_fd < 0) return false;
  const Mode before = r.mode.load(std::memory_order_relaxed);
  r.mode.store(Mode::native, std::memory_order_relaxed);
  r.given_back = for_good;
  const long result = for_good && r.fired ? disable_in_kernel(r, epoll_fd) : tell_kernel(r, epoll_fd, EPOLL_CTL_MOD, Kick::no);
  r.mode.store(before, std::memory_order_relaxed);
  if (result != 0) return r.given_back = false;
  r.kicked = false;
  set_mode(r, Mode::native);
  return true;
}

}  // namespace

FamilySection::FamilySection(Registration& r) : registration_(r) {
  if (!r.record) return;
  lock_.emplace(r.set->family->lock);
  if (!lock_->nested()) follow(r);
}

FamilySection::~FamilySection() {
  if (registration_.record) publish(registration_);
}

bool may_fire(Registration& r) {
  if (!(r.events & EPOLLONESHOT)) return true;
  const uint32_t known = r.changes;
  const FamilySection section(r);
  if (r.changes != known || r.mode.load(std::memory_order_relaxed) != Mode::tagged || r.fired) return false;
  return r.fired = true;
}

bool kick(Registration& r, int epoll_fd, Kick kick) {
  const FamilySection section(r);
  if (r.mode.load(std::memory_order_relaxed) != Mode::tagged || r.fired) return false;
  r.kicked = kick == Kick::yes;
  return tell_kernel(r, epoll_fd, EPOLL_CTL_MOD, kick) == 0;
}

bool has_left_ring(const Connection& c) {
  if (c.relayed.load(std::memory_order_relaxed)) return true;
  const Side& side = *c.side;
  return !withholds_reset(c) && side.left_end.load(std::memory_order_relaxed) == 0 && side.in_flow.load(std::memory_order_relaxed) == Flow::kernel_again &&
         side.out_flow.load(std::memory_order_relaxed) == Flow::kernel_again;
}

void give_back_for_good(Registration& r) {
  const FamilySection section(r);
  const Mode mode = r.mode.load(std::memory_order_relaxed);
  if (r.given_back) return;
  if (mode == Mode::dormant) return forget_in_kernel(r);
  const bool is_leaving = r.connection->side->leaver.load(std::memory_order_relaxed) != 0;
  if (mode == Mode::tagged && (is_leaving || !has_left_ring(*r.connection))) return;
  const bool stays = mode == Mode::native && !ended_in_kernel(r);
  if (stays)
    r.given_back = true;
  else
    write_request(r, true);
}

long tell_kernel(Registration& r, int epoll_fd, int operation, Kick kick) {
  if (operation == EPOLL_CTL_MOD && ended_in_kernel(r)) operation = EPOLL_CTL_ADD;
  if (operation != EPOLL_CTL_ADD && !is_reachable(r)) return -EBADF;
  epoll_event event = kernel_event(r, kick);
  const long result = sys::epoll_ctl(epoll_fd, operation, r.fd, &event);
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
  const FamilySection section(r);
  if (r.given_back || r.doubtful) return;
  set_mode(r, Mode::tagged);
  ask_for_times(*r.connection);
  r.kicked = kick == Kick::yes;
  r.reported = r.looked = glance(*r.connection);
  // A one-shot registration that has fired stays disabled in the kernel until the program modifies it.
  if (!r.fired && tell_kernel(r, epoll_fd, EPOLL_CTL_MOD, kick) != 0) set_mode(r, Mode::native);
}

void switch_to_native(Registration& r) {
  if (is_kernels(*r.set)) return give_back_for_good(r);
  const FamilySection section(r);
  if (r.mode.load(std::memory_order_relaxed) != Mode::tagged) return;
  if (!r.fired) {
    if (!withholds_reset(*r.connection)) write_request(r, false);  // if it fails, look() answers for the kernel as well
    return;
  }
  // epoll_ctl adds EPOLLERR and EPOLLHUP to whatever it is given, so it cannot disable: the kernel's registration of a fired one ends until the
  // program modifies it.
  forget_in_kernel(r);
  if (!withholds_reset(*r.connection)) set_mode(r, Mode::native);
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
