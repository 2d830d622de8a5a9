// Readiness of one connection, and arming before a sleep. Any thread; takes the connection's locks for a moment.
#include <cerrno>

#include "connection/flow.h"
#include "sys/raw.h"

namespace shunt {

using std::memory_order_acquire;
using std::memory_order_relaxed;

namespace {

constexpr short kReadable = POLLIN | POLLRDNORM;
constexpr short kWritable = POLLOUT | POLLWRNORM | POLLWRBAND;
constexpr short kAll = kReadable | kWritable | POLLRDHUP | POLLPRI | POLLRDBAND;

struct Unread {
  bool ring, known;  // known: in_flow is ring, so the kernel's readability means bells
};

Unread unread(Connection& c, int fd, bool& owes_space) {
  Locked lock(c.side->read_lock);
  if (!lock.nested()) advance_incoming(c, fd);
  const Flow flow = c.side->in_flow.load(memory_order_relaxed);
  if (flow != Flow::ring) return {left_in_ring(c) > 0, false};
  const bool ring = refresh_tail(c, fd, lock.nested()) && !c.side->leaving;
  if (!ring && !lock.nested()) owes_space = republish_head(c);
  return {ring, c.side->in_flow.load(memory_order_relaxed) == Flow::ring};
}

}  // namespace

short look(Connection& c, int fd, Belief belief) {
  Side& side = *c.side;
  fd = open_fd(c, fd);
  if (side.leaver.load(memory_order_relaxed) != 0) finish_retreat(c, fd);
  bool owes_space = false;
  const Unread incoming = unread(c, fd, owes_space);
  if (owes_space) ring_if_space_wanted(c, fd);
  bool out_on_ring, writable = false;
  {
    Locked lock(side.write_lock);
    if (!lock.nested()) advance_outgoing(c, fd);
    out_on_ring = side.out_flow.load(memory_order_relaxed) == Flow::ring;
    if (out_on_ring) writable = ring_writable(c, fd) && !putback_pending(c);
  }
  ring_for_the_dead(c, fd);
  short events = 0;
  if (incoming.ring) events |= kReadable;
  if (writable) events |= kWritable;
  const uint64_t now = cycles();
  const bool on_rings = incoming.known && out_on_ring && c.in->stage.load(memory_order_relaxed) == Stage::ring;
  const bool believed = belief == Belief::alive && known_alive(c, now);
  if (on_rings && believed && !side.shut_read && !side.shut_write) return events;

  const short kernel = sys::poll_now(fd, kAll);
  if (!(kernel & (POLLHUP | POLLRDHUP)))
    note_alive(c, now);
  else
    note_gone(c);
  if (!incoming.known) events |= static_cast<short>(kernel & kReadable);
  events |= static_cast<short>(kernel & POLLPRI);
  if (!out_on_ring) events |= static_cast<short>(kernel & kWritable);
  if (kernel & POLLRDHUP) {
    // unix_poll: RCV_SHUTDOWN is readable. The peer wrote before it left: what the ring got meanwhile is seen by the reader itself.
    events |= POLLRDHUP | kReadable;
  }
  if (kernel & POLLHUP) {
    events |= POLLHUP;
    // A dead peer's buffers are freed, so there is room. The kernel gives an error for a closed socket only.
    const bool reset = (kernel & POLLERR) || side.reset_taken || side.end_reported;
    if (out_on_ring && (reset || !only_shut_down(c))) events |= kWritable;
    if (pending_reset(c, (kernel & POLLERR) != 0)) events |= POLLERR;
  } else if (kernel & POLLERR) {
    if (!incoming.known) events |= POLLERR;
  }
  if (kernel & POLLNVAL) events |= POLLNVAL;
  return events;
}

Glance glance(const Connection& c) {
  return {c.in->tail.load(memory_order_acquire), c.out->head.load(memory_order_acquire),
          static_cast<uint32_t>(c.in->stage.load(memory_order_acquire)) |
              static_cast<uint32_t>(c.out->ask.load(memory_order_relaxed)) << 8 | c.out->passed.load(memory_order_relaxed) << 16,
          c.in->gone_writer.load(memory_order_relaxed) | c.out->gone_reader.load(memory_order_relaxed) << 8};
}

uint64_t unread_since(const Connection& c) {
  const uint64_t head = c.side->head.load(memory_order_relaxed);
  uint64_t oldest = 0;
  for (const Publication& publication : c.in->published) {
    const uint64_t at = publication.at.load(memory_order_relaxed);
    if (publication.end.load(memory_order_relaxed) > head && (oldest == 0 || at < oldest)) oldest = at;
  }
  const bool on_ring = c.in->tail.load(memory_order_acquire) > head;
  return on_ring ? oldest : c.in->kernel_at.load(memory_order_relaxed);
}

bool taken_silently(const Connection& c) {
  const Side& side = *c.side;
  if (side.out_flow.load(memory_order_relaxed) == Flow::kernel || c.out->head.load(memory_order_acquire) == side.tail.load(memory_order_relaxed)) return false;
  if (c.out->gone_reader.load(memory_order_relaxed) & kClosed) return false;
  return side.shut_read.load(memory_order_relaxed) || c.in->gone_writer.load(memory_order_relaxed) != 0 ||
         side.in_flow.load(memory_order_relaxed) != Flow::ring || c.in->stage.load(memory_order_acquire) != Stage::ring;
}

namespace {

void set_arm(std::atomic<uint32_t>& word, uint32_t& sequence) {
  word.store(++sequence << 1 | 1, memory_order_relaxed);
}

// Arms both words that the events need. The order is the protocol's: bells known before are counted, then armed, then looked at, then those
// bells are taken; a bell for the new arm stays in the socket and keeps every sleeper awake.
Armed arm_events(Connection& c, int fd, short events, bool registered) {
  Side& side = *c.side;
  uint32_t bells;
  {
    Locked lock(side.read_lock);
    fd = open_fd(c, fd);
    if (!lock.nested()) advance_incoming(c, fd);
    if (side.delivering.load(memory_order_relaxed)) return Armed::slices;  // the descriptor may become another file
    if (putback_pending(c)) return Armed::slices;
    if ((events & POLLOUT) && taken_silently(c)) return Armed::slices;
    bells = c.in->bells_rung.load(memory_order_acquire);  // before the stage: the last bell must not count as an old one
    if (side.in_flow.load(memory_order_relaxed) == Flow::kernel && has_old_readers(c))
      return Armed::slices;  // an old reader may take the bell that is meant for us
    if (side.in_flow.load(memory_order_relaxed) != Flow::ring) {
      if ((events & POLLOUT) && side.out_flow.load(memory_order_relaxed) == Flow::ring) return Armed::slices;
      if (side.in_flow.load(memory_order_relaxed) == Flow::broken) return Armed::sleep;  // the kernel says that it is over
      if (c.in->stage.load(memory_order_acquire) == Stage::ring) return Armed::slices;  // old readers have yet to come back
      return Armed::sleep;  // the kernel's own readiness wakes us
    }
    if (side.leaving) return Armed::slices;  // no bell comes any more
    if (c.in->stage.load(memory_order_acquire) == Stage::kernel_again) {
      // The last bell is on its way, or another sleeper needs it. The down-fence takes it, not we.
      return fence_waits(side) || refresh_tail(c, fd, lock.nested()) ? Armed::slices : Armed::sleep;
    }
    if ((events & POLLIN) || side.data_sleepers.load(memory_order_relaxed) > 0 || c.registrations.load(memory_order_relaxed))
      set_arm(c.in->data_arm, side.data_arm_sequence);
  }
  const bool others_want_space = side.space_sleepers.load(memory_order_relaxed) > 0;
  if ((events & POLLOUT) || others_want_space || c.sets_want_space.load(memory_order_relaxed)) {
    Locked lock(side.write_lock);
    set_arm(c.out->space_arm, side.space_arm_sequence);
  }
  full_barrier();  // SYNC: the sleeper's half of the Dekker pair; the waker's is FamilyLock::unlock()
  // A set's edge has been delivered by the arrival of a bell; it need not be taken unless they pile up.
  if (registered && c.in->bells_rung.load(memory_order_relaxed) - side.bells_taken.load(memory_order_relaxed) < 4) return Armed::sleep;
  if (bells == side.bells_taken.load(memory_order_relaxed)) return Armed::sleep;

  // Somebody else's condition true: his bell must stay.
  const bool sets_look = registered || !c.registrations.load(memory_order_relaxed) || readiness_hooks.may_drain(c);
  Locked lock(side.read_lock);
  fd = open_fd(c, fd);
  const bool data = refresh_tail(c, fd, lock.nested());
  if (data && side.data_sleepers.load(memory_order_relaxed) > ((events & POLLIN) ? 1u : 0u)) return Armed::slices;
  if (others_want_space && !(events & POLLOUT)) {
    const uint64_t used = side.tail.load(memory_order_relaxed) - c.out->head.load(memory_order_acquire);
    if (used * 4 <= class_bytes(side.out_map.newest)) return Armed::slices;
  }
  if (data && !sets_look) return Armed::slices;
  if (bells_until(c, bells) > 0 && side.in_flow.load(memory_order_relaxed) == Flow::ring) {
    if (lock.nested()) return Armed::slices;  // the interrupted section may be about to take or to count the same bells
    take_bells(c, fd, bells);
  }
  return Armed::sleep;
}

}  // namespace

Armed arm(Connection& c, int fd, short events, Sleeper& sleeper) {
  if (events & POLLIN) count_and_mark(c.side->data_sleepers, 1, sleeper.for_data, 1);
  if (events & POLLOUT) count_and_mark(c.side->space_sleepers, 1, sleeper.for_space, 1);
  return arm_events(c, fd, events, false);
}

void disarm(Connection& c, Sleeper& sleeper) {
  if (sleeper.for_data) count_and_mark(c.side->data_sleepers, ~0u, sleeper.for_data, 0);
  if (sleeper.for_space) count_and_mark(c.side->space_sleepers, ~0u, sleeper.for_space, 0);
  if (sleeper.in_peek) count_and_mark(c.side->peekers, ~0u, sleeper.in_peek, 0);
}

void count_again(const Connection& c, const Sleeper& sleeper) {
  c.side->data_sleepers.fetch_add(sleeper.for_data);
  c.side->space_sleepers.fetch_add(sleeper.for_space);
  c.side->peekers.fetch_add(sleeper.in_peek);
}

Armed arm_registered(Connection& c, int fd, short events) { return arm_events(c, fd, events, true); }

}  // namespace shunt
