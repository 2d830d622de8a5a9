// What one end of a connection must remember, in memory that a process shares with its forked children and never with the peer.
// "reader" fields are written under read_lock, "writer" fields under write_lock, unless they say atomic.
// Everything here is trusted; everything in the channel is not.
#pragma once

#include "agreement/marker.h"
#include "connection/lock.h"
#include "observe/reasons.h"
#include "shm/ring.h"

namespace shunt {

enum class Role : uint8_t { unknown, connector, acceptor };

// Where this end's incoming bytes come from, and where its outgoing bytes go.
enum class Flow : uint8_t {
  kernel,        // before the up-fence
  ring,          // between the fences
  kernel_again,  // after the down-fence, for good
  broken,        // the peer wrote impossible values, or past the library
};

// What of the outgoing direction takes several steps. Whoever gets the write lock after a process that was killed between them goes on with it.
enum class Begun : uint8_t {
  nothing,
  up_fence,
  down_fence,
  sending,  // into the kernel before the fence: kernel_sent may be too small
};

inline bool is_frozen(Ask ask) { return ask == Ask::frozen || ask == Ask::put_back || ask == Ask::taken_over; }

struct alignas(64) Side {
  // --- reader
  FamilyLock read_lock;
  std::atomic<Flow> in_flow;              // atomic: looked at without the lock
  bool taking;                            // bells are being taken: bells_taken may be too small
  std::atomic<uint64_t> head;             // ring bytes consumed; commit_cursor
  std::atomic<uint64_t> head_told;        // atomic: `head` when somebody last looked whether the peer waits for space
  std::atomic<uint64_t> tail_seen;        // the peer's tail as last read and checked
  RingMap in_map;                         // how positions ≥ head map, as far as the peer's announcements were checked
  std::atomic<uint32_t> bells_taken;      // number of the last one. atomic: a sleeper looks at it before it has the lock
  uint32_t data_arm_sequence;
  std::atomic<uint64_t> kernel_received;  // atomic: bytes read from the kernel before the ring
  std::atomic<uint32_t> kernel_readers;   // atomic: threads inside a kernel read that began before the channel
  std::atomic<uint32_t> data_sleepers;    // atomic: threads asleep until there is data
  std::atomic<uint32_t> peekers;          // atomic: of them, those that sleep in a peek
  std::atomic<uint64_t> receive_timeout_ns;  // atomic: SO_RCVTIMEO, 0: none
  uint64_t fence_wait_since;              // cycle count when the down-fence first had to wait for a sleeping writer
  std::atomic<bool> leaving;              // atomic: a retreat has begun: what lies in the ring is the peer's to put back, and nobody's to take
  std::atomic<uint32_t> leaver;           // atomic: the thread that retreats; 0: none does
  // What a retreat left in the ring and the peer has not put back, for this family to read there.
  std::atomic<uint64_t> left_end;         // atomic: ring position after it; 0: none
  uint64_t left_kernel;                   // bytes in the kernel that come first
  uint64_t left_read;                     // of these and of what the peer puts back: read since, without being taken off left_kernel
  bool left_taken;                        // the peer puts nothing back any more
  std::atomic<bool> delivering;           // atomic: who leaves decides who gets what is left, and a relay may be getting it: nobody takes anything
  bool end_reported;                      // the ECONNRESET of this stream was given out
  bool received_in_doubt;                 // a kernel read was left half way, or is under way: kernel_received may be too small
  bool reset_taken;                       // the kernel's ECONNRESET was taken by a call of ours that did not give it out
  // For whoever goes on for a process that was killed.
  uint32_t upgraded_by;                   // process that was the only one when the channel came: old readers are its threads
  std::atomic<uint64_t> leaving_from, leaving_to;  // atomic: what a retreat will have left in the ring
  uint32_t last_bells;                    // 1 + those before the data behind the down-fence, once found: with bells_final (last_bell) they are ours
  uint32_t last_bell;

