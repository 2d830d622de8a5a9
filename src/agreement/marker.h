// The marker: an abstract name that a connector binds once it was seen to use the connection through the library, and how an acceptor recognises it.
// Any thread. Layout of the name: NUL, "shunt2-", 22 digits of base64url: the protocol's version and 128 random bits.
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

enum class Marker : uint8_t {
  none,
  understood,
  other_version,  // of a library that speaks another protocol
};
// What `name` (as getpeername or getsockname gave it) is. Fills `bits` if it is understood.
Marker read_marker(const sockaddr_un& name, socklen_t length, Bits& bits);

}  // namespace shunt
