// Two slots per signal, each with a trampoline of its own: the kernel switches from one to the other in one step, so a
// handler that starts while sigaction runs meets its own flags. The slot in force is the one whose trampoline the
// kernel has; nothing else remembers it.
#include "interpose/handlers.h"

#include <elf.h>
#include <sched.h>

#include <atomic>
#include <cerrno>
#include <initializer_list>

#include "interpose/export.h"
#include "shm/user_copy.h"
#include "sys/next.h"
#include "sys/raw.h"
#include "sys/signal_mask.h"
#include "wait/duties.h"
#include "wait/held_back.h"
#include "wait/signals.h"

namespace shunt::interpose {
namespace {

constexpr int kSignals = 65;           // 1 .. 64
constexpr int kRestorer = 0x04000000;  // SA_RESTORER, which glibc does not name
using Action = void (*)(int, siginfo_t*, void*);

struct Slot {
  std::atomic<Action> action;  // as SIG_DFL, a null pointer
  std::atomic<int> flags;      // the program's
  std::atomic<uint64_t> blocks;  // the kernel's mask of what it adds, itself included
};
constinit Slot slots[kSignals][2] = {};
constinit std::atomic<bool> installing{false};

// A filter's answer to a call (SECCOMP_RET_TRAP): the handler sets that call's result. It has interrupted nothing.
constexpr int kByFilter = 1;  // SYS_SECCOMP of <linux/signal.h>
bool is_answer(int signal, const siginfo_t& information) { return signal == SIGSYS && information.si_code == kByFilter; }

// The linker's: this library's first bytes, which say where its code lies.
extern "C" [[gnu::visibility("hidden")]] const Elf64_Ehdr __ehdr_start;

bool is_our_code(const void* place) {
  const auto* first = reinterpret_cast<const uint8_t*>(&__ehdr_start);
  const auto* part = reinterpret_cast<const Elf64_Phdr*>(first + __ehdr_start.e_phoff);
  const auto at = static_cast<uint64_t>(static_cast<const uint8_t*>(place) - first);
  for (int i = 0; i < __ehdr_start.e_phnum; ++i)
    if (part[i].p_type == PT_LOAD && (part[i].p_flags & PF_X) && at - part[i].p_vaddr < part[i].p_memsz) return true;
  return false;
}

// A call of ours was answered. The program made none, and finds errno as it was, whatever its handler does.
class AnsweredCall {
 public:
  AnsweredCall(int signal, const siginfo_t& information)
      : ours_(is_answer(signal, information) && is_our_code(information.si_call_addr)), error_(errno) {}
  ~AnsweredCall() {
    if (ours_) errno = error_;
  }
  AnsweredCall(const AnsweredCall&) = delete;
  AnsweredCall& operator=(const AnsweredCall&) = delete;

 private:
  const bool ours_;
  const int error_;
};

void count_handler(int flags) {
  signal_count.all = signal_count.all + 1;
  if (!(flags & SA_RESTART)) signal_count.interrupting = signal_count.interrupting + 1;
}

template <int slot>
void run(int signal, siginfo_t* information, void* context) {
  const Slot& mine = slots[signal][slot];
  if (!is_answer(signal, *information)) count_handler(mine.flags.load(std::memory_order_relaxed));
  const AnsweredCall answered(signal, *information);
  HandlerScope scope;
  // Only then: a buffer that is left on a dead stack (by an exception, by setcontext) would trap libc.
  const bool guarded = scope.interrupts_a_call() && sys::next.left;
  _pthread_cleanup_buffer buffer;
  if (guarded) sys::next.cleanup_push(&buffer, [](void* left) { static_cast<HandlerScope*>(left)->left(); }, &scope);
  // x86-64 passes all three arguments to every handler; one without SA_SIGINFO ignores them.
  mine.action.load(std::memory_order_relaxed)(signal, information, context);
  if (guarded) sys::next.cleanup_pop(&buffer, 0);
  scope.returns();
}

// What the kernel does without a handler, a core dump of the place of the fault included: the same signal, delivered anew when this handler returns.
void end_as_by_default(int signal, siginfo_t* information) {
  const struct {
    Handler handler;
    unsigned long flags;
    void (*restorer)();
    unsigned long mask;
  } by_default{SIG_DFL, 0, nullptr, 0};
  sys::raw(SYS_rt_sigaction, signal, &by_default, nullptr, sizeof by_default.mask);
  sys::raw(SYS_rt_tgsigqueueinfo, sys::raw(SYS_getpid), sys::raw(SYS_gettid), signal, information);
}

template <int slot>
void trampoline(int signal, siginfo_t* information, void* context) {
  if (!is_answer(signal, *information)) finish_step(context);  // else there is no result before the handler has run
  if (end_copy(signal, *information, context)) return;
  const Slot& mine = slots[signal][slot];
  if (!mine.action.load(std::memory_order_relaxed)) return end_as_by_default(signal, information);
  const bool alternate = mine.flags.load(std::memory_order_relaxed) & SA_ONSTACK;
  const Arrived arrived{signal, mine.blocks.load(std::memory_order_relaxed), alternate ? Stack::alternate : Stack::threads, run<slot>};
  if (hold_back(arrived, *information, context)) return;
  run<slot>(signal, information, context);
  go_on_holding(context);
}

// 0 or 1: the slot of a trampoline. −1: not one.
int slot_of(const struct sigaction& action) {
  if (action.sa_sigaction == trampoline<0>) return 0;
  if (action.sa_sigaction == trampoline<1>) return 1;
  return -1;
}

bool is_function(const struct sigaction& action) {
  const Handler handler = action.sa_handler;
  return handler != SIG_DFL && handler != SIG_IGN && handler != SIG_ERR && handler != SIG_HOLD;
}

// A fault in a copy must not end a program that has no handler for it, either.
bool needs_trampoline(int signal, const struct sigaction& action) {
  if (slot_of(action) >= 0) return false;
  return is_function(action) || (action.sa_handler == SIG_DFL && (signal == SIGSEGV || signal == SIGBUS));
}

// One installation at a time. A handler that runs on this thread meanwhile (of a signal that nothing blocks, or where a filter refuses to block any) does not
// wait for itself.
class Installing {
 public:
  Installing() : nested_(installs) {
    installs = true;
    while (!nested_ && installing.exchange(true, std::memory_order_acquire)) sched_yield();  // SYNC: pairs with the release below
  }
  ~Installing() {
    if (nested_) return;
    installing.store(false, std::memory_order_release);
    installs = false;
  }
  Installing(const Installing&) = delete;
  Installing& operator=(const Installing&) = delete;

