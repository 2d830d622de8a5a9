// epoll_wait and its kin: the kernel's events, and in their place those of registrations that are answered from memory.
// Any thread, signal handlers included. The cost is in the number of hot registrations, never of all. Sleeps in libc's
// wait with no lock held.
#include <algorithm>
#include <cerrno>
#include <new>
#include <optional>
#include <utility>

#include "readiness/deadline.h"
#include "readiness/epoll_set.h"
#include "readiness/events.h"
#include "readiness/readiness.h"
#include "sys/next.h"
#include "sys/signal_mask.h"

namespace shunt {
namespace {

constexpr uint64_t kKernelLookUs = 2;  // while spinning, the kernel is asked this often at most
constexpr uint64_t kFirstKernelLookUs = 2;  // and first after this: whoever finds something in memory asks anyway
constexpr int kMostRounds = 8;          // of questions in one look at everything
constexpr uint8_t kKernelsTurns = 8;    // waits for which a set is taken to get events of the kernel's
constexpr uint64_t kLongestSliceNs = 20'000'000;
constexpr uint64_t kLongestSleepNs = 1'000'000 * kNsPerSecond;  // a millisecond count in an int must hold it

// What a kernel event of a tagged registration says that the glance does not: where the flow is a ring, readability is
// a bell and writability says nothing.
// The first event with both there may still be from before.
uint32_t edges_in(Registration& r, uint32_t kernel_bits) {
  const Connection& c = *r.connection;
  const uint32_t ends = kernel_bits & kEnds & ~r.foretold;
  // A bell that lies unread is an error to the kernel, and to due() it may be none.
  const bool doubtful = r.foretold != 0 && ends == EPOLLERR;
  r.foretold = 0;
  uint32_t edges = ends == 0 || doubtful ? ends : kernel_bits & kEnds & (r.events | EPOLLERR | EPOLLHUP);
  const bool in = incoming_on_ring(c);
  const bool out = c.side->out_flow.load(std::memory_order_relaxed) == Flow::ring;
  if (!in || !r.knew_rings) edges |= kernel_bits & EPOLLIN;
  if (ends != 0 && !doubtful) edges |= EPOLLIN | EPOLLOUT;  // sk_state_change wakes without a key: an edge of whatever is true
  if (!out || !r.knew_rings) edges |= kernel_bits & EPOLLOUT;
  r.knew_rings = in && out;
  return edges;
}

// The hot registrations of a set while a thread spins on them, kept alive.
class HotView {
 public:
  explicit HotView(EpollSet& set) {
    const size_t hot = note_hot(set);
    for (size_t i = 0; i < hot; ++i) {
      Pin& pin = *new (memory_[count_]) Pin(hot_[i].handle);
      if (pin && &*pin == hot_[i].connection)
        hot_[count_++] = hot_[i];
      else
        pin.~Pin();
    }
  }
  ~HotView() {
    while (count_ > 0) pin(--count_).~Pin();
  }
  HotView(const HotView&) = delete;
  HotView& operator=(const HotView&) = delete;
  bool empty() const { return count_ == 0; }
  // The peers' common CPU; kAnyCpu if they wait on several.
  uint32_t peer_cpu() {
    uint32_t common = exchange_cpus(*pin(0));
    for (size_t i = 1; i < count_; ++i)
      if (exchange_cpus(*pin(i)) != common) common = kAnyCpu;
    return common;
  }
  bool changed() {
    for (size_t i = 0; i < count_; ++i)
      if (!(glance(*pin(i)) == hot_[i].seen)) return true;
    return false;
  }

