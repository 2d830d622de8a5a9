// The incoming direction: fences, ring, bells. Under read_lock throughout; never sleeps, never allocates.
#include <cerrno>
#include <sys/ioctl.h>

#include "connection/flow.h"
#include "sys/raw.h"
#include "sys/signal_mask.h"

namespace shunt {

using std::memory_order_acq_rel;
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

// A direction that went back before it left: no byte went through its ring, and no bell was sent.
bool never_used(const Connection& c) {
  return c.in->demote_at.load(memory_order_relaxed) == 0 && static_cast<uint32_t>(c.in->bells_final.load(memory_order_relaxed)) == c.side->bells_taken.load(memory_order_relaxed);
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
    if (!has_old_readers(c)) turn_to_kernel(c, fd, LateBells::unwanted);
    return;
  }
  if (flow == Flow::kernel) {
    if (has_old_readers(c)) return;
    if (stage == Stage::kernel_again && never_used(c)) {
      // All is in the kernel, whatever the counts: who sent or took some of it past the library made them wrong.
      c.in->passed.store(2, memory_order_release);
      side.in_flow.store(Flow::kernel_again, memory_order_relaxed);
      return note_demotion(c, Reason::peer_asked);
    }
    const uint64_t total = c.in->kernel_total.load(memory_order_relaxed);
    // Fences are placed when nothing lies unread in the kernel, or no bell will follow: what was not counted has been taken.
    if (side.received_in_doubt) side.kernel_received.store(total, memory_order_relaxed);
    side.received_in_doubt = false;
    const uint64_t received = side.kernel_received.load(memory_order_relaxed);
    if (total < received) return break_connection(c, fd);
    if (total > received) return;
    sys::SignalsBlocked alone;
    c.in->passed.store(1, memory_order_release);
    side.in_flow.store(Flow::ring, memory_order_relaxed);
    if (c.in->tail.load(memory_order_relaxed) > 0) count_upgrade(c);
  }
  if (stage == Stage::kernel_again) {
    const uint64_t fence = c.in->demote_at.load(memory_order_relaxed);
    const uint64_t head = side.head.load(memory_order_relaxed);
    if (fence < head || fence > c.in->tail.load(memory_order_relaxed)) return break_connection(c, fd);
    if (fence > head) return;
    if (fence_waits(side) && !overdue(side)) return;
    if (!take_last_bells_of_fence(c, fd)) return;
    c.in->passed.store(2, memory_order_release);
    side.in_flow.store(Flow::kernel_again, memory_order_relaxed);
    note_demotion(c, Reason::peer_asked);
  }
}

namespace {

// The number of a bell by its byte, the next one after `last` being known: a repeated one does not count.
uint32_t number_of(uint8_t byte, uint32_t last) {
  const auto ahead = static_cast<int8_t>(byte - static_cast<uint8_t>(last));
  return ahead < 0 ? last : last + 1 + static_cast<uint32_t>(ahead);
}

// Bells are counted as they are taken, also by who leaves half way: at a fence nothing could tell them from the data behind.
class TakingBells : Duty {
 public:
  explicit TakingBells(Side& side) : side_(side), before_(side.bells_taken) { begin(kFate); }
  ~TakingBells() { done(); }
  long take(int fd, uint32_t most) {
    side_.taking = true;
    before_what_follows();
    receive_and_mark(fd, bells_, min_of<size_t>(most, sizeof bells_), MSG_DONTWAIT, taken_);
    count();
    return taken_;
  }

