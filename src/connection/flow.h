// The two directions' states and how they advance: used by receive, send, look and demote, never from outside this folder.
// Functions say which lock the caller holds. "nested" callers (a signal handler inside its own thread's critical section) must not advance fences.
#pragma once

#include "connection/connection.h"
#include "sys/raw.h"

namespace shunt {

// ---- incoming; under read_lock

// Follows the peer's published fences as far as what has been read allows.
void advance_incoming(Connection& connection, int fd);
// `got` bytes came from the kernel in a read that may have run past the up-fence: returns how many are data, counts the rest as bells. `bytes`: where
// they are; data that was put back moves up in the place of the bells before it.
long account_kernel_bytes(Connection& connection, long got, Cursor bytes);
// Of a frozen ring: takes the bells that the peer rang, and leaves the rest of the direction to the kernel. A last bell that is not there yet: nobody would
// know it for one; or it is repeated, if need be, for who comes to it.
enum class LateBells : uint8_t { unwanted, expected };
void turn_to_kernel(Connection& connection, int fd, LateBells late);
// Reads the peer's tail and class announcements; false if nothing is unread. Breaks the connection on impossible values.
bool refresh_tail(Connection& connection, int fd, bool nested);
// Tells the peer's writer how much has been read from the kernel: it places its up-fence where it has sent as much.
inline void publish_received(const Connection& connection) {
  // SYNC: release, pairs with the acquire of received in counts_agree().
  connection.in->received.store(connection.side->kernel_received.load(std::memory_order_relaxed), std::memory_order_release);
}
// Copies up to `bytes` out of the ring. Returns the number, or −EFAULT with nothing taken; peeking leaves the cursor.
long take_from_ring(Connection& connection, int fd, Cursor to, uint64_t bytes, bool peek, bool nested);
// What a retreat left in the ring and can be read there now, unless the peer has put it back meanwhile.
inline uint64_t left_in_ring(const Connection& connection) {
  const Side& side = *connection.side;
  const uint64_t end = side.left_end.load(std::memory_order_relaxed), head = side.head.load(std::memory_order_relaxed);
  if (end <= head || (!side.left_taken && connection.in->stage.load(std::memory_order_acquire) == Stage::put_back)) return 0;
  return end - head;
}
// From here on the peer puts nothing back. True: it is not in the middle of that, or of a write; then `end` is final, and `put_back` says how many bytes
// of [begin, end) went through the kernel. Under read_lock, or where nobody else reads the ring.
bool take_over(Connection& connection, int fd, uint64_t begin, uint64_t& end, uint64_t& put_back);
// Of `most` bytes: how many a peer had put back that died in the middle. Nothing else lies in the kernel; `first` bytes came before them, and `read` of all
// were read since.
uint64_t put_back_by_dead(int fd, uint64_t first, uint64_t read, uint64_t most);
// Takes bells up to number `until`, as many as one call gets; never nested. Returns recv's result: > 0, 0 at the end of the stream, −EAGAIN, −errno.
long take_bells(Connection& connection, int fd, uint32_t until);
// Taking several processes' last bells moves the place where a peek begins (SO_PEEK_OFF). Who sleeps in one then skips what wakes him, and sleeps on with data
// in the socket. So nobody may: the bell that lies there wakes him, and he sleeps in no peek again before the fence is passed.
inline bool peeks_would_miss(const Side& side) {
  // SYNC: acquire, pairs with Asleep::in_peek(); the read lock that a sleeper takes behind it makes it complete.
  return side.holders.load(std::memory_order_relaxed) > 1 && side.peekers.load(std::memory_order_acquire) > 0;
}
// A writer asleep for space needs the last bell to learn that its ring is over: it takes its leave first. What a process that was killed has begun to take
// waits for nobody's peek.
inline bool fence_waits(const Side& side) {
  return side.space_sleepers.load(std::memory_order_acquire) > 0 || (side.last_bells == 0 && peeks_would_miss(side));
}
// Takes all bells before the data behind the peer's down-fence. False: the last one is on its way.
bool take_last_bells_of_fence(Connection& connection, int fd);
// Tells the peer's writer how far we have read: a process that was killed may not have come to it. True: it had not.
bool republish_head(Connection& connection);
// A retreat whose thread was killed half way is gone on with, and what the peer does not put back is left to this family. Under no lock. False: there is none.
bool finish_retreat(Connection& connection, int fd);
// Threads that have been in a kernel read since before the channel: not those of a process that was killed there.
bool has_old_readers(Connection& connection);
// How often a caller that holds the lock may do that in a row: a peer could go on sending them for ever.
inline constexpr int kMostBellTakes = 1024;
// Bells up to `count` (an absolute number of the peer's) that have not been taken yet.
inline uint32_t bells_until(const Connection& connection, uint32_t count) {
  const auto bells = static_cast<int32_t>(count - connection.side->bells_taken);
  return bells > 0 ? static_cast<uint32_t>(bells) : 0;
}
// A read was left half way, and may have taken bells without counting them.
void recount_bells(Connection& connection, int fd);
// The outgoing direction is frozen and bytes of it have yet to go back through the kernel: who sleeps must also wait for room there.
inline bool putback_pending(const Connection& connection) {
  return connection.side->out_flow.load(std::memory_order_relaxed) == Flow::ring &&
         is_frozen(connection.out->ask.load(std::memory_order_relaxed));
}

// ---- leaving; under no lock

inline uint64_t microseconds_since(uint64_t begin) { return (cycles() - begin) / patience.cycles_per_us(); }
// How long a step of a retreat waits: not for ever for a peer that does not move, nor by the clock alone for one that the scheduler keeps waiting, as it does us.
template <typename Done>
void await_step(Done done) {
  constexpr uint64_t kStepUs = 200'000;
  constexpr int kFewestPauses = 100;
  const uint64_t begin = cycles();
  for (int pauses = 0; !done() && (pauses < kFewestPauses || microseconds_since(begin) < kStepUs); ++pauses) sys::pause_briefly();
}

// ---- outgoing; under write_lock

// Places the up-fence when both ends are ready, demotes when somebody asked for it. Returns false while a demotion must wait.
bool advance_outgoing(Connection& connection, int fd);
// Places the down-fence. False: not yet (the peer's old readers have not passed the up-fence).
bool demote_outgoing(Connection& connection, int fd, Reason reason);
// Free bytes for the next write, after looking at the peer's head and growing the ring if that helps and is allowed.
uint64_t ring_space(Connection& connection, int fd, uint64_t wanted);
// Copies up to `bytes` into the ring and publishes them. Returns the number, or −EFAULT if that is none.
long put_into_ring(Connection& connection, Cursor from, uint64_t bytes);
// The kernel's rule for stream sockets (unix_writable): a quarter of the buffer in use at most. A ring that can still grow is writable.
bool ring_writable(Connection& connection, int fd);

// The peer has the channel too.
bool peer_attached(const Connection& connection);

// The peer may take bytes from the ring and has no way to ring for it: reading is shut down, or its own sending left the ring.
bool taken_silently(const Connection& connection);

// ---- bells; under no lock, or nested

// The reader sleeps and has not been rung for: a write will ring, and so learn whether he lives. Under write_lock.
bool bell_is_due(const Connection& connection, int fd);
enum class Bell : uint8_t { not_needed, sent, refused };  // refused: the kernel says that the peer is gone
Bell ring_if_data_wanted(Connection& connection, int fd);
void ring_if_space_wanted(Connection& connection, int fd);
// What a process published before it was killed, and nobody has rung for: by whoever finds nothing to do. After an unlock.
void ring_for_the_dead(Connection& connection, int fd);

// POLLHUP because of shutdown(2), ours or the peer's: the peer's socket may still be there, and what lies in it.
bool only_shut_down(const Connection& connection);
// ---- the end

// The peer is gone (POLLHUP): did it leave bytes of ours unread? Then the kernel would report ECONNRESET, once. `kernel_error`: what the kernel itself
// thinks, which is right only where no bell can lie unread.
bool pending_reset(const Connection& connection, bool kernel_error);
// The ring is empty: has the stream ended? −EAGAIN: no. 0 or −ECONNRESET: what recv returns. Under read_lock.
long end_of_stream(Connection& connection, int fd, bool nested);
// Impossible values from the peer: both flows are broken, the kernel socket is shut down. Any lock or none.
void break_connection(Connection& connection, int fd);

void count_upgrade(Connection& connection);
void note_demotion(Connection& connection, Reason reason);

// While the outgoing ring's critical section runs, a retreating peer waits for it (asymmetric with its membarrier).
class Writing : Duty {
 public:
  enum class Within : uint8_t { nothing, perhaps_another };  // perhaps_another: in a signal handler
  // Not nested: what stands there is what a process that was killed has left.
  explicit Writing(Direction& out, Within within = Within::nothing)
      : out_(out), outer_(within == Within::nothing ? 0 : out.writing.load(std::memory_order_relaxed)) {
    begin(kFate);
    out_.writing.store(1, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
  ~Writing() {
    out_.writing.store(outer_, std::memory_order_release);
    done();
  }
  Writing(const Writing&) = delete;
  Writing& operator=(const Writing&) = delete;
  // A polite request waits for the next advance_outgoing(); a freeze does not.
  bool frozen() const { return is_frozen(out_.ask.load(std::memory_order_relaxed)); }
  bool taken_over() const { return out_.ask.load(std::memory_order_relaxed) == Ask::taken_over; }

 private:
  static void undo(Duty& duty) {
    auto& self = static_cast<Writing&>(duty);
    self.out_.writing.store(self.outer_, std::memory_order_release);
  }
  static constexpr Fate kFate{undo};
  Direction& out_;
  uint32_t outer_;  // nonzero in a signal handler inside its own thread's section: that one is not over yet
};

}  // namespace shunt
