// One connection as one process sees it: its side, its mapping of the channel, its tally. And what can be done with it.
// Any thread. Results are ≥ 0 or −errno. Every call takes the descriptor it was made through: a connection may have several.
#pragma once

#include <ctime>
#include <poll.h>
#include <sys/socket.h>

#include "connection/side.h"
#include "observe/counters.h"
#include "wait/patience.h"

namespace shunt {

struct Registration;  // readiness: one entry of one epoll set

struct Connection {
  Side* side;  // paired for good: connection i of a slab has side i
  // The channel as mapped here; null until offered or attached. SYNC: release when it appears / acquire in every call.
  std::atomic<uint8_t*> channel;
  Direction* in;
  Direction* out;
  Region in_region;
  Region out_region;
  uint8_t* header_place;              // of this slot: where its channels' header pages go; null: anywhere
  std::atomic<bool> changing;         // a channel is being set up: kernel writes must not begin
  std::atomic<uint32_t> references;   // descriptors of this process, and threads asleep on it
  std::atomic<uint32_t> generation;   // of this slot: counts its lives
  std::atomic<int> stand_in;          // 1 + a descriptor of the library's own, for calls whose descriptor was closed under them; 0: none
  std::atomic<bool> shared_over_fork; // the slot is retired on close
  std::atomic<uint32_t> first_fork;   // of this process: number of the first one that counts it
  std::atomic<Registration*> registrations;
  std::atomic<bool> sets_want_space;  // some registration asks for writability
  std::atomic<bool> relayed;          // a relay stands between the peer and us: what the kernel says of the descriptor is all there is to say
  std::atomic<bool> lends_ids;        // relayed, and the kernel names us as the peer: another program must not get the bytes
  ucred peer_before;                  // relayed: whom the kernel named before
  Tally tally;
  History data_history, space_history;
  uint64_t written_at_wait;   // tail of the outgoing ring when a thread last waited for data; a hint
};

// Set once at start; read-only afterwards.
struct Behaviour {
  bool offers = true;             // false: SHUNT_UPGRADE=never
  // What an end must have been seen to do before it shows itself to the other.
  uint32_t calls_before_evidence = 6;   // reads and writes that moved bytes
  uint32_t waits_before_evidence = 2;
  uint32_t reads_before_probes = 2;     // from then on a blocking read asks whether it has to wait
  uint32_t writes_before_offer = 4;
  bool chaos = false;
  uint64_t chaos_seed = 0;
};
extern Behaviour behaviour;
// False unless chaos. The sequence of one connection depends on the seed, its first descriptor and its role alone, so that a failure comes again.
bool chaos_strikes(const Connection& connection, uint32_t one_in);
// Whether to move fewer bytes than asked. Not in an epoll set: there a short read or write means that no more is there (epoll(7), "stream-oriented").
bool chaos_splits(const Connection& c);

// The descriptor by which a call goes on: its own may be closed by now, and its number another file's. SYNC: acquire, pairs with keep_open().
inline int open_fd(const Connection& connection, int fd) {
  const int own = connection.stand_in.load(std::memory_order_acquire);
  return own != 0 ? own - 1 : fd;
}
// `fd` is about to be closed, and threads are inside calls on the connection: they get a stand-in. When this returns they have turned to it,
// or sleep in the kernel on the old one, which the kernel keeps for them.
void keep_open(Connection& connection, int fd);
void close_stand_in(Connection& connection);

// ---- bytes (receive.cpp, send.cpp)

// The program's own system call, with its own arguments, on `fd`: what the kernel is asked as long as the bytes are there. ≥ 0 or −errno.
class OwnCall {
 public:
  long operator()(int fd) const { return make_(*this, fd); }

 protected:
  explicit OwnCall(long (*make)(const OwnCall& self, int fd)) : make_(make) {}
  ~OwnCall() = default;

