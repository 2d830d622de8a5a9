// What a process that was killed with the write lock held has left half done: whoever gets the lock goes on with it. Under write_lock throughout.
#include "connection/outgoing.h"
#include "sys/signal_mask.h"

namespace shunt {

using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

namespace {

// A process was killed with its down-fence placed, and nobody knows whether its last bell was sent. Unless Y has found it, it is sent once more under a number
// of its own, which Y then waits for. False: there is no room for it yet.
bool repeat_last_bell(Connection& c, int fd) {
  Side& side = *c.side;
  if (!room_for_a_bell(fd)) return false;
  uint64_t word = c.out->bells_final.load(memory_order_acquire);
  while (!(word & kBellsTaken)) {
    const auto last = static_cast<uint32_t>(word);
    if (last - side.fence_bell > 1) return break_connection(c, fd), true;
    side.fence_bell = last;
    side.bells_rung.store(last, memory_order_relaxed);
    side.bells_sent.store(last, memory_order_relaxed);
    before_what_follows();
    // SYNC: acq_rel, pairs with the compare-exchange in take_last_bells_of_fence(): one of us is first.
    if (!c.out->bells_final.compare_exchange_strong(word, last + 1, memory_order_acq_rel, memory_order_acquire)) continue;
    OwedBell(c, fd).send();
    break;
  }
  side.bells_sent.store(side.bells_rung.load(memory_order_relaxed), memory_order_relaxed);
  return true;
}

// The peer is leaving, and will say whether it waits for the last bell.
bool has_to_decide(const Connection& c, int fd) {
  return c.out->ask.load(memory_order_acquire) == Ask::frozen && !(sys::poll_now(fd, 0) & (POLLHUP | POLLERR));
}

// False: it has to wait, for that or for room.
bool complete_down_fence(Connection& c, int fd) {
  Side& side = *c.side;
  // Before its stage nobody can have seen it: then whoever wanted it begins anew.
  if (c.out->stage.load(memory_order_relaxed) == Stage::kernel_again) {
    if (side.fence_has_bell && (has_to_decide(c, fd) || !repeat_last_bell(c, fd))) return false;
    if (side.out_flow.load(memory_order_relaxed) != Flow::broken) side.out_flow.store(Flow::kernel_again, memory_order_relaxed);
    note_demotion(c, Reason::peer_asked);
  }
  before_what_follows();
  side.begun = Begun::nothing;
  return true;
}

// A bell that was counted and perhaps not sent is sent again, under its own number, which counts once. One more follows, so that nobody has to wonder
// whether what the socket still holds is a repetition.
void repeat_bell(Connection& c, int fd, bool frozen) {
  Side& side = *c.side;
  if (bells_owed(side) == 0) return;
  if (side.out_flow.load(memory_order_relaxed) == Flow::ring && !frozen) {
    OwedBell bell(c, fd);
    while (bells_owed(side) > 0) bell.send();
  }
  side.bells_sent.store(side.bells_rung.load(memory_order_relaxed), memory_order_relaxed);
}

// Of a frozen ring. Whether the send that was under way was made is sure, unless the peer has read in the kernel since: it does not while it retreats, or takes
// over.
void settle_putback(Connection& c, int fd) {
  Side& side = *c.side;
  const uint64_t queued = side.putback_goal > side.putback ? queued_in_kernel(fd) : 0;
  if (queued > side.queued_before && queued != kNever) side.putback = side.putback_goal;
  before_what_follows();
  side.putback_goal = side.putback;
  if (side.putback > 0) c.out->demote_at.store(putback_position(c), memory_order_relaxed);  // published by the end of `writing`
}

}  // namespace

bool mend(Connection& c, int fd) {
  sys::SignalsBlocked alone;
  Side& side = *c.side;
  Writing writing(*c.out);
  if (side.out_flow.load(memory_order_relaxed) == Flow::ring && writing.frozen()) settle_putback(c, fd);
  if (side.begun == Begun::sending) {
    // Nobody knows how much was sent, so there is no place for a fence: the kernel's for good.
    if (side.out_flow.load(memory_order_relaxed) == Flow::kernel) side.out_flow.store(Flow::kernel_again, memory_order_relaxed);
    before_what_follows();
    side.begun = Begun::nothing;
    note_demotion(c, Reason::call_left);
  }
  // What was committed is published.
  const uint64_t tail = side.tail.load(memory_order_relaxed);
  if (side.out_flow.load(memory_order_relaxed) == Flow::ring && !writing.frozen()) {
    c.out->tail.store(tail, memory_order_release);
    side.tail_told.store(kNever, memory_order_relaxed);
  }
  if (side.begun == Begun::up_fence) complete_up_fence(c);
  if (side.begun == Begun::down_fence && !complete_down_fence(c, fd)) return false;
  repeat_bell(c, fd, writing.frozen());
  return true;
}

}  // namespace shunt
