// Plays a script on a connection and on the kernel's reference, in lock step, and finds the shortest script that
// differs. One thread.
#pragma once

#include <optional>
#include <string>

#include "script.h"

namespace shunt::differential {

// What differed, and where; nullopt when the script plays the same on both.
std::optional<std::string> difference(const Script& script, const std::string& directory);

// A script that still differs, from which no single operation can be taken away.
Script shortest(Script script, const std::string& directory);

// Both must hold at least what the kernel's own socket holds: programs rely on it not to deadlock.
std::optional<std::string> capacity_difference(const std::string& directory);

}  // namespace shunt::differential
