// What the library remembers of an epoll set: the program's interest in connections of ours. The set itself stays the
// kernel's. Two locks: registry_lock (who is registered where), then the set's lock (interest and heat), then a
// connection's locks. No lock is held while sleeping or spinning. Sets and registrations are type-stable: a stale
// pointer meets another generation.
#pragma once

#include "descriptors/table.h"

namespace shunt {

struct EpollSet;

// What the kernel's registration holds.
enum class Mode : uint8_t {
  unused,   // this record is free
  native,   // what the program asked for: the kernel's answers are right
  tagged,   // bells and hang-ups, edge triggered, with a tag for data: answers come from memory
  dormant,  // the program's ended; the kernel's, a tagged one, is kept because loops like to come back (if `asked`)
};

// When a registration is looked at.
enum class Heat : uint8_t {
  cold,    // armed, or without interest: after the kernel's next event only
  queued,  // in EpollSet::fresh
  hot,     // in the set's hot list: at every wait
};

// Reasons for an edge that the glance does not show: poll bits, and this one: added or modified since.
inline constexpr uint32_t kEdgeOfRequest = 1u << 31;

// Of a set that is shared over a fork the kernel has one registration for all processes, and each of them a record. In memory that the family
// shares: which request has been given back to the kernel, or has fired, in one of them, and the latest that one of them made.
struct FamilyRecord {
  FamilyLock lock;  // the rest is under it; a look at `spent` without it is a hint
  uint64_t spent;
  uint64_t latest;
  uint64_t latest_data;
  uint32_t latest_events;
};

struct Registration {
  FamilyRecord* family;  // of this record for good; null: no memory
  // Changed under both locks.
  EpollSet* set;
  Connection* connection;
  int fd;      // the kernel's name for it
  int handle;  // a descriptor of the connection that is open: fd, or a duplicate that outlived it
  uint32_t index;
  std::atomic<uint32_t> generation;
  Registration* next_of_connection;
  Registration* next_of_set;
  uint32_t pass;  // of leave_all()

  // Under the set's lock.
  std::atomic<Mode> mode;
  uint32_t events;  // the program's
  uint64_t data;    // the program's
  uint64_t request; // the program's latest: unique in the family for this record
  bool spent_here;  // it fired from memory, in this process
  bool fired;       // EPOLLONESHOT: reported, disabled until modified
  bool kicked;      // the kernel's registration asks for EPOLLOUT only to wake somebody
  bool knew_rings;  // both directions were on rings at the kernel's last event
  uint32_t ended;   // the ends that the kernel has told of: edges, so it tells again only if it is asked again
  uint32_t seen;    // the ends that the last look saw
  uint32_t foretold;  // the ends that the program was told of before the kernel has told us: its edge is no news
  uint32_t asked;   // the events that the kernel was last told; 0: it has no registration
  Glance reported;  // of an edge-triggered one: the state last reported
  Glance looked;    // the state last looked at
  Registration* hot_next;
  Registration* hot_previous;

  std::atomic<uint32_t> edges;
  std::atomic<Heat> heat;
  Registration* next_fresh;
};

struct EpollSet {
  FamilyLock lock;
  std::atomic<uint32_t> references;  // the table, and threads inside a call
  std::atomic<uint32_t> asleep;      // threads in the kernel's sleep. SYNC: seq_cst, Dekker pair with epoch
  std::atomic<uint32_t> epoch;       // grows when a registration gets hot. SYNC: seq_cst, Dekker pair with asleep
  std::atomic<uint32_t> tagged;      // registrations in that mode
  std::atomic<Registration*> fresh;  // a stack that anybody may push to; taken as a whole under the lock
  Registration* hot_first;           // under the lock
  Registration* hot_last;
  uint32_t hot_count;
  bool memory_first;      // who may fill the caller's array first: changes when somebody filled it
  Registration* members;  // under registry_lock
  uint32_t pass;
  std::atomic<int> fd;          // a descriptor of the set, as last used
  int creator;                  // process id
  std::atomic<bool> shared;     // made before a fork, on either side of it
  std::atomic<bool> inherited;  // made before a fork, and the creator may still use it
  std::atomic<bool> emptied;    // inherited: its connections went back to the kernel
  std::atomic<bool> watched;    // by poll, select or another epoll set: holds native registrations only
  History history;
};

extern FamilyLock registry_lock;

// ---- records (epoll_pool.cpp)

// A reference to the set behind a descriptor, for one call. Empty if it is not a set that we know.
class SetUse : Duty {
 public:
  explicit SetUse(int epoll_fd);
  ~SetUse();
  SetUse(const SetUse&) = delete;
  SetUse& operator=(const SetUse&) = delete;
  explicit operator bool() const { return set_ != nullptr; }
  EpollSet& operator*() const { return *set_; }
  EpollSet* operator->() const { return set_; }

