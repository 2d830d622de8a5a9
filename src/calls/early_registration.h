// Sockets that are registered with epoll before they are connected: event loops such as nginx's do it. The registration
// is made anew when the connection is known, so that readiness/ knows it too. Any thread.
#pragma once

#include <sys/epoll.h>

#include "calls/common.h"

namespace shunt::calls {

// After the kernel accepted epoll_ctl for `fd`, which is not a connection (yet). What cannot be followed keeps its
// connection plain.
void note_early_registration(int set, int operation, int fd, const epoll_event* event);

// `fd` was entered as a connection just now.
void renew_early_registration(int fd);

}  // namespace shunt::calls
