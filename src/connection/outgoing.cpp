// The outgoing direction: fences, ring space, publication. Under write_lock throughout; never sleeps, never allocates.
#include "connection/outgoing.h"

#include <cerrno>

#include "observe/report.h"
#include "sys/raw.h"
#include "sys/signal_mask.h"

namespace shunt {

using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

bool peer_attached(const Connection& c) {
  if (c.side->role == Role::connector) return true;
  const auto* header = reinterpret_cast<const ChannelHeader*>(c.channel.load(memory_order_relaxed));
  return header->attached.load(memory_order_acquire) != 0;  // SYNC: pairs with the connector's release in attach
}

void complete_up_fence(Connection& c) {
  c.out->kernel_total.store(c.side->kernel_sent.load(memory_order_relaxed), memory_order_relaxed);
  c.out->stage.store(Stage::ring, memory_order_release);  // SYNC: pairs with advance_incoming()
  c.side->out_flow.store(Flow::ring, memory_order_relaxed);
  before_what_follows();
  c.side->begun = Begun::nothing;
}

uint64_t putback_position(const Connection& c) {
  const uint64_t head = c.out->head.load(memory_order_acquire), seen = c.side->head_seen;
  return (head < seen ? seen : head) + c.side->putback;  // a reader's handler may be about to publish its head again
}

namespace {

constexpr uint64_t kOneBuffer = 32768, kOneTightBuffer = 2048;  // unix_stream_sendmsg: it sends all of that, or nothing
constexpr uint64_t kRoomyBuffer = 65536;  // room for far more bells than can be under way
constexpr uint64_t kAhead = 512;  // a ring that has less than this left over grows, if it can
constexpr uint32_t kDisagreements = 8;  // writes that find the counts apart, before the kernel is asked where the bytes are
constexpr uint32_t kMostUncounted = 4;  // times in a row that it had none of them
constexpr uint64_t kChunk = 32768;  // publish this much at a time, so that the reader copies while we do

uint64_t send_buffer(int fd) {
  int bytes = 0;
  socklen_t length = sizeof bytes;
  return sys::raw(SYS_getsockopt, fd, SOL_SOCKET, SO_SNDBUF, &bytes, &length) == 0 ? static_cast<uint64_t>(bytes) : 0;
}

// A bell never lies behind a data byte: either the reader is past the up-fence, or nothing lies unread.
bool may_ring(const Connection& c, int fd) {
  return c.out->passed.load(memory_order_acquire) != 0 || queued_in_kernel(fd) == 0;
}

// One bell. Not needed: a tiny buffer has no room for it, so it was neither counted nor sent. (A count, once published, is never taken back.)
Bell send_bell(Connection& c, int fd) {
  if (c.side->tight_buffer && !room_for_a_bell(fd)) return Bell::not_needed;
  OwedBell bell(c, fd);
  count(totals.bells);
  const long sent = bell.send();
  if (sent == -EAGAIN) return Bell::sent;  // a full buffer wakes as well
  if (sent < 0) return note_gone(c), Bell::refused;
  c.side->bell_arrived.store(true, memory_order_relaxed);
  note_alive(c, cycles());
  return Bell::sent;
}

// The one moment for the up-fence: the reader has counted all that was sent, nobody of it is in a read that began before the channel, and nothing lies
// unread in the kernel (no bell could follow it, and whoever wrote it past the library would be overtaken). Who reads or writes past the library never gets here.
bool counts_agree(Connection& c, int fd) {
  Side& side = *c.side;
  if (c.out->old_readers.load(memory_order_acquire) != 0) return false;
  // SYNC: acquire, pairs with the release in publish_received().
  const auto agree = [&] { return c.out->received.load(memory_order_acquire) == side.kernel_sent.load(memory_order_relaxed); };
  if (agree()) {
    side.disagreements = side.uncounted = 0;
    return queued_in_kernel(fd) == 0;
  }
  // Once, it may be a reader that has taken bytes and not come to count them yet.
  if (++side.disagreements % kDisagreements == 0) side.uncounted = queued_in_kernel(fd) == 0 && !agree() ? side.uncounted + 1 : 0;
  if (side.uncounted == kMostUncounted) stay_plain(c, Reason::unseen_use);
  return false;
}

void place_up_fence(Connection& c, int fd) {
  sys::SignalsBlocked alone;
  Writing writing(*c.out);
  if (writing.frozen()) return;
  c.side->tight_buffer = send_buffer(fd) < kRoomyBuffer;
  c.side->begun = Begun::up_fence;
  before_what_follows();
  complete_up_fence(c);
}

// The peer froze its ring: what it left unread goes back through the kernel, before anything else we send, unless the peer delivers it itself.
// demote_at says how far we got; a peer that takes over waits until we are not `writing`, then goes by it.
bool leave_frozen_ring(Connection& c, int fd) {
  sys::SignalsBlocked alone;
  Side& side = *c.side;
  Writing writing(*c.out);
  if (writing.taken_over()) {
    side.out_flow.store(Flow::kernel_again, memory_order_relaxed);
    note_demotion(c, Reason::peer_asked);
    return true;
  }
  if (side.out_flow.load(memory_order_relaxed) == Flow::ring) {
    const uint64_t tail = side.tail.load(memory_order_relaxed);
    if (c.out->head.load(memory_order_acquire) > tail) return break_connection(c, fd), true;
    uint64_t position = putback_position(c);
    if (side.putback > 0) c.out->demote_at.store(position, memory_order_relaxed);
    while (position < tail) {
      const uint32_t ring_class = class_at(side.out_map, position);
      const uint64_t there = min_of(class_end(side.out_map, ring_class, tail) - position, contiguous(ring_class, position));
      const uint64_t bytes = min_of(there, side.tight_buffer ? kOneTightBuffer : kOneBuffer);
      side.putback_goal = side.putback;
      side.queued_before = queued_in_kernel(fd);
      before_what_follows();
      side.putback_goal = side.putback + bytes;
      before_what_follows();
      const long sent = sys::send(fd, ring_at(c.out_region, ring_class, position), bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent < 0) side.putback_goal = side.putback;
      if (sent == -EAGAIN) return false;
      if (sent < 0) {  // our writing is shut down: the peer sees that and starts a relay
        side.out_flow.store(Flow::kernel_again, memory_order_relaxed);
        return true;
      }
      position += static_cast<uint64_t>(sent);
      side.putback_goal = side.putback + static_cast<uint64_t>(sent);
      before_what_follows();
      side.putback = side.putback_goal;
      c.out->demote_at.store(position, memory_order_relaxed);  // published by the end of `writing`
    }
  }
  side.out_flow.store(Flow::kernel_again, memory_order_relaxed);
  c.out->stage.store(Stage::put_back, memory_order_release);  // SYNC: pairs with deliver_unread()
  note_demotion(c, Reason::peer_asked);
  return true;
}

bool can_grow(const Side& side) { return side.out_map.newest < kLastClass; }

// A larger area, the smallest that holds `wanted`: bytes from `tail` on live there.
bool grow(Connection& c, uint64_t wanted) {
  Side& side = *c.side;
  if (!can_grow(side)) return false;
  uint32_t ring_class = side.out_map.newest + 1;
  while (ring_class < kLastClass && class_bytes(ring_class) < wanted) ++ring_class;
  begin_class(side.out_map, ring_class, side.tail.load(memory_order_relaxed));
  return true;
}

// Before the first byte of a class is published. Apart from grow(), so that whoever comes after a process that was killed in between makes up for it.
void announce_class(Connection& c) {
  sys::SignalsBlocked alone;
  const RingMap& map = c.side->out_map;
  for (uint32_t k = 1; k <= map.newest; ++k) c.out->class_from[k - 1].store(map.from[k], memory_order_relaxed);
  c.out->class_next.store(map.newest, memory_order_release);  // SYNC: pairs with the acquire in refresh_tail()
  c.side->class_announced = map.newest;
}

uint64_t free_bytes(const Side& side) {
  const RingMap& map = side.out_map;
  const uint64_t begin = side.head_seen > map.from[map.newest] ? side.head_seen : map.from[map.newest];
  return class_bytes(map.newest) - (side.tail.load(memory_order_relaxed) - begin);
}

bool refresh_head(Connection& c, int fd) {
  // SYNC: acquire, pairs with the reader's release of head; its copies are done before we overwrite.
  const uint64_t head = c.out->head.load(memory_order_acquire);
  if (head > c.side->tail.load(memory_order_relaxed)) return break_connection(c, fd), false;
  if (head > c.side->head_seen) c.side->head_seen = head;
  return true;
}

bool follow(Connection& c, int fd, Ask ask) {
  switch (ask) {
    case Ask::nothing:
      return true;
    case Ask::demote:
      return demote_outgoing(c, fd, Reason::peer_asked);
    case Ask::frozen:  // for a moment, unless it died there
      return (sys::poll_now(fd, 0) & (POLLHUP | POLLERR)) && leave_frozen_ring(c, fd);
    case Ask::put_back:
    case Ask::taken_over:
      return leave_frozen_ring(c, fd);
  }
  return break_connection(c, fd), true;
}

}  // namespace

bool advance_outgoing(Connection& c, int fd) {
  Side& side = *c.side;
  if (__builtin_expect(is_torn(c), 0) && !mend(c, fd)) return false;
  const Flow flow = side.out_flow.load(memory_order_relaxed);
  if (flow == Flow::kernel_again || flow == Flow::broken) return true;
  if (const Ask ask = c.out->ask.load(memory_order_acquire); ask != Ask::nothing) return follow(c, fd, ask);
  if (const Reason reason = side.plain.load(memory_order_relaxed); reason != Reason::none)
    return demote_outgoing(c, fd, reason);
  if (c.in->stage.load(memory_order_acquire) == Stage::kernel_again) return demote_outgoing(c, fd, Reason::peer_asked);
  if (flow == Flow::kernel) {
    if (peer_attached(c) && counts_agree(c, fd) && !chaos_strikes(c, 2)) place_up_fence(c, fd);
  } else if (chaos_strikes(c, 200)) {
    return demote_outgoing(c, fd, Reason::chaos);
  }
  return true;
}

bool demote_outgoing(Connection& c, int fd, Reason reason) {
  Side& side = *c.side;
  if (is_torn(c) && !mend(c, fd)) return false;
  const Flow flow = side.out_flow.load(memory_order_relaxed);
  if (flow == Flow::kernel_again || flow == Flow::broken) return true;
  if (const Ask ask = c.out->ask.load(memory_order_acquire); is_frozen(ask)) return follow(c, fd, ask);
  sys::SignalsBlocked alone;
  // What an old reader of the peer gets past the up-fence counts as bells: nothing else may follow before it has come back.
  const bool old_readers = c.out->passed.load(memory_order_acquire) == 0 && c.out->old_readers.load(memory_order_acquire) > 0;
  if (flow == Flow::ring && old_readers) return false;
  if (flow == Flow::kernel) {
    c.out->kernel_total.store(side.kernel_sent.load(memory_order_relaxed), memory_order_relaxed);
    if (old_readers) {
      // No fence at all: the peer goes on as before the up-fence, which is right too.
      side.out_flow.store(Flow::kernel_again, memory_order_relaxed);
      note_demotion(c, reason);
      return true;
    }
  }
  // Before the up-fence a bell would be a byte to a reader that is past us. Behind it, or with bytes in the ring that we have frozen, the peer may sleep and
  // must put back or demote in its turn.
  const bool peer_on_ring = is_frozen(c.in->ask.load(memory_order_relaxed)) && c.in->stage.load(memory_order_relaxed) != Stage::kernel;
  const bool last_bell = (flow == Flow::ring || peer_on_ring) && may_ring(c, fd);
  if (last_bell && !room_for_a_bell(fd)) return false;  // first
  Writing writing(*c.out);
  if (writing.frozen()) return false;  // next time round
  side.fence_has_bell = last_bell;
  side.fence_bell = side.bells_rung.load(memory_order_relaxed) + last_bell;
  before_what_follows();
  side.begun = Begun::down_fence;
  before_what_follows();
  c.out->demote_at.store(side.tail.load(memory_order_relaxed), memory_order_relaxed);
  c.out->bells_final.store(side.fence_bell, memory_order_relaxed);
  // The stage before its bell: whoever the bell wakes must see what it announces.
  c.out->stage.store(Stage::kernel_again, memory_order_release);  // SYNC: pairs with advance_incoming()
  side.out_flow.store(Flow::kernel_again, memory_order_relaxed);
  if (last_bell) send_bell(c, fd);
  before_what_follows();
  side.begun = Begun::nothing;
  note_demotion(c, reason);
  return true;
}

uint64_t ring_space(Connection& c, int fd, uint64_t wanted) {
  const uint64_t room = wanted + kAhead;
  const uint64_t space = free_bytes(*c.side);
  if (space >= room) return space;
  if (!refresh_head(c, fd)) return 0;
  if (free_bytes(*c.side) < room) grow(c, room);
  return free_bytes(*c.side);
}

namespace {

// For a reader that has several connections to tell of: before the publication, so that it finds no unread bytes without a time.
void note_publication(Connection& c, uint64_t end) {
  const uint32_t number = c.out->publications.load(memory_order_relaxed);
  Publication& publication = c.out->published[number % kPublications];
  publication.at.store(cycles(), memory_order_relaxed);
  publication.end.store(end, memory_order_relaxed);
  c.out->publications.store(number + 1, memory_order_relaxed);
}

}  // namespace

long put_into_ring(Connection& c, Cursor from, uint64_t bytes) {
  Side& side = *c.side;
  if (side.class_announced != side.out_map.newest) announce_class(c);
  uint64_t done = 0;
  while (done < bytes) {
    const uint64_t position = side.tail.load(memory_order_relaxed);
    const uint64_t chunk = min_of(min_of(bytes - done, free_bytes(side)), kChunk);
    if (chunk == 0) break;
    if (!ring_put(c.out_region, side.out_map.newest, position, from, chunk)) {
      if (done == 0) return -EFAULT;
      break;
    }
    if (c.out->wants_times.load(memory_order_relaxed)) note_publication(c, position + chunk);
    side.tail.store(position + chunk, memory_order_relaxed);  // the commit: a dead owner's copy before it never happened
    c.out->tail.store(position + chunk, memory_order_release);  // SYNC: release, pairs with the acquire of tail in refresh_tail()
    done += chunk;
  }
  if (done > 0) {
    c.tally.ring_bytes_out += done;
    ++c.tally.ring_ops_out;
    if (!side.upgraded.load(memory_order_relaxed)) count_upgrade(c);
  }
  return static_cast<long>(done);
}

bool ring_writable(Connection& c, int fd) {
  Side& side = *c.side;
  if (!refresh_head(c, fd)) return true;
  if (can_grow(side)) return true;
  return (side.tail.load(memory_order_relaxed) - side.head_seen) * 4 <= class_bytes(side.out_map.newest);
}

namespace {

// Answers `arm` (one of the peer's two words) with one bell, once per sequence.
Bell ring_for(Connection& c, int fd, const std::atomic<uint32_t>& arm, std::atomic<uint32_t>& rung) {
  Locked lock(c.side->write_lock);
  fd = open_fd(c, fd);
  if (!lock.nested()) advance_outgoing(c, fd);  // a demotion that must wait for old readers waits for this very bell
  if (c.side->out_flow.load(memory_order_relaxed) != Flow::ring) return Bell::not_needed;
  Writing writing(*c.out, lock.nested() ? Writing::Within::perhaps_another : Writing::Within::nothing);
  if (writing.frozen()) return Bell::not_needed;
  const uint32_t word = arm.load(memory_order_relaxed);
  if (!(word & 1) || word == rung.load(memory_order_relaxed) || !may_ring(c, fd)) return Bell::not_needed;
  const Bell bell = send_bell(c, fd);
  if (bell != Bell::not_needed) rung.store(word, memory_order_relaxed);
  return bell;
}

}  // namespace

bool bell_is_due(const Connection& c, int fd) {
  const uint32_t word = c.out->data_arm.load(memory_order_relaxed);
  return (word & 1) && word != c.side->rung_for_data.load(memory_order_relaxed) && may_ring(c, fd);
}

// The peer has left the ring meanwhile, and takes no bell any more: what was published for a sleeper goes back through the kernel before this call ends,
// or he might hear of it with our next one only.
void put_back_for_sleepers(Connection& c, int fd) {
  await_step([&] {
    const Locked lock(c.side->write_lock);
    return lock.nested() || advance_outgoing(c, open_fd(c, fd)) || c.side->putback > 0;
  });
}

// Both are called after an unlock, which is the full barrier between the publication and the look at the arm word.
// SYNC: pairs with full_barrier() in arm().
Bell ring_if_data_wanted(Connection& c, int fd) {
  Side& side = *c.side;
  const uint64_t tail = side.tail.load(memory_order_relaxed);
  const uint32_t word = c.out->data_arm.load(memory_order_relaxed);
  const bool wanted = (word & 1) && word != side.rung_for_data.load(memory_order_relaxed);
  const Bell bell = wanted ? ring_for(c, fd, c.out->data_arm, side.rung_for_data) : Bell::not_needed;
  if (wanted && bell == Bell::not_needed && is_frozen(c.out->ask.load(memory_order_relaxed))) put_back_for_sleepers(c, fd);
  side.tail_told.store(tail, memory_order_relaxed);
  return bell;
}

void ring_if_space_wanted(Connection& c, int fd) {
  Side& side = *c.side;
  const uint64_t head = side.head.load(memory_order_relaxed);
  const uint32_t word = c.in->space_arm.load(memory_order_relaxed);
  const bool wanted = (word & 1) && word != side.rung_for_space.load(memory_order_relaxed);
  const auto roomy = [&] { return (c.in->tail.load(memory_order_relaxed) - head) * 4 <= class_bytes(newest_class(side.in_map)); };
  if (wanted && roomy()) ring_for(c, fd, c.in->space_arm, side.rung_for_space);
  side.head_told.store(head, memory_order_relaxed);
}

void ring_for_the_dead(Connection& c, int fd) {
  const Side& side = *c.side;
  if (side.tail_told.load(memory_order_relaxed) != side.tail.load(memory_order_relaxed)) ring_if_data_wanted(c, fd);
  if (side.head_told.load(memory_order_relaxed) != side.head.load(memory_order_relaxed)) ring_if_space_wanted(c, fd);
}

void ring_if_owed(Connection& c, int fd) {
  if (!has_channel(c)) return;
  full_barrier();
  ring_if_data_wanted(c, fd);
  ring_if_space_wanted(c, fd);
}

}  // namespace shunt
