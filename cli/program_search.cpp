// Walks PATH as execvp does: the first file that may be executed wins, one that may not is remembered.
// Called by the run command and by program inspection.
// Must not open the file: that it can be executed says nothing about reading it.
#include "cli/program_search.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string_view>

namespace shunt::cli {
namespace {

// 0 if `path` can be executed by the effective user, which is the one that execve asks about.
int execution_error(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0) return errno;
  if (S_ISDIR(status.st_mode)) return EISDIR;
  if (!S_ISREG(status.st_mode)) return EACCES;
  return faccessat(AT_FDCWD, path.c_str(), X_OK, AT_EACCESS) == 0 ? 0 : errno;
}

std::string search_path() {
  if (const char* path = getenv("PATH")) return path;
  std::string standard(confstr(_CS_PATH, nullptr, 0), '\0');
  confstr(_CS_PATH, standard.data(), standard.size());
  if (!standard.empty()) standard.pop_back();  // the terminating 0
  return standard;
}

}  // namespace

ProgramSearch find_program(const std::string& name) {
  if (name.empty()) return {std::nullopt, ENOENT};
  if (name.find('/') != name.npos) {
    const int error = execution_error(name);
    if (error == 0) return {name, 0};
    return {std::nullopt, error};
  }
  int remembered = ENOENT;
  const std::string path = search_path();
  for (std::string_view rest = path;;) {
    const size_t colon = rest.find(':');
    const std::string_view directory = colon == 0 || rest.empty() ? "." : rest.substr(0, colon);
    const std::string candidate = std::string(directory) + '/' + name;
    const int error = execution_error(candidate);
    if (error == 0) return {candidate, 0};
    if (error == EACCES || error == EISDIR) remembered = EACCES;
    if (colon == rest.npos) return {std::nullopt, remembered};
    rest.remove_prefix(colon + 1);
  }
}

}  // namespace shunt::cli
