// Hides markers. Any thread; raw calls only.
#include "calls/names.h"

#include <cstring>

#include "sys/raw.h"

namespace shunt::calls {

bool Name::is_marker() const {
  Bits bits;
  return is_unix() && length <= sizeof(sockaddr_un) && read_marker(reinterpret_cast<const sockaddr_un&>(storage), length, bits) != Marker::none;
}

bool can_store(const sockaddr* address, const socklen_t* length) {
  if (unreadable(length) || static_cast<int>(*length) < 0) return false;
  return !unwritable(address, min_of<size_t>(*length, sizeof(sockaddr_storage)));
}

void store(const Name& name, socklen_t unnamed, sockaddr* address, socklen_t* length) {
  const socklen_t shown = name.is_marker() ? unnamed : name.length;
  memcpy(address, &name.storage, min_of(shown, *length));
  *length = shown;
}

void hide_sender(int fd, void* name, socklen_t room, socklen_t& length) {
  Name whole;
  if (length <= sizeof(sa_family_t) || length > sizeof(sockaddr_un) || room < sizeof(sa_family_t)) return;
  if (static_cast<const sockaddr*>(name)->sa_family != AF_UNIX) return;
  if (room >= length) {
    memcpy(&whole.storage, name, length);
    whole.length = length;
  } else if (sys::raw(SYS_getpeername, fd, &whole.storage, &whole.length) < 0) {
    return;  // cut short, and not the name of a connected peer: not ours
  }
  if (!whole.is_marker()) return;
  memset(name, 0, min_of(room, length));
  length = 0;
}

}  // namespace shunt::calls
