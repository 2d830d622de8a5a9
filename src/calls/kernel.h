// The next library's calls as the calls floor makes them: −errno, errno untouched. Raw system calls until interpose/
// fills them in. Any thread.
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>

#include "sys/next.h"
#include "sys/raw.h"

namespace shunt::calls {

template <long number, typename Signature>
struct KernelCall;

template <long number, typename Result, typename... Parameters>
struct KernelCall<number, Result(Parameters...)> {
  Result (*function)(Parameters...);

  long operator()(Parameters... arguments) const {
    if (!function) return sys::raw(number, arguments...);
    const sys::CancellationPoint here;
    const int saved = errno;
    long result = function(arguments...);
    if (result < 0) result = -errno;
    errno = saved;
    return result;
  }
};

struct Kernel {
#define SHUNT_KERNEL(name, number, ...) KernelCall<number, __VA_ARGS__> name;
#include "calls/kernel.def"
#undef SHUNT_KERNEL
};
extern Kernel kernel;  // filled once by the interposition floor

}  // namespace shunt::calls
