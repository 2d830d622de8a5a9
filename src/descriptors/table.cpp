// The descriptor table. Any thread, any context; entries change by single atomic instructions.
#include "descriptors/table.h"

#include <fcntl.h>

#include "connection/evidence.h"
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
std::atomic<bool> may_be_foreign{false};  // a child shares numbers or memory, and runs beside this process
thread_local bool vforks = false;         // this thread called vfork(): its child may be the one that asks

// Numbers of ours that a vfork child, which runs on this thread's memory, has given another meaning.
struct ForeignNumbers {
  static constexpr int kMost = 16;  // with more, none is ours there
  int process;                      // the child; its parent, or the next child, finds it gone
  int count;
  int fds[kMost];
};
thread_local ForeignNumbers foreign;
thread_local bool runs_beside = false;  // a child, or several, on this thread's memory: there no number is ours

// Connections that another process, which shares the numbers, may close or replace, and that cannot be disowned: the files they are.
struct Kept {
  static constexpr int kMost = 64;
  std::atomic<int> count;
  struct {
    int fd;
    uint64_t file;
  } list[kMost];
};
Kept kept;

bool was_replaced(int fd) {
  for (int i = kept.count.load(std::memory_order_acquire) - 1; i >= 0; --i)
    if (kept.list[i].fd == fd) return kept.list[i].file != sys::file_of(fd);
  return false;
}

bool is_foreign(int fd) {
  if (runs_beside && sys::process_id() != own_process) return true;
  if (was_replaced(fd)) return true;
  if (foreign.process != sys::process_id()) {
    foreign.count = 0;
    return false;
  }
  for (int i = 0; i < min_of(foreign.count, ForeignNumbers::kMost); ++i)
    if (foreign.fds[i] == fd) return true;
  return foreign.count > ForeignNumbers::kMost;
}

bool given_away(int fd) { return (foreign.count != 0 || may_be_foreign.load(std::memory_order_relaxed)) && is_foreign(fd); }

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

void end_connection(Connection& connection) {
  if (!connection.side->upgraded.load()) count_plain(why_plain(connection));
  fold(connection.tally);
  if (const int own = open_fd(connection, -1); own >= 0) take_last_bells(connection, own);
  note_closed(connection);
  close_stand_in(connection);
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

}  // namespace

Reason why_plain(const Connection& connection) {
  const Side& side = *connection.side;
  if (const Reason plain = side.plain.load(); plain != Reason::none) return plain;
  if (!behaviour.offers) return Reason::never;
  if (has_channel(connection)) return Reason::not_attached;
  return reason_without_offer(connection);
}

bool is_connection(int fd) {
  return in_range(fd) && as_connection(table[fd].load(std::memory_order_relaxed)) != nullptr && !given_away(fd);
}

Pin::Pin(int fd) : connection_(nullptr), fd_(fd) {
  begin(kFate);
  if (!in_range(fd) || given_away(fd)) return;
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
  done();
  if (connection_) drop_reference(*connection_);
}

void Pin::undo(Duty& duty) {
  const auto& self = static_cast<Pin&>(duty);
  if (!self.connection_) return;
  ring_if_owed(*self.connection_, self.fd_);
  drop_reference(*self.connection_);
}

EpollSet* epoll_set_of(int fd) { return in_range(fd) ? as_set(table[fd].load(std::memory_order_acquire)) : nullptr; }

