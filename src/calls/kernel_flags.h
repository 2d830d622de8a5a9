// The RWF_* flags of preadv2 and pwritev2 on a stream socket: which of them this kernel takes, and what they mean to
// us. Any thread. Asks the kernel with a socket pair of its own, once per set of flags in a row.
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <cstdint>

namespace shunt::calls {

enum class Transfer : uint8_t { read, write };

bool kernel_takes(Transfer direction, int flags);

// sock_read_iter, sock_write_iter: RWF_NOWAIT is MSG_DONTWAIT; the others say nothing to a stream.
inline int message_flags(int flags) { return flags & RWF_NOWAIT ? MSG_DONTWAIT : 0; }

}  // namespace shunt::calls