 private:
  void count() {
    uint32_t last = before_;
    for (int64_t i = 0; i < taken_; ++i) last = number_of(bells_[i], last);
    side_.bells_taken.store(last, memory_order_relaxed);
    if (taken_ == -ECONNRESET) side_.reset_taken = true;
    before_what_follows();
    side_.taking = false;
  }
  static void undo(Duty& duty) { static_cast<TakingBells&>(duty).count(); }
  static constexpr Fate kFate{undo};
  Side& side_;
  uint32_t before_;
  int64_t taken_ = 0;
  uint8_t bells_[64];
};

// What lies at the head of the kernel's queue.
struct Ahead {
  long seen;       // bytes, or −errno
  uint32_t bells;  // of them, as far as number `until`
  bool complete;   // `until` is among them, or what follows is no bell
};

// How many of the first bytes are bells behind number `last`, as far as `until`. True: it ends there, or what follows is no bell.
bool bells_among(const uint8_t* bytes, long count, uint32_t& last, uint32_t until, uint32_t& bells) {
  constexpr uint8_t kRepeated = 0xff;
  for (bells = 0; static_cast<long>(bells) < count; ++bells) {
    const uint8_t byte = bytes[bells];
    const uint32_t number = number_of(byte, last);
    const bool repeated = static_cast<uint8_t>(byte - last) == kRepeated;
    if (static_cast<int32_t>(number - until) > 0 || (number == last && !repeated)) return true;
    last = number;
    if (number == until) return ++bells, true;
  }
  return false;
}

Ahead look_for_bells(const Connection& c, int fd, uint32_t until) {
  uint8_t bytes[64];
  Ahead ahead{sys::recv(fd, bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT), 0, false};
  uint32_t last = c.side->bells_taken;
  ahead.complete = bells_among(bytes, ahead.seen, last, until, ahead.bells);
  return ahead;
}

}  // namespace

// Signals stay as they are: this is done before most sleeps, and whoever unblocks a signal of the process takes it from the thread
// that the kernel chose. A handler that runs before the bells are counted takes none, and follows no fence.
long take_bells(Connection& c, int fd, uint32_t until) {
  Side& side = *c.side;
  uint32_t most = bells_until(c, until);
  if (most == 0) return 1;
  if (!side.taking) return TakingBells(side).take(fd, most);
  // A process was killed here, and may have taken bells that it did not count: no more than are seen to be due.
  const Ahead ahead = look_for_bells(c, fd, until);
  return ahead.bells > 0 ? TakingBells(side).take(fd, ahead.bells) : ahead.seen;
}

namespace {

constexpr uint32_t kMany = 64;
constexpr int kFar = 1 << 30;

int peek_offset(int fd) {
  int offset = -1;
  socklen_t size = sizeof offset;
  sys::raw(SYS_getsockopt, fd, SOL_SOCKET, SO_PEEK_OFF, &offset, &size);
  return offset;
}

void set_peek_offset(int fd, int offset) { sys::raw(SYS_setsockopt, fd, SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof offset); }

// How many bells lie before the data. False: the last one is not there yet.
bool find_last_bell(Connection& c, int fd, bool& ended) {
  Side& side = *c.side;
  const auto last = static_cast<uint32_t>(c.in->bells_final.load(memory_order_acquire));
  Ahead ahead{0, 0, true};
  for (int takes = 0; bells_until(c, last) > 0; ++takes) {
    ahead = look_for_bells(c, fd, last);
    if (ahead.seen <= 0 || ahead.complete) break;
    if (takes == kMostBellTakes || TakingBells(side).take(fd, ahead.bells) <= 0) return false;  // go on at the next look
    ahead = {0, 0, true};
  }
  ended = ahead.seen == 0 ? bells_until(c, last) > 0 : ahead.seen < 0 && ahead.seen != -EAGAIN;
  if (ahead.seen == -ECONNRESET) side.reset_taken = true;
  if (ahead.seen == -EAGAIN || ended) return false;
  side.last_bell = last;
  before_what_follows();
  side.last_bells = 1 + ahead.bells;
  return true;
}

}  // namespace

