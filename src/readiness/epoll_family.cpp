// Sets that somebody else may wait on: nested in poll, select or another set, or shared over a fork. Their connections
// are the kernel's, because only the kernel can wake such a waiter. Any thread.
#include <cerrno>
#include <new>

#include "readiness/epoll_set.h"
#include "readiness/readiness.h"
#include "sys/raw.h"

namespace shunt {
namespace {

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
    if (Pin pin(fd); pin && &*pin == expected) leave(*pin, fd, reason);
  }
}

void make_all_hot(EpollSet& set) {
  Locked registry(registry_lock);
  for (Registration* r = set.members; r; r = r->next_of_set)
    if (r->mode.load(std::memory_order_relaxed) == Mode::tagged) mark_hot(*r);
}

bool held_for_fork = false;  // between before and after only one thread is here

}  // namespace

void leave(Connection& connection, int fd, Reason reason) {
  if (has_channel(connection))
    leave_ring(connection, fd, reason);
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

// A daemon creates its set, forks and ends: the child then is the only user. While the creator lives, both may wait.
void settle_inherited(EpollSet& set) {
  if (sys::raw(SYS_kill, set.creator, 0) == -ESRCH) {
    set.creator = sys::process_id();
    make_all_hot(set);
    set.inherited.store(false, std::memory_order_relaxed);
    return;
  }
  if (!set.emptied.exchange(true, std::memory_order_relaxed)) leave_all(set, Reason::epoll_inherited);
}

// What both will share is as the program left it.
void readiness_before_fork() {
  note_sets_shared();
  held_for_fork = registry_lock.lock() == FamilyLock::Held::taken;
  if (held_for_fork) forget_dormant_in_kernel();
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
  readiness_hooks.demoted = readiness_demoted;
  readiness_hooks.before_relay = readiness_before_relay;
  readiness_hooks.after_relay = readiness_after_relay;
  readiness_hooks.shut_down = readiness_shut_down;
  readiness_hooks.no_bell_for_space = readiness_no_bell_for_space;
  readiness_hooks.may_drain = readiness_may_drain;
  readiness_hooks.descriptor_closed = forget_registrations;
  readiness_hooks.set_closed = release_epoll_set;
}

}  // namespace shunt
