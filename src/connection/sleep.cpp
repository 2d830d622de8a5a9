// Spin, arm, look again, sleep. No lock is held while sleeping. The sleeping call is libc's: a cancellation point.
#include "connection/sleep.h"

#include <cerrno>
#include <fcntl.h>
#include <optional>
#include <pthread.h>

#include "connection/evidence.h"
#include "connection/flow.h"
#include "sys/next.h"
#include "sys/raw.h"
#include "sys/signal_mask.h"

namespace shunt {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;
constexpr uint64_t kShortestSlice = 50'000;
constexpr uint64_t kLongestSlice = 20'000'000;
constexpr uint64_t kWriterSlice = 50'000'000;
constexpr uint32_t kMostInVain = 32;
constexpr uint64_t kGatherUs = 1;
constexpr uint64_t kDoNotWait = 1;  // a negative timeout, as socket_options.cpp notes it

uint64_t monotonic_ns() {
  timespec now{};
  sys::monotonic_time(&now);
  return static_cast<uint64_t>(now.tv_sec) * kSecond + static_cast<uint64_t>(now.tv_nsec);
}

// Small pieces of a stream are dear if each is fetched as soon as it appears: the cache line that announces them goes back and forth for each. Who reads
// again and again without a word of his own, and never waits for long, rests for a moment in which some of them gather.
void let_gather() {
  const uint64_t begin = cycles();
  while (cycles() - begin < patience.cycles_per_us() * kGatherUs)
    for (int i = 0; i < 16; ++i) cpu_pause();
}

bool spin_for_data(Connection& c, const SignalWatch& watch) {
  const Side& side = *c.side;
  const uint64_t written = side.tail.load(std::memory_order_relaxed);
  if (c.data_history.quick && written == c.written_at_wait) let_gather();
  c.written_at_wait = written;
  const uint8_t* const next = ring_at(c.in_region, newest_class(side.in_map), side.head.load(std::memory_order_relaxed));
  return patience.spin(c.data_history, watch, exchange_cpus(c), [&] {
    __builtin_prefetch(next);  // the bytes come with the news of them, not after it
    return c.in->tail.load(std::memory_order_acquire) != side.head.load(std::memory_order_relaxed) ||
           c.in->stage.load(std::memory_order_relaxed) != Stage::ring || c.in->gone_writer.load(std::memory_order_relaxed) != 0;
  });
}

// Counted as a sleeper, also for whoever leaves the sleep by a jump.
class Asleep : Duty {
 public:
  explicit Asleep(Connection& connection) : connection_(connection) { begin(kFate); }
  ~Asleep() {
    disarm(connection_, sleeper_);
    done();
  }
  Armed arm(int fd, short events) { return shunt::arm(connection_, fd, events, sleeper_); }
  // SYNC: seq_cst, pairs with peeks_would_miss().
  void in_peek() { count_and_mark(connection_.side->peekers, 1, sleeper_.in_peek, 1); }

 private:
  static void undo(Duty& duty) {
    auto& self = static_cast<Asleep&>(duty);
    disarm(self.connection_, self.sleeper_);
  }
  static void go_on(Duty& duty, Whose whose) {
    const auto& self = static_cast<Asleep&>(duty);
    if (whose == Whose::childs) count_again(self.connection_, self.sleeper_);
  }
  static constexpr Fate kFate{undo, nullptr, go_on};
  Connection& connection_;
  Sleeper sleeper_;
};

// SO_RCVTIMEO or SO_SNDTIMEO now; `known` where the kernel does not say.
uint64_t kernel_timeout_ns(int fd, short events, uint64_t known) {
  uint64_t now;
  return kernel_timeout(fd, events == POLLOUT ? SO_SNDTIMEO : SO_RCVTIMEO, now) ? now : known;
}

}  // namespace

