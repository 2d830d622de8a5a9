// Finds the file that execvp would start, so that it can be looked at before it runs.
// Called by the run command and by program inspection (for "#!/usr/bin/env X").
// Must not differ from execvp: a name with a slash is a path, an empty PATH entry is the current directory.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace shunt::cli {

struct ProgramSearch {
  std::optional<std::filesystem::path> file;  // always contains a slash
  int error;                                  // when there is no file: ENOENT, EACCES, EISDIR
};

ProgramSearch find_program(const std::string& name);

}  // namespace shunt::cli
