// The library's report at exit (SHUNT_REPORT): one line of JSON per process.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace shunt::behaviour {

struct Report {
  int pid = 0;
  uint64_t upgraded = 0;
  uint64_t demoted = 0;
  uint64_t ring_bytes = 0;  // both directions
  uint64_t kernel_bytes = 0;
  std::map<std::string, uint64_t> plain;
  std::map<std::string, uint64_t> demoted_by;
  std::string text;
};

// Empty when the file is not there. Throws nlohmann::json::exception on a line that is not a report.
std::vector<Report> reports_in(const std::string& path);

}  // namespace shunt::behaviour