 private:
  static inline thread_local volatile bool installs = false;
  const sys::SignalsBlocked alone_{~sys::kForcedSignals};
  const bool nested_;
};

// Shows the program its own handler.
void translate(int signal, struct sigaction& action) {
  const int slot = slot_of(action);
  if (slot < 0) return;
  action.sa_sigaction = slots[signal][slot].action.load(std::memory_order_relaxed);
  action.sa_flags = slots[signal][slot].flags.load(std::memory_order_relaxed);
}

// `restorer`: kRestorer, or 0 for what libc did not install.
int install_trampoline(int signal, struct sigaction action, int restorer, struct sigaction* old) {
  struct sigaction current = {};
  if (next.sigaction(signal, nullptr, &current) < 0) return -1;
  const int slot = slot_of(current) == 0 ? 1 : 0;
  slots[signal][slot].action.store(action.sa_sigaction, std::memory_order_relaxed);
  slots[signal][slot].flags.store(action.sa_flags | restorer, std::memory_order_relaxed);
  const uint64_t itself = action.sa_flags & SA_NODEFER ? 0 : sys::signal_bit(signal);
  slots[signal][slot].blocks.store(*reinterpret_cast<const uint64_t*>(&action.sa_mask) | itself, std::memory_order_relaxed);
  sys::ignored_by_default.fetch_and(~sys::signal_bit(signal), std::memory_order_relaxed);
  if (action.sa_handler == SIG_DFL) action.sa_flags = 0;  // none is for the library
  action.sa_flags |= SA_SIGINFO;                          // else the kernel does not say what happened
  action.sa_sigaction = slot == 0 ? trampoline<0> : trampoline<1>;
  const int result = next.sigaction(signal, &action, old);
  if (result == 0 && old) translate(signal, *old);
  return result;
}

}  // namespace

int install_handler(int signal, const struct sigaction* action, struct sigaction* old) {
  if (!active() || signal < 1 || signal >= kSignals) return next.sigaction(signal, action, old);
  if (action && needs_trampoline(signal, *action) && !in_foreign_process()) {
    Installing one_at_a_time;
    return install_trampoline(signal, *action, kRestorer, old);
  }
  const int result = next.sigaction(signal, action, old);
  if (result == 0 && old) translate(signal, *old);
  return result;
}

bool install_handlers_of_faults() {
  const int error = errno;
  Installing one_at_a_time;
  bool works = true;
  for (const int signal : {SIGSEGV, SIGBUS}) {
    struct sigaction current = {};
    works = works && next.sigaction(signal, nullptr, &current) == 0;
    // A handler that is none of the trampolines came past libc: its owner looks at it himself.
    if (works && current.sa_handler == SIG_DFL) works = install_trampoline(signal, current, 0, nullptr) == 0;
  }
  errno = error;
  return works;
}

void handlers_after_fork_in_child() { installing.store(false, std::memory_order_relaxed); }

}  // namespace shunt::interpose
