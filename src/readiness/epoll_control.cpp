// epoll_ctl, and what ends or changes registrations from below: a closed descriptor or set, a new channel, a demotion.
// Any thread. The kernel's answer comes first: only what it accepted is remembered.
#include <cerrno>

#include "readiness/epoll_set.h"
#include "readiness/readiness.h"
#include "sys/next.h"
#include "sys/raw.h"

namespace shunt {
namespace {

long kernel_control(int epoll_fd, int operation, int fd, epoll_event* event) {
  return sys::epoll_ctl(epoll_fd, operation, fd, event);
}

// Of a descriptor that the kernel alone answers for.
long kernels_own(EpollSet* set, int epoll_fd, int operation, int fd, epoll_event* event) {
  const long result = kernel_control(epoll_fd, operation, fd, event);
  if (!set || result != 0) return result;
  Locked lock(set->lock);
  if (lock.nested()) return result;
  if (operation == EPOLL_CTL_DEL)
    set->words.forget(fd, nullptr);
  else if (operation == EPOLL_CTL_ADD || operation == EPOLL_CTL_MOD)
    set->words.note(fd, event->data.u64, nullptr);
  return result;
}

// On the kernel for good: its own registration stays right for ever.
bool settled(const Connection& connection) {
  const Side& side = *connection.side;
  if (!__atomic_load_n(&connection.in, __ATOMIC_ACQUIRE))
    return side.plain.load(std::memory_order_relaxed) != Reason::none;
  return settled_on_kernel(connection);
}

// Under registry_lock. `in` is set before the hook runs, `channel` after it: with `in` nobody falls between.
bool gets_channel(const Connection& connection) { return __atomic_load_n(&connection.in, __ATOMIC_ACQUIRE) != nullptr; }

Registration* find(const Connection& connection, const EpollSet& set, int fd) {
  for (Registration* r = connection.registrations.load(std::memory_order_relaxed); r; r = r->next_of_connection)
    if (r->set == &set && r->fd == fd) return r;
  return nullptr;
}

void link(EpollSet& set, Registration& r) {
  set.followed.fetch_add(1, std::memory_order_relaxed);
  r.next_of_set = set.members;
  set.members = &r;
  r.next_of_connection = r.connection->registrations.load(std::memory_order_relaxed);
  r.connection->registrations.store(&r, std::memory_order_release);
}

// Under both locks, not nested.
void unlink(Registration& r) {
  EpollSet& set = *r.set;
  set.followed.fetch_sub(1, std::memory_order_relaxed);
  set.words.forget(r.fd, &r);
  Registration** place = &set.members;
  while (*place != &r) place = &(*place)->next_of_set;
  *place = r.next_of_set;

  Registration* before = r.connection->registrations.load(std::memory_order_relaxed);
  if (before == &r) {
    r.connection->registrations.store(r.next_of_connection, std::memory_order_relaxed);
  } else {
    while (before && before->next_of_connection != &r) before = before->next_of_connection;
    if (before) before->next_of_connection = r.next_of_connection;
  }
  take_fresh(set);
  if (r.heat.load(std::memory_order_relaxed) == Heat::hot) cool(set, r);
  if (r.mode.load(std::memory_order_relaxed) == Mode::tagged) set.tagged.fetch_sub(1, std::memory_order_relaxed);
  free_registration(r);
}

// A request of the program's: whatever is ready now is an edge, and somebody must look.
void note_request(Registration& r, const epoll_event& event) {
  r.events = event.events;
  r.data = event.data.u64;
  r.fired = r.told_here = false;
  if (r.events & EPOLLONESHOT) r.set->one_shots.store(true, std::memory_order_relaxed);
  r.edges.store(kEdgeOfRequest, std::memory_order_relaxed);
  const Registration* only = r.connection->registrations.load(std::memory_order_relaxed);
  if (r.events & EPOLLOUT)
    r.connection->sets_want_space.store(true, std::memory_order_relaxed);
  else if (only == &r && !r.next_of_connection)
    r.connection->sets_want_space.store(false, std::memory_order_relaxed);
}

long add_native(EpollSet* set, int epoll_fd, int fd, epoll_event* event, Connection& connection, Reason reason) {
  // A relay would make it another file.
  leave(connection, fd, reason);
  return kernels_own(set, epoll_fd, EPOLL_CTL_ADD, fd, event);
}

Reason reason_to_leave(const EpollSet* set, const epoll_event& event) {
  if (event.events & EPOLLEXCLUSIVE) return Reason::epoll_exclusive;
  if (!set || set->inherited.load(std::memory_order_relaxed) || is_kernels(*set)) return Reason::epoll_inherited;
  if (set->watched.load(std::memory_order_relaxed)) return Reason::nested_epoll;
  return Reason::none;
}

long add(EpollSet* set, int epoll_fd, int fd, epoll_event* event, Connection& connection) {
  const bool known_here = connection.registrations.load(std::memory_order_relaxed) != nullptr;
  if (!known_here && settled(connection)) return kernels_own(set, epoll_fd, EPOLL_CTL_ADD, fd, event);
  Locked registry(registry_lock);
  const Registration* known = set ? find(connection, *set, fd) : nullptr;
  if (known && ended_in_kernel(*known)) return -EEXIST;
  if (settled(connection)) {
    registry.release();
    return kernels_own(set, epoll_fd, EPOLL_CTL_ADD, fd, event);
  }
  const Reason reason = reason_to_leave(set, *event);
  // What fails changes nothing: it is no set, or the kernel does not take the flags, or still knows an earlier one.
  if (reason != Reason::none) {
    epoll_event trial = *event;
    trial.events &= ~static_cast<uint32_t>(EPOLLIN | EPOLLOUT);  // a bell is no news for whoever waits there
    if (const long result = kernel_control(epoll_fd, EPOLL_CTL_ADD, fd, &trial); result != 0) return result;
    kernel_control(epoll_fd, EPOLL_CTL_DEL, fd, &trial);
  }
  Registration* r = reason == Reason::none && !registry.nested() ? allocate_registration() : nullptr;
  if (!r) {
    registry.release();
    return add_native(set, epoll_fd, fd, event, connection, reason == Reason::none ? Reason::no_resources : reason);
  }
  {
    Locked lock(set->lock);
    if (is_kernels(*set)) {  // since a moment ago
      free_registration(*r);
      registry.release();
      return add_native(set, epoll_fd, fd, event, connection, Reason::epoll_inherited);
    }
    r->set = set;
    r->connection = &connection;
    r->fd = r->handle = fd;
    r->heat.store(Heat::cold, std::memory_order_relaxed);
    r->reported = r->looked = {};
    r->kicked = r->knew_rings = r->doubtful = false;
    r->ended = r->seen = r->foretold = 0;
    r->asked = 0;
    r->pass = set->pass;
    note_request(*r, *event);
    const bool tagged = gets_channel(connection);
    r->mode.store(tagged ? Mode::tagged : Mode::native, std::memory_order_relaxed);
    // A waiter that fetches the new tag blocks on the set's lock until the registration is known.
    const long result = tell_kernel(*r, epoll_fd, EPOLL_CTL_ADD, Kick::no);
    if (result != 0) return free_registration(*r), result;
    set->words.note(fd, r->data, r);
    // The kernel forgot an earlier one unseen, or it would have answered EEXIST.
    if (Registration* stale = find(connection, *set, fd); stale && !lock.nested()) unlink(*stale);
    link(*set, *r);
    if (!tagged) return 0;
    set->tagged.fetch_add(1, std::memory_order_relaxed);
    ask_for_times(connection);
    heat_up(*r);
  }
  registry.release();
  hand_over(*set);
  return 0;
}

// Under both locks, not nested. The kernel's registration stays as it is.
void fall_asleep(EpollSet& set, Registration& r) {
  take_fresh(set);
  if (r.heat.load(std::memory_order_relaxed) == Heat::hot) cool(set, r);
  r.mode.store(Mode::dormant, std::memory_order_relaxed);
  set.tagged.fetch_sub(1, std::memory_order_relaxed);
}

// EPOLL_CTL_ADD of what was deleted a moment ago. False: there is nothing dormant, or it does not serve.
bool awake(EpollSet& set, int fd, const epoll_event& event, Connection& connection) {
  if (!connection.registrations.load(std::memory_order_relaxed)) return false;
  Locked registry(registry_lock);
  Registration* r = registry.nested() ? nullptr : find(connection, set, fd);
  if (!r || r->mode.load(std::memory_order_relaxed) != Mode::dormant) return false;
  {
    Locked lock(set.lock);
    if (lock.nested()) return false;
    r->handle = fd;
    r->events = event.events;
    r->mode.store(Mode::tagged, std::memory_order_relaxed);
    if (r->asked == 0 || reason_to_leave(&set, event) != Reason::none || !kernel_serves(*r)) {
      r->mode.store(Mode::dormant, std::memory_order_relaxed);
      forget_in_kernel(*r);
      unlink(*r);
      return false;
    }
    r->pass = set.pass;
    r->reported = r->looked = {};
    note_request(*r, event);
    set.words.note(fd, r->data, r);
    set.tagged.fetch_add(1, std::memory_order_relaxed);
    heat_up(*r);
  }
  registry.release();
  hand_over(set);
  return true;
}

long modify(EpollSet& set, int epoll_fd, int fd, epoll_event* event, Connection& connection) {
  Locked registry(registry_lock);
  Registration* r = find(connection, set, fd);
  if (!r) {
    registry.release();
    return kernels_own(&set, epoll_fd, EPOLL_CTL_MOD, fd, event);
  }
  Locked lock(set.lock);
  registry.release();
  if (event->events & EPOLLEXCLUSIVE) return -EINVAL;  // do_epoll_ctl: not for EPOLL_CTL_MOD. What begins anew is an EPOLL_CTL_ADD to the kernel
  if (r->mode.load(std::memory_order_relaxed) == Mode::dormant)
    return r->asked == 0 ? kernel_control(epoll_fd, EPOLL_CTL_MOD, fd, event) : -ENOENT;
  std::optional<FamilySection> section(std::in_place, *r);
  if (r->mode.load(std::memory_order_relaxed) == Mode::tagged && settled_on_kernel(*r->connection)) switch_to_native(*r);
  const uint32_t old_events = r->events;
  const uint64_t old_data = r->data;
  r->handle = fd;
  r->events = event->events;
  r->data = event->data.u64;
  // Another process may sleep in the set, and know of nothing to look at.
  const Kick kick = is_kernels(set) ? Kick::yes : Kick::no;
  if (kick == Kick::yes || !kernel_serves(*r)) {
    const long result = tell_kernel(*r, epoll_fd, EPOLL_CTL_MOD, kick);
    if (result != 0) {
      r->events = old_events;
      r->data = old_data;
      return result;
    }
    r->kicked = kick == Kick::yes && r->mode.load(std::memory_order_relaxed) == Mode::tagged;
    r->ended = r->foretold = 0;
  }
  // SYNC: seq_cst, pairs with SetWait: who has fetched the event of the last request and not looked at it yet is still counted.
  const bool may_be_fetched = set.fetching.load(std::memory_order_seq_cst) > 0 || set.asleep.load(std::memory_order_seq_cst) > 0;
  const bool unknown = (old_events & EPOLLONESHOT) && (r->doubtful || !r->fired) && may_be_fetched;
  r->doubtful = unknown && (r->events & EPOLLONESHOT) && r->mode.load(std::memory_order_relaxed) == Mode::native;
  note_request(*r, *event);
  set.words.note(r->fd, r->data, r);
  section.reset();
  if (r->mode.load(std::memory_order_relaxed) != Mode::tagged) return 0;
  heat_up(*r);
  lock.release();
  hand_over(set);
  return 0;
}

long remove(EpollSet& set, int epoll_fd, int fd, epoll_event* event, Connection& connection) {
  Locked registry(registry_lock);
  Registration* r = find(connection, set, fd);
  if (!r) {
    registry.release();
    return kernels_own(&set, epoll_fd, EPOLL_CTL_DEL, fd, event);
  }
  Locked lock(set.lock);
  const bool stays = !registry.nested() && !lock.nested() && !r->record && kernel_serves(*r) &&
                     reason_to_leave(&set, {}) == Reason::none;
  if (stays) return fall_asleep(set, *r), 0;
  if (r->mode.load(std::memory_order_relaxed) == Mode::dormant && r->asked != 0) return -ENOENT;
  {
    const FamilySection section(*r);
    const long result = ended_in_kernel(*r) ? 0 : kernel_control(epoll_fd, EPOLL_CTL_DEL, fd, event);
    if (result != 0) return result;
    r->given_back = true;
  }
  // A handler inside its own thread's change of the lists: the record stays, silent, until the descriptor is closed.
  if (registry.nested() || lock.nested())
    r->fired = true;
  else
    unlink(*r);
  return 0;
}

// Another descriptor of this process that refers to the connection, or −1.
int duplicate_of(const Connection& connection, int closed) {
  if (connection.references.load(std::memory_order_relaxed) < 2) return -1;
  for (int fd = 0; fd < descriptors_in_use(); ++fd) {
    if (fd == closed || !is_connection(fd)) continue;
    if (Pin pin(fd); pin && &*pin == &connection) return fd;
  }
  return -1;
}

}  // namespace

void note_epoll_created(int fd) {
  EpollSet* set = allocate_set();
  if (set) {
    set->fd.store(fd, std::memory_order_relaxed);
    set->family->owner.store(static_cast<uint32_t>(sys::process_id()), std::memory_order_relaxed);
  }
  enter_epoll_set(fd, set);
}

long control_epoll(int epoll_fd, int operation, int fd, epoll_event* event) {
  Pin connection(fd);
  const bool understood =
      operation == EPOLL_CTL_DEL || (event && (operation == EPOLL_CTL_ADD || operation == EPOLL_CTL_MOD));
  if (!connection || !understood) {
    const SetUse unknown(epoll_fd);
    const long result = kernels_own(unknown ? &*unknown : nullptr, epoll_fd, operation, fd, event);
    if (operation == EPOLL_CTL_ADD && result == 0) note_set_watched(fd);
    return result;
  }
  SetUse set(epoll_fd);
  if (set && must_settle(*set)) settle(*set);
  if (operation == EPOLL_CTL_ADD && set && awake(*set, fd, *event, *connection)) return 0;
  if (operation == EPOLL_CTL_ADD) return add(set ? &*set : nullptr, epoll_fd, fd, event, *connection);
  if (!set) return kernel_control(epoll_fd, operation, fd, event);
  return operation == EPOLL_CTL_MOD ? modify(*set, epoll_fd, fd, event, *connection)
                                    : remove(*set, epoll_fd, fd, event, *connection);
}

// epoll(7): a registration ends when the last descriptor of its open file is closed, not when `fd` is.
void forget_registrations(Connection& connection, int fd) {
  if (!connection.registrations.load(std::memory_order_relaxed)) return;
  const int duplicate = duplicate_of(connection, fd);
  bool unchangeable = false;
  {
    Locked registry(registry_lock);
    Registration* next;
    for (Registration* r = connection.registrations.load(std::memory_order_relaxed); r; r = next) {
      next = r->next_of_connection;
      if (r->handle != fd && r->fd != fd && duplicate >= 0) continue;
      Locked lock(r->set->lock);
      if (duplicate >= 0) {
        if (r->handle == fd) r->handle = duplicate;
        unchangeable |= r->mode.load(std::memory_order_relaxed) == Mode::native && !r->given_back;
      } else if (registry.nested() || lock.nested()) {
        r->fired = true;
      } else {
        unlink(*r);
      }
    }
  }
  // The kernel knows the registration by a number that is closed, so it could not be switched to a channel any more.
  if (unchangeable) leave(connection, duplicate, Reason::epoll_inherited);
}

void release_epoll_set(EpollSet* set) {
  {
    Locked registry(registry_lock);
    Locked lock(set->lock);
    if (!registry.nested() && !lock.nested())
      while (set->members) unlink(*set->members);
    if (!lock.nested()) set->words.clear();
  }
  drop_set(*set);
}

void readiness_channel_appeared(Connection& connection) {
  int unchangeable = -1;
  {
    Locked registry(registry_lock);  // also when nothing is registered: an epoll_ctl that saw no channel may be inside
    for (Registration* r = connection.registrations.load(std::memory_order_relaxed); r; r = r->next_of_connection) {
      const int epoll_fd = descriptor_of(*r->set);
      Locked lock(r->set->lock);
      if (r->mode.load(std::memory_order_relaxed) != Mode::native) continue;
      if (r->given_back || is_kernels(*r->set)) {
        unchangeable = r->handle;
        continue;
      }
      const bool sleepers = r->set->asleep.load(std::memory_order_relaxed) > 0;
      switch_to_tagged(*r, epoll_fd, sleepers ? Kick::yes : Kick::no);
      if (r->mode.load(std::memory_order_relaxed) == Mode::tagged)
        heat_up(*r);
      else
        unchangeable = r->handle;
    }
  }
  if (unchangeable >= 0) make_plain(connection, unchangeable, Reason::epoll_inherited);
}

// A registration of ours may stand in a set only if this process waits on that set through the library: since the program's last request a wait has
// told of it.
bool readiness_may_upgrade(Connection& connection) {
  Locked registry(registry_lock);
  if (registry.nested()) return false;
  for (Registration* r = connection.registrations.load(std::memory_order_relaxed); r; r = r->next_of_connection) {
    Locked lock(r->set->lock);
    if (lock.nested() || r->given_back || is_kernels(*r->set)) return false;
    if (r->set->inherited.load(std::memory_order_relaxed) || r->set->watched.load(std::memory_order_relaxed)) return false;
    if (r->mode.load(std::memory_order_relaxed) == Mode::native && (r->doubtful || !r->told_here)) return false;
  }
  return true;
}

void readiness_demoted(Connection& connection) {
  if (!connection.registrations.load(std::memory_order_acquire)) return;
  Locked registry(registry_lock);
  for (Registration* r = connection.registrations.load(std::memory_order_relaxed); r; r = r->next_of_connection) {
    Locked lock(r->set->lock);
    const Mode mode = r->mode.load(std::memory_order_relaxed);
    if (mode == Mode::tagged) switch_to_native(*r);
    if (mode == Mode::dormant) forget_in_kernel(*r);
  }
}

// The old file stays open in the relay, and with it the kernel's registration, which nobody could reach any more.
void readiness_before_relay(Connection& connection) {
  if (!connection.registrations.load(std::memory_order_acquire)) return;
  Locked registry(registry_lock);
  for (Registration* r = connection.registrations.load(std::memory_order_relaxed); r; r = r->next_of_connection) {
    Locked lock(r->set->lock);
    forget_in_kernel(*r);
  }
}

void readiness_after_relay(Connection& connection) {
  if (!connection.registrations.load(std::memory_order_acquire)) return;
  Locked registry(registry_lock);
  for (Registration* r = connection.registrations.load(std::memory_order_relaxed); r; r = r->next_of_connection) {
    Locked lock(r->set->lock);
    const Mode mode = r->mode.load(std::memory_order_relaxed);
    const int epoll_fd = descriptor_of(*r->set);
    if (mode == Mode::dormant || epoll_fd < 0) continue;
    // A new registration cannot begin disabled: one that has fired is ours.
    if (mode == Mode::native && r->fired && !r->given_back) {
      r->mode.store(Mode::tagged, std::memory_order_relaxed);
      r->set->tagged.fetch_add(1, std::memory_order_relaxed);
    }
    tell_kernel(*r, epoll_fd, EPOLL_CTL_ADD, Kick::no);
  }
}

namespace {

// Every set that has the connection looks at it, also if a thread sleeps in it.
void make_sets_look(Connection& connection, uint32_t new_edges) {
  if (!connection.registrations.load(std::memory_order_acquire)) return;
  Locked registry(registry_lock);
  for (Registration* r = connection.registrations.load(std::memory_order_relaxed); r; r = r->next_of_connection) {
    Locked lock(r->set->lock);
    if (r->mode.load(std::memory_order_relaxed) != Mode::tagged) continue;
    r->edges.fetch_or(new_edges, std::memory_order_relaxed);
    heat_up(*r);
    const int epoll_fd = descriptor_of(*r->set);
    if (epoll_fd >= 0 && r->set->asleep.load(std::memory_order_seq_cst) > 0) kick(*r, epoll_fd, Kick::yes);
  }
}

}  // namespace

// unix_shutdown: sk_state_change wakes every waiter on the socket itself, so whatever is true is an edge.
void readiness_shut_down(Connection& connection) { make_sets_look(connection, kEdgeOfRequest); }

void readiness_look_again(Connection& connection) { make_sets_look(connection, 0); }

// May be called from places where waiting for a lock would be wrong: "no" is always a safe answer.
bool readiness_may_drain(Connection& connection) {
  if (!connection.registrations.load(std::memory_order_relaxed)) return true;
  const TriedLock registry(registry_lock);
  if (!registry) return false;
  bool nobody_asleep = true;
  for (Registration* r = connection.registrations.load(std::memory_order_relaxed); r; r = r->next_of_connection) {
    if (r->mode.load(std::memory_order_relaxed) != Mode::tagged) continue;
    heat_up(*r);
    // SYNC: seq_cst, Dekker pair: a waiter that goes to sleep after this sees the new epoch.
    nobody_asleep &= r->set->asleep.load(std::memory_order_seq_cst) == 0;
  }
  return nobody_asleep;
}

}  // namespace shunt
