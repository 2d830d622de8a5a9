// The last resort of a retreat: bytes lie unread in the ring and the peer cannot put them back (it shut its writing down, or is gone), or does not.
#pragma once

#include "connection/connection.h"

namespace shunt {

struct RelayPlan {
  uint64_t kernel_first;  // bytes that wait in the kernel and come first
  uint64_t read;          // of these and of what the peer put back meanwhile: not there any more
  uint64_t begin, end;    // then these ring positions
  bool fenced;            // then the bells of a down-fence lie in the kernel
  bool takes_over;        // the peer may still put back: ends that first, and goes by how far it got
};

// Whom the kernel is to name as the peer, behind the new socket.
enum class Likeness : uint8_t {
  required,  // the old peer, or there is no relay
  wanted,    // else this process itself: its socket must not leave it
};

// Puts one end of a fresh socket pair in the place of `fd`, and a process of its own behind it that delivers what the
// plan says, then pumps both ways until the end. Names are lost; bytes are not. 0 or −errno.
long start_relay(Connection& connection, int fd, RelayPlan plan, Likeness likeness);

// Before another file takes the place of `fd`: whom the kernel names, for who asks in this process.
void remember_peer(Connection& connection, int fd);

// In the place of `fd`: a connection whose peer reset it. 0 or −errno.
long put_reset(int fd);
// Where that finds no room: nothing comes from `fd` any more, and nothing goes there.
void silence(int fd);

}  // namespace shunt
