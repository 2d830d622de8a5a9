// liburing's functions that make a ring, submit to it or give it files. The entries themselves are prepared by inline
// functions, and liburing's own system calls cannot be seen; nor can a program that contains liburing (static linking)
// or finds it by dlopen and dlsym: what such a program gives to a ring we do not know. And mmap, for the rings that a program serves by itself.
#include <dlfcn.h>
#include <link.h>

#include <atomic>
#include <cstring>

#include "calls/uring.h"
#include "calls/uring_watched.h"
#include "interpose/export.h"
#include "sys/raw.h"

using shunt::calls::Ring;
struct io_uring_params;
struct io_uring_cqe;
struct io_uring_reg_wait;
struct __kernel_timespec;

namespace {

using shunt::interpose::active;
namespace calls = shunt::calls;

// The name of a loaded liburing that no global symbol leads to: of a plugin, or under a name of its own.
struct Path {
  char name[PATH_MAX];
};
int is_liburing(dl_phdr_info* object, size_t, void* found) {
  if (!strstr(object->dlpi_name, "/liburing") || strlen(object->dlpi_name) >= PATH_MAX) return 0;
  strcpy(static_cast<Path*>(found)->name, object->dlpi_name);
  return 1;
}

struct Found {
  void* function;
  bool laid_out_as_2;
};

Found find_in(void* library, const char* name) {
  void* function = dlsym(library, name);
  // Version 1 has no symbol of this version; a library without versions is taken for the current one.
  const bool second = function && dlvsym(library, "io_uring_queue_init", "LIBURING_2.0");
  return {function, second};
}

// A plugin brings its liburing along late, but what is found is kept: so it must stay.
void keep_loaded(void* function) {
  Dl_info info;
  if (dladdr(function, &info)) dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
}

Found find(const char* name) {
  const shunt::interpose::KeepErrno keep;
  Found found = find_in(RTLD_NEXT, name);
  if (Path library; !found.function && dl_iterate_phdr(is_liburing, &library))
    if (void* handle = dlopen(library.name, RTLD_LAZY | RTLD_NOLOAD)) {
      found = find_in(handle, name);
      dlclose(handle);
    }
  if (found.function) keep_loaded(found.function);
  dlerror();  // a version or library that is not there is not the program's error
  return found;
}

template <typename Function>
Function* find_once(std::atomic<Function*>& known, const char* name) {
  if (Function* function = known.load(std::memory_order_relaxed)) return function;
  auto* function = reinterpret_cast<Function*>(find(name).function);
  known.store(function, std::memory_order_relaxed);
  return function;
}

template <typename... Parameters, typename... Arguments>
int make(int (*)(Parameters...), const char* name, const Ring* ring, Arguments... arguments) {
  using Function = int (*)(Parameters...);
  const Found found = find(name);
  if (!found.function) return -ENOSYS;
  const int result = reinterpret_cast<Function>(found.function)(arguments...);
  if (result < 0 || !active()) return result;
  if (ring && found.laid_out_as_2)
    calls::after_ring_made(ring);
  else
    calls::after_unwatched_ring();
  return result;
}

}  // namespace

