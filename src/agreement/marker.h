// Evidence: the abstract name that an aware connector binds, and how an acceptor recognises it.
// Any thread. Layout of the name: NUL, "shunt1-", 32 hex digits: the version and 128 random bits.
#pragma once

#include <cstdint>
#include <sys/socket.h>
#include <sys/un.h>

namespace shunt {

struct Bits {
  uint8_t bytes[16];
};

// Binds the unnamed socket `fd` to a fresh marker. 0 or −errno (−EINVAL: the socket has a name already).
long bind_marker(int fd, Bits& bits);

// In a forked child: the bits fetched beforehand are the parent's.
void forget_random_bits();

// True if `name` (as accept or getpeername gave it) is a marker; fills `bits`.
bool read_marker(const sockaddr_un& name, socklen_t length, Bits& bits);

}  // namespace shunt
