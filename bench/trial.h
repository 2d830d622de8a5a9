// One trial: a server and a client process on a socket in a private directory, and what they left behind.
// Called by the one thread of shunt_bench. Ends only processes that it started.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "workload.h"

namespace shunt::bench {

enum class Mode { kernel, shunt };

struct Setting {
  Task task;                     // paths are filled in by run_trial
  std::vector<int> cpus;         // none: wherever the scheduler likes; [0] server, [1] or [0] client
  std::string library;           // libshunt.so
  std::string upgrade = "auto";  // SHUNT_UPGRADE
};

// Sums over the reports of one end.
struct EndReport {
  uint64_t upgraded = 0;
  uint64_t demoted = 0;
  uint64_t ring_bytes = 0;
  uint64_t kernel_bytes = 0;
  uint64_t sleeps = 0;
  std::string plain;  // "short-lived: 3, ..." or empty
};

struct Trial {
  Result result;
  EndReport server;  // zeros in Mode::kernel
  EndReport client;
};

// Throws std::runtime_error when a process failed.
Trial run_trial(const Setting& setting, Mode mode);

// The part of main() for the processes that run_trial starts; nullopt in any other process.
std::optional<int> run_role(int argc, char** argv);

// Unrelated processes that want the CPU all the time. Ended with this object, and by themselves after ten minutes.
class Spinners {
 public:
  explicit Spinners(int count);
  ~Spinners();
  Spinners(const Spinners&) = delete;
  Spinners& operator=(const Spinners&) = delete;

 private:
  std::vector<pid_t> pids_;
};

}  // namespace shunt::bench
