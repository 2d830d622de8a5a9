// The time a wait may still take, and memory for its copies. One thread's own; makes raw calls only.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <ctime>

#include "base/platform.h"
#include "sys/raw.h"
#include "wait/duties.h"
#include "wait/patience.h"

namespace shunt {

inline constexpr uint64_t kNsPerSecond = 1'000'000'000;
inline constexpr uint64_t kForever = ~uint64_t{0};

// poll(2), epoll_pwait2(2): EINVAL for anything else.
inline bool valid_timeout(const timespec* timeout) {
  return !timeout ||
         (timeout->tv_sec >= 0 && timeout->tv_nsec >= 0 && static_cast<uint64_t>(timeout->tv_nsec) < kNsPerSecond);
}

inline timespec to_timespec(uint64_t ns) {
  return {static_cast<time_t>(ns / kNsPerSecond), static_cast<long>(ns % kNsPerSecond)};
}

class Deadline {
 public:
  explicit Deadline(const timespec* timeout) : begun_at_(cycles()) {
    if (!timeout) return;
    const uint64_t seconds = static_cast<uint64_t>(timeout->tv_sec);
    // Longer than a century is for ever.
    if (seconds < 4'000'000'000) timeout_ns_ = seconds * kNsPerSecond + static_cast<uint64_t>(timeout->tv_nsec);
  }

  bool forever() const { return timeout_ns_ == kForever; }
  bool immediate() const { return timeout_ns_ == 0; }

  // kForever, or the nanoseconds left; 0 when it has passed.
  uint64_t left_ns() {
    if (forever() || immediate()) return timeout_ns_;
    const uint64_t now = monotonic_ns();
    // The clock is read when it first matters. What passed before is taken a little too short, so that no wait ends
    // early.
    if (ends_at_ns_ == 0) ends_at_ns_ = now - spent_ns() / 16 * 15 + timeout_ns_;
    return ends_at_ns_ > now ? ends_at_ns_ - now : 0;
  }

  // The same for a sleep in calls that count milliseconds: a timeout of whole milliseconds is kept while what was spent
  // is below what timers are exact to.
  uint64_t left_for_sleep_ns() {
    const uint64_t left = left_ns();
    const bool barely_begun = left != kForever && timeout_ns_ - left < kTimerSlackNs;
    return barely_begun && left > 0 && timeout_ns_ % 1'000'000 == 0 ? timeout_ns_ : left;
  }

 private:
  static constexpr uint64_t kTimerSlackNs = 60'000;

  static uint64_t monotonic_ns() {
    timespec now{};
    sys::monotonic_time(&now);
    return static_cast<uint64_t>(now.tv_sec) * kNsPerSecond + static_cast<uint64_t>(now.tv_nsec);
  }
  uint64_t spent_ns() const { return (cycles() - begun_at_) * 1000 / patience.cycles_per_us(); }

  uint64_t begun_at_;
  uint64_t timeout_ns_ = kForever;
  uint64_t ends_at_ns_ = 0;
};

// `count` Ts, not initialised: on the stack if few, else mapped. T needs neither constructor nor destructor.
template <typename T, size_t few>
class Scratch : Duty {
 public:
  explicit Scratch(size_t count) {
    begin(kFate);
    if (count <= few) return;
    mapped_bytes_ = count * sizeof(T);
    const long address =
        sys::mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    items_ = address < 0 && address > -4096 ? nullptr : reinterpret_cast<T*>(address);
  }
  ~Scratch() {
    done();
    release();
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* get() { return items_; }  // null: no memory

 private:
  static void undo(Duty& duty) { static_cast<Scratch&>(duty).release(); }
  static constexpr Fate kFate{undo, undo};
  void release() {
    if (mapped_bytes_ > 0 && items_ && items_ != own_) sys::munmap(items_, mapped_bytes_);
  }
  T own_[few];
  T* items_ = own_;
  size_t mapped_bytes_ = 0;
};

}  // namespace shunt