// liburing returns −errno.
#define SHUNT_URING(name, parameters, arguments, before)           \
  SHUNT_WRAPPER(int, name, parameters) {                           \
    static constinit std::atomic<decltype(shunt_##name)*> known{}; \
    auto* function = find_once(known, #name);                      \
    if (!function) return -ENOSYS;                                 \
    if (active()) before;                                          \
    return function arguments;                                     \
  }                                                                \
  static_assert(true)

#define SHUNT_SUBMIT(name, parameters, arguments) \
  SHUNT_URING(name, parameters, arguments, calls::before_submission(ring))

// ---- making

SHUNT_WRAPPER(int, io_uring_queue_init, (unsigned entries, Ring* ring, unsigned flags)) {
  return make(shunt_io_uring_queue_init, "io_uring_queue_init", ring, entries, ring, flags);
}

SHUNT_WRAPPER(int, io_uring_queue_init_params, (unsigned entries, Ring* ring, io_uring_params* wanted)) {
  return make(shunt_io_uring_queue_init_params, "io_uring_queue_init_params", ring, entries, ring, wanted);
}

SHUNT_WRAPPER(int, io_uring_queue_init_mem,
              (unsigned entries, Ring* ring, io_uring_params* wanted, void* memory, size_t bytes)) {
  return make(shunt_io_uring_queue_init_mem, "io_uring_queue_init_mem", ring, entries, ring, wanted, memory, bytes);
}

SHUNT_WRAPPER(int, io_uring_setup, (unsigned entries, io_uring_params* wanted)) {
  return make(shunt_io_uring_setup, "io_uring_setup", nullptr, entries, wanted);
}

// ---- submitting

SHUNT_SUBMIT(io_uring_submit, (Ring * ring), (ring));
SHUNT_SUBMIT(io_uring_submit_and_get_events, (Ring * ring), (ring));
SHUNT_SUBMIT(io_uring_submit_and_wait, (Ring * ring, unsigned count), (ring, count));
SHUNT_SUBMIT(io_uring_submit_and_wait_timeout,
             (Ring * ring, io_uring_cqe** done, unsigned count, __kernel_timespec* timeout, sigset_t* mask),
             (ring, done, count, timeout, mask));
SHUNT_SUBMIT(io_uring_submit_and_wait_min_timeout,
             (Ring * ring, io_uring_cqe** done, unsigned count, __kernel_timespec* timeout, unsigned least_us,
              sigset_t* mask),
             (ring, done, count, timeout, least_us, mask));
SHUNT_SUBMIT(io_uring_submit_and_wait_reg, (Ring * ring, io_uring_cqe** done, unsigned count, int index),
             (ring, done, count, index));
// Where the kernel takes no timeout these submit one as an entry, and everything before it.
SHUNT_SUBMIT(io_uring_wait_cqes,
             (Ring * ring, io_uring_cqe** done, unsigned count, __kernel_timespec* timeout, sigset_t* mask),
             (ring, done, count, timeout, mask));
SHUNT_SUBMIT(io_uring_wait_cqes_min_timeout,
             (Ring * ring, io_uring_cqe** done, unsigned count, __kernel_timespec* timeout, unsigned least_us,
              sigset_t* mask),
             (ring, done, count, timeout, least_us, mask));
SHUNT_SUBMIT(io_uring_wait_cqe_timeout, (Ring * ring, io_uring_cqe** done, __kernel_timespec* timeout),
             (ring, done, timeout));
SHUNT_SUBMIT(__io_uring_get_cqe, (Ring * ring, io_uring_cqe** done, unsigned submit, unsigned count, sigset_t* mask),
             (ring, done, submit, count, mask));

// These say the descriptor of a ring, not where it lies.
SHUNT_URING(io_uring_enter, (unsigned fd, unsigned submit, unsigned count, unsigned flags, sigset_t* mask),
            (fd, submit, count, flags, mask), if (submit > 0) calls::after_unwatched_ring());
SHUNT_URING(io_uring_enter2,
            (unsigned fd, unsigned submit, unsigned count, unsigned flags, void* argument, size_t bytes),
            (fd, submit, count, flags, argument, bytes), if (submit > 0) calls::after_unwatched_ring());

// ---- files

SHUNT_URING(io_uring_register_files, (Ring * ring, const int* files, unsigned count), (ring, files, count),
            calls::before_ring_files(files, count));
SHUNT_URING(io_uring_register_files_tags, (Ring * ring, const int* files, const uint64_t* tags, unsigned count),
            (ring, files, tags, count), calls::before_ring_files(files, count));
SHUNT_URING(io_uring_register_files_update, (Ring * ring, unsigned first, const int* files, unsigned count),
            (ring, first, files, count), calls::before_ring_files(files, count));
SHUNT_URING(io_uring_register_files_update_tag,
            (Ring * ring, unsigned first, const int* files, const uint64_t* tags, unsigned count),
            (ring, first, files, tags, count), calls::before_ring_files(files, count));
SHUNT_URING(io_uring_register, (unsigned fd, unsigned operation, const void* argument, unsigned count),
            (fd, operation, argument, count), calls::before_ring_register(static_cast<int>(fd), operation, argument, count));

// ---- memory

// A malloc may come here while it starts, also from within dlsym: so nothing is resolved for it, and nothing of ours begins.
#if !defined(__SANITIZE_THREAD__)  // its runtime maps memory before it can watch this
SHUNT_WRAPPER(long, mmap, (void* place, size_t bytes, int protection, int flags, int fd, off_t offset)) {
  using shunt::interpose::State;
  const State now = shunt::interpose::state.load(std::memory_order_acquire);
  if (now == State::waiting || now == State::starting)
    return shunt::interpose::give<long>(shunt::sys::raw(SYS_mmap, place, bytes, protection, flags, fd, offset));
  const long memory = shunt::interpose::next.mmap(place, bytes, protection, flags, fd, offset);
  if (fd >= 0 && memory != -1) calls::after_mapping(fd, reinterpret_cast<void*>(memory), bytes, protection, offset);
  return memory;
}
SHUNT_SECOND_NAME(mmap64, mmap);
#endif