bool take_last_bells_of_fence(Connection& c, int fd) {
  Side& side = *c.side;
  const bool begun = side.last_bells != 0;
  bool ended = false;
  if (!begun && !find_last_bell(c, fd, ended)) return ended;
  before_what_follows();
  uint64_t word = c.in->bells_final.load(memory_order_acquire);
  // SYNC: acq_rel, pairs with the compare-exchange in repeat_last_bell(): one of us is first.
  if (!(word & kBellsTaken) &&
      (static_cast<uint32_t>(word) != side.last_bell || !c.in->bells_final.compare_exchange_strong(word, word | kBellsTaken, memory_order_acq_rel))) {
    side.last_bells = 0;  // another one will be the last
    return false;
  }
  // The kernel moves the offset back as bytes are taken: so they are counted there, also for who was killed in between and has relatives.
  const uint32_t bells = side.last_bells - 1;
  const bool counted = bells > 0 && side.holders.load(memory_order_relaxed) > 1 && !peeks_would_miss(side);
  const int offset = begun ? peek_offset(fd) : -1;
  uint32_t taken = offset < 0 ? 0 : static_cast<uint32_t>(kFar - offset);
  if (offset < 0 && counted) set_peek_offset(fd, kFar);
  while (taken < bells) {
    uint8_t bytes[64];
    const long got = sys::recv(fd, bytes, min_of<size_t>(bells - taken, sizeof bytes), MSG_DONTWAIT);
    if (got <= 0) break;
    taken += static_cast<uint32_t>(got);
  }
  side.bells_taken = side.last_bell;
  side.taking = false;
  before_what_follows();
  side.last_bells = 1;
  before_what_follows();
  if (offset >= 0 || counted) set_peek_offset(fd, -1);
  return true;
}

void reset_if_stray(Connection& c, int fd) {
  Side& side = *c.side;
  const Locked lock(side.read_lock);
  if (lock.nested()) return;
  fd = open_fd(c, fd);
  advance_incoming(c, fd);
  const bool bells_alone = side.in_flow.load(memory_order_relaxed) == Flow::ring && c.in->stage.load(memory_order_acquire) == Stage::ring &&
                           c.in->ask.load(memory_order_relaxed) == Ask::nothing && !side.taking;
  int queued = 0;
  if (!bells_alone || sys::ioctl(fd, FIONREAD, &queued) < 0) return;
  // Counted after the question: a bell is numbered before it is sent.
  const uint32_t rung = c.in->bells_rung.load(memory_order_acquire);
  if (static_cast<uint32_t>(queued) <= bells_until(c, rung)) return;
  const Ahead ahead = look_for_bells(c, fd, rung);  // one that a killed process sent twice is none
  if (ahead.seen > static_cast<long>(ahead.bells)) break_connection(c, fd);
}

