// Counts are relaxed: a lost one delays an upgrade. Raw calls only; any of them may be refused, which makes the connection plain.
#include "connection/evidence.h"

#include <cerrno>
#include <fcntl.h>
#include <sys/time.h>

#include "agreement/marker.h"
#include "connection/flow.h"
#include "connection/upgrade.h"
#include "sys/raw.h"

namespace shunt {

using std::memory_order_relaxed;

namespace {

// A program that waits past the library may have waited through it at first. A peer that answers fast leaves a few reads without a wait, too.
constexpr uint32_t kMostUnwaited = 4;
constexpr uint32_t kLongLived = 16;  // calls that moved bytes: with fewer no connection leaves the kernel for sure

// <asm-generic/socket.h>: not all of them are in the headers of every libc.
constexpr int kPassSecurity = 34, kPassPidFd = 76, kPassRights = 83, kInQueue = 84;

// From one look for the marker to the next: 1, 2, 4, 8 ... writes. Who is eager looks at each of the first ones.
uint32_t next_distance(uint32_t writes) {
  constexpr uint32_t kEagerLooks = 16;
  uint32_t distance = 1;
  if (behaviour.writes_before_offer == 0 && writes < kEagerLooks) return distance;
  while (behaviour.writes_before_offer + 2 * distance - 1 <= writes) distance *= 2;
  return distance;
}

bool is_candidate(const Side& side) {
  return behaviour.offers && side.plain.load(memory_order_relaxed) == Reason::none;
}

// `missing`: where the kernel does not know the option. False: the question was refused.
bool ask_option(int fd, int name, int missing, int& value) {
  value = missing;
  socklen_t length = sizeof value;
  const long result = sys::raw(SYS_getsockopt, fd, SOL_SOCKET, name, &value, &length);
  if (result < 0) value = missing;
  return result == 0 || result == -ENOPROTOOPT || result == -EOPNOTSUPP;
}

bool ask_timeout(int fd, int option, std::atomic<uint64_t>& timeout_ns) {
  uint64_t now;
  if (!kernel_timeout(fd, option, now)) return false;
  // A negative time reads back as 0, as "for ever" does: what the library has seen being set is more exact.
  if (now != 0 || timeout_ns.load(memory_order_relaxed) != 1) timeout_ns.store(now, memory_order_relaxed);
  return true;
}

struct Rule {
  int option;
  int missing;     // the value where the kernel has no such option
  int least, most; // values that leave the connection free
  Reason reason;
};
// unix_stream_recvmsg attaches what these ask for to each message; a ring cannot.
constexpr Rule kRules[] = {
    {SO_PASSCRED, 0, 0, 0, Reason::pass_credentials}, {kPassSecurity, 0, 0, 0, Reason::pass_credentials},
    {kPassPidFd, 0, 0, 0, Reason::pass_credentials},  {kInQueue, 0, 0, 0, Reason::pass_credentials},
    {kPassRights, 1, 1, 1, Reason::pass_credentials}, {SO_RCVLOWAT, 1, 0, 1, Reason::low_water},
    {SO_PEEK_OFF, -1, -1, -1, Reason::peek_offset},
};

}  // namespace

bool kernel_timeout(int fd, int option, uint64_t& ns) {
  timeval value{};
  socklen_t length = sizeof value;
  if (sys::raw(SYS_getsockopt, fd, SOL_SOCKET, option, &value, &length) < 0) return false;
  ns = static_cast<uint64_t>(value.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(value.tv_usec) * 1'000;
  return true;
}

bool has_evidence(const Connection& c) {
  const Side& side = *c.side;
  const uint32_t reads = side.reads.load(memory_order_relaxed), writes = side.writes.load(memory_order_relaxed);
  if (reads == 0 || writes == 0 || reads + writes < behaviour.calls_before_evidence) return false;
  return side.waits.load(memory_order_relaxed) >= behaviour.waits_before_evidence &&
         (side.unwaited.load(memory_order_relaxed) <= kMostUnwaited || behaviour.waits_before_evidence == 0);
}

Reason reason_without_offer(const Connection& c) {
  const Side& side = *c.side;
  const uint32_t reads = side.reads.load(memory_order_relaxed), writes = side.writes.load(memory_order_relaxed);
  if (side.marked.load(memory_order_relaxed)) return Reason::no_offer;
  if (side.next_look.load(memory_order_relaxed) != 0) return Reason::peer_unaware;
  if (reads + writes < kLongLived) return Reason::short_lived;
  if (!has_evidence(c)) return Reason::unseen_use;
  return side.role == Role::acceptor ? Reason::peer_unaware : Reason::no_offer;
}

void note_read(Connection& c, long got, size_t asked) {
  Side& side = *c.side;
  if (got > 0) {
    side.reads.store(side.reads.load(memory_order_relaxed) + 1, memory_order_relaxed);
    if (side.drained.load(memory_order_relaxed)) side.unwaited.store(side.unwaited.load(memory_order_relaxed) + 1, memory_order_relaxed);
  }
  if (got > 0 || got == -EAGAIN) side.drained.store(got < static_cast<long>(asked), memory_order_relaxed);
}

bool wants_probe(const Connection& c) {
  const Side& side = *c.side;
  if (!is_candidate(side) || side.reads.load(memory_order_relaxed) < behaviour.reads_before_probes) return false;
  return side.waits.load(memory_order_relaxed) < behaviour.waits_before_evidence || side.unwaited.load(memory_order_relaxed) > 1;
}

Reason refresh_description(Connection& c, int fd) {
  Side& side = *c.side;
  const long flags = sys::raw(SYS_fcntl, fd, F_GETFL);
  if (flags < 0) return Reason::refused;
  if (flags & O_ASYNC) return Reason::signal_driven;
  for (const Rule& rule : kRules) {
    int value;
    if (!ask_option(fd, rule.option, rule.missing, value)) return Reason::refused;
    if (value < rule.least || value > rule.most) return rule.reason;
  }
  if (!ask_timeout(fd, SO_RCVTIMEO, side.receive_timeout_ns) || !ask_timeout(fd, SO_SNDTIMEO, side.send_timeout_ns)) return Reason::refused;
  side.nonblocking.store((flags & O_NONBLOCK) != 0, memory_order_relaxed);
  return Reason::none;
}

void show_evidence(Connection& c, int fd) {
  Side& side = *c.side;
  if (side.role != Role::connector || side.marked.load(memory_order_relaxed) || !is_candidate(side) || !has_evidence(c)) return;
  if (side.holders.load(memory_order_relaxed) != 1 || !readiness_hooks.may_upgrade(c) || chaos_strikes(c, 3)) return;
  Locked upgrading(upgrade_lock);
  if (upgrading.nested() || side.marked.load(memory_order_relaxed)) return;
  Reason reason = refresh_description(c, fd);
  if (reason == Reason::none) {
    const long bound = bind_marker(fd, side.bits);
    if (bound == 0) side.marked.store(true, memory_order_relaxed);
    if (bound < 0) reason = bound == -EINVAL ? Reason::own_name : Reason::refused;
  }
  if (reason != Reason::none) stay_plain(c, reason);
}

bool finds_evidence(Connection& c, int fd) {
  Side& side = *c.side;
  const uint32_t writes = side.writes.load(memory_order_relaxed);
  if (side.role != Role::acceptor || writes < side.next_look.load(memory_order_relaxed) || writes < behaviour.writes_before_offer) return false;
  if (!is_candidate(side) || !has_evidence(c) || !readiness_hooks.may_upgrade(c) || chaos_strikes(c, 2)) return false;
  sockaddr_un name{};
  socklen_t length = sizeof name;
  if (sys::raw(SYS_getpeername, fd, &name, &length) < 0) return stay_plain(c, Reason::refused), false;
  switch (read_marker(name, length, side.bits)) {
    case Marker::understood:
      return true;
    case Marker::other_version:
      stay_plain(c, Reason::other_version);
      return false;
    case Marker::none:
      side.next_look.store(writes + next_distance(writes), memory_order_relaxed);
      return false;
  }
  return false;
}

}  // namespace shunt
