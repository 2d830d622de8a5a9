// One sending call: into the kernel before the fence, into the ring, into the kernel again.
// Any thread, signal handlers included. Sleeps only in BlockingWait or in the kernel's own call, with no lock held.
#include <cerrno>
#include <sys/mman.h>

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

constexpr long kTryAgain = -ERESTART;
constexpr long kPassOn = -ENOSYS;  // the kernel's for good: make the kernel's own call
// unix_stream_sendmsg queues one buffer or nothing; a write up to this size is all or EAGAIN, and is not torn by other writers.
constexpr uint64_t kWholeBytes = 32768;

// Before the channel: the kernel's own call, counted, or the one that carries the offer.
long write_candidate(Connection& c, int fd, const SendRequest& request, Sleep sleep) {
  Side& side = *c.side;
  show_evidence(c, fd);
  if (!request.message && !(request.flags & MSG_OOB) && finds_evidence(c, fd)) {
    const long sent = offer(c, fd, request);
    if (sent > 0) return sent;
  }
  const KernelCall call(c, fd, KernelCall::Kind::write);
  if (!call) return kTryAgain;
  const long sent = write_kernel(fd, request, request.flags, sleep);
  if (sent > 0) {
    side.kernel_sent.fetch_add(static_cast<uint64_t>(sent), memory_order_relaxed);
    side.writes.store(side.writes.load(memory_order_relaxed) + 1, memory_order_relaxed);
  }
  return sent;
}

// The kernel knows whether the peer can still read: a send of nothing is answered with EPIPE (and SIGPIPE), never transmitted.
long check_alive(Connection& c, int fd, int flags) {
  const uint64_t now = cycles();
  if (known_alive(c, now) && !c.side->shut_write.load(memory_order_relaxed)) return 0;
  const long result = sys::send(fd, "", 0, (flags & MSG_NOSIGNAL) | MSG_DONTWAIT);
  if (result < 0) return note_gone(c), result;
  note_alive(c, now);
  return 0;
}

long write_ring(Connection& c, int fd, const SendRequest& request) {
  const uint64_t whole = min_of(min_of<uint64_t>(request.bytes, kWholeBytes), class_bytes(c.side->out_map.newest) / 2);
  // Full for us as long as neither the peer's head nor what we know of it moves: whoever polls goes by the latter.
  // (The peer's head is a cache line that the peer writes on every read: not to be touched without need.)
  uint64_t& full_at = c.side->full_at;
  if (full_at != 0 && full_at == c.out->head.load(memory_order_relaxed) + 1 && full_at == c.side->head_seen + 1) return -EAGAIN;
  full_at = 0;
  if (ring_space(c, fd, request.bytes) < whole) {
    if (c.side->out_flow.load(memory_order_relaxed) == Flow::broken) return kTryAgain;
    full_at = c.side->head_seen + 1;
    return -EAGAIN;
  }
  uint64_t bytes = request.bytes;
  if (bytes > kWholeBytes && chaos_splits(c)) bytes -= bytes % 7;
  if (!request.from.all(bytes, [](const uint8_t* part, size_t n) { return sys::accessible(part, n, sys::Access::read); }))
    return -EFAULT;
  long put = 0;
  {
    Writing writing(*c.out);
    if (writing.frozen()) return kTryAgain;
    put = put_into_ring(c, request.from, bytes);
  }
  // The other end left in the meantime, and did not wait for so long: nobody looks into the ring.
  if (is_frozen(c.out->ask.load(memory_order_relaxed))) advance_outgoing(c, fd);
  return put != 0 ? put : -EAGAIN;
}

// Into the ring, and a bell if the reader sleeps. A peer that is gone is told by a question before, or by the bell after. Gives up the lock.
long write_and_ring(Connection& c, int fd, const SendRequest& request, Locked& lock) {
  Side& side = *c.side;
  const bool said_goodbye =
      c.out->gone_reader.load(memory_order_relaxed) != 0 || side.shut_write.load(memory_order_relaxed);
  const bool bell_will_tell = !said_goodbye && bell_is_due(c, fd);
  if (const long dead = bell_will_tell ? 0 : check_alive(c, fd, request.flags); dead < 0) return dead;
  const uint64_t before = side.tail.load(memory_order_relaxed);
  const long sent = write_ring(c, fd, request);
  lock.release();
  if (sent == -EAGAIN && bell_will_tell) {  // no bell after all
    const long dead = check_alive(c, fd, request.flags);
    return dead < 0 ? dead : sent;
  }
  if (sent > 0 && c.sets_want_space.load(memory_order_relaxed) && taken_silently(c)) readiness_hooks.look_again(c);
  if (sent <= 0 || ring_if_data_wanted(c, fd) != Bell::refused || !bell_will_tell) return sent;
  // Nobody is there. Whoever has read of it was there when it was written.
  if (c.out->head.load(memory_order_acquire) > before) return sent;
  uint64_t none = 0;
  side.unsent_from.compare_exchange_strong(none, before + 1, memory_order_relaxed);
  const long dead = sys::send(fd, "", 0, (request.flags & MSG_NOSIGNAL) | MSG_DONTWAIT);  // raises the signal, too
  return dead < 0 ? dead : sent;
}

void note_kernel_write(Connection& c) {
  if (c.out->wants_times.load(memory_order_relaxed)) c.out->kernel_at.store(cycles(), memory_order_relaxed);
}

