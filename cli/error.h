// The one way a part of the command says that it cannot go on.
// Thrown by any part, caught in main() alone, which prints the message and exits with the status.
// The message says what happened, why, and what to do; it must not end in a newline.
#pragma once

#include <stdexcept>
#include <string>

namespace shunt::cli {

// The statuses that shells, env(1) and timeout(1) have in common.
enum class ExitStatus : int { usage = 2, own_failure = 125, not_executable = 126, not_found = 127 };

class Error : public std::runtime_error {
 public:
  Error(ExitStatus status, const std::string& message) : std::runtime_error(message), status_(status) {}
  int status() const { return static_cast<int>(status_); }

 private:
  ExitStatus status_;
};

}  // namespace shunt::cli
