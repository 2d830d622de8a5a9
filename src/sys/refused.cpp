// What a call of the library's own is tried by when a sandbox's filter refuses it: another call that gives the same, and that the program may well be allowed.
// Any thread, any context; all cold. Never sleeps longer than the call that was refused would have.
#include <cstddef>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <linux/sockios.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include "base/platform.h"
#include "sys/raw.h"
#include "sys/signal_mask.h"

namespace shunt::sys {
namespace {

constexpr size_t kSurelyTaken = 2048;  // bytes: where POLLOUT is told, a write of these does not wait (unix_writable: a quarter of the buffer is used at most)
constexpr long kMillisecond = 1'000'000;
constexpr long kSliceMs = 20;
constexpr int kForgoes = MSG_DONTWAIT | MSG_NOSIGNAL | MSG_CMSG_CLOEXEC;  // what read and write can do without

// Only what read and write, which take no flags, would not sleep for.
bool would_wait(int fd, short event, int flags) {
  if (!(flags & MSG_DONTWAIT)) return false;
  const long status = raw(SYS_fcntl, fd, F_GETFL);
  return (status < 0 || !(status & O_NONBLOCK)) && poll_now(fd, event) == 0;
}

// write(2) raises SIGPIPE. It is blocked meanwhile, and taken back unless one was there before.
long write_quietly(int fd, const void* data, size_t bytes, long refusal) {
  constexpr uint64_t kPipe = signal_bit(SIGPIPE);
  uint64_t pending = kPipe;
  SignalsBlocked alone(kPipe);
  if (!alone.works()) return refusal;
  raw(SYS_rt_sigpending, &pending, sizeof pending);
  const long result = raw(SYS_write, fd, data, bytes);
  constexpr timespec kNow{0, 0};
  if (result == -EPIPE && !(pending & kPipe)) raw(SYS_rt_sigtimedwait, &kPipe, nullptr, &kNow, sizeof kPipe);
  return result;
}

long write_otherwise(int fd, const void* data, size_t bytes, int flags, long refusal) {
  if (flags & ~kForgoes) return refusal;
  if (would_wait(fd, POLLOUT, flags)) return -EAGAIN;
  if (flags & MSG_DONTWAIT && bytes > kSurelyTaken) bytes = kSurelyTaken;
  return flags & MSG_NOSIGNAL ? write_quietly(fd, data, bytes, refusal) : raw(SYS_write, fd, data, bytes);
}

long read_otherwise(int fd, void* data, size_t bytes, int flags, long refusal) {
  if (flags & ~kForgoes) return refusal;
  return would_wait(fd, POLLIN | POLLRDHUP, flags) ? -EAGAIN : raw(SYS_read, fd, data, bytes);
}

// One piece after the other, as far as each is moved whole.
template <typename Move>
long each_part(const msghdr& message, int& flags, Move move) {
  long done = 0;
  for (size_t i = 0; i < message.msg_iovlen; ++i) {
    const iovec& part = message.msg_iov[i];
    if (part.iov_len == 0 && message.msg_iovlen > 1) continue;
    const long moved = move(part);
    if (moved < 0) return done > 0 ? done : moved;
    done += moved;
    if (static_cast<size_t>(moved) < part.iov_len) break;
    flags |= MSG_DONTWAIT;
  }
  return done;
}

// What lies unread, by a look at it: the same scratch memory over and over.
long count_by_peeking(int fd, int* bytes) {
  constexpr size_t kScratch = 4096, kParts = 256;
  if (!(poll_now(fd, POLLIN) & POLLIN)) return *bytes = 0;
  uint8_t scratch[kScratch];
  iovec parts[kParts];
  for (iovec& part : parts) part = {scratch, kScratch};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = kParts;
  const long seen = raw(SYS_recvmsg, fd, &message, MSG_PEEK | MSG_DONTWAIT);
  if (seen < 0 && seen != -EAGAIN) return seen;
  *bytes = seen > 0 ? static_cast<int>(seen) : 0;
  return 0;
}

// unix_outq_len() is what SO_MEMINFO calls the memory in the way out.
long count_by_memory(int fd, int* bytes) {
  constexpr int kMeminfo = 55, kWritten = 2;  // SO_MEMINFO; SK_MEMINFO_WMEM_ALLOC
  uint32_t memory[9] = {};
  socklen_t length = sizeof memory;
  const long result = raw(SYS_getsockopt, fd, SOL_SOCKET, kMeminfo, memory, &length);
  if (result == 0) *bytes = static_cast<int>(memory[kWritten]);
  return result;
}

int process_id_by_name() {
  char digits[16];
  const long length = raw(SYS_readlink, "/proc/self", digits, sizeof digits);
  int id = 0;
  for (long i = 0; i < length; ++i) id = id * 10 + (digits[i] - '0');
  return id;
}

int process_id_by_socket() {
  int pair[2];
  if (raw(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) return 0;
  ucred self{};
  socklen_t length = sizeof self;
  raw(SYS_getsockopt, pair[0], SOL_SOCKET, SO_PEERCRED, &self, &length);
  for (const int end : pair) raw(SYS_close, end);
  return self.pid;
}

}  // namespace

long recv_otherwise(int fd, void* data, size_t bytes, int flags, long refusal) {
  iovec part{data, bytes};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  const long result = raw(SYS_recvmsg, fd, &message, flags);
  return refused(result) ? read_otherwise(fd, data, bytes, flags, refusal) : result;
}

long send_otherwise(int fd, const void* data, size_t bytes, int flags, long refusal) {
  iovec part{const_cast<void*>(data), bytes};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  const long result = raw(SYS_sendmsg, fd, &message, flags);
  return refused(result) ? write_otherwise(fd, data, bytes, flags, refusal) : result;
}

// Who asks for control data or for more than one look gets the refusal.
long recvmsg_otherwise(int fd, msghdr* message, int flags, long refusal) {
  if (message->msg_controllen > 0 || (message->msg_iovlen > 1 && (flags & MSG_PEEK))) return refusal;
  socklen_t named = 0;
  const long result = each_part(*message, flags, [&](const iovec& part) {
    socklen_t length = message->msg_namelen;
    const long got = raw(SYS_recvfrom, fd, part.iov_base, part.iov_len, flags, message->msg_name, message->msg_name ? &length : nullptr);
    if (got >= 0) named = length;
    return refused(got) && !message->msg_name ? read_otherwise(fd, part.iov_base, part.iov_len, flags, refusal) : got;
  });
  if (result < 0) return result;
  message->msg_flags = 0;
  if (message->msg_name) message->msg_namelen = named;
  return result;
}

long sendmsg_otherwise(int fd, const msghdr* message, int flags, long refusal) {
  if (message->msg_controllen > 0) return refusal;
  return each_part(*message, flags, [&](const iovec& part) {
    const long sent = raw(SYS_sendto, fd, part.iov_base, part.iov_len, flags, nullptr, 0);
    return refused(sent) ? write_otherwise(fd, part.iov_base, part.iov_len, flags, refusal) : sent;
  });
}

// A mask is set before and given back after: a signal in between is not lost, but found at the end of a slice.
long ppoll_otherwise(pollfd* fds, size_t count, const timespec* timeout, const sigset_t* mask, long refusal) {
  long milliseconds = timeout ? timeout->tv_sec * 1000 + (timeout->tv_nsec + kMillisecond - 1) / kMillisecond : -1;
  if (!mask) {
    const long result = raw(SYS_poll, fds, count, milliseconds);
    return refused(result) ? refusal : result;
  }
  if (milliseconds < 0 || milliseconds > kSliceMs) milliseconds = kSliceMs;
  uint64_t before = 0;
  if (raw(SYS_rt_sigprocmask, SIG_SETMASK, mask, &before, sizeof before) != 0) return refusal;
  const long result = raw(SYS_poll, fds, count, milliseconds);
  restore_mask(before, before);
  return refused(result) ? refusal : result;
}

long queue_otherwise(int fd, unsigned long request, int* bytes, long refusal) {
  const long result = request == SIOCOUTQ ? count_by_memory(fd, bytes) : request == FIONREAD ? count_by_peeking(fd, bytes) : refusal;
  return result < 0 ? refusal : result;
}

// Most often that is no call at all. Without it, by the cycle counter, at the speed that most have.
void clock_otherwise(timespec* now) {
  const int error = errno;
  const bool known = clock_gettime(CLOCK_MONOTONIC, now) == 0;
  errno = error;
  constexpr uint64_t kCyclesPerNs = 2, kSecond = 1'000'000'000;
  const uint64_t ns = cycles() / kCyclesPerNs;
  if (!known) *now = {static_cast<time_t>(ns / kSecond), static_cast<long>(ns % kSecond)};
}

// libc knows it, and writes it into a mutex that counts.
int thread_id_otherwise() {
  pthread_mutex_t mutex = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
  pthread_mutex_lock(&mutex);
  const int id = mutex.__data.__owner;
  pthread_mutex_unlock(&mutex);
  return id > 0 ? id : process_id();
}

int process_id_otherwise() {
  if (const int id = process_id_by_name(); id > 0) return id;
  if (const int id = process_id_by_socket(); id > 0) return id;
  pthread_mutex_t mutex = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;  // of a process with one thread
  pthread_mutex_lock(&mutex);
  const int id = mutex.__data.__owner;
  pthread_mutex_unlock(&mutex);
  return id;
}

void pause_otherwise(long microseconds) {
  constexpr uint64_t kCyclesPerUs = 2000;
  const uint64_t end = cycles() + static_cast<uint64_t>(microseconds) * kCyclesPerUs;
  while (cycles() < end) {
    raw(SYS_sched_yield);
    cpu_pause();
  }
}

long futex_wait_otherwise(const std::atomic<uint32_t>* word, uint32_t seen, const timespec& timeout) {
  const uint64_t end = monotonic_ns() + static_cast<uint64_t>(timeout.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(timeout.tv_nsec);
  while (word->load(std::memory_order_relaxed) == seen) {
    if (monotonic_ns() >= end) return -ETIMEDOUT;
    pause_briefly();
  }
  return -EAGAIN;
}

// A store buffer drains by itself, as fast as the cache takes its lines: a thousand times the longest that this can take passes here.
bool barrier_everywhere() {
  if (raw(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) == 0) return true;
  constexpr int kPauses = 20;
  full_barrier();
  for (int i = 0; i < kPauses; ++i) pause_briefly();
  return false;
}

}  // namespace shunt::sys
