// Where connections begin: socket, connect, accept; and the names that programs see.
// Any thread. ≥ 0, −errno, or kPassOn.
#pragma once

#include <sys/socket.h>

#include "calls/common.h"

namespace shunt::calls {

// After the kernel made `fd`.
void note_socket(int fd, int domain, int type);
void note_socketpair(int domain, int type, const int* pair);

long connect(int fd, const sockaddr* address, socklen_t length);
long accept(int fd, sockaddr* address, socklen_t* length);
long accept4(int fd, sockaddr* address, socklen_t* length, int flags);
long getsockname(int fd, sockaddr* address, socklen_t* length);
long getpeername(int fd, sockaddr* address, socklen_t* length);

}  // namespace shunt::calls
