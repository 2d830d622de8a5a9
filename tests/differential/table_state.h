// Leads a connection into a state of the table and asks all that can be asked of it. One thread; every call is
// non-blocking.
#pragma once

#include <string>

#include "table.h"

namespace shunt::differential {

enum class Leaver { nobody, own, peer };
enum class Watch { no, yes, with_room_for_one };

// Where the bytes of the steps go.
enum class Stand {
  on_rings,
  in_kernel,  // both directions have left
  between,    // a fence may come with any step
  anywhere,   // and any number of them, wherever chaos likes
};

// How the connection gets there.
struct Setup {
  const char* name;
  Stand is;
  int half_echoes;  // a byte one way each, in turns; the acceptor begins, as only its writes carry an offer
  Leaver leaver;    // of the ring, with nothing unread
  int afterwards;   // half echoes, once it has left
  bool accepted;    // the own end
  Watch watch;      // it is in epoll sets, armed, before the steps; and the room for what they tell
};

class States {
 public:
  explicit States(const std::string& directory);
  ~States();
  States(const States&) = delete;
  States& operator=(const States&) = delete;

  // Of a connection by connect and accept, whose descriptors are not below `first` (see Pair::connected()).
  Answers connected(const Cell& cell, const Setup& setup, int first);
  Answers reference(const Cell& cell, Watch watch);  // of a socketpair
  // How many of `bytes` unread ones the kernel holds.
  int held_by_kernel(const Setup& setup, int bytes);

 private:
  struct Ends {
    int own, peer;
  };
  Ends open(const Setup& setup, int first);
  Answers answers(const Cell& cell, Ends ends, Watch watch);
  void watch(int fd, int room);
  void step(const Cell& cell, Ends ends, Answers& answers);
  void ask(int fd, Watch watch, Answers& answers);
  void put(int set, int operation, int fd, uint32_t events);

  std::string path_;
  int listener_;
  int nothing_;     // /dev/null
  int watched_[4];  // sets: level, edge, edge for input, one-shot
  int now_[4];      // sets: level, for nothing, edge, one-shot
};

}  // namespace shunt::differential
