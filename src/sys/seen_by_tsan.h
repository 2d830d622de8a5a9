// Only for raw.h, where ThreadSanitizer looks on: it has to see where a descriptor or a mapping ends, because whatever has its number or its place next
// is another. Goes through the functions of its runtime, which call libc's. Any thread.
#pragma once

#include <cerrno>
#include <cstddef>
#include <sys/types.h>

extern "C" int __interceptor_close(int fd);
extern "C" void* __interceptor_mmap(void* place, size_t bytes, int protection, int flags, int fd, off_t offset);
extern "C" int __interceptor_munmap(void* place, size_t bytes);

namespace shunt::sys {

// Calls one of these: −errno, and errno as it was.
template <typename Function, typename... Arguments>
long seen(Function function, Arguments... arguments) {
  const int error = errno;
  const long result = (long)(function(arguments...));
  const long outcome = result == -1 ? -errno : result;
  errno = error;
  return outcome;
}

inline long close(int fd) { return seen(__interceptor_close, fd); }
inline long mmap(void* place, size_t bytes, int protection, int flags, int fd, size_t offset) {
  return seen(__interceptor_mmap, place, bytes, protection, flags, fd, static_cast<off_t>(offset));
}
inline long munmap(void* place, size_t bytes) { return seen(__interceptor_munmap, place, bytes); }

}  // namespace shunt::sys
