// Says before a program starts whether the library can work in it, and if not, why.
// Called by the run command and tests. Reads files, follows "#!" lines to the program that will really run.
// Must not be sure where it cannot know: what it cannot read is taken to run with Shunt.
#pragma once

#include <filesystem>
#include <string>

#include "cli/elf_file.h"
#include "cli/privileges.h"

namespace shunt::cli {

enum class Verdict { with_shunt, statically_linked, elevated, other_machine, other_libc, cannot_start };

// What the program has to fit.
struct Host {
  ElfKind kind;
  Credentials credentials;
};

// This process and its machine. Throws Error if it cannot look at itself.
Host own_host();

struct Inspection {
  Verdict verdict;
  std::string reason;  // "it is statically linked"; empty with Verdict::with_shunt
};

Inspection inspect_program(const std::filesystem::path& program, const Host& host);

// Is LD_PRELOAD of use to the program or to those that it starts? Where the loader would drop it or fail on it: no.
bool preload_is_useful(Verdict verdict);

}  // namespace shunt::cli
