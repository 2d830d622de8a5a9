// Offer and attach. Raw calls only; no lock of a connection is held while the readiness hook runs.
#include "connection/upgrade.h"

#include <cerrno>
#include <cstring>

#include "agreement/offer.h"
#include "connection/evidence.h"
#include "connection/flow.h"
#include "observe/report.h"
#include "sys/raw.h"
#include "sys/signal_mask.h"
#include "wait/prepare.h"

namespace shunt {

using std::memory_order_relaxed;
using std::memory_order_release;
using std::memory_order_seq_cst;

FamilyLock upgrade_lock;

namespace {

Region region_of(const Mapping& channel, uint32_t direction) {
  Region region{{channel.header + kFirstAreaAt + direction * class_bytes(0)}};
  for (uint32_t k = 1; k < kClasses; ++k) region.area[k] = channel.larger + direction * kLargerBytes + larger_areas_before(k);
  return region;
}

// With signals blocked.
void adopt(Connection& c, const Mapping& channel) {
  auto* header = reinterpret_cast<ChannelHeader*>(channel.header);
  const uint32_t outgoing = c.side->role == Role::acceptor ? kToConnector : kToAcceptor;
  c.out = &header->direction[outgoing];
  // Looked at by readiness before there is a channel. SYNC: release, pairs with gets_channel() and settled().
  __atomic_store_n(&c.in, &header->direction[1 - outgoing], __ATOMIC_RELEASE);
  c.out_region = region_of(channel, outgoing);
  c.in_region = region_of(channel, 1 - outgoing);
  readiness_hooks.channel_appeared(c);
  // SYNC: seq_cst, pairs with KernelCall: a kernel call that begins later sees the channel, one that began earlier is counted.
  c.side->upgraded_by = static_cast<uint32_t>(sys::process_id());
  c.in->old_readers.store(1, memory_order_relaxed);
  c.in->received.store(c.side->kernel_received.load(memory_order_relaxed), memory_order_relaxed);
  c.channel.store(channel.header, memory_order_seq_cst);
  // SYNC: seq_cst, pairs with note_shutdown(): an end that was shut down before there was a channel.
  if (c.side->shut_read.load()) c.in->gone_reader.store(kShutDown, memory_order_release);
  if (c.side->shut_write.load()) c.out->gone_writer.store(kShutDown, memory_order_release);
  if (c.side->kernel_readers.load(memory_order_seq_cst) == 0) c.in->old_readers.store(0, memory_order_relaxed);
}

// Closes the door for kernel calls, if no write and at most one read (the attaching one, or a blocked one) is in flight and nobody else has the
// socket. Two old readers could not tell whose bytes came first, so they could not trim their bells.
bool close_door(Connection& c) {
  if (c.side->holders.load(memory_order_relaxed) != 1 || has_channel(c)) return false;
  c.changing.store(true, memory_order_seq_cst);
  if (c.side->kernel_writers.load(memory_order_seq_cst) == 0 && c.side->kernel_readers.load(memory_order_seq_cst) <= 1) return true;
  c.changing.store(false, memory_order_release);
  return false;
}

Reason reason_without_channel(long error) {
  return sys::refused(error) ? Reason::refused : Reason::no_resources;
}

// Of the write that carries the offer.
Reason reason_of_failure(long error) {
  switch (error) {
    case -ETOOMANYREFS:  // descriptors on their way
    case -ENOBUFS:
    case -ENOMEM:
      return Reason::no_resources;
    case -EPERM:
    case -EACCES:
    case -ENOSYS:
      return Reason::refused;
    default:
      return Reason::offer_failed;
  }
}

// The program may have asked since the marker for what a ring cannot give, or begun to wait past the library.
Reason reason_to_refuse(Connection& c, int fd) {
  if (c.side->holders.load(memory_order_relaxed) != 1) return Reason::shared_before_upgrade;
  if (!has_evidence(c) || !readiness_hooks.may_upgrade(c)) return Reason::unseen_use;
  if (!prepare_to_upgrade()) return Reason::no_resources;
  return refresh_description(c, fd);
}

void attach(Connection& c, int fd, int memfd) {
  Reason refusal = reason_to_refuse(c, fd);
  Locked upgrading(upgrade_lock);
  Mapping channel{c.header_place, nullptr};
  if (refusal != Reason::none) {
    // stays as it is
  } else if (upgrading.nested() || !close_door(c)) {
    refusal = Reason::busy_at_offer;
  } else {
    const long mapped = c.side->plain.load(memory_order_relaxed) == Reason::none ? map_channel(memfd, c.side->bits, channel) : -EPERM;
    if (mapped == 0) {
      adopt(c, channel);
      // SYNC: release, pairs with the acceptor's acquire in peer_attached().
      reinterpret_cast<ChannelHeader*>(channel.header)->attached.store(1, memory_order_release);
    } else if (mapped != -EPERM) {
      refusal = mapped == -EPROTO ? Reason::bad_offer : Reason::no_resources;
      if (mapped != -EPROTO) c.header_place = nullptr;
    }
    c.changing.store(false, memory_order_release);
  }
  if (refusal != Reason::none) stay_plain(c, refusal);
}

}  // namespace

long offer(Connection& c, int fd, const SendRequest& request) {
  sys::SignalsBlocked alone;
  if (!prepare_to_upgrade()) return stay_plain(c, Reason::no_resources), -EAGAIN;
  Mapping channel{c.header_place, nullptr};
  int memfd = -1;
  {
    Locked upgrading(upgrade_lock);
    if (upgrading.nested() || !close_door(c)) return -EAGAIN;
    long made = sys::poll_now(fd, POLLOUT) & POLLOUT ? 0 : -EAGAIN;  // the write that carries the offer must not fail for want of room
    if (const Reason reason = made == 0 ? refresh_description(c, fd) : Reason::none; reason != Reason::none) {
      stay_plain(c, reason);
      made = -EPERM;
    }
    if (made == 0) {
      made = create_channel(c.side->bits, channel, memfd);
      if (made < 0) stay_plain(c, reason_without_channel(made)), c.header_place = nullptr;
    }
    if (made == 0) adopt(c, channel);
    c.changing.store(false, memory_order_release);
    if (made < 0) return -EAGAIN;
  }
  iovec parts[16];
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = request.from.rest(parts, 16, request.bytes);
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  *header = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
  memcpy(CMSG_DATA(header), &memfd, sizeof(int));
  long sent;
  {
    Locked writing(c.side->write_lock);
    sent = sys::sendmsg(fd, &message, (request.flags & ~MSG_OOB) | MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent > 0) c.side->kernel_sent.fetch_add(static_cast<uint64_t>(sent), memory_order_relaxed);
  }
  sys::close(memfd);
  if (sent <= 0) {
    make_plain(c, fd, reason_of_failure(sent));  // never sent, so never attached: the write goes on in the kernel and reports its own error
    return -EAGAIN;
  }
  count(totals.kernel_ops_out);
  count(totals.kernel_bytes_out, static_cast<uint64_t>(sent));
  log_line(LogLevel::debug, "descriptor %d: offered a channel", fd);
  return sent;
}

bool take_offer(Connection& c, int fd, const cmsghdr& item) {
  if (item.cmsg_level != SOL_SOCKET || item.cmsg_type != SCM_RIGHTS || item.cmsg_len != CMSG_LEN(sizeof(int))) return false;
  sys::SignalsBlocked alone;
  int memfd;
  memcpy(&memfd, CMSG_DATA(&item), sizeof memfd);
  if (!is_offer(memfd, c.side->bits)) return false;  // the program's own descriptor
  attach(c, fd, memfd);
  c.side->offer_seen.store(true, memory_order_relaxed);
  sys::close(memfd);
  return true;
}

std::atomic<uint32_t>& KernelCall::calls() const {
  return kind_ == Kind::read ? connection_.side->kernel_readers : connection_.side->kernel_writers;
}

// Unless the door is closed. SYNC: the count is a full barrier, pairs with close_door() and adopt().
KernelCall::KernelCall(Connection& connection, int fd, Kind kind) : connection_(connection), fd_(fd), kind_(kind) {
  begin(kFate);
  count_and_mark(calls(), 1, counted_, 1);
  if (!connection.changing.load(memory_order_seq_cst) && !connection.channel.load(memory_order_seq_cst)) return;
  count_and_mark(calls(), ~0u, counted_, 0);
  Locked wait_for_the_change(upgrade_lock);
  if (!wait_for_the_change.nested() || has_channel(connection)) return;
  count_and_mark(calls(), 1, counted_, 1);  // a handler inside its own thread's upgrade: the fence comes later
}

void KernelCall::end() {
  if (counted_ != 0) count_and_mark(calls(), ~0u, counted_, 0);
  if (kind_ == Kind::read && calls().load(memory_order_seq_cst) == 0 && has_channel(connection_))
    connection_.in->old_readers.store(0, memory_order_release);
}

KernelCall::~KernelCall() {
  end();
  done();
}

void KernelCall::go_on(Duty& duty, Whose whose) {
  const auto& self = static_cast<KernelCall&>(duty);
  if (whose == Whose::childs && self.counted_ != 0) self.calls().fetch_add(1, memory_order_seq_cst);
}

// Nobody knows whether the kernel has moved bytes, and how many. What was read can be told at the fence; what was written cannot.
void KernelCall::undo(Duty& duty) {
  auto& self = static_cast<KernelCall&>(duty);
  Side& side = *self.connection_.side;
  if (self.kind_ == Kind::write && self.counted_ != 0) {
    Reason none = Reason::none;
    side.plain.compare_exchange_strong(none, Reason::call_left, memory_order_relaxed);
  } else if (self.counted_ != 0) {
    Locked lock(side.read_lock);
    side.received_in_doubt = true;
    recount_bells(self.connection_, self.fd_);
  }
  self.end();
}

}  // namespace shunt
