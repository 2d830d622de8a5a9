// The close family. Any thread. ≥ 0, −errno, or kPassOn.
#pragma once

#include "calls/common.h"

namespace shunt::calls {

long close(int fd);
inline long mq_close(int fd) { return close(fd); }  // as libc has it
// Before the kernel closes a range: ends what is ours in it. `last` is included.
void before_close_range(unsigned first, unsigned last, int flags);

}  // namespace shunt::calls
