// Plays a script on a connection and on the kernel's reference, in lock step, and finds the shortest script that
// differs. One thread.
#pragma once

#include <optional>
#include <string>

#include "pair.h"
#include "script.h"

namespace shunt::differential {

// At a fence, where a direction changes between kernel and ring, a read may end early: what follows is there for the
// next. Only where fences fall at random is that no difference.
enum class Fences { none, anywhere };

struct Setting {
  std::string directory;
  Fences fences;
  int first_descriptor;  // see Pair::connected()
};

struct Difference {
  Kind kind;         // of the operation that was answered differently
  std::string text;  // which, and how
};

// The first difference; nullopt when the script plays the same on both.
std::optional<Difference> difference(const Script& script, const Setting& setting);

// A script that still differs in an operation of that kind, and from which none can be taken away.
Script shortest(Script script, Kind kind, const Setting& setting);

// Both must hold at least what the kernel's own socket holds: programs rely on it not to deadlock. Tried with writes of `least` bytes and more.
std::optional<std::string> capacity_difference(const Setting& setting, Room room, size_t least);

}  // namespace shunt::differential
