// Two ends of one connection in one process, and what an operation on one of them answers.
// One thread; every call is non-blocking. SIGPIPE is counted, process-wide.
#pragma once

#include <string>

#include "script.h"

namespace shunt::differential {

struct Answer {
  long result = 0;   // of the call; poll and epoll: the events
  int error = 0;     // errno, when the call failed
  int signals = 0;   // SIGPIPEs during the call
  std::string data;  // what was read

  bool operator==(const Answer&) const = default;
};

// SO_SNDBUF: as the kernel makes it, or so large that what a script has in flight fits with its overhead.
enum class Room { standard, ample };

class Pair {
 public:
  // By connect and accept in `directory`, then echo rounds that give the library time to move it. May be on a ring.
  // Under chaos the descriptors' numbers choose where the library strikes: `first` is the least number to use.
  static Pair connected(const std::string& directory, Room room, int first);
  static Pair reference(Room room);  // socketpair: the library leaves it alone

  Pair(Pair&& other) noexcept;
  Pair& operator=(Pair&&) = delete;
  ~Pair();

  // `data` is what a writing operation writes.
  Answer apply(const Operation& operation, const std::string& data);
  int descriptor(int end) const { return ends_[end].fd; }

 private:
  struct End {
    int fd = -1;
    int level = -1;  // epoll sets: EPOLLIN | EPOLLOUT | EPOLLRDHUP, and EPOLLIN | EPOLLRDHUP | EPOLLET
    int edge = -1;
  };
  Pair() = default;
  void adopt(int connector, int acceptor, Room room);
  void open_sets(End& end);
  void close_end(End& end);

  End ends_[2];
};

void count_sigpipe();  // once, before the first Pair

}  // namespace shunt::differential
