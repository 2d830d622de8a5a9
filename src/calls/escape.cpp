// Retreats in bulk, and the bookkeeping of a process that ends.
#include "calls/escape.h"

#include <aio.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <sys/single_threaded.h>
#include <unistd.h>

#include <cerrno>

#include "calls/policy.h"
#include "sys/raw.h"

namespace shunt::calls {
namespace {

bool is_reached_lower(int fd, const Connection& connection) {
  constexpr uint32_t kOnlyThisOne = 2;  // the descriptor's reference and the pin of the walk
  if (connection.references.load(std::memory_order_relaxed) <= kOnlyThisOne) return false;
  for (int other = 0; other < fd; ++other)
    if (Pin pin{other}; pin && &*pin == &connection) return true;
  return false;
}

// Calls fn(fd, connection, descriptor flags) for each descriptor of ours that the calling process has open.
template <typename Function>
void for_each_open(Function function) {
  for_each_connection([&](int fd, Connection& connection) {
    const long flags = sys::raw(SYS_fcntl, fd, F_GETFD);
    if (flags >= 0) function(fd, connection, flags);
  });
}

// This process leaves (−1) or rejoins (+1) the holders of what exec closes.
void change_holders(int by) {
  if (in_foreign_process()) return;
  for_each_open([&](int fd, Connection& connection, long flags) {
    if ((flags & FD_CLOEXEC) && !is_reached_lower(fd, connection))
      connection.side->holders.fetch_add(static_cast<uint32_t>(by), std::memory_order_relaxed);
  });
}

void retreat_if_ours(int fd, Reason reason) {
  if (!is_connection(fd)) return;
  if (Pin connection{fd}) retreat(*connection, fd, reason);
}

// Descriptors that a file action has named, ever: libc's actions cannot be read back.
constexpr int kMaxNamed = 65536;  // higher ones go back to the kernel when they are named
std::atomic<uint64_t> named[kMaxNamed / 64];
std::atomic<bool> anything_named{false};

void remember_named(int fd) {
  if (fd < 0 || fd >= kMaxNamed) return;
  named[fd / 64].fetch_or(uint64_t{1} << (fd % 64), std::memory_order_relaxed);
  anything_named.store(true, std::memory_order_relaxed);
}

bool is_named(int fd) {
  return fd < kMaxNamed && (named[fd / 64].load(std::memory_order_relaxed) >> (fd % 64) & 1) != 0;
}

// What it did not duplicate it inherits without knowing: unread bytes stay with its parent, which waits for this exec.
void before_exec_of_vfork_child() {
  for_each_open([](int fd, Connection& connection, long flags) {
    if (flags & FD_CLOEXEC) return;
    std::atomic<uint32_t>& holders = connection.side->holders;
    holders.fetch_add(1, std::memory_order_relaxed);
    retreat(connection, fd, Reason::exec_inherited);
    holders.fetch_sub(1, std::memory_order_relaxed);
  });
}

}  // namespace

bool exec_must_fail(const char* path) {
  const long answer = sys::raw(SYS_faccessat2, AT_FDCWD, path, X_OK, AT_EACCESS);
  return answer == -ENOENT || answer == -ENOTDIR || answer == -EACCES || answer == -EFAULT;
}

void before_spawn() {
  for_each_open([](int fd, Connection& connection, long flags) {
    if (!(flags & FD_CLOEXEC)) retreat(connection, fd, Reason::exec_inherited);
  });
}

void before_spawn_with_actions() {
  before_spawn();
  if (!anything_named.load(std::memory_order_relaxed)) return;
  for_each_open([](int fd, Connection& connection, long) {
    if (is_named(fd)) retreat(connection, fd, Reason::exec_inherited);
  });
}

void before_exec() {
  if (in_foreign_process()) return before_exec_of_vfork_child();
  before_spawn();
  for_each_open([](int fd, Connection& connection, long flags) {
    if (!(flags & FD_CLOEXEC)) reset_if_stranded(connection, fd);
  });
  change_holders(-1);
}

void after_failed_exec() { change_holders(+1); }

void before_inheritance(int fd) {
  remember_named(fd);
  spoil(fd, Reason::exec_inherited);
  retreat_if_ours(fd, Reason::exec_inherited);
}

void before_stdio(int fd) {
  spoil(fd, Reason::stdio);
  retreat_if_ours(fd, Reason::stdio);
}

void before_splice(int from, int to) {
  retreat_if_ours(from, Reason::splice);
  retreat_if_ours(to, Reason::splice);
}

void before_libc_uses(int fd) {
  spoil(fd, Reason::by_libc);
  retreat_if_ours(fd, Reason::by_libc);
}

void before_aio(const aiocb* request) {
  if (!unreadable(request)) before_libc_uses(request->aio_fildes);
}

void before_aio_list(const aiocb* const* requests, int count) {
  if (unreadable(requests)) return;
  for (int i = 0; i < count; ++i)
    if (!unreadable(requests[i]) && requests[i]->aio_lio_opcode != LIO_NOP) before_libc_uses(requests[i]->aio_fildes);
}

void before_kernel_aio(long count, const iocb* const* requests) {
  if (unreadable(requests) || descriptors_in_use() == 0) return;
  for (long i = 0; i < count; ++i)
    if (!unreadable(requests[i])) retreat_if_ours(static_cast<int>(requests[i]->aio_fildes), Reason::by_libc);
}

void before_unsharing_descriptors() {
  if (__libc_single_threaded || in_foreign_process()) return;
  refuse_from_now_on(Reason::own_descriptors);
  for_each_connection([](int fd, Connection& connection) { retreat(connection, fd, Reason::own_descriptors); });
}

void before_child_beside(Memory memory) {
  refuse_from_now_on(Reason::child_beside);
  for_each_connection([](int fd, Connection& connection) {
    retreat(connection, fd, Reason::child_beside);
    disown(fd);
  });
  if (memory == Memory::shared) share_this_thread();
}

void before_child_of_other_ids() {
  for_each_connection([](int fd, Connection& connection) { retreat(connection, fd, Reason::child_beside); });
}

void after_streams_replaced() {
  for (int fd = 0; belongs_to_stdio(fd); ++fd) forget_stale(fd);
}

void fold_live_connections() {
  for_each_connection([](int fd, Connection& connection) {
    if (is_reached_lower(fd, connection)) return;
    fold(connection.tally);
    connection.tally = {};
    if (connection.side->upgraded.load(std::memory_order_relaxed)) return;
    count_plain(why_plain(connection));
  });
}

}  // namespace shunt::calls
