// The small copy is in assembly: it has nothing on the stack, so that a fault in it needs to change the instruction pointer alone.
#include "shm/user_copy.h"

#include <ucontext.h>

#include <cstring>

// Overlapping moves of the largest size that fits. In: to, from, bytes. Out: true; behind shunt_copy_fault false.
asm(R"(
  .text
  .p2align 4
  .hidden shunt_copy_small
  .globl shunt_copy_small
  .type shunt_copy_small, @function
shunt_copy_small:
  .cfi_startproc
  cmpq $16, %rdx
  jae 4f
  cmpl $8, %edx
  jae 3f
  cmpl $4, %edx
  jae 2f
  cmpl $2, %edx
  jae 1f
  testl %edx, %edx
  je 9f
  movzbl (%rsi), %eax
  movb %al, (%rdi)
  jmp 9f
1:
  movzwl (%rsi), %eax
  movzwl -2(%rsi,%rdx), %ecx
  movw %ax, (%rdi)
  movw %cx, -2(%rdi,%rdx)
  jmp 9f
2:
  movl (%rsi), %eax
  movl -4(%rsi,%rdx), %ecx
  movl %eax, (%rdi)
  movl %ecx, -4(%rdi,%rdx)
  jmp 9f
3:
  movq (%rsi), %rax
  movq -8(%rsi,%rdx), %rcx
  movq %rax, (%rdi)
  movq %rcx, -8(%rdi,%rdx)
  jmp 9f
4:
  movups -16(%rsi,%rdx), %xmm1
  leaq -16(%rdx), %rcx
  xorl %eax, %eax
5:
  movups (%rsi,%rax), %xmm0
  movups %xmm0, (%rdi,%rax)
  addq $16, %rax
  cmpq %rcx, %rax
  jb 5b
  movups %xmm1, -16(%rdi,%rdx)
9:
  movl $1, %eax
  ret
shunt_copy_fault:
  xorl %eax, %eax
  ret
  .cfi_endproc
  .size shunt_copy_small, . - shunt_copy_small
)");
extern "C" [[gnu::visibility("hidden")]] const char shunt_copy_fault[];

namespace shunt {
namespace {

constexpr greg_t kDirectionFlag = 0x400;

// memcpy in pieces for which libc does not take `rep movsb`: that instruction runs at a fraction of its speed on AMD's Zen 3 and 4 when source and
// destination lie at nearly the same place of their pages, as a ring and a large buffer do (glibc bug 30994).
void copy_bytes(uint8_t* to, const uint8_t* from, size_t bytes) {
  constexpr size_t kPiece = 2048;
  for (; bytes > kPiece; bytes -= kPiece, to += kPiece, from += kPiece) {
    size_t piece = kPiece;
    __asm__("" : "+r"(piece));  // a size that the compiler knew would become `rep movsq`
    memcpy(to, from, piece);
  }
  memcpy(to, from, bytes);
}

}  // namespace

// A function of its own: what lands in it finds on the stack what its caller wants back.
[[gnu::noinline]] bool copy_large(uint8_t* to, const uint8_t* from, size_t bytes) {
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
  large_copy = &place;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  copy_bytes(to, from, bytes);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  large_copy = nullptr;
  return true;
fault:
  return false;
}

bool end_copy(int signal, const siginfo_t& information, void* context) {
  if ((signal != SIGSEGV && signal != SIGBUS) || information.si_code <= 0) return false;
  greg_t* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  const auto fault = reinterpret_cast<greg_t>(shunt_copy_fault);
  if (registers[REG_RIP] >= reinterpret_cast<greg_t>(shunt_copy_small) && registers[REG_RIP] < fault) {
    registers[REG_RIP] = fault;
    return true;
  }
  if (!large_copy) return false;
  registers[REG_RIP] = reinterpret_cast<greg_t>(large_copy->instruction);
  registers[REG_RSP] = static_cast<greg_t>(large_copy->stack);
  registers[REG_RBP] = static_cast<greg_t>(large_copy->frame);
  registers[REG_EFL] &= ~kDirectionFlag;
  large_copy = nullptr;
  return true;
}

}  // namespace shunt