bool BlockingWait::timed_out(int fd, short events) {
  if (timeout_ns_ == 0) return false;
  const uint64_t now = monotonic_ns();
  if (deadline_ns_ == 0) deadline_ns_ = now + timeout_ns_;
  if (now < deadline_ns_) return false;
  // It may have been changed past the library since. "Do not wait" reads back as "for ever".
  const uint64_t limit = timeout_ns_ == kDoNotWait ? kDoNotWait : kernel_timeout_ns(fd, events, timeout_ns_);
  deadline_ns_ += limit - timeout_ns_;
  timeout_ns_ = limit;
  return limit != 0 && now >= deadline_ns_;
}

// What wakes us comes from the peer. If it keeps doing so and nothing can be done, it lies: from then on we go by the clock.
bool BlockingWait::in_vain(Connection& c, int fd) {
  const Side& side = *c.side;
  const uint64_t moved = side.head.load(std::memory_order_relaxed) + side.kernel_received.load(std::memory_order_relaxed) +
                         side.tail.load(std::memory_order_relaxed) + side.kernel_sent.load(std::memory_order_relaxed);
  if (moved != moved_) moved_ = moved, vain_ = 0;
  if (++vain_ == kLookForStrays) reset_if_stray(c, fd);
  return vain_ > kMostInVain;
}

long BlockingWait::wait(Connection& c, int fd, short events) {
  const Side& side = *c.side;
  if (watch_.interrupted()) return -EINTR;
  const bool vain = in_vain(c, fd);
  // The caller has just found nothing: spin on exactly what would change that, unless it has happened already.
  if (vain) {
    // no more of that
  } else if (events == POLLIN) {
    if (side.in_flow.load(std::memory_order_relaxed) == Flow::ring && c.in->stage.load(std::memory_order_relaxed) == Stage::ring &&
        c.in->gone_writer.load(std::memory_order_relaxed) == 0 && spin_for_data(c, watch_)) {
      note_alive(c, cycles());
      return 0;
    }
  } else {
    const uint64_t head = c.out->head.load(std::memory_order_acquire);
    if (side.out_flow.load(std::memory_order_relaxed) == Flow::ring && head == seen_head_ &&
        c.out->gone_reader.load(std::memory_order_relaxed) == 0 && c.out->ask.load(std::memory_order_relaxed) == Ask::nothing &&
        patience.spin(c.space_history, watch_, exchange_cpus(c), [&] {
          return c.out->head.load(std::memory_order_acquire) != head || c.out->gone_reader.load(std::memory_order_relaxed) != 0 ||
                 c.out->ask.load(std::memory_order_relaxed) != Ask::nothing;
        }))
      return 0;
    if (head != seen_head_ && side.out_flow.load(std::memory_order_relaxed) == Flow::ring) {
      seen_head_ = head;  // it moved since we last looked: try again before sleeping
      return 0;
    }
  }
  if (watch_.interrupted()) return -EINTR;
  if (timed_out(fd, events)) return -EAGAIN;

  // Who leaves the ring waits for those that a bell may have to wake: not for us.
  if (side.leaving && side.in_flow.load(std::memory_order_relaxed) == Flow::ring) return sleep(c, open_fd(c, fd), events, Armed::slices);
  Asleep asleep(c);
  const Armed armed = asleep.arm(fd, events);
  fd = open_fd(c, fd);
  long result = 0;
  const bool peeks = events == POLLIN && armed == Armed::sleep && !slept_ && fd >= 0 && !vain;
  if (peeks) asleep.in_peek();  // before the look: whoever takes the last bells in front of it is done, who does so behind it sees the count
  const bool ready = look(c, fd) & (events | POLLERR | POLLHUP);
  if (vain)
    result = sleep(c, -1, events, Armed::slices);
  else if (!ready)
    result = peeks && !putback_pending(c) ? sleep_in_receive(c, fd) : sleep(c, fd, events, armed);
  return result;
}

