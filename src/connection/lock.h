// A lock in memory that a family of processes shares: the owner's thread id in a futex word.
// Any thread, any context. A signal handler that meets its own thread's lock works inside it (Held::nested); a dead owner's lock is
// taken over, and so is one whose owner jumps out of the section (wait/duties.h). Sound only because each critical section is "redo until one store commits".
#pragma once

#include <atomic>
#include <cstdint>

#include "wait/duties.h"

namespace shunt {

// This thread's kernel id, cached. A forked child must call forget_thread_id().
uint32_t thread_id();
void forget_thread_id();
// A thread that has ended, or a process (by its id) that has: also one that nobody has waited for yet.
bool is_dead(uint32_t thread);

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

  bool mine() const { return (word_.load(std::memory_order_relaxed) & ~kWaiters) == thread_id(); }

 private:
  static constexpr uint32_t kWaiters = 0x80000000u;
  Held lock_slowly(uint32_t me);
  void wake();
  std::atomic<uint32_t> word_{0};
};

class Locked : Duty {
 public:
  // Nested or not is known before: what is undone must not be an outer section's.
  explicit Locked(FamilyLock& lock) : lock_(lock), held_(lock.mine() ? FamilyLock::Held::nested : FamilyLock::Held::taken) {
    begin(undo);
    if (held_ == FamilyLock::Held::taken) lock_.lock();
  }
  ~Locked() {
    release();
    done();
  }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;
  bool nested() const { return held_ == FamilyLock::Held::nested; }
  void release() {
    if (owned_ && held_ == FamilyLock::Held::taken) lock_.unlock();
    owned_ = false;
  }

 private:
  static void undo(Duty& duty) {
    auto& self = static_cast<Locked&>(duty);
    if (self.held_ == FamilyLock::Held::taken && self.lock_.mine()) self.lock_.unlock();
  }
  FamilyLock& lock_;
  FamilyLock::Held held_;
  bool owned_ = true;
};

// Only if nobody has it, this thread included.
class TriedLock : Duty {
 public:
  explicit TriedLock(FamilyLock& lock) : lock_(lock), outer_(lock.mine()) {
    begin(undo);
    taken_ = !outer_ && lock.try_lock();
  }
  ~TriedLock() {
    if (taken_) lock_.unlock();
    done();
  }
  explicit operator bool() const { return taken_; }

 private:
  static void undo(Duty& duty) {
    auto& self = static_cast<TriedLock&>(duty);
    if (!self.outer_ && self.lock_.mine()) self.lock_.unlock();
  }
  FamilyLock& lock_;
  bool outer_;  // an outer section of this thread has it
  bool taken_ = false;
};

}  // namespace shunt
