// poll and ppoll. Connections with a channel are answered from memory, all other descriptors by the kernel.
// Any thread, signal handlers included. Sleeps in libc's ppoll with no lock held.
#include <sys/resource.h>

#include <cerrno>
#include <new>
#include <optional>

#include "descriptors/table.h"
#include "readiness/deadline.h"
#include "readiness/epoll_set.h"
#include "readiness/events.h"
#include "readiness/readiness.h"
#include "sys/next.h"
#include "sys/signal_mask.h"

namespace shunt {
namespace {

constexpr size_t kFew = 64;
constexpr size_t kMostGlances = 64;
constexpr uint64_t kKernelLookUs = 2;          // while spinning, the kernel is asked this often at most
constexpr uint32_t kEmptyWakesBeforeMute = 2;  // of a socket that stays readable for somebody else's bell
constexpr uint64_t kShortestMuteNs = 50'000;
constexpr uint64_t kLongestMuteNs = 1'000'000;
constexpr uint64_t kLongestSliceNs = 20'000'000;
constexpr short kAlways = POLLERR | POLLHUP | POLLNVAL;

short both(short a, short b) { return static_cast<short>(a & b); }

// One entry of the caller's array that is a connection of ours.
struct Watched {
  alignas(Pin) unsigned char pin_memory[sizeof(Pin)];
  nfds_t index;
  Glance seen;     // taken before the last look
  uint32_t empty;  // wake-ups in a row for which look() found no cause
  uint32_t mutes;  // sleeps in a row that left this one out
  short bits;      // what the last look found
  short armed;
  bool on_ring, muted;
  Sleeper sleeper;

  Pin& pin() { return *std::launder(reinterpret_cast<Pin*>(pin_memory)); }
  Connection& connection() { return *pin(); }
};

class PollWait : Duty {
 public:
  PollWait(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask, pollfd* kernel, Watched* watched,
           size_t room)
      : fds_(fds),
        count_(count),
        timeout_(timeout),
        mask_(mask),
        kernel_(kernel),
        watched_(watched),
        deadline_(timeout) {
    for (nfds_t i = 0; i < count && watched_count_ < room; ++i) {
      if (!is_connection(fds[i].fd)) continue;
      Watched& w = *new (&watched_[watched_count_]) Watched{};
      if (*new (w.pin_memory) Pin(fds[i].fd))
        w.index = i, ++watched_count_;
      else
        w.pin().~Pin();
    }
    begin(kFate);
  }
  ~PollWait() {
    done();
    while (watched_count_ > 0) watched_[--watched_count_].pin().~Pin();
  }
  PollWait(const PollWait&) = delete;
  PollWait& operator=(const PollWait&) = delete;

  long run();

 private:
  static void undo(Duty& duty) {
    auto& self = static_cast<PollWait&>(duty);
    for (size_t i = 0; i < self.watched_count_; ++i) disarm(self.watched_[i].connection(), self.watched_[i].sleeper);
  }
  static void go_on(Duty& duty, Whose whose) {
    auto& self = static_cast<PollWait&>(duty);
    for (size_t i = 0; i < self.watched_count_ && whose == Whose::childs; ++i)
      count_again(self.watched_[i].connection(), self.watched_[i].sleeper);
  }
  static constexpr Fate kFate{undo, nullptr, go_on};
  template <typename Function>
  void each_on_ring(Function function) {
    for (size_t i = 0; i < watched_count_; ++i)
      if (watched_[i].on_ring) function(watched_[i]);
  }
  pollfd& entry(const Watched& w) { return fds_[w.index]; }
  short look_at(Watched& w) {
    return both(look(w.connection(), entry(w).fd), static_cast<short>(entry(w).events | kAlways));
  }
  bool find_rings();
  void fill_kernel();
  long ask_kernel(bool with_mask);
  void ask_who_lives();
  long collect(bool kernel_answered);
  void publish();
  bool spin();
  long sleep();
  uint64_t arm_all();
  uint64_t prepare_sleep();
  void note_empty_wakes();