 private:
  static constexpr size_t kMost = 64;
  struct Hot {
    int handle;
    Connection* connection;
    Glance seen;
  };
  size_t note_hot(EpollSet& set) {
    Locked lock(set.lock);
    if (lock.nested()) return 0;
    size_t noted = 0;
    for (Registration* r = set.hot_first; r && noted < kMost; r = r->hot_next)
      if (r->mode.load(std::memory_order_relaxed) == Mode::tagged && !r->fired) hot_[noted++] = {r->handle, r->connection, r->looked};
    return noted;
  }
  Pin& pin(size_t i) { return *std::launder(reinterpret_cast<Pin*>(memory_[i])); }
  alignas(Pin) unsigned char memory_[kMost][sizeof(Pin)];
  Hot hot_[kMost];
  size_t count_ = 0;
};

// What the kernel is asked when everything is looked at.
enum class Kernel : uint8_t {
  answered,  // it has just answered
  ask,
  later,     // only if memory has something to tell
};

class SetWait : Duty {
 public:
  SetWait(EpollSet& set, int epoll_fd, epoll_event* events, int room, const timespec* timeout, const sigset_t* mask, sys::EpollCall call)
      : call_(call), set_(set), epoll_fd_(epoll_fd), events_(events), room_(room), mask_(mask), deadline_(timeout) {
    begin(kFate);
  }
  ~SetWait() { done(); }
  SetWait(const SetWait&) = delete;
  SetWait& operator=(const SetWait&) = delete;
  long run();

 private:
  static void undo(Duty& duty) {
    auto& self = static_cast<SetWait&>(duty);
    if (self.asleep_) count_and_mark(self.set_.asleep, ~0u, self.asleep_, 0);
    if (self.asleep_in_family_) count_and_mark(self.set_.family->asleep, ~0u, self.asleep_in_family_, 0);
    hand_over(self.set_);
  }
  // The child's copy of the set begins without sleepers.
  static void go_on(Duty& duty, Whose whose) {
    auto& self = static_cast<SetWait&>(duty);
    if (whose == Whose::parents) return;
    self.set_.asleep.fetch_add(self.asleep_);
    self.set_.family->asleep.fetch_add(self.asleep_in_family_);
  }
  static constexpr Fate kFate{undo, nullptr, go_on};
  long wait();
  long wait_native();
  long collect(Kernel how);
  long gather(Kernel how);
  long ask_kernel();
  void accept(long fetched);
  bool accept_tagged(epoll_event& event);
  bool accept_native(const epoll_event& event);
  bool tell_in_place(Registration& r, epoll_event& event);
  static void note_told(Registration& r, const Glance& now);
  bool merge(const epoll_event& event, int& place);
  bool scan();
  bool rescan();
  bool visit(Registration& r);
  void tell(Registration& r, uint32_t bits);
  int told_at(const Registration& r) const;
  void note_when_it_came(const Registration& r);
  void put_in_order();
  bool spin();
  static long interrupted_after(long result) { return result == 0 ? -EINTR : result; }
  long sleep(uint64_t longest_ns);
  void remember_epoch();
  bool epoch_moved() const { return set_.epoch.load(std::memory_order_seq_cst) != epoch_; }

  sys::EpollCall call_;
  EpollSet& set_;
  int epoll_fd_;
  epoll_event* events_;
  int room_;
  const sigset_t* mask_;
  uint32_t asleep_ = 0;     // 1: counted in the set
  uint32_t asleep_in_family_ = 0;
  int count_ = 0;           // events gathered for the caller
  uint32_t epoch_ = 0;      // as we know it, our own changes included
  bool tags_seen_ = false;  // in the last answer of the kernel
  bool kernel_news_ = false;  // the last answer told of something that was not known
  bool memory_news_ = false;  // so did the last look at memory
  bool told_in_place_ = false;  // the last answers held wake-ups of what was told: the kernel must be asked after that
  bool asked_ = false;      // the kernel, since the last collect() began
  bool looked_once_ = false;  // at memory in this collect()
  bool anything_hot_ = false; // when it was last looked
  uint32_t doubtful_ = 0;   // hot registrations that were looked at before the last one that told something
  uint64_t complete_at_ = 0;  // when the kernel last told everything that it had to tell; 0: not in this call
  uint64_t looked_at_ = 0;    // when memory was looked at last
  uint32_t slices_ = 0;
  bool slept_ = false;
  Deadline deadline_;
  SignalWatch watch_{Interruption::by_any_handler};

