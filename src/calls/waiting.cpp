// Arguments that the kernel would refuse are handed to it; the rest goes to readiness/ if it concerns us.
#include "calls/waiting.h"

#include <cerrno>
#include <climits>
#include <cstring>

#include "calls/early_registration.h"
#include "calls/policy.h"
#include "readiness/readiness.h"
#include "sys/raw.h"
#include "sys/user_memory.h"

namespace shunt::calls {
namespace {

bool nothing_is_ours() { return descriptors_in_use() == 0; }

bool concerns_us(const pollfd* items, nfds_t count) {
  if (nothing_is_ours() || count > static_cast<nfds_t>(kMaxDescriptors)) return false;
  if (unwritable(items, count * sizeof *items)) return false;
  for (nfds_t i = 0; i < count; ++i)
    if (is_ours(items[i].fd)) return true;
  return false;
}

bool concerns_us(int count, const fd_set* set) {
  constexpr int kBits = 8 * sizeof(fd_mask);
  if (!set) return false;
  // Programs with more descriptors than FD_SETSIZE allocate larger sets: only the words that `count` covers exist.
  const auto* words = reinterpret_cast<const fd_mask*>(set);
  for (int word = 0; word * kBits < count; ++word) {
    auto bits = static_cast<unsigned long>(words[word]);
    for (; bits != 0; bits &= bits - 1) {
      const int fd = word * kBits + __builtin_ctzl(bits);
      if (fd < count && is_ours(fd)) return true;
    }
  }
  return false;
}

bool is_usable(int count, const fd_set* set) {
  constexpr int kBits = 8 * sizeof(fd_mask);
  return !set || !unwritable(set, static_cast<size_t>((count + kBits - 1) / kBits) * sizeof(fd_mask));
}

bool concerns_us(int count, const fd_set* read, const fd_set* write, const fd_set* except) {
  if (nothing_is_ours() || count <= 0) return false;
  count = min_of(count, descriptors_in_use());
  if (!is_usable(count, read) || !is_usable(count, write) || !is_usable(count, except)) return false;
  return concerns_us(count, read) || concerns_us(count, write) || concerns_us(count, except);
}

bool is_valid(const timespec* timeout) {
  return !timeout ||
         (!unreadable(timeout) && timeout->tv_sec >= 0 && timeout->tv_nsec >= 0 && timeout->tv_nsec <= 999999999);
}

bool is_valid(const sigset_t* mask) { return !mask || !unreadable(mask, sizeof(uint64_t)); }

// Milliseconds as poll and epoll_wait take them; null for a negative number.
class Milliseconds {
 public:
  explicit Milliseconds(int count) : time_{count / 1000, count % 1000 * 1000000L}, endless_(count < 0) {}
  const timespec* get() const { return endless_ ? nullptr : &time_; }

