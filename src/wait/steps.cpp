// Two steps that no handler sees apart, in assembly; ThreadSanitizer, which cannot see into that, gets them in plain C++. Raw calls only.
#include <sys/syscall.h>
#include <sys/ucontext.h>

#include "sys/raw.h"
#include "wait/duties.h"

#if defined(__SANITIZE_THREAD__)

namespace shunt {

void count_and_mark(std::atomic<uint32_t>& counter, uint32_t change, uint32_t& mark, uint32_t value) {
  counter.fetch_add(change, std::memory_order_seq_cst);
  mark = value;
}

long send_low_byte_and_count(int fd, int flags, std::atomic<uint32_t>& counter) {
  const long result = sys::send(fd, &counter, 1, flags);
  counter.fetch_add(1, std::memory_order_relaxed);
  return result;
}

long receive_and_mark(int fd, void* buffer, size_t bytes, int flags, int64_t& result) { return result = sys::recv(fd, buffer, bytes, flags); }

void finish_step(void*) {}

}  // namespace shunt

#else

// Behind these labels stands the second step: movl %edx, (%rbx); incl (%rbx); movq %rax, (%rbx).
extern "C" {
extern const char shunt_count_mark[] __attribute__((visibility("hidden")));
extern const char shunt_send_count[] __attribute__((visibility("hidden")));
extern const char shunt_receive_mark[] __attribute__((visibility("hidden")));
}

namespace shunt {
namespace {

constexpr greg_t kMarkBytes = 2, kCountBytes = 2, kResultBytes = 3;

}  // namespace

[[gnu::noinline]] void count_and_mark(std::atomic<uint32_t>& counter, uint32_t change, uint32_t& mark,
                                                    uint32_t value) {
  __asm__ volatile(
      "lock addl %[change], %[counter]\n"
      "shunt_count_mark:\n\t"
      "movl %%edx, (%%rbx)"
      : [counter] "+m"(counter)
      : [change] "r"(change), "d"(value), "b"(&mark)
      : "memory", "cc");
}

[[gnu::noinline]] long send_low_byte_and_count(int fd, int flags, std::atomic<uint32_t>& counter) {
  const auto byte = static_cast<uint8_t>(counter.load(std::memory_order_relaxed));
  long result;
  register long r10 __asm__("r10") = flags;
  register long r8 __asm__("r8") = 0;
  register long r9 __asm__("r9") = 0;
  __asm__ volatile(
      "syscall\n"
      "shunt_send_count:\n\t"
      "incl (%%rbx)"
      : "=a"(result)
      : "a"(long{SYS_sendto}), "D"(long{fd}), "S"(&counter), "d"(1L), "r"(r10), "r"(r8), "r"(r9), "b"(&counter)
      : "rcx", "r11", "memory");
  if (__builtin_expect(sys::refused(result), 0)) result = sys::send_otherwise(fd, &byte, 1, flags, result);
  return result;
}

[[gnu::noinline]] long receive_and_mark(int fd, void* buffer, size_t bytes, int flags, int64_t& result) {
  long got;
  register long r10 __asm__("r10") = flags;
  register long r8 __asm__("r8") = 0;
  register long r9 __asm__("r9") = 0;
  __asm__ volatile(
      "syscall\n"
      "shunt_receive_mark:\n\t"
      "movq %%rax, (%%rbx)"
      : "=a"(got)
      : "a"(long{SYS_recvfrom}), "D"(long{fd}), "S"(buffer), "d"(bytes), "r"(r10), "r"(r8), "r"(r9), "b"(&result)
      : "rcx", "r11", "memory");
  if (__builtin_expect(sys::refused(got), 0)) result = got = sys::recv_otherwise(fd, buffer, bytes, flags, got);
  return got;
}

void finish_step(void* context) {
  greg_t* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  const greg_t at = registers[REG_RIP];
  if (at == reinterpret_cast<greg_t>(shunt_receive_mark)) {
    *reinterpret_cast<int64_t*>(registers[REG_RBX]) = registers[REG_RAX];
    registers[REG_RIP] = at + kResultBytes;
  }
  if (at == reinterpret_cast<greg_t>(shunt_send_count)) {
    ++*reinterpret_cast<uint32_t*>(registers[REG_RBX]);
    registers[REG_RIP] = at + kCountBytes;
  }
  if (at != reinterpret_cast<greg_t>(shunt_count_mark)) return;
  *reinterpret_cast<uint32_t*>(registers[REG_RBX]) = static_cast<uint32_t>(registers[REG_RDX]);
  registers[REG_RIP] = at + kMarkBytes;
}

}  // namespace shunt

#endif
