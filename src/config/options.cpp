// Parses the SHUNT_* environment. Runs once, before main, on one thread; must not allocate or fail.
#include "config/options.h"

#include <cstdlib>
#include <cstring>
#include <fnmatch.h>

namespace shunt {
namespace {

const char* value_of(char** environment, const char* name) {
  const size_t length = strlen(name);
  for (char** entry = environment; entry && *entry; ++entry)
    if (strncmp(*entry, name, length) == 0 && (*entry)[length] == '=') return *entry + length + 1;
  return nullptr;
}

template <size_t N>
void copy_text(char (&to)[N], const char* from) {
  if (strlen(from) < N) strcpy(to, from);
}

bool is_number(const char* text) { return *text && text[strspn(text, "0123456789")] == '\0'; }

void parse_upgrade(Options& options, const char* text) {
  if (strcmp(text, "eager") == 0) options.upgrade = Upgrade::eager;
  if (strcmp(text, "never") == 0) options.upgrade = Upgrade::never;
  if (strncmp(text, "chaos:", 6) == 0 && is_number(text + 6)) {
    options.upgrade = Upgrade::chaos;
    options.chaos_seed = strtoull(text + 6, nullptr, 10);
  }
}

void parse_log(Options& options, const char* text) {
  static constexpr const char* kLevels[] = {"off", "error", "info", "debug"};
  for (uint8_t i = 0; i < 4; ++i) {
    const size_t length = strlen(kLevels[i]);
    if (strncmp(text, kLevels[i], length) != 0 || (text[length] != ':' && text[length] != '\0')) continue;
    options.log_level = static_cast<LogLevel>(i);
    if (text[length] == ':') copy_text(options.log_file, text + length + 1);
  }
}

}  // namespace

Options read_options(char** environment, const char* program) {
  Options options;
  const char* slash = strrchr(program, '/');
  const char* name = slash ? slash + 1 : program;
  if (const char* text = value_of(environment, "SHUNT_UPGRADE")) parse_upgrade(options, text);
  if (const char* text = value_of(environment, "SHUNT_REPORT")) copy_text(options.report_file, text);
  if (const char* text = value_of(environment, "SHUNT_LOG")) parse_log(options, text);
  if (const char* text = value_of(environment, "SHUNT_SPIN_US"); text && is_number(text)) {
    const unsigned long us = strtoul(text, nullptr, 10);  // ULONG_MAX if it is too large
    options.spin_us = us < 1000 ? static_cast<int>(us) : 1000;
  }
  const char* only = value_of(environment, "SHUNT_ONLY");
  const char* skip = value_of(environment, "SHUNT_SKIP");
  options.excluded = (only && *only && fnmatch(only, name, 0) != 0) || (skip && *skip && fnmatch(skip, name, 0) == 0);
  return options;
}

}  // namespace shunt