 private:
  static void undo(Duty& duty);
  static constexpr Fate kFate{undo, undo};
  EpollSet* set_;
};

EpollSet* allocate_set();
void drop_set(EpollSet& set);
Registration* allocate_registration();               // under registry_lock, not nested
void free_registration(Registration& registration);  // the same

// A tag cannot be told from the program's data by the kernel, so its upper half is random and no pointer or small
// number.
uint64_t tag_of(const Registration& registration);
inline constexpr uint64_t kOneShotTag = 1ull << 32;  // set in the tag of a native registration
bool is_tag(uint64_t data);
Registration* registration_of(uint64_t tag, const EpollSet& set);  // null: of an earlier life

void forget_dormant_in_kernel();  // in all sets; under registry_lock
void note_sets_shared();
uint64_t next_request(uint64_t request);
void reset_sets_in_child(uint32_t parent);

// ---- heat (epoll_heat.cpp)

void mark_hot(Registration& registration);  // any thread, no lock needed
void heat_up(Registration& registration);   // the same, and keeps others from going to sleep without a look
void take_fresh(EpollSet& set);             // under the set's lock, not nested, as the three below
void append_hot(EpollSet& set, Registration& registration);
void cool(EpollSet& set, Registration& registration);
void rotate(EpollSet& set, Registration& registration);

// The poll bits to report it with now; 0: nothing. `now` becomes the state that was looked at. Under the set's lock.
uint32_t due(Registration& registration, Glance& now);

// Arms all hot registrations, which become cold, except those found due or needing slices.
struct ArmedSet {
  bool due, slices;
  uint32_t epochs;  // by how much the set's epoch grew
};
ArmedSet arm_hot(EpollSet& set);
// For a thread that leaves a set in which others sleep: nothing may be left without somebody to watch it.
void hand_over(EpollSet& set);

// ---- the kernel's registration (epoll_mode.cpp); under the set's lock, results as epoll_ctl's

enum class Kick : uint8_t { no, yes };
// −EBADF also if a change would meet another file, because the number it was registered by has been closed.
long tell_kernel(Registration& registration, int epoll_fd, int operation, Kick kick);
// The kernel's readability is about bells.
bool incoming_on_ring(const Connection& connection);
// True if the kernel need not hear of the present request: what it holds serves it as well.
bool kernel_serves(const Registration& registration);
// Ends the kernel's registration: of a dormant one, or before it begins anew.
void forget_in_kernel(Registration& registration);
// So it was, but the program's goes on: disabled, as one that has fired.
inline bool ended_in_kernel(const Registration& registration) {
  return registration.asked == 0 && registration.fired && registration.mode.load(std::memory_order_relaxed) != Mode::dormant;
}
// A process of the family has done what switch_to_native() does, or has told its program of a one-shot event.
bool spent(const Registration& registration);
inline bool spent_elsewhere(const Registration& registration) { return spent(registration) && !registration.spent_here; }
// False: not from memory, it is spent or there is a later one.
bool may_fire(Registration& registration);
// After a request of the program's. / Takes over one that another process has made since.
void note_request_in_family(Registration& registration);
void follow_family(Registration& registration);
// The kernel holds another process's tag for what has gone back to the kernel: gives it back in its place.
void give_back_for_family(Registration& registration);
void switch_to_tagged(Registration& registration, int epoll_fd, Kick kick);
void switch_to_native(Registration& registration);
int descriptor_of(EpollSet& set);  // −1: none is open

// ---- sets that others may wait on (epoll_family.cpp)

void note_set_watched(int epoll_fd);
// A set inherited over a fork: adopts it if its creator is gone, else gives its connections back to the kernel.
void settle_inherited(EpollSet& set);
void leave(Connection& connection, int fd, Reason reason);

}  // namespace shunt
