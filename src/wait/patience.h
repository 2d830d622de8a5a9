// How long to spin before a sleep. Spinning may cost at most what sleeping and waking costs, and stops paying as soon as
// somebody else wants the CPU. Any thread; one History per direction of a connection, torn updates are harmless.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/platform.h"
#include "wait/signals.h"

namespace shunt {

// What the last waits on one direction were like.
struct History {
  int8_t score = 2;     // > 0: spinning has paid lately
  uint8_t pause = 0;    // waits to skip before the next trial
  uint8_t backoff = 1;  // waits skipped after the next miss
  bool quick = false;   // the last spin ended well within about a microsecond
};

inline constexpr uint32_t kAnyCpu = 0xffffffff;

class Patience {
 public:
  // Measures the speed of the cycle counter. Once, before main; `limit_us` < 0: the built-in limit.
  void start(int limit_us);

  uint64_t cycles_per_us() const { return cycles_per_us_; }

  // Spins until ready() or until it does not pay any more. True: ready. Ends early when a handler in `watch` ran.
  // `peer_cpu`: where the peer last waited, kAnyCpu if unknown.
  template <typename Ready>
  bool spin(History& history, const SignalWatch& watch, uint32_t peer_cpu, Ready ready) {
    const uint64_t limit = limit_for(history);
    history.quick = false;
    if (limit == 0) return false;
    if (peer_cpu == only_cpu_.load(std::memory_order_relaxed)) return yield(history, watch, limit, ready);
    const uint64_t begin = cycles();
    uint64_t last = begin, probe_at = begin + probe_cycles_;
    history.quick = true;
    for (int round = 0;; ++round) {
      if (round == kQuickRounds) history.quick = false;
      for (int i = 0; i < 16; ++i) {
        if (ready()) return hit(history), true;
        cpu_pause();
      }
      const uint64_t now = cycles();
      if (now - last > stolen_cycles_) return stolen(history, now), ready();
      if (now - begin > limit) break;
      if (watch.interrupted()) return false;
      last = now;
      if (now < probe_at) continue;
      // Whoever else is ready to run here does so now. Then spinning is at his cost, and a sleep is cheap.
      give_away();
      probe_at = ~uint64_t{0};
      last = cycles();
      if (last - now > wanted_cycles_) return stolen(history, last), ready();
    }
    miss(history);
    return false;
  }

 private:
  static constexpr int kQuickRounds = 3;  // of 16 pauses
  // Both ends on one CPU and no other allowed: only giving it away helps, as long as it comes back soon.
  template <typename Ready>
  bool yield(History& history, const SignalWatch& watch, uint64_t limit, Ready ready) {
    uint64_t now = cycles();
    if (now < no_yield_until_.load(std::memory_order_relaxed)) return false;
    for (const uint64_t begin = now; now - begin < limit && !watch.interrupted();) {
      if (ready()) return hit(history), true;
      give_away();
      const uint64_t before = now;
      now = cycles();
      if (now - before > 2 * stolen_cycles_) return dear_yield(now), ready();
    }
    if (ready()) return hit(history), true;
    miss(history);
    return false;
  }
  void give_away();
  void dear_yield(uint64_t now);
  uint64_t limit_for(History& history);
  void hit(History& history);
  void miss(History& history);
  void stolen(History& history, uint64_t now);
  void read_affinity();

  uint64_t cycles_per_us_ = 2600;
  uint64_t limit_cycles_ = 0;
  uint64_t stolen_cycles_ = 0;            // a gap this long between two looks: the scheduler gave the CPU away
  uint64_t probe_cycles_ = 0;             // after this long a spin asks, once, whether somebody else wants the CPU
  uint64_t wanted_cycles_ = 0;            // a yield that takes longer was used
  std::atomic<uint64_t> quiet_until_{0};  // no spinning before this cycle count
  std::atomic<uint32_t> quiet_shift_{0};  // each theft doubles the quiet time
  std::atomic<uint32_t> waits_{0};
  std::atomic<uint32_t> only_cpu_{kAnyCpu - 1};  // the one CPU the process may use, if it is one
  std::atomic<uint64_t> no_yield_until_{0};      // strangers took a yielded CPU for long
  std::atomic<uint32_t> no_yield_shift_{0};
};

extern Patience patience;

}  // namespace shunt
