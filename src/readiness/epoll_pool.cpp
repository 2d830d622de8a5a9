// Where epoll sets and registrations live: chunks of raw mmap, never unmapped. Any thread; the slow paths take a lock.
#include <sys/mman.h>

#include <new>

#include "readiness/epoll_set.h"
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
uint64_t process_of_requests;      // in the upper half of their numbers; 0 until this process was forked

FamilyLock set_pool_lock;
EpollSet* set_chunks[kSetChunks];  // under set_pool_lock
uint32_t sets_made;                // under set_pool_lock

std::atomic<uint32_t> cookie;

void* map(size_t bytes, int sharing = MAP_PRIVATE) {
  const long address = sys::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, sharing | MAP_ANONYMOUS, -1, 0);
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
  new (found) EpollSet{};
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
  if (registrations_made == kPerChunk * kChunks) return nullptr;
  std::atomic<Registration*>& chunk = chunks[registrations_made / kPerChunk];
  if (!chunk.load(std::memory_order_relaxed)) {
    auto* memory = static_cast<Registration*>(map(sizeof(Registration) * kPerChunk));
    if (!memory) return nullptr;
    auto* family = static_cast<FamilyRecord*>(map(sizeof(FamilyRecord) * kPerChunk, MAP_SHARED));
    for (uint32_t i = 0; family && i < kPerChunk; ++i) memory[i].family = &family[i];
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
  registration.next_of_set = free_registrations;
  free_registrations = &registration;
}

uint64_t tag_of(const Registration& registration) {
  const uint32_t generation = registration.generation.load(std::memory_order_relaxed) & kGenerationMask;
  return static_cast<uint64_t>(cookie.load(std::memory_order_relaxed)) << 32 | generation << kIndexBits |
         registration.index;
}

bool is_tag(uint64_t data) { return (data & ~kOneShotTag) >> 32 == cookie.load(std::memory_order_relaxed); }

Registration* registration_of(uint64_t tag, const EpollSet& set) {
  const uint32_t index = static_cast<uint32_t>(tag) & ((1u << kIndexBits) - 1);
  Registration* chunk = chunks[index / kPerChunk].load(std::memory_order_acquire);
  if (!chunk) return nullptr;
  Registration& found = chunk[index % kPerChunk];
  return found.set == &set && tag_of(found) == (tag & ~kOneShotTag) ? &found : nullptr;
}

void forget_dormant_in_kernel() {
  Locked pool(set_pool_lock);
  for_each_set([](EpollSet& set) {
    Locked lock(set.lock);
    for (Registration* r = set.members; r; r = r->next_of_set)
      if (r->mode.load(std::memory_order_relaxed) == Mode::dormant) forget_in_kernel(*r);
  });
}

void note_sets_shared() {
  Locked pool(set_pool_lock);
  for_each_set([](EpollSet& set) { set.shared.store(true, std::memory_order_relaxed); });
}

uint64_t next_request(uint64_t request) { return process_of_requests << 32 | static_cast<uint32_t>(request + 1); }

// The other threads of the parent do not exist here, whatever they were doing. Members are whole: registry_lock was
// held.
void reset_sets_in_child(uint32_t parent) {
  set_pool_lock.adopt(parent);
  process_of_requests = static_cast<uint32_t>(sys::process_id());
  for_each_set([parent](EpollSet& set) {
    if (set.references.load() == 0) return;
    set.lock.adopt(parent);
    set.references.store(kNeverFreed);  // this thread may be inside a call
    set.asleep.store(0);
    set.shared.store(true);
    set.inherited.store(true);
    set.emptied.store(false);
    if (set.lock.mine()) return;  // this thread is in the middle of its lists, below its handler
    set.fresh.store(nullptr);
    set.hot_first = set.hot_last = nullptr;
    set.hot_count = 0;
    for (Registration* r = set.members; r; r = r->next_of_set) r->heat.store(Heat::cold);
  });
}

}  // namespace shunt