 private:
  timespec time_;
  bool endless_;
};

int64_t monotonic_ns() {
  timespec now{};
  sys::monotonic_time(&now);
  return now.tv_sec * 1000000000 + now.tv_nsec;
}

// poll_select_finish(): memory that cannot be written is no error.
template <typename Wait>
long tell_rest(timespec* timeout, Wait wait) {
  if (!is_valid(timeout)) return kPassOn;
  if (!timeout) return wait(nullptr);
  const timespec limit = *timeout;
  const int64_t begun = monotonic_ns();
  const long result = wait(&limit);
  if (!sys::accessible(timeout, sizeof *timeout, sys::Access::write)) return result;
  const int64_t passed = monotonic_ns() - begun;
  timespec left{limit.tv_sec - passed / 1000000000, limit.tv_nsec - passed % 1000000000};
  if (left.tv_nsec < 0) left = {left.tv_sec - 1, left.tv_nsec + 1000000000};
  *timeout = left.tv_sec < 0 ? timespec{} : left;
  return result;
}

}  // namespace

long poll(pollfd* items, nfds_t count, int timeout_ms) {
  if (!concerns_us(items, count)) return kPassOn;
  const Milliseconds timeout(timeout_ms);
  return wait_poll(items, count, timeout.get(), nullptr, sys::PollCall::poll);
}

long ppoll(pollfd* items, nfds_t count, const timespec* timeout, const sigset_t* mask) {
  if (!concerns_us(items, count) || !is_valid(timeout) || !is_valid(mask)) return kPassOn;
  return wait_poll(items, count, timeout, mask);
}

long select(int count, fd_set* read, fd_set* write, fd_set* except, timeval* timeout) {
  if (!concerns_us(count, read, write, except)) return kPassOn;
  if (!timeout) return wait_select(count, read, write, except, nullptr, nullptr, nullptr, sys::SelectCall::select);
  if (unreadable(timeout) || timeout->tv_sec < 0 || timeout->tv_usec < 0) return kPassOn;
  const time_t carry = timeout->tv_usec / 1000000;  // Linux takes more than a second of microseconds
  const timespec limit{timeout->tv_sec > LONG_MAX - carry ? LONG_MAX : timeout->tv_sec + carry,
                       timeout->tv_usec % 1000000 * 1000};
  timespec left = limit;
  const long result = wait_select(count, read, write, except, &limit, nullptr, &left, sys::SelectCall::select);
  *timeout = {left.tv_sec, left.tv_nsec / 1000};
  return result;
}

long pselect(int count, fd_set* read, fd_set* write, fd_set* except, const timespec* timeout, const sigset_t* mask) {
  if (!concerns_us(count, read, write, except) || !is_valid(timeout) || !is_valid(mask)) return kPassOn;
  return wait_select(count, read, write, except, timeout, mask, nullptr, sys::SelectCall::pselect);
}

long ppoll_and_tell(pollfd* items, nfds_t count, timespec* timeout, const sigset_t* mask) {
  if (!concerns_us(items, count) || !is_valid(mask)) return kPassOn;
  return tell_rest(timeout, [&](const timespec* limit) { return wait_poll(items, count, limit, mask); });
}

long pselect_and_tell(int count, fd_set* read, fd_set* write, fd_set* except, timespec* timeout, const sigset_t* mask) {
  if (!concerns_us(count, read, write, except) || !is_valid(mask)) return kPassOn;
  return tell_rest(
      timeout, [&](const timespec* limit) { return wait_select(count, read, write, except, limit, mask, nullptr, sys::SelectCall::pselect); });
}

void note_epoll(int fd) {
  if (!in_foreign_process()) note_epoll_created(fd);
}

long epoll_ctl(int set, int operation, int fd, epoll_event* event) {
  // A set that we did not see made (exec, raw system call) must not hold a connection of ours unnoticed.
  if ((!epoll_set_of(set) && !is_connection(fd) && !fresh(fd).known) || in_foreign_process()) return kPassOn;
  if (operation != EPOLL_CTL_DEL && unreadable(event)) return kPassOn;
  const long result = control_epoll(set, operation, fd, event);
  if (result >= 0 && !is_connection(fd)) note_early_registration(set, operation, fd, event);
  return result;
}

long epoll_wait(int set, epoll_event* events, int room, int timeout_ms, const sigset_t* mask, sys::EpollCall call) {
  const Milliseconds timeout(timeout_ms);
  return epoll_wait_until(set, events, room, timeout.get(), mask, call);
}

long epoll_wait_until(int set, epoll_event* events, int room, const timespec* timeout, const sigset_t* mask, sys::EpollCall call) {
  constexpr int kMostEvents = INT_MAX / static_cast<int>(sizeof(epoll_event));
  if (!epoll_set_of(set) || room <= 0 || room > kMostEvents || !is_valid(timeout) || !is_valid(mask)) return kPassOn;
  if (!unwritable(events, sizeof *events)) return wait_epoll(set, events, room, timeout, mask, call);
  epoll_event lost;  // the kernel finds bad memory when it has something to put there
  const long result = wait_epoll(set, &lost, 1, timeout, mask, call);
  return result > 0 ? -EFAULT : result;
}

}  // namespace shunt::calls
