// One receiving call, from wherever its bytes are: the kernel before the fence, the ring, the kernel again.
// Any thread, signal handlers included. Sleeps only in BlockingWait or in the kernel's own call, with no lock held.
#include <cerrno>
#include <sys/ioctl.h>

#include "connection/evidence.h"
#include "connection/flow.h"
#include "connection/kernel_io.h"
#include "connection/sleep.h"
#include "connection/upgrade.h"
#include "sys/raw.h"
#include "sys/signal_mask.h"
#include "sys/user_memory.h"

namespace shunt {

using std::memory_order_acquire;
using std::memory_order_relaxed;

namespace {

constexpr long kTryAgain = -ERESTART;  // the state moved on: look again at once
constexpr long kTimedOut = -ETIME;     // the kernel's own call gave EAGAIN
constexpr long kAway = -EBUSY;         // EAGAIN for a moment: the ring's bytes come through the kernel, or a fence waits for others of ours

// It may be asked first whether it has to wait: a program that polls past the library never has to, and would wait in vain for what comes by the ring.
long read_own(Connection& c, int fd, ReceiveRequest& request, Sleep sleep) {
  constexpr int kOneAnswer = MSG_PEEK | MSG_DONTWAIT;
  const bool blocks = sleep == Sleep::allowed && !(request.flags & kOneAnswer) && !c.side->nonblocking.load(memory_order_relaxed);
  bool waits = false;
  if (blocks && (request.flags & MSG_WAITALL) && wants_probe(c)) {
    char byte;  // a part of what the program wants all of must not be taken
    waits = sys::recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == -EAGAIN;
  } else if (blocks && wants_probe(c)) {
    const long got = read_kernel(c, fd, request, request.bytes, request.flags, Sleep::never);
    if (got >= 0 || got == -ECONNRESET) return got;
    waits = got == -EAGAIN;
  }
  const long got = read_kernel(c, fd, request, request.bytes, request.flags & ~MSG_WAITALL, sleep);
  if (waits && got > 0) note_wait(c);
  return got;
}

// Before the channel: the kernel's own call, counted. It may sleep for long, so it holds no lock.
long read_candidate(Connection& c, int fd, ReceiveRequest& request, Sleep sleep) {
  const bool peek = request.flags & MSG_PEEK;
  long got;
  show_evidence(c, fd);
  {
    KernelCall call(c, fd, KernelCall::Kind::read);
    if (!call) return kTryAgain;
    got = read_own(c, fd, request, sleep);
    Locked lock(c.side->read_lock);
    if (!peek) note_read(c, got, request.bytes);
    if (got > 0 && !peek) {
      const long data = account_kernel_bytes(c, got, request.to);
      if (data == 0) got = kTryAgain;  // nothing but bells: the fence was placed while we slept
      else got = data;
    }
    if (got == -ECONNRESET && has_channel(c)) c.side->reset_taken = true;
    if (got == 0 && request.bytes > 0 && withholds_reset(c) && !has_channel(c)) {
      c.side->end_reported = true;
      got = -ECONNRESET;
    }
    call.end();
  }
  // What was peeked at may be a bell, and an end may be the kernel's alone: with a channel, look again there.
  const bool uncertain = (got > 0 && peek) || got == 0 || got == -ECONNRESET;
  return uncertain && has_channel(c) ? kTryAgain : got;
}

// The kernel says with 0 or −ECONNRESET that the stream has ended. It counts a bell that the peer left unread as bytes, and bytes left in the ring
// not at all.
long ended(Connection& c, int fd, long got) {
  int queued = 0;
  if (got == 0 && (!(sys::poll_now(fd, 0) & POLLHUP) || sys::ioctl(fd, FIONREAD, &queued) < 0 || queued > 0))
    return 0;  // a read of nothing, or behind a shutdown
  if (!pending_reset(c, got < 0)) return 0;
  c.side->end_reported = true;
  return -ECONNRESET;
}

// With a channel, before the up-fence was reached.
long read_before_fence(Connection& c, int fd, ReceiveRequest& request) {
  Side& side = *c.side;
  if (has_old_readers(c)) return -EAGAIN;  // an old reader's bytes come first, and are not counted yet
  // Counted before the look at the fence: what lies there now came before any fence, so it is all data.
  int queued = 0;
  sys::ioctl(fd, FIONREAD, &queued);
  uint64_t limit = min_of(request.bytes, static_cast<size_t>(queued));
  if (c.in->stage.load(memory_order_acquire) != Stage::kernel) {
    const uint64_t total = c.in->kernel_total.load(memory_order_relaxed), received = side.kernel_received.load(memory_order_relaxed);
    limit = min_of<uint64_t>(min_of<uint64_t>(request.bytes, total > received ? total - received : 0), static_cast<uint64_t>(queued));
  }
  if (limit > 0) {
    sys::SignalsBlocked alone;  // taken and counted
    const bool in_doubt = side.received_in_doubt;
    side.received_in_doubt = true;
    before_what_follows();
    const long got = read_kernel(c, fd, request, limit, request.flags & ~MSG_WAITALL, Sleep::never);
    if (got > 0 && !(request.flags & MSG_PEEK)) side.kernel_received.fetch_add(static_cast<uint64_t>(got), memory_order_relaxed);
    publish_received(c);
    before_what_follows();
    side.received_in_doubt = in_doubt;
    return got;
  }
  if (queued > 0) return request.bytes == 0 ? 0 : -EAGAIN;
  char byte;
  const long got = sys::recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  if (got > 0) return kTryAgain;
  if (got == 0 || got == -ECONNRESET) {
    side.reset_taken = side.reset_taken || got == -ECONNRESET;
    // The end, unless the fence was placed since: then the ring has the rest.
    advance_incoming(c, fd);
    if (side.in_flow.load(memory_order_relaxed) != Flow::kernel) return kTryAgain;
    return ended(c, fd, got);
  }
  return got;
}

long read_ring(Connection& c, int fd, ReceiveRequest& request, bool nested, bool ask_kernel) {
  uint64_t bytes = request.bytes;
  if (bytes > 1 && chaos_splits(c)) bytes = 1 + bytes / 3;
  const bool peek = request.flags & MSG_PEEK;
  if (c.side->leaving) return kAway;
  if (bytes == 0 && refresh_tail(c, fd, nested)) return 0;
  if (!refresh_tail(c, fd, nested)) {
    // nothing to copy
  } else if (!request.to.all(min_of(bytes, c.side->tail_seen.load(memory_order_relaxed) - c.side->head.load(memory_order_relaxed)),
                             [](const uint8_t* part, size_t n) { return sys::accessible(part, n, sys::Access::write); })) {
    return -EFAULT;
  } else if (const long got = take_from_ring(c, fd, request.to, bytes, peek, nested); got != 0) {
    if (got > 0 && request.message) fill_message(c, fd, *request.message);
    return got;
  }
  if (c.side->in_flow.load(memory_order_relaxed) == Flow::broken) return kTryAgain;
  if (!nested && c.in->stage.load(memory_order_acquire) == Stage::kernel_again) {
    if (refresh_tail(c, fd, nested)) return kTryAgain;
    advance_incoming(c, fd);
    if (c.side->in_flow.load(memory_order_relaxed) != Flow::ring) return kTryAgain;
    if (fence_waits(*c.side)) return kAway;  // until they have woken up
  }
  if (!ask_kernel) return -EAGAIN;
  const long end = end_of_stream(c, fd, nested);
  if (end != -EAGAIN && request.message) fill_message(c, fd, *request.message);
  return end;
}

// What a retreat left has been read. Bells behind it are skipped where the peer had left the ring by itself.
long end_of_left(Connection& c, int fd) {
  const bool fenced = c.in->stage.load(memory_order_acquire) == Stage::kernel_again;
  if (fenced && !take_last_bells_of_fence(c, fd)) return -EAGAIN;
  c.side->left_end.store(0, memory_order_relaxed);
  return kTryAgain;
}

// A retreat left bytes in the ring, and the peer has not put them back: we read them there, behind those in the kernel.
long read_left(Connection& c, int fd, ReceiveRequest& request) {
  Side& side = *c.side;
  if (left_in_ring(c) == 0) return end_of_left(c, fd);
  const uint64_t begin = side.head.load(memory_order_relaxed);
  uint64_t end = side.left_end.load(memory_order_relaxed);
  if (!side.left_taken) {
    uint64_t put_back = 0;
    if (!take_over(c, fd, begin, end, put_back)) {
      if (!(sys::poll_now(fd, POLLRDHUP) & (POLLRDHUP | POLLHUP))) return -EAGAIN;  // it is just putting them back
      if (c.in->writing.load(memory_order_acquire) == 0) return kTryAgain;          // or saw the question, and sent more before it ended
      put_back = put_back_by_dead(fd, side.left_kernel, side.left_read, end - begin);
    }
    if (left_in_ring(c) == 0) return kTryAgain;
    const uint64_t came = side.left_kernel + put_back;
    side.left_kernel = came > side.left_read ? came - side.left_read : 0;
    side.left_read = 0;
    side.head.store(begin + put_back, memory_order_relaxed);
    side.left_end.store(end, memory_order_relaxed);
    side.left_taken = true;
    return kTryAgain;
  }
  if (side.left_kernel > 0) {
    sys::SignalsBlocked alone;  // taken and counted
    const long got = read_kernel(c, fd, request, min_of(request.bytes, side.left_kernel), request.flags & ~MSG_WAITALL, Sleep::never);
    if (got > 0 && !(request.flags & MSG_PEEK)) side.left_kernel -= static_cast<uint64_t>(got);
    if (got > 0 || request.bytes == 0) return got;
    side.left_kernel = 0;  // another holder of the socket took them
  }
  const uint64_t bytes = min_of(request.bytes, end - begin);
  if (bytes == 0) return 0;
  if (!request.to.all(bytes, [](const uint8_t* part, size_t n) { return sys::accessible(part, n, sys::Access::write); })) return -EFAULT;
  const long got = take_from_ring(c, fd, request.to, bytes, request.flags & MSG_PEEK, false);
  if (got < 0) return got;
  if (side.head.load(memory_order_relaxed) >= end) end_of_left(c, fd);
  if (request.message) fill_message(c, fd, *request.message);
  return got > 0 ? got : kTryAgain;
}

// Another thread leaves, and the peer has a moment to put back what lies in the ring: until it has, or sees that somebody takes over, nothing else comes
// through the kernel. Counted, in case it does not come to the end.
long read_returning(Connection& c, int fd, ReceiveRequest& request) {
  sys::SignalsBlocked alone;  // taken and counted
  const long got = read_kernel(c, fd, request, request.bytes, request.flags & ~MSG_WAITALL, Sleep::never);
  if (got > 0 && !(request.flags & MSG_PEEK)) c.side->left_read += static_cast<uint64_t>(got);
  if (got == -ECONNRESET) c.side->reset_taken = true;
  const bool may_come = (got == 0 && request.bytes > 0) || got == -EAGAIN || got == -ECONNRESET;
  return may_come ? kAway : got;
}

// Another thread leaves, with bytes in the ring for which the peer has a moment.
bool is_being_left(const Side& side) {
  const uint32_t leaver = side.leaver.load(memory_order_relaxed);
  const bool leaves_some = side.leaving_from.load(memory_order_relaxed) < side.leaving_to.load(memory_order_relaxed);
  return side.delivering.load(memory_order_relaxed) || (leaver != 0 && leaver != thread_id() && leaves_some);
}

long read_channel(Connection& c, int fd, ReceiveRequest& request, bool ask_kernel, Sleep sleep) {
  Side& side = *c.side;
  {
    Locked lock(side.read_lock);
    fd = open_fd(c, fd);
    if (!lock.nested()) advance_incoming(c, fd);
    switch (side.in_flow.load(memory_order_relaxed)) {
      case Flow::kernel:
        return read_before_fence(c, fd, request);
      case Flow::ring: {
        const long got = read_ring(c, fd, request, lock.nested(), ask_kernel);
        const bool nested = lock.nested();
        lock.release();
        if (nested) full_barrier();  // the outer section has not unlocked yet
        if (got > 0) ring_if_space_wanted(c, fd);
        return got;
      }
      case Flow::broken:
        if (side.end_reported) return 0;
        side.end_reported = true;
        return -ECONNRESET;
      case Flow::kernel_again:
        if (side.delivering.load(memory_order_relaxed)) return -EAGAIN;  // for a moment
        if (side.left_end.load(memory_order_relaxed) != 0) return lock.nested() ? -EAGAIN : read_left(c, fd, request);
        if (is_being_left(side)) return lock.nested() ? -EAGAIN : read_returning(c, fd, request);
    }
  }
  if (putback_pending(c)) sleep = Sleep::never;
  const long got = read_kernel(c, fd, request, request.bytes, request.flags & ~MSG_WAITALL, sleep);
  if (got == -EAGAIN && sleep == Sleep::allowed) return kTimedOut;
  if (got != 0 && got != -ECONNRESET) return got;
  Locked lock(side.read_lock);
  return ended(c, fd, got);
}

// A read stops at an urgent byte.
bool urgent_byte_ahead(int fd) { return sys::poll_now(fd, POLLPRI) & POLLPRI; }

// Everything before a fence was read and the fence is there: what follows is to be had elsewhere, now.
bool at_fence(const Connection& c, int fd) {
  const Side& side = *c.side;
  const Stage stage = c.in->stage.load(memory_order_acquire);
  const Flow flow = side.in_flow.load(memory_order_relaxed);
  const bool up = flow == Flow::kernel && stage != Stage::kernel &&
                  side.kernel_received.load(memory_order_relaxed) == c.in->kernel_total.load(memory_order_relaxed);
  const bool down = flow == Flow::ring && stage == Stage::kernel_again &&
                    side.head.load(memory_order_relaxed) == c.in->demote_at.load(memory_order_relaxed);
  return (up || down) && !urgent_byte_ahead(fd);
}

// The end that reads but never writes places its own fence and follows the peer's demotion here.
void keep_up(Connection& c, int fd) {
  const Flow flow = c.side->out_flow.load(memory_order_relaxed);
  const bool due = flow == Flow::kernel || (flow == Flow::ring && (c.in->stage.load(memory_order_relaxed) == Stage::kernel_again ||
                                                                  c.out->ask.load(memory_order_relaxed) != Ask::nothing ||
                                                                  c.side->plain.load(memory_order_relaxed) != Reason::none));
  if (!due) return;
  if (const TriedLock lock(c.side->write_lock); lock) advance_outgoing(c, fd);
}

// Another thread or process of ours is leaving the ring, or wakes up so that a fence can be passed: what this one may have been told of is soon here. Not for
// ever: that one may have been stopped.
bool await_others(const Connection& c, uint32_t& looks) {
  constexpr uint32_t kMostForLeaver = 2000, kMostForSleepers = 50;
  const uint32_t leaver = c.side->leaver.load(memory_order_relaxed);
  const bool sleepers = leaver == 0 && fence_waits(*c.side);
  if (leaver == thread_id() || looks++ >= (sleepers ? kMostForSleepers : kMostForLeaver)) return false;
  if (leaver != 0 || sleepers) sys::pause_briefly();
  return true;
}

size_t low_water_mark(int fd) {
  int bytes = 1;
  socklen_t length = sizeof bytes;
  sys::raw(SYS_getsockopt, fd, SOL_SOCKET, SO_RCVLOWAT, &bytes, &length);
  return bytes > 1 ? static_cast<size_t>(bytes) : 1;
}

// recvmsg's header while a call takes one part behind the other: the first one that brings control data is the last one that may.
class Header {
 public:
  explicit Header(msghdr* header) : header_(header), asked_(header ? *header : msghdr{}) {}
  bool has_control() const { return header_ && header_->msg_controllen > 0; }
  // unix_stream_read_generic: a read ends behind descriptors.
  bool has_descriptors() const {
    if (!has_control()) return false;
    for (cmsghdr* item = CMSG_FIRSTHDR(header_); item; item = CMSG_NXTHDR(header_, item))
      if (item->cmsg_level == SOL_SOCKET && item->cmsg_type == SCM_RIGHTS) return true;
    return false;
  }
  // What one part was cut off, all were.
  void note_part() {
    if (header_) flags_ = header_->msg_flags |= flags_;
    is_between_ = false;
  }
  // The next part has the room that the program gave.
  void begin_part() {
    if (!header_) return;
    answered_ = *header_;
    header_->msg_namelen = asked_.msg_namelen;
    header_->msg_controllen = asked_.msg_controllen;
    is_between_ = true;
  }
  // It brought nothing.
  void end() {
    if (header_ && is_between_) *header_ = answered_;
  }

