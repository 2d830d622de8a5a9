// bind(2) on a socket that carries our marker from a connect that failed. Any thread. ≥ 0, −errno, or kPassOn.
#pragma once

#include <sys/socket.h>

#include "calls/common.h"

namespace shunt::calls {

long bind(int fd, const sockaddr* address, socklen_t length);

}  // namespace shunt::calls
