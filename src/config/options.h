// The library's options, read once from the environment before main.
// Read-only after start: any thread, any context. Never allocates.
#pragma once

#include <cstdint>

namespace shunt {

enum class Upgrade : uint8_t { automatic, eager, never, chaos };
enum class LogLevel : uint8_t { off, error, info, debug };

struct Options {
  Upgrade upgrade = Upgrade::automatic;
  uint64_t chaos_seed = 0;
  LogLevel log_level = LogLevel::off;
  char log_file[256] = {};     // empty: standard error
  char report_file[4096] = {};  // empty: no report
  int spin_us = -1;            // longest spin before a sleep; −1: as measured
  bool excluded = false;       // this program is not to be accelerated (only, skip)
};

// Reads `environment` (as environ) for the program named `program` (a path). An unreadable value keeps its default.
Options read_options(char** environment, const char* program);

}  // namespace shunt
