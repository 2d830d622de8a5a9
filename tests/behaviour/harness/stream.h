// The rest of a numbered stream, for whoever holds the descriptor after its life: another thread, process or program.
// Any thread, any child; orders itself with the peer through the side channel.
#pragma once

#include <cstdint>
#include <string>

namespace shunt::behaviour {

// What one end knows: positions of both directions, and which of them is still open.
struct Stream {
  uint64_t sent = 0;
  uint64_t received = 0;
  uint64_t peer_sent = 0;
  bool sends = true, receives = true;  // false: shut down, by this end or by the other
  bool blocking = true;                // O_NONBLOCK is checked against it
  bool urgent = false;                 // an urgent byte counts as queued for ever
  bool peer_waits = false;             // the peer is in a blocking call; else it makes none before it is told to

  // The holder's part, in this order, each once; they may be in different processes. Closing is the caller's.
  void begin(int fd) const;  // reads what lay there, without any help of the peer
  struct Ahead {
    uint64_t out = 0, in = 0;  // bytes of the next part that were moved by somebody else
  };
  void carry_on(int fd, Ahead done) const;  // both directions
  void first(int fd) const { begin(fd), carry_on(fd, {}); }
  void second(int fd) const;  // some more of both
  void last(int fd) const;    // the peer sees that the stream has not ended
  void all(int fd) const { first(fd), second(fd), last(fd); }

  // The peer's part, to the end of the stream. `writes_first`: its writing was full.
  void face(int fd, bool writes_first) const;

  std::string packed() const;
  static Stream unpacked(const std::string& text);
};

inline constexpr uint64_t kPart = 3000;  // of carry_on(), each way

// `count` bytes of the stream; a non-blocking descriptor is waited for with poll.
void put(int fd, uint64_t position, uint64_t count);
void take(int fd, uint64_t position, uint64_t count);

}  // namespace shunt::behaviour
