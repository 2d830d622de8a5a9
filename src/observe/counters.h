// What this process did, for the report: relaxed counters that any thread adds to.
// Any thread, any context. A forked child starts from zero.
#pragma once

#include <atomic>
#include <cstdint>

#include "observe/reasons.h"

namespace shunt {

// One thread at a time adds to a connection's own tally (under its locks); it is folded into Totals when the connection ends.
struct Tally {
  uint64_t ring_bytes_out = 0, ring_bytes_in = 0, ring_ops_out = 0, ring_ops_in = 0;
};

struct Totals {
  std::atomic<uint64_t> upgraded, demoted;
  std::atomic<uint64_t> plain[kReasons], demoted_by[kReasons];
  std::atomic<uint64_t> ring_bytes_out, ring_bytes_in, ring_ops_out, ring_ops_in;
  std::atomic<uint64_t> kernel_bytes_out, kernel_bytes_in, kernel_ops_out, kernel_ops_in;
  std::atomic<uint64_t> bells, spin_hits, spin_misses, sleeps;
};

extern Totals totals;

inline void count(std::atomic<uint64_t>& counter, uint64_t by = 1) { counter.fetch_add(by, std::memory_order_relaxed); }

void fold(const Tally& tally);
void reset_totals();  // in a forked child

}  // namespace shunt
