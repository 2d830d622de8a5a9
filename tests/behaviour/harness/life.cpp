// Walks the matrix: both roles visit the same cells in the same order, each on a connection of its own.
#include "life.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

constexpr State kStates[] = {State::kernel,    State::upgrading,         State::empty,
                             State::unread_in, State::unread_out,        State::full_in,
                             State::full_out,  State::half_closed_by_us, State::half_closed_by_peer};
constexpr const char* kStateNames[] = {"kernel",    "upgrading",         "empty",
                                       "unread in", "unread out",        "full in",
                                       "full out",  "half closed by us", "half closed by peer"};
constexpr const char* kImageFlag = "--image";
constexpr const char* kReceiverFlag = "--receiver";
constexpr uint64_t kUnread = 5000, kOffer = 10;
constexpr int kOfferWrites = 8;
constexpr int kFallAsleepMs = 2;

std::string row_of(const Life& life, const Cell& cell) {
  return std::string(life.name) + ", " + kStateNames[static_cast<int>(cell.state)] +
         (cell.blocking ? ", blocking" : ", non-blocking") +
         (cell.peer_waits ? ", peer in a call" : ", peer in no call");
}

// A peer that has something to read is in no call that would not end at once.
bool peer_may_wait(State state) {
  return state != State::unread_out && state != State::full_out && state != State::half_closed_by_us;
}

uint64_t fill_up(int fd) {
  set_blocking(fd, false);
  const uint64_t sent = fill(fd, 0, 4000);
  set_blocking(fd, true);
  return sent;
}

// Brings the connection into the state; returns how much this end has written.
uint64_t bring_about(int fd, State state, bool holder) {
  const bool client = current_end() == End::client;
  if (state == State::kernel) return 0;
  if (state == State::upgrading) {
    if (client) return 0;
    for (int i = 0; i < kOfferWrites; ++i) put(fd, static_cast<uint64_t>(i) * kOffer, kOffer);
    return kOfferWrites * kOffer;
  }
  if (current_way() != Way::cold) client ? warm_up_client(fd) : warm_up_server(fd);
  if (state == State::empty) return 0;
  if (holder != (state == State::unread_out || state == State::full_out || state == State::half_closed_by_us)) return 0;
  if (state == State::full_in || state == State::full_out) return fill_up(fd);
  put(fd, 0, kUnread);
  if (state == State::half_closed_by_us || state == State::half_closed_by_peer) CHECK_EQ(::shutdown(fd, SHUT_WR), 0);
  return kUnread;
}

Stream prepared(int fd, const Cell& cell, bool holder) {
  Stream stream;
  stream.sent = bring_about(fd, cell.state, holder);
  stream.peer_waits = cell.peer_waits;
  if (cell.state == State::half_closed_by_us) (holder ? stream.sends : stream.receives) = false;
  if (cell.state == State::half_closed_by_peer) (holder ? stream.receives : stream.sends) = false;
  tell_peer(static_cast<uint32_t>(stream.sent));
  stream.peer_sent = await_peer();
  return stream;
}

int another() { return current_end() == End::client ? connect_another() : accept_another(); }

void hold(const Life& life, const Cell& cell) {
  const int fd = another();
  Stream rest = prepared(fd, cell, true);
  rest.urgent = life.urgent;
  rest.blocking = cell.blocking;
  if (!cell.blocking) set_blocking(fd, false);
  if (cell.peer_waits) sleep_ms(kFallAsleepMs);
  life.live(fd, rest);
  await_peer();
}

void face(const Life& life, const Cell& cell) {
  const int fd = another();
  Stream stream = prepared(fd, cell, false);
  stream.urgent = life.urgent;
  stream.face(fd, cell.state == State::full_in);
  CHECK_EQ(::close(fd), 0);
  tell_peer();
}

template <typename Visit>
void visit_all(std::span<const Life> lives, bool at_client, Visit visit) {
  for (const Life& life : lives) {
    for (const State state : kStates) {
      for (const bool blocking : {true, false}) {
        for (const bool peer_waits : {false, true}) {
          const Cell cell{state, blocking, peer_waits};
          if (peer_waits && !peer_may_wait(state)) continue;
          if ((life.sparse || kSanitized) && (blocking == peer_waits || (blocking && state == State::full_in))) continue;
          if (life.fits != nullptr && !life.fits(cell, at_client)) continue;
          about(row_of(life, cell));
          visit(life, cell);
        }
      }
    }
  }
}

}  // namespace

bool has_input(const Cell& cell, bool at_client) {
  switch (cell.state) {
    case State::unread_in:
    case State::full_in:
    case State::half_closed_by_peer:
      return true;
    case State::upgrading:
      return at_client;
    case State::kernel:
    case State::empty:
    case State::unread_out:
    case State::full_out:
    case State::half_closed_by_us:
      return false;
  }
  return false;
}

void hold_all(std::span<const Life> lives) { visit_all(lives, current_end() == End::client, hold); }

void face_all(std::span<const Life> lives) { visit_all(lives, current_end() != End::client, face); }

ImageArguments::ImageArguments(const char* program, int fd, const Stream& rest, From from)
    : words{program, from == From::exec ? kImageFlag : kReceiverFlag, std::to_string(fd), rest.packed(), current_row()},
      argv{} {
  for (size_t i = 0; i < std::size(words); ++i) argv[i] = words[i].data();
}

std::optional<int> run_image(int argc, char** argv) {
  if (argc != 5) return std::nullopt;
  const bool receives = std::strcmp(argv[1], kReceiverFlag) == 0;
  if (!receives && std::strcmp(argv[1], kImageFlag) != 0) return std::nullopt;
  about(std::string(argv[4]) + ", in the other program");
  int fd = std::atoi(argv[2]);
  if (receives) {
    write_all(fd, "r");
    fd = receive_descriptor(fd);
  }
  Stream::unpacked(argv[3]).all(fd);
  return 0;
}

}  // namespace shunt::behaviour
