// The option table as the command sees it: which keys there are, and whether a value is one of those shown.
// Called by the command's other parts and by tests, from one thread.
// Must not know an option by name: what a key takes is written in src/config/options.def and nowhere else.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace shunt::cli {

struct Option {
  std::string_view key;
  std::string_view variable;
  std::string_view fallback;  // the value that leaving it out means
  std::string_view values;    // as shown to a user, and the grammar that check_value reads
  std::string_view help;
};

std::span<const Option> options();

// One variable to put into the program's environment.
struct Setting {
  std::string variable;
  std::string value;
};

// "KEY=VALUE" as --set takes it. Files become absolute, because the program may change its directory.
// Throws Error (usage), which lists the keys or the values that are valid.
Setting parse_setting(std::string_view assignment);

// Does `values` show something that `value` is? Words, WORD:NUMBER, LOW .. HIGH, FILE, GLOB, and an optional :FILE.
enum class Match { no, yes, grammar_unknown };
Match match_value(std::string_view values, std::string_view value);

// The table for --help: one line for each option, and one below it with the values and the default.
std::string option_table();

}  // namespace shunt::cli
