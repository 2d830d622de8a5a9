// Leaving the ring for good: politely (at each end's next operation) or at once (retreat).
// Called under no lock of the connection. Sleeps only in retreat, in bounded slices.
#include <cerrno>
#include <sys/ioctl.h>

#include "connection/flow.h"
#include "connection/relay.h"
#include "observe/report.h"
#include "sys/raw.h"
#include "sys/signal_mask.h"

namespace shunt {

using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

Behaviour behaviour;
ReadinessHooks readiness_hooks;

namespace {

constexpr uint64_t kPutbackUs = 100'000;  // how long a living peer has to put bytes back
constexpr uint64_t kStuckUs = 10'000;     // and to go on with it: the kernel's buffer may be full

bool leave_outgoing(Connection& c, int fd, Reason reason) {
  Locked lock(c.side->write_lock);
  fd = open_fd(c, fd);
  return lock.nested() || demote_outgoing(c, fd, reason);
}

// Freezes the ring we read from. Afterwards the peer neither writes to it nor rings, and no other thread or process of ours takes from it what the peer may
// be putting back already.
void freeze_incoming(Connection& c) {
  {
    Locked lock(c.side->read_lock);
    uint32_t nobody = 0;  // or another one, whom we have awaited for long enough: then he remains the one to go by
    c.side->leaver.compare_exchange_strong(nobody, thread_id(), memory_order_relaxed);
    before_what_follows();
    c.side->leaving = true;
    if (!lock.nested()) republish_head(c);  // the peer puts back what is behind it
    Ask ask = c.in->ask.load(memory_order_relaxed);
    while (!is_frozen(ask) && !c.in->ask.compare_exchange_weak(ask, Ask::frozen, memory_order_release, memory_order_relaxed)) {
    }
  }
  // SYNC: with the compiler barrier in Writing: a writer that did not see the question has announced itself.
  sys::barrier_everywhere();
  await_step([&] { return c.in->writing.load(memory_order_acquire) == 0; });
}

bool has_ended(int fd) { return sys::poll_now(fd, POLLRDHUP) & (POLLRDHUP | POLLHUP); }

// What lies unread between the kernel's bytes when a direction is left. Under read_lock, after the freeze.
struct Unread {
  Stage stage;           // of the peer's writing
  bool left;             // to this family already, which may be reading it
  bool taken;            // the peer puts nothing back
  uint64_t kernel_first; // data bytes in the kernel that come before the ring's
  uint64_t begin, end;   // ring positions
};

Unread still_left(const Connection& c, Stage stage) {
  const Side& side = *c.side;
  return {stage, true, side.left_taken, side.left_kernel, side.head.load(memory_order_relaxed), side.left_end.load(memory_order_relaxed)};
}

Unread find_unread(Connection& c, int fd) {
  Side& side = *c.side;
  Unread found{c.in->stage.load(memory_order_acquire), false, false, 0, 0, 0};
  const Flow flow = side.in_flow.load(memory_order_relaxed);
  if (flow == Flow::kernel_again && left_in_ring(c) > 0) return still_left(c, found.stage);
  if ((flow != Flow::ring && flow != Flow::kernel) || found.stage == Stage::kernel) return found;
  if (flow == Flow::kernel) {
    const uint64_t total = c.in->kernel_total.load(memory_order_relaxed), received = side.kernel_received.load(memory_order_relaxed);
    found.kernel_first = total > received ? total - received : 0;
  }
  found.begin = side.head.load(memory_order_relaxed);
  found.end = refresh_tail(c, fd, false) ? side.tail_seen.load(memory_order_relaxed) : found.begin;
  if (found.stage == Stage::kernel_again) found.end = min_of(found.end, c.in->demote_at.load(memory_order_relaxed));
  return found;
}

// What was sent before the freeze has been taken.
void allow_put_back(const Connection& c) {
  Ask frozen = Ask::frozen;
  c.in->ask.compare_exchange_strong(frozen, Ask::put_back, memory_order_release, memory_order_relaxed);
}

// Behind its own fence, or when it has ended, the peer puts nothing back. Then this family has the ring's bytes at once: the kernel says what comes behind
// them, and somebody may be reading.
void leave_what_nobody_puts_back(const Connection& c, int fd, Unread& unread) {
  if (unread.end <= unread.begin) return;
  if (unread.stage != Stage::kernel_again && !has_ended(fd)) return;
  unread.left = unread.taken = c.side->left_taken = true;
  c.side->left_end.store(unread.end, memory_order_relaxed);
  before_what_follows();
}

// Takes what the peer sent into the kernel before the freeze and is a bell; hands the rest of the direction to the kernel.
bool leave_incoming(Connection& c, int fd, Unread& unread) {
  Side& side = *c.side;
  Locked lock(side.read_lock);
  if (lock.nested()) return allow_put_back(c), true;
  fd = open_fd(c, fd);
  advance_incoming(c, fd);
  const Flow flow = side.in_flow.load(memory_order_relaxed);
  if (flow == Flow::kernel_again || flow == Flow::broken) return unread = find_unread(c, fd), allow_put_back(c), true;
  if (has_old_readers(c) && c.in->stage.load(memory_order_acquire) != Stage::kernel) return allow_put_back(c), false;  // it waits for that
  // All of this holds when in_flow says so: what a thread has noted that was killed before is out of date.
  side.left_end.store(0, memory_order_relaxed);
  side.left_taken = false;
  unread = find_unread(c, fd);
  side.left_kernel = unread.kernel_first;
  side.left_read = 0;
  side.leaving_from.store(unread.begin, memory_order_relaxed);
  side.leaving_to.store(unread.end, memory_order_relaxed);
  before_what_follows();
  leave_what_nobody_puts_back(c, fd, unread);
  // Whoever reads what lies unread goes by the numbers of the bells behind it.
  turn_to_kernel(c, fd, unread.begin < unread.end ? LateBells::expected : LateBells::unwanted);
  allow_put_back(c);
  return true;
}

// For what lies unread, whoever sleeps has a bell, which is taken as the ring is left: he must have seen it. Where there is none, the peer sees to it
// (put_back_for_sleepers()).
void await_sleepers(Connection& c, int fd) {
  await_step([&] {
    int queued = 0;
    sys::ioctl(open_fd(c, fd), FIONREAD, &queued);
    return c.side->data_sleepers.load() == 0 || queued == 0 || c.in->tail.load(memory_order_relaxed) == c.side->head.load(memory_order_relaxed);
  });
}

// The incoming direction first, if it can be: the last bell of the other one wakes a peer that may put back then. Two ends that do this at once wait for
// one another's permission.
void leave_both(Connection& c, int fd, Reason reason, Unread& unread) {
  await_sleepers(c, fd);
  bool in = leave_incoming(c, fd, unread);
  await_step([&] { return leave_outgoing(c, fd, reason); });
  await_step([&] { return in = in || leave_incoming(c, fd, unread); });
  if (!in) allow_put_back(c);
}

bool relayed(Connection& c, int fd, const RelayPlan& plan, Likeness likeness) {
  readiness_hooks.before_relay(c);
  const uint64_t file = sys::file_of(fd);
  const bool replaced = start_relay(c, fd, plan, likeness) == 0;
  if (replaced) replace_duplicates(c, fd, file);
  readiness_hooks.after_relay(c);
  return replaced;
}

// What is left in the ring can still be read by us alone, who know whose it is.
bool reset(Connection& c, int fd) {
  readiness_hooks.before_relay(c);
  remember_peer(c, fd);
  const uint64_t file = sys::file_of(fd);
  const bool replaced = put_reset(fd) == 0;
  if (replaced) {
    replace_duplicates(c, fd, file);
    c.relayed.store(true, memory_order_relaxed);
    c.lends_ids.store(true, memory_order_relaxed);
  }
  readiness_hooks.after_relay(c);
  return replaced;
}

// Whoever reads from now on finds in the kernel what is there, and nothing else.
bool reads_past_us(Reason reason) {
  switch (reason) {
    case Reason::exec_inherited:
    case Reason::passed_descriptor:
    case Reason::stdio:
    case Reason::by_libc:
    case Reason::splice:
    case Reason::io_uring:
    case Reason::child_beside:
      return true;
    default:
      return false;
  }
}

// Another program sees whom the kernel names as the peer.
bool leaves_process(Reason reason) { return reason == Reason::exec_inherited || reason == Reason::passed_descriptor; }

// A relay takes everything from the old socket: nobody else may have it.
bool is_only_holder(const Connection& c) { return c.side->holders.load(memory_order_relaxed) <= 1; }

// This family still has the ring, and goes on reading there. Whoever does so first takes over from the peer.
void leave_to_family(Connection& c, uint64_t end) {
  Side& side = *c.side;
  const Locked lock(side.read_lock);
  uint64_t nothing = 0;  // else an earlier retreat did, and they may be reading
  side.left_end.compare_exchange_strong(nothing, end, memory_order_relaxed);
}

// Bytes that this process alone can read, and nobody will put back.
bool is_stranded(const Connection& c, int fd) {
  return left_in_ring(c) > 0 && is_only_holder(c) && (c.side->left_taken || has_ended(fd));
}

// While it is decided who gets what is left.
class Delivering {
 public:
  explicit Delivering(Side& side) : side_(side) { set(true); }
  ~Delivering() { set(false); }
  Delivering(const Delivering&) = delete;
  Delivering& operator=(const Delivering&) = delete;

