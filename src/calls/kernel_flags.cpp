// Raw calls only; leaves no descriptor open.
#include "calls/kernel_flags.h"

#include <atomic>
#include <cerrno>

#include "sys/raw.h"

namespace shunt::calls {
namespace {

bool ask(Transfer direction, int flags) {
  int pair[2];
  if (sys::raw(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) return false;
  char byte = 0;
  const iovec part{&byte, 1};
  const long number = direction == Transfer::read ? SYS_preadv2 : SYS_pwritev2;
  const long result = sys::raw(number, pair[0], &part, 1, -1L, -1L, flags);
  sys::close(pair[0]);
  sys::close(pair[1]);
  return result == 1 || result == -EAGAIN;
}

std::atomic<int> taken[2];  // the flags last found good, per direction

}  // namespace

bool kernel_takes(Transfer direction, int flags) {
  std::atomic<int>& last = taken[static_cast<int>(direction)];
  if (flags == 0 || flags == last.load(std::memory_order_relaxed)) return true;
  if (!ask(direction, flags)) return false;
  last.store(flags, std::memory_order_relaxed);
  return true;
}

}  // namespace shunt::calls
