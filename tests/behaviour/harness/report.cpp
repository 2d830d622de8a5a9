// Reads reports. The runner's one thread.
#include "report.h"

#include <fstream>
#include <nlohmann/json.hpp>

namespace shunt::behaviour {

std::vector<Report> reports_in(const std::string& path) {
  std::vector<Report> reports;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const nlohmann::json json = nlohmann::json::parse(line);
    const nlohmann::json& connections = json.at("connections");
    const nlohmann::json& ring = json.at("ring");
    const nlohmann::json& kernel = json.at("kernel");
    reports.push_back({.pid = json.at("pid").get<int>(),
                       .upgraded = connections.at("upgraded").get<uint64_t>(),
                       .demoted = connections.at("demoted").get<uint64_t>(),
                       .ring_bytes = ring.at("bytes_out").get<uint64_t>() + ring.at("bytes_in").get<uint64_t>(),
                       .kernel_bytes = kernel.at("bytes_out").get<uint64_t>() + kernel.at("bytes_in").get<uint64_t>(),
                       .plain = connections.at("plain").get<std::map<std::string, uint64_t>>(),
                       .demoted_by = connections.at("demoted_by").get<std::map<std::string, uint64_t>>(),
                       .text = line});
  }
  return reports;
}

}  // namespace shunt::behaviour