 private:
  void set(bool value) {
    const Locked lock(side_.read_lock);
    side_.delivering.store(value, memory_order_relaxed);
  }
  Side& side_;
};

// Nothing more comes from the peer: what it put back lies in the kernel, or was read there.
Unread counted_in_kernel(const Side& side, int fd, Unread unread) {
  int queued = 0;
  sys::ioctl(fd, FIONREAD, &queued);
  const uint64_t in_kernel = static_cast<uint64_t>(queued), came = in_kernel + side.left_read;
  if (came > unread.kernel_first) unread.begin = min_of(unread.begin + came - unread.kernel_first, unread.end);
  unread.kernel_first = in_kernel;
  return unread;
}

// The peer puts the ring's bytes back; the last bell has woken it. Who cannot (it shut its writing down, is gone, or had left the ring by
// itself), or does not, is replaced by a relay, or our family reads them where they are.
// True: `fd` is another file now.
bool deliver_unread(Connection& c, int fd, Reason reason, Unread unread) {
  if (unread.end <= unread.begin) return false;
  const bool fenced = unread.stage == Stage::kernel_again;
  bool ended = unread.taken || fenced;
  const uint64_t begin = cycles();
  uint64_t moved_at = begin, reached = 0;
  while (!(ended && is_only_holder(c)) && microseconds_since(begin) < kPutbackUs) {
    // SYNC: acquire, pairs with the release of stage in leave_frozen_ring().
    if (c.in->stage.load(memory_order_acquire) == Stage::put_back) return false;
    ended = ended || has_ended(open_fd(c, fd));
    if (ended && is_only_holder(c)) break;
    if (const uint64_t now_at = c.in->demote_at.load(memory_order_relaxed); now_at != reached) reached = now_at, moved_at = cycles();
    if (!fenced && reached > unread.begin && microseconds_since(moved_at) > kStuckUs && is_only_holder(c)) break;
    sys::pause_briefly();  // a parent closes soon what it has a child for
  }
  const Delivering nobody_reads(*c.side);
  if (unread.left) unread = still_left(c, unread.stage);
  ended = ended || unread.taken;
  if (ended && !unread.taken) unread = counted_in_kernel(*c.side, open_fd(c, fd), unread);
  if (unread.begin >= unread.end) return false;
  const bool taken_away = open_fd(c, fd) != fd;  // closed by another thread meanwhile: the number may be anybody's
  if (!taken_away && is_only_holder(c) && (ended || reads_past_us(reason))) {
    const Likeness likeness = ended && reads_past_us(reason) && !leaves_process(reason) ? Likeness::wanted : Likeness::required;
    if (relayed(c, fd, {unread.kernel_first, c.side->left_read, unread.begin, unread.end, fenced, !ended}, likeness)) {
      c.side->left_end.store(0, memory_order_relaxed);
      return true;
    }
  }
  leave_to_family(c, unread.end);
  return reason == Reason::passed_descriptor && !taken_away && is_stranded(c, fd) && reset(c, fd);
}

// What the kernel says of a peer that is gone is to be the truth: bells left unread are no reset, ring bytes are one.
void settle_end(Connection& c, int fd) {
  Locked lock(c.side->read_lock);
  fd = open_fd(c, fd);
  const short kernel = sys::poll_now(fd, POLLRDHUP);
  if (!(kernel & POLLHUP)) return;
  const bool told = (kernel & POLLERR) != 0;
  const bool reset = pending_reset(c, told);
  if (reset && !told) c.side->reset_taken = true;
  if (reset || !told) return;
  int error = 0;
  socklen_t size = sizeof error;
  sys::raw(SYS_getsockopt, fd, SOL_SOCKET, SO_ERROR, &error, &size);
}

}  // namespace

uint64_t put_back_by_dead(int fd, uint64_t first, uint64_t read, uint64_t most) {
  int queued = 0;
  sys::ioctl(fd, FIONREAD, &queued);
  const uint64_t came = static_cast<uint64_t>(queued) + read;
  return min_of(came > first ? came - first : 0, most);
}

bool take_over(Connection& c, int fd, uint64_t begin, uint64_t& end, uint64_t& put_back) {
  c.in->ask.store(Ask::taken_over, memory_order_release);
  // SYNC: with the compiler barrier in Writing: a peer that did not see it has announced itself.
  sys::barrier_everywhere();
  const bool over = c.in->writing.load(memory_order_acquire) == 0;
  // A write that was under way when the ring was frozen, and took longer than anybody waited.
  if (over && refresh_tail(c, fd, false)) end = c.side->tail_seen.load(memory_order_relaxed);
  // SYNC: ordered by the acquire of `writing`, pairs with leave_frozen_ring().
  const uint64_t reached = min_of(c.in->demote_at.load(memory_order_relaxed), end);
  put_back = reached > begin ? reached - begin : 0;
  return over;
}

bool chaos_strikes(const Connection& c, uint32_t one_in) {
  if (!behaviour.chaos) return false;
  // splitmix64 over a counter: any thread, no lock.
  uint64_t z = behaviour.chaos_seed + c.side->chaos.fetch_add(1, memory_order_relaxed) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return (z ^ (z >> 31)) % one_in == 0;
}

bool chaos_splits(const Connection& c) {
  return !c.registrations.load(memory_order_relaxed) && chaos_strikes(c, 3);
}

void make_plain(Connection& c, int fd, Reason reason) {
  Reason none = Reason::none;
  c.side->plain.compare_exchange_strong(none, reason);
  if (!has_channel(c)) return;
  leave_outgoing(c, fd, reason);
  Ask nothing = Ask::nothing;
  c.in->ask.compare_exchange_strong(nothing, Ask::demote);
}

void reset_if_stranded(Connection& c, int fd) {
  if (is_stranded(c, fd)) reset(c, fd);
}

void stop_lending(const Connection& c, int fd) {
  if (c.lends_ids.load(memory_order_relaxed) && put_reset(fd) < 0) silence(fd);
}

namespace {

void has_left(Side& side) {
  if (side.leaver.load(memory_order_relaxed) != thread_id()) return;
  side.leaving_to.store(0, memory_order_relaxed);
  side.delivering.store(false, memory_order_relaxed);  // of a thread that was killed
  before_what_follows();
  side.leaver.store(0, memory_order_relaxed);
}

}  // namespace

bool finish_retreat(Connection& c, int fd) {
  Side& side = *c.side;
  uint32_t leaver = side.leaver.load(memory_order_relaxed);
  if (leaver == 0 || leaver == thread_id() || !is_dead(leaver)) return false;
  const sys::SignalsBlocked alone;
  if (!side.leaver.compare_exchange_strong(leaver, thread_id(), memory_order_relaxed)) return false;
  freeze_incoming(c);
  Reason reason = Reason::none;
  if (side.plain.compare_exchange_strong(reason, Reason::call_left)) reason = Reason::call_left;
  Unread unread{};
  leave_both(c, fd, reason, unread);
  const uint64_t end = side.leaving_to.load(memory_order_relaxed);
  if (c.in->stage.load(memory_order_acquire) != Stage::put_back && side.leaving_from.load(memory_order_relaxed) < end) leave_to_family(c, end);
  note_demotion(c, reason);
  has_left(side);
  readiness_hooks.look_again(c);
  return true;
}

namespace {

void stays(Side& side) {
  uint32_t mine = thread_id();
  side.leaver.compare_exchange_strong(mine, 0, memory_order_relaxed);
}

// A set sees by itself when there is nothing left any more.
void tell_sets(Connection& c) {
  c.side->left_end.load(memory_order_relaxed) == 0 ? readiness_hooks.demoted(c) : readiness_hooks.look_again(c);
}

bool begins_to_leave(Connection& c, int fd) {
  finish_retreat(c, fd);
  uint32_t leaver = 0;
  return c.side->leaver.compare_exchange_strong(leaver, thread_id(), memory_order_relaxed) || leaver == thread_id();
}

}  // namespace

bool retreat(Connection& c, int fd, Reason reason) {
  if (c.lends_ids.load(memory_order_relaxed)) {
    if (!leaves_process(reason)) return false;
    const bool replaced = reset(c, fd);
    if (!replaced) silence(fd);
    return replaced;
  }
  // Without handlers: one that reads would wait for the thread that it interrupts. One at a time: who reads meanwhile counts for one.
  const sys::SignalsBlocked alone;
  if (has_channel(c)) await_step([&] { return begins_to_leave(c, fd); });
  // Frozen before the reason is known: who sees that one demotes politely, and the peer would answer with a fence of its own instead of putting back.
  const bool frozen = has_channel(c) && !c.relayed.load(memory_order_relaxed);
  if (frozen) freeze_incoming(c);
  Reason none = Reason::none;
  c.side->plain.compare_exchange_strong(none, reason);
  if (!has_channel(c) || c.relayed.load(memory_order_relaxed)) return stays(*c.side), false;
  log_line(LogLevel::info, "descriptor %d: back to the kernel (%s)", fd, kReasonCodes[static_cast<uint32_t>(reason)]);
  if (!frozen) freeze_incoming(c);
  Unread unread{};
  leave_both(c, fd, reason, unread);
  const bool replaced = deliver_unread(c, fd, reason, unread);
  if (!replaced) settle_end(c, fd);
  note_demotion(c, reason);
  has_left(*c.side);
  tell_sets(c);
  return replaced;
}

}  // namespace shunt
