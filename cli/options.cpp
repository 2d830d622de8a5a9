// Reads the option table, checks values against what the table shows, and prints it.
// Called by the command's other parts and by tests, from one thread.
// Must not look at the files that options name: the program may have rights that this command lacks.
#include "cli/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <system_error>

#include "cli/error.h"

namespace shunt::cli {
namespace {

#define SHUNT_OPTION(key, variable, fallback, values, help) Option{#key, variable, fallback, values, help},
constexpr std::array kOptions = {
#include "src/config/options.def"
};
#undef SHUNT_OPTION

constexpr std::string_view kAlternative = " | ";
constexpr std::string_view kRange = " .. ";
constexpr std::string_view kOptionalFile = ", then optionally :FILE";
constexpr std::string_view kFile = "FILE";

std::optional<uint64_t> number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool is_placeholder(std::string_view word) {
  return !word.empty() && std::all_of(word.begin(), word.end(), [](char c) { return c >= 'A' && c <= 'Z'; });
}

Match yes_if(bool condition) { return condition ? Match::yes : Match::no; }

Match match_placeholder(std::string_view placeholder, std::string_view value) {
  if (placeholder == kFile || placeholder == "GLOB") return yes_if(!value.empty());
  if (placeholder == "SEED") return yes_if(number(value).has_value());
  return Match::grammar_unknown;
}

Match match_alternative(std::string_view shown, std::string_view value) {
  if (const size_t dots = shown.find(kRange); dots != shown.npos) {
    const auto low = number(shown.substr(0, dots));
    const auto high = number(shown.substr(dots + kRange.size()));
    if (!low || !high) return Match::grammar_unknown;
    const auto given = number(value);
    return yes_if(given && *given >= *low && *given <= *high);
  }
  if (is_placeholder(shown)) return match_placeholder(shown, value);
  if (const size_t colon = shown.find(':'); colon != shown.npos) {
    const std::string_view head = shown.substr(0, colon + 1);
    const bool same_head = value.substr(0, head.size()) == head;
    return match_placeholder(shown.substr(head.size()), same_head ? value.substr(head.size()) : std::string_view{});
  }
  return yes_if(shown == value);
}

std::string absolute(std::string_view file) { return std::filesystem::absolute(file).lexically_normal().string(); }

std::string with_absolute_file(const Option& option, std::string_view value) {
  if (value.empty()) return {};
  if (option.values == kFile) return absolute(value);
  const size_t colon = value.find(':');
  if (!option.values.ends_with(kOptionalFile) || colon == value.npos) return std::string(value);
  return fmt::format("{}:{}", value.substr(0, colon), absolute(value.substr(colon + 1)));
}

std::string list_of_keys() {
  std::string keys;
  for (const Option& option : kOptions) keys += fmt::format("{}{}", keys.empty() ? "" : ", ", option.key);
  return keys;
}

}  // namespace

std::span<const Option> options() { return kOptions; }

Match match_value(std::string_view values, std::string_view value) {
  if (values.ends_with(kOptionalFile)) {
    values.remove_suffix(kOptionalFile.size());
    const size_t colon = value.find(':');
    if (colon + 1 == value.size()) return Match::no;  // the colon promises a file
    value = value.substr(0, colon);
  }
  Match best = Match::no;
  while (true) {
    const size_t end = values.find(kAlternative);
    const Match match = match_alternative(values.substr(0, end), value);
    if (match == Match::grammar_unknown) return match;
    if (match == Match::yes) best = match;
    if (end == values.npos) return best;
    values.remove_prefix(end + kAlternative.size());
  }
}

Setting parse_setting(std::string_view assignment) {
  const size_t equals = assignment.find('=');
  const std::string_view key = assignment.substr(0, equals);
  if (equals == assignment.npos) {
    throw Error(ExitStatus::usage,
                fmt::format("'{}' sets nothing: there is no '='.\n  Write --set KEY=VALUE, where KEY is one of: {}",
                            assignment, list_of_keys()));
  }
  const auto option = std::find_if(kOptions.begin(), kOptions.end(), [&](const Option& o) { return o.key == key; });
  if (option == kOptions.end()) {
    throw Error(ExitStatus::usage,
                fmt::format("there is no option '{}'.\n  Valid options are: {}", key, list_of_keys()));
  }
  const std::string_view value = assignment.substr(equals + 1);
  if (value != option->fallback && match_value(option->values, value) != Match::yes) {
    throw Error(ExitStatus::usage,
                fmt::format("'{}' is no value of option '{}'.\n  Valid values are: {}", value, key, option->values));
  }
  return Setting{std::string(option->variable), with_absolute_file(*option, value)};
}

std::string option_table() {
  std::string table = "Options of --set, and the environment variables that they become:\n";
  for (const Option& option : kOptions) {
    table += fmt::format("  {:<10}{:<16}{}\n", option.key, option.variable, option.help);
    table += fmt::format("  {:<26}{} (default: {})\n", "", option.values,
                         option.fallback.empty() ? "none" : option.fallback);
  }
  table.pop_back();  // whoever prints it ends the line
  return table;
}

}  // namespace shunt::cli
