// The descriptor table. Any thread, any context; entries change by single atomic instructions.
#include "descriptors/table.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "descriptors/slab.h"
#include "observe/report.h"
#include "sys/raw.h"

namespace shunt {
namespace {

// Zero, a Connection*, or an EpollSet* with the lowest bit set.
using Entry = uintptr_t;
constexpr Entry kEpoll = 1;

std::atomic<Entry> table[kMaxDescriptors];
std::atomic<int> end_of_use{0};
int own_process = 0;

Connection* as_connection(Entry entry) {
  return entry & kEpoll ? nullptr : reinterpret_cast<Connection*>(entry);
}
EpollSet* as_set(Entry entry) { return entry & kEpoll ? reinterpret_cast<EpollSet*>(entry & ~kEpoll) : nullptr; }

bool in_range(int fd) { return static_cast<unsigned>(fd) < static_cast<unsigned>(kMaxDescriptors); }

bool take_reference(Connection& connection) {
  uint32_t references = connection.references.load(std::memory_order_relaxed);
  do
    if (references == 0) return false;
  // SYNC: acquire, pairs with the release in drop_reference().
  while (!connection.references.compare_exchange_weak(references, references + 1, std::memory_order_acquire, std::memory_order_relaxed));
  return true;
}

Reason reason_of(const Connection& connection) {
  const Side& side = *connection.side;
  if (const Reason plain = side.plain.load(); plain != Reason::none) return plain;
  if (!behaviour.offers) return Reason::never;
  if (has_channel(connection)) return Reason::not_attached;
  return side.role == Role::connector ? Reason::no_offer : Reason::short_lived;
}

void end_connection(Connection& connection) {
  if (!connection.side->upgraded.load()) count_plain(reason_of(connection));
  fold(connection.tally);
  note_closed(connection);
  if (const int kept = connection.kept.exchange(-1); kept >= 0) sys::close(kept);
  connection.side->holders.fetch_sub(1);
  free_connection(connection);
}

void drop_reference(Connection& connection) {
  if (connection.references.fetch_sub(1, std::memory_order_acq_rel) == 1) end_connection(connection);
}

bool set_is_elsewhere(const EpollSet* set) {
  for (int fd = 0; fd < end_of_use.load(); ++fd)
    if (as_set(table[fd].load(std::memory_order_relaxed)) == set) return true;
  return false;
}

void drop_entry(Entry entry, int fd) {
  if (Connection* connection = as_connection(entry)) {
    readiness_hooks.descriptor_closed(*connection, fd);
    drop_reference(*connection);
  }
  if (EpollSet* set = as_set(entry); set && !set_is_elsewhere(set)) readiness_hooks.set_closed(set);
}

void put(int fd, Entry entry) {
  int end = end_of_use.load(std::memory_order_relaxed);
  while (end <= fd && !end_of_use.compare_exchange_weak(end, fd + 1)) {
  }
  drop_entry(table[fd].exchange(entry, std::memory_order_acq_rel), fd);
}

uint32_t descriptors_of(const Connection& connection) {
  uint32_t count = 0;
  for (int fd = 0; fd < end_of_use.load(); ++fd)
    if (as_connection(table[fd].load(std::memory_order_relaxed)) == &connection) ++count;
  return count;
}

constexpr int kKeptBelowLimit = 64;  // far from the numbers that programs expect

// Another thread sleeps in a call. One that was cancelled has gone without a word, and one that jumped out of the call may be the caller.
bool somebody_sleeps(const Connection& connection) {
  for (const std::atomic<uint32_t>& sleeper : connection.sleepers)
    if (const uint32_t id = sleeper.load(); id != 0 && id != thread_id() && sys::raw(SYS_tkill, id, 0) == 0) return true;
  return false;
}

// A call of another thread keeps the file that it began with: it is asleep, and will use its number again.
void keep_open(Connection& connection, int fd) {
  if (connection.references.load() <= 1 || connection.kept.load() >= 0 || !somebody_sleeps(connection)) return;
  rlimit limit{};
  sys::raw(SYS_prlimit64, 0, RLIMIT_NOFILE, nullptr, &limit);
  const long highest = static_cast<long>(min_of<rlim_t>(limit.rlim_cur, kMaxDescriptors));
  long kept = sys::raw(SYS_fcntl, fd, F_DUPFD_CLOEXEC, highest > 2 * kKeptBelowLimit ? highest - kKeptBelowLimit : highest / 2);
  int none = -1;
  if (kept >= 0 && !connection.kept.compare_exchange_strong(none, static_cast<int>(kept), std::memory_order_release)) sys::close(static_cast<int>(kept));
}

}  // namespace

bool is_connection(int fd) {
  return in_range(fd) && as_connection(table[fd].load(std::memory_order_relaxed)) != nullptr;
}

Pin::Pin(int fd) : connection_(nullptr) {
  if (!in_range(fd)) return;
  for (;;) {
    const Entry entry = table[fd].load(std::memory_order_acquire);
    Connection* connection = as_connection(entry);
    if (!connection) return;
    if (!take_reference(*connection)) {
      if (table[fd].load(std::memory_order_acquire) == entry) return;
      continue;
    }
    if (table[fd].load(std::memory_order_acquire) == entry) {
      connection_ = connection;
      return;
    }
    drop_reference(*connection);
  }
}

Pin::~Pin() {
  if (connection_) drop_reference(*connection_);
}

EpollSet* epoll_set_of(int fd) { return in_range(fd) ? as_set(table[fd].load(std::memory_order_acquire)) : nullptr; }

void enter_connection(int fd, Role role, const Bits& bits, bool nonblocking) {
  if (!in_range(fd)) return;
  Connection* connection = allocate_connection();
  if (connection) {
    Side& side = *connection->side;
    side.role = role;
    side.chaos.store((static_cast<uint64_t>(fd) << 1 | (role == Role::acceptor)) << 32, std::memory_order_relaxed);
    side.bits = bits;
    side.nonblocking.store(nonblocking);
    if (!behaviour.offers && role == Role::acceptor) side.plain.store(Reason::never);
    put(fd, reinterpret_cast<Entry>(connection));
  } else {
    count_plain(Reason::no_resources);
    put(fd, 0);
  }
}

void count_plain(Reason reason) { count(totals.plain[static_cast<uint32_t>(reason)]); }

void enter_epoll_set(int fd, EpollSet* set) {
  if (in_range(fd)) put(fd, set ? reinterpret_cast<Entry>(set) | kEpoll : 0);
}

void note_duplicate(int from, int to) {
  if (!in_range(to) || from == to) return;
  Entry entry = in_range(from) ? table[from].load(std::memory_order_acquire) : 0;
  if (Connection* connection = as_connection(entry); connection && !take_reference(*connection)) entry = 0;
  if (entry != 0 || table[to].load(std::memory_order_relaxed) != 0) put(to, entry);
}

Closing::Closing(int fd) : fd_(fd), entry_(0) {
  if (!in_range(fd)) return;
  if (Connection* connection = as_connection(table[fd].load(std::memory_order_relaxed))) keep_open(*connection, fd);
  entry_ = table[fd].exchange(0, std::memory_order_acq_rel);
}
Closing::~Closing() {
  if (entry_) drop_entry(entry_, fd_);
}

namespace {

// A socket's number in the kernel; 0: not open.
uint64_t file_of(int fd) {
  struct stat status {};
  return sys::raw(SYS_fstat, fd, &status) == 0 ? status.st_ino : 0;
}

}  // namespace

bool leave_ring(Connection& connection, int fd, Reason reason) {
  const uint64_t file = file_of(fd);
  if (!retreat(connection, fd, reason)) return false;
  for (int other = 0; other < end_of_use.load(); ++other) {
    // In a vfork child the number may have become something else.
    if (other == fd || as_connection(table[other].load(std::memory_order_relaxed)) != &connection || file_of(other) != file) continue;
    sys::raw(SYS_dup3, fd, other, sys::raw(SYS_fcntl, other, F_GETFD) & FD_CLOEXEC ? O_CLOEXEC : 0);
  }
  return true;
}

int descriptors_in_use() { return end_of_use.load(std::memory_order_relaxed); }

bool in_foreign_process() { return own_process != 0 && sys::process_id() != own_process; }

void note_process() { own_process = sys::process_id(); }

void before_fork() { lock_slabs_before_fork(); }

void after_fork_in_parent() { unlock_slabs_in_parent(); }

void after_fork_in_child() {
  forget_thread_id();
  forget_random_bits();
  reset_totals();
  note_process();
  adopt_slabs_in_child(descriptors_of);
}

}  // namespace shunt