 private:
  msghdr* header_;
  msghdr asked_;
  msghdr answered_{};
  int flags_ = 0;
  bool is_between_ = false;
};

}  // namespace

long receive(Connection& c, int fd, ReceiveRequest request) {
  Side& side = *c.side;
  const bool nonblocking = (request.flags & MSG_DONTWAIT) || side.nonblocking.load(memory_order_relaxed);
  const int flags = request.flags;
  BlockingWait waiting(side.receive_timeout_ns.load(memory_order_relaxed));
  const size_t enough = (request.flags & (MSG_WAITALL | MSG_PEEK)) == MSG_WAITALL ? request.bytes : 1;
  const int number = fd;
  Header header(request.message);
  long done = 0;
  uint32_t looks = 0;
  for (bool ask_kernel = nonblocking;; ask_kernel = true) {
    fd = open_fd(c, number);
    // It was closed under this call. Whoever did that counts on the call's being inside: a signal that he sends ends it.
    if (fd != number) waiting.note_sleep();
    const Sleep sleep = waiting.slept() ? Sleep::never : Sleep::allowed;
    const bool candidate = !has_channel(c);
    const bool offer_seen = side.offer_seen.load(memory_order_relaxed);
    const bool is_leaving = !candidate && side.leaver.load(memory_order_relaxed) != 0;
    if (is_leaving) finish_retreat(c, fd);
    if (!candidate) keep_up(c, fd);
    if (fd != number) request.own = nullptr;
    long got = candidate ? read_candidate(c, fd, request, sleep) : read_channel(c, fd, request, ask_kernel, sleep);
    if (got == kTryAgain) {
      if (candidate) waiting.note_sleep();
      continue;
    }
    if (got > 0) {
      done += got;
      header.note_part();
      if (static_cast<size_t>(got) == request.bytes || (request.flags & MSG_PEEK)) return done;
      if (request.complete && !(candidate && has_channel(c))) return done;  // else a channel came meanwhile: it may have ended at a fence
      // A read ends neither at a fence nor, as the kernel ends it, at the message that carried the offer.
      const bool offered = candidate && side.offer_seen.load(memory_order_relaxed) != offer_seen;
      const bool goes_on = (offered && !urgent_byte_ahead(fd)) || (!candidate && at_fence(c, fd));
      const bool satisfied = static_cast<size_t>(done) >= enough;
      if ((satisfied && !goes_on) || header.has_descriptors()) return done;
      if (satisfied) request.flags |= MSG_DONTWAIT, request.satisfied = true;
      request.to.skip(static_cast<size_t>(got));
      request.bytes -= static_cast<size_t>(got);
      request.own = nullptr;
      request.complete = false;
      if (const size_t mark = offered ? low_water_mark(fd) : 1; mark > static_cast<size_t>(done)) {
        // The kernel counts the mark anew in each call: ask for what is missing, no more.
        const long more = receive(c, fd, {request.to, min_of(mark - static_cast<size_t>(done), request.bytes), flags, nullptr});
        if (more <= 0) return done;
        done += more;
        request.to.skip(static_cast<size_t>(more));
        request.bytes -= static_cast<size_t>(more);
        if (request.bytes == 0) return done;
      }
      if (header.has_control())
        request.message = nullptr;
      else
        header.begin_part();
      continue;
    }
    // unix_stream_read_generic: sock_error() is asked, and so cleared, only by a call that has not got enough yet.
    if (done > 0 && static_cast<size_t>(done) >= enough && got == -ECONNRESET) keep_reset(c);
    if (done > 0 && static_cast<size_t>(done) >= enough) return header.end(), done;
    const bool away = got == kAway || (is_leaving && (got == -EAGAIN || got == kTimedOut));
    if (away && nonblocking && await_others(c, looks)) continue;
    if (got == kAway) got = -EAGAIN;
    if (got == -EAGAIN && !candidate) ring_for_the_dead(c, fd);
    if (got == -EAGAIN && !nonblocking && (!candidate || sleep == Sleep::never)) {
      const bool kernels = candidate || (side.in_flow.load(memory_order_relaxed) == Flow::kernel_again && !putback_pending(c) &&
                                         side.left_end.load(memory_order_relaxed) == 0 && !is_being_left(side));
      got = kernels ? waiting.for_kernel(fd, POLLIN) : waiting.for_data(c, fd);
      if (got == 0) continue;
    }
    if (got == kTimedOut) got = -EAGAIN;
    if (done > 0) return header.end(), done;
    if (got == 0 && request.message && !request.complete) {  // as the kernel leaves it where no message was
      request.message->msg_namelen = 0;
      request.message->msg_controllen = 0;
      request.message->msg_flags = 0;
    }
    return got;
  }
}

}  // namespace shunt
