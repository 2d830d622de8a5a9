// The channel's memfd: made by an acceptor, checked by a connector. Neither keeps a descriptor.
// Any thread; called under the upgrade lock.
#pragma once

#include "agreement/marker.h"
#include "shm/layout.h"

namespace shunt {

struct OfferedChannel {
  uint8_t* base;  // kChannelBytes, mapped shared
  int memfd;      // the caller sends and closes it
};

// Creates, sizes, seals and maps a channel for the connection with these bits. 0 or −errno.
long create_channel(const Bits& bits, OfferedChannel& channel);

// Is `memfd` a channel made for `bits` (of whatever version)? Else it is the program's own descriptor.
bool is_offer(int memfd, const Bits& bits);

// Maps the channel behind `memfd` if it is a genuine one. 0; −EPROTO: it failed a check; other −errno: no memory. Never closes `memfd`.
long map_channel(int memfd, const Bits& bits, uint8_t*& base);

void unmap_channel(uint8_t* base);

}  // namespace shunt
