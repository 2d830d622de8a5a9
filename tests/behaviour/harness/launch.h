// Runs one behaviour one way: two processes of this same program on a socket in a private directory.
// The runner's one thread. Must leave no process and no file behind, however the roles end.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "behaviour.h"
#include "report.h"

namespace shunt::behaviour {

inline constexpr const char* kRoleFlag = "--role";
inline constexpr int kFromPeerFd = 3;  // of a role: the side channel
inline constexpr int kToPeerFd = 4;

struct EndOutcome {
  int pid = -1;
  bool ended_well = false;      // status 0, or SIGKILL where that is the behaviour
  std::string how;              // "exited with 1", "hung: ..."
  std::string log;              // what it said
  std::vector<Report> reports;  // of it and its children

  const Report* own_report() const;
};

struct Outcome {
  EndOutcome server;
  EndOutcome client;
};

// `upgrade` is the value of SHUNT_UPGRADE. Throws std::system_error when processes cannot be had.
Outcome run_pair(const Behaviour& behaviour, Way way, const std::string& upgrade);

std::string library_path();  // from SHUNT_LIBRARY or the build; empty when there is none

}  // namespace shunt::behaviour
