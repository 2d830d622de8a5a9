// The incoming direction: fences, ring, bells. Under read_lock throughout; never sleeps, never allocates.
#include <cerrno>
#include <sys/ioctl.h>

#include "connection/flow.h"
#include "sys/raw.h"
#include "sys/signal_mask.h"

namespace shunt {

using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

namespace {

// A sleeper that was killed never takes its leave: after a second nobody waits for it any more.
bool overdue(Side& side) {
  const uint64_t now = cycles();
  if (side.fence_wait_since == 0) side.fence_wait_since = now;
  return now - side.fence_wait_since > patience.cycles_per_us() * 1'000'000;
}

// Stages only advance; put_back answers a freeze.
bool possible(const Side& side, Flow flow, Stage stage) {
  switch (stage) {
    case Stage::kernel:
      return flow == Flow::kernel;
    case Stage::ring:
    case Stage::kernel_again:
      return true;
    case Stage::put_back:
      return side.leaving;
  }
  return false;
}

}  // namespace

void advance_incoming(Connection& c, int fd) {
  Side& side = *c.side;
  // SYNC: acquire, pairs with the writer's release of stage; makes the fence's totals visible.
  const Stage stage = c.in->stage.load(memory_order_acquire);
  const Flow flow = side.in_flow.load(memory_order_relaxed);
  if (flow == Flow::ring && stage == Stage::ring) return;
  if (flow == Flow::kernel_again || flow == Flow::broken) return;
  if (!possible(side, flow, stage)) return break_connection(c, fd);
  if (stage == Stage::kernel) return;
  if (stage == Stage::put_back) {
    // Of a retreat that could not wait for an old reader, or was killed: all is in the kernel.
    if (side.kernel_readers.load(memory_order_acquire) == 0) turn_to_kernel(c, fd);
    return;
  }
  if (flow == Flow::kernel) {
    if (side.kernel_readers.load(memory_order_acquire) > 0) return;
    const uint64_t total = c.in->kernel_total.load(memory_order_relaxed);
    // Fences are placed when nothing lies unread in the kernel, or no bell will follow: what was not counted has been taken.
    if (side.received_in_doubt) side.kernel_received.store(total, memory_order_relaxed);
    side.received_in_doubt = false;
    const uint64_t received = side.kernel_received.load(memory_order_relaxed);
    if (total < received) return break_connection(c, fd);
    if (total > received) return;
    sys::SignalsBlocked alone;
    side.in_flow.store(Flow::ring, memory_order_relaxed);
    c.in->passed.store(1, memory_order_release);
    if (c.in->tail.load(memory_order_relaxed) > 0) count_upgrade(c);
  }
  if (stage == Stage::kernel_again) {
    const uint64_t fence = c.in->demote_at.load(memory_order_relaxed);
    const uint64_t head = side.head.load(memory_order_relaxed);
    if (fence < head || fence > c.in->tail.load(memory_order_relaxed)) return break_connection(c, fd);
    if (fence > head) return;
    // A writer asleep for space needs the last bell to learn that its ring is over: it takes its leave first.
    if (side.space_sleepers.load(memory_order_acquire) > 0 && !overdue(side)) return;
    const uint32_t last = c.in->bells_final.load(memory_order_relaxed);
    for (int takes = 0; const uint32_t bells = bells_until(c, last); ++takes) {
      if (takes == kMostBellTakes) return;  // go on at the next look
      const long taken = take_bells(c, fd, bells);
      if (taken == -EAGAIN) return;  // the last one is on its way
      if (taken <= 0) break;         // it will never come: the end
    }
    side.in_flow.store(Flow::kernel_again, memory_order_relaxed);
    c.in->passed.store(2, memory_order_release);
    note_demotion(c, Reason::peer_asked);
  }
}

void turn_to_kernel(Connection& c, int fd) {
  Side& side = *c.side;
  // The freeze makes the count final, and every counted bell has been sent. A peer that has put back already had placed its up-fence with nothing unread in
  // the kernel, so its bells come first, although we may not have passed it.
  const bool rings = side.in_flow.load(memory_order_relaxed) == Flow::ring || c.in->stage.load(memory_order_acquire) == Stage::put_back;
  const uint32_t rung = c.in->bells_rung.load(memory_order_acquire);
  for (int takes = 0; rings && takes < kMostBellTakes; ++takes)
    if (const uint32_t bells = bells_until(c, rung); bells == 0 || take_bells(c, fd, bells) <= 0) break;
  side.in_flow.store(Flow::kernel_again, memory_order_relaxed);
}

namespace {

// Takes `bells` bytes out of the middle of what was received: those behind `data` are followed by `more`.
void close_gap(Cursor received, size_t data, size_t bells, size_t more) {
  Cursor from = received, to = received;
  from.skip(data + bells);
  to.skip(data);
  uint8_t piece[256];
  for (size_t bytes; more > 0; more -= bytes) {
    bytes = min_of(more, sizeof piece);
    from.take(piece, bytes);
    to.fill(piece, bytes);
  }
}

}  // namespace

long account_kernel_bytes(Connection& c, long got, Cursor bytes) {
  Side& side = *c.side;
  if (got <= 0) return got;
  if (!has_channel(c) || c.in->stage.load(memory_order_acquire) == Stage::kernel) {
    side.kernel_received.fetch_add(static_cast<uint64_t>(got), memory_order_relaxed);
    return got;
  }
  const uint64_t total = c.in->kernel_total.load(memory_order_relaxed);
  const uint64_t received = side.kernel_received.load(memory_order_relaxed);
  const uint64_t data = min_of(static_cast<uint64_t>(got), total > received ? total - received : 0);
  const uint64_t rest = static_cast<uint64_t>(got) - data;
  // Bells, and behind them nothing; but in a retreat what the peer has put back.
  const uint64_t bells = side.leaving ? min_of<uint64_t>(rest, bells_until(c, c.in->bells_rung.load(memory_order_acquire))) : rest;
  if (bells > 0 && rest > bells) close_gap(bytes, data, bells, rest - bells);
  side.kernel_received.fetch_add(data, memory_order_relaxed);
  side.bells_taken += static_cast<uint32_t>(bells);
  return static_cast<long>(data + rest - bells);
}

namespace {

// Class changes that concern bytes below `tail`; a later one was announced after we looked at tail. False: impossible.
bool learn_classes(Connection& c, uint32_t announced, uint64_t head, uint64_t tail) {
  RingMap& map = c.side->in_map;
  if (announced < map.newest || announced > kLastClass) return false;
  uint64_t least = head > map.from[map.newest] ? head : map.from[map.newest];
  for (uint32_t k = map.newest + 1; k <= announced; ++k) {
    const uint64_t from = c.in->class_from[k - 1].load(memory_order_relaxed);
    if (from == kNever && k < announced) continue;
    if (from > tail) return true;
    if (from < least) return false;
    least = from;
    begin_class(map, k, from);
  }
  return true;
}

}  // namespace

bool refresh_tail(Connection& c, int fd, bool nested) {
  Side& side = *c.side;
  const uint64_t head = side.head.load(memory_order_relaxed);
  const uint64_t seen = side.tail_seen.load(memory_order_relaxed);
  // SYNC: acquire, pairs with the writer's release of tail; makes the bytes and the class announcement visible.
  const uint64_t tail = c.in->tail.load(memory_order_acquire);
  if (tail <= seen || nested) {
    if (tail < seen && !nested) return break_connection(c, fd), false;
    return seen > head;
  }
  // SYNC: acquire, pairs with the release of class_next in announce_class(): makes class_from visible.
  const uint32_t announced = c.in->class_next.load(memory_order_acquire);
  if (announced != side.in_map.newest && !learn_classes(c, announced, head, tail)) return break_connection(c, fd), false;
  if (!fits(side.in_map, head, tail)) return break_connection(c, fd), false;
  side.tail_seen.store(tail, memory_order_relaxed);
  return true;
}

uint64_t take_from_ring(Connection& c, int fd, Cursor to, uint64_t bytes, bool peek, bool nested) {
  Side& side = *c.side;
  for (;;) {
    const uint64_t begin = side.head.load(memory_order_relaxed);
    if (side.tail_seen.load(memory_order_relaxed) - begin < bytes && !refresh_tail(c, fd, nested)) return 0;
    const uint64_t end = begin + min_of(bytes, side.tail_seen.load(memory_order_relaxed) - begin);
    uint64_t position = begin;
    Cursor walk = to;
    while (position < end) {
      const uint32_t ring_class = class_at(side.in_map, position);
      const uint64_t limit = class_end(side.in_map, ring_class, end);
      ring_get(c.in_region, ring_class, position, walk, limit - position);
      position = limit;
    }
    if (peek) return end - begin;
    if (!commit_cursor(side.head, begin, end)) continue;  // a handler on this thread read in between
    uint64_t head;
    do {
      head = side.head.load(memory_order_relaxed);
      c.in->head.store(head, memory_order_release);  // SYNC: release, pairs with the acquire of head in ring_space()
    } while (side.head.load(memory_order_relaxed) != head);
    c.tally.ring_bytes_in += end - begin;
    ++c.tally.ring_ops_in;
    return end - begin;
  }
}

namespace {

// Bells are counted as they are taken, also by who leaves half way: at a fence nothing could tell them from the data behind.
class TakingBells : Duty {
 public:
  explicit TakingBells(Side& side) : side_(side), before_(side.bells_taken) { begin(kFate); }
  ~TakingBells() { done(); }
  long take(int fd, uint32_t most) {
    uint8_t bells[64];
    receive_and_mark(fd, bells, min_of<size_t>(most, sizeof bells), MSG_DONTWAIT, taken_);
    count();
    return taken_;
  }

