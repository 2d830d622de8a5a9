// The slow half of the family lock: waits on the futex in slices, and buries dead owners. Raw calls only.
#include "connection/lock.h"

#include <cerrno>

#include "base/platform.h"
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

bool FamilyLock::await(uint32_t seen, int& spins) {
  if (++spins < kSpins) return cpu_pause(), true;
  if (!(seen & kWaiters) && !word_.compare_exchange_strong(seen, seen | kWaiters)) return true;
  return sys::futex_wait(&word_, seen | kWaiters, kSlice) != -ETIMEDOUT || !is_dead(seen & kOwner);
}

FamilyLock::Held FamilyLock::lock_slowly(volatile bool* waits) {
  for (int spins = 0;;) {
    const uint32_t me = thread_id();  // anew: a handler that ran while we slept may have made this process
    uint32_t seen = word_.load(std::memory_order_relaxed);
    const uint32_t owner = seen & kOwner;
    if (owner == me) return Held::nested;
    if (owner == 0) {
      // Others may be waiting too: whoever unlocks after us wakes them.
      const uint32_t mine = spins < kSpins ? me | (seen & kWaiters) : me | kWaiters;
      if (word_.compare_exchange_strong(seen, mine, std::memory_order_acquire)) return Held::taken;
      continue;
    }
    if (waits) *waits = true, let_handlers_run();
    const bool alive = await(seen, spins);
    if (waits) *waits = false;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if (alive) continue;
    uint32_t dead = seen | kWaiters;
    if (word_.compare_exchange_strong(dead, thread_id() | kWaiters, std::memory_order_acquire)) return Held::taken;
  }
}

void FamilyLock::abandon() {
  if (mine()) unlock();
}

void FamilyLock::wake(std::atomic<uint32_t>& word) { sys::futex_wake(&word); }

}  // namespace shunt
