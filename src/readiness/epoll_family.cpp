// Sets that somebody else may wait on: nested in poll, select or another set, shared over a fork, or passed. Their
// connections are the kernel's, because only the kernel can wake such a waiter. Any thread.
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "readiness/epoll_set.h"
#include "readiness/readiness.h"
#include "sys/raw.h"
#include "sys/signal_mask.h"

namespace shunt {
namespace {

constexpr int kTries = 1000;

// Unless another process that shares the set does so, or has done so: for that it waits.
void leave_once(Connection& c, int fd, Reason reason) {
  if (!has_channel(c)) return leave(c, fd, reason);
  std::atomic<uint32_t>& leaver = c.side->leaver;
  for (int i = 0; i < kTries; ++i) {
    uint32_t other = 0;
    if (leaver.compare_exchange_strong(other, thread_id())) break;
    if (is_dead(other)) break;  // leaving takes it over
    sys::pause_briefly();
  }
  if (c.side->left_end.load(std::memory_order_relaxed) == 0 && !has_left_ring(c)) return leave(c, fd, reason);
  uint32_t mine = thread_id();
  leaver.compare_exchange_strong(mine, 0);
}

// Gives all registered connections back to the kernel. What is added meanwhile has seen why, and stays there itself.
void leave_all(EpollSet& set, Reason reason) {
  uint32_t pass;
  {
    Locked registry(registry_lock);
    pass = ++set.pass;
  }
  for (;;) {
    int fd = -1;
    const Connection* expected = nullptr;
    {
      Locked registry(registry_lock);
      for (Registration* r = set.members; r && fd < 0; r = r->next_of_set) {
        if (r->pass == pass) continue;
        r->pass = pass;
        if (r->mode.load(std::memory_order_relaxed) == Mode::dormant) {
          Locked lock(set.lock);
          forget_in_kernel(*r);
          continue;
        }
        fd = r->handle;
        expected = r->connection;
      }
    }
    if (fd < 0) return;
    if (Pin pin(fd); pin && &*pin == expected) leave_once(*pin, fd, reason);
  }
}

// The last owner has ended: what it changed after the fork, and what it was about to tell.
void take_over(EpollSet& set) {
  Locked registry(registry_lock);
  Locked lock(set.lock);
  for (Registration* r = set.members; r; r = r->next_of_set) {
    { const FamilySection known(*r); }
    if (r->mode.load(std::memory_order_relaxed) == Mode::tagged) mark_hot(*r);
  }
  set.inherited.store(false, std::memory_order_relaxed);
}

// What other processes have registered after the fork they alone can give back. Those that sleep in the set do so when
// something wakes them; level triggered, all of them.
void wake_family(EpollSet& set) {
  const std::atomic<uint32_t>& asleep = set.family->asleep;
  const int epoll_fd = descriptor_of(set);
  // SYNC: seq_cst, Dekker pair: who goes to sleep after this sees that the set is the kernel's.
  if (asleep.load(std::memory_order_seq_cst) == 0 || epoll_fd < 0) return;
  const sys::SignalsBlocked alone;
  const auto waker = static_cast<int>(sys::raw(SYS_eventfd2, 1, EFD_CLOEXEC | EFD_NONBLOCK));
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = nobodys_tag();
  if (waker < 0) return;
  if (sys::raw(SYS_epoll_ctl, epoll_fd, EPOLL_CTL_ADD, waker, &event) == 0) {
    // One that was killed there is counted for ever.
    for (int i = 0; i < kTries && asleep.load(std::memory_order_seq_cst) > 0; ++i) sys::pause_briefly();
    sys::raw(SYS_epoll_ctl, epoll_fd, EPOLL_CTL_DEL, waker, &event);
  }
  sys::close(waker);
}

void give_all_back(EpollSet& set) {
  leave_all(set, Reason::epoll_inherited);
  Locked registry(registry_lock);
  Locked lock(set.lock);
  for (Registration* r = set.members; r; r = r->next_of_set) {
    give_back_for_good(*r);
    // The family is to read in the ring what was left there.
    if (r->mode.load(std::memory_order_relaxed) == Mode::tagged) mark_hot(*r);
  }
  set.settled.store(true, std::memory_order_relaxed);
}

bool held_for_fork = false;  // between before and after only one thread is here

}  // namespace

void leave(Connection& connection, int fd, Reason reason) {
  if (has_channel(connection))
    retreat(connection, fd, reason);
  else
    make_plain(connection, fd, reason);
}

void note_set_watched(int epoll_fd) {
  SetUse set(epoll_fd);
  if (!set) return;
  {
    Locked registry(registry_lock);
    if (set->watched.exchange(true, std::memory_order_relaxed)) return;
  }
  leave_all(*set, Reason::nested_epoll);
}

void note_set_passed(int epoll_fd) {
  SetUse set(epoll_fd);
  if (!set || set->family->kernels.exchange(true, std::memory_order_seq_cst)) return;
  give_all_back(*set);
  wake_family(*set);
}

bool may_settle(const EpollSet& set) { return !registry_lock.mine() && !set.lock.mine() && !set.family->lock.mine(); }

// A daemon creates its set, forks and ends: the child then is the only user. While its owner lives, the set is the
// kernel's from the moment on when somebody else comes to it.
void settle(EpollSet& set) {
  FamilySet& family = *set.family;
  bool first = false;
  {
    Locked lock(family.lock);
    if (!family.kernels.load(std::memory_order_relaxed)) {
      const auto me = static_cast<uint32_t>(sys::process_id());
      uint32_t owner = family.owner.load(std::memory_order_relaxed);
      if (owner != me && is_dead(owner)) family.owner.store(owner = me, std::memory_order_relaxed);
      if (owner == me) {
        lock.release();
        return take_over(set);
      }
      // SYNC: seq_cst, Dekker pair with asleep: who does not sleep yet sees it.
      family.kernels.store(first = true, std::memory_order_seq_cst);
    }
  }
  give_all_back(set);
  if (first) wake_family(set);
}

void readiness_before_fork() {
  held_for_fork = registry_lock.lock() == FamilyLock::Held::taken;
  note_sets_shared(held_for_fork);
}

void readiness_after_fork_in_parent() {
  if (held_for_fork) registry_lock.unlock();
}

void readiness_after_fork_in_child(uint32_t parent) {
  registry_lock.adopt(held_for_fork ? 0 : parent);
  reset_sets_in_child(parent);
}

void install_readiness() {
  readiness_hooks.channel_appeared = readiness_channel_appeared;
  readiness_hooks.may_upgrade = readiness_may_upgrade;
  readiness_hooks.demoted = readiness_demoted;
  readiness_hooks.before_relay = readiness_before_relay;
  readiness_hooks.after_relay = readiness_after_relay;
  readiness_hooks.shut_down = readiness_shut_down;
  readiness_hooks.look_again = readiness_look_again;
  readiness_hooks.may_drain = readiness_may_drain;
  readiness_hooks.descriptor_closed = forget_registrations;
  readiness_hooks.set_closed = release_epoll_set;
}

}  // namespace shunt
