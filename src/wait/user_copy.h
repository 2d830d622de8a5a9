// Copies from or to the program's memory that end where the kernel's would with EFAULT: the trampoline of SIGSEGV and SIGBUS leads the thread out of them.
// Without a handler of the program there is none, and the fault ends the program. Same thread only.
#pragma once

#include <atomic>
#include <csignal>
#include <cstdint>

#include "wait/duties.h"

namespace shunt {

// Where the thread goes on. Its other registers are those of the place of the fault.
struct Resumption {
  const void* instruction;
  uintptr_t stack, frame;
};

// False: a fault ended copy(), which must hold nothing that needs an end. A function of its own: what lands in it finds on the stack what it wants back.
template <typename Copy>
[[gnu::noinline]] bool copied(Copy copy) {
  Resumption place;
  __asm__ goto(
      "leaq %l[fault](%%rip), %%rax\n\t"
      "movq %%rax, 0(%0)\n\t"
      "movq %%rsp, 8(%0)\n\t"
      "movq %%rbp, 16(%0)"
      :
      : "r"(&place)
      : "rax", "rbx", "r12", "r13", "r14", "r15", "memory"
      : fault);
  duties.copy = &place;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  copy();
  std::atomic_signal_fence(std::memory_order_seq_cst);
  duties.copy = nullptr;
  return true;
fault:
  return false;
}

// By the trampoline. True: the fault was in such a copy, and the thread goes on behind it when the handler returns to the kernel.
bool end_copy(int signal, const siginfo_t& information, void* context);

}  // namespace shunt
