// getsockopt, setsockopt and shutdown on stream sockets, and what options mean for acceleration.
// Any thread. ≥ 0, −errno, or kPassOn.
#pragma once

#include <sys/socket.h>

#include "calls/common.h"

namespace shunt::calls {

long getsockopt(int fd, int level, int name, void* value, socklen_t* length);
// On any socket: an option may be set before connect, or on a listener.
long setsockopt(int fd, int level, int name, const void* value, socklen_t length);
long shutdown(int fd, int how);

int read_int_option(int fd, int name);  // of SOL_SOCKET; 0 if the kernel refuses
// The kernel attaches credentials to what this socket receives.
bool gets_credentials(int fd);
// Takes over timeouts that were set before the connection was known.
void read_timeouts(int fd);

}  // namespace shunt::calls
