// The sending calls on a connection of ours, as send(2), writev(2), sendfile(2) and their kin define them.
// Any thread, signal handlers included. ≥ 0, −errno, or kPassOn.
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include "calls/common.h"

namespace shunt::calls {

long write(int fd, const void* data, size_t bytes);
long writev(int fd, const iovec* parts, int count);
long pwritev2(int fd, const iovec* parts, int count, off_t offset, int flags);
long send(int fd, const void* data, size_t bytes, int flags);
long sendto(int fd, const void* data, size_t bytes, int flags, const sockaddr* address, socklen_t length);
long sendmsg(int fd, const msghdr* message, int flags);
long sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags);
long sendfile(int fd, int file, off_t* offset, size_t bytes);

// Before a sendmsg on any socket: descriptors of ours that it carries leave the family, so they go back to the kernel
// first.
void before_passing(const msghdr* message);

}  // namespace shunt::calls
