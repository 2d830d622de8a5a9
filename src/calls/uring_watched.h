// Rings that a program made and serves by itself, through syscall(2): libuv's, which batches epoll_ctl through one. Their entries lie in the
// program's memory when it submits them. What cannot be followed makes the process's connections plain. Any thread.
#pragma once

#include "calls/common.h"

struct io_uring_params;

namespace shunt::calls {

struct WatchedRing;

// io_uring_setup made `fd`, and the kernel has filled in `parameters`.
void after_ring_setup(int fd, const io_uring_params* parameters);
// `fd` is closed, or is another ring, or its memory changes.
void forget_ring(int fd);
// mmap gave `memory` for `fd`. Costs one load where there is no such ring.
void after_mapping(int fd, void* memory, size_t bytes, int protection, off_t offset);

// Around io_uring_enter. An EPOLL_CTL of a connection of ours is done here, as epoll_ctl; the kernel is told to complete the entry with that
// result. Afterwards the entry is again what the program wrote.
class Submission {
 public:
  Submission(int fd, uint32_t count, uint32_t flags);
  ~Submission();
  Submission(const Submission&) = delete;
  Submission& operator=(const Submission&) = delete;

 private:
  WatchedRing* ring_ = nullptr;  // null: nothing to do afterwards
  uint32_t first_ = 0, end_ = 0;  // positions that were looked at
};

}  // namespace shunt::calls
