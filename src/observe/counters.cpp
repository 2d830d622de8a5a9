// The process-wide totals. Any thread; no calls.
#include "observe/counters.h"

namespace shunt {

Totals totals;

void fold(const Tally& tally) {
  count(totals.ring_bytes_out, tally.ring_bytes_out);
  count(totals.ring_bytes_in, tally.ring_bytes_in);
  count(totals.ring_ops_out, tally.ring_ops_out);
  count(totals.ring_ops_in, tally.ring_ops_in);
}

void reset_totals() {
  auto* counters = reinterpret_cast<std::atomic<uint64_t>*>(&totals);
  static_assert(sizeof(Totals) % sizeof(*counters) == 0);
  for (size_t i = 0; i < sizeof(Totals) / sizeof(*counters); ++i) counters[i].store(0, std::memory_order_relaxed);
}

}  // namespace shunt
