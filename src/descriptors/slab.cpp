// Slab allocation. Raw mmap only; a bitmap per slab, changed by single atomic instructions: a signal handler allocates inside its thread's section, too.
#include "descriptors/slab.h"

#include <cstring>
#include <new>
#include <sys/mman.h>

#include "agreement/offer.h"
#include "connection/lock.h"
#include "connection/upgrade.h"
#include "sys/raw.h"

namespace shunt {
namespace {

constexpr size_t kSlots = 64;
constexpr size_t kSlabs = 4096;
constexpr size_t kSideBytes = (sizeof(Side) * kSlots + 4095) / 4096 * 4096;

struct Slab {
  std::atomic<uint64_t> taken;    // in use or retired
  std::atomic<uint64_t> retired;  // not in use here, but perhaps in a forked relative
  std::atomic<bool> inherited;    // made by a parent process: nothing is allocated from it
  Side* sides;
  Connection connections[kSlots];
};

std::atomic<Slab*> slabs[kSlabs];
std::atomic<size_t> slab_count;
FamilyLock slab_lock;
// By lock_slabs_before_fork(), and not by what a handler that was not held back has interrupted.
struct {
  bool upgrades, slabs;
} taken_for_fork;
std::atomic<uint32_t> forks;           // so far; under slab_lock
thread_local uint32_t fork_of_thread;  // number of the last one, until its outcome is known

void* map(size_t bytes, int flags, void* where) {
  const long address = sys::mmap(where, bytes, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
  return address < 0 && address > -4096 ? nullptr : reinterpret_cast<void*>(address);
}

Connection* take_slot(Slab& slab) {
  uint64_t taken = slab.taken.load(std::memory_order_relaxed);
  while (~taken != 0) {
    const int slot = __builtin_ctzll(~taken);
    // SYNC: acquire, pairs with the release in free_connection().
    if (slab.taken.compare_exchange_weak(taken, taken | uint64_t{1} << slot, std::memory_order_acquire))
      return &slab.connections[slot];
  }
  return nullptr;
}

// Empty in a child that was made past libc: to it the slabs are a copy, and its sides its parent's.
constinit std::atomic<uint8_t*> canary{nullptr};

void keep_canary() {
  if (canary.load(std::memory_order_relaxed)) return;
  auto* page = static_cast<uint8_t*>(map(4096, MAP_PRIVATE, nullptr));
  if (!page) return;
  *page = 1;
  if (sys::raw(SYS_madvise, page, 4096, MADV_WIPEONFORK) != 0) *page = 0;  // then it is always asked
  canary.store(page, std::memory_order_release);
}

Slab* add_slab() {
  const size_t index = slab_count.load();
  if (index == kSlabs) return nullptr;
  auto* memory = map(sizeof(Slab), MAP_PRIVATE, nullptr);
  if (!memory) return nullptr;
  auto* slab = new (memory) Slab{};
  slab->sides = static_cast<Side*>(map(kSideBytes, MAP_SHARED, nullptr));
  if (!slab->sides) return sys::munmap(memory, sizeof(Slab)), nullptr;
  uint8_t* const headers = reserve_headers(kSlots);
  for (size_t i = 0; i < kSlots; ++i) {
    slab->connections[i].side = &slab->sides[i];
    slab->connections[i].header_place = headers ? headers + i * kHeaderBytes : nullptr;
  }
  keep_canary();
  slabs[index].store(slab);
  slab_count.store(index + 1);
  return slab;
}

Slab& slab_of(const Connection& connection, uint64_t& bit) {
  for (size_t i = 0; i < slab_count.load(); ++i) {
    Slab& slab = *slabs[i].load();
    if (&connection >= slab.connections && &connection < slab.connections + kSlots) {
      bit = uint64_t{1} << (&connection - slab.connections);
      return slab;
    }
  }
  __builtin_unreachable();
}

// Gives a slab without live connections fresh sides; the old pages stay with the relatives that still map them.
void renew_if_unused(Slab& slab) {
  Locked lock(slab_lock);
  if (lock.nested()) return;
  const uint64_t taken = slab.taken.load();
  if (taken != slab.retired.load() || (!slab.inherited.load() && ~taken != 0)) return;
  slab.taken.store(~uint64_t{0});
  if (!map(kSideBytes, MAP_SHARED | MAP_FIXED, slab.sides)) return;  // stays retired
  slab.retired.store(0);
  slab.inherited.store(false);
  slab.taken.store(0);
}

template <typename Function>
void for_each_live(Function function) {
  for (size_t i = 0; i < slab_count.load(); ++i)
    for (Connection& connection : slabs[i].load()->connections)
      if (connection.references.load() > 0) function(connection);
}

}  // namespace

// A fork either counts the new connection as shared, or comes later: nothing may appear in the child's table that nobody has counted.
Connection* allocate_connection() {
  Locked lock(slab_lock);
  Connection* connection = nullptr;
  for (size_t i = 0; i < slab_count.load() && !connection; ++i)
    if (Slab& slab = *slabs[i].load(); !slab.inherited.load()) connection = take_slot(slab);
  if (!connection) {
    if (lock.nested()) return nullptr;
    Slab* slab = add_slab();
    if (!slab) return nullptr;
    connection = take_slot(*slab);
    if (!connection) return nullptr;
  }
  Side* side = connection->side;
  new (side) Side{};
  side->holders.store(1);
  connection->channel.store(nullptr);
  connection->in = connection->out = nullptr;
  connection->changing.store(false);
  connection->stand_in.store(0);
  connection->shared_over_fork.store(false);
  connection->first_fork.store(forks.load() + 1);
  connection->registrations.store(nullptr);
  connection->sets_want_space.store(false);
  connection->relayed.store(false);
  connection->lends_ids.store(false);
  connection->tally = {};
  connection->data_history = connection->space_history = {};
  connection->references.store(1);
  return connection;
}

void free_connection(Connection& connection) {
  uint64_t bit;
  Slab& slab = slab_of(connection, bit);
  if (slab.inherited.load() || connection.shared_over_fork.load()) {
    slab.retired.fetch_or(bit);
    renew_if_unused(slab);
  } else {
    slab.taken.fetch_and(~bit, std::memory_order_release);  // SYNC: pairs with take_slot()
  }
}

void lock_slabs_before_fork() {
  const bool upgrades = upgrade_lock.lock() == FamilyLock::Held::taken;
  taken_for_fork = {upgrades, slab_lock.lock() == FamilyLock::Held::taken};
  fork_of_thread = forks.fetch_add(1) + 1;
  for_each_live([](Connection& connection) {
    connection.shared_over_fork.store(true);
    connection.side->holders.fetch_add(1);
  });
}

void unlock_slabs_in_parent(Born born) {
  if (born == Born::no) discount_fork();
  const auto taken = taken_for_fork;
  if (taken.slabs) slab_lock.unlock();
  if (taken.upgrades) upgrade_lock.unlock();
}

void expect_fork() { fork_of_thread = 0; }

// What has been closed since has a retired slot, and what has come since was not counted.
void discount_fork() {
  const uint32_t fork = fork_of_thread;
  if (fork == 0) return;
  Locked lock(slab_lock);
  for_each_live([fork](Connection& connection) {
    if (connection.first_fork.load() <= fork) connection.side->holders.fetch_sub(1);
  });
  fork_of_thread = 0;
}

bool slabs_were_copied() {
  if (slab_count.load(std::memory_order_relaxed) == 0) return false;
  const uint8_t* page = canary.load(std::memory_order_acquire);
  return !page || *static_cast<const volatile uint8_t*>(page) == 0;
}

void adopt_slabs_in_child(uint32_t parent, uint32_t (*in_use)(const Connection&)) {
  fork_of_thread = 0;
  if (uint8_t* page = canary.load(std::memory_order_relaxed)) *page = 1;
  slab_lock.adopt(taken_for_fork.slabs ? 0 : parent);
  upgrade_lock.adopt(taken_for_fork.upgrades ? 0 : parent);
  for (size_t i = 0; i < slab_count.load(); ++i) {
    Slab& slab = *slabs[i].load();
    uint64_t live = 0;
    for (size_t slot = 0; slot < kSlots; ++slot) {
      Connection& connection = slab.connections[slot];
      const uint32_t references = in_use(connection);  // other threads of the parent, and what they were inside of, do not exist here
      connection.references.store(references);
      close_stand_in(connection);
      connection.tally = {};
      if (references > 0) live |= uint64_t{1} << slot;
    }
    slab.inherited.store(true);
    slab.taken.store(~uint64_t{0});
    slab.retired.store(~live);
    if (live == 0) renew_if_unused(slab);
  }
}

}  // namespace shunt
