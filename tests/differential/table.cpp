// The cells and their names.
#include "table.h"

#include <poll.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace shunt::differential {
namespace {

constexpr const char* kOrderNames[] = {"bytes, own end, peer", "bytes, peer, own end", "own end, bytes, peer",
                                       "peer, bytes, own end"};

bool makes_a_difference(const Cell& cell) {
  const bool own_acts = cell.own != Own::open;
  const bool peer_acts = cell.peer != Peer::open;
  switch (cell.order) {
    case Order::bytes_own_peer:
      return true;
    case Order::bytes_peer_own:
      return own_acts && peer_acts;
    case Order::own_bytes_peer:
      return own_acts;
    case Order::peer_bytes_own:
      return peer_acts;
  }
  return false;
}

std::string shown_bits(long bits) {
  constexpr std::pair<long, const char*> kNames[] = {
      {POLLIN, "IN"},         {POLLOUT, "OUT"},       {POLLRDHUP, "RDHUP"},  {POLLHUP, "HUP"},
      {POLLERR, "ERR"},       {POLLPRI, "PRI"},       {POLLNVAL, "NVAL"},    {POLLRDNORM, "RDNORM"},
      {POLLWRNORM, "WRNORM"}, {POLLRDBAND, "RDBAND"}, {POLLWRBAND, "WRBAND"}};
  std::string text;
  for (const auto& [bit, name] : kNames)
    if (bits & bit) text += (text.empty() ? "" : " ") + std::string(name), bits &= ~bit;
  if (bits != 0) text += " +" + std::to_string(bits);
  return text.empty() ? "–" : text;
}

std::string name_of_error(long error) {
  const char* name = ::strerrorname_np(static_cast<int>(error));
  return name != nullptr ? name : "errno " + std::to_string(error);
}

bool is_events(Question question) {
  return (question >= Question::watched_level && question < Question::unread && question != Question::select) ||
         question == Question::poll_after;
}

}  // namespace

std::vector<Cell> all_cells() {
  std::vector<Cell> cells;
  for (int i = 0; i < kIncoming * kOutgoing * kPeers * kOwns * kOrders * kSinces; ++i) {
    int rest = i;
    const auto next = [&rest](int values) { return std::exchange(rest, rest / values) % values; };
    const Cell cell{.incoming = static_cast<Incoming>(next(kIncoming)),
                    .outgoing = static_cast<Outgoing>(next(kOutgoing)),
                    .peer = static_cast<Peer>(next(kPeers)),
                    .own = static_cast<Own>(next(kOwns)),
                    .order = static_cast<Order>(next(kOrders)),
                    .since = static_cast<Since>(next(kSinces))};
    if (makes_a_difference(cell)) cells.push_back(cell);
  }
  return cells;
}

const char* name_of(Incoming incoming) {
  constexpr const char* kNames[] = {"none", "unread"};
  return kNames[static_cast<int>(incoming)];
}

const char* name_of(Outgoing outgoing) {
  constexpr const char* kNames[] = {"none", "unread", "full"};
  return kNames[static_cast<int>(outgoing)];
}

const char* name_of(Peer peer) {
  constexpr const char* kNames[] = {
      "open",   "shut WR",         "shut RD",          "shut RDWR", "closed", "shut WR, closed", "shut RDWR, closed",
      "killed", "shut WR, killed", "shut RDWR, killed"};
  return kNames[static_cast<int>(peer)];
}

const char* name_of(Own own) {
  constexpr const char* kNames[] = {"open", "shut RD", "shut WR", "shut RDWR"};
  return kNames[static_cast<int>(own)];
}

const char* name_of(Since since) {
  constexpr const char* kNames[] = {"–", "recv", "send", "SO_ERROR", "drained", "drained twice", "SO_ERROR, drained"};
  return kNames[static_cast<int>(since)];
}

const char* name_of(Question question) {
  constexpr const char* kNames[] = {"the peer's write",
                                    "the own write",
                                    "the own shutdown",
                                    "the peer's shutdown",
                                    "what was done since",
                                    "the end of what was done since",
                                    "bytes read since",
                                    "epoll, level, watched before",
                                    "epoll, edge, watched before",
                                    "epoll, edge, watched before, second look",
                                    "epoll, edge, watched for input",
                                    "epoll, edge, watched for input, second look",
                                    "epoll, one-shot, watched before",
                                    "epoll, one-shot, watched before, second look",
                                    "poll",
                                    "poll for nothing",
                                    "select",
                                    "epoll, level",
                                    "epoll, level, for nothing",
                                    "epoll, edge",
                                    "epoll, edge, second look",
                                    "epoll, edge, modified",
                                    "epoll, one-shot",
                                    "epoll, one-shot, second look",
                                    "epoll, one-shot, modified",
                                    "FIONREAD",
                                    "recv",
                                    "send",
                                    "SO_ERROR",
                                    "poll afterwards"};
  static_assert(std::size(kNames) == kQuestions);
  return kNames[static_cast<int>(question)];
}

std::string shown(const Cell& cell) {
  return std::string("incoming ") + name_of(cell.incoming) + ", outgoing " + name_of(cell.outgoing) + ", peer " +
         name_of(cell.peer) + ", own end " + name_of(cell.own) + ", since then " + name_of(cell.since) + " (" +
         kOrderNames[static_cast<int>(cell.order)] + ")";
}

std::string shown_answer(Question question, long answer) {
  if (answer < 0) return name_of_error(-answer);
  if (is_events(question)) return shown_bits(answer);
  if (question == Question::error && answer > 0) return name_of_error(answer);
  return std::to_string(answer);
}

}  // namespace shunt::differential
