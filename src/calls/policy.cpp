// One word per descriptor: epoch of the last fork, reason, flags. Any thread, any context.
#include "calls/policy.h"

#include "calls/common.h"

namespace shunt::calls {

using std::memory_order_relaxed;

namespace {

constexpr int kMaxFresh = 65536;  // sockets above are not known as fresh, so their connections stay plain
constexpr uint32_t kBlockingMask = 0x3, kTimeouts = 0x80;
constexpr uint32_t kReasonShift = 8, kEpochShift = 16;

std::atomic<uint32_t> words[kMaxFresh];
std::atomic<uint32_t> epoch{1};
std::atomic<Reason> refused{Reason::none};

std::atomic<uint64_t> streams[kMaxFresh / 64];

bool in_range(int fd) { return static_cast<uint32_t>(fd) < kMaxFresh; }

bool is_current(uint32_t word) { return word >> kEpochShift == (epoch.load(memory_order_relaxed) & 0xffff); }

Reason reason_in(uint32_t word) { return static_cast<Reason>(word >> kReasonShift & 0xff); }

}  // namespace

Reason refusal() { return refused.load(memory_order_relaxed); }
void refuse_from_now_on(Reason reason) {
  Reason none = Reason::none;
  refused.compare_exchange_strong(none, reason, memory_order_relaxed);
}

void note_fresh(int fd, Blocking blocking) {
  if (!in_range(fd)) return;
  words[fd].store(epoch.load(memory_order_relaxed) << kEpochShift | static_cast<uint32_t>(blocking), memory_order_relaxed);
}

void note_flags_changed(int fd) {
  if (in_range(fd) && words[fd].load(memory_order_relaxed) != 0)
    words[fd].fetch_or(static_cast<uint32_t>(Blocking::unknown), memory_order_relaxed);
}

void spoil(int fd, Reason reason) {
  if (!in_range(fd)) return;
  const uint32_t word = words[fd].load(memory_order_relaxed);
  if (word == 0 || !is_current(word) || reason_in(word) != Reason::none) return;
  words[fd].store(word | static_cast<uint32_t>(reason) << kReasonShift, memory_order_relaxed);
}

void note_stream(int fd) {
  if (in_range(fd)) streams[fd / 64].fetch_or(uint64_t{1} << (fd % 64), memory_order_relaxed);
}
void forget_stream(int fd) {
  if (has_stream(fd)) streams[fd / 64].fetch_and(~(uint64_t{1} << (fd % 64)), memory_order_relaxed);
}
bool has_stream(int fd) {
  return belongs_to_stdio(fd) || (in_range(fd) && (streams[fd / 64].load(memory_order_relaxed) >> (fd % 64) & 1) != 0);
}

void note_timeouts(int fd) {
  if (in_range(fd) && words[fd].load(memory_order_relaxed) != 0) words[fd].fetch_or(kTimeouts, memory_order_relaxed);
}

void spoil_all() {
  // 0 is nobody's epoch.
  if (((epoch.fetch_add(1, memory_order_relaxed) + 1) & 0xffff) == 0) epoch.fetch_add(1, memory_order_relaxed);
}

Fresh fresh(int fd) {
  const uint32_t word = in_range(fd) ? words[fd].load(memory_order_relaxed) : 0;
  if (word == 0) return {false, Reason::none, false, Blocking::unknown};
  const Reason reason = is_current(word) ? reason_in(word) : Reason::shared_before_upgrade;
  const uint32_t blocking = word & kBlockingMask;
  return {true, reason, (word & kTimeouts) != 0, blocking >= 2 ? Blocking::unknown : static_cast<Blocking>(blocking)};
}

void forget_fresh(int fd) {
  if (in_range(fd)) words[fd].store(0, memory_order_relaxed);
}

}  // namespace shunt::calls
