// Which interpreter runs a script: the kernel's reading of "#!", and env(1)'s of its argument.
// Called by program inspection and tests. Reads the first bytes of one file.
// Must not interpret more of env than is certain: an option that it does not know ends the search at env itself.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace shunt::cli {

struct ScriptLine {
  std::string interpreter;
  std::string argument;  // the rest of the line, in one piece, as the kernel passes it

  bool is_env() const;

  // What env will look for in PATH. None when that cannot be told, or when this is not env.
  std::optional<std::string> env_program() const;
};

// `start` is the start of a file. None when the kernel would refuse it (ENOEXEC).
std::optional<ScriptLine> parse_script_line(std::string_view start);

// None when the file is an ELF file or cannot be read. A file without "#!" goes to /bin/sh, as with execvp.
std::optional<ScriptLine> read_script_line(const std::filesystem::path& path);

}  // namespace shunt::cli