void enter_connection(int fd, Role role, bool nonblocking) {
  if (!in_range(fd)) return;
  Connection* connection = allocate_connection();
  if (connection) {
    Side& side = *connection->side;
    side.role = role;
    side.chaos.store((static_cast<uint64_t>(fd) << 1 | (role == Role::acceptor)) << 32, std::memory_order_relaxed);
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
  begin(kFate);
  if (in_range(fd)) entry_ = table[fd].exchange(0, std::memory_order_acq_rel);
  Connection* connection = as_connection(entry_);
  if (!connection) return;
  const uint32_t references = connection->references.load(std::memory_order_acquire);
  if (references > 1 && references - 1 > descriptors_of(*connection)) keep_open(*connection, fd);
}
Closing::~Closing() {
  done();
  if (entry_) drop_entry(entry_, fd_);
}

// close(2) is a cancellation point, and acts before it closes: the program still has the descriptor.
void Closing::undo(Duty& duty) {
  const auto& self = static_cast<Closing&>(duty);
  if (!self.entry_) return;
  Entry nothing = 0;
  if (sys::raw(SYS_fcntl, self.fd_, F_GETFD) < 0 || !table[self.fd_].compare_exchange_strong(nothing, self.entry_)) drop_entry(self.entry_, self.fd_);
}

int descriptors_in_use() { return end_of_use.load(std::memory_order_relaxed); }

bool in_foreign_process() {
  const bool foreign = own_process != 0 && sys::process_id() != own_process;
  if (!foreign) vforks = false;
  return foreign;
}

bool may_be_foreign_process() {
  if (!vforks && !may_be_foreign.load(std::memory_order_relaxed) && !slabs_were_copied()) return false;
  return in_foreign_process();
}

namespace {

// What its table entry stands for is more than a count: without it the program could meet what is the library's.
bool is_needed(Entry entry) {
  if (as_set(entry)) return true;
  const Connection* connection = as_connection(entry);
  if (!connection) return false;
  return has_channel(*connection) || awaits_offer(*connection);
}

}  // namespace

bool in_foreign_process(int fd) {
  const bool needed = in_range(fd) && is_needed(table[fd].load(std::memory_order_relaxed));
  return needed ? in_foreign_process() : may_be_foreign_process();
}

void note_vfork() { vforks = true; }

void note_foreign_number(int fd) {
  if (is_foreign(fd) || foreign.count > ForeignNumbers::kMost) return;  // and a child that ended has made the list empty
  foreign.process = sys::process_id();
  if (foreign.count < ForeignNumbers::kMost) foreign.fds[foreign.count] = fd;
  ++foreign.count;
}

void disown(int fd) {
  if (!in_range(fd)) return;
  Entry entry = table[fd].load(std::memory_order_acquire);
  Connection* connection = as_connection(entry);
  // An offer that has not come yet must not be met by the program.
  const auto is_kernels_own = [](const Connection& c) {
    if (!has_channel(c)) return !awaits_offer(c);
    return c.relayed.load() || (c.side->in_flow.load() == Flow::kernel_again && c.side->out_flow.load() == Flow::kernel_again &&
                                c.side->left_end.load() == 0 && !withholds_reset(c));
  };
  if (!connection) return;
  if (const int count = kept.count.load(); !is_kernels_own(*connection) && count < Kept::kMost) {
    kept.list[count] = {fd, sys::file_of(fd)};
    kept.count.store(count + 1, std::memory_order_release);
    may_be_foreign.store(true, std::memory_order_relaxed);
    return;
  }
  if (!table[fd].compare_exchange_strong(entry, 0)) return;
  if (descriptors_of(*connection) == 0) {
    if (!connection->side->upgraded.load()) count_plain(why_plain(*connection));
    fold(connection->tally);
    connection->tally = {};
  }
}

void share_this_thread() {
  duties.shared = runs_beside = true;
  may_be_foreign.store(true, std::memory_order_relaxed);
  stop_caching_thread_id();
}

namespace {

void replace_others(const Connection& connection, int fd, uint64_t file) {
  for (int other = 0; other < end_of_use.load(); ++other) {
    // In a vfork child the number may have become something else.
    if (other == fd || as_connection(table[other].load(std::memory_order_relaxed)) != &connection || sys::file_of(other) != file) continue;
    sys::raw(SYS_dup3, fd, other, sys::raw(SYS_fcntl, other, F_GETFD) & FD_CLOEXEC ? O_CLOEXEC : 0);
  }
}

}  // namespace

void note_process() {
  own_process = sys::process_id();
  replace_duplicates = replace_others;
}

// References that the calls hold which this thread is inside of.
uint32_t calls_on(const Connection& connection) {
  uint32_t count = 0;
  for_each_duty([&](Duty& duty, const void* fate) {
    if (fate == &Pin::kFate) count += static_cast<Pin&>(duty).connection_ == &connection;
    if (fate == &Closing::kFate) count += as_connection(static_cast<Closing&>(duty).entry_) == &connection;
  });
  return count;
}

void before_fork() { lock_slabs_before_fork(); }

void after_fork_in_parent(Born born) { unlock_slabs_in_parent(born); }

void after_fork_in_child(uint32_t parent) {
  runs_beside = false;
  reset_totals();
  note_process();
  adopt_slabs_in_child(parent, [](const Connection& connection) { return descriptors_of(connection) + calls_on(connection); });
}

}  // namespace shunt
