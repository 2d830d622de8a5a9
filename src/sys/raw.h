// Raw system calls: result ≥ 0 or −errno, errno untouched, no libc function, no cancellation point.
// Any thread, any context, also before the loader has finished. Must not call libc.
#pragma once

#include <cstdint>
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

inline long recv(int fd, void* data, size_t bytes, int flags) {
  return raw(SYS_recvfrom, fd, data, bytes, flags, nullptr, nullptr);
}
inline long send(int fd, const void* data, size_t bytes, int flags) {
  return raw(SYS_sendto, fd, data, bytes, flags, nullptr, 0);
}
inline long recvmsg(int fd, msghdr* message, int flags) { return raw(SYS_recvmsg, fd, message, flags); }
inline long sendmsg(int fd, const msghdr* message, int flags) { return raw(SYS_sendmsg, fd, message, flags); }
inline long ppoll(pollfd* fds, size_t count, const timespec* timeout, const sigset_t* mask) {
  timespec copy{};
  if (timeout) copy = *timeout;  // the kernel writes the remaining time back
  return raw(SYS_ppoll, fds, count, timeout ? &copy : nullptr, mask, sizeof(uint64_t));
}

#if !defined(__SANITIZE_THREAD__)  // else seen_by_tsan.h
inline long close(int fd) { return raw(SYS_close, fd); }
inline long mmap(void* place, size_t bytes, int protection, int flags, int fd, size_t offset) {
  return raw(SYS_mmap, place, bytes, protection, flags, fd, offset);
}
inline long munmap(void* place, size_t bytes) { return raw(SYS_munmap, place, bytes); }
#endif

inline int thread_id() { return static_cast<int>(raw(SYS_gettid)); }
inline int process_id() { return static_cast<int>(raw(SYS_getpid)); }

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
  const timespec pause{0, 100'000};
  sys::ppoll(nullptr, 0, &pause, nullptr);
}

}  // namespace shunt::sys
