// io_uring moves bytes inside the kernel, past every wrapper. What a submission or a registration names goes back to
// the kernel first; connections that no ring names stay where they are. Any thread.
#pragma once

#include "calls/common.h"

struct io_uring_sqe;

namespace shunt::calls {

struct Ring;  // liburing's struct io_uring, as liburing.so.2 lays it out

// liburing.so.2 made this one.
void after_ring_made(const Ring* ring);
// A ring whose submissions cannot be seen: nothing of this process can be accelerated any more.
void after_unwatched_ring();
// There was one.
bool everything_is_on_kernel();
// For good.
bool is_on_kernel(const Connection& connection);

// The kernel is about to take what `ring` holds.
void before_submission(const Ring* ring);
// The same of one entry, as it stands in a copy of the caller's.
void before_entry(const io_uring_sqe& entry);
// A ring gets descriptors to keep.
void before_ring_files(const int* files, unsigned count);
// The same as io_uring_register(2) says it.
void before_ring_register(int ring, unsigned operation, const void* argument, unsigned count);

}  // namespace shunt::calls
