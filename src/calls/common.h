// What every family of calls shares: the answer "not our business", and small checks of a caller's pointers.
// Any thread, any context. Results of calls/ are ≥ 0, −errno or kPassOn.
#pragma once

#include <climits>
#include <cstdint>

#include "descriptors/table.h"
#include "sys/raw.h"
#include "sys/user_memory.h"

namespace shunt::calls {

// The next library's call with the very same arguments is the answer.
inline constexpr long kPassOn = LONG_MIN;

// A connection or an epoll set that the library watches.
inline bool is_ours(int fd) { return is_connection(fd) || epoll_set_of(fd) != nullptr; }

// Nothing is ever mapped below this (mmap_min_addr is 4096 or more).
inline constexpr uintptr_t kLowestPage = 4096;
// A look of ours at the caller's memory would end the program, where the kernel says EFAULT. Costs a system call for
// each page that a thread has not used so far.
inline bool unreadable(const void* memory, size_t bytes) {
  return reinterpret_cast<uintptr_t>(memory) < kLowestPage || !sys::accessible(memory, bytes, sys::Access::read);
}
inline bool unwritable(const void* memory, size_t bytes) {
  return reinterpret_cast<uintptr_t>(memory) < kLowestPage || !sys::accessible(memory, bytes, sys::Access::write);
}
template <typename T>
bool unreadable(const T* object) {
  return unreadable(object, sizeof *object);
}
// An address may be as short as its family.
inline bool unreadable(const sockaddr* address) { return unreadable(address, sizeof(sa_family_t)); }

// `fd` was given out by the kernel just now: whatever the table still holds for it was closed behind our back. A vfork
// child's numbers say nothing of its parent's.
inline void forget_stale(int fd) {
  if (is_ours(fd) && !in_foreign_process(fd)) Closing stale(fd);
}

// The same for the result of a call that makes a descriptor.
inline int made(int fd) {
  if (fd >= 0) forget_stale(fd);
  return fd;
}

// The result of a call that may have made a descriptor, or may mean anything else: an ioctl, a number of which we know nothing. A connection of
// ours is a socket.
template <typename Result>
Result perhaps_made(Result result) {
  if (result < 0 || result >= kMaxDescriptors || !is_connection(static_cast<int>(result))) return result;
  int type;
  socklen_t length = sizeof type;
  if (sys::raw(SYS_getsockopt, static_cast<int>(result), SOL_SOCKET, SO_TYPE, &type, &length) < 0) forget_stale(static_cast<int>(result));
  return result;
}

// stdin, stdout and stderr are read and written inside libc, where nobody sees it: a connection there stays on the
// kernel.
inline bool belongs_to_stdio(int fd) { return fd >= 0 && fd <= 2; }

}  // namespace shunt::calls
