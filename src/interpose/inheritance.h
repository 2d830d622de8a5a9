// What a program that is started gets although its environment was built without it: LD_PRELOAD and the options.
// Any thread, a vfork child too: memory is the caller's. An environment that names LD_PRELOAD, be it empty, is left as it is.
#pragma once

#include <cstddef>

namespace shunt::interpose {

// Once, at start: what this program was given.
void note_inheritance(char** environment);

// How many entries `environment` has (a null one has none), and how many it lacks; `lacking` is 0 if it stays as it is.
struct Inheritance {
  size_t entries, lacking;
};
Inheritance inheritance_of(char* const* environment);

// Fills `whole`, of entries + lacking + 1 pointers, and returns it.
char** complete(char* const* environment, Inheritance inheritance, char** whole);

}  // namespace shunt::interpose

// `variable`: `environment` with what it lacks, on the caller's stack.
#define SHUNT_INHERIT(variable, environment)                                                                                       \
  char* const* variable = environment;                                                                                            \
  if (const auto lack = shunt::interpose::inheritance_of(variable); lack.lacking > 0) {                                            \
    auto* const room = static_cast<char**>(alloca((lack.entries + lack.lacking + 1) * sizeof(char*)));                            \
    variable = shunt::interpose::complete(variable, lack, room);                                                                  \
  }
