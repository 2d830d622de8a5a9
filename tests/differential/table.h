// The table of readiness: each state that one end of a connection can be in, as steps that lead there, and what can be
// asked of it then. Pure: no system call.
#pragma once

#include <array>
#include <string>
#include <vector>

namespace shunt::differential {

enum class Incoming { none, unread };
enum class Outgoing { none, unread, full };
enum class Peer {
  open,
  shut_writing,
  shut_reading,
  shut_both,
  closed,
  shut_writing_closed,
  shut_both_closed,
  killed,  // closed by nobody: the library at that end does not get to say so
  shut_writing_killed,
  shut_both_killed,
};
enum class Own { open, shut_reading, shut_writing, shut_both };
enum class Order { bytes_own_peer, bytes_peer_own, own_bytes_peer, peer_bytes_own };
// What the program did when all that had happened.
enum class Since {
  nothing,
  received,  // one byte, or what recv said instead
  sent,      // the same of send
  asked_error,
  drained,        // until the first end or error
  drained_twice,  // until the second: after an error comes the end
  asked_error_drained,
};
inline constexpr int kIncoming = 2, kOutgoing = 3, kPeers = 10, kOwns = 4, kOrders = 4, kSinces = 7;

struct Cell {
  Incoming incoming;
  Outgoing outgoing;
  Peer peer;
  Own own;
  Order order;
  Since since;
};

// Every combination; an order only where it makes a difference which comes first.
std::vector<Cell> all_cells();
std::string shown(const Cell& cell);
const char* name_of(Incoming incoming);
const char* name_of(Outgoing outgoing);
const char* name_of(Peer peer);
const char* name_of(Own own);
const char* name_of(Since since);

inline bool is_gone(Peer peer) { return peer >= Peer::closed; }
inline bool is_killed(Peer peer) { return peer >= Peer::killed; }

// In the order of asking; the first ones are the answers of the steps. ≥ 0 or −errno.
enum class Question {
  incoming,
  outgoing,
  own,
  peer,
  since,
  since_end,  // of what was done in two parts
  since_bytes,
  watched_level,  // registered before the steps: input
  watched_edge,   // the same with EPOLLOUT, EPOLLET
  watched_edge_again,
  watched_input,  // the same without EPOLLOUT
  watched_input_again,
  watched_one_shot,
  watched_one_shot_again,
  poll,
  poll_nothing,  // asked for
  select,        // 1 readable, 2 writable, 4 exceptional
  level,         // registered now: everything
  level_nothing,
  edge,
  edge_again,
  edge_modified,
  one_shot,
  one_shot_again,
  one_shot_modified,
  unread,  // FIONREAD
  recv,
  send,
  error,  // SO_ERROR
  poll_after,
};
inline constexpr int kQuestions = static_cast<int>(Question::poll_after) + 1;
const char* name_of(Question question);
// Of a question that is answered by events: their names; of the others the number, or the name of the errno.
std::string shown_answer(Question question, long answer);

struct Answers {
  std::array<long, kQuestions> of{};
  long& operator[](Question question) { return of[static_cast<size_t>(question)]; }
  long operator[](Question question) const { return of[static_cast<size_t>(question)]; }
};

}  // namespace shunt::differential
