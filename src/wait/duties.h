// What this thread has begun inside the library and must end: locks, references, counts. Whoever leaves a call half way (pthread_cancel, pthread_exit,
// siglongjmp out of a handler) has it ended for him. Same thread only, handlers included; an undo makes raw calls only.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "shm/user_copy.h"

namespace shunt {

class Duty;

struct Duties {
  Duty* innermost;
  Duty* floor;  // the innermost one of the code that the running handler has interrupted: that goes on when the handler returns
  Duty* inherited;  // in a child made by a handler: from here on outwards they are copies of the parent's
  bool forked;      // a handler has made a child: when it returns, continue_after_fork()
  uint8_t held_back;  // so many handlers wait for the end of a section (wait/held_back.h)
  bool shared;      // another process runs on this thread's memory, beside it: nobody can tell whose is what
};
inline thread_local Duties duties{};

#ifdef NDEBUG
inline constexpr bool kDutiesAreChecked = false;
#else
inline constexpr bool kDutiesAreChecked = true;
#endif

// On the stack, one inside the other, and ended in the reverse order.
class Duty {
 public:
  Duty(const Duty&) = delete;
  Duty& operator=(const Duty&) = delete;
  bool holds_back() const { return fate_->holds_back && fate_->holds_back(*this); }

 protected:
  // What becomes of it. The last two are about a handler that made a child in the middle of the call (decision 0017): what is counted in memory that the
  // family shares has been counted once, for the parent.
  enum class Whose : uint8_t { parents, childs };
  struct Fate {
    void (*undo)(Duty&);
    void (*undo_copy)(Duty&) = nullptr;     // the child's copy is left half way. null: nothing of it is the child's
    void (*go_on)(Duty&, Whose) = nullptr;  // the handler returns into the call. null: there is nothing to do
    bool (*holds_back)(const Duty&) = nullptr;  // no handler may run now. null: any may
  };
  Duty() = default;
  // Once, by the constructor, when all that its functions look at is there.
  void begin(const Fate& fate) {
    fate_ = &fate;
    outer_ = duties.innermost;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    duties.innermost = this;
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
  ~Duty() = default;
  // By the destructor: last, but before what cannot be done twice.
  void done() {
    if (kDutiesAreChecked && duties.innermost != this && !duties.shared) __builtin_trap();
    std::atomic_signal_fence(std::memory_order_seq_cst);
    duties.innermost = outer_;
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }

 private:
  friend void undo_duties_down_to(Duty* floor);
  friend void continue_after_fork(Duty* floor);
  template <typename Function>
  friend void for_each_duty(Function function);
  const Fate* fate_;  // not initialised before begin(): this is on every call's path
  Duty* outer_;
};

// function(duty, fate), from the innermost outwards.
template <typename Function>
void for_each_duty(Function function) {
  for (Duty* duty = duties.innermost; duty && !duties.shared; duty = duty->outer_) function(*duty, duty->fate_);
}

// The frames of all that lie above `floor` are still whole, and will never be returned to.
void undo_duties_down_to(Duty* floor);
// The handler returns into the call that it interrupted when it, or one that interrupted it, made a child. In the parent and in the child.
void continue_after_fork(Duty* floor);
// Before a fork. If a handler makes it that has interrupted a call, and will be seen to return, both will have to know.
inline void note_fork() {
  if (duties.innermost && duties.innermost == duties.floor && !duties.shared) duties.forked = true;
}
// For a child that begins with a stack of its own, or cannot know what it is inside of.
inline void forget_duties() {
  const uint8_t held_back = duties.held_back;
  duties = {};
  duties.held_back = held_back;
}
inline void note_inherited_duties() {
  if (duties.shared) return forget_duties();
  duties.inherited = duties.innermost;
}

// The program's handler runs. Leaving it by a jump ends what it interrupted.
class HandlerScope {
 public:
  HandlerScope() : outer_floor_(duties.floor), outer_copy_(large_copy) {
    duties.floor = duties.innermost;
    large_copy = nullptr;
  }
  ~HandlerScope() {
    duties.floor = outer_floor_;
    large_copy = outer_copy_;
  }
  HandlerScope(const HandlerScope&) = delete;
  HandlerScope& operator=(const HandlerScope&) = delete;
  bool interrupts_a_call() const { return duties.floor != outer_floor_; }
  void returns() const {
    if (duties.forked) continue_after_fork(outer_floor_);
  }
  void left() {
    undo_duties_down_to(outer_floor_);
    duties.floor = outer_floor_;
  }

 private:
  Duty* outer_floor_;
  const Resumption* outer_copy_;
};

// ---- two steps that no handler sees apart: finish_step() in the trampoline makes the second one, where a signal came between

// Adds `change` to the counter, then sets the mark. A full barrier.
void count_and_mark(std::atomic<uint32_t>& counter, uint32_t change, uint32_t& mark, uint32_t value);
// Sends the low byte of the counter, then adds 1 to it, whatever send returned. −errno. A call in a handler in between sends that byte in our place, and we the next.
long send_low_byte_and_count(int fd, int flags, std::atomic<uint32_t>& counter);
// result = recv(fd, buffer, bytes, flags), −errno; both are one step.
long receive_and_mark(int fd, void* buffer, size_t bytes, int flags, int64_t& result);
// `context`: of the signal. Any thread.
void finish_step(void* context);

}  // namespace shunt
