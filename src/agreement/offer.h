// The channel's memfd: made by an acceptor, checked by a connector. Neither keeps a descriptor.
// Any thread; called under the upgrade lock.
#pragma once

#include "agreement/marker.h"
#include "shm/layout.h"

namespace shunt {

// A channel in this process's memory: its header page, and the larger areas of both directions.
struct Mapping {
  uint8_t* header;  // before the call: where it is to be, in memory reserved for that; null: anywhere
  uint8_t* larger;
};

// Creates, sizes, seals and maps a channel for the connection with these bits. 0 or −errno; after an error a reserved place may be lost, as below.
// The caller sends and closes `memfd`.
long create_channel(const Bits& bits, Mapping& channel, int& memfd);

// Is `memfd` a channel made for `bits` (of whatever version)? Else it is the program's own descriptor.
bool is_offer(int memfd, const Bits& bits);

// Maps the channel behind `memfd` if it is a genuine one. 0; −EPROTO: it failed a check; other −errno: no memory. Never closes `memfd`.
long map_channel(int memfd, const Bits& bits, Mapping& channel);

// `reserved`: as `header` was before the mapping; it is reserved again. False: it could not be, so it is not ours any more.
bool unmap_channel(const Mapping& channel, uint8_t* reserved);

// Address space for header pages, `count` of them. Null without.
uint8_t* reserve_headers(size_t count);

}  // namespace shunt
