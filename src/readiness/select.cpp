// select and pselect, as poll over the descriptors in the sets. The kernel's own call unless one of them is a
// connection of ours. Any thread, signal handlers included. Never reads or writes more of the sets than the kernel
// would.
#include <sys/resource.h>

#include <cerrno>

#include "descriptors/table.h"
#include "readiness/deadline.h"
#include "readiness/epoll_set.h"
#include "readiness/readiness.h"

namespace shunt {
namespace {

constexpr size_t kFew = 64;
constexpr int kWordBits = 64;
constexpr uint64_t kShortestSliceNs = 1'000'000, kLongestSliceNs = 20'000'000;
// fs/select.c: POLLIN_SET, POLLOUT_SET, POLLEX_SET.
constexpr short kSelectReadable = POLLRDNORM | POLLRDBAND | POLLIN | POLLHUP | POLLERR;
constexpr short kSelectWritable = POLLWRBAND | POLLWRNORM | POLLOUT | POLLERR;
constexpr short kSelectExceptional = POLLPRI;

struct Sets {
  unsigned long* read;
  unsigned long* write;
  unsigned long* except;
  int count;
  sys::SelectCall call = sys::SelectCall::select;

  int words() const { return (count + kWordBits - 1) / kWordBits; }
  static unsigned long word(const unsigned long* set, int index) { return set ? set[index] : 0; }
  static bool has(const unsigned long* set, int fd) { return word(set, fd / kWordBits) >> (fd % kWordBits) & 1; }

