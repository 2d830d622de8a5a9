// The lock step. Keeps what is in flight so small that both pairs take every write whole.
#include "play.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "pair.h"
#include "shrink.h"

namespace shunt::differential {
namespace {

constexpr size_t kMostInFlight = 100'000;  // bytes, each direction
constexpr int kMostWrites = 100;           // unread ones: each costs the kernel memory beyond its bytes
constexpr size_t kDrain = 150'000;

// The stream of each direction: a byte's value says where it belongs.
char byte_at(uint64_t position) { return static_cast<char>((position * 2654435761U) >> 13 ^ position >> 7); }

std::string bytes_at(uint64_t position, size_t count) {
  std::string data(count, '\0');
  for (size_t i = 0; i < count; ++i) data[i] = byte_at(position + i);
  return data;
}

bool writes(Kind kind) {
  return kind == Kind::write || kind == Kind::send || kind == Kind::writev || kind == Kind::sendmsg;
}
bool reads(Kind kind) {
  return kind == Kind::read || kind == Kind::recv || kind == Kind::readv || kind == Kind::recvmsg ||
         kind == Kind::recv_all;
}
bool tells_readiness(Kind kind) { return kind == Kind::poll || kind == Kind::epoll_level || kind == Kind::epoll_edge; }

std::string shown(const Answer& answer) {
  return std::to_string(answer.result) + (answer.error != 0 ? " errno " + std::to_string(answer.error) : "") +
         (answer.signals != 0 ? " SIGPIPE x " + std::to_string(answer.signals) : "");
}

// Where, and what stands there: a byte too many, a hole, or something else.
std::string where_bytes_differ(const std::string& tested, const std::string& reference) {
  const size_t least = std::min(tested.size(), reference.size());
  const auto at = static_cast<size_t>(
      std::mismatch(tested.begin(), tested.begin() + static_cast<ptrdiff_t>(least), reference.begin()).first -
      tested.begin());
  if (at == least) return "";
  constexpr size_t kSample = 16;
  std::string text = ", the bytes differ from " + std::to_string(at) +
                     " on: " + std::to_string(static_cast<unsigned char>(tested[at])) + " for " +
                     std::to_string(static_cast<unsigned char>(reference[at]));
  for (size_t shift = 1; at + shift + kSample < least; ++shift) {
    if (tested.compare(at + shift, kSample, reference, at, kSample) == 0)
      return text + ", " + std::to_string(shift) + " too many";
    if (tested.compare(at, kSample, reference, at + shift, kSample) == 0)
      return text + ", " + std::to_string(shift) + " are missing";
  }
  return text;
}

class LockStep {
 public:
  explicit LockStep(const Setting& setting)
      : fences_(setting.fences),
        tested_(Pair::connected(setting.directory, Room::ample, setting.first_descriptor)),
        reference_(Pair::reference(Room::ample)) {}

  // False when the answers differ; `text` then says how.
  bool step(Operation operation, std::string& text) {
    if (closed_[operation.end]) return true;
    Direction& out = directions_[operation.end];
    Direction& in = directions_[1 - operation.end];
    std::string data;
    if (writes(operation.kind)) {
      const size_t room = out.writes < kMostWrites ? kMostInFlight - out.in_flight : 0;
      operation.bytes = std::min(operation.bytes, room);
      data = bytes_at(out.position, operation.bytes);
    }
    Answer tested = tested_.apply(operation, data);
    Answer reference = reference_.apply(operation, data);
    if (fences_ == Fences::anywhere) forget_fences(operation, tested, reference);
    if (operation.kind == Kind::epoll_edge) {
      forget_extra_edge(operation.end, tested, reference);
      // docs/limits.md: the kernel wakes the other end for a SHUT_RD, too, although nothing changes there that it could see.
      if (peer_shut_reading_[operation.end] && tested.result == 0) reference = tested;
    }
    if (operation.kind == Kind::shut_reading || operation.kind == Kind::shut_both) peer_shut_reading_[1 - operation.end] = true;
    if (tells_readiness(operation.kind) && out.in_flight > 0) forget_writability(tested, reference);
    if (writes(operation.kind) && reference.result > 0) out.sent(static_cast<size_t>(reference.result));
    if (reads(operation.kind) && reference.result > 0) in.received(static_cast<size_t>(reference.result));
    if (operation.kind == Kind::close) closed_[operation.end] = true;
    if (tested == reference) return true;
    text = differential::shown(operation) + ": got " + shown(tested) + ", the kernel says " + shown(reference);
    if (tested.data != reference.data) text += where_bytes_differ(tested.data, reference.data);
    return false;
  }

 private:
  struct Direction {
    uint64_t position = 0;
    size_t in_flight = 0;
    int writes = 0;
    void sent(size_t bytes) { position += bytes, in_flight += bytes, ++writes; }
    void received(size_t bytes) {
      in_flight -= bytes;
      if (in_flight == 0) writes = 0;
    }
  };

