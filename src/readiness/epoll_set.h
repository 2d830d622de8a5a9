// What the library remembers of an epoll set: the program's interest in connections of ours. The set itself stays the
// kernel's. Two locks: registry_lock (who is registered where), then the set's lock (interest and heat), then a
// connection's locks. No lock is held while sleeping or spinning. Sets and registrations are type-stable: a stale
// pointer meets another generation.
#pragma once

#include <optional>

#include "descriptors/table.h"
#include "readiness/epoll_words.h"

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

// A registration as those who share the set over a fork know it: of each that was there at the fork, in memory that they share. What the kernel
// holds for it changes in one section with this (FamilySection).
struct FamilyRecord {
  Mode mode;         // unused: deleted, or given back for good; the kernel alone knows the rest
  bool fired;        // the other fields: as in Registration
  uint32_t changes;  // how often this has changed
  uint32_t events;
  uint32_t asked;
  uint64_t data;
};

struct Registration {
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
  FamilyRecord* record;  // null: it was there at no fork
  uint32_t changes;      // those of the record that are known here
  bool given_back;  // for good: the kernel holds the program's own words, and what it says of them is right; or it was deleted by another process
  bool fired;       // EPOLLONESHOT: reported, disabled until modified
  bool doubtful;    // EPOLLONESHOT, native: whether it has fired is not known, because it was modified while somebody may have fetched its event
  bool told_here;   // since the program's last request a wait of this process has told of it
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

// A set, as those know it who share it over a fork, or may one day.
struct alignas(64) FamilySet {
  FamilyLock lock;  // the records; after the set's lock
  std::atomic<uint32_t> owner;   // the process that may answer from memory
  std::atomic<bool> kernels;     // somebody else uses the set: the kernel alone answers, for good. SYNC: seq_cst, Dekker pair with asleep
  std::atomic<uint32_t> asleep;  // threads in the kernel's sleep whose process has not given back everything yet. SYNC: seq_cst
};

struct EpollSet {
  FamilyLock lock;
  std::atomic<uint32_t> references;  // the table, and threads inside a call
  std::atomic<uint32_t> asleep;      // threads in the kernel's sleep. SYNC: seq_cst, Dekker pair with epoch
  std::atomic<uint32_t> epoch;       // grows when a registration gets hot. SYNC: seq_cst, Dekker pair with asleep
  std::atomic<uint32_t> tagged;      // registrations in that mode
  std::atomic<uint32_t> followed;    // registrations in any mode
  std::atomic<bool> one_shots;       // there has been one with EPOLLONESHOT
  std::atomic<uint32_t> fetching;    // threads between a question to the kernel and their look at its answer
  Words words;                       // under the lock
  std::atomic<Registration*> fresh;  // a stack that anybody may push to; taken as a whole under the lock
  Registration* hot_first;           // under the lock
  Registration* hot_last;
  uint32_t hot_count;
  bool kernel_first;      // who may fill the caller's array first: changes when somebody filled it
  std::atomic<uint8_t> kernels_turns;  // > 0: the kernel has told something of its own lately. A hint
  Registration* members;  // under registry_lock
  uint32_t pass;
  std::atomic<int> fd;          // a descriptor of the set, as last used
  FamilySet* family;            // never null
  std::atomic<bool> shared;     // made before a fork, on either side of it
  std::atomic<bool> inherited;  // made before a fork, and another process may be the owner
  std::atomic<bool> settled;    // the kernel's, and all that was known here has been given back
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
bool is_tag(uint64_t data);
Registration* registration_of(uint64_t tag, const EpollSet& set);  // null: of an earlier life

uint64_t nobodys_tag();  // comes out of the kernel to no avail

void note_sets_shared(bool whole);  // before a fork, under registry_lock; not whole: a handler in the middle of its lists
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
// True: not by another process meanwhile, so it may be told of from memory; a one-shot one has fired then.
bool may_fire(Registration& registration);
// Wakes a sleeper by it, or takes that back. False: it is not tagged any more, or the kernel refuses.
bool kick(Registration& registration, int epoll_fd, Kick kick);
// Of a set that is the kernel's: the program's own words, if they would be right.
void give_back_for_good(Registration& registration);
// Nothing of ours lies between the kernel and the program.
bool has_left_ring(const Connection& connection);
void switch_to_tagged(Registration& registration, int epoll_fd, Kick kick);
void switch_to_native(Registration& registration);
int descriptor_of(EpollSet& set);  // −1: none is open

// ---- sets that others may wait on (epoll_family.cpp)

void note_set_watched(int epoll_fd);
// `epoll_fd` is about to be sent to another process.
void note_set_passed(int epoll_fd);

inline bool is_kernels(const EpollSet& set) { return set.family->kernels.load(std::memory_order_seq_cst); }
bool may_settle(const EpollSet& set);  // false: in a handler that has interrupted a change of the set
// Who comes to a set that another process has made, or uses as well, makes clear first whose it is.
inline bool must_settle(const EpollSet& set) {
  return set.shared.load(std::memory_order_relaxed) && !set.settled.load(std::memory_order_relaxed) &&
         (set.inherited.load(std::memory_order_relaxed) || is_kernels(set)) && may_settle(set);
}
void settle(EpollSet& set);

// Under the set's lock: a change of a registration and of what the kernel holds for it. Takes over what others of the family have changed, and
// lets them know.
class FamilySection {
 public:
  explicit FamilySection(Registration& registration);
  ~FamilySection();
  FamilySection(const FamilySection&) = delete;
  FamilySection& operator=(const FamilySection&) = delete;

 private:
  Registration& registration_;
  std::optional<Locked> lock_;
};

void leave(Connection& connection, int fd, Reason reason);

}  // namespace shunt
