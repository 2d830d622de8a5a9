// The relay process: a child made by a raw clone, orphaned at once, that never returns from run(). Raw calls only: it shares a copy of memory in which other
// threads may have held any lock.
#include "connection/relay.h"

#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>

#include "connection/flow.h"
#include "connection/likeness.h"
#include "observe/report.h"
#include "sys/raw.h"
#include "sys/signal_mask.h"

namespace shunt {
namespace {

constexpr size_t kBuffer = 32768;

// Of the relay alone: where to say that what the program can have at once is there. Once: then the program goes on, and the memory may be another
// connection's.
std::atomic<bool>* delivered = nullptr;

void say_delivered() {
  if (delivered) delivered->store(true, std::memory_order_release);
  delivered = nullptr;
}

bool send_all(int fd, const uint8_t* data, size_t bytes) {
  while (bytes > 0) {
    const long sent = sys::send(fd, data, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent == -EAGAIN) {
      say_delivered();
      pollfd item{fd, POLLOUT, 0};
      sys::ppoll(&item, 1, nullptr, nullptr);
    } else if (sent == -EINTR) {
      continue;
    } else if (sent <= 0) {
      return false;
    } else {
      data += sent;
      bytes -= static_cast<size_t>(sent);
    }
  }
  return true;
}

// One step of one direction. False: it has ended.
bool pump(int from, int to) {
  uint8_t buffer[kBuffer];
  const long got = sys::recv(from, buffer, sizeof buffer, MSG_DONTWAIT);
  if (got == -EAGAIN || got == -EINTR) return true;
  if (got > 0 && send_all(to, buffer, static_cast<size_t>(got))) return true;
  sys::raw(SYS_shutdown, to, SHUT_WR);
  if (got > 0) sys::raw(SYS_shutdown, from, SHUT_RD);
  return false;
}

void keep_only(int low, int high) {
  if (low > high) return keep_only(high, low);
  if (low > 0) sys::raw(SYS_close_range, 0, low - 1, 0);
  if (high > low + 1) sys::raw(SYS_close_range, low + 1, high - 1, 0);
  sys::raw(SYS_close_range, high + 1, ~0u, 0);
}

// Waits for bytes that the plan promises. False: the program has gone, and a peer that promised too much keeps nobody here.
bool promised(int from, int to) {
  pollfd items[2] = {{from, POLLIN, 0}, {to, 0, 0}};
  sys::ppoll(items, 2, nullptr, nullptr);
  return items[1].revents == 0;
}

// Takes `bytes` from the socket, and sends them on.
void forward(int from, int to, uint64_t bytes) {
  uint8_t buffer[kBuffer];
  while (bytes > 0 && promised(from, to)) {
    const long got = sys::recv(from, buffer, min_of<uint64_t>(bytes, kBuffer), MSG_DONTWAIT);
    if (got == -EINTR || got == -EAGAIN) continue;
    if (got <= 0 || !send_all(to, buffer, static_cast<size_t>(got))) return;
    bytes -= static_cast<uint64_t>(got);
  }
}

// The last one may have yet to come: from somebody who goes on for a process that was killed.
void skip_bells_of_fence(Connection& c, int from, int to) {
  while (!take_last_bells_of_fence(c, from)) {
    say_delivered();
    if (!promised(from, to)) return;
  }
}

void deliver_ring(const Connection& c, int to, uint64_t position, uint64_t end) {
  const RingMap& map = c.side->in_map;
  while (position < end) {
    const uint32_t ring_class = class_at(map, position);
    const uint64_t bytes = min_of(class_end(map, ring_class, end) - position, contiguous(ring_class, position));
    if (!send_all(to, ring_at(c.in_region, ring_class, position), bytes)) return;
    position += bytes;
  }
}

constexpr timespec kFirstPause{0, 100'000};
constexpr long kLongestPauseNs = 10'000'000;

// From here on the peer puts nothing back; what it did put back lies in the kernel, in front of what it sends from now on. A peer that is stopped in the
// middle of a write is waited for as long as the program is there.
RelayPlan taken_over(Connection& c, int original, int ours, RelayPlan plan) {
  uint64_t put_back = 0;
  bool over = false, died = false;
  timespec pause = kFirstPause;
  while (!(over = take_over(c, original, plan.begin, plan.end, put_back)) && !died) {
    if (sys::poll_now(ours, 0) & POLLHUP) sys::end_process(0);
    sys::ppoll(nullptr, 0, &pause, nullptr);
    if (pause.tv_nsec < kLongestPauseNs)
      pause.tv_nsec *= 2;
    else
      say_delivered();
    died = (sys::poll_now(original, POLLRDHUP) & (POLLRDHUP | POLLHUP)) != 0;
  }
  if (!over) put_back = put_back_by_dead(original, plan.kernel_first, plan.read, plan.end - plan.begin);
  const uint64_t came = plan.kernel_first + put_back;
  plan.kernel_first = came > plan.read ? came - plan.read : 0;
  plan.begin += put_back;
  return plan;
}

// The line between the program and its relay: the relay gives the program its end of the pair, and says whether it
// shows the old peer; the program says with a byte that it has put it in place.
union Control {
  cmsghdr header;
  uint8_t room[CMSG_SPACE(sizeof(int))];
};

long give_end(int line, int end, bool alike) {
  Control control{};
  iovec part{&alike, sizeof alike};
  const msghdr message{nullptr, 0, &part, 1, &control, sizeof control, 0};
  control.header = {CMSG_LEN(sizeof end), SOL_SOCKET, SCM_RIGHTS};
  memcpy(CMSG_DATA(&control.header), &end, sizeof end);
  return sys::sendmsg(line, &message, MSG_NOSIGNAL);
}

// −errno: there is no relay.
long receive_end(int line, bool& alike) {
  Control control{};
  iovec part{&alike, sizeof alike};
  msghdr message{nullptr, 0, &part, 1, &control, sizeof control, 0};
  if (const long got = sys::recvmsg(line, &message, MSG_CMSG_CLOEXEC); got != sizeof alike)
    return got < 0 ? got : -EPIPE;
  if (message.msg_controllen < CMSG_LEN(sizeof(int)) || control.header.cmsg_type != SCM_RIGHTS) return -EMFILE;
  int end;
  memcpy(&end, CMSG_DATA(&control.header), sizeof end);
  return end;
}

// Our end of the pair. −errno: the program does not want it.
long introduce(int original, int line) {
  int pair[2];
  bool alike = false;
  if (const long made = make_pair_like(original, pair, alike); made < 0) return made;
  if (const long given = give_end(line, pair[0], alike); given < 0) return given;
  sys::close(pair[0]);
  char in_place;
  if (sys::recv(line, &in_place, 1, 0) != 1) return -EPIPE;
  sys::close(line);
  keep_ids();
  return pair[1];
}

[[noreturn]] void run(Connection& c, int original, int line, RelayPlan plan) {
  // What ends the program must not end the delivery: bytes that the kernel holds outlive their sender, too.
  uint64_t all_signals = ~sys::signal_bit(SIGSYS);  // a filter's answer to a call is the program's handler's to give here, too
  sys::raw(SYS_rt_sigprocmask, SIG_BLOCK, &all_signals, nullptr, sizeof all_signals);
  sys::raw(SYS_setsid);
  delivered = &c.side->relay_delivered;
  keep_only(original, line);
  const int ours = static_cast<int>(introduce(original, line));
  if (ours < 0) sys::end_process(1);
  const long flags = sys::raw(SYS_fcntl, original, F_GETFL);
  if (flags & O_NONBLOCK)
    sys::raw(SYS_fcntl, original, F_SETFL, flags & ~O_NONBLOCK);  // the description is the relay's now
  if (plan.takes_over) plan = taken_over(c, original, ours, plan);
  forward(original, ours, plan.kernel_first);
  deliver_ring(c, ours, plan.begin, plan.end);
  if (plan.fenced) skip_bells_of_fence(c, original, ours);
  bool inward = true, outward = true;
  while (inward || outward) {
    pollfd items[2] = {{inward ? original : -1, POLLIN, 0}, {ours, static_cast<short>(outward ? POLLIN : 0), 0}};
    if (sys::poll_now(original, POLLIN) == 0) say_delivered();
    if (sys::ppoll(items, 2, nullptr, nullptr) < 0) continue;
    if (!outward && (items[1].revents & (POLLHUP | POLLERR))) break;  // nobody is left to bring anything to
    if (items[0].revents) inward = pump(original, ours);
    if (outward && items[1].revents) outward = pump(ours, original);
    if (!inward) say_delivered();
  }
  sys::end_process(0);
}

// No exit signal, and a grandchild: neither the program's wait nor its SIGCHLD handler ever sees it.
long fork_relay(Connection& c, int fd, int line, const RelayPlan& plan) {
  const long child = sys::raw(SYS_clone, 0, nullptr, nullptr, nullptr, nullptr);
  if (child == 0) {
    if (sys::raw(SYS_clone, 0, nullptr, nullptr, nullptr, nullptr) == 0) run(c, fd, line, plan);
    sys::end_process(0);
  }
  if (child > 0) sys::raw(SYS_wait4, child, nullptr, __WCLONE, nullptr);
  return child;
}

// The program's end of the pair, and in `line` whom to tell that it is in place. −errno: there is no relay.
long make_end(Connection& c, int fd, const RelayPlan& plan, int& line, bool& alike) {
  const sys::SignalsBlocked whole;
  int lines[2];
  if (const long made = sys::raw(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, lines); made < 0) return made;
  long end = fork_relay(c, fd, lines[1], plan);
  sys::close(lines[1]);
  if (end > 0) end = receive_end(lines[0], alike);
  if (end < 0) sys::close(lines[0]);
  line = lines[0];
  return end;
}

// `end` is the file of `fd` from here on, as far as a descriptor shows it.
long replace(int fd, int end) {
  sys::raw(SYS_fcntl, end, F_SETFL, sys::raw(SYS_fcntl, fd, F_GETFL));
  return sys::raw(SYS_dup3, end, fd, sys::raw(SYS_fcntl, fd, F_GETFD) & FD_CLOEXEC ? O_CLOEXEC : 0);
}

}  // namespace

void remember_peer(Connection& c, int fd) {
  socklen_t size = sizeof c.peer_before;
  if (!c.relayed.load(std::memory_order_relaxed)) sys::raw(SYS_getsockopt, fd, SOL_SOCKET, SO_PEERCRED, &c.peer_before, &size);
}

long start_relay(Connection& c, int fd, RelayPlan plan, Likeness likeness) {
  int line = -1;
  bool alike = false;
  const long end = make_end(c, fd, plan, line, alike);
  if (end < 0) return end;
  remember_peer(c, fd);
  long result = -EPERM;
  if (alike || likeness == Likeness::wanted) result = replace(fd, static_cast<int>(end));
  sys::close(static_cast<int>(end));
  if (result >= 0) {
    c.lends_ids.store(!alike, std::memory_order_relaxed);
    c.relayed.store(true, std::memory_order_relaxed);
    sys::send(line, "", 1, MSG_NOSIGNAL);
    await_step([&] { return c.side->relay_delivered.load(std::memory_order_acquire); });
    log_line(LogLevel::info, "descriptor %d: a relay process delivers its unread bytes, which their sender does not",
             fd);
  }
  sys::close(line);
  return result < 0 ? result : 0;
}

// unix_release_sock: who closes a socket with unread data sets ECONNRESET on its peer.
long put_reset(int fd) {
  int pair[2];
  if (const long made = sys::raw(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair); made < 0) return made;
  sys::send(pair[0], "", 1, MSG_NOSIGNAL);
  sys::close(pair[1]);
  const long result = replace(fd, pair[0]);
  sys::close(pair[0]);
  log_line(LogLevel::error,
           "descriptor %d: bytes of its peer are lost, and the connection reset: they cannot be handed on under the "
           "peer's name",
           fd);
  return result < 0 ? result : 0;
}

void silence(int fd) {
  uint8_t dropped[4096];
  sys::raw(SYS_shutdown, fd, SHUT_RDWR);
  while (sys::recv(fd, dropped, sizeof dropped, MSG_DONTWAIT) > 0) continue;
}

}  // namespace shunt
