// Where epoll sets and registrations live: chunks of raw mmap, never unmapped. Any thread; the slow paths take a lock.
#include <sys/mman.h>

#include <new>

#include "readiness/epoll_set.h"
#include "readiness/family_slots.h"
#include "readiness/readiness.h"
#include "sys/raw.h"

namespace shunt {

FamilyLock registry_lock;

namespace {

constexpr uint32_t kIndexBits = 20;
constexpr uint32_t kGenerationMask = 0xfff;
constexpr uint32_t kPerChunk = 1024;
constexpr uint32_t kChunks = (1u << kIndexBits) / kPerChunk;
constexpr uint32_t kSetsPerChunk = 64;
constexpr uint32_t kSetChunks = 1024;
constexpr uint32_t kNeverFreed = 1u << 30;

std::atomic<Registration*> chunks[kChunks];
Registration* free_registrations;  // linked by next_of_set; under registry_lock
uint32_t registrations_made;       // under registry_lock
FamilySlots<FamilyRecord> records; // under registry_lock

FamilyLock set_pool_lock;
EpollSet* set_chunks[kSetChunks];  // under set_pool_lock
uint32_t sets_made;                // under set_pool_lock
FamilySlots<FamilySet> family_sets;  // under set_pool_lock

std::atomic<uint32_t> cookie;

void* map(size_t bytes) {
  const long address = sys::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return address < 0 && address > -4096 ? nullptr : reinterpret_cast<void*>(address);
}

void choose_cookie() {
  uint32_t random = 0, none = 0;
  if (sys::raw(SYS_getrandom, &random, sizeof random, 0) != sizeof random) random = static_cast<uint32_t>(cycles());
  // 0x8… to 0xb…: neither a user pointer, nor a small number, nor a small negative one.
  cookie.compare_exchange_strong(none, (random & 0x3ffffffeu) | 0x80000000u);
}

template <typename Function>
void for_each_set(Function function) {
  for (uint32_t i = 0; i < sets_made; ++i) function(set_chunks[i / kSetsPerChunk][i % kSetsPerChunk]);
}

// Of a set's earlier life, unless a relative may look at it still.
FamilySet* family_of_new(EpollSet& set) {
  FamilySet* family = set.family;
  if (family && set.shared.load(std::memory_order_relaxed)) family_sets.give_up(family), family = nullptr;
  if (!family) family = family_sets.take();
  if (family) new (family) FamilySet{};
  return family;
}

bool take_reference(EpollSet& set) {
  uint32_t references = set.references.load(std::memory_order_relaxed);
  do
    if (references == 0) return false;
  while (!set.references.compare_exchange_weak(references, references + 1, std::memory_order_acquire));
  return true;
}

}  // namespace

SetUse::SetUse(int epoll_fd) : set_(nullptr) {
  begin(kFate);
  EpollSet* set = epoll_set_of(epoll_fd);
  if (!set || !take_reference(*set)) return;
  if (epoll_set_of(epoll_fd) != set) {
    drop_set(*set);
    return;
  }
  set_ = set;
  if (set->fd.load(std::memory_order_relaxed) != epoll_fd) set->fd.store(epoll_fd, std::memory_order_relaxed);
}

SetUse::~SetUse() {
  done();
  if (set_) drop_set(*set_);
}

void SetUse::undo(Duty& duty) {
  if (EpollSet* set = static_cast<SetUse&>(duty).set_) drop_set(*set);
}

EpollSet* allocate_set() {
  if (cookie.load(std::memory_order_relaxed) == 0) choose_cookie();
  Locked lock(set_pool_lock);
  if (lock.nested()) return nullptr;
  EpollSet* found = nullptr;
  for_each_set([&](EpollSet& set) {
    if (!found && set.references.load(std::memory_order_acquire) == 0) found = &set;
  });
  if (!found) {
    if (sets_made == kSetsPerChunk * kSetChunks) return nullptr;
    EpollSet*& chunk = set_chunks[sets_made / kSetsPerChunk];
    if (!chunk) chunk = static_cast<EpollSet*>(map(sizeof(EpollSet) * kSetsPerChunk));
    if (!chunk) return nullptr;
    found = &chunk[sets_made++ % kSetsPerChunk];
  }
  FamilySet* const family = family_of_new(*found);
  if (!family) return found->family = nullptr, nullptr;
  new (found) EpollSet{};
  found->family = family;
  found->references.store(1, std::memory_order_release);
  return found;
}

// SYNC: release, pairs with the acquire in allocate_set().
void drop_set(EpollSet& set) { set.references.fetch_sub(1, std::memory_order_acq_rel); }

Registration* allocate_registration() {
  if (Registration* found = free_registrations) {
    free_registrations = found->next_of_set;
    return found;
  }
  if (registrations_made == kPerChunk * kChunks - 1) return nullptr;  // the last one is nobody's
  std::atomic<Registration*>& chunk = chunks[registrations_made / kPerChunk];
  if (!chunk.load(std::memory_order_relaxed)) {
    auto* memory = static_cast<Registration*>(map(sizeof(Registration) * kPerChunk));
    if (!memory) return nullptr;
    chunk.store(memory, std::memory_order_release);  // SYNC: pairs with registration_of()
  }
  Registration* made = &chunk.load(std::memory_order_relaxed)[registrations_made % kPerChunk];
  made->index = registrations_made++;
  return made;
}

void free_registration(Registration& registration) {
  registration.generation.fetch_add(1, std::memory_order_relaxed);
  registration.mode.store(Mode::unused, std::memory_order_relaxed);
  registration.set = nullptr;
  if (registration.record) records.give_up(registration.record);
  registration.record = nullptr;
  registration.given_back = false;
  registration.next_of_set = free_registrations;
  free_registrations = &registration;
}

uint64_t tag_of(const Registration& registration) {
  const uint32_t generation = registration.generation.load(std::memory_order_relaxed) & kGenerationMask;
  return static_cast<uint64_t>(cookie.load(std::memory_order_relaxed)) << 32 | generation << kIndexBits |
         registration.index;
}

uint64_t nobodys_tag() { return static_cast<uint64_t>(cookie.load(std::memory_order_relaxed)) << 32 | 0xffffffffu; }

bool is_tag(uint64_t data) { return data >> 32 == cookie.load(std::memory_order_relaxed); }

Registration* registration_of(uint64_t tag, const EpollSet& set) {
  const uint32_t index = static_cast<uint32_t>(tag) & ((1u << kIndexBits) - 1);
  Registration* chunk = chunks[index / kPerChunk].load(std::memory_order_acquire);
  if (!chunk) return nullptr;
  Registration& found = chunk[index % kPerChunk];
  return found.set == &set && tag_of(found) == tag ? &found : nullptr;
}

// What both will share is as the program left it. Whoever is in a section of a set's lock that has not seen it shared is waited for.
void note_sets_shared(bool whole) {
  Locked pool(set_pool_lock);
  for_each_set([whole](EpollSet& set) {
    set.shared.store(true, std::memory_order_relaxed);
    Locked lock(set.lock);
    for (Registration* r = set.members; r && whole && !lock.nested(); r = r->next_of_set) {
      if (r->mode.load(std::memory_order_relaxed) == Mode::dormant) {
        forget_in_kernel(*r);
      } else if (!r->record && !r->given_back && (r->record = records.take())) {
        r->changes = 0;
        const FamilySection introduced(*r);
      }
    }
  });
}

// The other threads of the parent do not exist here, whatever they were doing. Members are whole: registry_lock was
// held.
void reset_sets_in_child(uint32_t parent) {
  set_pool_lock.adopt(parent);
  records.begin_in_child();
  family_sets.begin_in_child();
  for_each_set([parent](EpollSet& set) {
    if (set.family) family_sets.keep(set.family);
    for (Registration* r = set.members; r; r = r->next_of_set)
      if (r->record) records.keep(r->record);
    if (set.references.load() == 0) return;
    set.lock.adopt(parent);
    set.references.store(kNeverFreed);  // this thread may be inside a call
    set.asleep.store(0);
    set.fetching.store(0);
    set.shared.store(true);
    set.inherited.store(true);
    if (set.lock.mine()) return;  // this thread is in the middle of its lists, below its handler
    set.fresh.store(nullptr);
    set.hot_first = set.hot_last = nullptr;
    set.hot_count = 0;
    for (Registration* r = set.members; r; r = r->next_of_set) r->heat.store(Heat::cold);
  });
}

}  // namespace shunt
