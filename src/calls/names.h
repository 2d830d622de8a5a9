// Socket names as a program may see them: a marker is shown as no name. Any thread; no state.
#pragma once

#include "calls/common.h"

namespace shunt::calls {

// A name from the kernel, with room for any.
struct Name {
  sockaddr_storage storage;
  socklen_t length = sizeof storage;

  sockaddr* address() { return reinterpret_cast<sockaddr*>(&storage); }
  bool is_unix() const { return length >= sizeof(sa_family_t) && storage.ss_family == AF_UNIX; }
  bool is_marker() const;  // of whatever version
};

// True if the kernel could store a name there. If not, the kernel's own call gives the error.
bool can_store(const sockaddr* address, const socklen_t* length);
// As the kernel's move_addr_to_user: cut to the caller's room, with the full length. `unnamed` replaces the length of a
// marker: accept, getsockname and getpeername give the bare family (2), receiving calls nothing (0).
void store(const Name& name, socklen_t unnamed, sockaddr* address, socklen_t* length);

// After a receiving call on a socket that is not ours gave the sender's name: hides a marker.
void hide_sender(int fd, void* name, socklen_t room, socklen_t& length);

}  // namespace shunt::calls