  // What has been told in this call, so that nothing is told twice.
  struct Told {
    const Registration* registration;
    uint32_t generation;
    int at;
  };
  struct Came {
    int at;
    uint64_t since;  // when its bytes came, by the cycle counter
  };
  struct Answer {
    int begin, end;  // of the kernel's, in events_
  };
  static constexpr int kMostTold = 32;
  static constexpr int kMostAnswers = 2 * kMostRounds;
  int told_count_ = 0, answer_count_ = 0, came_count_ = 0;
  Told told_[kMostTold];
  Came came_[kMostTold];
  Answer answers_[kMostAnswers];
};

void SetWait::remember_epoch() { epoch_ = set_.epoch.load(std::memory_order_seq_cst); }

// What the kernel tells of an end: from now on nobody believes that the peer is there.
void note_ends(Registration& r, uint32_t kernel_bits) {
  r.ended |= kernel_bits & kEnds;
  if (kernel_bits & (EPOLLHUP | EPOLLRDHUP)) note_gone(*r.connection);
}

// The next event is of this registration: where there are several, its place in an answer depends on when its bytes came.
void SetWait::note_when_it_came(const Registration& r) {
  if (set_.followed.load(std::memory_order_relaxed) < 2 || came_count_ == kMostTold) return;
  const Pin pin(r.handle);
  if (!pin || &*pin != r.connection || !has_channel(*pin)) return;
  ask_for_times(*pin);
  if (const uint64_t since = unread_since(*pin); since != 0) came_[came_count_++] = {count_, since};
}

// True: the event is the program's as it is now.
bool SetWait::accept_tagged(epoll_event& event) {
  Locked lock(set_.lock);
  Registration* r = registration_of(event.data.u64, set_);
  if (!r) return false;  // ended since
  {
    // What has become the program's since it was fetched the kernel tells anew: by another thread or process.
    const FamilySection section(*r);
    if (r->mode.load(std::memory_order_relaxed) == Mode::native) return false;
  }
  if (r->mode.load(std::memory_order_relaxed) == Mode::dormant) return forget_in_kernel(*r), false;
  note_ends(*r, event.events);
  r->edges.fetch_or(edges_in(*r, event.events), std::memory_order_relaxed);
  heat_up(*r);
  ++epoch_;
  tags_seen_ = true;
  return tell_in_place(*r, event);
}

// The kernel's answer is in the order in which things happened, and so are the wake-up bytes in it. False: scan() will see.
bool SetWait::tell_in_place(Registration& r, epoll_event& event) {
  if (r.fired || settled_on_kernel(*r.connection) || told_count_ == kMostTold || told_at(r) >= 0) return false;
  if (!r.ended && !(r.events & EPOLLONESHOT)) note_alive(*r.connection, cycles());
  Glance now;
  uint32_t bits = due(r, now);
  if (bits == 0 && (event.events & EPOLLIN)) {
    if (Pin pin(r.handle); pin && &*pin == r.connection) reset_if_stray(*pin, r.handle);
    bits = due(r, now);
  }
  r.looked = now;
  if (bits == 0 || !may_fire(r)) return false;
  event.events = bits;
  event.data.u64 = r.data;
  told_[told_count_++] = {&r, r.generation.load(std::memory_order_relaxed), count_};
  note_when_it_came(r);
  note_told(r, now);
  looked_once_ = told_in_place_ = true;
  return true;
}

void SetWait::note_told(Registration& r, const Glance& now) {
  r.foretold = r.seen & ~r.ended ? r.seen & ~uint32_t{EPOLLPRI} : 0;
  r.reported = now;
  r.edges.store(0, std::memory_order_relaxed);
  r.fired = (r.events & EPOLLONESHOT) != 0;
}

// An event with the program's own word. False: it has become one of ours to tell since it was fetched.
bool SetWait::accept_native(const epoll_event& event) {
  Locked lock(set_.lock);
  Registration* r = lock.nested() ? nullptr : set_.words.only(event.data.u64);
  if (!r) return true;
  const FamilySection section(*r);
  const Mode mode = r->mode.load(std::memory_order_relaxed);
  const bool one_shot = (r->events & EPOLLONESHOT) != 0;
  if (mode == Mode::native) {
    r->told_here = true;
    note_when_it_came(*r);
    if (one_shot && !r->doubtful) r->fired = true;
    if ((event.events & EPOLLIN) && !has_channel(*r->connection)) note_wait(*r->connection);
    return true;
  }
  if (mode != Mode::tagged || !one_shot) return true;
  if (r->fired) return false;
  note_ends(*r, event.events);
  r->edges.fetch_or(kEdgeOfRequest, std::memory_order_relaxed);
  heat_up(*r);
  ++epoch_;
  tags_seen_ = true;
  return false;
}

// The kernel tells of a registration once in a call: what it has told in an earlier answer of this call is told there. `place`: where it is
// looked for first. Registrations that share a data word share an event: nobody can tell them apart.
bool SetWait::merge(const epoll_event& event, int& place) {
  if (answer_count_ == 0) return false;
  const int begin = answers_[0].begin, end = answers_[answer_count_ - 1].end;
  for (int i = 0, at = place; i < end - begin; ++i, ++at) {
    if (at >= end || at < begin) at = begin;
    if (events_[at].data.u64 != event.data.u64) continue;
    const bool kernels = std::any_of(answers_, answers_ + answer_count_, [at](const Answer& answer) { return at >= answer.begin && at < answer.end; });
    if (!kernels) continue;
    kernel_news_ |= (event.events & ~events_[at].events) != 0;
    events_[at].events |= event.events;
    place = at + 1;
    return true;
  }
  return false;
}

// Keeps the program's own events of those that the kernel wrote behind events_[count_].
void SetWait::accept(long fetched) {
  if (fetched < room_ - count_) complete_at_ = cycles();
  const int begin = count_;
  int place = 0;
  const bool follows = set_.followed.load(std::memory_order_relaxed) > set_.tagged.load(std::memory_order_relaxed) || set_.one_shots.load(std::memory_order_relaxed);
  for (long i = 0; i < fetched; ++i) {
    epoll_event event = events_[begin + i];
    const int came_before = came_count_;
    const bool tag = is_tag(event.data.u64);
    if (tag ? !accept_tagged(event) : follows && !accept_native(event)) continue;
    if (!tag && merge(event, place)) {
      came_count_ = came_before;
      continue;
    }
    events_[count_++] = event;
    kernel_news_ = true;
  }
  if (count_ == begin) return;
  if (!told_in_place_) set_.kernels_turns.store(kKernelsTurns, std::memory_order_relaxed);
  if (answer_count_ < kMostAnswers) answers_[answer_count_++] = {begin, count_};
}

long SetWait::ask_kernel() {
  asked_ = true;
  // Tags that fill the room hide what is behind them. They are edges, so they go.
  tags_seen_ = kernel_news_ = false;
  for (bool more = true; more;) {
    const int room = room_ - count_;
    set_.fetching.fetch_add(1, std::memory_order_seq_cst);  // SYNC: pairs with modify()
    const long fetched = sys::ask_epoll(call_, epoll_fd_, events_ + count_, room);
    more = fetched == room && count_ == 0;
    if (fetched > 0) accept(fetched);
    set_.fetching.fetch_sub(1, std::memory_order_seq_cst);
    if (fetched < 0) return fetched;
    if (fetched == 0) accept(0);
    more = more && count_ == 0;
  }
  return 0;
}

int SetWait::told_at(const Registration& r) const {
  if (!looked_once_) return -1;
  for (int i = 0; i < told_count_; ++i)
    if (told_[i].registration == &r && told_[i].generation == r.generation.load(std::memory_order_relaxed)) return told_[i].at;
  if (told_count_ < kMostTold) return -1;
  for (int at = told_[kMostTold - 1].at + 1; at < count_; ++at)
    if (events_[at].data.u64 == r.data) return at;
  return -1;
}

void SetWait::tell(Registration& r, uint32_t bits) {
  if (const int at = told_at(r); at >= 0) {
    memory_news_ |= (bits & ~events_[at].events) != 0;
    events_[at].events |= bits;
    return;
  }
  memory_news_ = true;
  if (told_count_ < kMostTold) told_[told_count_++] = {&r, r.generation.load(std::memory_order_relaxed), count_};
  note_when_it_came(r);
  events_[count_].events = bits;
  events_[count_++].data.u64 = r.data;
}

// One hot registration, under the set's lock. True: it was given back to the kernel, which must be asked once more.
bool SetWait::visit(Registration& r) {
  if (r.record && is_kernels(set_)) {
    const FamilySection as_others_have_left_it(r);
  }
  if (r.mode.load(std::memory_order_relaxed) != Mode::tagged || r.fired) return cool(set_, r), false;
  if (settled_on_kernel(*r.connection) && told_at(r) < 0) {
    switch_to_native(r);
    if (r.mode.load(std::memory_order_relaxed) == Mode::native) return cool(set_, r), true;
  }
  if (r.kicked) {
    r.kicked = false;
    if (!(r.events & kWritable)) kick(r, epoll_fd_, Kick::no);
  }
  // The kernel is asked before anything is told, where there is room for its answer, and of an end it makes an edge. A one-shot event is told as it is first found.
  if (!r.ended && !(r.events & EPOLLONESHOT) && count_ + 1 < room_) note_alive(*r.connection, looked_at_);
  Glance now;
  const uint32_t bits = due(r, now);
  r.looked = now;
  if (bits == 0) return rotate(set_, r), false;
  if (!may_fire(r)) return rotate(set_, r), true;
  tell(r, bits);
  note_told(r, now);
  if (r.fired)
    cool(set_, r);
  else
    rotate(set_, r);
  return false;
}

// Looks at every hot registration once, beginning with the one that waited longest. True: the kernel must be asked
// after that.
bool SetWait::scan() {
  looked_once_ = told_count_ > 0;
  doubtful_ = 0;
  Locked lock(set_.lock);
  if (lock.nested()) return false;  // a handler inside its own thread's wait: the kernel's answer must do
  take_fresh(set_);
  looked_at_ = cycles();
  bool kernel_changed = false, news = false;
  uint32_t stayed = 0;
  for (uint32_t left = set_.hot_count; left > 0 && count_ < room_; --left) {
    const uint32_t before = set_.hot_count;
    memory_news_ = false;
    kernel_changed |= visit(*set_.hot_first);
    if (memory_news_) doubtful_ = stayed, news = true;
    if (set_.hot_count == before) ++stayed;
  }
  looked_once_ = true;
  return kernel_changed || news;
}

// The same for what has moved since it was looked at: all if the kernel has told something, else what was looked at before the last news.
bool SetWait::rescan() {
  const bool all = kernel_news_ || tags_seen_ || set_.fresh.load(std::memory_order_relaxed);
  if (!all && doubtful_ == 0) return false;
  Locked lock(set_.lock);
  if (lock.nested()) return false;
  take_fresh(set_);
  looked_at_ = cycles();
  const uint32_t hot = set_.hot_count;
  bool again = false;
  memory_news_ = false;
  for (uint32_t left = all ? hot : min_of(doubtful_, hot); left > 0 && count_ < room_; --left) {
    Registration& r = *set_.hot_first;
    Pin pin(r.handle);
    const bool moved = r.edges.load(std::memory_order_relaxed) != 0 || !pin || &*pin != r.connection || !(glance(*pin) == r.looked);
    if (moved)
      again |= visit(r);
    else
      rotate(set_, r);
  }
  doubtful_ = hot;
  return again || memory_news_;
}

// What happened before something that is told is told with it, if there is room: every registration is looked at after the last news came, be it memory's
// or the kernel's.
long SetWait::gather(Kernel how) {
  const bool kernel_first = set_.kernel_first && how != Kernel::answered;
  if (!kernel_first) {
    const bool found = scan(), news = std::exchange(told_in_place_, false) || found;
    if (!news && how != Kernel::ask) return 0;
  }
  for (int round = 0; count_ < room_ && round < kMostRounds; ++round) {
    if (const long result = ask_kernel(); result < 0) return count_ > 0 ? 0 : result;
    const bool in_place = std::exchange(told_in_place_, false);
    const bool found = kernel_first && round == 0 ? scan() : rescan();
    if (!found && !in_place) break;
  }
  return 0;
}

// Those events of which that is known get the order in which they came, in the places that they have among the others.
void SetWait::put_in_order() {
  const auto earlier = [](const Came& a, const Came& b) { return a.at < b.at; };
  if (!std::is_sorted(came_, came_ + came_count_, earlier)) std::sort(came_, came_ + came_count_, earlier);
  for (int i = 1; i < came_count_; ++i)
    for (int k = i; k > 0 && came_[k].since < came_[k - 1].since; --k) {
      std::swap(events_[came_[k].at], events_[came_[k - 1].at]);
      std::swap(came_[k].since, came_[k - 1].since);
    }
}

// Everything that is ready: the kernel's and memory's. When there is more than room, they take turns to go first.
long SetWait::collect(Kernel how) {
  const int begin = count_;
  asked_ = false;
  const long result = gather(how);
  // The kernel was asked last, and its answer is first: it has an order, and what it tells at once is mostly older than what a spin saw first.
  const int memory = told_count_ > 0 && told_[0].at == begin && answer_count_ > 0 && answers_[0].begin >= begin ? answers_[0].begin : begin;
  if (memory > begin) {
    std::rotate(events_ + begin, events_ + memory, events_ + count_);
    for (Came* came = came_; came < came_ + came_count_; ++came) came->at += came->at < memory ? count_ - memory : begin - memory;
  }
  if (came_count_ > 1) put_in_order();
  if (count_ == room_) set_.kernel_first = !set_.kernel_first;
  return result;
}

bool SetWait::spin() {
  HotView hot(set_);
  tags_seen_ = false;
  anything_hot_ = !hot.empty();
  if (!anything_hot_) return false;
  const uint64_t pause = kKernelLookUs * patience.cycles_per_us();
  uint64_t kernel_look_at = cycles() + (asked_ ? pause : kFirstKernelLookUs * patience.cycles_per_us());
  return patience.spin(set_.history, watch_, hot.peer_cpu(), [&] {
    if (hot.changed() || epoch_moved() || must_settle(set_)) return true;
    const uint64_t now = cycles();
    if (now < kernel_look_at) return false;
    ask_kernel();
    kernel_look_at = cycles() + pause;
    return count_ > 0 || tags_seen_;
  });
}

// The kernel's result, or 0 without sleeping if something got hot since remember_epoch().
long SetWait::sleep(uint64_t longest_ns) {
  // SYNC: a full barrier, Dekker pair: whoever heats a registration afterwards sees us asleep and kicks.
  count_and_mark(set_.asleep, 1, asleep_, 1);
  // SYNC: the same with FamilySet::kernels: whoever sets it afterwards wakes us.
  if (!set_.settled.load(std::memory_order_relaxed)) count_and_mark(set_.family->asleep, 1, asleep_in_family_, 1);
  long result = 0;
  asked_ = tags_seen_ = kernel_news_ = false;
  if (!epoch_moved() && !must_settle(set_)) {
    const bool forever = longest_ns == kForever;
    const timespec timeout = to_timespec(min_of(longest_ns, kLongestSleepNs));
    count(totals.sleeps);
    // As in BlockingWait::sleep().
    std::optional<sys::SignalsBlocked> blocked;
    if (slept_) blocked.emplace();
    slept_ = true;
    const sigset_t* mask = mask_ || !blocked ? mask_ : blocked->before();
    const timespec* const until = forever ? nullptr : &timeout;
    if (watch_.interrupted())  // what is ready comes before a signal
      result = interrupted_after(sys::ask_epoll(call_, epoll_fd_, events_, room_));
    else
      result = sys::blocking_epoll(call_, epoll_fd_, events_, room_, until, mask);
    // A filter does not let through what the program has not called.
    if (blocked && !sys::is_answer(result)) {
      blocked.reset();
      result = sys::blocking_epoll(call_, epoll_fd_, events_, room_, until, mask_);
    }
    asked_ = true;
  }
  if (asleep_in_family_) count_and_mark(set_.family->asleep, ~0u, asleep_in_family_, 0);
  if (result > 0) accept(result);
  count_and_mark(set_.asleep, ~0u, asleep_, 0);
  return result;
}

// Nothing is answered from memory yet: the kernel's own wait. That may change meanwhile.
long SetWait::wait_native() {
  remember_epoch();
  if (set_.tagged.load(std::memory_order_relaxed) > 0) return 0;
  return deadline_.immediate() ? ask_kernel() : sleep(deadline_.left_for_sleep_ns());
}

long SetWait::wait() {
  if (must_settle(set_)) settle(set_);
  // A spin that brings something asks the kernel afterwards, so it need not before.
  const Kernel begin = mask_ || deadline_.immediate() || set_.kernel_first ? Kernel::ask : Kernel::later;
  Kernel how = begin;
  if (set_.tagged.load(std::memory_order_relaxed) == 0) {
    const long result = wait_native();
    if (result < 0) return result;
    if (set_.tagged.load(std::memory_order_relaxed) == 0 && (count_ > 0 || deadline_.immediate())) return 0;
    if ((tags_seen_ || count_ > 0) && complete_at_ != 0) how = Kernel::answered;
    if (count_ == room_) return 0;
  }
  for (;;) {
    if (must_settle(set_)) settle(set_);
    remember_epoch();
    if (const long result = collect(how); result < 0) return result;
    const bool asked = asked_ || how == Kernel::answered;
    how = Kernel::ask;
    if (count_ > 0) return 0;
    if (deadline_.left_ns() == 0) {
      if (asked) return 0;
      continue;
    }
    if (watch_.interrupted()) {
      if (asked) return -EINTR;
      continue;
    }
    asked_ = asked;
    const uint8_t turns = set_.kernels_turns.load(std::memory_order_relaxed);
    if (turns > 0) set_.kernels_turns.store(static_cast<uint8_t>(turns - 1), std::memory_order_relaxed);
    // A mask of its own holds in the kernel's sleep only, so there is no spinning with it.
    if (!mask_) {
      if (spin()) {
        if (count_ > 0 || tags_seen_) how = Kernel::answered;
        continue;
      }
      if (watch_.interrupted() && asked_) return -EINTR;
    }
    // Arming is dear where the kernel has something to tell; else the sleep is the question.
    if (!asked_ && anything_hot_ && turns > 0) {
      if (const long result = ask_kernel(); result < 0) return result;
      if (count_ > 0 || tags_seen_) {
        how = Kernel::answered;
        continue;
      }
    }
    const ArmedSet armed = arm_hot(set_);
    epoch_ += armed.epochs;
    if (armed.due) continue;
    uint64_t longest = deadline_.left_for_sleep_ns();
    if (!armed.slices)
      slices_ = 0;
    else
      longest = min_of(longest, min_of(static_cast<uint64_t>(kSliceNs) << min_of(slices_++ / 4, 5u), kLongestSliceNs));
    const long result = sleep(longest);
    if (result < 0) return result;
    // Tags that filled the room hide what is behind them, unless the program gets something now: asked again, the kernel
    // would tell it twice.
    how = !asked_ ? begin : result < room_ || count_ > 0 ? Kernel::answered : Kernel::ask;
  }
}

long SetWait::run() {
  const long result = wait();
  hand_over(set_);
  return count_ > 0 ? count_ : result;
}

}  // namespace

long wait_epoll(int epoll_fd, epoll_event* events, int room, const timespec* timeout, const sigset_t* mask, sys::EpollCall call) {
  SetUse set(epoll_fd);
  if (!set || room <= 0 || !events || !valid_timeout(timeout))
    return sys::blocking_epoll(call, epoll_fd, events, room, timeout, mask);
  return SetWait(*set, epoll_fd, events, room, timeout, mask, call).run();
}

}  // namespace shunt
