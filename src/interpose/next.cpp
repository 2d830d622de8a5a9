// Resolves the next symbols by dlsym. dlsym may call malloc, and a program's malloc may call our wrappers: these meet
// raw system calls.
#include "interpose/next.h"

#include <dlfcn.h>

#include <atomic>
#include <cerrno>
#include <type_traits>

#include "calls/kernel.h"
#include "sys/next.h"
#include "sys/raw.h"
#include "wait/duties.h"

namespace shunt::interpose {
namespace {

constexpr long kNoCall = -1;

template <typename Result>
Result fail(int error) {
  errno = error;
  if constexpr (std::is_void_v<Result>)
    return;
  else if constexpr (std::is_pointer_v<Result>)
    return nullptr;
  else
    return static_cast<Result>(-1);
}

template <auto member, long number>
struct StandIn;

template <typename Result, typename... Parameters, Pointer<Result(Parameters...)> Next::*member, long number>
struct StandIn<member, number> {
  static Result call(Parameters... arguments) {
    resolve();
    if (next.*member != &call) return (next.*member)(arguments...);
    if constexpr (number == kNoCall) {
      return fail<Result>(ENOSYS);
    } else {
      // Where libc adds the size of a signal mask, 8 is what it adds.
      const long result = make_call(arguments..., sizeof(uint64_t));
      if (result < 0) return fail<Result>(static_cast<int>(-result));
      if constexpr (!std::is_void_v<Result>) return static_cast<Result>(result);
    }
  }

 private:
  template <typename... Arguments>
  static long make_call(Arguments... arguments) {
    const long words[] = {sys::word(arguments)..., 0, 0, 0, 0, 0};
    return sys::raw6(number, words[0], words[1], words[2], words[3], words[4], words[5]);
  }
};

enum class Progress : uint8_t { none, resolving, done };
std::atomic<Progress> progress{Progress::none};

template <typename Function>
void find(Function*& function, const char* name) {
  if (void* found = dlsym(RTLD_NEXT, name)) function = reinterpret_cast<Function*>(found);
}

void hand_down() {
  sys::next = {next.recv, next.send, next.recvmsg, next.sendmsg, next.ppoll, next.epoll_pwait, next.epoll_ctl, nullptr, nullptr, nullptr,
               next.poll, next.select, next.pselect, next.epoll_wait, next.epoll_pwait2};
  find(sys::next.cleanup_push, "_pthread_cleanup_push");
  find(sys::next.cleanup_pop, "_pthread_cleanup_pop");
  if (sys::next.cleanup_push && sys::next.cleanup_pop) sys::next.left = [](void*) { undo_duties_down_to(duties.floor); };
#define SHUNT_KERNEL(name, ...) calls::kernel.name.function = next.name;
#include "calls/kernel.def"
#undef SHUNT_KERNEL
}

}  // namespace

constinit Next next = {
#define SHUNT_SYMBOL(name, number, words, ...) &StandIn<&Next::name, number>::call,
#include "interpose/symbols.def"
};

void resolve() {
  Progress none = Progress::none;
  if (!progress.compare_exchange_strong(none, Progress::resolving)) return;
  const int saved = errno;
#define SHUNT_SYMBOL(name, number, words, ...) find(next.name, #name);
#include "interpose/symbols.def"
  dlerror();  // a symbol that this libc lacks is not the program's error
  hand_down();
  progress.store(Progress::done);
  errno = saved;
}

}  // namespace shunt::interpose