long write_channel(Connection& c, int fd, const SendRequest& request) {
  Side& side = *c.side;
  Locked lock(side.write_lock);
  if (lock.nested()) return -ENOBUFS;  // a handler that was not held back, in the middle of its thread's write
  fd = open_fd(c, fd);
  const bool settled = advance_outgoing(c, fd);
  if (request.message || (request.flags & MSG_OOB)) {
    // Descriptors, credentials and urgent bytes are the kernel's to carry.
    const Reason reason = request.message ? Reason::carries_descriptors : Reason::out_of_band;
    const bool on_ring = side.out_flow.load(memory_order_relaxed) == Flow::ring;
    if (on_ring && (!settled || !demote_outgoing(c, fd, reason))) return -EAGAIN;
  }
  if (!settled && side.begun != Begun::nothing) return -EAGAIN;
  switch (side.out_flow.load(memory_order_relaxed)) {
    case Flow::kernel: {
      sys::SignalsBlocked alone;  // sent and counted
      side.begun = Begun::sending;
      before_what_follows();
      note_kernel_write(c);
      const long sent = write_kernel(fd, request, request.flags, Sleep::never);
      if (sent > 0) side.kernel_sent.fetch_add(static_cast<uint64_t>(sent), memory_order_relaxed);
      before_what_follows();
      side.begun = Begun::nothing;
      return sent;
    }
    case Flow::ring: {
      if (!settled && is_frozen(c.out->ask.load(memory_order_relaxed))) return -EAGAIN;
      return write_and_ring(c, fd, request, lock);
    }
    case Flow::broken:
      return sys::send(fd, "", 0, (request.flags & MSG_NOSIGNAL) | MSG_DONTWAIT) < 0 ? -EPIPE : -ECONNRESET;
    case Flow::kernel_again:
      return kPassOn;
  }
  return kPassOn;
}

long write_again(Connection& c, int fd, const SendRequest& request, Sleep sleep) {
  note_kernel_write(c);
  const long sent = write_kernel(fd, request, request.flags, sleep);
  if (sent > 0) c.side->sent_after.fetch_add(static_cast<uint64_t>(sent), memory_order_relaxed);
  return sent;
}

}  // namespace

long send(Connection& c, int fd, SendRequest request) {
  Side& side = *c.side;
  const bool nonblocking = (request.flags & MSG_DONTWAIT) || side.nonblocking.load(memory_order_relaxed);
  BlockingWait waiting(side.send_timeout_ns.load(memory_order_relaxed));
  const int number = fd;
  long done = 0;
  for (;;) {
    fd = open_fd(c, number);
    if (fd != number) waiting.note_sleep();  // as in receive()
    const Sleep sleep = waiting.slept() ? Sleep::never : Sleep::allowed;
    if (fd != number) request.own = nullptr;
    bool kernels_own = !has_channel(c);
    long sent = kernels_own ? write_candidate(c, fd, request, sleep) : write_channel(c, fd, request);
    const bool passed_on = sent == kPassOn;
    if (passed_on) {
      kernels_own = true;
      sent = write_again(c, fd, request, sleep);
    }
    if (sent == kTryAgain) {
      if (kernels_own) waiting.note_sleep();
      continue;
    }
    if (sent > 0) {
      done += sent;
      request.from.skip(static_cast<size_t>(sent));
      request.bytes -= static_cast<size_t>(sent);
      // The kernel signals SIGPIPE only if nothing was written; control data goes with the first byte.
      request.flags |= MSG_NOSIGNAL;
      request.message = nullptr;
      request.own = nullptr;
      // The kernel's own call is complete as it is, unless it only carried the offer.
      if (request.bytes == 0 || (kernels_own && sleep == Sleep::allowed && (passed_on || !has_channel(c)))) return done;
      continue;
    }
    if (sent == -EAGAIN && !nonblocking && (!kernels_own || sleep == Sleep::never)) {
      sent = kernels_own ? waiting.for_kernel(fd, POLLOUT) : waiting.for_space(c, fd);
      if (sent == 0) continue;
    }
    return done > 0 ? done : sent;
  }
}

long send_file(Connection& c, int fd, int file, off_t* offset, size_t bytes) {
  constexpr size_t kStep = 65536;
  const long mapped = sys::mmap(nullptr, kStep, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped < 0 && mapped > -4096) return mapped;
  void* buffer = reinterpret_cast<void*>(mapped);
  off_t position = offset ? *offset : 0;
  if (!offset) position = sys::raw(SYS_lseek, file, 0, SEEK_CUR);
  long done = 0, result = position < 0 ? position : 0;
  while (result >= 0 && static_cast<size_t>(done) < bytes) {
    const long got = sys::raw(SYS_pread64, file, buffer, min_of(bytes - static_cast<size_t>(done), kStep), position + done);
    if (got <= 0) {
      result = got;
      break;
    }
    iovec part{buffer, static_cast<size_t>(got)};
    result = send(c, fd, {Cursor(&part, 1), part.iov_len, 0, nullptr});
    if (result > 0) done += result;
    if (result < got) break;
  }
  sys::munmap(buffer, kStep);
  if (done > 0 && offset) *offset += done;
  if (done > 0 && !offset) sys::raw(SYS_lseek, file, position + done, SEEK_SET);
  return done > 0 ? done : result;
}

}  // namespace shunt
