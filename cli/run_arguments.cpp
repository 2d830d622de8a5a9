// Declares the options of `shunt run` and splits its command line.
// Called by main() and tests, from one thread.
// Must not validate values: the option table does.
#include "cli/run_arguments.h"

#include <fmt/format.h>

#include <map>

namespace shunt::cli {
namespace {

constexpr const char* kSet = "--set";
constexpr const char* kShortcuts[] = {"only", "skip", "log", "report"};

std::string help_of(std::string_view key) {
  for (const Option& option : options())
    if (option.key == key) return std::string(option.help);
  return {};
}

std::string values_of(std::string_view key) {
  for (const Option& option : options())
    if (option.key == key) return std::string(option.values);
  return {};
}

bool takes_value(const CLI::App& app, const std::string& name) {
  const CLI::Option* option = app.get_option_no_throw(name);
  return option != nullptr && option->get_items_expected_min() > 0;
}

// The parser takes the word after "--only=" for the value, although the value is there and empty: two words leave no
// doubt.
void append_option(const CLI::App& app, const std::string& word, std::vector<std::string>& to) {
  const size_t equals = word.find('=');
  if (equals == word.npos || !takes_value(app, word.substr(0, equals))) {
    to.push_back(word);
    return;
  }
  to.push_back(word.substr(0, equals));
  to.push_back(word.substr(equals + 1));
}

}  // namespace

RunArguments::RunArguments(CLI::App& run) : run_(run) {
  const auto add = [&](const std::string& name, const std::string& values, const std::string& help) {
    run.add_option(name, help)->type_name(values)->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  };
  for (const char* key : kShortcuts) add(fmt::format("--{}", key), values_of(key), help_of(key));
  add(kSet, "KEY=VALUE", "set an option of the table below; may be repeated");
  run.add_flag("--dry-run", dry_run_, "print what would be done, and do nothing");
  run.footer([] { return option_table(); });
}

std::vector<std::string> RunArguments::take_command(const std::vector<std::string>& words) {
  std::vector<std::string> own;
  auto next = words.begin();
  while (next != words.end() && *next != "--" && next->size() > 1 && next->front() == '-') {
    append_option(run_, *next, own);
    const bool value_follows = takes_value(run_, *next);
    ++next;
    // "--" is never a value: whoever left one out wants to hear of it.
    if (value_follows && next != words.end() && *next != "--") own.push_back(*next++);
  }
  if (next != words.end() && *next == "--") ++next;
  command_.assign(next, words.end());
  return own;
}

std::vector<Setting> RunArguments::settings() const {
  std::vector<Setting> settings;
  std::map<const CLI::Option*, size_t> taken;
  for (const CLI::Option* option : run_.parse_order()) {
    if (option->get_items_expected_min() == 0) continue;
    const std::string value = option->results().at(taken[option]++);
    const std::string name = option->get_name();
    settings.push_back(parse_setting(name == kSet ? value : fmt::format("{}={}", name.substr(2), value)));
  }
  return settings;
}

}  // namespace shunt::cli
