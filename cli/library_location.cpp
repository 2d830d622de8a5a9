// Finds libshunt.so and merges it into LD_PRELOAD.
// Called by the run command and tests, from one thread.
// Must not fall back silently: a SHUNT_LIBRARY that is unusable is an error, not a reason to look elsewhere.
#include "cli/library_location.h"

#include <elf.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdlib>
#include <system_error>

#include "cli/error.h"

namespace shunt::cli {
namespace {

constexpr const char* kLibraryName = "libshunt.so";
constexpr std::string_view kSeparators =
    " :";  // ld.so(8): "The items of the list can be separated by spaces or colons"

bool is_there(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

[[noreturn]] void refuse(const std::filesystem::path& library, const std::string& why) {
  throw Error(ExitStatus::own_failure,
              fmt::format("{} cannot be preloaded: {}.\n  Name another one: SHUNT_LIBRARY=/path/to/{} shunt run ...",
                          library.string(), why, kLibraryName));
}

void check_library(const std::filesystem::path& library, const ElfKind& kind) {
  if (!is_there(library)) refuse(library, "there is no such file");
  if (library.string().find_first_of(" :$") != std::string::npos)
    refuse(library, "the loader reads a blank, ':' or '$' in its path as something else");
  const ElfResult elf = read_elf(library);
  if (!elf.file) refuse(library, elf.error == ElfError::unreadable ? "it cannot be read" : "it is no ELF file");
  if (elf.file->kind != kind)
    refuse(library, fmt::format("it is for {}, this command is for {}", describe(elf.file->kind), describe(kind)));
  if (elf.file->type != ET_DYN) refuse(library, "it is no shared library");
}

bool is_shunt(std::string_view entry, const std::filesystem::path& library) {
  const std::filesystem::path path(entry);
  std::error_code ignored;
  return path.filename() == kLibraryName || path == library || std::filesystem::equivalent(path, library, ignored);
}

}  // namespace

std::vector<std::filesystem::path> library_candidates(const std::filesystem::path& command_directory) {
  const std::filesystem::path lib = command_directory.parent_path() / "lib";
  std::vector<std::filesystem::path> candidates{lib / kLibraryName};
  const std::string_view architecture = SHUNT_LIBRARY_ARCHITECTURE;
  if (!architecture.empty()) candidates.push_back(lib / architecture / kLibraryName);
  candidates.push_back(lib / "shunt" / kLibraryName);
  candidates.push_back(command_directory / kLibraryName);
  return candidates;
}

std::filesystem::path find_library(const ElfKind& kind) {
  if (const char* named = getenv("SHUNT_LIBRARY"); named && *named) {
    auto library = std::filesystem::absolute(named).lexically_normal();
    check_library(library, kind);
    return library;
  }
  std::vector<std::string> looked_at;
  for (const auto& candidate : library_candidates(std::filesystem::read_symlink("/proc/self/exe").parent_path())) {
    if (is_there(candidate)) {
      check_library(candidate, kind);
      return candidate;
    }
    looked_at.push_back(candidate.string());
  }
  throw Error(ExitStatus::own_failure,
              fmt::format("{} was not found, and without it nothing can be accelerated.\n  Looked for: {}\n"
                          "  Install Shunt completely, or name the library: SHUNT_LIBRARY=/path/to/{} shunt run ...",
                          kLibraryName, fmt::join(looked_at, "\n              "), kLibraryName));
}

std::string preload_without_shunt(std::string_view preload, const std::filesystem::path& library) {
  std::string kept;
  while (!preload.empty()) {
    const size_t end = preload.find_first_of(kSeparators);
    const std::string_view entry = preload.substr(0, end);
    if (!entry.empty() && !is_shunt(entry, library)) kept += fmt::format("{}{}", kept.empty() ? "" : ":", entry);
    if (end == preload.npos) break;
    preload.remove_prefix(end + 1);
  }
  return kept;
}

std::string preload_with_shunt(std::string_view preload, const std::filesystem::path& library) {
  const std::string others = preload_without_shunt(preload, library);
  return others.empty() ? library.string() : fmt::format("{}:{}", library.string(), others);
}

}  // namespace shunt::cli
