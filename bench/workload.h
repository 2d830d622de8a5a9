// What the two processes of one trial do: plain blocking sockets, one thread each, written as any program would.
// Called once in a process of its own, which knows nothing about Shunt. Must not share code with the library.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace shunt::bench {

enum class Workload { pingpong, oneway, cycles, readiness };

struct Task {
  Workload workload = Workload::pingpong;
  uint64_t size_bytes = 64;  // of one message, both ways
  uint64_t count = 100'000;  // round trips (pingpong), connections (cycles)
  double seconds = 1.0;      // how long to send (oneway) or echo (readiness)
  uint64_t idle = 0;         // connections without traffic (readiness)
  uint64_t hot = 1;          // connections with one message on its way each (readiness)
  double idle_seconds = 0;   // how long everything rests afterwards (readiness); 0: not at all
  bool edge = false;         // edge triggered (readiness)
  std::string socket_path;   // where the server listens
  std::string result_path;   // one JSON object: the client's, for oneway the server's
};

// Figures are 0 where a workload does not have them.
struct Result {
  double median_ns = 0;  // one round trip, or one connect + request + reply + close
  double p99_ns = 0;
  double messages_per_s = 0;  // whole messages received
  double bytes_per_s = 0;
  double idle_cpu_us_per_s = 0;  // CPU time of both processes while every connection is idle
  double memory_bytes = 0;       // of the machine, per connection
};

void store(const Task& task, const Result& result);
Result summary_of(std::vector<double>& samples_ns, double elapsed_s, uint64_t size_bytes);

// Return the exit status. `ready_fd` gets one byte when the server listens.
int run_server(const Task& task, int ready_fd);
int run_client(const Task& task);

}  // namespace shunt::bench
