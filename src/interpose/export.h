// How a wrapper is written: exported under libc's name, but defined under ours, so that libc's own declarations do not
// interfere. Wrappers run in any thread and any context, before main and after exit; they decide nothing.
#pragma once

#include <cerrno>

#include "calls/common.h"
#include "interpose/next.h"
#include "interpose/start.h"

// Defines the exported function `name`.
#define SHUNT_WRAPPER(result, name, parameters)                                            \
  extern "C" [[gnu::visibility("default")]] result shunt_##name parameters __asm__(#name); \
  extern "C" result shunt_##name parameters

// Exports `name`, defined in the same file, under a second name.
#define SHUNT_SECOND_NAME(second, name) \
  extern "C" [[gnu::visibility("default"), gnu::alias(#name)]] decltype(shunt_##name) shunt_##second __asm__(#second)

// The usual wrapper: `condition` says cheaply whether calls::name may have an answer; if not, or if it passes on, the
// next library's call.
#define SHUNT_FORWARD(result, name, parameters, arguments, condition)                        \
  SHUNT_WRAPPER(result, name, parameters) {                                                  \
    if (condition)                                                                           \
      if (const long answer = shunt::calls::name arguments; answer != shunt::calls::kPassOn) \
        return shunt::interpose::give<result>(answer);                                       \
    return shunt::interpose::next.name arguments;                                            \
  }                                                                                          \
  static_assert(true)

namespace shunt::interpose {

// −errno becomes errno and −1; success leaves errno alone.
template <typename Result>
Result give(long answer) {
  if (answer >= 0) return static_cast<Result>(answer);
  errno = static_cast<int>(-answer);
  return static_cast<Result>(-1);
}

// For work around a call of the next library: errno afterwards is the call's.
class KeepErrno {
 public:
  KeepErrno() : saved_(errno) {}
  ~KeepErrno() { errno = saved_; }
  KeepErrno(const KeepErrno&) = delete;
  KeepErrno& operator=(const KeepErrno&) = delete;

 private:
  int saved_;
};

}  // namespace shunt::interpose
