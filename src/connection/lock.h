// A lock in memory that a family of processes shares: the owner's thread id in a futex word.
// Any thread, any context. A signal handler that meets its own thread's lock works inside it (Held::nested); a dead owner's lock is
// taken over. Sound only because each critical section is "redo until one store commits".
#pragma once

#include <atomic>
#include <cstdint>

namespace shunt {

// This thread's kernel id, cached. A forked child must call forget_thread_id().
uint32_t thread_id();
void forget_thread_id();

class FamilyLock {
 public:
  enum class Held : uint8_t { taken, nested };

  Held lock() {
    const uint32_t me = thread_id();
    uint32_t free = 0;
    // SYNC: acquire, pairs with the exchange in unlock().
    if (word_.compare_exchange_strong(free, me, std::memory_order_acquire, std::memory_order_relaxed)) return Held::taken;
    return lock_slowly(me);
  }
  // Never waits; false also when this thread holds it already.
  bool try_lock() {
    uint32_t free = 0;
    return word_.compare_exchange_strong(free, thread_id(), std::memory_order_acquire, std::memory_order_relaxed);
  }
  // A full barrier: what was published before is visible before what is read after.
  // SYNC: pairs with lock() and, as the barrier of the waker, with the sleeper's full_barrier().
  void unlock() {
    if (word_.exchange(0, std::memory_order_seq_cst) & kWaiters) wake();
  }

 private:
  static constexpr uint32_t kWaiters = 0x80000000u;
  Held lock_slowly(uint32_t me);
  void wake();
  std::atomic<uint32_t> word_{0};
};

class Locked {
 public:
  explicit Locked(FamilyLock& lock) : lock_(lock), held_(lock.lock()) {}
  ~Locked() { release(); }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;
  bool nested() const { return held_ == FamilyLock::Held::nested; }
  void release() {
    if (owned_ && held_ == FamilyLock::Held::taken) lock_.unlock();
    owned_ = false;
  }

 private:
  FamilyLock& lock_;
  FamilyLock::Held held_;
  bool owned_ = true;
};

}  // namespace shunt
