// A readiness script: what a program does with three epoll sets, poll and select, and what happens to the connections
// meanwhile. Made from a seed. Pure: no system call.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace shunt::differential {

inline constexpr int kConnections = 3;
inline constexpr int kSets = 3;
// Slots: a connection's descriptor, its duplicate, and then:
inline constexpr int kPipe = 2 * kConnections;
inline constexpr int kEventfd = kPipe + 1;
inline constexpr int kSlots = kEventfd + 1;

enum class Act {
  add,
  modify,
  remove,
  wait,
  nest,  // set 0 into another
  poll,
  select,
  peer_writes,
  peer_reads,
  peer_shuts,
  peer_closes,
  peer_sends_urgent,
  writes,
  reads,
  fills,  // writes until EAGAIN
  shuts,
  duplicate,
  closes,
  reopens,
  others,  // pipe and eventfd become readable, or idle
};

// What the peer does while the program sleeps in the call.
enum class Late { nothing, writes, shuts, closes };

struct Step {
  Act act;
  int set;
  int slot;
  uint32_t events;  // of an interest; of poll and select: one bit for each slot that is asked about
  uint32_t size;    // bytes; of wait: room for events; of shuts: how
  uint32_t manner;  // which of several calls that do the same, and other small choices
  Late late;
};

struct Plan {
  uint32_t unaware;  // connections whose peer does not have the library: a bit each
  uint32_t accepted;  // connections of which the program holds the accepting end
  uint32_t warmed_up;
  std::vector<Step> steps;
};

Plan plan_of(uint64_t seed);
std::string shown(const Step& step);
std::string shown_events(uint32_t events);

}  // namespace shunt::differential
