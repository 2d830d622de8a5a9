// A lock in memory that a family of processes shares: the owner's thread id in a futex word.
// Any thread, any context. A signal handler that meets its own thread's lock works inside it (Held::nested); a dead owner's lock is
// taken over, and so is one whose owner jumps out of the section (wait/duties.h). Sound only because each critical section is "redo until one store commits".
#pragma once

#include <atomic>
#include <cstdint>

#include "wait/held_back.h"

namespace shunt {

// This thread's kernel id, cached. A forked child must call forget_thread_id(), which returns what was cached: its parent's.
uint32_t thread_id();
uint32_t forget_thread_id();
// Another process is about to run on this thread's memory, beside it.
void stop_caching_thread_id();
// A thread that has ended, or a process (by its id) that has: also one that nobody has waited for yet.
bool is_dead(uint32_t thread);

class FamilyLock {
 public:
  enum class Held : uint8_t { taken, nested };

  // `waits` is set while the thread sleeps: handlers may run then.
  Held lock(volatile bool* waits = nullptr) {
    const uint32_t me = thread_id();
    uint32_t free = 0;
    // SYNC: acquire, pairs with the exchange in unlock().
    if (word_.compare_exchange_strong(free, me, std::memory_order_acquire, std::memory_order_relaxed)) return Held::taken;
    return lock_slowly(waits);
  }
  // Never waits; false also when this thread holds it already.
  bool try_lock() {
    uint32_t free = 0;
    return word_.compare_exchange_strong(free, thread_id(), std::memory_order_acquire, std::memory_order_relaxed);
  }
  // A full barrier: what was published before is visible before what is read after.
  // SYNC: pairs with lock() and, as the barrier of the waker, with the sleeper's full_barrier().
  void unlock() {
    if (word_.exchange(0, std::memory_order_seq_cst) & kWaiters) wake(word_);
  }

  // A section that begins now would be inside one of this thread's.
  bool mine() const { return owned_by(thread_id()); }
  bool owned_by(uint32_t thread) const { return (word_.load(std::memory_order_relaxed) & kOwner) == thread; }

  // A section of this thread is left half way.
  void abandon();
  // In a forked child: of a lock that is not shared with the parent. A section of this very thread goes on.
  void adopt(uint32_t parent) {
    word_.store(parent != 0 && owned_by(parent) ? thread_id() : 0, std::memory_order_relaxed);
  }

 private:
  static constexpr uint32_t kWaiters = 0x80000000u, kOwner = 0x7fffffffu;
  Held lock_slowly(volatile bool* waits);
  // True: the word, which held `seen`, may have changed. False: its owner is dead.
  bool await(uint32_t seen, int& spins);
  static void wake(std::atomic<uint32_t>& word);
  std::atomic<uint32_t> word_{0};
};

class Locked : Duty {
 public:
  // Nested or not is known before: what is undone must not be an outer section's.
  explicit Locked(FamilyLock& lock) : lock_(lock), held_(lock.mine() ? FamilyLock::Held::nested : FamilyLock::Held::taken) {
    begin(kFate);
    if (held_ == FamilyLock::Held::taken) held_ = lock_.lock(&waits_);
  }
  ~Locked() {
    release();
    done();
  }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;
  bool nested() const { return held_ == FamilyLock::Held::nested; }
  void release() {
    if (owned_ && !nested()) lock_.unlock();
    owned_ = false;
    let_handlers_run();
  }

 private:
  static void undo(Duty& duty) {
    auto& self = static_cast<Locked&>(duty);
    if (!self.nested()) self.lock_.abandon();
    self.owned_ = false;
    let_handlers_run();
  }
  // From before the lock has this thread's id until it has it no more, but for a sleep in between.
  static bool holds_back(const Duty& duty) {
    const auto& self = static_cast<const Locked&>(duty);
    return self.owned_ && !self.nested() && (!self.waits_ || self.lock_.owned_by(thread_id()));
  }
  static constexpr Fate kFate{undo, undo, nullptr, holds_back};
  FamilyLock& lock_;
  FamilyLock::Held held_;
  bool owned_ = true;
  volatile bool waits_ = false;
};

// Only if nobody has it, this thread included.
class TriedLock : Duty {
 public:
  explicit TriedLock(FamilyLock& lock) : lock_(lock), outer_(lock.mine() || lock.owned_by(thread_id())) {
    begin(kFate);
    taken_ = !outer_ && lock.try_lock();
  }
  ~TriedLock() {
    if (taken_) lock_.unlock();
    done();
    let_handlers_run();
  }
  explicit operator bool() const { return taken_; }

 private:
  static void undo(Duty& duty) {
    auto& self = static_cast<TriedLock&>(duty);
    if (!self.outer_) self.lock_.abandon();
    self.outer_ = true;
    let_handlers_run();
  }
  static bool holds_back(const Duty& duty) { return !static_cast<const TriedLock&>(duty).outer_; }
  static constexpr Fate kFate{undo, undo, nullptr, holds_back};
  FamilyLock& lock_;
  bool outer_;  // an outer section of this thread has it
  bool taken_ = false;
};

}  // namespace shunt