// The first sleep of a read: a receiving call, as the program's own would be, so O_NONBLOCK, SO_RCVTIMEO, signals and SA_RESTART are whatever the kernel says.
// It leaves the bell that wakes it where all sleepers can see it.
long BlockingWait::sleep_in_receive(Connection& c, int fd) {
  char byte;
  count(totals.sleeps);
  slept_ = true;
  const long result = sys::blocking_recv(fd, &byte, 1, MSG_PEEK);
  switch (result) {
    case -ECONNRESET: {
      const Locked lock(c.side->read_lock);
      c.side->reset_taken = true;  // the kernel has told it, and the program has not heard of it
      return 0;
    }
    case -EAGAIN:
      refresh_description(c, fd);
      return -EAGAIN;
    case -EINTR:
      return -EINTR;
    default:
      return 0;  // also where a sandbox refuses the call: the next sleep is another one
  }
}

// Whether the kernel's call would sleep at all, and for how long, where ours is a poll.
long BlockingWait::ask_before_sleep(Connection& c, int fd, short events) {
  if (slept_ || fd < 0) return 0;
  const long flags = sys::raw(SYS_fcntl, fd, F_GETFL);
  if (flags < 0 || (flags & O_NONBLOCK)) {
    if (flags >= 0) refresh_description(c, fd);
    return flags < 0 ? 0 : -EAGAIN;
  }
  if (timeout_ns_ != 0) return 0;
  timeout_ns_ = kernel_timeout_ns(fd, events, 0);
  if (timeout_ns_ != 0) deadline_ns_ = monotonic_ns() + timeout_ns_;
  return 0;
}

long BlockingWait::sleep(Connection& c, int fd, short events, Armed armed) {
  if (const long error = ask_before_sleep(c, fd, events); error < 0) return error;
  uint64_t length = 0;  // 0: until woken
  if (armed == Armed::slices) length = min_of(kShortestSlice << min_of<uint32_t>(idle_wakes_++ / 2, 10), kLongestSlice);
  // Our own end shut down by another thread: poll has no event for that, so a writer looks again by itself.
  else if (events == POLLOUT) length = kWriterSlice;
  // On the ring data and space are both announced by a bell, that is by readability. In a slice the socket may be readable all the time.
  short wanted = POLLIN | POLLRDHUP;
  if (armed == Armed::slices) wanted = 0;
  if (putback_pending(c)) wanted = POLLOUT;
  if (events == POLLOUT && c.side->out_flow.load(std::memory_order_relaxed) != Flow::ring) wanted = POLLOUT;
  return sleep_in_kernel(fd, wanted, length);
}

long BlockingWait::for_kernel(int fd, short events) {
  if (watch_.interrupted()) return -EINTR;
  if (timed_out(fd, events)) return -EAGAIN;
  if (events == POLLOUT) return sleep_in_kernel(fd, POLLOUT, kWriterSlice);
  return sleep_in_kernel(fd, POLLIN | POLLRDHUP, 0);
}

long BlockingWait::sleep_in_kernel(int fd, short wanted, uint64_t length) {
  if (timeout_ns_ != 0) {
    const uint64_t now = monotonic_ns();
    const uint64_t left = deadline_ns_ > now ? deadline_ns_ - now : 0;
    if (left == 0) return 0;  // timed_out() says so, or that it is not so any more
    if (length == 0 || left < length) length = left;
  }
  const timespec timeout{static_cast<time_t>(length / kSecond), static_cast<long>(length % kSecond)};
  pollfd item{fd, wanted, 0};
  count(totals.sleeps);
  // A handler that runs between the look and the kernel's sleep ends neither. Before a call's first sleep nobody can tell that from a signal that came
  // before the call; afterwards it would be swallowed.
  std::optional<sys::SignalsBlocked> blocked;
  if (slept_) {
    blocked.emplace();
    if (watch_.interrupted()) return -EINTR;
  }
  slept_ = true;
  const long result = sys::blocking_ppoll(&item, 1, length ? &timeout : nullptr, blocked ? blocked->before() : nullptr);
  blocked.reset();
  if (result <= 0) vain_ = 0;  // that was not the peer's doing
  if (result == -EINTR) {
    const sys::CancellationPoint here;
    pthread_testcancel();
    return watch_.interrupted() ? -EINTR : 0;
  }
  return 0;
}

}  // namespace shunt
