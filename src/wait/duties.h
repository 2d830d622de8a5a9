// What this thread has begun inside the library and must end: locks, references, counts. Whoever leaves a call half way (pthread_cancel, pthread_exit,
// siglongjmp out of a handler) has it ended for him. Same thread only, handlers included; an undo makes raw calls only.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace shunt {

class Duty;

struct Duties {
  Duty* innermost;
  Duty* floor;  // the innermost one of the code that the running handler has interrupted: that goes on when the handler returns
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

 protected:
  using Undo = void (*)(Duty&);
  Duty() = default;
  // Once, by the constructor, when all that `undo` looks at is there.
  void begin(Undo undo) {
    undo_ = undo;
    outer_ = duties.innermost;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    duties.innermost = this;
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
  ~Duty() = default;
  // By the destructor: last, but before what cannot be done twice.
  void done() {
    if (kDutiesAreChecked && duties.innermost != this) __builtin_trap();
    std::atomic_signal_fence(std::memory_order_seq_cst);
    duties.innermost = outer_;
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }

 private:
  friend void undo_duties_down_to(Duty* floor);
  Undo undo_;  // not initialised before begin(): this is on every call's path
  Duty* outer_;
};

// The frames of all that lie above `floor` are still whole, and will never be returned to.
void undo_duties_down_to(Duty* floor);

// The program's handler runs. Leaving it by a jump ends what it interrupted.
class HandlerScope {
 public:
  HandlerScope() : outer_floor_(duties.floor) { duties.floor = duties.innermost; }
  ~HandlerScope() { duties.floor = outer_floor_; }
  HandlerScope(const HandlerScope&) = delete;
  HandlerScope& operator=(const HandlerScope&) = delete;
  bool interrupts_a_call() const { return duties.floor != outer_floor_; }
  void left() {
    undo_duties_down_to(outer_floor_);
    duties.floor = outer_floor_;
  }

 private:
  Duty* outer_floor_;
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
