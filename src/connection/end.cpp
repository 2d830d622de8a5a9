// How a stream ends: the kernel announces it, the rings decide what it means. Callers hold what flow.h says.
#include <cerrno>
#include <linux/sockios.h>
#include <fcntl.h>
#include <sys/ioctl.h>

#include "agreement/offer.h"
#include "connection/flow.h"
#include "observe/report.h"
#include "sys/raw.h"

namespace shunt {

using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

// unix_poll: POLLHUP is the end of both directions. Somebody shut each of them, or the peer is gone.
bool only_shut_down(const Connection& c) {
  const uint32_t writing = c.in->gone_writer.load(memory_order_acquire);
  const uint32_t reading = c.out->gone_reader.load(memory_order_acquire);
  if ((writing | reading) & kClosed) return false;
  const Side& side = *c.side;
  return (writing != 0 || side.shut_read.load(memory_order_relaxed)) && (reading != 0 || side.shut_write.load(memory_order_relaxed));
}

// unix_release_sock: a socket closed with unread data sets ECONNRESET on its peer. shutdown(2) does not.
bool pending_reset(const Connection& c, bool kernel_error) {
  const Side& side = *c.side;
  if (c.relayed.load(memory_order_relaxed)) return kernel_error;
  if (side.end_reported) return false;
  kernel_error = kernel_error || side.reset_taken;
  const Flow flow = side.out_flow.load(memory_order_relaxed);
  // Without a fence no bell was ever sent, and without the channel the peer could not say that it only shut down.
  if (flow == Flow::kernel || !peer_attached(c) || (flow == Flow::kernel_again && c.out->stage.load(memory_order_relaxed) == Stage::kernel)) return kernel_error;
  if (!kernel_error && only_shut_down(c)) return false;  // the kernel gives an error for a closed socket only
  const uint32_t passed = c.out->passed.load(memory_order_acquire);
  const uint64_t head = c.out->head.load(memory_order_acquire);
  // The first bell is sent when nothing lies unread in the kernel: what the peer left there afterwards is bells.
  const bool rang = side.bell_arrived.load(memory_order_relaxed);
  const uint64_t unsent_from = side.unsent_from.load(memory_order_relaxed);
  const auto left = [&](uint64_t end) { return head < (unsent_from != 0 ? min_of(end, unsent_from - 1) : end); };
  switch (flow) {
    case Flow::kernel:
    case Flow::ring:
      return (passed == 0 && kernel_error && !rang) || left(side.tail.load(memory_order_relaxed));
    case Flow::kernel_again:
      if (passed == 2 || is_frozen(c.out->ask.load(memory_order_relaxed))) return kernel_error;
      return left(c.out->demote_at.load(memory_order_relaxed)) || side.sent_after.load(memory_order_relaxed) > 0 ||
             (passed == 0 && kernel_error && !rang);
    case Flow::broken:
      return true;
  }
  return false;
}

long end_of_stream(Connection& c, int fd, bool nested) {
  if (known_alive(c, cycles()) && !c.side->shut_read.load(memory_order_relaxed)) return -EAGAIN;
  const short kernel = sys::poll_now(fd, POLLRDHUP);
  if (!(kernel & (POLLRDHUP | POLLHUP))) {
    if (!(kernel & POLLNVAL)) note_alive(c, cycles());
    return -EAGAIN;
  }
  note_gone(c);
  if (refresh_tail(c, fd, nested)) return -ERESTART;  // written just before the end
  if (c.side->in_flow.load(memory_order_relaxed) == Flow::broken) return -ERESTART;
  if (c.in->stage.load(memory_order_acquire) == Stage::kernel_again) return -EAGAIN;  // the rest is in the kernel
  if (!(kernel & POLLHUP) || !pending_reset(c, (kernel & POLLERR) != 0)) return 0;
  c.side->end_reported = true;
  return -ECONNRESET;
}

void break_connection(Connection& c, int fd) {
  Side& side = *c.side;
  const Flow in = side.in_flow.exchange(Flow::broken, memory_order_relaxed);
  const Flow out = side.out_flow.exchange(Flow::broken, memory_order_relaxed);
  if (in == Flow::broken && out == Flow::broken) return;
  if (side.demoted.load(memory_order_relaxed) == Reason::none) note_demotion(c, Reason::broken);
  log_line(LogLevel::error, "descriptor %d: the peer wrote impossible values into shared memory, or bytes past the library: the connection was reset; if it is a program of yours, run it with --skip", fd);
  sys::raw(SYS_shutdown, fd, SHUT_RDWR);  // wakes everybody at both ends who sleeps on it
}

void count_upgrade(Connection& c) {
  if (!c.side->upgraded.exchange(true)) count(totals.upgraded);
}

void note_demotion(Connection& c, Reason reason) {
  Side& side = *c.side;
  Reason none = Reason::none;
  if (side.demoted.compare_exchange_strong(none, reason) && side.upgraded.load(memory_order_relaxed)) {
    count(totals.demoted);
    count(totals.demoted_by[static_cast<uint32_t>(reason)]);
  }
  none = Reason::none;
  side.plain.compare_exchange_strong(none, reason);
}

void note_shutdown(Connection& c, int how) {
  if (how == SHUT_RD || how == SHUT_RDWR) {
    c.side->shut_read.store(true);  // SYNC: seq_cst, pairs with adopt(): one of us tells the channel
    if (c.channel.load()) c.in->gone_reader.store(kShutDown, memory_order_release);
  }
  if (how == SHUT_WR || how == SHUT_RDWR) {
    c.side->shut_write.store(true);
    if (c.channel.load()) c.out->gone_writer.store(kShutDown, memory_order_release);
  }
}

void take_last_bells(Connection& c, int fd) {
  if (!has_channel(c) || c.in->stage.load(memory_order_acquire) != Stage::kernel_again) return;
  Locked lock(c.side->read_lock);
  if (!lock.nested()) advance_incoming(c, fd);
}

void keep_open(Connection& c, int fd) {
  if (c.stand_in.load(memory_order_relaxed) != 0) return;
  long own = -EINVAL;
  for (const int above : {512, 128, 3})
    if (own < 0) own = sys::raw(SYS_fcntl, fd, F_DUPFD_CLOEXEC, above);
  if (own < 0) return;
  int none = 0;
  if (!c.stand_in.compare_exchange_strong(none, static_cast<int>(own) + 1)) {  // SYNC: release, pairs with open_fd()
    sys::close(static_cast<int>(own));
    return;
  }
  { Locked readers_see_it(c.side->read_lock); }
  { Locked writers_see_it(c.side->write_lock); }
  // Who has armed is a few instructions away from his sleep.
  constexpr timespec kOnTheWay{0, 200'000};
  const bool sleepers = c.side->data_sleepers.load() > 0 || c.side->space_sleepers.load() > 0;
  if (sleepers) sys::ppoll(nullptr, 0, &kOnTheWay, nullptr);
}

void close_stand_in(Connection& c) {
  if (const int own = c.stand_in.exchange(0); own != 0) sys::close(own - 1);
}

void note_closed(Connection& c) {
  if (!has_channel(c)) return;
  if (c.side->holders.load(memory_order_relaxed) <= 1) {
    c.in->gone_reader.store(kClosed, memory_order_release);
    c.out->gone_writer.store(kClosed, memory_order_release);
  }
  const Mapping channel{c.channel.exchange(nullptr), min_of(c.in_region.area[1], c.out_region.area[1])};
  if (!unmap_channel(channel, c.header_place)) c.header_place = nullptr;
}

void keep_reset(Connection& c) {
  Locked lock(c.side->read_lock);
  c.side->end_reported = false;
  c.side->reset_taken = true;
}

int take_error(Connection& c, int fd, int kernel_error) {
  const short kernel = sys::poll_now(fd, POLLRDHUP);
  Locked lock(c.side->read_lock);
  if (!(kernel & POLLHUP)) return kernel_error;
  if (!pending_reset(c, kernel_error != 0)) return 0;
  c.side->end_reported = true;
  return ECONNRESET;
}

long readable_bytes(Connection& c, int fd) {
  int kernel = 0;
  const long result = sys::ioctl(fd, FIONREAD, &kernel);
  if (result < 0) return result;
  Locked lock(c.side->read_lock);
  if (!lock.nested()) advance_incoming(c, fd);
  const Flow flow = c.side->in_flow.load(memory_order_relaxed);
  if (flow == Flow::kernel_again || flow == Flow::broken) {
    if (sys::ioctl(fd, FIONREAD, &kernel) < 0) return 0;  // bells were taken
    const uint64_t left = left_in_ring(c), end = c.side->left_end.load(memory_order_relaxed);
    const uint64_t reached = c.side->left_taken ? 0 : min_of(c.in->demote_at.load(memory_order_relaxed), end);
    return kernel + static_cast<long>(min_of(left, end - min_of(reached, end)));  // without what is being put back
  }
  const Stage stage = c.in->stage.load(memory_order_acquire);
  uint64_t bytes = 0;  // in the kernel, without bells
  if (stage == Stage::kernel_again) {
    const uint64_t bells = bells_until(c, static_cast<uint32_t>(c.in->bells_final.load(memory_order_relaxed)));
    bytes = static_cast<uint64_t>(kernel) > bells ? static_cast<uint64_t>(kernel) - bells : 0;
  } else if (flow == Flow::kernel) {
    const uint64_t total = c.in->kernel_total.load(memory_order_relaxed), got = c.side->kernel_received.load(memory_order_relaxed);
    bytes = static_cast<uint64_t>(kernel);
    if (stage != Stage::kernel) bytes = min_of(bytes, total > got ? total - got : 0);
  }
  refresh_tail(c, fd, lock.nested());
  const uint64_t ring = c.side->tail_seen.load(memory_order_relaxed) - c.side->head.load(memory_order_relaxed);
  return static_cast<long>(bytes + ring);
}

long unread_bytes(Connection& c, int fd) {
  int kernel = 0;
  const long result = sys::ioctl(fd, SIOCOUTQ, &kernel);
  if (result < 0) return result;
  Locked lock(c.side->write_lock);
  const Flow flow = c.side->out_flow.load(memory_order_relaxed);
  const uint32_t passed = c.out->passed.load(memory_order_acquire);
  if (flow == Flow::kernel || flow == Flow::broken || passed == 2 || c.relayed.load(memory_order_relaxed)) return kernel;
  if (flow == Flow::kernel_again && is_frozen(c.out->ask.load(memory_order_relaxed))) return kernel;  // the ring's bytes were put back
  if (c.out->gone_reader.load(memory_order_acquire) & kClosed) return 0;  // what a peer left unread is gone with it
  const uint64_t tail = c.side->tail.load(memory_order_relaxed), head = c.out->head.load(memory_order_acquire);
  if (head > tail) return break_connection(c, fd), 0;
  const uint64_t ring = min_of<uint64_t>(tail - head, kMostUnread);
  // What lies in the kernel is data in front of the up-fence, of which nothing was unread when the first bell was sent, or behind the down-fence.
  const bool before = passed == 0 && c.side->bells_rung.load(memory_order_relaxed) == 0;
  const bool behind = c.side->sent_after.load(memory_order_relaxed) > 0;
  return static_cast<long>(ring) + (before || behind ? kernel : 0);
}

}  // namespace shunt
