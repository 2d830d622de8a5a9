// What this process has done that decides which of its sockets may be accelerated.
// Any thread, any context; relaxed atomics.
#pragma once

#include "descriptors/table.h"

namespace shunt::calls {

// Why no new connection of this process may leave the kernel: none, never, io_uring. Never turns back to none.
Reason refusal();
void refuse_from_now_on(Reason reason);

// ---- fresh sockets: AF_UNIX stream sockets that this process made, that are not connected yet, and that nobody can
// reach but through the one descriptor. Only these may carry a marker: a duplicate made before connect would bypass the
// ring.

enum class Blocking : uint8_t { yes, no, unknown };  // O_NONBLOCK of the open file: unknown once fcntl or ioctl changed its flags
void note_fresh(int fd, Blocking blocking);
void note_flags_changed(int fd);
// Something was done to `fd` that keeps its connection plain. Costs one load if `fd` is not fresh.
void spoil(int fd, Reason reason);
void note_timeouts(int fd);  // SO_RCVTIMEO or SO_SNDTIMEO was set before connect
void spoil_all();            // fork: two processes have them now

// ---- descriptors that a FILE of libc reads and writes: whatever is put over such a number, libc uses it unseen.
void note_stream(int fd);
void forget_stream(int fd);
bool has_stream(int fd);  // stdin, stdout and stderr always have

struct Fresh {
  bool known;
  Reason spoilt;  // none: good
  bool timeouts;
  Blocking blocking;
};
Fresh fresh(int fd);
void forget_fresh(int fd);  // connected

}  // namespace shunt::calls
