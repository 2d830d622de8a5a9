// Reads and writes of a caller's memory through the kernel socket, with the names and control data that the program may see.
// Any thread; takes no lock.
#pragma once

#include "connection/connection.h"

namespace shunt {

enum class Sleep : uint8_t { never, allowed };

// At most `limit` bytes. Fills in the request's message, if any; sets `complete` if it made the program's own call. An offer found in the control data is attached.
long read_kernel(Connection& connection, int fd, ReceiveRequest& request, size_t limit, int flags, Sleep sleep);
long write_kernel(int fd, const SendRequest& request, int flags, Sleep sleep);

// What recvmsg reports beside the bytes when they came from the ring: no control data, and the sender's name.
void fill_message(const Connection& connection, int fd, msghdr& message);

}  // namespace shunt