  // --- writer
  alignas(64) FamilyLock write_lock;
  std::atomic<Flow> out_flow;             // atomic: looked at without the lock
  Begun begun;                            // and not complete
  bool fence_has_bell;                    // the down-fence begun has a last bell
  std::atomic<uint64_t> tail;             // ring bytes published
  std::atomic<uint64_t> tail_told;        // atomic: `tail` when somebody last looked whether the peer waits for data
  uint64_t head_seen;                     // the peer's head as last read and checked
  RingMap out_map;
  uint32_t class_announced;               // the channel says so much of out_map
  std::atomic<uint32_t> bells_rung;       // one fetch_add per bell: a handler on this thread may ring in between
  std::atomic<uint32_t> rung_for_data, rung_for_space;  // atomic: the arm words last answered with a bell
  uint32_t space_arm_sequence;
  std::atomic<bool> bell_arrived;         // atomic: the kernel has taken a bell while the peer was there
  std::atomic<uint64_t> kernel_sent;      // atomic: bytes written to the kernel before the ring
  std::atomic<uint32_t> kernel_writers;   // atomic: threads inside a kernel write that began before the channel
  std::atomic<uint32_t> space_sleepers;   // atomic: threads asleep until there is space
  std::atomic<uint64_t> send_timeout_ns;  // atomic: SO_SNDTIMEO, 0: none
  std::atomic<uint64_t> alive_at;         // atomic: cycle count when the peer was last known to be alive
  std::atomic<uint64_t> sent_after;       // atomic: bytes written to the kernel after the down-fence
  std::atomic<uint64_t> unsent_from;      // atomic: 1 + the ring position from which on nobody was there to get the bytes; 0: none
  std::atomic<bool> relay_delivered;      // atomic: the relay has brought what there is, or what finds room
  bool tight_buffer;                      // SO_SNDBUF is so small that bells could fill it
  uint64_t full_at;                       // head + 1 when a write last found no room: until it moves none fits, whatever its size
  std::atomic<uint32_t> bells_sent;       // its low byte is the next bell. Differs from bells_rung while one is counted and not sent
  uint32_t disagreements, uncounted;      // before the up-fence: writes in a row that found the reader's count apart; looks in a row that found the bytes gone
  uint32_t fence_bell;                    // number of the last bell of the down-fence begun
  uint64_t putback;                       // ring bytes that went back through the kernel, while the peer retreats
  uint64_t putback_goal;                  // with the send that is under way
  uint64_t queued_before;                 // what the peer had unread in the kernel in front of it: SIOCOUTQ

  // --- both
  std::atomic<uint32_t> holders;          // processes that have the socket open and know it
  std::atomic<bool> nonblocking;          // O_NONBLOCK of the open file description
  std::atomic<bool> shut_read, shut_write;  // shutdown(2) was called on this end
  std::atomic<Reason> plain;              // not none: no offer, no attach, no fence from here on
  std::atomic<Reason> demoted;            // not none: why it left the ring
  std::atomic<bool> upgraded;
  std::atomic<bool> offer_seen;           // connector: an offer arrived, attached or refused
  Role role;
  std::atomic<uint64_t> chaos;            // of chaos_strikes(): where this connection starts, and how far it is
  Bits bits;                              // the marker's

  // --- evidence of use, before the channel (connection/evidence.h)
  std::atomic<uint32_t> reads, writes;    // atomic: calls that moved bytes through the kernel
  std::atomic<uint32_t> waits;            // atomic: waits through the library that told of bytes
  std::atomic<uint32_t> unwaited;         // atomic: reads since the last wait that found bytes where there were none left: somebody waited for them
  std::atomic<bool> drained;              // atomic: the last read has left nothing
  std::atomic<uint32_t> next_look;        // atomic: acceptor: number of writes before it looks for a marker again
  std::atomic<bool> marked;               // atomic: connector: it is bound to its marker, so an offer may come
};

}  // namespace shunt
