// The two processes of a stress. Both are started by main.cpp, through exec, so that the library comes in as for any program.
#pragma once

#include <cstdint>
#include <string>

namespace shunt::stress {

struct Plan {
  uint64_t seed;
  int seconds;
  std::string path;  // of the listening socket
};

// Until standard input ends, and all connections have.
int accept_and_answer(const Plan& plan);
// Threads that connect, in as many ways as there are, until the time is over. Prints what was done.
int connect_and_ask(const Plan& plan);
// What connect_and_ask executes with a connection in hand: the turns from `begin` to `end`.
int carry_on(int fd, const std::string& words);

}  // namespace shunt::stress
