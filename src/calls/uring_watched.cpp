// Reads the entries before the kernel does, and changes those that it has done itself. One thread at a time submits to such a ring: where two
// meet, or a handler interrupts, everything becomes plain. The memory may be gone: it is read as a program's buffer is. No lock, no allocation.
#include "calls/uring_watched.h"

#include <linux/io_uring.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

#include "calls/policy.h"
#include "calls/uring.h"
#include "calls/waiting.h"
#include "shm/user_copy.h"

namespace shunt::calls {

using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

namespace {

// Younger than the oldest <linux/io_uring.h> that we build with.
constexpr uint32_t kNoArray = 1u << 16;            // IORING_SETUP_NO_SQARRAY
constexpr uint32_t kSingleIssuer = 1u << 12, kDeferTaskrun = 1u << 13;
constexpr uint32_t kSince610 = 1u << 14;           // IORING_FEAT_RECVSEND_BUNDLE: as old as a NOP with a result of its own
constexpr uint32_t kInjectResult = 1;              // IORING_NOP_INJECT_RESULT
constexpr uint32_t kThroughRegisteredRing = 1u << 4;  // IORING_ENTER_REGISTERED_RING

// With any other the entries lie elsewhere, are taken without a call, or a NOP may fare differently than an EPOLL_CTL.
constexpr uint32_t kUnderstood = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_ATTACH_WQ | IORING_SETUP_SUBMIT_ALL |
                                 IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SQE128 | IORING_SETUP_CQE32 |
                                 kSingleIssuer | kDeferTaskrun | kNoArray;

constexpr int kMostRings = 32;           // one for each thread with a loop
constexpr uint32_t kMostEntries = 1024;  // libuv's have 256

// WatchedRing::holder: the ring's descriptor plus one, or
constexpr int kFree = 0, kFilling = -1;

// One that was done here, in the place of the kernel's.
struct Done {
  int operation;  // 0: none
  int set;
};

}  // namespace

struct WatchedRing {
  std::atomic<int> holder;       // SYNC: released when the rest is filled in; find() acquires
  std::atomic<bool> submitting;  // a thread is between its look and the kernel's answer
  std::atomic<bool> ordered;     // the program has linked or drained entries: none may be done before its turn
  uint32_t flags, entries;
  io_sqring_offsets at;
  std::atomic<const uint8_t*> ring;  // null: not mapped yet
  std::atomic<uint8_t*> submissions;
  Done done[kMostEntries];
};

namespace {

constinit WatchedRing rings[kMostRings] = {};
constinit std::atomic<bool> any{false};  // there has been one

WatchedRing* find(int fd) {
  if (!any.load(memory_order_acquire) || fd < 0) return nullptr;
  // SYNC: pairs with the release in after_ring_setup().
  for (WatchedRing& ring : rings)
    if (ring.holder.load(memory_order_acquire) == fd + 1) return &ring;
  return nullptr;
}

template <typename T>
bool fetch(T& to, const void* from) {
  return copy_user(reinterpret_cast<uint8_t*>(&to), static_cast<const uint8_t*>(from), sizeof to);
}

size_t entry_bytes(const WatchedRing& ring) { return sizeof(io_uring_sqe) << ((ring.flags & IORING_SETUP_SQE128) ? 1 : 0); }

// False: its memory is not known, or gone.
bool read_positions(const WatchedRing& ring, uint32_t& head, uint32_t& tail) {
  const uint8_t* memory = ring.ring.load(memory_order_acquire);
  return memory && ring.submissions.load(memory_order_acquire) && fetch(head, memory + ring.at.head) && fetch(tail, memory + ring.at.tail);
}

// The place of an entry; the kernel drops what lies beyond the last.
bool slot_at(const WatchedRing& ring, uint32_t position, uint32_t& slot) {
  slot = position & (ring.entries - 1);
  if (ring.flags & kNoArray) return true;
  return fetch(slot, ring.ring.load(memory_order_relaxed) + ring.at.array + slot * sizeof(uint32_t));
}

io_uring_sqe* entry_at(const WatchedRing& ring, uint32_t slot) {
  return reinterpret_cast<io_uring_sqe*>(ring.submissions.load(memory_order_relaxed) + slot * entry_bytes(ring));
}

bool is_on_kernel_for_good(const Connection& connection, int operation) {
  if (connection.registrations.load(memory_order_acquire)) return false;
  return operation != EPOLL_CTL_ADD || is_on_kernel(connection);
}

// What epoll_ctl does beyond the kernel's call.
bool matters(int operation, int fd) {
  if (operation != EPOLL_CTL_ADD && operation != EPOLL_CTL_MOD && operation != EPOLL_CTL_DEL) return false;
  if (epoll_set_of(fd) || fresh(fd).known) return true;
  if (!is_connection(fd)) return false;
  Pin connection(fd);
  return connection && !is_on_kernel_for_good(*connection, operation);
}

// Nothing but the call itself. A NOP reads rw_flags and len in their own way, and nothing else.
bool is_simple(const io_uring_sqe& entry) {
  return entry.flags == 0 && entry.ioprio == 0 && entry.rw_flags == 0 && entry.buf_index == 0 && entry.personality == 0 &&
         entry.splice_fd_in == 0;
}

enum class Answer : uint8_t {
  ours,     // the library may know better than the kernel, which has other words than the program's
  kernels,  // nothing was done, and the kernel says the same of the program's entry
  refused,  // by a sandbox, which would not have seen the entry
};

Answer answer_of(long result) {
  switch (result) {
    case kPassOn:
    case -EBADF:
    case -EFAULT:
    case -ELOOP:
    case -ENOMEM:
    case -ENOSPC:
      return Answer::kernels;
    case -EEXIST:
    case -EINVAL:
    case -ENOENT:
      return Answer::ours;
    default:
      return result >= 0 ? Answer::ours : Answer::refused;
  }
}

void do_epoll_ctl(WatchedRing& ring, uint32_t slot, const io_uring_sqe& wanted) {
  const int operation = static_cast<int>(wanted.len), fd = static_cast<int>(wanted.off);
  if (!matters(operation, fd)) return;
  if (ring.ordered.load(memory_order_relaxed) || !is_simple(wanted)) return before_entry(wanted);
  const long result = calls::epoll_ctl(wanted.fd, operation, fd, reinterpret_cast<epoll_event*>(wanted.addr));
  switch (answer_of(result)) {
    case Answer::ours:
      break;
    case Answer::kernels:
      return;
    case Answer::refused:
      return before_entry(wanted);
  }
  io_uring_sqe* entry = entry_at(ring, slot);
  if (result < 0) {
    entry->len = static_cast<uint32_t>(result);
    entry->rw_flags = static_cast<int>(kInjectResult);
  }
  entry->opcode = IORING_OP_NOP;
  ring.done[slot] = {operation, wanted.fd};
}

// False: the ring's memory is gone.
bool look_at(WatchedRing& ring, uint32_t position) {
  uint32_t slot = 0;
  if (!slot_at(ring, position, slot)) return false;
  if (slot >= ring.entries) return true;
  io_uring_sqe entry;
  if (!fetch(entry, entry_at(ring, slot))) return false;
  if (entry.flags & (IOSQE_IO_LINK | IOSQE_IO_HARDLINK | IOSQE_IO_DRAIN)) ring.ordered.store(true, memory_order_relaxed);
  if (entry.opcode != IORING_OP_NOP) ring.done[slot] = {};  // one that the kernel has not taken was written anew
  if (entry.opcode == IORING_OP_EPOLL_CTL)
    do_epoll_ctl(ring, slot, entry);
  else
    before_entry(entry);
  return true;
}

// The eight bytes that hold opcode, flags, ioprio and fd change at once: of a place that the program has begun to fill again nothing is changed.
void restore(WatchedRing& ring, uint32_t position) {
  uint32_t slot = 0;
  if (!slot_at(ring, position, slot) || slot >= ring.entries) return;
  const Done done = ring.done[slot];
  if (done.operation == 0) return;
  ring.done[slot] = {};
  io_uring_sqe* entry = entry_at(ring, slot);
  io_uring_sqe before{}, after{};
  if (!fetch(before, entry) || before.opcode != IORING_OP_NOP || before.fd != done.set) return;
  after = before;
  after.opcode = IORING_OP_EPOLL_CTL;
  const auto exchange = [&](size_t at) {
    uint64_t from, to;
    memcpy(&from, reinterpret_cast<const uint8_t*>(&before) + at, sizeof from);
    memcpy(&to, reinterpret_cast<const uint8_t*>(&after) + at, sizeof to);
    return __atomic_compare_exchange_n(reinterpret_cast<uint64_t*>(reinterpret_cast<uint8_t*>(entry) + at), &from, to, false, __ATOMIC_RELAXED,
                                       __ATOMIC_RELAXED);
  };
  static_assert(offsetof(io_uring_sqe, fd) == 4 && offsetof(io_uring_sqe, len) == 24 && offsetof(io_uring_sqe, rw_flags) == 28);
  if (exchange(0) && before.rw_flags == static_cast<int>(kInjectResult)) {
    after.len = static_cast<uint32_t>(done.operation);
    after.rw_flags = 0;
    exchange(offsetof(io_uring_sqe, len));
  }
}

WatchedRing* claim() {
  for (WatchedRing& ring : rings) {
    int free = kFree;
    if (ring.holder.compare_exchange_strong(free, kFilling, memory_order_acquire, memory_order_relaxed)) return &ring;
  }
  return nullptr;
}

}  // namespace

void after_ring_setup(int fd, const io_uring_params* parameters) {
  if (everything_is_on_kernel()) return;
  forget_ring(fd);
  const io_uring_params made_with = *parameters;
  const bool is_good = (made_with.flags & ~kUnderstood) == 0 && (made_with.features & kSince610) != 0 && made_with.sq_entries <= kMostEntries;
  WatchedRing* ring = is_good ? claim() : nullptr;
  if (!ring) return after_unwatched_ring();
  ring->submitting.store(false, memory_order_relaxed);
  ring->ordered.store(false, memory_order_relaxed);
  ring->flags = made_with.flags;
  ring->entries = made_with.sq_entries;
  ring->at = made_with.sq_off;
  ring->ring.store(nullptr, memory_order_relaxed);
  ring->submissions.store(nullptr, memory_order_relaxed);
  for (uint32_t slot = 0; slot < ring->entries; ++slot)
    if (ring->done[slot].operation != 0) ring->done[slot] = {};
  // SYNC: pairs with the acquires in find().
  ring->holder.store(fd + 1, memory_order_release);
  any.store(true, memory_order_release);
}

void forget_ring(int fd) {
  WatchedRing* ring = find(fd);
  int known = fd + 1;
  // SYNC: pairs with the acquire in claim().
  if (ring) ring->holder.compare_exchange_strong(known, kFree, memory_order_release, memory_order_relaxed);
}

void after_mapping(int fd, void* memory, size_t bytes, int protection, off_t offset) {
  WatchedRing* ring = find(fd);
  if (!ring || !(protection & PROT_READ)) return;
  const auto place = static_cast<uint64_t>(offset);
  if (place == IORING_OFF_SQES) {
    if ((protection & PROT_WRITE) && bytes >= ring->entries * entry_bytes(*ring))
      ring->submissions.store(static_cast<uint8_t*>(memory), memory_order_release);
    return;
  }
  // Since 5.4 both rings are one piece of memory.
  if (place != IORING_OFF_SQ_RING && place != IORING_OFF_CQ_RING) return;
  const size_t positions = ring->at.tail + sizeof(uint32_t), indices = ring->at.array + ring->entries * sizeof(uint32_t);
  const size_t end = (ring->flags & kNoArray) ? positions : indices;
  if (bytes >= end) ring->ring.store(static_cast<const uint8_t*>(memory), memory_order_release);
}

Submission::Submission(int fd, uint32_t count, uint32_t flags) {
  if (count == 0 || everything_is_on_kernel()) return;
  WatchedRing* ring = (flags & kThroughRegisteredRing) ? nullptr : find(fd);
  uint32_t tail = 0;
  if (!ring || !read_positions(*ring, first_, tail) || tail - first_ > ring->entries || ring->submitting.exchange(true, memory_order_acquire)) {
    after_unwatched_ring();
    return;
  }
  ring_ = ring;
  const uint32_t published = first_ + min_of(count, tail - first_);
  for (end_ = first_; end_ != published && look_at(*ring, end_); ++end_) {
  }
  if (end_ != published) after_unwatched_ring();
}

Submission::~Submission() {
  if (!ring_) return;
  uint32_t head = 0, tail = 0;
  if (read_positions(*ring_, head, tail)) {
    // The program has published more meanwhile, and said so before: nobody has looked at that.
    if (head - first_ > end_ - first_) after_unwatched_ring();
    for (uint32_t position = first_; position != end_ && position != head; ++position) restore(*ring_, position);
  }
  ring_->submitting.store(false, memory_order_release);
}

}  // namespace shunt::calls
