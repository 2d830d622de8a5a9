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
constexpr uint64_t kFirstKernelLookUs = 2;     // and first after this: whoever finds something in memory asks anyway
constexpr int kMostRounds = 8;                 // of questions in one look at everything
constexpr uint32_t kEmptyWakesBeforeMute = 2;  // of a socket that stays readable for somebody else's bell
constexpr uint64_t kShortestMuteNs = 50'000;
constexpr uint64_t kLongestMuteNs = 1'000'000;
constexpr uint64_t kLongestSliceNs = 20'000'000;
constexpr short kAlways = POLLERR | POLLHUP | POLLNVAL;

short both(short a, short b) { return static_cast<short>(a & b); }

// What the kernel is asked when everything is looked at.
enum class Kernel : uint8_t {
  answered,  // it has just answered
  ask,
  later,     // only if memory has something to tell
};

// Nothing is news while the glance stays the same. Else a part of what look() says is the kernel's.
bool told_by_memory(const Connection& c) {
  const Side& side = *c.side;
  return side.in_flow.load(std::memory_order_relaxed) == Flow::ring && side.out_flow.load(std::memory_order_relaxed) == Flow::ring &&
         c.in->stage.load(std::memory_order_relaxed) == Stage::ring && !side.shut_read && !side.shut_write;
}

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
  PollWait(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask, sys::PollCall call, pollfd* kernel,
           Watched* watched, size_t room)
      : call_(call),
        fds_(fds),
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
  short wanted(const Watched& w) { return static_cast<short>(entry(w).events | kAlways); }
  bool look_at(Watched& w, Belief belief = Belief::alive);
  bool find_rings();
  void count_others();
  void fill_kernel();
  long ask_kernel(bool with_mask);
  void ask_who_lives();
  void suppose_alive();
  bool look_at_all();
  bool look_again();
  long ask_others(bool with_ends, bool with_mask);
  bool look_at_ends();
  bool kernel_brought_more();
  long ready_entries();
  long collect(Kernel how);
  void publish();
  bool spin();
  long sleep();
  uint64_t arm_all();
  uint64_t prepare_sleep();
  void note_empty_wakes();

  sys::PollCall call_;
  pollfd* fds_;
  nfds_t count_;
  const timespec* timeout_;
  const sigset_t* mask_;
  pollfd* kernel_;  // what the kernel is asked, and its answers
  Watched* watched_;
  size_t watched_count_ = 0;
  nfds_t others_ = 0;      // entries that the kernel answers
  long kernel_ready_ = 0;  // entries of kernel_ with an answer
  int kernel_bits_ = 0;    // in the answers for the others, the last time that they were compared
  bool asked_ = false;     // the kernel, since everything was looked at last
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

void PollWait::count_others() {
  others_ = 0;
  for (nfds_t i = 0; i < count_; ++i) others_ += fds_[i].fd >= 0;
  each_on_ring([this](Watched&) { --others_; });
}

void PollWait::fill_kernel() {
  for (nfds_t i = 0; i < count_; ++i) kernel_[i] = {fds_[i].fd, fds_[i].events, 0};
  each_on_ring([this](Watched& w) { kernel_[w.index].fd = -1; });
}