  pollfd* fds_;
  nfds_t count_;
  const timespec* timeout_;
  const sigset_t* mask_;
  pollfd* kernel_;  // what the kernel is asked, and its answers
  Watched* watched_;
  size_t watched_count_ = 0;
  nfds_t others_ = 0;      // entries that the kernel answers
  long kernel_ready_ = 0;  // entries of kernel_ with an answer
  uint32_t slices_ = 0;
  bool slept_ = false;
  Deadline deadline_;
  SignalWatch watch_{Interruption::by_any_handler};
};

// Channels may appear at any time; they never go away while we hold the connection.
bool PollWait::find_rings() {
  bool any = false;
  for (size_t i = 0; i < watched_count_; ++i) any |= watched_[i].on_ring = has_channel(watched_[i].connection());
  return any;
}

void PollWait::fill_kernel() {
  others_ = 0;
  for (nfds_t i = 0; i < count_; ++i) {
    kernel_[i] = {fds_[i].fd, fds_[i].events, 0};
    if (fds_[i].fd >= 0) ++others_;
  }
  each_on_ring([this](Watched& w) { kernel_[w.index].fd = -1, --others_; });
}

long PollWait::ask_kernel(bool with_mask) {
  const timespec zero{};
  return sys::ppoll(kernel_, count_, &zero, with_mask ? mask_ : nullptr);
}

// look() asks the kernel whether a silent peer lives. For several of them one question does.
void PollWait::ask_who_lives() {
  size_t silent = 0;
  const uint64_t now = cycles();
  for (nfds_t i = 0; i < count_; ++i) kernel_[i] = {-1, 0, 0};
  each_on_ring([&](Watched& w) {
    if (known_alive(w.connection(), now)) return;
    kernel_[w.index] = {open_fd(w.connection(), entry(w).fd), POLLRDHUP, 0};
    ++silent;
  });
  if (silent < 2 || ask_kernel(false) < 0) return;
  each_on_ring([&](Watched& w) {
    if (kernel_[w.index].fd >= 0 && kernel_[w.index].revents == 0) note_alive(w.connection(), now);
  });
}

// How many entries are ready. kernel_answered: kernel_ holds fresh answers for the others.
long PollWait::collect(bool kernel_answered) {
  find_rings();
  if (!kernel_answered) ask_who_lives();
  long ready = 0;
  each_on_ring([&](Watched& w) {
    w.seen = glance(w.connection());
    w.bits = look_at(w);
    if (w.bits != 0) ++ready, w.empty = w.mutes = 0;
  });
  if (kernel_answered) {
    long kernel = kernel_ready_;
    each_on_ring([&](Watched& w) { kernel -= kernel_[w.index].revents != 0; });
    return ready + kernel;
  }
  fill_kernel();
  // do_poll: what is ready comes before a pending signal. With nothing ready a signal that the mask lets in is EINTR,
  // even with a timeout of zero.
  const bool signals_matter = ready == 0 && mask_ != nullptr;
  if (others_ == 0 && !signals_matter) return ready;
  const long kernel = ask_kernel(signals_matter);
  if (kernel < 0) return ready > 0 ? ready : kernel;
  return ready + kernel;
}

void PollWait::publish() {
  for (nfds_t i = 0; i < count_; ++i) fds_[i].revents = kernel_[i].revents;
  each_on_ring([this](Watched& w) { entry(w).revents = w.bits; });
}

bool PollWait::spin() {
  Watched* first = nullptr;
  each_on_ring([&](Watched& w) { first = first ? first : &w; });
  if (!first) return false;
  fill_kernel();
  kernel_ready_ = 0;
  const size_t glances = min_of(watched_count_, kMostGlances);
  const uint64_t pause = kKernelLookUs * patience.cycles_per_us();
  uint64_t kernel_look_at = cycles() + pause;
  return patience.spin(first->connection().data_history, watch_, exchange_cpus(first->connection()), [&] {
    for (size_t i = 0; i < glances; ++i)
      if (watched_[i].on_ring && !(glance(watched_[i].connection()) == watched_[i].seen)) return true;
    if (others_ == 0) return false;
    const uint64_t now = cycles();
    if (now < kernel_look_at) return false;
    kernel_ready_ = ask_kernel(false);
    if (kernel_ready_ > 0) return true;
    kernel_ready_ = 0;
    const uint64_t cost = cycles() - now;  // of a long list: asking must not be all we do
    kernel_look_at = now + cost + (cost > pause ? cost : pause);
    return false;
  });
}

// Returns the longest sleep that arming allows.
uint64_t PollWait::arm_all() {
  bool slices = false;
  each_on_ring([&](Watched& w) {
    w.armed = armed_for(static_cast<uint16_t>(entry(w).events));
    if (w.armed != 0 && arm(w.connection(), entry(w).fd, w.armed, w.sleeper) == Armed::slices) slices = true;
  });
  if (!slices) return slices_ = 0, kForever;
  const uint64_t slice = static_cast<uint64_t>(kSliceNs) << min_of(slices_++ / 4, 5u);
  return min_of(slice, kLongestSliceNs);
}

// What the kernel is asked during the sleep. Readability carries the bells for data and for space; writability is the
// kernel's only before and after the ring. Returns the longest sleep that muted sockets allow.
uint64_t PollWait::prepare_sleep() {
  uint64_t longest = kForever;
  fill_kernel();
  each_on_ring([&](Watched& w) {
    const short events = entry(w).events;
    w.muted = w.empty >= kEmptyWakesBeforeMute;
    if (w.muted) {
      longest = min_of(longest, min_of(kShortestMuteNs << min_of(w.mutes++, 8u), kLongestMuteNs));
      w.empty = kEmptyWakesBeforeMute - 1;
      return;
    }
    short asked = both(events, POLLRDHUP | POLLPRI);
    if (w.armed != 0) asked |= POLLIN;
    if ((w.armed & POLLOUT) && w.connection().side->out_flow.load(std::memory_order_relaxed) != Flow::ring)
      asked |= POLLOUT;
    kernel_[w.index] = {open_fd(w.connection(), entry(w).fd), asked, 0};
  });
  return longest;
}

void PollWait::note_empty_wakes() {
  each_on_ring([this](Watched& w) {
    if (w.bits == 0 && kernel_[w.index].revents != 0) ++w.empty;
  });
}

// > 0: kernel_ holds answers. 0: look at everything again.
long PollWait::sleep() {
  uint64_t longest = arm_all();
  bool ready = false;
  each_on_ring([&](Watched& w) { ready = ready || !(glance(w.connection()) == w.seen); });
  long result = 0;
  if (!ready) {
    longest = min_of(longest, prepare_sleep());
    longest = min_of(longest, deadline_.left_ns());
    const timespec timeout = to_timespec(longest);
    count(totals.sleeps);
    // As in BlockingWait::sleep().
    std::optional<sys::SignalsBlocked> blocked;
    if (slept_) blocked.emplace();
    slept_ = true;
    result = watch_.interrupted()
                 ? -EINTR
                 : sys::blocking_ppoll(kernel_, count_, longest == kForever ? nullptr : &timeout, mask_ || !blocked ? mask_ : blocked->before());
  }
  const uint64_t now = cycles();
  each_on_ring([&](Watched& w) {
    // Asked or not, poll tells of a hang-up.
    if (!ready && result >= 0 && kernel_[w.index].fd >= 0 && !(kernel_[w.index].revents & (POLLHUP | POLLRDHUP | POLLNVAL))) note_alive(w.connection(), now);
    disarm(w.connection(), w.sleeper);
    w.armed = 0;
  });
  return kernel_ready_ = result;
}

long PollWait::run() {
  if (!find_rings()) {
    // All on the kernel so far: its own call. A channel that appears meanwhile is announced by a bell.
    const long result = sys::blocking_ppoll(fds_, count_, timeout_, mask_);
    if (result < 0 || !find_rings()) return result;
    slept_ = true;
  }
  bool kernel_answered = false;
  for (;;) {
    const long ready = collect(kernel_answered);
    if (ready < 0) return ready;
    if (ready > 0) return publish(), ready;
    note_empty_wakes();
    if (deadline_.left_ns() == 0) return publish(), 0;
    if (watch_.interrupted()) return -EINTR;
    kernel_answered = false;
    // A mask of its own holds in the kernel's sleep only, so there is no spinning with it.
    if (!mask_) {
      if (spin()) {
        kernel_answered = true;  // it has been asked since the call began
        continue;
      }
      if (watch_.interrupted()) return -EINTR;
    }
    const long result = sleep();
    if (result < 0) return result;
    kernel_answered = result > 0;
  }
}

size_t connections_among(const pollfd* fds, nfds_t count) {
  size_t ours = 0;
  for (nfds_t i = 0; i < count; ++i) {
    if (is_connection(fds[i].fd))
      ++ours;
    else if (EpollSet* set = epoll_set_of(fds[i].fd); set && !set->watched.load(std::memory_order_relaxed))
      note_set_watched(fds[i].fd);
  }
  return ours;
}

// do_sys_poll: EINVAL for more entries than descriptors are allowed.
bool too_many(nfds_t count) {
  uint64_t limit[2] = {};
  return count > kFew && sys::raw(SYS_prlimit64, 0, RLIMIT_NOFILE, nullptr, limit) == 0 && count > limit[0];
}

}  // namespace

long wait_poll(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask) {
  const bool kernels_error = !fds || count > static_cast<nfds_t>(kMaxDescriptors) || !valid_timeout(timeout);
  const size_t ours = kernels_error ? 0 : connections_among(fds, count);
  if (ours == 0 || too_many(count)) return sys::blocking_ppoll(fds, count, timeout, mask);
  Scratch<pollfd, kFew> kernel(count);
  Scratch<Watched, 16> watched(ours);
  if (!kernel.get() || !watched.get()) return -ENOMEM;
  return PollWait(fds, count, timeout, mask, kernel.get(), watched.get(), ours).run();
}

}  // namespace shunt
