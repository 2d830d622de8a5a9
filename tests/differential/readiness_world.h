// The descriptors that a readiness script works on, and the calls behind its steps. There are two of them: one whose
// connections the library may move, and the reference of socketpairs, which it leaves alone. One thread, and one more
// during a step with a late peer.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "readiness_script.h"

namespace shunt::differential {

// All that a program could see of a step.
struct Seen {
  long result = 0;
  int error = 0;
  std::map<uint64_t, uint32_t> events;  // epoll: by the registration's data; poll, select: by entry

  bool operator==(const Seen&) const = default;
};

// Of a wait: nothing is ready.
bool idle(const Step& step, const Seen& seen);

class World {
 public:
  // In `directory`, with descriptors not below `first`. Without a directory: the reference.
  World(const Plan& plan, const std::string& directory, int first);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  // `data` is a registration's. `sleeps`: how long a wait may take, in ms, while the late peer acts; a wait that it did not
  // end is repeated after it.
  Seen apply(const Step& step, uint64_t data, int sleep_ms);
  // The same interest again, which arms it anew.
  void rearm(const Step& step, uint64_t data);
  // Everything that poll tells of the file that is or was in that slot; 0 if no descriptor of it is open.
  uint32_t truth(int slot);
  bool is_open(int slot) const { return fds_[slot] >= 0; }

 private:
  struct Peer {
    int fd = -1;
    bool aware = true;
  };
  void open(int connection);
  void close_slot(int slot);
  void close_peer(int connection);
  long peer_call(int connection, long number, long a = 0, long b = 0, long c = 0);
  long peer_writes(int connection, size_t bytes);
  long peer_drains(int connection, size_t most);
  Seen wait(const Step& step, int timeout_ms);
  Seen ask_poll(const Step& step, int timeout_ms);
  Seen ask_select(const Step& step, int timeout_ms);
  void act_late(const Step& step);

  const Plan plan_;
  const std::string path_;  // empty: the reference
  const int first_duplicate_;
  int listeners_[2] = {-1, -1};  // of the library's, and of nobody's
  int fds_[kSlots];
  Peer peers_[kConnections];
  int sets_[kSets];
  int pipe_writer_ = -1;
};

}  // namespace shunt::differential
