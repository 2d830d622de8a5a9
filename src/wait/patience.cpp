// The spin policy. Any thread; must not call libc.
#include "wait/patience.h"

#include <ctime>

#include "observe/counters.h"
#include "sys/raw.h"

namespace shunt {

Patience patience;

namespace {

constexpr int kDefaultLimitUs = 30;     // a sleep and a wake-up cost about this on virtual machines
constexpr int kStolenUs = 25;           // longer than an interrupt, far shorter than a time slice
constexpr uint64_t kProbeUs = 3;        // a quick answer needs no question
constexpr uint64_t kWantedUs = 4;       // a yield to nobody takes a tenth of this
constexpr uint64_t kQuietUs = 2000;     // after the first theft
constexpr uint32_t kQuietShiftMax = 8;  // at most half a second
constexpr uint64_t kNoYieldUs = 20000;  // after the first yield that came back late
constexpr uint8_t kBackoffMax = 64;

// The middle of several short measurements: one in which the scheduler took the CPU away says anything.
uint64_t measure_cycles_per_us() {
  constexpr int kTimes = 5;
  uint64_t speeds[kTimes];
  for (int i = 0; i < kTimes; ++i) {
    const uint64_t t0 = sys::monotonic_ns(), c0 = cycles();
    uint64_t t1;
    do t1 = sys::monotonic_ns();
    while (t1 - t0 < 10000);
    const uint64_t speed = (cycles() - c0) * 1000 / (t1 - t0);
    int place = i;
    for (; place > 0 && speeds[place - 1] > speed; --place) speeds[place] = speeds[place - 1];
    speeds[place] = speed;
  }
  return speeds[kTimes / 2] > 0 ? speeds[kTimes / 2] : 1;
}

}  // namespace

void Patience::start(int limit_us) {
  cycles_per_us_ = measure_cycles_per_us();
  stolen_cycles_ = cycles_per_us_ * kStolenUs;
  probe_cycles_ = cycles_per_us_ * kProbeUs;
  wanted_cycles_ = cycles_per_us_ * kWantedUs;
  limit_cycles_ = cycles_per_us_ * static_cast<uint64_t>(limit_us < 0 ? kDefaultLimitUs : limit_us);
}

void Patience::read_affinity() {
  uint64_t mask[128] = {};
  const long bytes = sys::raw(SYS_sched_getaffinity, 0, sizeof mask, mask);
  int allowed = 0;
  uint32_t first = 0;
  for (long i = bytes / 8 - 1; i >= 0; --i)
    if (mask[i]) {
      allowed += __builtin_popcountll(mask[i]);
      first = static_cast<uint32_t>(i * 64 + __builtin_ctzll(mask[i]));
    }
  only_cpu_.store(allowed == 1 ? first : kAnyCpu - 1, std::memory_order_relaxed);
}

void Patience::give_away() { sys::raw(SYS_sched_yield); }

void Patience::dear_yield(uint64_t now) {
  const uint32_t shift = no_yield_shift_.load(std::memory_order_relaxed);
  if (shift < kQuietShiftMax) no_yield_shift_.store(shift + 1, std::memory_order_relaxed);
  no_yield_until_.store(now + ((kNoYieldUs * cycles_per_us_) << shift), std::memory_order_relaxed);
}

uint64_t Patience::limit_for(History& history) {
  if (limit_cycles_ == 0) return 0;
  // The program may have been pinned or set free since: look again from time to time.
  const uint32_t wait = waits_.fetch_add(1, std::memory_order_relaxed);
  if (wait == 0 || (wait & 4095) == 16) read_affinity();
  if (cycles() < quiet_until_.load(std::memory_order_relaxed)) return 0;
  if (history.pause > 0) return --history.pause, 0;
  return limit_cycles_;
}

void Patience::hit(History& history) {
  if (history.score < 8) ++history.score;
  history.backoff = 1;
  count(totals.spin_hits);
  if (quiet_shift_.load(std::memory_order_relaxed) > 0 && history.score == 8) quiet_shift_.store(0, std::memory_order_relaxed);
}

void Patience::miss(History& history) {
  count(totals.spin_misses);
  if (history.score > 0) {
    history.score = static_cast<int8_t>(history.score - 2);
    return;
  }
  history.pause = history.backoff;
  history.backoff = static_cast<uint8_t>(min_of<int>(history.backoff * 2, kBackoffMax));
}

void Patience::stolen(History& history, uint64_t now) {
  history.score = 0;
  const uint32_t shift = quiet_shift_.load(std::memory_order_relaxed);
  if (shift < kQuietShiftMax) quiet_shift_.store(shift + 1, std::memory_order_relaxed);
  quiet_until_.store(now + ((kQuietUs * cycles_per_us_) << shift), std::memory_order_relaxed);
  count(totals.spin_misses);
}

}  // namespace shunt