  // function(fd) for each descriptor below `end` in any set.
  template <typename Function>
  void each(int end, Function function) const {
    for (int index = 0; index * kWordBits < end; ++index) {
      unsigned long bits = word(read, index) | word(write, index) | word(except, index);
      for (; bits != 0; bits &= bits - 1) {
        const int fd = index * kWordBits + __builtin_ctzl(bits);
        if (fd < end) function(fd);
      }
    }
  }
};

unsigned long* words_of(fd_set* set) { return reinterpret_cast<unsigned long*>(set); }

long kernel_select(const Sets& sets, int count, const timespec* timeout, const sigset_t* mask, timespec* left, sys::SelectCall call) {
  timespec copy{};
  if (timeout) copy = *timeout;
  const auto set = [](unsigned long* words) { return reinterpret_cast<fd_set*>(words); };
  const long result = sys::blocking_select(call, count, set(sets.read), set(sets.write), set(sets.except), timeout ? &copy : nullptr, mask);
  if (left && timeout) *left = copy;
  return result;
}

bool any_of_ours(const Sets& sets) {
  bool ours = false;
  sets.each(min_of(sets.count, descriptors_in_use()), [&](int fd) {
    if (is_connection(fd))
      ours = true;
    else if (EpollSet* set = epoll_set_of(fd); set && !set->watched.load(std::memory_order_relaxed))
      note_set_watched(fd);
  });
  return ours;
}

// core_sys_select: a count beyond the descriptor table is cut down, so sets may be shorter than it says.
int cut_down(int count) {
  if (count <= FD_SETSIZE) return count;
  uint64_t limit[2] = {};
  if (sys::raw(SYS_prlimit64, 0, RLIMIT_NOFILE, nullptr, limit) < 0) return FD_SETSIZE;
  return static_cast<int>(min_of<uint64_t>(static_cast<uint64_t>(count), limit[0]));
}

size_t fill(const Sets& sets, pollfd* entries) {
  size_t used = 0;
  sets.each(sets.count, [&](int fd) {
    int events = 0;
    if (Sets::has(sets.read, fd)) events |= kSelectReadable;
    if (Sets::has(sets.write, fd)) events |= kSelectWritable;
    if (Sets::has(sets.except, fd)) events |= kSelectExceptional;
    entries[used++] = {fd, static_cast<short>(events & ~(POLLHUP | POLLERR)), 0};
  });
  return used;
}

struct Verdict {
  bool read, write, except;
  long bits() const { return read + write + except; }
};

Verdict judge(const Sets& sets, const pollfd& entry) {
  if (entry.fd < 0) return {false, false, false};
  return {(entry.revents & kSelectReadable) && Sets::has(sets.read, entry.fd),
          (entry.revents & kSelectWritable) && Sets::has(sets.write, entry.fd),
          (entry.revents & kSelectExceptional) && Sets::has(sets.except, entry.fd)};
}

// core_sys_select cuts the count down to the size of the table of descriptors: a number that is not open is EBADF below it, and not looked at above.
bool beyond_table(int fd, sys::SelectCall call) {
  Scratch<unsigned long, FD_SETSIZE / kWordBits> bits(static_cast<size_t>(fd / kWordBits) + 1);
  if (!bits.get()) return false;
  for (int index = 0; index <= fd / kWordBits; ++index) bits.get()[index] = 0;
  bits.get()[fd / kWordBits] = 1ul << (fd % kWordBits);
  const timespec now{};
  return kernel_select({bits.get(), nullptr, nullptr, fd + 1}, fd + 1, &now, nullptr, nullptr, call) == 0;
}

// Leaves out what lies beyond the table, whose size is a multiple of a word's: nothing there is open. −EBADF: something below it is not.
long cut_to_table(Sets& sets, const pollfd* entries, size_t& used) {
  for (size_t i = 0; i < used; ++i) {
    if (!(entries[i].revents & POLLNVAL)) continue;
    if (!beyond_table(entries[i].fd, sets.call)) return -EBADF;
    sets.count = entries[i].fd / kWordBits * kWordBits;
    used = i;
  }
  return 0;
}

// The number of bits that will be set, or −EBADF. Entries whose answer no set asked for (a hang-up of a descriptor in
// `except` only) are left out of the next sleep: select would sleep on.
long weigh(Sets& sets, pollfd* entries, size_t& used) {
  long bits = 0;
  if (const long cut = cut_to_table(sets, entries, used); cut < 0) return cut;
  for (size_t i = 0; i < used; ++i) bits += judge(sets, entries[i]).bits();
  if (bits > 0) return bits;
  for (size_t i = 0; i < used; ++i)
    if (entries[i].revents != 0 && entries[i].fd >= 0) entries[i].fd = ~entries[i].fd;
  return 0;
}

bool take_back_left_out(pollfd* entries, size_t used) {
  bool any = false;
  for (size_t i = 0; i < used; ++i)
    if (entries[i].fd < 0) entries[i].fd = ~entries[i].fd, any = true;
  return any;
}

void answer(const Sets& sets, const pollfd* entries, size_t used) {
  // The verdicts read the sets, so the answers of a whole word are gathered before it is written.
  size_t next = 0;
  for (int index = 0; index < sets.words(); ++index) {
    unsigned long read = 0, write = 0, except = 0;
    for (; next < used; ++next) {
      const int fd = entries[next].fd < 0 ? ~entries[next].fd : entries[next].fd;
      if (fd / kWordBits != index) break;
      const Verdict verdict = judge(sets, entries[next]);
      const unsigned long bit = 1ul << (fd % kWordBits);
      if (verdict.read) read |= bit;
      if (verdict.write) write |= bit;
      if (verdict.except) except |= bit;
    }
    if (sets.read) sets.read[index] = read;
    if (sets.write) sets.write[index] = write;
    if (sets.except) sets.except[index] = except;
  }
}

long select_by_poll(Sets& sets, const sigset_t* mask, Deadline& deadline) {
  size_t bits = 0;
  sets.each(sets.count, [&](int) { ++bits; });
  Scratch<pollfd, kFew> entries(bits);
  if (!entries.get()) return -ENOMEM;
  size_t used = fill(sets, entries.get());
  const SignalWatch watch(Interruption::by_any_handler);
  uint64_t longest = kForever;  // poll cannot wait for what follows a hang-up: it is looked for by the clock
  for (;;) {
    const uint64_t left = min_of(deadline.left_ns(), longest);
    const timespec timeout = to_timespec(left);
    const long ready = wait_poll(entries.get(), used, left == kForever ? nullptr : &timeout, mask, sys::PollCall::ppoll);
    if (ready < 0) return ready;
    const long result = ready > 0 ? weigh(sets, entries.get(), used) : 0;
    if (result < 0) return result;
    if (result == 0 && watch.interrupted()) return -EINTR;
    if (result == 0 && ready > 0) {
      longest = longest == kForever ? kShortestSliceNs : min_of(2 * longest, kLongestSliceNs);
      continue;
    }
    if (ready == 0 && longest != kForever && deadline.left_ns() > 0) {
      if (!take_back_left_out(entries.get(), used)) longest = kForever;
      continue;
    }
    answer(sets, entries.get(), used);
    return result;
  }
}

bool any_on_ring(const Sets& sets) {
  bool any = false;
  sets.each(min_of(sets.count, descriptors_in_use()), [&](int fd) {
    if (any || !is_connection(fd)) return;
    if (Pin pin(fd); pin) any = has_channel(*pin);
  });
  return any;
}

// All on the kernel so far: its own call. False: a channel has appeared meanwhile, and nothing has been answered.
bool select_by_kernel(const Sets& sets, int count, const timespec* timeout, const sigset_t* mask, timespec* left, long& result) {
  const auto words = static_cast<size_t>(sets.words());
  Scratch<unsigned long, 3 * FD_SETSIZE / kWordBits> asked(3 * words);
  if (!asked.get()) return false;
  unsigned long* const all[] = {sets.read, sets.write, sets.except};
  const auto each_word = [&](auto function) {
    for (size_t set = 0; set < 3; ++set)
      for (size_t i = 0; all[set] && i < words; ++i) function(all[set][i], asked.get()[set * words + i]);
  };
  each_word([](unsigned long& programs, unsigned long& copy) { copy = programs; });
  result = kernel_select(sets, count, timeout, mask, left, sets.call);
  if (result <= 0) return true;
  unsigned long* const copy = asked.get();
  const Sets before{sets.read ? copy : nullptr, sets.write ? copy + words : nullptr, sets.except ? copy + 2 * words : nullptr, sets.count, sets.call};
  if (!any_on_ring(before)) {
    sets.each(min_of(sets.count, descriptors_in_use()), [&](int fd) {
      if (!is_connection(fd) || !Sets::has(sets.read, fd)) return;
      if (Pin pin(fd); pin) note_wait(*pin);
    });
    return true;
  }
  each_word([](unsigned long& programs, unsigned long& copied) { programs = copied; });
  return false;
}

}  // namespace

long wait_select(int count, fd_set* read, fd_set* write, fd_set* except, const timespec* timeout, const sigset_t* mask,
                 timespec* left, sys::SelectCall call) {
  Sets sets{words_of(read), words_of(write), words_of(except), count, call};
  if (count <= 0 || !valid_timeout(timeout) || !any_of_ours(sets))
    return kernel_select(sets, count, timeout, mask, left, call);
  sets.count = cut_down(count);
  Deadline deadline(timeout);
  long result = 0;
  if (!any_on_ring(sets) && select_by_kernel(sets, count, timeout, mask, left, result)) return result;
  result = select_by_poll(sets, mask, deadline);
  if (!sys::is_answer(result)) return kernel_select(sets, count, timeout, mask, left, call);
  if (left && timeout) *left = to_timespec(deadline.left_ns());
  return result;
}

}  // namespace shunt
