// Makes a failing script short.
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>

namespace shunt::differential {

constexpr int kTries = 4;  // chaos does not strike twice at the same place

// A script that still differs, and from which no operation can be taken away. `differs` is asked kTries times.
template <class Script, class Differs>
Script shortest_of(Script script, const Differs& differs) {
  const auto ever_differs = [&](const Script& candidate) {
    for (int i = 0; i < kTries; ++i)
      if (differs(candidate)) return true;
    return false;
  };
  for (size_t chunk = std::max<size_t>(1, script.size() / 2);; chunk = std::max<size_t>(1, chunk / 2)) {
    bool shorter = false;
    for (size_t at = 0; at < script.size();) {
      Script candidate = script;
      const auto from = candidate.begin() + static_cast<ptrdiff_t>(at);
      candidate.erase(from, from + static_cast<ptrdiff_t>(std::min(chunk, script.size() - at)));
      if (ever_differs(candidate)) {
        script = std::move(candidate);
        shorter = true;
      } else {
        at += chunk;
      }
    }
    if (chunk == 1 && !shorter) return script;
  }
}

}  // namespace shunt::differential
