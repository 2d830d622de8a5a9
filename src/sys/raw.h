// Raw system calls: result ≥ 0 or −errno, errno untouched, no cancellation point; what is refused is tried another way (refused.cpp).
// Any thread, any context, also before the loader has finished. Must not call libc.
#pragma once

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <linux/futex.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <type_traits>

#if defined(__SANITIZE_THREAD__)
#include "sys/seen_by_tsan.h"
#endif

namespace shunt::sys {

inline long raw6(long number, long a, long b, long c, long d, long e, long f) {
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}

template <typename T>
long word(T value) {
  if constexpr (std::is_same_v<T, decltype(nullptr)>)
    return 0;
  else if constexpr (std::is_pointer_v<T>)
    return reinterpret_cast<long>(value);
  else
    return static_cast<long>(value);
}

inline long raw(long number) { return raw6(number, 0, 0, 0, 0, 0, 0); }
template <typename A>
long raw(long number, A a) {
  return raw6(number, word(a), 0, 0, 0, 0, 0);
}
template <typename A, typename B>
long raw(long number, A a, B b) {
  return raw6(number, word(a), word(b), 0, 0, 0, 0);
}
template <typename A, typename B, typename C>
long raw(long number, A a, B b, C c) {
  return raw6(number, word(a), word(b), word(c), 0, 0, 0);
}
template <typename A, typename B, typename C, typename D>
long raw(long number, A a, B b, C c, D d) {
  return raw6(number, word(a), word(b), word(c), word(d), 0, 0);
}
template <typename A, typename B, typename C, typename D, typename E>
long raw(long number, A a, B b, C c, D d, E e) {
  return raw6(number, word(a), word(b), word(c), word(d), word(e), 0);
}
template <typename A, typename B, typename C, typename D, typename E, typename F>
long raw(long number, A a, B b, C c, D d, E e, F f) {
  return raw6(number, word(a), word(b), word(c), word(d), word(e), word(f));
}

// A sandbox's filter may refuse any call of ours, at any time. These are what it answers, and what a call of ours on a descriptor of ours does not give by
// itself.
constexpr bool refused(long result) { return result == -EPERM || result == -ENOSYS || result == -EACCES || result == -EOPNOTSUPP; }

// What a refused call is tried by next (sys/refused.cpp). Each gives what the call would have given, or −errno of a refusal when there is no other way.
[[gnu::cold]] long recv_otherwise(int fd, void* data, size_t bytes, int flags, long refusal);
[[gnu::cold]] long send_otherwise(int fd, const void* data, size_t bytes, int flags, long refusal);
[[gnu::cold]] long recvmsg_otherwise(int fd, msghdr* message, int flags, long refusal);
[[gnu::cold]] long sendmsg_otherwise(int fd, const msghdr* message, int flags, long refusal);
[[gnu::cold]] long ppoll_otherwise(pollfd* fds, size_t count, const timespec* timeout, const sigset_t* mask, long refusal);
[[gnu::cold]] long queue_otherwise(int fd, unsigned long request, int* bytes, long refusal);
[[gnu::cold]] void clock_otherwise(timespec* now);
[[gnu::cold]] int thread_id_otherwise();
[[gnu::cold]] int process_id_otherwise();
[[gnu::cold]] void pause_otherwise(long microseconds);

inline long recv(int fd, void* data, size_t bytes, int flags) {
  const long result = raw(SYS_recvfrom, fd, data, bytes, flags, nullptr, nullptr);
  return __builtin_expect(refused(result), 0) ? recv_otherwise(fd, data, bytes, flags, result) : result;
}
inline long send(int fd, const void* data, size_t bytes, int flags) {
  const long result = raw(SYS_sendto, fd, data, bytes, flags, nullptr, 0);
  return __builtin_expect(refused(result), 0) ? send_otherwise(fd, data, bytes, flags, result) : result;
}
inline long recvmsg(int fd, msghdr* message, int flags) {
  const long result = raw(SYS_recvmsg, fd, message, flags);
  return __builtin_expect(refused(result), 0) ? recvmsg_otherwise(fd, message, flags, result) : result;
}
inline long sendmsg(int fd, const msghdr* message, int flags) {
  const long result = raw(SYS_sendmsg, fd, message, flags);
  return __builtin_expect(refused(result), 0) ? sendmsg_otherwise(fd, message, flags, result) : result;
}
inline long ppoll(pollfd* fds, size_t count, const timespec* timeout, const sigset_t* mask) {
  timespec copy{};
  if (timeout) copy = *timeout;  // the kernel writes the remaining time back
  const long result = raw(SYS_ppoll, fds, count, timeout ? &copy : nullptr, mask, sizeof(uint64_t));
  return __builtin_expect(refused(result), 0) ? ppoll_otherwise(fds, count, timeout, mask, result) : result;
}
// FIONREAD or SIOCOUTQ of a stream socket.
inline long ioctl(int fd, unsigned long request, int* bytes) {
  const long result = raw(SYS_ioctl, fd, request, bytes);
  return __builtin_expect(refused(result), 0) ? queue_otherwise(fd, request, bytes, result) : result;
}
// The kernel's own function in this process's memory, which makes no call. Null until it was looked for, and where there is none.
inline int (*vdso_clock)(clockid_t, timespec*) = nullptr;

// CLOCK_MONOTONIC.
inline void monotonic_time(timespec* now) {
  if (vdso_clock && vdso_clock(CLOCK_MONOTONIC, now) == 0) return;
  if (__builtin_expect(raw(SYS_clock_gettime, CLOCK_MONOTONIC, now) != 0, 0)) clock_otherwise(now);
}
inline uint64_t monotonic_ns() {
  timespec now{};
  monotonic_time(&now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

#if !defined(__SANITIZE_THREAD__)  // else seen_by_tsan.h
inline long close(int fd) { return raw(SYS_close, fd); }
inline long mmap(void* place, size_t bytes, int protection, int flags, int fd, size_t offset) {
  return raw(SYS_mmap, place, bytes, protection, flags, fd, offset);
}
inline long munmap(void* place, size_t bytes) { return raw(SYS_munmap, place, bytes); }
#endif

inline int thread_id() {
  const long id = raw(SYS_gettid);
  return __builtin_expect(id < 0, 0) ? thread_id_otherwise() : static_cast<int>(id);
}
inline int process_id() {
  const long id = raw(SYS_getpid);
  return __builtin_expect(id < 0, 0) ? process_id_otherwise() : static_cast<int>(id);
}

// Of a helper process with one thread.
[[noreturn]] inline void end_process(int status) {
  for (;;) {
    raw(SYS_exit_group, status);
    raw(SYS_exit, status);
    __asm__ volatile("ud2");
  }
}

// A socket's number in the kernel; 0: not open.
inline uint64_t file_of(int fd) {
  struct stat status {};
  return raw(SYS_fstat, fd, &status) == 0 ? status.st_ino : 0;
}

// What poll(2) says of one descriptor now, for these events (plus ERR, HUP, NVAL).
inline short poll_now(int fd, short events) {
  pollfd item{fd, events, 0};
  timespec zero{};
  return sys::ppoll(&item, 1, &zero, nullptr) > 0 ? item.revents : short{0};
}

// Between two looks at what somebody else is about to do: 0.1 ms.
inline void pause_briefly() {
  constexpr long kMicroseconds = 100;
  const timespec pause{0, kMicroseconds * 1000};
  if (refused(sys::ppoll(nullptr, 0, &pause, nullptr))) pause_otherwise(kMicroseconds);
}

// FUTEX_WAIT in shared memory: −ETIMEDOUT when the time is over, else look again.
[[gnu::cold]] long futex_wait_otherwise(const std::atomic<uint32_t>* word, uint32_t seen, const timespec& timeout);
inline long futex_wait(const std::atomic<uint32_t>* word, uint32_t seen, const timespec& timeout) {
  const long result = raw(SYS_futex, word, FUTEX_WAIT, seen, &timeout, nullptr, 0);
  return __builtin_expect(refused(result), 0) ? futex_wait_otherwise(word, seen, timeout) : result;
}
// Refused: nobody waits for longer than his timeout.
inline void futex_wake(const std::atomic<uint32_t>* word) { raw(SYS_futex, word, FUTEX_WAKE, 1, nullptr, nullptr, 0); }

// Every thread of the processes that have registered for it passes a full barrier: the other half of an asymmetric Dekker pair, whose fast side has a compiler
// barrier only. Refused: it waits until what any CPU had in its store buffer is in memory, and gives false.
[[gnu::cold]] bool barrier_everywhere();

}  // namespace shunt::sys
