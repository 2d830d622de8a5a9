// Makes scripts: mostly bytes, now and then a look, seldom an end.
#include "script.h"

#include <random>

namespace shunt::differential {
namespace {

constexpr size_t kLargest = 200'000;

struct Choice {
  Kind kind;
  int weight;
  bool sized;
  const char* name;
};

constexpr Choice kChoices[] = {
    {Kind::write, 60, true, "write"},
    {Kind::send, 30, true, "send"},
    {Kind::writev, 15, true, "writev"},
    {Kind::sendmsg, 15, true, "sendmsg"},
    {Kind::read, 60, true, "read"},
    {Kind::recv, 30, true, "recv"},
    {Kind::readv, 15, true, "readv"},
    {Kind::recvmsg, 15, true, "recvmsg"},
    {Kind::peek, 20, true, "peek"},
    {Kind::recv_all, 10, true, "recv MSG_WAITALL"},
    {Kind::poll, 30, false, "poll"},
    {Kind::epoll_level, 20, false, "epoll_wait, level triggered"},
    {Kind::epoll_edge, 20, false, "epoll_wait, edge triggered"},
    {Kind::unread, 20, false, "FIONREAD"},
    {Kind::unsent, 10, false, "SIOCOUTQ"},
    {Kind::error, 5, false, "SO_ERROR"},
    {Kind::duplicate, 6, false, "dup, close the original"},
    {Kind::shut_reading, 1, false, "shutdown SHUT_RD"},
    {Kind::shut_writing, 2, false, "shutdown SHUT_WR"},
    {Kind::shut_both, 1, false, "shutdown SHUT_RDWR"},
    {Kind::close, 2, false, "close"},
};

const Choice& choice_of(Kind kind) {
  for (const Choice& choice : kChoices) {
    if (choice.kind == kind) return choice;
  }
  return kChoices[0];
}

size_t size_from(std::mt19937_64& random) {
  switch (random() % 8) {
    case 0:
      return random() % 3;
    case 1:
    case 2:
      return random() % 100;
    case 3:
    case 4:
      return random() % 5000;
    case 5:
    case 6:
      return random() % 40'000;
    default:
      return random() % (kLargest + 1);
  }
}

}  // namespace

Script script_of(uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int> weights;
  for (const Choice& choice : kChoices) weights.push_back(choice.weight);
  std::discrete_distribution<size_t> pick(weights.begin(), weights.end());
  Script script(20 + random() % 180);
  for (Operation& operation : script) {
    const Choice& choice = kChoices[pick(random)];
    operation = {
        .kind = choice.kind, .end = static_cast<int>(random() % 2), .bytes = choice.sized ? size_from(random) : 0};
  }
  return script;
}

std::string shown(const Operation& operation) {
  const Choice& choice = choice_of(operation.kind);
  return std::string(operation.end == 0 ? "connector: " : "acceptor:  ") + choice.name +
         (choice.sized ? " " + std::to_string(operation.bytes) : "");
}

}  // namespace shunt::differential
