// Evidence: the abstract name that an aware connector binds, and how an acceptor recognises it.
// Any thread. Layout of the name: NUL, "shunt1-", 22 digits of base64url: the version and 128 random bits.
// With the family 32 bytes, and no more: varnishd keeps a peer's name where an IPv6 address fits, and ends if it is longer.
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
