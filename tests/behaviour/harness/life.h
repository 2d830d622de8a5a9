// The matrix of lives: what is done with a descriptor × the state of its connection × blocking or not × what the peer
// does meanwhile. One role lives, the other faces it; afterwards the stream goes on to its end, exact to the byte.
#pragma once

#include <optional>
#include <span>

#include "stream.h"

namespace shunt::behaviour {

enum class State {
  kernel,     // nothing was said yet
  upgrading,  // the server's bytes, and with them the offer, lie unread at the client
  empty,      // warmed up, nothing unread
  unread_in,
  unread_out,
  full_in,  // the peer wrote until EAGAIN
  full_out,
  half_closed_by_us,    // with bytes unread at the peer
  half_closed_by_peer,  // with bytes unread here
};

struct Cell {
  State state;
  bool blocking;
  bool peer_waits;
};

// Something lies unread at the end that lives.
bool has_input(const Cell& cell, bool at_client);

struct Life {
  const char* name;
  // Lives with `fd`, which it owns, and has the rest of the stream carried out; closes what it has.
  void (*live)(int fd, const Stream& rest);
  bool (*fits)(const Cell& cell, bool at_client) = nullptr;  // null: every cell
  bool sparse = false;                                       // starts programs: half of the cells
  bool urgent = false;                                       // an urgent byte is sent, which nobody reads
};

void hold_all(std::span<const Life> lives);
void face_all(std::span<const Life> lives);

// Parts of a behaviour over a table of lives.
template <const auto& kLives>
void holds(int) {
  hold_all(kLives);
}
template <const auto& kLives>
void faces(int) {
  face_all(kLives);
}

// This program, or another, as the image that carries on: argv of an exec with `fd` open in it.
enum class From {
  exec,
  passing
};  // passing: `fd` is the socket over which the connection comes, after an "r" for ready
struct ImageArguments {
  ImageArguments(const char* program, int fd, const Stream& rest, From from = From::exec);
  std::string words[5];
  char* argv[6];
};
// The part of main() for such an image; nullopt in others.
std::optional<int> run_image(int argc, char** argv);

}  // namespace shunt::behaviour
