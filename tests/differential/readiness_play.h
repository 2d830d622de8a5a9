// Plays a readiness script on both worlds in lock step. One thread, and one more during a step with a late peer.
#pragma once

#include <optional>
#include <string>

#include "play.h"
#include "readiness_script.h"

namespace shunt::differential {

// The first difference; nullopt when the script plays the same on both.
std::optional<std::string> difference(const Plan& plan, const Setting& setting);

// A plan that still differs, and from which no step can be taken away.
Plan shortest(Plan plan, const Setting& setting);

}  // namespace shunt::differential