long PollWait::ask_kernel(bool with_mask) {
  return sys::ask_poll(call_, kernel_, count_, with_mask ? mask_ : nullptr);
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

// The kernel is asked right after it, also for their ends.
void PollWait::suppose_alive() {
  const uint64_t now = cycles();
  each_on_ring([&](Watched& w) { note_alive(w.connection(), now); });
}

// True: it tells of more than before.
bool PollWait::look_at(Watched& w, Belief belief) {
  const short before = w.bits;
  w.seen = glance(w.connection());
  w.bits = both(look(w.connection(), entry(w).fd, belief), wanted(w));
  if (w.bits != 0) w.empty = w.mutes = 0;
  return (w.bits & ~before) != 0;
}

bool PollWait::look_at_all() {
  bool news = false;
  each_on_ring([&](Watched& w) { w.bits = 0, news |= look_at(w); });
  return news;
}

// What may have moved since it was looked at, until nothing has. True: something tells of more than before.
bool PollWait::look_again() {
  bool news = false;
  for (int round = 0; round < kMostRounds; ++round) {
    bool more = false;
    each_on_ring([&](Watched& w) {
      if (w.bits != 0 && both(static_cast<short>(~w.bits), entry(w).events) == 0) return;
      if (told_by_memory(w.connection()) && w.seen.gone == 0 && glance(w.connection()) == w.seen) return;
      more |= look_at(w);
    });
    if (!more) break;
    news = true;
  }
  return news;
}

// with_ends: also whether the peers of those on the ring are there.
long PollWait::ask_others(bool with_ends, bool with_mask) {
  if (others_ == 0 && !with_mask) {
    each_on_ring([this](Watched& w) { kernel_[w.index].fd = -1; });  // not asked: an answer of before says nothing of who lives now
    return 0;
  }
  fill_kernel();
  asked_ = true;
  each_on_ring([&](Watched& w) {
    if (with_ends) kernel_[w.index] = {open_fd(w.connection(), entry(w).fd), POLLRDHUP, 0};
  });
  return ask_kernel(with_mask);
}

// After ask_others(). True: an end has come that nobody had told of.
bool PollWait::look_at_ends() {
  bool news = false;
  const uint64_t now = cycles();
  each_on_ring([&](Watched& w) {
    pollfd& asked = kernel_[w.index];
    if (asked.fd < 0) return;
    if (asked.revents == 0)
      note_alive(w.connection(), now);
    else
      news |= look_at(w, Belief::nothing);
    asked = {-1, 0, 0};
  });
  return news;
}

bool PollWait::kernel_brought_more() {
  int bits = 0;
  for (nfds_t i = 0; i < count_; ++i) bits += __builtin_popcount(static_cast<uint16_t>(kernel_[i].revents));
  const bool more = bits > kernel_bits_;
  kernel_bits_ = bits;
  return more;
}

long PollWait::ready_entries() {
  long ready = 0;
  for (nfds_t i = 0; i < count_; ++i) ready += kernel_[i].revents != 0;
  each_on_ring([&](Watched& w) { ready += (w.bits != 0) - (kernel_[w.index].revents != 0); });
  return ready;
}

// How many entries are ready. What happened before something that is told is told with it: each entry is looked at after the last
// news came, be it memory's or the kernel's.
long PollWait::collect(Kernel how) {
  find_rings();
  count_others();
  asked_ = how == Kernel::answered;
  if (how != Kernel::answered) {
    kernel_bits_ = 0;
    if (others_ > 0 && !mask_)
      suppose_alive();
    else
      ask_who_lives();
    fill_kernel();
  }
  bool news = look_at_all();
  if (news && others_ == 0 && watched_count_ == 1) return 1;
  if (!news && how != Kernel::ask) return how == Kernel::answered ? ready_entries() : 0;
  if (how == Kernel::answered) each_on_ring([&](Watched& w) { kernel_[w.index].revents = 0; }), kernel_brought_more();
  for (int round = 0; round < kMostRounds; ++round) {
    // do_poll: what is ready comes before a pending signal. With nothing ready a signal that the mask lets in is EINTR,
    // even with a timeout of zero.
    const bool signals_matter = !news && round == 0 && mask_ != nullptr;
    if (const long result = ask_others(!signals_matter, signals_matter); result < 0) return news ? ready_entries() : result;
    news = look_at_ends();
    const bool kernel_news = kernel_brought_more();
    if (round == 0 && !news && !kernel_news && ready_entries() == 0) return 0;
    if (!look_again() && !news) break;
    news = true;
    if (others_ == 0) break;
  }
  return ready_entries();
}

void PollWait::publish() {
  for (nfds_t i = 0; i < count_; ++i) fds_[i].revents = kernel_[i].revents;
  each_on_ring([this](Watched& w) { entry(w).revents = w.bits; });
  for (size_t i = 0; i < watched_count_; ++i)
    if (!watched_[i].on_ring && (entry(watched_[i]).revents & kReadable)) note_wait(watched_[i].connection());
}

bool PollWait::spin() {
  Watched* first = nullptr;
  each_on_ring([&](Watched& w) { first = first ? first : &w; });
  if (!first) return false;
  fill_kernel();
  kernel_ready_ = 0;
  const size_t glances = min_of(watched_count_, kMostGlances);
  const uint64_t pause = kKernelLookUs * patience.cycles_per_us();
  uint64_t kernel_look_at = cycles() + (asked_ ? pause : kFirstKernelLookUs * patience.cycles_per_us());
  return patience.spin(first->connection().data_history, watch_, exchange_cpus(first->connection()), [&] {
    for (size_t i = 0; i < glances; ++i)
      if (watched_[i].on_ring && !(glance(watched_[i].connection()) == watched_[i].seen)) return true;
    if (others_ == 0) return false;
    const uint64_t now = cycles();
    if (now < kernel_look_at) return false;
    asked_ = true;
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
    if (w.bits == 0 && kernel_[w.index].revents != 0 && ++w.empty == kLookForStrays) reset_if_stray(w.connection(), entry(w).fd);
  });
}

// > 0: kernel_ holds answers. 0: look at everything again.
long PollWait::sleep() {
  uint64_t longest = arm_all();
  asked_ = false;
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
    slept_ = asked_ = true;
    const timespec* const until = longest == kForever ? nullptr : &timeout;
    result = watch_.interrupted() ? -EINTR : sys::blocking_poll(call_, kernel_, count_, until, mask_ || !blocked ? mask_ : blocked->before());
    // A filter does not let through what the program has not called.
    if (blocked && !sys::is_answer(result)) {
      blocked.reset();
      result = sys::blocking_poll(call_, kernel_, count_, until, mask_);
    }
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
    const long result = sys::blocking_poll(call_, fds_, count_, timeout_, mask_);
    if (result < 0 || !find_rings()) {
      for (size_t i = 0; i < watched_count_ && result > 0; ++i)
        if (entry(watched_[i]).revents & kReadable) note_wait(watched_[i].connection());
      return result;
    }
    slept_ = true;
  }
  // A spin that brings something asks the kernel afterwards, so it need not before.
  const Kernel begin = mask_ || deadline_.immediate() ? Kernel::ask : Kernel::later;
  Kernel how = begin;
  for (;;) {
    const long ready = collect(how);
    if (ready < 0) return ready;
    if (ready > 0) return publish(), ready;
    if (how == Kernel::answered) note_empty_wakes();
    how = Kernel::ask;
    if (deadline_.left_ns() == 0) {
      if (asked_ || others_ == 0) return publish(), 0;
      continue;
    }
    if (watch_.interrupted()) {
      if (asked_ || others_ == 0) return -EINTR;
      continue;
    }
    // A mask of its own holds in the kernel's sleep only, so there is no spinning with it.
    if (!mask_) {
      if (spin()) {
        how = kernel_ready_ > 0 ? Kernel::answered : Kernel::ask;
        continue;
      }
      if (!asked_ && others_ > 0) {
        fill_kernel();
        asked_ = true;
        kernel_ready_ = ask_kernel(false);
        if (kernel_ready_ > 0) {
          how = Kernel::answered;
          continue;
        }
      }
      if (watch_.interrupted()) return -EINTR;
    }
    const long result = sleep();
    if (result < 0) return result;
    how = asked_ ? Kernel::answered : begin;
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

long wait_poll(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask, sys::PollCall call) {
  const bool kernels_error = !fds || count > static_cast<nfds_t>(kMaxDescriptors) || !valid_timeout(timeout);
  const size_t ours = kernels_error ? 0 : connections_among(fds, count);
  if (ours == 0 || too_many(count)) return sys::blocking_poll(call, fds, count, timeout, mask);
  Scratch<pollfd, kFew> kernel(count);
  Scratch<Watched, 16> watched(ours);
  if (!kernel.get() || !watched.get()) return -ENOMEM;
  return PollWait(fds, count, timeout, mask, call, kernel.get(), watched.get(), ours).run();
}

}  // namespace shunt
