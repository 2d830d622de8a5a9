// CPU-level helpers: cycle counter, pause, barriers, and a compare-exchange that is atomic against signal handlers.
// Any thread, any context. No calls, no state.
#pragma once

#include <atomic>
#include <cstdint>

namespace shunt {

#if defined(__x86_64__)
inline uint64_t cycles() {
  uint32_t low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  return (static_cast<uint64_t>(high) << 32) | low;
}
// The CPU this thread runs on (Linux keeps it in TSC_AUX, below the node's 12 bits).
inline uint32_t current_cpu() {
  uint32_t low, high, aux;
  __asm__ volatile("rdtscp" : "=a"(low), "=d"(high), "=c"(aux));
  return aux & 0xfff;
}
inline void cpu_pause() { __builtin_ia32_pause(); }
#else
#error "Shunt knows x86-64 only so far"
#endif

// Orders earlier stores before later loads: the barrier of both Dekker pairs (publish/arm, freeze/writing).
#if defined(__SANITIZE_THREAD__)
inline void full_barrier() { __asm__ volatile("mfence" : : : "memory"); }  // it knows no fences
#else
inline void full_barrier() { std::atomic_thread_fence(std::memory_order_seq_cst); }
#endif

// What stands before this is in memory when what stands behind it is, for whoever comes after a process that was killed (or a thread that jumped) in between.
inline void before_what_follows() { std::atomic_signal_fence(std::memory_order_seq_cst); }

// Moves a cursor from `expected` to `desired` in one instruction, so that a signal handler on the same thread sees either value
// and nothing between. Other threads are kept out by the lock of that cursor, so no bus lock is needed.
inline bool commit_cursor(std::atomic<uint64_t>& cursor, uint64_t expected, uint64_t desired) {
#if defined(__SANITIZE_THREAD__)
  return cursor.compare_exchange_strong(expected, desired, std::memory_order_relaxed);
#else
  bool done;
  __asm__ volatile("cmpxchgq %3, %1"
                   : "=@ccz"(done), "+m"(cursor), "+a"(expected)
                   : "r"(desired)
                   : "memory");
  return done;
#endif
}

template <typename T>
constexpr T min_of(T a, T b) {
  return a < b ? a : b;
}

}  // namespace shunt
