// A script: operations on the two ends of a connection, made from a seed, the same for every pair it is played on.
// Pure: no system call.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace shunt::differential {

enum class Kind {
  write,
  send,
  writev,
  sendmsg,
  read,
  recv,
  readv,
  recvmsg,
  peek,
  recv_all,
  poll,
  epoll_level,
  epoll_edge,
  unread,
  unsent,
  error,
  duplicate,
  shut_reading,
  shut_writing,
  shut_both,
  close,
};

struct Operation {
  Kind kind;
  int end;       // 0 connector, 1 acceptor
  size_t bytes;  // asked for, where the kind has a size
};

using Script = std::vector<Operation>;

Script script_of(uint64_t seed);
std::string shown(const Operation& operation);

}  // namespace shunt::differential
