// Runs a program and tells what came of it.
// Called by tests, from one thread.
// Must not share the test's environment: the program gets PATH and what the test names, nothing else.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace shunt::cli {

struct Outcome {
  int exit_status;  // -1 when a signal ended it
  int signal;       // 0 when it exited
  std::string output;
  std::string errors;
};

struct Start {
  std::vector<std::string> command;
  std::vector<std::string> environment = {};
  std::filesystem::path directory = "/";
  std::function<void()> before_exec = {};  // in the child; may change its credentials
};

Outcome run_process(const Start& start);

}  // namespace shunt::cli
