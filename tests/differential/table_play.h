// Compares the table of an accelerated connection with the kernel's, cell by cell, and writes the kernel's down.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "play.h"
#include "table_state.h"

namespace shunt::differential {

// What may differ, by name and reason: docs/limits.md.
struct Rule {
  const char* name;
  const char* reason;
  bool (*excuses)(const Cell& cell, const Setup& setup, Question question, const Answers& ours, const Answers& kernels);
};
const std::vector<Rule>& rules();

// How many times as many cells of the common setups are played, as long as there are so many.
inline constexpr unsigned kRare = 7;
inline unsigned common_step(unsigned every) { return every < kRare ? 1 : every / kRare; }

// True: no cell differs but by a rule. `every`: of the rarer setups one cell of so many, others in each.
bool play_table(const std::string& directory, Fences fences, uint64_t seed, unsigned every);

// The page: the kernel's answers, equal ones in one row.
std::string table_page(const std::string& directory);
std::string asked_of();  // its line that names the kernel

}  // namespace shunt::differential
