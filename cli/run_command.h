// `shunt run`: prepares the environment, says what it knows, and becomes the program.
// Called by main() and tests.
// Must not stay around: the program takes this process over, so status and signals are its own.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/options.h"
#include "cli/program_inspection.h"

namespace shunt::cli {

struct RunRequest {
  std::vector<Setting> settings;     // in the order given: a later one wins
  std::vector<std::string> command;  // PROGRAM ARGS, not empty
};

struct EnvironmentChange {
  std::string variable;
  std::optional<std::string> value;  // none: the variable is removed
};

// All that will happen, decided before any of it does.
struct RunPlan {
  std::filesystem::path program;
  std::vector<std::string> command;
  std::vector<EnvironmentChange> environment;
  Inspection inspection;
};

// Throws Error if there is no library or no program.
RunPlan plan_run(const RunRequest& request);

// What --dry-run prints.
std::string describe(const RunPlan& plan);

// Does not return: execs, or throws Error if the kernel refuses.
[[noreturn]] void execute(const RunPlan& plan);

}  // namespace shunt::cli
