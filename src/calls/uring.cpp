// Reads submission entries before the kernel does. They are the program's own memory, written by the submitting thread.
// Must not change them.
#include "calls/uring.h"

#include <linux/io_uring.h>

#include <cstddef>

#include "calls/policy.h"
#include "calls/sending.h"
#include "calls/uring_watched.h"
#include "readiness/epoll_set.h"

namespace shunt::calls {

// Programs have liburing's inline functions compiled in, so the fields up to `flags` have had these places since 2.0.
struct Ring {
  const uint32_t* taken;  // entries that the kernel has taken, ever
  void* unused1;
  const uint32_t* mask;
  const uint32_t* entries;
  void* unused2[3];
  const uint8_t* submissions;
  uint32_t published;  // liburing has shown the kernel so many
  uint32_t prepared;   // and the program has filled in so many
  uint64_t unused3[15];
  uint32_t flags;  // IORING_SETUP_*
  int fd;
};
static_assert(offsetof(Ring, mask) == 16 && offsetof(Ring, entries) == 24 && offsetof(Ring, submissions) == 56);
static_assert(offsetof(Ring, published) == 64 && offsetof(Ring, prepared) == 68 && offsetof(Ring, flags) == 192);

namespace {

// Younger than the oldest <linux/io_uring.h> that we build with.
constexpr unsigned kWaitId = 50, kFutexWait = 51, kFutexWake = 52, kFutexWaitV = 53;
constexpr unsigned kThroughRegisteredRing = 1u << 31;  // IORING_REGISTER_USE_REGISTERED_RING
constexpr unsigned kResizeRings = 33;

std::atomic<bool> everything_is_plain{false};

void leave_for_ring(Connection& connection, int fd) {
  if (!is_on_kernel(connection)) retreat(connection, fd, Reason::io_uring);
}

void give_to_ring(int fd) {
  spoil(fd, Reason::io_uring);
  if (epoll_set_of(fd)) return note_set_watched(fd);
  if (!is_connection(fd)) return;
  if (Pin connection{fd}) leave_for_ring(*connection, fd);
}

void before_ring_closes(int fd) {
  give_to_ring(fd);
  // Nobody tells us when the kernel has done it, and the number may have a new owner by then.
  if (is_ours(fd) && !in_foreign_process()) Closing closing(fd);
}

const int* as_descriptors(uint64_t address) { return reinterpret_cast<const int*>(address); }

}  // namespace

bool everything_is_on_kernel() { return everything_is_plain.load(std::memory_order_acquire); }

bool is_on_kernel(const Connection& c) {
  if (!has_channel(c)) return c.side->plain.load(std::memory_order_relaxed) != Reason::none;
  return c.side->in_flow.load(std::memory_order_relaxed) == Flow::kernel_again &&
         c.side->out_flow.load(std::memory_order_relaxed) == Flow::kernel_again;
}

void before_entry(const io_uring_sqe& entry) {
  switch (entry.opcode) {
    case IORING_OP_NOP:  // these keep something else in `fd`, or nothing
    case IORING_OP_POLL_REMOVE:
    case IORING_OP_TIMEOUT:
    case IORING_OP_TIMEOUT_REMOVE:
    case IORING_OP_ASYNC_CANCEL:
    case IORING_OP_LINK_TIMEOUT:
    case IORING_OP_MADVISE:
    case IORING_OP_PROVIDE_BUFFERS:
    case IORING_OP_REMOVE_BUFFERS:
    case IORING_OP_SOCKET:
    case kWaitId:
    case kFutexWait:
    case kFutexWake:
    case kFutexWaitV:
      return;
    case IORING_OP_FILES_UPDATE:
      return before_ring_files(as_descriptors(entry.addr), entry.len);
    case IORING_OP_EPOLL_CTL:
      return give_to_ring(static_cast<int>(entry.off));  // `fd` is the set
    case IORING_OP_CLOSE:
      if (entry.file_index == 0) before_ring_closes(entry.fd);
      return;
    case IORING_OP_SPLICE:
    case IORING_OP_TEE:
      if (!(entry.splice_flags & SPLICE_F_FD_IN_FIXED)) give_to_ring(entry.splice_fd_in);
      break;
    case IORING_OP_SENDMSG:
    case IORING_OP_SENDMSG_ZC:
      before_passing(reinterpret_cast<const msghdr*>(entry.addr));
      break;
    default:
      break;
  }
  // A registered file went back to the kernel when it was registered.
  if (!(entry.flags & IOSQE_FIXED_FILE)) give_to_ring(entry.fd);
}

void after_unwatched_ring() {
  if (everything_is_plain.load(std::memory_order_acquire)) return;
  refuse_from_now_on(Reason::io_uring);
  for_each_connection([](int fd, Connection& connection) { leave_for_ring(connection, fd); });
  // SYNC: pairs with the acquire above: a second thread goes on only when all of them are out.
  everything_is_plain.store(true, std::memory_order_release);
}

void after_ring_made(const Ring* ring) {
  forget_stale(ring->fd);
  forget_ring(ring->fd);
  // The kernel's own thread takes the entries of such a ring, without a call.
  if (ring->flags & IORING_SETUP_SQPOLL) after_unwatched_ring();
}

void before_submission(const Ring* ring) {
  // Also because then `ring` may be anything.
  if (everything_is_plain.load(std::memory_order_acquire)) return;
  // liburing's array of indices is the identity, so a ring without one (IORING_SETUP_NO_SQARRAY) reads the same. What a
  // short submission left behind is looked at again: its numbers may have new owners.
  const uint32_t taken = __atomic_load_n(ring->taken, __ATOMIC_ACQUIRE);
  const uint32_t count = min_of(ring->prepared - taken, *ring->entries);
  const size_t entry_bytes = sizeof(io_uring_sqe) << ((ring->flags & IORING_SETUP_SQE128) ? 1 : 0);
  for (uint32_t at = ring->prepared - count; at != ring->prepared; ++at)
    before_entry(*reinterpret_cast<const io_uring_sqe*>(ring->submissions + (at & *ring->mask) * entry_bytes));
}

void before_ring_files(const int* files, unsigned count) {
  if (unreadable(files, sizeof *files) || count > static_cast<unsigned>(kMaxDescriptors)) return;
  for (unsigned i = 0; i < count; ++i) give_to_ring(files[i]);
}

void before_ring_register(int ring, unsigned operation, const void* argument, unsigned count) {
  if ((operation & ~kThroughRegisteredRing) == kResizeRings) {
    // Its memory will be elsewhere.
    if (operation & kThroughRegisteredRing) return after_unwatched_ring();
    return forget_ring(ring);
  }
  if (unreadable(argument, 1)) return;
  switch (operation & ~kThroughRegisteredRing) {
    case IORING_REGISTER_FILES:
      return before_ring_files(static_cast<const int*>(argument), count);
    case IORING_REGISTER_FILES_UPDATE:
      return before_ring_files(as_descriptors(static_cast<const io_uring_files_update*>(argument)->fds), count);
    case IORING_REGISTER_FILES2: {
      const auto& files = *static_cast<const io_uring_rsrc_register*>(argument);
      return before_ring_files(as_descriptors(files.data), files.nr);
    }
    case IORING_REGISTER_FILES_UPDATE2: {
      const auto& files = *static_cast<const io_uring_rsrc_update2*>(argument);
      return before_ring_files(as_descriptors(files.data), files.nr);
    }
    default:
      return;
  }
}

}  // namespace shunt::calls