  // While bytes are unread, a ring and a kernel buffer may differ about whether more would fit.
  static void forget_writability(Answer& tested, Answer& reference) {
    for (Answer* one : {&tested, &reference}) {
      if (one->result > 0) one->result &= ~long{POLLOUT};
    }
  }

  // An edge may be told once more than the kernel tells it, as long as it is true; a missing one is a difference.
  void forget_extra_edge(int end, Answer& tested, const Answer& reference) {
    if (tested.result <= 0 || reference.result != 0) return;
    const Answer truth = reference_.apply({Kind::poll, end, 0}, "");
    if ((tested.result & ~truth.result) == 0) tested.result = 0;
  }

  // Reads on where a read has ended early; a peek that did so is right in what it gave.
  void forget_fences(const Operation& operation, Answer& tested, Answer& reference) {
    if (operation.kind == Kind::peek && tested.result > 0 && tested.result < reference.result) {
      reference.result = tested.result;
      reference.data.resize(static_cast<size_t>(tested.result));
    }
    while (reads(operation.kind) && tested.result > 0 && tested.result < reference.result) {
      const auto left = static_cast<size_t>(reference.result - tested.result);
      const Answer more = tested_.apply({operation.kind, operation.end, left}, "");
      if (more.result <= 0) return;
      tested.result += more.result;
      tested.data += more.data;
    }
  }

  Fences fences_;
  Pair tested_;
  Pair reference_;
  Direction directions_[2];
  bool closed_[2] = {};
  bool peer_shut_reading_[2] = {};
};

// After the script: everything that is left, to the end.
constexpr Operation kEpilogue[] = {
    {Kind::poll, 0, 0},      {Kind::poll, 1, 0},      {Kind::read, 0, kDrain}, {Kind::read, 1, kDrain},
    {Kind::poll, 0, 0},      {Kind::poll, 1, 0},      {Kind::unread, 0, 0},    {Kind::unread, 1, 0},
    {Kind::unsent, 0, 0},    {Kind::unsent, 1, 0},    {Kind::write, 0, 10},    {Kind::write, 1, 10},
    {Kind::read, 0, kDrain}, {Kind::read, 1, kDrain}, {Kind::close, 0, 0},     {Kind::poll, 1, 0},
    {Kind::read, 1, kDrain}, {Kind::read, 1, 1},      {Kind::write, 1, 1},     {Kind::read, 1, 1},
};

// Writes of `bytes` until EAGAIN; then reads all of it back.
size_t capacity(Pair& pair, int end, size_t bytes) {
  size_t total = 0;
  for (;;) {
    const Answer answer = pair.apply({Kind::write, end, bytes}, bytes_at(total, bytes));
    if (answer.result < 0) break;
    total += static_cast<size_t>(answer.result);
  }
  for (size_t done = 0; done < total;) {
    const Answer answer = pair.apply({Kind::read, 1 - end, kDrain}, "");
    if (answer.result <= 0 || answer.data != bytes_at(done, answer.data.size())) return 0;
    done += static_cast<size_t>(answer.result);
  }
  return total;
}

}  // namespace

std::optional<Difference> difference(const Script& script, const Setting& setting) {
  LockStep both(setting);
  std::string text;
  for (size_t i = 0; i < script.size(); ++i) {
    if (!both.step(script[i], text)) return Difference{script[i].kind, "operation " + std::to_string(i) + ", " + text};
  }
  for (const Operation& operation : kEpilogue) {
    if (!both.step(operation, text)) return Difference{operation.kind, "after the script, " + text};
  }
  return std::nullopt;
}

Script shortest(Script script, Kind kind, const Setting& setting) {
  return shortest_of(std::move(script), [&](const Script& candidate) {
    const std::optional<Difference> found = difference(candidate, setting);
    return found && found->kind == kind;
  });
}

std::optional<std::string> capacity_difference(const Setting& setting, Room room, size_t least) {
  // A bell that the reader has yet to take holds room in the kernel's buffer like a write of a byte.
  const size_t bells = setting.fences == Fences::anywhere ? 4 : 0;
  for (const size_t bytes : {1U, 100U, 1000U, 4096U, 30'000U, 65'536U, 200'000U}) {
    if (bytes < least) continue;
    for (const int end : {0, 1}) {
      Pair tested = Pair::connected(setting.directory, room, setting.first_descriptor);
      Pair reference = Pair::reference(room);
      for (int round = 0; round < 3; ++round) {
        const size_t got = capacity(tested, end, bytes);
        const size_t wanted = capacity(reference, end, bytes);
        if (got + bells * bytes < wanted) {
          return "writes of " + std::to_string(bytes) + " to end " + std::to_string(end) + ", round " +
                 std::to_string(round) + ": takes " + std::to_string(got) + " bytes, the kernel " +
                 std::to_string(wanted);
        }
      }
    }
  }
  return std::nullopt;
}

}  // namespace shunt::differential