 private:
  long (*make_)(const OwnCall& self, int fd);
};

struct ReceiveRequest {
  Cursor to;
  size_t bytes;       // room in all
  int flags;          // MSG_*
  msghdr* message;    // recvmsg's own header (name, control and flags are filled in); null for the others
  const OwnCall* own = nullptr;  // the program's own call; null: any call of ours will do
  bool satisfied = false;  // the call has enough: what follows is welcome, an error stays for the next call
  bool complete = false;   // out: the kernel has answered the program's own call
};
long receive(Connection& connection, int fd, ReceiveRequest request);

struct SendRequest {
  Cursor from;
  size_t bytes;
  int flags;               // MSG_*
  const msghdr* message;   // sendmsg's own header if it carries control data; else null
  const OwnCall* own = nullptr;  // as a ReceiveRequest's
};
long send(Connection& connection, int fd, SendRequest request);

// sendfile(2) into the connection: reads up to `bytes` from `file` straight into the ring. `offset` as sendfile's.
long send_file(Connection& connection, int fd, int file, off_t* offset, size_t bytes);

// ---- readiness (look.cpp)

// On the rings (or on the way): the kernel's poll does not know this connection's readiness.
inline bool has_channel(const Connection& connection) {
  return connection.channel.load(std::memory_order_acquire) != nullptr;
}
// Both directions are the kernel's and nothing of ours lies between: its answers are right from here on.
// A reset that the kernel has told us, and we not yet the program: only we can tell it.
inline bool withholds_reset(const Connection& connection) {
  return connection.side->reset_taken && !connection.side->end_reported;
}
inline bool settled_on_kernel(const Connection& connection) {
  if (connection.relayed.load(std::memory_order_relaxed)) return true;
  return !withholds_reset(connection) && connection.side->left_end.load(std::memory_order_relaxed) == 0 &&
         connection.side->in_flow.load(std::memory_order_relaxed) == Flow::kernel_again &&
         connection.side->out_flow.load(std::memory_order_relaxed) == Flow::kernel_again &&
         (connection.out->passed.load(std::memory_order_acquire) == 2 || connection.out->stage.load(std::memory_order_relaxed) == Stage::kernel ||
          is_frozen(connection.out->ask.load(std::memory_order_relaxed)));
}
// Whether a peer that the kernel lately called alive may be taken to be so still. Not by somebody who has been told of
// its end by an edge: it is told once.
enum class Belief : uint8_t { alive, nothing };
// poll(2)'s revents for all events, as the kernel would give them for this stream. Costs a system call unless both directions are on the ring and the
// peer has not announced its end.
short look(Connection& connection, int fd, Belief belief = Belief::alive);
// For Patience: where the peer last waited; tells the peer where we do.
inline uint32_t exchange_cpus(Connection& connection) {
  const uint32_t mine = current_cpu() + 1;
  if (connection.out->writer_cpu.load(std::memory_order_relaxed) != mine)
    connection.out->writer_cpu.store(mine, std::memory_order_relaxed);
  return connection.in->writer_cpu.load(std::memory_order_relaxed) - 1;
}
// The memory part alone: true if something changed since `seen` worth a look. For spinning.
struct Glance {
  uint64_t tail, head;
  uint32_t stages;
  uint32_t gone;  // announced; the kernel tells when it has come
};
Glance glance(const Connection& connection);
// Asks the peer to note from now on when it writes. / When the oldest bytes that are unread in the ring came, or else the last ones to the kernel, by the cycle
// counter, as far as it has noted that; 0: not known. By word of the peer, so for nothing but an order. With a channel.
inline void ask_for_times(const Connection& connection) {
  if (connection.in->wants_times.load(std::memory_order_relaxed) == 0) connection.in->wants_times.store(1, std::memory_order_relaxed);
}
uint64_t unread_since(const Connection& connection);
inline bool operator==(const Glance& a, const Glance& b) {
  return a.tail == b.tail && a.head == b.head && a.stages == b.stages && a.gone == b.gone;
}

// A wait through the library (a read that had to sleep, or poll, select, epoll_wait) has told the program of bytes on a connection without a channel.
inline void note_wait(const Connection& connection) {
  Side& side = *connection.side;
  side.waits.store(side.waits.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  side.unwaited.store(0, std::memory_order_relaxed);
  side.drained.store(false, std::memory_order_relaxed);
}

// Before sleeping in the kernel on the socket's readability: registers the caller as a sleeper for these events (POLLIN, POLLOUT), arms, and takes the bells
// that nobody needs. After it the caller must look again and then sleep. The duty ends with disarm().
enum class Armed : uint8_t {
  sleep,    // the kernel will make the descriptor readable
  slices,   // no bell can be promised yet: sleep at most kSliceNs
};
struct Sleeper {
  uint32_t for_data = 0, for_space = 0, in_peek = 0;  // 1: counted
};
Armed arm(Connection& connection, int fd, short events, Sleeper& sleeper);
void disarm(Connection& connection, Sleeper& sleeper);
// The same sleeper in a child that goes on with the call: counted once more.
void count_again(const Connection& connection, const Sleeper& sleeper);
inline constexpr long kSliceNs = 1'000'000;
// The same for a sleeper that is not a thread but an epoll set: not counted, must be armed anew after each bell.
Armed arm_registered(Connection& connection, int fd, short events);

// The kernel has just said that the peer is there (no POLLHUP). Believed for a moment that is shorter than anybody needs to learn of a death; a peer that
// closes or shuts down by itself says so in memory.
inline constexpr uint64_t kAliveUs = 50;
inline void note_alive(const Connection& connection, uint64_t now) { connection.side->alive_at.store(now, std::memory_order_relaxed); }
inline void note_gone(const Connection& connection) { connection.side->alive_at.store(0, std::memory_order_relaxed); }
inline bool known_alive(const Connection& connection, uint64_t now) {
  return now - connection.side->alive_at.load(std::memory_order_relaxed) < patience.cycles_per_us() * kAliveUs &&
         (connection.in->gone_writer.load(std::memory_order_relaxed) | connection.out->gone_reader.load(std::memory_order_relaxed)) == 0;
}

// The kernel woke who waits for the ring, and there was no cause. What is no bell has been written past the library at the other end, and would be lost: the
// connection is reset. Under no lock of the connection.
void reset_if_stray(Connection& connection, int fd);
inline constexpr uint32_t kLookForStrays = 2;  // wake-ups in a row that had no cause

// After a call was left half way: the peer is woken for what the call has moved.
void ring_if_owed(Connection& connection, int fd);

// ---- life (upgrade.cpp, demote.cpp, life.cpp)

// Before the channel: no upgrade from here on, for this reason, unless there is an earlier one.
inline void stay_plain(const Connection& connection, Reason reason) {
  Reason none = Reason::none;
  connection.side->plain.compare_exchange_strong(none, reason, std::memory_order_relaxed);
}
// A connector that has shown its marker: the peer may attach an offer to any of its writes.
inline bool awaits_offer(const Connection& connection) {
  return connection.side->marked.load(std::memory_order_relaxed) && !connection.side->offer_seen.load(std::memory_order_relaxed);
}
// The kernel's for good, and there never was a channel: the program's own calls are right as they are. Not for a connector to which an offer may come.
inline bool is_plain(const Connection& connection) {
  if (has_channel(connection)) return false;
  return connection.side->plain.load(std::memory_order_relaxed) != Reason::none && !awaits_offer(connection) && !connection.side->reset_taken;
}

// Stops any upgrade; demotes if on the ring, politely: at the next operation of either end.
void make_plain(Connection& connection, int fd, Reason reason);
// Out now: on return this end's incoming and outgoing bytes are the kernel's. See docs/architecture.md.
// True: the bytes left unread had to be given to a relay, so `fd` is another open file now, and so are this process's other descriptors of the connection.
bool retreat(Connection& connection, int fd, Reason reason);
// Before exec: the new program would miss bytes of a peer that is gone, which nobody will be there to read. It is to see a reset.
void reset_if_stranded(Connection& connection, int fd);
// `fd` is to be seen by other programs: that must not be under our ids.
void stop_lending(const Connection& connection, int fd);
// Before the kernel's shutdown(2), which cannot fail for a `how` that is valid. / After the last close in this process.
void note_shutdown(Connection& connection, int how);
// Before a close: bells of a peer that has left the ring are no unread data, which the kernel would tell it of as a reset.
void take_last_bells(Connection& connection, int fd);
void note_closed(Connection& connection);
// The pending error as SO_ERROR would give it: 0 or an errno; clears it.
int take_error(Connection& connection, int fd, int kernel_error);
// The reset that a call was given is for the next one: the call had something else to tell.
void keep_reset(Connection& connection);
// Bytes that can be read now (FIONREAD), and bytes the peer has not read yet (SIOCOUTQ). −errno on failure.
long readable_bytes(Connection& connection, int fd);
long unread_bytes(Connection& connection, int fd);

// What the floors below tell readiness. Filled once at start; without it they do nothing.
struct EpollSet;
struct ReadinessHooks {
  // Every set in which the connection is registered was waited on through the library since. Under no lock.
  bool (*may_upgrade)(Connection& connection) = [](Connection&) { return true; };
  // The connection gets a channel: switch its registrations. Under the upgrade lock, under no lock of the connection.
  void (*channel_appeared)(Connection& connection) = [](Connection&) {};
  // Both directions are the kernel's again.
  void (*demoted)(Connection& connection) = [](Connection&) {};
  // Bells that a registered set may count on are about to be taken. True: every set will look again by itself. Under no lock.
  bool (*may_drain)(Connection& connection) = [](Connection&) { return true; };
  // A relay is about to take over: `fd` and what the sets know of the connection will be another open file. / It has, or it could not.
  void (*before_relay)(Connection& connection) = [](Connection&) {};
  void (*after_relay)(Connection& connection) = [](Connection&) {};
  // After this end's shutdown(2): an edge, like every change of state.
  void (*shut_down)(Connection& connection) = [](Connection&) {};
  // No bell will come for what has changed, or is to change: the peer takes bytes without a word, or left some to us. Sets must look by themselves. Under no
  // lock, or nested.
  void (*look_again)(Connection& connection) = [](Connection&) {};
  // Descriptor `fd` of the connection was closed; the connection is still referenced.
  void (*descriptor_closed)(Connection& connection, int fd) = [](Connection&, int) {};
  // The last descriptor of an epoll set was closed.
  void (*set_closed)(EpollSet* set) = [](EpollSet*) {};
};
extern ReadinessHooks readiness_hooks;

// Set by descriptors/: this process's other descriptors of the connection that are the file `file` become the one that `fd` is now.
inline void (*replace_duplicates)(const Connection& connection, int fd, uint64_t file) = [](const Connection&, int, uint64_t) {};

}  // namespace shunt
