// The dup family. Any thread. ≥ 0, −errno, or kPassOn.
#pragma once

#include "calls/common.h"

namespace shunt::calls {

long dup(int fd);
long dup2(int from, int to);
long dup3(int from, int to, int flags);
long pidfd_getfd(int process, int fd, unsigned flags);

// After the kernel duplicated `from`: `result` is the new descriptor or −errno, and is returned.
long finish_duplicate(int from, long result);

}  // namespace shunt::calls
