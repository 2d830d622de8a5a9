// liburing's ways to make a ring; its own system calls cannot be seen. liburing may be loaded late, or by a plugin
// alone, so it is looked for at each call.
#include <dlfcn.h>

#include "calls/escape.h"
#include "interpose/export.h"

struct io_uring;
struct io_uring_params;

namespace {

void* find(const char* name) {
  if (void* function = dlsym(RTLD_NEXT, name)) return function;
  for (const char* library : {"liburing.so.2", "liburing.so.1"})
    if (void* handle = dlopen(library, RTLD_LAZY | RTLD_NOLOAD)) {
      void* function = dlsym(handle, name);
      dlclose(handle);
      if (function) return function;
    }
  return nullptr;
}

// liburing returns −errno.
template <typename... Parameters, typename... Arguments>
int forward(int (*)(Parameters...), const char* name, Arguments... arguments) {
  using Function = int (*)(Parameters...);
  const auto function = reinterpret_cast<Function>(find(name));
  const int result = function ? function(arguments...) : -ENOSYS;
  if (result >= 0 && shunt::interpose::active()) shunt::calls::after_io_uring();
  return result;
}

}  // namespace

SHUNT_WRAPPER(int, io_uring_queue_init, (unsigned entries, io_uring* ring, unsigned flags)) {
  return forward(shunt_io_uring_queue_init, "io_uring_queue_init", entries, ring, flags);
}

SHUNT_WRAPPER(int, io_uring_queue_init_params, (unsigned entries, io_uring* ring, io_uring_params* parameters)) {
  return forward(shunt_io_uring_queue_init_params, "io_uring_queue_init_params", entries, ring, parameters);
}

SHUNT_WRAPPER(int, io_uring_queue_init_mem,
              (unsigned entries, io_uring* ring, io_uring_params* parameters, void* memory, size_t bytes)) {
  return forward(shunt_io_uring_queue_init_mem, "io_uring_queue_init_mem", entries, ring, parameters, memory, bytes);
}

SHUNT_WRAPPER(int, io_uring_setup, (unsigned entries, io_uring_params* parameters)) {
  return forward(shunt_io_uring_setup, "io_uring_setup", entries, parameters);
}
