// Copies from or to the program's memory, which may be bad: then they end where the kernel's would with EFAULT. The trampoline behind SIGSEGV and
// SIGBUS leads the thread out of them. Any thread, any context.
#pragma once

#include <atomic>
#include <csignal>
#include <cstddef>
#include <cstdint>

namespace shunt {

// Where a copy that cannot be completed is gone on from. The other registers are then those of the place of the fault.
struct Resumption {
  const void* instruction;
  uintptr_t stack, frame;
};
// Of the copy that is under way in this thread, if it is a large one. A handler that runs above it must not be led into it.
inline thread_local const Resumption* large_copy = nullptr;

inline constexpr size_t kSmallCopy = 256;  // bytes. One that is no larger costs nothing but the copy
extern "C" [[gnu::visibility("hidden")]] bool shunt_copy_small(void* to, const void* from, size_t bytes);
bool copy_large(uint8_t* to, const uint8_t* from, size_t bytes);

// False: a fault, after any number of the bytes.
inline bool copy_user(uint8_t* to, const uint8_t* from, size_t bytes) {
  return bytes <= kSmallCopy ? shunt_copy_small(to, from, bytes) : copy_large(to, from, bytes);
}

// For the handler, before all else. True: the fault was in such a copy, which returns false when the handler has returned to the kernel.
bool end_copy(int signal, const siginfo_t& information, void* context);

}  // namespace shunt
