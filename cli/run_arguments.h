// The command line of `shunt run`: its options, and where they end and the program begins.
// Called by main() and tests.
// Must not look at what belongs to the program: after the first word that is no option nothing is an option.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "cli/options.h"

namespace shunt::cli {

class RunArguments {
 public:
  // Adds the options of `run` to `run`, which must outlive this.
  explicit RunArguments(CLI::App& run);
  RunArguments(const RunArguments&) = delete;
  RunArguments& operator=(const RunArguments&) = delete;

  // Keeps PROGRAM ARGS of `words` (what follows "run") and returns the options before it, for the parser.
  std::vector<std::string> take_command(const std::vector<std::string>& words);

  // After the parse. In the order given, so that the last of two wins, by whichever name. Throws Error (usage).
  std::vector<Setting> settings() const;
  const std::vector<std::string>& command() const { return command_; }
  bool dry_run() const { return dry_run_; }

 private:
  CLI::App& run_;
  std::vector<std::string> command_;
  bool dry_run_ = false;
};

}  // namespace shunt::cli
