// A child with memory and descriptors of its own is born as fork's is. One that runs on its parent's memory while that
// waits is a vfork child. Whatever else it shares, it would run beside its parent and the library would take one for
// the other: connections go back to the kernel first.
#include "interpose/children.h"

#include <linux/sched.h>
#include <sched.h>

#include "calls/escape.h"
#include "interpose/export.h"
#include "sys/raw.h"

namespace shunt::interpose {
namespace {

using Flags = uint64_t;
constexpr Flags kShares = CLONE_VM | CLONE_FILES;

enum class Child : uint8_t { thread, copy, vfork, beside };

Child kind_of(Flags flags) {
  if (flags & CLONE_THREAD) return Child::thread;
  if ((flags & kShares) == 0) return Child::copy;
  return (flags & (kShares | CLONE_VFORK | CLONE_SETTLS)) == (CLONE_VM | CLONE_VFORK) ? Child::vfork : Child::beside;
}

calls::Memory memory_of(Flags flags) { return flags & CLONE_VM ? calls::Memory::shared : calls::Memory::own; }

void prepare(Flags flags) {
  if (kind_of(flags) == Child::beside)
    calls::before_child_beside(memory_of(flags));
  else if (flags & CLONE_NEWPID)
    calls::before_child_of_other_ids();
}

// `make` gives the child's id, 0 in the child, −errno.
template <typename Make>
long make_copy(Make make) {
  before_any_fork();
  const long child = make();
  if (child == 0)
    after_any_fork_in_child();
  else
    after_any_fork_in_parent(child > 0 ? Born::yes : Born::no);
  return child;
}

// The parent's thread had nothing begun below this call, and its child has left for another program or for good:
// perhaps in the middle of a call.
template <typename Make>
long make_vfork(Make make) {
  const Duties before = duties;
  const long child = make();
  undo_duties_down_to(before.innermost);
  duties = before;
  return child;
}

// On the child's stack, below what libc puts there.
struct Start {
  int (*function)(void*);
  void* argument;
};

int begin_copy(void* memory) {
  const Start start = *static_cast<const Start*>(memory);
  forget_duties();
  after_any_fork_in_child();
  const int status = start.function(start.argument);
  report_end("exit");
  return status;
}

void note_pidfd(Flags flags, long child, const int* pidfd) {
  if (child > 0 && (flags & CLONE_PIDFD) && pidfd) calls::made(*pidfd);
}

// Fork-like children return on a copy of this stack, and nothing but a copy will do.
bool returns_here(Flags flags, bool own_stack) {
  return !own_stack &&
         (kind_of(flags) == Child::copy || (flags & (CLONE_VM | CLONE_VFORK)) == (CLONE_VM | CLONE_VFORK));
}

}  // namespace

long fork_quietly() {
  return make_copy([] {
    const long child = next._Fork();
    return child < 0 ? -errno : child;
  });
}

long clone_function(int (*function)(void*), void* stack, int flags, void* argument, int* parent_tid, void* tls,
                    int* child_tid) {
  const auto bits = static_cast<Flags>(static_cast<uint32_t>(flags));
  const auto make = [&](int (*begin)(void*), void* top, void* its) -> long {
    const int child = next.clone(begin, top, flags, its, parent_tid, tls, child_tid);
    return child < 0 ? -errno : child;
  };
  if (!function || !stack) return make(function, stack, argument);
  prepare(bits);
  long child = 0;
  if ((bits & CLONE_VM) == 0) {
    auto* start = reinterpret_cast<Start*>(reinterpret_cast<uintptr_t>(stack) & ~uintptr_t{15}) - 1;
    *start = {function, argument};
    child = make_copy([&] { return make(begin_copy, start, start); });  // never 0: the child is in begin_copy()
  } else if (kind_of(bits) == Child::vfork) {
    note_vfork();
    child = make_vfork([&] { return make(function, stack, argument); });
  } else {
    child = make(function, stack, argument);
  }
  note_pidfd(bits, child, parent_tid);
  return child;
}

long fork_by_number() {
  return make_copy([] { return sys::raw(SYS_fork); });
}

long clone_by_number(const long (&words)[6]) {
  auto flags = static_cast<Flags>(words[0]);
  const bool own_stack = words[1] != 0;
  if (!returns_here(flags, own_stack)) return prepare(flags), calls::kPassOn;
  flags &= ~Flags{CLONE_VM};
  prepare(flags);
  const long child = make_copy([&] { return sys::raw(SYS_clone, flags, 0, words[2], words[3], words[4]); });
  note_pidfd(flags, child, reinterpret_cast<const int*>(words[2]));
  return child;
}

long clone3_by_number(long arguments, long bytes) {
  const auto* given = reinterpret_cast<const clone_args*>(arguments);
  if (bytes < CLONE_ARGS_SIZE_VER0 || calls::unreadable(given, CLONE_ARGS_SIZE_VER0)) return calls::kPassOn;
  const Flags flags = given->flags;
  if (!returns_here(flags, given->stack != 0)) return prepare(flags), calls::kPassOn;
  if (flags & CLONE_VM) return calls::kPassOn;
  prepare(flags);
  const long child = make_copy([&] { return sys::raw(SYS_clone3, arguments, bytes); });
  note_pidfd(flags, child, reinterpret_cast<const int*>(given->pidfd));
  return child;
}

}  // namespace shunt::interpose
