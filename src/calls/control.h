// fcntl and ioctl. Any thread. ≥ 0, −errno, or kPassOn: commands that say nothing to us go to the kernel unchanged.
#pragma once

#include "calls/common.h"

namespace shunt::calls {

// Also for descriptors that are not ours: F_DUPFD may make one of them hard to follow.
long fcntl(int fd, int command, long argument);
long ioctl(int fd, unsigned long request, long argument);

}  // namespace shunt::calls
