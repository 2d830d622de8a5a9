// Raw calls, and what the hook makes.
#include "wait/prepare.h"

#include <atomic>
#include <linux/membarrier.h>

#include "sys/raw.h"

namespace shunt {
namespace {

enum class Prepared : uint8_t { not_yet, at_it, yes, refused };
constinit std::atomic<Prepared> prepared{Prepared::not_yet};

bool register_for_barrier() { return sys::raw(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0; }

}  // namespace

bool prepare_to_upgrade() {
  Prepared state = prepared.load(std::memory_order_acquire);
  if (__builtin_expect(state == Prepared::yes, 1)) return true;
  state = Prepared::not_yet;
  if (prepared.compare_exchange_strong(state, Prepared::at_it, std::memory_order_acquire)) {
    const bool works = register_for_barrier() && protect_copies();
    prepared.store(works ? Prepared::yes : Prepared::refused, std::memory_order_release);
    return works;
  }
  // A handler of the thread that is at it does not wait for itself for ever.
  constexpr int kPauses = 500;
  for (int i = 0; i < kPauses && prepared.load(std::memory_order_acquire) == Prepared::at_it; ++i) sys::pause_briefly();
  return prepared.load(std::memory_order_acquire) == Prepared::yes;
}

}  // namespace shunt