 private:
  void count() {
    if (taken_ > 0) side_.bells_taken = before_ + static_cast<uint32_t>(taken_);
    if (taken_ == -ECONNRESET) side_.reset_taken = true;
  }
  static void undo(Duty& duty) { static_cast<TakingBells&>(duty).count(); }
  static constexpr Fate kFate{undo};
  Side& side_;
  uint32_t before_;
  int64_t taken_ = 0;
};

}  // namespace

// Signals stay as they are: this is done before most sleeps, and whoever unblocks a signal of the process takes it from the thread
// that the kernel chose. A handler that runs before the bells are counted takes none, and follows no fence.
long take_bells(Connection& c, int fd, uint32_t most) { return TakingBells(*c.side).take(fd, most); }

void recount_bells(Connection& c, int fd) {
  if (!has_channel(c)) return;
  constexpr int kLooks = 20;  // with pauses: a bell that was counted and not yet sent is on its way
  for (int look = 0; look < kLooks && c.in->stage.load(memory_order_acquire) == Stage::ring; ++look) {
    const uint32_t rung = c.in->bells_rung.load(memory_order_acquire);
    int queued = 0;
    sys::raw(SYS_ioctl, fd, FIONREAD, &queued);
    if (c.in->bells_rung.load(memory_order_acquire) != rung) continue;
    const uint32_t taken = rung - static_cast<uint32_t>(queued);
    if (taken == c.side->bells_taken) return;
    if (look == kLooks - 1) c.side->bells_taken = taken;
    const timespec pause{0, 100'000};
    sys::ppoll(nullptr, 0, &pause, nullptr);
  }
}

}  // namespace shunt
