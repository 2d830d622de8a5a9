// The slow half of the family lock: waits on the futex in slices, and buries dead owners. Raw calls only.
#include "connection/lock.h"

#include <cerrno>
#include <linux/futex.h>

#include "base/platform.h"
#include "sys/raw.h"

namespace shunt {
namespace {

thread_local uint32_t cached_thread_id = 0;
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
  if (__builtin_expect(cached_thread_id == 0, 0)) cached_thread_id = static_cast<uint32_t>(sys::thread_id());
  return cached_thread_id;
}

void forget_thread_id() { cached_thread_id = 0; }

FamilyLock::Held FamilyLock::lock_slowly(uint32_t me) {
  uint32_t mine = me;
  for (int spins = 0;; ++spins) {
    uint32_t seen = word_.load(std::memory_order_relaxed);
    const uint32_t owner = seen & ~kWaiters;
    if (owner == me) return Held::nested;
    if (owner == 0) {
      if (word_.compare_exchange_strong(seen, mine | (seen & kWaiters), std::memory_order_acquire)) return Held::taken;
      continue;
    }
    if (spins < kSpins) {
      cpu_pause();
      continue;
    }
    if (!(seen & kWaiters) && !word_.compare_exchange_strong(seen, seen | kWaiters)) continue;
    mine = me | kWaiters;  // others may be waiting too: whoever unlocks after us wakes them
    const long result = sys::raw(SYS_futex, &word_, FUTEX_WAIT, seen | kWaiters, &kSlice, nullptr, 0);
    if (result == -ETIMEDOUT && is_dead(owner)) {
      uint32_t dead = owner | kWaiters;
      if (word_.compare_exchange_strong(dead, mine, std::memory_order_acquire)) return Held::taken;
    }
  }
}

void FamilyLock::wake() { sys::raw(SYS_futex, &word_, FUTEX_WAKE, 1, nullptr, nullptr, 0); }

}  // namespace shunt
