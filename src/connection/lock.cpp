// The slow half of the family lock: waits on the futex in slices, and buries dead owners. Raw calls only.
#include "connection/lock.h"

#include <cerrno>
#include <csignal>
#include <linux/futex.h>

#include "base/platform.h"
#include "observe/report.h"
#include "sys/raw.h"

namespace shunt {
namespace {

thread_local uint32_t cached_thread_id = 0;
thread_local bool caches_thread_id = true;
constexpr int kSpins = 200;
constexpr timespec kSlice{0, 20'000'000};

}  // namespace

// A process that was killed keeps its id until its parent waits for it: only its pidfd tells. Other threads vanish at once.
bool is_dead(uint32_t owner) {
  if (sys::raw(SYS_tkill, owner, 0) == -ESRCH) return true;
  const long fd = sys::raw(SYS_pidfd_open, owner, 0);
  if (fd < 0) return fd == -ESRCH;
  const bool dead = sys::poll_now(static_cast<int>(fd), POLLIN) & POLLIN;
  sys::close(static_cast<int>(fd));
  return dead;
}

uint32_t thread_id() {
  if (__builtin_expect(cached_thread_id != 0, 1)) return cached_thread_id;
  const auto id = static_cast<uint32_t>(sys::thread_id());
  if (caches_thread_id) cached_thread_id = id;
  return id;
}

uint32_t forget_thread_id() {
  const uint32_t id = cached_thread_id;
  cached_thread_id = 0;
  caches_thread_id = true;
  return id;
}

void stop_caching_thread_id() {
  caches_thread_id = false;
  cached_thread_id = 0;
}

namespace {

// True: `word`, which held `seen`, may have changed. False: its owner is dead.
bool await(std::atomic<uint32_t>& word, uint32_t seen, uint32_t owner_bits, uint32_t waiters_bit, int& spins) {
  if (++spins < kSpins) return cpu_pause(), true;
  if (!(seen & waiters_bit) && !word.compare_exchange_strong(seen, seen | waiters_bit)) return true;
  return sys::raw(SYS_futex, &word, FUTEX_WAIT, seen | waiters_bit, &kSlice, nullptr, 0) != -ETIMEDOUT || !is_dead(seen & owner_bits);
}

}  // namespace

FamilyLock::Held FamilyLock::lock_slowly(volatile bool* waits) {
  for (int spins = 0;;) {
    const uint32_t me = thread_id();  // anew: a handler that ran while we slept may have made this process
    uint32_t seen = word_.load(std::memory_order_relaxed);
    const uint32_t owner = seen & kOwner;
    // Everybody else waits as for any owner.
    if ((seen & kSuspended) && (owner == me || duties.inherited || duties.born_inside)) {
      if (owner != me && is_dead(owner)) {
        if (word_.compare_exchange_strong(seen, me | kWaiters, std::memory_order_acquire)) return Held::taken;
      } else if (lock_guest(me)) {
        return Held::guest;
      }
      continue;
    }
    if (owner == me) return Held::nested;
    if (owner == 0) {
      // Others may be waiting too: whoever unlocks after us wakes them.
      const uint32_t mine = spins < kSpins ? me | (seen & kWaiters) : me | kWaiters;
      if (word_.compare_exchange_strong(seen, mine, std::memory_order_acquire)) return Held::taken;
      continue;
    }
    if (waits) *waits = true, let_handlers_run();
    const bool alive = await(word_, seen, kOwner, kWaiters, spins);
    if (waits) *waits = false;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if (alive) continue;
    uint32_t dead = seen | kWaiters;
    if (word_.compare_exchange_strong(dead, thread_id() | kWaiters, std::memory_order_acquire)) return Held::taken;
  }
}

// False: the section is not suspended any more.
bool FamilyLock::lock_guest(uint32_t me) {
  for (int spins = 0;;) {
    uint32_t seen = guest_.load(std::memory_order_relaxed);
    const uint32_t owner = seen & kOwner;
    const bool alive = owner == 0 || await(guest_, seen, kOwner, kWaiters, spins);
    if (owner != 0 && alive) continue;
    // SYNC: acquire, pairs with the exchange in unlock_guest().
    if (owner != 0) seen |= kWaiters;
    if (guest_.compare_exchange_strong(seen, me | kWaiters, std::memory_order_acquire)) break;
  }
  if (word_.load(std::memory_order_acquire) & kSuspended) return true;
  return unlock_guest(), false;
}

void FamilyLock::unlock_guest() {
  if (guest_.exchange(0, std::memory_order_seq_cst) & kWaiters) wake(guest_);
}

void FamilyLock::resume() {
  if (!lock_guest(thread_id())) return;
  word_.fetch_and(~kSuspended, std::memory_order_relaxed);
  unlock_guest();
}

void FamilyLock::abandon() {
  const uint32_t me = thread_id(), word = word_.load(std::memory_order_relaxed);
  if ((word & kSuspended) && (guest_.load(std::memory_order_relaxed) & kOwner) == me) return unlock_guest();
  if ((word & kOwner) != me) return;
  if (word & kSuspended) resume();
  unlock();
}

void FamilyLock::wake(std::atomic<uint32_t>& word) { sys::raw(SYS_futex, &word, FUTEX_WAKE, 1, nullptr, nullptr, 0); }

void Locked::suspend_all(bool (*shared)(const FamilyLock&)) {
  if (!handler_interrupts_a_call()) return;
  duties.forked = true;
  const uint32_t me = thread_id();
  for_each_duty([&](Duty& duty, const void* fate) {
    FamilyLock* lock = nullptr;
    if (fate == &kFate) lock = &static_cast<Locked&>(duty).lock_;
    if (fate == &TriedLock::kFate) lock = &static_cast<TriedLock&>(duty).lock_;
    if (lock && lock->owned_by(me) && shared(*lock)) lock->suspend();
  });
}

namespace {

// Only a fault's handler runs inside a section. The section is its parent's, who ends it; the child's copy of it would do the same again, at a place where
// others have gone on.
void cannot_go_on() {
  log_line(LogLevel::error, "a child, made by the handler of a fault in a read or write of its parent, returned into that: ended");
  sys::raw(SYS_kill, sys::process_id(), SIGKILL);
}

}  // namespace

void Locked::go_on(Duty& duty, Whose whose) {
  const auto& self = static_cast<Locked&>(duty);
  if (self.held_ == FamilyLock::Held::nested || !self.owned_ || self.waits_) return;
  if (whose == Whose::childs && !self.lock_.mine()) cannot_go_on();
  if (whose == Whose::parents && self.lock_.owned_by(thread_id())) self.lock_.resume();
}

void TriedLock::go_on(Duty& duty, Whose whose) {
  const auto& self = static_cast<TriedLock&>(duty);
  if (self.outer_) return;
  if (whose == Whose::childs && !self.lock_.mine()) cannot_go_on();
  if (whose == Whose::parents && self.lock_.owned_by(thread_id())) self.lock_.resume();
}

}  // namespace shunt
