// What the two processes of one trial do: plain blocking sockets, one thread each, written as any program would.
// Called once in a process of its own, which knows nothing about Shunt. Must not share code with the library.
#pragma once

#include <cstdint>
#include <string>

namespace shunt::bench {

enum class Workload { pingpong, oneway, cycles };

struct Task {
  Workload workload = Workload::pingpong;
  uint64_t size_bytes = 64;  // of one message, both ways
  uint64_t count = 100'000;  // round trips (pingpong), connections (cycles)
  double seconds = 1.0;      // how long to send (oneway)
  std::string socket_path;   // where the server listens
  std::string result_path;   // one JSON object: the client's for pingpong and cycles, the server's for oneway
};

// Figures are 0 where a workload does not have them.
struct Result {
  double median_ns = 0;  // one round trip, or one connect + request + reply + close
  double p99_ns = 0;
  double messages_per_s = 0;  // whole messages received
  double bytes_per_s = 0;
};

// Return the exit status. `ready_fd` gets one byte when the server listens.
int run_server(const Task& task, int ready_fd);
int run_client(const Task& task);

}  // namespace shunt::bench
