// Signals of this thread between their arrival and the end of the section.
#include "wait/held_back.h"

#include <sys/syscall.h>
#include <ucontext.h>

#include "sys/raw.h"
#include "sys/signal_mask.h"

namespace shunt {
namespace {

using Mask = uint64_t;  // the kernel's

// What is blocked as long as handlers are held back; SIGKILL and SIGSTOP never are.
constexpr Mask kHeld = ~(sys::kForcedSignals | sys::signal_bit(SIGKILL) | sys::signal_bit(SIGSTOP));
constexpr int kAutoDisarm = static_cast<int>(1u << 31);  // SS_AUTODISARM of <linux/signal.h>

struct HeldBack {
  Arrived arrived;
  siginfo_t information;
  Mask before;
};
// The kernel delivers several at once: each interrupts the one before in its first instruction. As many as that are seldom more.
constexpr uint8_t kMost = 8;
constinit thread_local HeldBack held[kMost] = {};

Mask& mask_in(ucontext_t& context) { return *reinterpret_cast<Mask*>(&context.uc_sigmask); }

// Where SIG_SETMASK is refused, what was held is let go.
void set_mask(Mask mask) { sys::restore_mask(mask, kHeld); }

bool in_section() {
  bool inside = false;
  for_each_duty([&](const Duty& duty, const void*) { inside = inside || duty.holds_back(); });
  return inside;
}

struct Run {
  HeldBack what;
  ucontext_t context;
};

void run(Run* one) { one->what.arrived.run(one->what.arrived.signal, &one->what.information, &one->context); }

// The frame pointer leads a stack trace from there to here.
[[gnu::noinline]] void run_at(uintptr_t top, Run* one) {
  __asm__ volatile(
      "movq %%rsp, %%rbx\n\t"
      "movq %[top], %%rsp\n\t"
      "call *%[run]\n\t"
      "movq %%rbx, %%rsp"
      : "+D"(one)
      : [top] "r"(top), [run] "r"(run)
      : "rax", "rbx", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
        "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "memory", "cc");
}

// As sigaltstack(2) has it: from its upper end, unless the thread is on it already.
void run_on_alternate(Run* one) {
  stack_t stack = one->context.uc_stack;
  if (stack.ss_flags & (SS_ONSTACK | SS_DISABLE)) return run(one);
  const bool disarmed = stack.ss_flags & kAutoDisarm;
  const stack_t none{.ss_sp = nullptr, .ss_flags = SS_DISABLE, .ss_size = 0};
  if (disarmed) sys::raw(SYS_sigaltstack, &none, nullptr);
  run_at((reinterpret_cast<uintptr_t>(stack.ss_sp) + stack.ss_size) & ~uintptr_t{15}, one);
  if (disarmed) sys::raw(SYS_sigaltstack, &stack, nullptr);
}

}  // namespace

bool hold_back(const Arrived& arrived, const siginfo_t& information, void* context) {
  if (!duties.innermost) return false;
  if ((sys::signal_bit(arrived.signal) & sys::kForcedSignals) && information.si_code > 0) return false;
  if (!in_section()) return false;
  // Another may come in this very function. A thread whose mask cannot be changed could not be given it back at the end of the section, either. No call where
  // the handler's own mask does it: that may hold SIGSYS, and a filter that traps the call would end the program.
  Mask now;
  if ((arrived.blocks & kHeld) != kHeld && !sys::block_signals(kHeld, now)) return false;
  if (duties.held_back == kMost) return false;
  Mask& mask = mask_in(*static_cast<ucontext_t*>(context));
  held[duties.held_back++] = {arrived, information, mask};
  mask |= kHeld;
  return true;
}

void go_on_holding(void* context) {
  if (!duties.held_back) return;
  Mask& mask = mask_in(*static_cast<ucontext_t*>(context));
  if ((mask | kHeld) == mask) return;
  held[duties.held_back - 1].before = mask;
  mask |= kHeld;
}

// Each sees the registers of this place. One that leaves by a jump leaves those after it, too, as on the kernel.
void run_held_back() {
  if (in_section()) return;
  HeldBack all[kMost];
  const uint8_t count = duties.held_back;
  for (uint8_t i = 0; i < count; ++i) all[i] = held[i];
  duties.held_back = 0;
  Run one;
  for (uint8_t i = 0; i < count; ++i) {
    getcontext(&one.context);
    one.what = all[i];
    mask_in(one.context) = one.what.before;
    sys::raw(SYS_sigaltstack, nullptr, &one.context.uc_stack);
    set_mask(one.what.before | one.what.arrived.blocks);
    if (one.what.arrived.stack == Stack::alternate)
      run_on_alternate(&one);
    else
      run(&one);
    set_mask(mask_in(one.context));
  }
}

void drop_held_back() {
  if (!duties.held_back) return;
  const Mask before = held[duties.held_back - 1].before;
  duties.held_back = 0;
  set_mask(before);
}

}  // namespace shunt
