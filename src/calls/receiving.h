// The receiving calls on a connection of ours, as recv(2), readv(2) and their kin define them.
// Any thread, signal handlers included. ≥ 0, −errno, or kPassOn.
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <ctime>

#include "calls/common.h"

namespace shunt::calls {

long read(int fd, void* data, size_t bytes);
long readv(int fd, const iovec* parts, int count);
long preadv2(int fd, const iovec* parts, int count, off_t offset, int flags);
long recv(int fd, void* data, size_t bytes, int flags);
long recvfrom(int fd, void* data, size_t bytes, int flags, sockaddr* address, socklen_t* length);
long recvmsg(int fd, msghdr* message, int flags);
long recvmmsg(int fd, mmsghdr* messages, unsigned count, int flags, timespec* timeout);

// After a recvmsg on any socket: hides a marker in the name and forgets what was known of received descriptors. `room`:
// of the name, before the call.
void tidy_received(int fd, msghdr& message, socklen_t room);

}  // namespace shunt::calls
