// Where libshunt.so is, and how it enters LD_PRELOAD.
// Called by the run command and tests. Looks at files, changes nothing.
// Must not hand out a path that the loader would misread: it splits LD_PRELOAD at blanks and colons.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "cli/elf_file.h"

namespace shunt::cli {

// Where an installation or a build keeps the library, relative to the directory of the command.
std::vector<std::filesystem::path> library_candidates(const std::filesystem::path& command_directory);

// SHUNT_LIBRARY if it is set and not empty, else the first candidate that exists; absolute.
// Throws Error if there is none or if it is no shared library of this kind.
std::filesystem::path find_library(const ElfKind& kind);

// The entries of `preload` that are not Shunt's own, in their order.
std::string preload_without_shunt(std::string_view preload, const std::filesystem::path& library);

// The same with `library` in front: a library that was there first still wraps, but behind Shunt.
std::string preload_with_shunt(std::string_view preload, const std::filesystem::path& library);

}  // namespace shunt::cli
