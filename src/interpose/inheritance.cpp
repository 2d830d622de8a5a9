// See inheritance.h. The kernel's rule for what cannot be read is EFAULT: such an environment goes to it unchanged.
#include "interpose/inheritance.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstring>

#include "calls/common.h"
#include "sys/raw.h"

namespace shunt::interpose {
namespace {

constexpr const char* kNames[] = {
    "LD_PRELOAD",
#define SHUNT_OPTION(key, variable, ...) variable,
#include "config/options.def"
#undef SHUNT_OPTION
};
constexpr size_t kKinds = sizeof kNames / sizeof *kNames;
constexpr size_t kMostEntries = 100'000;  // more of them the kernel would hardly take

// Copies: programs write over the memory of their first environment.
char store[16384];
size_t stored = 0;
char* given[kKinds];       // null: was not there
const char* library = "";  // a path

bool names(const char* entry, const char* name) {
  const size_t length = strlen(name);
  return strncmp(entry, name, length) == 0 && entry[length] == '=';
}

// Who may not read the library would be told so by the loader, on standard error.
bool is_reachable() { return sys::raw(SYS_faccessat, AT_FDCWD, library, R_OK) == 0; }

}  // namespace

void note_inheritance(char** environment) {
  Dl_info self{};
  if (dladdr(reinterpret_cast<void*>(&note_inheritance), &self) != 0 && self.dli_fname) library = self.dli_fname;
  for (; environment && *environment; ++environment)
    for (size_t kind = 0; kind < kKinds; ++kind) {
      const size_t bytes = strlen(*environment) + 1;
      if (given[kind] || !names(*environment, kNames[kind]) || bytes > sizeof store - stored) continue;
      given[kind] = static_cast<char*>(memcpy(store + stored, *environment, bytes));
      stored += bytes;
    }
}

Inheritance inheritance_of(char* const* environment) {
  Inheritance found{0, 0};
  bool there[kKinds] = {};
  for (char* const* entry = environment; environment; ++entry, ++found.entries) {
    if (calls::unreadable(entry, sizeof *entry) || found.entries > kMostEntries) return {0, 0};
    if (!*entry) break;
    if (calls::unreadable(*entry, 1)) return {0, 0};
    for (size_t kind = 0; kind < kKinds; ++kind) there[kind] = there[kind] || names(*entry, kNames[kind]);
  }
  if (there[0] || !given[0] || !is_reachable()) return found;
  for (size_t kind = 0; kind < kKinds; ++kind) found.lacking += given[kind] && !there[kind];
  return found;
}

char** complete(char* const* environment, Inheritance inheritance, char** whole) {
  char** end = whole;
  for (size_t i = 0; i < inheritance.entries; ++i) *end++ = environment[i];
  for (size_t kind = 0; kind < kKinds; ++kind) {
    bool there = false;
    for (size_t i = 0; i < inheritance.entries; ++i) there = there || names(environment[i], kNames[kind]);
    if (given[kind] && !there) *end++ = given[kind];
  }
  *end = nullptr;
  return whole;
}

}  // namespace shunt::interpose