void turn_to_kernel(Connection& c, int fd, LateBells late) {
  Side& side = *c.side;
  const Stage stage = c.in->stage.load(memory_order_acquire);
  const bool silent = c.in->ask.load(memory_order_relaxed) == Ask::frozen;
  const bool rings = side.in_flow.load(memory_order_relaxed) == Flow::ring;
  if (stage == Stage::kernel_again) {
    if (take_last_bells_of_fence(c, fd)) late = LateBells::unwanted;
  } else if (rings && silent) {
    // The frozen peer sends nothing: what lies there is bells, however many.
    for (int takes = 0; takes < kMostBellTakes && TakingBells(side).take(fd, kMany) > 0;) ++takes;
  } else if (rings || stage == Stage::put_back) {
    // An old reader kept us from taking them before. The peer had placed its up-fence with nothing unread in the kernel, so its bells come first.
    const uint32_t rung = c.in->bells_rung.load(memory_order_acquire);
    for (int takes = 0; takes < kMostBellTakes && bells_until(c, rung) > 0; ++takes)
      if (take_bells(c, fd, rung) <= 0) break;
  }
  // SYNC: acq_rel, pairs with repeat_last_bell().
  if (stage != Stage::kernel_again || late == LateBells::unwanted) c.in->bells_final.fetch_or(kBellsTaken, memory_order_acq_rel);
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

namespace {

// Of the `rest` bytes behind `data`. By their numbers: a process that was killed may have left one out, or sent it twice.
uint64_t count_bells(Connection& c, Cursor received, size_t data, uint64_t rest) {
  Side& side = *c.side;
  const uint32_t rung = c.in->bells_rung.load(memory_order_acquire);
  uint32_t last = side.bells_taken;
  uint64_t bells = 0;
  uint8_t piece[64];
  received.skip(data);
  for (bool complete = side.leaving && bells_until(c, rung) == 0; !complete && bells < rest;) {
    const uint64_t bytes = min_of<uint64_t>(rest - bells, sizeof piece);
    uint32_t among = 0;
    received.take(piece, bytes);
    if (side.leaving)
      complete = bells_among(piece, static_cast<long>(bytes), last, rung, among);
    else
      for (; among < bytes; ++among) last = number_of(piece[among], last);
    bells += among;
  }
  side.bells_taken = last;
  return bells;
}

}  // namespace

long account_kernel_bytes(Connection& c, long got, Cursor bytes) {
  Side& side = *c.side;
  if (got <= 0) return got;
  if (!has_channel(c) || c.in->stage.load(memory_order_acquire) == Stage::kernel) {
    side.kernel_received.fetch_add(static_cast<uint64_t>(got), memory_order_relaxed);
    if (has_channel(c)) publish_received(c);
    return got;
  }
  const uint64_t total = c.in->kernel_total.load(memory_order_relaxed);
  const uint64_t received = side.kernel_received.load(memory_order_relaxed);
  const uint64_t data = min_of(static_cast<uint64_t>(got), total > received ? total - received : 0);
  const uint64_t rest = static_cast<uint64_t>(got) - data;
  // Bells, and behind them nothing; but in a retreat what the peer has put back.
  const uint64_t bells = rest > 0 ? count_bells(c, bytes, data, rest) : 0;
  if (bells > 0 && rest > bells) close_gap(bytes, data, bells, rest - bells);
  side.kernel_received.fetch_add(data, memory_order_relaxed);
  publish_received(c);
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

bool republish_head(Connection& c) {
  uint64_t head;
  bool stale = false;
  while (c.in->head.load(memory_order_relaxed) != (head = c.side->head.load(memory_order_relaxed))) {
    c.in->head.store(head, memory_order_release);  // SYNC: release, pairs with the acquire of head in refresh_head()
    stale = true;
  }
  return stale;
}

bool has_old_readers(Connection& c) {
  Side& side = *c.side;
  if (side.kernel_readers.load(memory_order_acquire) == 0) return false;
  const uint32_t process = side.upgraded_by;
  if (process == 0 || process == static_cast<uint32_t>(sys::process_id()) || !is_dead(process)) return true;
  side.received_in_doubt = true;  // they may have taken what they did not count
  before_what_follows();
  side.kernel_readers.store(0, memory_order_relaxed);
  c.in->old_readers.store(0, memory_order_release);
  return false;
}

long take_from_ring(Connection& c, int fd, Cursor to, uint64_t bytes, bool peek, bool nested) {
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
      if (!ring_get(c.in_region, ring_class, position, walk, limit - position)) return -EFAULT;
      position = limit;
    }
    if (peek) return static_cast<long>(end - begin);
    if (!commit_cursor(side.head, begin, end)) continue;  // a handler on this thread read in between
    uint64_t head;
    do {
      head = side.head.load(memory_order_relaxed);
      c.in->head.store(head, memory_order_release);  // SYNC: release, pairs with the acquire of head in ring_space()
    } while (side.head.load(memory_order_relaxed) != head);
    c.tally.ring_bytes_in += end - begin;
    ++c.tally.ring_ops_in;
    return static_cast<long>(end - begin);
  }
}

void recount_bells(Connection& c, int fd) {
  if (!has_channel(c)) return;
  constexpr int kLooks = 20;  // with pauses: a bell that was counted and not yet sent is on its way
  for (int look = 0; look < kLooks && c.in->stage.load(memory_order_acquire) == Stage::ring; ++look) {
    const uint32_t rung = c.in->bells_rung.load(memory_order_acquire);
    int queued = 0;
    sys::ioctl(fd, FIONREAD, &queued);
    if (c.in->bells_rung.load(memory_order_acquire) != rung) continue;
    const uint32_t taken = rung - static_cast<uint32_t>(queued);
    if (taken == c.side->bells_taken) return;
    if (look == kLooks - 1) c.side->bells_taken = taken;
    sys::pause_briefly();
  }
}

}  // namespace shunt
